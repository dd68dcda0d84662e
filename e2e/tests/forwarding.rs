//! What the proxy of a node says counts: an address is announced where it is forwarded, stays while a proxy is restarted, and
//! goes back, if that is asked for, when no connection goes through it.
//!
//! Run by `make test-e2e`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::failover::wait_for_announcer;
use e2e::lab::{Lab, Options, with_lab};
use e2e::long::LongConnection;
use e2e::manifest::TCP_PORT;
use e2e::observer;
use e2e::questions::{at, items};
use e2e::stream::{Pace, Stream};
use e2e::topology::{NODES, NodeNumber};
use e2e::wait;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_millis(500);
/// Longer than a proxy that is asked again and again may fail to answer without a word.
const RESTART: Duration = Duration::from_secs(3);
/// Longer than a better node must stand before an idle address goes back.
const BUSY: Duration = Duration::from_secs(14);
const SERVICES: [&str; 4] = ["web", "shop", "mail", "wiki"];

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn an_address_is_where_it_is_forwarded_and_goes_back_when_idle() -> Result<()> {
    with_lab(&Options::foghorn("forwarding"), |lab| {
        let [first, second, third] = NODES;
        let mut vips = lab.serve_web(Duration::from_secs(60))?;
        for &vip in &vips {
            wait_for_announcer(lab, vip)?;
        }
        println!(
            "the proxies of {first} and {second} are stopped: what is new is announced by {third}"
        );
        for node in [first, second] {
            lab.node_mut(node)?.proxy_mut()?.pause()?;
        }
        for name in SERVICES.iter().filter(|&&name| name != "web") {
            lab.create_web(name)?;
            let new = lab.wait_for_external_addresses("default", name, 2, PATIENCE)?;
            for &vip in &new {
                ensure!(wait_for_announcer(lab, vip)? == third, "{vip}");
            }
            vips.extend(new);
        }
        let waiting = standings(lab, vips[2])?;
        ensure!(
            waiting[&first] == "NotStanding" || waiting[&first] == "Outranked",
            "{waiting:?}"
        );
        for node in [first, second] {
            lab.node_mut(node)?.proxy_mut()?.resume()?;
        }
        for &vip in vips.iter().skip(2) {
            wait::until(&format!("{vip} could be anywhere"), PATIENCE, || {
                let standings = standings(lab, vip)?;
                let stand = |node| standings[node] == "Outranked";
                Ok((stand(&first) && stand(&second)).then_some(()))
            })?;
            ensure!(
                observer::announcer(&lab.client, vip)? == Some(third),
                "{vip} moved"
            );
        }
        a_proxy_that_is_restarted_moves_nothing(lab, &vips, third)?;
        what_is_idle_goes_back(lab, &vips)
    })
}

fn a_proxy_that_is_restarted_moves_nothing(
    lab: &mut Lab,
    vips: &[IpAddr],
    node: NodeNumber,
) -> Result<()> {
    println!("the proxy of {node} is away for {RESTART:?}");
    let stream = ask(lab, vips[2])?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    lab.node_mut(node)?.proxy_mut()?.kill()?;
    stream.wait_for_answer(stream.now() + RESTART, PATIENCE, |_| true)?;
    lab.node_mut(node)?.proxy_mut()?.start_again()?;
    wait::until("the proxy again", PATIENCE, || {
        let log = lab.node_mut(node)?.speaker_mut()?.log_text()?;
        Ok((log.matches("Proxy listens to this speaker").count() >= 2).then_some(()))
    })?;
    stream.wait_for_answer(stream.now() + SETTLED, PATIENCE, |_| true)?;
    let record = stream.stop()?.since(SETTLED);
    println!("  {record}; longest gap {:?}", record.longest_gap().length);
    ensure!(record.lost().is_empty(), "requests were lost: {record}");
    for &vip in vips.iter().skip(2) {
        ensure!(
            observer::announcer(&lab.client, vip)? == Some(node),
            "{vip} moved"
        );
    }
    Ok(())
}

fn what_is_idle_goes_back(lab: &mut Lab, vips: &[IpAddr]) -> Result<()> {
    let moved = |lab: &Lab| -> Result<Vec<(IpAddr, NodeNumber)>> {
        let mut found = Vec::new();
        for &vip in vips {
            let (owner, best) = (wait_for_announcer(lab, vip)?, best(lab, vip)?);
            if owner != best {
                found.push((vip, best));
            }
        }
        Ok(found)
    };
    let away = moved(lab)?;
    ensure!(
        away.len() >= 2,
        "nothing is away from its best node: {away:?}"
    );
    let (busy, home) = away[0];
    let owner = wait_for_announcer(lab, busy)?;
    println!(
        "{} addresses are not at their best nodes; a connection goes through {busy} at {owner}",
        away.len()
    );
    let long = LongConnection::start(
        &lab.client,
        at(busy, TCP_PORT),
        Duration::from_millis(50),
        PATIENCE,
    )?;
    lab.kubectl.apply(ADVERTISEMENT)?;
    for &(vip, home) in &away[1..] {
        // Both addresses of a Service are told apart: only the connection's own stays.
        wait::until(&format!("{vip} at {home}"), PATIENCE, || {
            Ok((observer::announcer(&lab.client, vip)? == Some(home)).then_some(()))
        })?;
    }
    long.wait_for_answers(u32::try_from(BUSY.as_millis() / 50)?, PATIENCE * 2)?;
    ensure!(
        observer::announcer(&lab.client, busy)? == Some(owner),
        "{busy} moved with a connection"
    );
    println!("the connection ends, and {busy} goes to {home}");
    long.stop()?;
    wait::until(&format!("{busy} at {home}"), PATIENCE, || {
        Ok((observer::announcer(&lab.client, busy)? == Some(home)).then_some(()))
    })?;
    ensure!(moved(lab)?.is_empty(), "something is not at its best node");
    Ok(())
}

fn ask(lab: &Lab, vip: IpAddr) -> Result<Stream> {
    let target = Target::tcp(at(vip, TCP_PORT));
    Stream::start(&lab.client, target, Question::Hostname, Pace::PATIENT)
}

/// The first candidate of an address.
fn best(lab: &Lab, vip: IpAddr) -> Result<NodeNumber> {
    let record = record(lab, vip)?;
    let name = record["candidates"][0]["node"]
        .as_str()
        .context("a candidate")?;
    node(name)
}

/// Where each node stands for an address.
fn standings(lab: &Lab, vip: IpAddr) -> Result<BTreeMap<NodeNumber, String>> {
    let record = record(lab, vip)?;
    let candidates = record["candidates"].as_array().context("candidates")?;
    let standings = candidates.iter().map(|candidate| {
        let text = |field: &str| candidate[field].as_str().unwrap_or_default().to_owned();
        Ok((node(&text("node"))?, text("standing")))
    });
    standings.collect()
}

fn node(name: &str) -> Result<NodeNumber> {
    let found = NODES.into_iter().find(|node| node.name() == name);
    found.with_context(|| format!("no node {name}"))
}

fn record(lab: &Lab, vip: IpAddr) -> Result<Value> {
    wait::until(&format!("the record of {vip}"), PATIENCE, || {
        let list = lab
            .api
            .get("/apis/foghorn.dev/v1alpha1/namespaces/default/servicel2statuses")?;
        let mut statuses = items(&list).map(|item| item["status"].clone());
        Ok(statuses.find(|status| status["address"] == vip.to_string()))
    })
}

const ADVERTISEMENT: &str = "
apiVersion: foghorn.dev/v1alpha1
kind: L2Advertisement
metadata: {name: lan}
spec: {failback: Idle}
";
