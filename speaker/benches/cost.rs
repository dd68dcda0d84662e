//! What speakers cost at rest: processor time and packets, for LANs of 3, 30 and 100 speakers with 1000 addresses.
//!
//! `make bench-speaker`. Each speaker is an engine on a thread of its own, in a network namespace on one bridge. They join one after
//! the other, so the first one owns every address: were the addresses new to all at once, one kernel would carry the probes and
//! announcements of all to all, which is more than a few processors can do in the time in which speakers must be heard.

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

#[path = "cost/idle_peers.rs"]
mod idle_peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use config::name::{NodeName, ServiceKey};
use idle_peers::IdlePeers;
use speaker::compile::Scope;
use speaker::metrics::Packets;
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{Configuration, Event, Failback, Links, Partition, PlacementKey, Vip};
use support::{Lan, Speaker};

fn main() {
    let sizes = std::env::var("SPEAKERS").unwrap_or_else(|_| "3,30,100".to_owned());
    let addresses = number("ADDRESSES", 1000);
    let seconds = number("SECONDS", 60);
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
    let engines = match usize::from(size) {
        few @ ..=MOST_ENGINES => few,
        _ => ENGINES_OF_MANY,
    };
    let lan = Lan::new(u8::try_from(engines).unwrap());
    let nodes: Vec<NodeName> = (1..=size)
        .map(|number| format!("node-{number}").as_str().into())
        .collect();
    let configuration = spread(&nodes, addresses);
    let mut crowd = Crowd::default();
    let (measured, others) = nodes.split_at(engines);
    for (number, node) in (1_usize..).zip(measured) {
        let host = lan.node(number);
        host.run(&format!("ip address add 198.18.255.{number}/16 dev eth0"));
        let speaker = Speaker::start(host, node.as_str());
        let scope = Scope::of_addresses(configuration.vips.keys().copied());
        speaker.configure((configuration.clone(), scope));
        crowd.speakers.push(speaker);
        crowd.wait_for_company(number - 1);
        crowd.settle(configuration.vips.len());
        crowd.rest(Duration::from_millis(200));
    }
    let idle = IdlePeers::start(lan.client(), others, &configuration);
    crowd.wait_for_company(nodes.len() - 1);
    crowd.rest(WITHOUT_ANNOUNCEMENTS);
    let Crowd { speakers, .. } = crowd;
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
    drop(idle);
    assert_eq!(shares.len(), engines, "a thread for each speaker");
    let engines = f64::from(u8::try_from(engines).unwrap());
    let rate = |kind: usize| {
        let (after, before) = (after.get(kind).unwrap(), packets.get(kind).unwrap());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = (after - before) as f64;
        count / time.as_secs_f64() / engines
    };
    let interval = speaker_announcer::Timing::default().interval_among(size.into());
    format!(
        "| {size} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
        interval.as_millis(),
        shares.iter().sum::<f64>() / engines,
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

/// Speakers, and what they have told so far: to ask them would be work for their machines.
#[derive(Default)]
struct Crowd {
    speakers: Vec<Speaker>,
    /// Which pairs of speakers hear each other.
    hearing: BTreeSet<(NodeName, NodeName)>,
    /// How many answer for each address.
    owners: BTreeMap<IpAddr, i32>,
    /// How often each of their reasons was given.
    reasons: BTreeMap<&'static str, u32>,
}

impl Crowd {
    fn listen(&mut self) {
        for speaker in &mut self.speakers {
            for event in speaker.heard_events() {
                *self.reasons.entry(event.reason().name()).or_default() += 1;
                if let (Some(vip), Some(owns)) = (event.vip(), event.owns()) {
                    *self.owners.entry(vip).or_default() += if owns { 1 } else { -1 };
                }
                match event {
                    Event::PeerHeard { node } => {
                        self.hearing.insert((speaker.node.clone(), node));
                    }
                    Event::PeerSilent { node, .. } => {
                        self.hearing.remove(&(speaker.node.clone(), node));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Waits until each of the speakers hears so many others.
    fn wait_for_company(&mut self, others: usize) {
        let pairs = self.speakers.len() * others;
        self.wait(|crowd| {
            let missing = pairs.saturating_sub(crowd.hearing.len());
            (missing > 0).then(|| format!("{missing} of {pairs} pairs do not hear each other"))
        });
    }

    /// Waits until each address has one owner.
    fn settle(&mut self, addresses: usize) {
        self.wait(|crowd| {
            let one = crowd.owners.values().filter(|count| **count == 1).count();
            (one < addresses).then(|| format!("{one} of {addresses} have one owner"))
        });
    }

    /// Waits until nothing was announced for so long, and tables were told.
    fn rest(&mut self, without_announcements: Duration) {
        let interval = speaker_announcer::Timing::default().interval_among(self.speakers.len());
        let mut last = (Instant::now(), sums(&self.speakers));
        self.wait(|crowd| {
            let [heartbeats, _, frames, _] = sums(&crowd.speakers);
            let regular = last.0.elapsed().as_millis() / interval.as_millis() + 2;
            let most = u128::try_from(crowd.speakers.len()).unwrap() * regular * 2;
            if frames != last.1[2] || u128::from(heartbeats - last.1[0]) > most {
                last = (Instant::now(), sums(&crowd.speakers));
            }
            let rests = last.0.elapsed() > without_announcements;
            (!rests).then(|| "addresses are announced, or tables told, without end".to_owned())
        });
    }

    fn wait(&mut self, mut missing: impl FnMut(&Self) -> Option<String>) {
        let begin = Instant::now();
        loop {
            self.listen();
            let Some(missing) = missing(self) else {
                return;
            };
            assert!(
                begin.elapsed() < PATIENCE,
                "{} speakers: {missing}; they told {:?}",
                self.speakers.len(),
                self.reasons
            );
            std::thread::sleep(Duration::from_millis(50));
        }
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

/// IPv4 alone: for each packet to many, one kernel would walk through the solicited-node groups of all nodes.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// More of them do not fit on two processors.
const MOST_ENGINES: usize = 30;
/// So many are measured where the others are idle peers.
const ENGINES_OF_MANY: usize = 10;
/// A LAN of many speakers on two processors takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Announcements that follow a move are 2 s apart at most, the later ones 30 s at least.
const WITHOUT_ANNOUNCEMENTS: Duration = Duration::from_secs(3);
