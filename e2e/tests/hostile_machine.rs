//! A hostile machine on the LAN: forged and recorded heartbeats, claims of addresses, floods. A client that asks all the time
//! notices nothing of it, but for the moment after a claim, against which only a switch helps.
//!
//! Run by `make test-hostile`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bystander::{Bystander, unnoticed};
use e2e::failover::wait_for_announcer;
use e2e::heartbeats::{self, Datagram, PORT};
use e2e::lab::{Lab, Options, with_lab};
use e2e::metrics::{Metrics, SPEAKER};
use e2e::namespace::Namespace;
use e2e::observer::who_has;
use e2e::questions::items;
use e2e::topology::{Family, INTERFACE, NODES, NodeNumber};
use e2e::wait;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(60);
const MAC: [u8; 6] = [2, 0, 0, 0, 1, 0x66];
const MAC_TEXT: &str = "02:00:00:00:01:66";
/// How often each forged datagram is sent.
const COPIES: usize = 20;
const FLOOD: usize = 10_000;
/// From a claim to the moment when clients are served again: the owner answers it at once.
const DISTURBED: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs the lab: make test-hostile"]
fn a_hostile_machine_on_the_lan_moves_no_address_and_is_named() -> Result<()> {
    with_lab(&Options::foghorn("hostile-machine"), |lab| {
        let vips = lab.serve_web(Duration::from_secs(60))?;
        let machine = lab.plug_in_host("mallory", 0x66, &["192.168.1.66/24"])?;
        let nobody_owns = idle_node(lab, &vips)?;

        let recorded = heartbeats::record(&machine, nobody_owns, COPIES, PATIENCE)?;
        println!(
            "{} heartbeats of {nobody_owns} are recorded",
            recorded.len()
        );
        ensure!(recorded.len() == COPIES, "heartbeats cannot be recorded");
        unnoticed(lab, &vips, "forged heartbeats", |lab| {
            each_forgery_is_refused_with_its_reason(lab, &machine, nobody_owns, &recorded)
        })?;
        unnoticed(lab, &vips, "heartbeats of a former start", |lab| {
            a_former_start_is_not_believed(lab, &machine, nobody_owns)
        })?;
        unnoticed(lab, &vips, "a flood of heartbeats", |lab| {
            a_flood_of_heartbeats_is_refused(lab, &machine, &recorded)
        })?;
        unnoticed(lab, &vips, "a flood of questions", |lab| {
            a_flood_of_questions_takes_no_answer(lab, &machine, &vips)
        })?;
        claims_are_answered_and_named(lab, &machine, &vips)
    })
}

/// A node that announces none of the addresses.
fn idle_node(lab: &Lab, vips: &[IpAddr]) -> Result<NodeNumber> {
    let mut owners = Vec::new();
    for &vip in vips {
        owners.push(wait_for_announcer(lab, vip)?);
    }
    let mut nodes = NODES.into_iter();
    nodes
        .find(|node| !owners.contains(node))
        .context("each node announces something")
}

fn each_forgery_is_refused_with_its_reason(
    lab: &Lab,
    machine: &Namespace,
    sender: NodeNumber,
    recorded: &[Datagram],
) -> Result<()> {
    let one = recorded.first().context("a recording")?;
    for (what, datagram, reason) in [
        ("of another key", one.of_another_key(), "unknown_key"),
        ("with other words", one.with_another_body(), "forged"),
        ("of another version", one.of_another_version(), "version"),
        ("cut off", one.cut(20), "length"),
        ("without its code", one.cut(60), "forged"),
    ] {
        let before = refused(lab, reason)?;
        heartbeats::send(machine, &vec![datagram; COPIES], &[])?;
        for node in NODES {
            wait_for_refusals(lab, node, reason, before[&node] + COPIES)?;
        }
        println!("a heartbeat {what} is refused by all nodes: {reason}");
    }
    let before = (refused(lab, "replayed")?, refused(lab, "own")?);
    heartbeats::send(machine, recorded, &unicast())?;
    for node in NODES {
        let (reason, before) = if node == sender {
            ("own", &before.1)
        } else {
            ("replayed", &before.0)
        };
        wait_for_refusals(lab, node, reason, before[&node] + recorded.len())?;
    }
    println!("a recording is refused: own, replayed");
    Ok(())
}

/// What was recorded just before a speaker was restarted echoes numbers that are still recent.
fn a_former_start_is_not_believed(
    lab: &mut Lab,
    machine: &Namespace,
    node: NodeNumber,
) -> Result<()> {
    let recorded = heartbeats::record(machine, node, COPIES, PATIENCE)?;
    let starts = |lab: &Lab, other: NodeNumber| -> Result<usize> {
        let speaker = lab.node(other)?.speaker.as_ref().context("a speaker")?;
        let heard = format!("hear the speaker of {node}");
        Ok(speaker.log_text()?.matches(&heard).count())
    };
    let others = NODES.into_iter().filter(|&other| other != node);
    let mut before = BTreeMap::new();
    for other in others.clone() {
        before.insert(other, starts(lab, other)?);
    }
    let speaker = lab.node_mut(node)?.speaker_mut()?;
    speaker.kill()?;
    speaker.start_again()?;
    for other in others.clone() {
        wait::until("the speaker that was restarted", PATIENCE, || {
            Ok((starts(lab, other)? > before[&other]).then_some(()))
        })?;
    }
    let unproven = refused(lab, "unproven")?;
    let name_taken = refused(lab, "name_taken")?;
    heartbeats::send(machine, &recorded, &[])?;
    wait_for_refusals(lab, node, "name_taken", name_taken[&node] + recorded.len())?;
    for other in others {
        wait_for_refusals(lab, other, "unproven", unproven[&other] + recorded.len())?;
    }
    println!("a recording of {node} before its restart is refused: unproven");
    Ok(())
}

fn a_flood_of_heartbeats_is_refused(
    lab: &Lab,
    machine: &Namespace,
    recorded: &[Datagram],
) -> Result<()> {
    let one = recorded.first().context("a recording")?;
    let mixed = [
        one.of_another_key(),
        one.with_another_body(),
        one.cut(30),
        one.clone(),
    ];
    let flood: Vec<_> = mixed.iter().cycle().take(FLOOD).cloned().collect();
    let sum = |lab: &Lab| -> Result<Vec<u64>> {
        let nodes = NODES.into_iter();
        nodes
            .map(|node| heartbeats::refused(&lab.node(node)?.namespace, None))
            .collect()
    };
    let before = sum(lab)?;
    heartbeats::send(machine, &flood, &unicast())?;
    wait::until("refusals of a flood", PATIENCE, || {
        let after = sum(lab)?;
        let grown: Vec<_> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        // What the kernel has no room for is dropped unread.
        let is_read = grown.iter().all(|&grown| grown > 1000);
        if is_read {
            println!("of {FLOOD} heartbeats to each group, refused by node: {grown:?}");
        }
        Ok(is_read.then_some(()))
    })
}

/// Requests for the addresses by machines that do not exist.
fn a_flood_of_questions_takes_no_answer(
    lab: &Lab,
    machine: &Namespace,
    vips: &[IpAddr],
) -> Result<()> {
    let vip = vips.iter().find_map(|vip| match vip {
        IpAddr::V4(vip) => Some(*vip),
        IpAddr::V6(_) => None,
    });
    let vip = vip.context("an IPv4 address")?;
    let questions = (0..FLOOD).map(|number| {
        let [.., high, low] = number.to_be_bytes();
        let mac = [2, 0x66, 0, 0, high, low];
        arp(1, mac, Ipv4Addr::new(10, 66, high, low), vip)
    });
    send_frames(machine, questions)?;
    for &vip in vips {
        let answerers = who_has(&lab.client, vip)?;
        ensure!(
            answerers.len() == 1 && answerers.iter().all(|one| one.node.is_some()),
            "{vip}: {answerers:?} answer after a flood"
        );
    }
    println!("{FLOOD} questions by made-up machines took no answer from others");
    Ok(())
}

/// One gratuitous ARP, one unsolicited advertisement: whoever hears it believes it until the owner has answered.
fn claims_are_answered_and_named(
    lab: &mut Lab,
    machine: &Namespace,
    vips: &[IpAddr],
) -> Result<()> {
    let conflicts = counted(lab, "foghorn_speaker_conflicts_total")?;
    let bystander = Bystander::start(lab, vips)?;
    let claimed: BTreeMap<_, _> = vips
        .iter()
        .map(|&vip| Ok((vip, bystander.now(vip)?)))
        .collect::<Result<_>>()?;
    for &vip in vips {
        match vip {
            IpAddr::V4(vip) => send_frames(machine, [arp(1, MAC, vip, vip)])?,
            IpAddr::V6(vip) => send_advertisement(machine, vip)?,
        }
    }
    for &vip in vips {
        let words = format!("claims {vip}: defended");
        wait::until(&format!("an Event that says \"{words}\""), PATIENCE, || {
            let said = events(lab)?;
            let mut about = said.iter().filter(|note| note.contains(&words));
            Ok(about.any(|note| note.contains(MAC_TEXT)).then_some(()))
        })?;
    }
    for (vip, record) in bystander.stop(lab)? {
        let (last, claimed) = (record.last_loss().unwrap_or_default(), claimed[&vip]);
        println!("{vip} was claimed: {record}; the owner defended it");
        ensure!(
            last < claimed + DISTURBED,
            "{vip} was claimed at {claimed:?} and lost answers until {last:?}: {record}"
        );
        let answerers = who_has(&lab.client, vip)?;
        ensure!(answerers.len() == 1, "{vip}: {answerers:?} answer");
    }
    let more = counted(lab, "foghorn_speaker_conflicts_total")? - conflicts;
    ensure!(more >= 2, "{more} conflicts were counted");
    Ok(())
}

/// The port of heartbeats at the nodes' own addresses, where nobody listens.
fn unicast() -> Vec<SocketAddr> {
    let nodes = NODES.into_iter();
    nodes
        .flat_map(|node| Family::BOTH.map(|family| SocketAddr::new(node.address(family), PORT)))
        .collect()
}

fn refused(lab: &Lab, reason: &str) -> Result<BTreeMap<NodeNumber, usize>> {
    let nodes = NODES.into_iter();
    nodes
        .map(|node| {
            let refused = heartbeats::refused(&lab.node(node)?.namespace, Some(reason))?;
            Ok((node, usize::try_from(refused)?))
        })
        .collect()
}

fn wait_for_refusals(lab: &Lab, node: NodeNumber, reason: &str, count: usize) -> Result<()> {
    let mut last = 0;
    let what = format!("{count} refusals \"{reason}\" by {node}");
    let outcome = wait::until(&what, Duration::from_secs(5), || {
        last = refused(lab, reason)?[&node];
        Ok((last >= count).then_some(()))
    });
    outcome.with_context(|| format!("there are {last}"))
}

fn counted(lab: &Lab, metric: &str) -> Result<u64> {
    let nodes = lab.nodes.iter();
    nodes
        .map(|node| Metrics::read(&node.namespace, SPEAKER)?.sum(metric, &[]))
        .sum()
}

/// What the Events about the Service say.
fn events(lab: &Lab) -> Result<Vec<String>> {
    let list = lab
        .api
        .get("/apis/events.k8s.io/v1/namespaces/default/events")?;
    let about = items(&list).filter(|event| event["regarding"]["name"] == "web");
    let notes = about.filter_map(|event: &Value| event["note"].as_str());
    Ok(notes.map(str::to_owned).collect())
}

/// An ARP packet to everybody (RFC 826), as a frame.
fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    [
        &[0xff; 6][..],
        &mac,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &mac,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
        // Ethernet has no shorter frames.
        &[0; 18],
    ]
    .concat()
}

fn send_frames(
    machine: &Namespace,
    frames: impl IntoIterator<Item = Vec<u8>> + Send,
) -> Result<()> {
    machine.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let interface = getifaddrs()?
            .filter(|one| one.interface_name == INTERFACE)
            .find_map(|one| Some(*one.address?.as_link_addr()?))
            .context("no hardware address")?;
        ensure!(interface.family() == Some(AddressFamily::Packet));
        for frame in frames {
            sendto(socket.as_raw_fd(), &frame, &interface, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

/// An unsolicited neighbour advertisement that overrides what others know (RFC 4861 section 4.4).
fn send_advertisement(machine: &Namespace, vip: Ipv6Addr) -> Result<()> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    machine.run(|| {
        let index = if_nametoindex(INTERFACE)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(index)?;
        // The kernel writes the checksum.
        let packet = [
            &[136, 0, 0, 0, 0x20, 0, 0, 0][..],
            &vip.octets(),
            &[2, 1],
            &MAC,
        ]
        .concat();
        let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, index);
        socket.send_to(&packet, &everybody.into())?;
        Ok(())
    })?
}
