//! The lab's own wires and measuring instruments, without any Kubernetes.
//!
//! Run by `make test-main`: needs `tools/in-namespaces`.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::capture::Capture;
use e2e::client::{Question, Target};
use e2e::faults::Direction;
use e2e::lan::Lan;
use e2e::observer::{announcer, who_has};
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::topology::{Family, NODES};
use e2e::wait;

#[test]
#[ignore = "needs namespaces of its own: make test-main"]
fn the_instruments_measure_what_happens() -> Result<()> {
    let lan = Lan::build(3)?;
    let node = NODES[0];
    for family in Family::BOTH {
        let address = node.address(family);
        assert_eq!(announcer(&lan.client, address)?, Some(node), "{address}");
        let nobody: IpAddr = match family {
            Family::Ipv4 => "192.168.1.222".parse()?,
            Family::Ipv6 => "fd12:3456:789a:1::dead".parse()?,
        };
        assert_eq!(who_has(&lan.client, nobody)?, BTreeSet::new());

        // Lost in one direction only: no answer, whichever it is.
        for direction in [Direction::FromNode, Direction::ToNode] {
            lan.faults.lose(node, direction)?;
            assert_eq!(announcer(&lan.client, address)?, None, "{direction:?}");
            lan.faults.lose_nothing()?;
            assert_eq!(
                announcer(&lan.client, address)?,
                Some(node),
                "{direction:?}"
            );
        }
    }
    two_answerers_are_both_heard(&lan)?;
    announcements_are_heard(&lan)?;
    a_pulled_cable_is_a_gap(&lan)
}

fn announcements_are_heard(lan: &Lan) -> Result<()> {
    let capture = Capture::start(&lan.client)?;
    let node = &lan.nodes[0];
    let (ipv4, ipv6) = (
        IpAddr::from(node.number.ipv4()),
        IpAddr::from(node.number.ipv6()),
    );
    // Whether the program says that somebody answered does not matter: nobody does.
    let _ = node.namespace.output(
        "arping",
        &["-U", "-c", "1", "-i", "eth0", &ipv4.to_string()],
    );
    wait::until("gratuitous ARP", Duration::from_secs(5), || {
        Ok((capture.announcements(ipv4, &node.number.mac()) > 0).then_some(()))
    })?;
    // The kernel announces its addresses when the MAC address is set, if it is told to.
    node.namespace
        .set_parameters("net.ipv6.conf.eth0.ndisc_notify=1")?;
    node.namespace
        .configure(&format!("link set eth0 address {}", node.number.mac()))?;
    wait::until(
        "an unsolicited advertisement",
        Duration::from_secs(5),
        || Ok((capture.announcements(ipv6, &node.number.mac()) > 0).then_some(())),
    )?;
    Ok(())
}

fn two_answerers_are_both_heard(lan: &Lan) -> Result<()> {
    for node in &lan.nodes[..2] {
        node.namespace.configure(
            "addr add 192.168.1.200/24 dev eth0\naddr add fd12:3456:789a:1::200/64 dev eth0 nodad",
        )?;
    }
    for address in ["192.168.1.200", "fd12:3456:789a:1::200"] {
        let nodes: Vec<_> = who_has(&lan.client, address.parse()?)?
            .into_iter()
            .map(|one| one.node)
            .collect();
        assert_eq!(nodes, [Some(NODES[0]), Some(NODES[1])], "{address}");
    }
    Ok(())
}

fn a_pulled_cable_is_a_gap(lan: &Lan) -> Result<()> {
    const PULLED: Duration = Duration::from_millis(400);
    let node = &lan.nodes[2];
    let address = at(node.number.address(Family::Ipv4), 8080);
    let done = AtomicBool::new(false);
    let record = thread::scope(|scope| {
        let listener = node.namespace.run(|| TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        scope.spawn(|| serve(listener, &done));
        let target = Target::tcp(address);
        let measured = (|| {
            let stream = Stream::start(&lan.client, target, Question::Hostname, Pace::DENSE)?;
            stream.wait_for_answer(Duration::from_millis(200), Duration::from_secs(5), |_| true)?;
            lan.faults.link_down(node.number)?;
            thread::sleep(PULLED);
            lan.faults.link_up(node.number)?;
            let up = stream.now();
            stream.wait_for_answer(
                up + Duration::from_millis(200),
                Duration::from_secs(5),
                |answer| answer == "me",
            )?;
            stream.stop()
        })();
        done.store(true, Ordering::Relaxed);
        measured
    })?;
    let gap = record.longest_gap().length;
    ensure!(
        gap >= PULLED,
        "{gap:?} is shorter than the cable was pulled: {record}"
    );
    ensure!(
        gap < PULLED * 4,
        "{gap:?} is far longer than the cable was pulled: {record}"
    );
    ensure!(record.answered() > 60, "{record}");
    Ok(())
}

fn serve(listener: TcpListener, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        // A client that gave up is no reason to stop serving.
        let _ = stream.set_nonblocking(false);
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nme");
    }
}
