//! The rules after many random changes are those that a fresh proxy makes from the final state.
//!
//! Run by `make test-rules`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod changes;
mod held;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::environment;
use e2e::lab::{Options, with_lab};
use e2e::node::Node;
use e2e::program::Program;
use e2e::random::Random;
use e2e::wait;
use serde_json::Value;

use changes::{COLLECTION, SERVICES, SLICES, change, endpoint, service, slice};
use held::{rules, runs_with, servers, tables_of_iptables};

/// How many changes, unless `FOGHORN_CHANGES` says otherwise.
const CHANGES: u32 = 1000;
/// Endpoints of the Service that is made last: where they are in the rules, everything before them is.
const LAST_IPV4: &str = "10.244.1.251";
const LAST_IPV6: &str = "fd12:3456:789a:f401::251";

#[test]
#[ignore = "needs the lab: make test-rules"]
fn rules_do_not_depend_on_their_history() -> Result<()> {
    let options = Options {
        agents: false,
        controller: false,
        speakers: false,
        ..Options::foghorn("rules")
    };
    with_lab(&options, |lab| {
        let mut random = Random::from_environment();
        println!("FOGHORN_SEED={} repeats the choices", random.seed);
        let changes = environment::number("FOGHORN_CHANGES", CHANGES);
        let begin = Instant::now();
        let mut refused = 0;
        for _ in 0..changes {
            // What the API server does not take (a port that is in use) changes nothing.
            refused += u32::from(change(lab, &mut random).is_err());
        }
        println!(
            "{changes} changes, {refused} of them refused, in {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        ensure!(
            refused < changes / 4,
            "{refused} of {changes} changes were refused"
        );
        lab.api
            .create(COLLECTION, &service("last", &["IPv4", "IPv6"]))?;
        lab.api.apply(
            &format!("{SLICES}/last-ipv4"),
            &slice("last", "IPv4", &[endpoint(LAST_IPV4, 1, true)]),
        )?;
        lab.api.apply(
            &format!("{SLICES}/last-ipv6"),
            &slice("last", "IPv6", &[endpoint(LAST_IPV6, 1, true)]),
        )?;
        for node in &mut lab.nodes {
            compare_with_a_fresh_proxy(node)?;
        }
        Ok(())
    })
}

fn compare_with_a_fresh_proxy(node: &mut Node) -> Result<()> {
    let patience = Duration::from_secs(30);
    wait::until_ok("the last change in the rules", patience, || {
        complete_rules(node)
    })?;
    // A first sync may go on behind the last rule.
    wait::until_ok("the end of the first sync", patience, || {
        let health = ["--silent", "--fail", "http://127.0.0.1:10256/healthz"];
        node.namespace.output("curl", &health)
    })?;
    let incremental = wait_until_quiet(node)?;
    node.proxy_mut()?.terminate(patience)?;
    ensure!(
        rules(node)? == incremental,
        "the rules of {} went with the proxy",
        node.number
    );
    let mut cleanup = node.proxy_mut()?.recipe().clone();
    cleanup.name.push_str("-cleanup");
    cleanup.arguments.push("--cleanup".into());
    let logs = node.proxy_mut()?.log().parent().context("no log")?;
    let status = Program::start(cleanup, logs)?.wait(patience)?;
    ensure!(status.success(), "--cleanup ended with {status}");
    let left = rules(node)?;
    ensure!(left.is_empty(), "--cleanup left: {:?}", left.keys());

    node.proxy_mut()?.start_again()?;
    let mut fresh = BTreeMap::new();
    let equal = wait::until("equal rules", patience, || {
        fresh = rules(node)?;
        Ok((fresh == without_idle_classes(&incremental, &fresh)).then_some(()))
    });
    if equal.is_err() {
        wait::until_ok("the last change in the rules", patience, || {
            complete_rules(node)
        })?;
        let incremental = without_idle_classes(&incremental, &fresh);
        for name in incremental.keys().chain(fresh.keys()) {
            let (was, is) = (incremental.get(name), fresh.get(name));
            ensure!(
                was == is,
                "{}: {name} after the changes:\n{was:#?}\nfresh:\n{is:#?}",
                node.number
            );
        }
    }
    let count: usize = fresh.values().map(Vec::len).sum();
    println!(
        "{}: {} objects, {count} rules and elements: equal",
        node.number,
        fresh.len()
    );
    ensure!(
        count > usize::from(SERVICES),
        "these are no rules for {SERVICES} Services"
    );
    Ok(())
}

/// The rules without the chains of classes that only they have, and without their entries in the maps of classes.
///
/// Nothing leads to such a class: the frontends are compared whole, and none of them names it. The proxy keeps the
/// chain, because kernels before 6.2 may trip over deleting one that was the target of a `goto`.
fn without_idle_classes(
    rules: &BTreeMap<String, Vec<Value>>,
    fresh: &BTreeMap<String, Vec<Value>>,
) -> BTreeMap<String, Vec<Value>> {
    let is_idle = |name: &str| {
        name.starts_with("chain ") && name.contains("pick-") && !fresh.contains_key(name)
    };
    let mut kept = rules.clone();
    kept.retain(|name, _| !is_idle(name));
    for (name, elements) in &mut kept {
        // The map `"ip" "foghorn" "classes"` leads to the chain `"ip" "foghorn" "pick-3"`.
        let Some((table, _)) = name
            .strip_prefix("map ")
            .filter(|name| name.contains("classes"))
            .and_then(|name| name.rsplit_once(' '))
        else {
            continue;
        };
        elements.retain(|element| {
            let target = &element[1]["goto"]["target"];
            !is_idle(&format!("chain {table} {target}"))
        });
    }
    kept
}

/// Waits until the rules have stayed as they are for a while.
fn wait_until_quiet(node: &Node) -> Result<BTreeMap<String, Vec<Value>>> {
    const QUIET: Duration = Duration::from_secs(2);
    let mut latest = rules(node)?;
    let mut since = Instant::now();
    wait::until("rules that stay as they are", QUIET * 10, || {
        let now = rules(node)?;
        if now != latest {
            (latest, since) = (now, Instant::now());
        }
        Ok((since.elapsed() >= QUIET).then_some(()))
    })?;
    Ok(latest)
}

fn complete_rules(node: &Node) -> Result<()> {
    let mut text = if runs_with(node, "iptables") {
        tables_of_iptables(node)?.concat()
    } else {
        node.namespace.output("nft", &["-j", "list", "ruleset"])?
    };
    if runs_with(node, "ipvs") {
        // The rules have only what the virtual servers do not.
        text = servers(node)?;
        ensure!(
            !text.contains(" draining"),
            "endpoints of {} wait for their connections to end",
            node.number
        );
    }
    ensure!(
        text.contains(LAST_IPV4),
        "{LAST_IPV4} is not in the rules of {}",
        node.number
    );
    ensure!(
        text.contains(LAST_IPV6),
        "{LAST_IPV6} is not in the rules of {}",
        node.number
    );
    Ok(())
}
