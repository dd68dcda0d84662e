//! Other programs on the segment: keepalived is not disturbed, arpwatch and tshark understand what they hear.
//!
//! Run by `make test-neighbours`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::failover::{Fault, trial, wait_for_announcer};
use e2e::lab::{Lab, Options, with_lab};
use e2e::namespace::{Namespace, feed};
use e2e::observer::who_has;
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(60);
/// More than twice the longest time between two announcements of an address at rest.
const RARELY: Duration = Duration::from_secs(150);
/// The address of keepalived's virtual router, and the hardware addresses of its two hosts.
const VIRTUAL_ROUTER: &str = "192.168.1.90";
const ROUTER_A: &str = "02:00:00:00:01:61";
const ROUTER_B: &str = "02:00:00:00:01:62";

#[test]
#[ignore = "needs the lab: make test-neighbours"]
fn keepalived_arpwatch_and_tshark_understand_what_they_hear() -> Result<()> {
    with_lab(&Options::foghorn("neighbours"), |lab| {
        let hosts = [
            lab.plug_in_host("router-a", 0x61, &["192.168.1.61/24"])?,
            lab.plug_in_host("router-b", 0x62, &["192.168.1.62/24"])?,
        ];
        let onlooker = lab.plug_in_host("onlooker", 0x63, &["192.168.1.63/24"])?;
        let folder = lab.folder.path().to_owned();
        let capture = folder.join("lan.pcap");
        let mut tshark = capturing_tshark(&onlooker, &folder, &capture)?;
        let _arpwatch = arpwatch(&onlooker, &folder)?;
        let routers: Vec<_> = hosts
            .iter()
            .zip([150, 100])
            .map(|(host, priority)| keepalived(host, &folder, priority))
            .collect::<Result<_>>()?;
        wait_for_owner_of_theirs(lab, ROUTER_A)?;
        let vips = lab.serve_web(PATIENCE)?;
        our_address_moves_and_theirs_stays(lab, &vips)?;
        their_address_moves_and_ours_stay(lab, &vips, routers)?;
        arpwatch_notes_the_move(lab, ipv4_of(&vips)?, &folder.join("arpwatch.log"))?;
        tshark.end()?;
        tshark_reads_what_the_standards_want(lab, &vips, &capture)
    })
}

fn our_address_moves_and_theirs_stays(lab: &mut Lab, vips: &[IpAddr]) -> Result<()> {
    println!("-- our address moves; their address stays");
    for &vip in vips {
        let moved = trial(lab, vip, Fault::LinkDown)?;
        println!(
            "{vip}: {} -> {} after {} ms",
            moved.before,
            moved.after,
            moved.gap.as_millis()
        );
        ensure!(owners_of_theirs(lab)? == [ROUTER_A], "theirs moved");
    }
    Ok(())
}

fn their_address_moves_and_ours_stay(
    lab: &mut Lab,
    vips: &[IpAddr],
    routers: Vec<Background>,
) -> Result<()> {
    println!("-- their address moves; our addresses stay");
    let mut nodes = BTreeMap::new();
    for &vip in vips {
        nodes.insert(vip, wait_for_announcer(lab, vip)?);
    }
    let mut routers = routers.into_iter();
    drop(routers.next());
    wait_for_owner_of_theirs(lab, ROUTER_B)?;
    for (&vip, &node) in &nodes {
        ensure!(
            wait_for_announcer(lab, vip)? == node,
            "{vip} moved with theirs"
        );
    }
    for node in &mut lab.nodes {
        let log = node.speaker_mut()?.log_text()?;
        ensure!(
            !log.contains(VIRTUAL_ROUTER),
            "theirs is none of our business:\n{log}"
        );
    }
    Ok(())
}

fn arpwatch_notes_the_move(lab: &mut Lab, vip: IpAddr, report: &Path) -> Result<()> {
    println!("-- what arpwatch noted");
    // It takes no notice of a station that changes within seconds; owners announce every 30 to 60 s for ever.
    let noted = |subject: &str| -> Result<Option<String>> {
        let text = fs::read_to_string(report)?;
        let line = format!("Subject: {subject} ({vip})");
        Ok(text
            .lines()
            .any(|found| found.starts_with(&line))
            .then_some(text))
    };
    wait::until("the station in arpwatch's report", RARELY, || {
        noted("new station")
    })?;
    trial(lab, vip, Fault::LinkDown)?;
    let subject = "changed ethernet address";
    let text = wait::until("the move in arpwatch's report", RARELY, || noted(subject))?;
    for line in text.lines().filter(|line| line.contains("Subject")) {
        println!("arpwatch: {line}");
    }
    Ok(())
}

fn tshark_reads_what_the_standards_want(lab: &Lab, vips: &[IpAddr], capture: &Path) -> Result<()> {
    println!("-- what tshark read");
    let macs = lab.nodes.iter().map(|node| node.number.mac());
    let ours = macs
        .map(|mac| format!("eth.src=={mac}"))
        .collect::<Vec<_>>()
        .join(" or ");
    let ipv4 = ipv4_of(vips)?;
    let gratuitous = read(
        capture,
        &format!("({ours}) and arp.isgratuitous==1 and arp.src.proto_ipv4=={ipv4}"),
    )?;
    ensure!(
        gratuitous.len() >= 4,
        "gratuitous ARP of two owners, as requests and replies: {gratuitous:?}"
    );
    let ipv6 = vips.iter().find(|vip| vip.is_ipv6());
    let ipv6 = ipv6.context("no IPv6 address")?;
    let advertised = read(
        capture,
        &format!(
            "({ours}) and icmpv6.type==136 and icmpv6.nd.na.flag.o==1 and icmpv6.nd.na.target_address=={ipv6} and ipv6.dst==ff02::1 and ipv6.hlim==255"
        ),
    )?;
    ensure!(
        advertised.len() >= 2,
        "unsolicited advertisements of two owners: {advertised:?}"
    );
    println!(
        "{} gratuitous ARP, {} unsolicited advertisements",
        gratuitous.len(),
        advertised.len()
    );
    let malformed = read(
        capture,
        &format!(
            "({ours}) and (_ws.malformed or icmpv6.checksum.status==0 or _ws.expert.severity==\"Error\")"
        ),
    )?;
    ensure!(malformed.is_empty(), "tshark complains: {malformed:?}");
    Ok(())
}

fn ipv4_of(vips: &[IpAddr]) -> Result<IpAddr> {
    let ipv4 = vips.iter().find(|vip| vip.is_ipv4());
    ipv4.copied().context("no IPv4 address")
}

/// The hardware addresses that answer for the virtual router.
fn owners_of_theirs(lab: &Lab) -> Result<Vec<String>> {
    let answerers = who_has(&lab.client, VIRTUAL_ROUTER.parse()?)?;
    Ok(answerers.into_iter().map(|one| one.mac).collect())
}

fn wait_for_owner_of_theirs(lab: &Lab, mac: &str) -> Result<()> {
    wait::until(&format!("{mac} as the virtual router"), PATIENCE, || {
        Ok((owners_of_theirs(lab)? == [mac]).then_some(()))
    })
}

/// tshark that writes down what it hears of ARP and neighbour discovery.
fn capturing_tshark(onlooker: &Namespace, folder: &Path, capture: &Path) -> Result<Background> {
    Background::start(
        onlooker
            .command("tshark")
            .args([
                "-q",
                "-i",
                "eth0",
                "-f",
                "arp or (icmp6 and ip6[40] >= 135 and ip6[40] <= 136)",
                "-w",
            ])
            .arg(capture),
        &folder.join("tshark.log"),
    )
}

/// What tshark finds in its capture, packet by packet.
fn read(capture: &Path, filter: &str) -> Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture).args([
        "-Y",
        filter,
        "-T",
        "fields",
        "-e",
        "eth.src",
        "-e",
        "arp.src.proto_ipv4",
        "-e",
        "icmpv6.nd.na.target_address",
        "-e",
        "_ws.expert.message",
    ]);
    let text = e2e::namespace::output(&mut command)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// arpwatch, whose report is its log.
fn arpwatch(onlooker: &Namespace, folder: &Path) -> Result<Background> {
    let watched = folder.join("arp.dat");
    fs::write(&watched, "")?;
    Background::start(
        onlooker
            .command("arpwatch")
            .args(["-d", "-i", "eth0", "-N", "-f"])
            .arg(&watched),
        &folder.join("arpwatch.log"),
    )
}

/// keepalived with the virtual router.
fn keepalived(host: &Namespace, folder: &Path, priority: u32) -> Result<Background> {
    let name = host.name();
    let configuration = folder.join(format!("keepalived-{name}.conf"));
    fs::write(
        &configuration,
        format!(
            "global_defs {{\n vrrp_garp_master_delay 1\n}}\nvrrp_instance lan {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int 1\n virtual_ipaddress {{\n  {VIRTUAL_ROUTER}/24\n }}\n}}\n"
        ),
    )?;
    Background::start(
        host.command("keepalived")
            .args([
                "--dont-fork",
                "--vrrp",
                "--log-console",
                "--log-detail",
                "-f",
            ])
            .arg(&configuration)
            .arg("--pid")
            .arg(folder.join(format!("keepalived-{name}.pid")))
            .arg("--vrrp_pid")
            .arg(folder.join(format!("keepalived-{name}-vrrp.pid"))),
        &folder.join(format!("keepalived-{name}.log")),
    )
}

/// A program of others that runs until it is dropped.
struct Background(Child);

impl Background {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        Ok(Self(child))
    }

    /// Asks it to end, and waits for that.
    fn end(&mut self) -> Result<()> {
        feed(Command::new("kill").arg(self.0.id().to_string()), "")?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.end();
    }
}
