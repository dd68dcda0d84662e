//! Other machines on the segment: one that has an address of a pool, keepalived, arpwatch, and what tshark reads.
//!
//! Run by `make test-neighbours`.

#![expect(clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Protocol, Question, Target};
use e2e::failover::{Fault, trial, wait_for_announcer};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{TCP_PORT, deployment, load_balancer, pool_yaml};
use e2e::namespace::{Namespace, feed};
use e2e::observer::who_has;
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
#[ignore = "needs the lab: make test-neighbours"]
fn an_address_that_another_machine_has_is_not_announced() -> Result<()> {
    with_lab(&Options::foghorn("conflict"), |lab| {
        let printer =
            lab.plug_in_host("printer", 0x51, &["192.168.1.201/24", "192.168.1.202/24"])?;
        lab.kubectl
            .apply(&pool_yaml("lan", &["192.168.1.201-192.168.1.210"]))?;
        lab.api.create(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("web", 3),
        )?;
        lab.wait_for_pods("web", 3, PATIENCE)?;

        println!(
            "-- a Service that did not choose gets another address, and another one if that is taken too"
        );
        lab.api.create(SERVICES, &single_stack("web", None))?;
        let free: IpAddr = "192.168.1.203".parse()?;
        wait::until("an address that nobody has", PATIENCE, || {
            Ok((lab.external_addresses("default", "web")? == [free]).then_some(()))
        })?;
        wait_for_announcer(lab, free)?;
        answers(lab, free)?;
        let said = events(lab, "web")?;
        for words in [
            "192.168.1.201 is in use by another machine with the hardware address 02:00:00:00:01:51",
            "192.168.1.202 is in use by another machine with the hardware address 02:00:00:00:01:51",
            "192.168.1.201 is in use by a machine on the LAN with the hardware address 02:00:00:00:01:51, as node node-",
        ] {
            ensure!(said.contains(words), "no Event says \"{words}\":\n{said}");
        }

        println!("-- one that asked for the address keeps it and waits until the machine is gone");
        let wanted: IpAddr = "192.168.1.201".parse()?;
        lab.api
            .create(SERVICES, &single_stack("wish", Some("192.168.1.201")))?;
        let record =
            "/apis/foghorn.dev/v1alpha1/namespaces/default/servicel2statuses/wish.192.168.1.201";
        wait::until("a record that names the machine", PATIENCE, || {
            let found = lab.api.get(record).unwrap_or_default();
            Ok((found["status"]["conflict"]["mac"] == "02:00:00:00:01:51").then_some(()))
        })?;
        let pending = lab.external_addresses("default", "wish")?;
        ensure!(
            pending.is_empty() || pending == [wanted],
            "it asked for {wanted} and has {pending:?}"
        );
        let answerers = who_has(&lab.client, wanted)?;
        ensure!(
            answerers.iter().all(|one| one.node.is_none()) && answerers.len() == 1,
            "the machine alone answers, not {answerers:?}"
        );
        printer.configure("addr del 192.168.1.201/24 dev eth0")?;
        let owner = wait_for_announcer(lab, wanted)?;
        println!("{owner} announces {wanted}");
        wait::until("an EXTERNAL-IP", PATIENCE, || {
            Ok((lab.external_addresses("default", "wish")? == [wanted]).then_some(()))
        })?;

        println!("-- one that everybody knows stays, and is defended");
        printer.configure("addr add 192.168.1.203/24 dev eth0")?;
        printer
            .output(
                "arping",
                &[
                    "-U",
                    "-c",
                    "3",
                    "-w",
                    "3",
                    "-i",
                    "eth0",
                    "-S",
                    "192.168.1.203",
                    "192.168.1.203",
                ],
            )
            .or_else(|_| {
                printer.output(
                    "arping",
                    &[
                        "-P",
                        "-U",
                        "-c",
                        "3",
                        "-w",
                        "3",
                        "-i",
                        "eth0",
                        "-S",
                        "192.168.1.203",
                        "192.168.1.203",
                    ],
                )
            })
            .or_else(|error| Ok::<_, anyhow::Error>(format!("{error:#}")))?;
        wait::until("an Event about the defence", PATIENCE, || {
            Ok(events(lab, "web")?
                .contains("claims 192.168.1.203: defended")
                .then_some(()))
        })?;
        ensure!(
            lab.external_addresses("default", "web")? == [free],
            "it moved"
        );
        Ok(())
    })
}

fn single_stack(name: &str, address: Option<&str>) -> Value {
    let mut service = load_balancer(name);
    service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    service["spec"]["ipFamilies"] = json!(["IPv4"]);
    service["spec"]["selector"] = json!({"app": "web"});
    if let Some(address) = address {
        service["metadata"]["annotations"] = json!({"foghorn.dev/loadBalancerIPs": address});
    }
    service
}

/// What the Events about a Service say.
fn events(lab: &Lab, service: &str) -> Result<String> {
    let list = lab
        .api
        .get("/apis/events.k8s.io/v1/namespaces/default/events")?;
    let items = list["items"].as_array().into_iter().flatten();
    let about = items.filter(|event| event["regarding"]["name"] == service);
    Ok(about
        .filter_map(|event| event["note"].as_str())
        .collect::<Vec<_>>()
        .join("\n"))
}

fn answers(lab: &Lab, address: IpAddr) -> Result<()> {
    let target = Target {
        address: at(address, TCP_PORT),
        protocol: Protocol::Tcp,
    };
    let stream = Stream::start(&lab.client, target, Question::Hostname, Pace::DENSE)?;
    stream.wait_for_answer(Duration::ZERO, PATIENCE, |_| true)?;
    stream.stop().map(drop)
}

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
        let mut tshark = Background::start(
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
                .arg(&capture),
            &folder.join("tshark.log"),
        )?;
        let watched = folder.join("arp.dat");
        fs::write(&watched, "")?;
        let _arpwatch = Background::start(
            onlooker
                .command("arpwatch")
                .args(["-d", "-i", "eth0", "-N", "-f"])
                .arg(&watched),
            &folder.join("arpwatch.log"),
        )?;
        let routers: Vec<_> = hosts
            .iter()
            .zip([150, 100])
            .map(|(host, priority)| keepalived(host, &folder, priority))
            .collect::<Result<_>>()?;
        let virtual_router: IpAddr = "192.168.1.90".parse()?;
        let owner_of_theirs = |lab: &Lab| -> Result<Vec<String>> {
            let answerers = who_has(&lab.client, virtual_router)?;
            Ok(answerers.into_iter().map(|one| one.mac).collect())
        };
        wait::until("a virtual router", PATIENCE, || {
            Ok((owner_of_theirs(lab)? == ["02:00:00:00:01:61"]).then_some(()))
        })?;

        println!("-- our address moves; their address stays");
        let vips = lab.serve_web(PATIENCE)?;
        let mut nodes = BTreeMap::new();
        for &vip in &vips {
            let moved = trial(lab, vip, Fault::LinkDown)?;
            println!(
                "{vip}: {} -> {} after {} ms",
                moved.before,
                moved.after,
                moved.gap.as_millis()
            );
            nodes.insert(vip, moved.after);
            ensure!(
                owner_of_theirs(lab)? == ["02:00:00:00:01:61"],
                "theirs moved"
            );
        }

        println!("-- their address moves; our addresses stay");
        for &vip in &vips {
            nodes.insert(vip, wait_for_announcer(lab, vip)?);
        }
        let mut routers = routers.into_iter();
        drop(routers.next());
        wait::until("the other router", PATIENCE, || {
            Ok((owner_of_theirs(lab)? == ["02:00:00:00:01:62"]).then_some(()))
        })?;
        for (&vip, &node) in &nodes {
            ensure!(
                wait_for_announcer(lab, vip)? == node,
                "{vip} moved with theirs"
            );
        }
        for node in &mut lab.nodes {
            let log = node.speaker_mut()?.log_text()?;
            ensure!(
                !log.contains("192.168.1.90"),
                "theirs is none of our business:\n{log}"
            );
        }

        println!("-- what arpwatch noted");
        let macs: Vec<String> = lab.nodes.iter().map(|node| node.number.mac()).collect();
        let ipv4 = vips
            .iter()
            .find(|vip| vip.is_ipv4())
            .context("no IPv4 address")?;
        let notes = wait::until("the move in arpwatch's report", PATIENCE, || {
            let text = fs::read_to_string(folder.join("arpwatch.log"))?;
            Ok((text.contains(&ipv4.to_string())
                && (text.contains("changed ethernet address") || text.contains("flip flop")))
            .then_some(text))
        })?;
        for line in notes
            .lines()
            .filter(|line| line.contains("subject") || line.contains(&ipv4.to_string()))
        {
            println!("arpwatch: {}", line.trim());
        }

        println!("-- what tshark read");
        tshark.end()?;
        let read = |filter: &str| -> Result<Vec<String>> {
            let mut command = Command::new("tshark");
            command.args(["-n", "-r"]).arg(&capture).args([
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
        };
        let ours = macs
            .iter()
            .map(|mac| format!("eth.src=={mac}"))
            .collect::<Vec<_>>()
            .join(" or ");
        let gratuitous = read(&format!(
            "({ours}) and arp.isgratuitous==1 and arp.src.proto_ipv4=={ipv4}"
        ))?;
        ensure!(
            gratuitous.len() >= 4,
            "gratuitous ARP of two owners, as requests and replies: {gratuitous:?}"
        );
        let ipv6 = vips
            .iter()
            .find(|vip| vip.is_ipv6())
            .context("no IPv6 address")?;
        let advertised = read(&format!(
            "({ours}) and icmpv6.type==136 and icmpv6.nd.na.flag.o==1 and icmpv6.nd.na.target_address=={ipv6} and ipv6.dst==ff02::1 and ipv6.hlim==255"
        ))?;
        ensure!(
            advertised.len() >= 2,
            "unsolicited advertisements of two owners: {advertised:?}"
        );
        println!(
            "{} gratuitous ARP, {} unsolicited advertisements",
            gratuitous.len(),
            advertised.len()
        );
        let malformed = read(&format!(
            "({ours}) and (_ws.malformed or icmpv6.checksum.status==0 or _ws.expert.severity==\"Error\")"
        ))?;
        ensure!(malformed.is_empty(), "tshark complains: {malformed:?}");
        Ok(())
    })
}

/// keepalived with a virtual router at 192.168.1.90.
fn keepalived(host: &Namespace, folder: &std::path::Path, priority: u32) -> Result<Background> {
    let name = host.name();
    let configuration = folder.join(format!("keepalived-{name}.conf"));
    fs::write(
        &configuration,
        format!(
            "global_defs {{\n vrrp_garp_master_delay 1\n}}\nvrrp_instance lan {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int 1\n virtual_ipaddress {{\n  192.168.1.90/24\n }}\n}}\n"
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
    fn start(command: &mut Command, log: &std::path::Path) -> Result<Self> {
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
