//! What speakers cost at rest: processor time and packets, for LANs of 3, 30 and 100 speakers with 1000 addresses.
//!
//! `make bench-speaker`. Each speaker is an engine on a thread of its own, in a network namespace on one bridge. They join one after
//! the other, so the first one owns every address: were the addresses new to all at once, what they say and hear in the
//! first second would be more than the few processors of one machine can do in the time in which speakers must be heard.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench that cannot go on says so and ends"
)]
#![allow(
    dead_code,
    unused_imports,
    reason = "the support is that of the kernel suite"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use config::name::{NodeName, ServiceKey};
use speaker::compile::Scope;
use speaker::metrics::Packets;
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{Configuration, Failback, Links, Partition, PlacementKey, Vip};
use support::{Lan, Speaker};

fn main() {
    let sizes = std::env::var("SPEAKERS").unwrap_or_else(|_| "3,30,100".to_owned());
    let addresses = number("ADDRESSES", 1000);
    let seconds = number("SECONDS", 20);
    let mut table = String::from(
        "| speakers | interval ms | a core's share of a speaker, mean % | max % | heartbeats sent/s | received/s | ARP and NDP sent/s | received/s |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for size in sizes.split(',') {
        let size = size.trim().parse().unwrap();
        table.push_str(&measure(size, addresses, seconds));
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let text = format!(
        "{addresses} IPv4 addresses; {seconds} s at rest; Linux {}, {} processors for all speakers.\n\n{table}",
        kernel.trim(),
        std::thread::available_parallelism().unwrap()
    );
    println!("{text}");
    if let Ok(document) = std::env::var("DOCUMENT") {
        write_between(&document, &text);
    }
}

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// One row of the table.
fn measure(size: u8, addresses: u32, seconds: u32) -> String {
    let lan = Lan::new(size);
    let nodes: Vec<NodeName> = (1..=size)
        .map(|number| format!("node-{number}").as_str().into())
        .collect();
    let configuration = spread(&nodes, addresses);
    let mut speakers = Vec::new();
    for (number, node) in (1_usize..).zip(&nodes) {
        let host = lan.node(number);
        host.run(&format!("ip address add 198.18.255.{number}/16 dev eth0"));
        let speaker = Speaker::start(host, node.as_str());
        let scope = Scope::of_addresses(configuration.vips.keys().copied());
        speaker.configure((configuration.clone(), scope));
        speakers.push(speaker);
        wait_for_company(&speakers);
    }
    settle(&mut speakers, &configuration);
    let (threads, packets, begin) = (processor_times(), sums(&speakers), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let time = begin.elapsed();
    let after = sums(&speakers);
    let shares: Vec<f64> = processor_times()
        .into_iter()
        .filter_map(|(thread, spent)| {
            let before = threads.get(&thread)?;
            Some((spent - *before).as_secs_f64() / time.as_secs_f64() * 100.0)
        })
        .collect();
    assert_eq!(shares.len(), usize::from(size), "a thread for each speaker");
    let rate = |kind: usize| {
        let (after, before) = (after.get(kind).unwrap(), packets.get(kind).unwrap());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = (after - before) as f64;
        count / time.as_secs_f64() / f64::from(size)
    };
    let interval = speaker_announcer::Timing::default().interval_among(size.into());
    format!(
        "| {size} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
        interval.as_millis(),
        shares.iter().sum::<f64>() / f64::from(size),
        shares.iter().copied().fold(0.0, f64::max),
        rate(0),
        rate(1),
        rate(2),
        rate(3),
    )
}

/// Addresses that are spread over the nodes as those of as many Services are.
fn spread(nodes: &[NodeName], addresses: u32) -> Configuration {
    let vips = (0..addresses).map(|number| {
        let placement =
            PlacementKey::Service(ServiceKey::new("default", format!("web-{}", number / 2)));
        let contenders = nodes.iter().map(|node| Contender {
            node: node.clone(),
            preference: 0,
            eligibility: Ok(()),
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            requested: None,
            failback: Failback::Never,
            partition: Partition::Available,
            links: Links::InSubnet,
        };
        let address = Ipv4Addr::from_bits(FIRST.to_bits() + number);
        (IpAddr::V4(address), vip)
    });
    Configuration {
        vips: vips.collect(),
        speakers: nodes.iter().cloned().collect(),
    }
}

/// Waits until the last of the speakers hears all others.
fn wait_for_company(speakers: &[Speaker]) {
    let begin = Instant::now();
    let Some((last, others)) = speakers.split_last() else {
        return;
    };
    let heard = || {
        let peers = last.state().peers;
        peers.values().filter(|peer| peer.heard).count()
    };
    while heard() < others.len() {
        assert!(
            begin.elapsed() < PATIENCE,
            "{} of {}",
            heard(),
            others.len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until each address has one owner, and for the end of the announcements that follow a move.
fn settle(speakers: &mut [Speaker], configuration: &Configuration) {
    let begin = Instant::now();
    let mut owners: BTreeMap<IpAddr, i32> = BTreeMap::new();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < AFTER_A_MOVE {
        for event in speakers.iter_mut().flat_map(Speaker::heard_events) {
            if let (Some(vip), Some(owns)) = (event.vip(), event.owns()) {
                *owners.entry(vip).or_default() += if owns { 1 } else { -1 };
                quiet_since = Instant::now();
            }
        }
        let missing =
            configuration.vips.len() - owners.values().filter(|count| **count == 1).count();
        if missing > 0 {
            quiet_since = Instant::now();
        }
        if begin.elapsed() > PATIENCE {
            let few: Vec<_> = owners
                .iter()
                .filter(|(_, count)| **count != 1)
                .take(5)
                .collect();
            let heard = speakers.iter().map(|speaker| speaker.state().peers.len());
            let heard: Vec<_> = heard.collect();
            panic!("{missing} addresses have no owner, or more than one: {few:?}; peers {heard:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Heartbeats sent and received, frames sent and received, of all speakers together.
fn sums(speakers: &[Speaker]) -> [u64; 4] {
    let mut sums = [0; 4];
    for Packets {
        received_arp,
        received_ndp,
        received_heartbeats,
        sent_arp,
        sent_ndp,
        sent_heartbeats,
        ..
    } in speakers.iter().map(|speaker| &speaker.metrics.packets)
    {
        for (sum, more) in sums.iter_mut().zip([
            sent_heartbeats.get(),
            received_heartbeats.get(),
            sent_arp.get() + sent_ndp.get(),
            received_arp.get() + received_ndp.get(),
        ]) {
            *sum += more;
        }
    }
    sums
}

/// The processor time of each machine's thread so far.
fn processor_times() -> BTreeMap<String, Duration> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            let times = fs::read_to_string(path.join("schedstat")).ok()?;
            let nanoseconds = times.split_whitespace().next()?.parse().ok()?;
            let is_machine = name.trim() == "announcer";
            is_machine.then(|| {
                (
                    path.display().to_string(),
                    Duration::from_nanos(nanoseconds),
                )
            })
        })
        .collect()
}

fn write_between(document: &str, new: &str) {
    const MARKS: (&str, &str) = (
        "<!-- make bench-speaker: begin -->",
        "<!-- make bench-speaker: end -->",
    );
    let text = fs::read_to_string(document).unwrap();
    let (before, rest) = text.split_once(MARKS.0).unwrap();
    let (_, after) = rest.split_once(MARKS.1).unwrap();
    let text = format!(
        "{before}{}\n{}\n{}{after}",
        MARKS.0,
        new.trim_end(),
        MARKS.1
    );
    fs::write(document, text).unwrap();
}

/// A LAN of a hundred speakers on two processors takes its time.
/// IPv4 alone: for each packet to many, one kernel would walk through the solicited-node groups of all nodes.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PATIENCE: Duration = Duration::from_secs(60);
/// The last of the announcements that follow a move in quick succession is 4 s after it.
const AFTER_A_MOVE: Duration = Duration::from_secs(6);
