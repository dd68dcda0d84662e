//! Hundreds of addresses lose their node at once: how long until the last of them is announced again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::client::{Question, Target};
use e2e::document::{Marks, write_between};
use e2e::failover::Summary;
use e2e::lab::Lab;
use e2e::manifest::{TCP_PORT, load_balancer, pool_yaml};
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::topology::NodeNumber;
use e2e::wait;
use serde_json::{Value, json};

use crate::records::owners;
use crate::show::{print, say};
use crate::trials::surroundings;

/// Pulls the cable of each node in its turn, and fails if an address is announced again later than `at_most`.
pub(crate) fn run(
    lab: &mut Lab,
    trials: u32,
    addresses: usize,
    at_most: Duration,
    document: Option<&Path>,
) -> Result<()> {
    serve(lab, addresses)?;
    let nodes: Vec<_> = lab.nodes.iter().map(|node| node.number).collect();
    let mut taken = Vec::new();
    let mut gaps = Vec::new();
    for (&victim, number) in nodes.iter().cycle().zip(1..=trials) {
        let trial = trial(lab, addresses, victim)?;
        let summary = Summary::of(trial.taken.values().copied());
        print(&format!(
            "{number:>3}  {victim} had {:>3} of {addresses}; announced again: {summary}; a client of one of them had no answer for {} ms\n",
            trial.taken.len(),
            trial.gap.as_millis()
        ));
        taken.extend(trial.taken.into_values());
        gaps.push(trial.gap);
    }
    let (taken, gaps) = (Summary::of(taken), Summary::of(gaps));
    let sentence = format!(
        "{} nodes, {addresses} addresses, link down at each node in its turn, {trials} trials: {} addresses lost their node.\n\n\
         | from the fault | n | p50 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|\n{}{}\n{}",
        nodes.len(),
        taken.count(),
        row("until the address is announced by another node", &taken),
        row(
            "no answer for a client of one of them that asks every 5 ms",
            &gaps
        ),
        surroundings()?
    );
    say("What became of them:");
    print(&sentence);
    if let Some(document) = document {
        write_between(document, MARKS, &sentence)?;
    }
    ensure!(
        taken.longest() <= at_most,
        "an address was announced again after {} ms: more than the {} ms that were asked for",
        taken.longest().as_millis(),
        at_most.as_millis()
    );
    Ok(())
}

fn row(title: &str, summary: &Summary) -> String {
    format!(
        "| {title} | {} | {} | {} | {} |\n",
        summary.count(),
        summary.median().as_millis(),
        summary.percentile(99).as_millis(),
        summary.longest().as_millis()
    )
}

/// Makes Services with so many addresses: a hundred IPv4 addresses, which is what the lab's LAN has room for, the rest IPv6.
fn serve(lab: &Lab, addresses: usize) -> Result<()> {
    lab.serve_web(PATIENCE)?;
    lab.kubectl.apply(&pool_yaml("many", &[MORE_ADDRESSES]))?;
    let dual = addresses.min(200) / 2;
    let single = addresses - dual * 2;
    for number in 1..dual + single {
        let mut service = load_balancer(&format!("web-{number}"));
        let spec = service.get_mut("spec").and_then(Value::as_object_mut);
        let spec = spec.context("a Service without a spec")?;
        spec.insert("selector".to_owned(), json!({"app": "web"}));
        if number >= dual {
            spec.insert("ipFamilyPolicy".to_owned(), json!("SingleStack"));
            spec.insert("ipFamilies".to_owned(), json!(["IPv6"]));
        }
        lab.api
            .create("/api/v1/namespaces/default/services", &service)?;
    }
    settled(lab, addresses).map(drop)
}

/// Waits until all addresses are announced; by whom each.
fn settled(lab: &Lab, addresses: usize) -> Result<BTreeMap<String, String>> {
    wait::until("every address to be announced", PATIENCE, || {
        let found = owners(lab)?;
        let all = found.len() == addresses && found.values().all(|owner| !owner.is_unowned());
        Ok(all.then(|| {
            let nodes = found.into_iter();
            nodes
                .map(|(address, owner)| (address, owner.node))
                .collect()
        }))
    })
}

struct Trial {
    /// How long after the fault each address of the dead node was announced by another one.
    taken: BTreeMap<IpAddr, Duration>,
    /// The longest time without an answer at one of these addresses.
    gap: Duration,
}

fn trial(lab: &Lab, addresses: usize, victim: NodeNumber) -> Result<Trial> {
    let before = settled(lab, addresses)?;
    let lost: BTreeSet<IpAddr> = before
        .iter()
        .filter(|(_, node)| **node == victim.name())
        .filter_map(|(address, _)| address.parse().ok())
        .collect();
    let &asked = lost
        .iter()
        .next()
        .with_context(|| format!("{victim} announces nothing"))?;
    let target = Target::tcp(at(asked, TCP_PORT));
    let stream = Stream::start(&lab.client, target, Question::Hostname, Pace::DENSE)?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    let capture = Capture::start(&lab.client)?;
    let broken = Instant::now();
    lab.faults.link_down(victim)?;
    let taken = wait::until("every address to be announced again", PATIENCE, || {
        let mut taken = capture.taken_from(&victim.mac(), broken);
        taken.retain(|address, _| lost.contains(address));
        Ok((taken.len() == lost.len()).then_some(taken))
    });
    let answered = stream.wait_for_answer(stream.now(), PATIENCE, |_| true);
    let record = stream.stop()?;
    lab.faults.link_up(victim)?;
    answered.with_context(|| record.to_string())?;
    Ok(Trial {
        taken: taken?,
        gap: record.since(SETTLED).longest_gap().length,
    })
}

const PATIENCE: Duration = Duration::from_secs(120);
/// What the first questions of a stream meet (an empty neighbour cache) is not what is measured.
const SETTLED: Duration = Duration::from_millis(500);
/// IPv6 addresses beyond those of the lab's usual pool.
const MORE_ADDRESSES: &str = "fd12:3456:789a:1::e:0/112";
const MARKS: Marks = (
    "<!-- make failover-many: begin -->",
    "<!-- make failover-many: end -->",
);
