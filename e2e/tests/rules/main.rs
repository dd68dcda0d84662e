//! The rules after many random changes are those that a fresh proxy makes from the final state.
//!
//! Run by `make test-rules`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Lab, Options, with_lab};
use e2e::node::Node;
use e2e::program::Program;
use e2e::random::Random;
use e2e::wait;
use serde_json::{Value, json};

const CHANGES: u32 = 1000;
const SERVICES: u16 = 30;
const COLLECTION: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
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
        let begin = Instant::now();
        let mut refused = 0;
        for _ in 0..CHANGES {
            // What the API server does not take (a port that is in use) changes nothing.
            refused += u32::from(change(lab, &mut random).is_err());
        }
        println!(
            "{CHANGES} changes, {refused} of them refused, in {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        ensure!(
            refused < CHANGES / 4,
            "{refused} of {CHANGES} changes were refused"
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
    let text = if in_iptables(node) {
        tables_of_iptables(node)?.concat()
    } else {
        node.namespace.output("nft", &["-j", "list", "ruleset"])?
    };
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

/// Whether the node's proxy was told to use iptables.
fn in_iptables(node: &Node) -> bool {
    let arguments = node
        .proxy
        .iter()
        .flat_map(|proxy| &proxy.recipe().arguments);
    arguments.into_iter().any(|argument| argument == "iptables")
}

/// What both families and both back ends of iptables hold.
fn tables_of_iptables(node: &Node) -> Result<Vec<String>> {
    let programs = [
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "iptables-nft-save",
        "ip6tables-nft-save",
    ];
    let save = |program: &&str| {
        let tables = ["filter", "nat"];
        let tables = tables.map(|table| node.namespace.output(program, &["-t", table]));
        Ok(tables.into_iter().collect::<Result<Vec<_>>>()?.concat())
    };
    programs.iter().map(save).collect()
}

/// The rules by chain, in their order; chains without rules that iptables has by itself are left out.
fn rules_of_iptables(node: &Node) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut objects = BTreeMap::<String, Vec<Value>>::new();
    for (number, text) in tables_of_iptables(node)?.iter().enumerate() {
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(declared) = line.strip_prefix(':') {
                let (chain, policy) = declared.split_once(' ').context("not a chain")?;
                if policy.starts_with('-') {
                    objects
                        .entry(format!("{number} {table} {chain}"))
                        .or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (chain, rule) = rule.split_once(' ').context("not a rule")?;
                let rules = objects.entry(format!("{number} {table} {chain}"));
                rules.or_default().push(json!(rule));
            }
        }
    }
    Ok(objects)
}

/// Everything that the node holds: rules by chain in their order, elements by set in a fixed order.
fn rules(node: &Node) -> Result<BTreeMap<String, Vec<Value>>> {
    if in_iptables(node) {
        return rules_of_iptables(node);
    }
    normalise(&node.namespace.output("nft", &["-j", "list", "ruleset"])?)
}

fn normalise(text: &str) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut listing: Value = serde_json::from_str(text)?;
    let mut objects = BTreeMap::<String, Vec<Value>>::new();
    for object in listing["nftables"]
        .as_array_mut()
        .context("not a listing of nftables")?
    {
        let Some((kind, value)) = object
            .as_object_mut()
            .and_then(|object| object.iter_mut().next())
        else {
            continue;
        };
        forget_what_changes_by_itself(value);
        let own_name = if kind == "rule" {
            &value["chain"]
        } else {
            &value["name"]
        };
        let name = format!("{} {} {own_name}", value["family"], value["table"]);
        match kind.as_str() {
            "metainfo" => {}
            "rule" => objects
                .entry(format!("chain {name}"))
                .or_default()
                .push(value["expr"].take()),
            "chain" => objects
                .entry(format!("chain {name}"))
                .or_default()
                .insert(0, value.take()),
            _ => {
                let mut elements = match value["elem"].take() {
                    Value::Array(elements) => elements,
                    _ => Vec::new(),
                };
                elements.sort_by_cached_key(Value::to_string);
                elements.insert(0, value.take());
                objects.insert(format!("{kind} {name}"), elements);
            }
        }
    }
    Ok(objects)
}

fn forget_what_changes_by_itself(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["handle", "packets", "bytes", "expires"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(forget_what_changes_by_itself);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_what_changes_by_itself),
        _ => {}
    }
}

fn change(lab: &Lab, random: &mut Random) -> Result<()> {
    let name = format!("web-{}", random.below(SERVICES));
    match random.below(10) {
        0 => drop(lab.api.delete(&format!("{COLLECTION}/{name}"))?),
        1..4 => {
            let object = random_service(&name, random);
            lab.api.apply(&format!("{COLLECTION}/{name}"), &object)?;
            if object["spec"]["type"] == "LoadBalancer" {
                let last = random.below(100);
                let addresses =
                    json!([{"ip": format!("192.0.2.{last}")}, {"ip": format!("2001:db8::{last}")}]);
                let status = json!({"status": {"loadBalancer": {"ingress": addresses}}});
                lab.api
                    .patch(&format!("{COLLECTION}/{name}/status"), &status)?;
            }
        }
        4 => {
            let family = if random.one_in(2) { "ipv4" } else { "ipv6" };
            lab.api.delete(&format!("{SLICES}/{name}-{family}"))?;
        }
        5..7 => drop(lab.api.apply(
            &format!("{SLICES}/{name}-ipv6"),
            &random_slice(&name, "IPv6", random),
        )?),
        _ => drop(lab.api.apply(
            &format!("{SLICES}/{name}-ipv4"),
            &random_slice(&name, "IPv4", random),
        )?),
    }
    Ok(())
}

fn random_service(name: &str, random: &mut Random) -> Value {
    let mut object = service(name, &["IPv4", "IPv6"]);
    let spec = &mut object["spec"];
    let kind = random
        .choose(&["ClusterIP", "NodePort", "LoadBalancer"])
        .copied()
        .unwrap_or_default();
    spec["type"] = json!(kind);
    if random.one_in(3) {
        spec["sessionAffinity"] = json!("ClientIP");
    }
    if random.one_in(3) {
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if kind != "ClusterIP" && random.one_in(3) {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if kind == "LoadBalancer" && random.one_in(3) {
        spec["loadBalancerSourceRanges"] = json!(["198.51.100.0/24", "2001:db8:1::/64"]);
    }
    if random.one_in(2) {
        let port = 1000 + random.below(3);
        let more = json!({"name": "more", "port": port, "targetPort": 8081, "protocol": "UDP"});
        if let Some(ports) = spec["ports"].as_array_mut() {
            ports.push(more);
        }
    }
    object
}

fn service(name: &str, families: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": families,
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn random_slice(name: &str, family: &str, random: &mut Random) -> Value {
    let endpoints: Vec<Value> = (0..random.below(6))
        .map(|_| {
            let (node, last) = (1 + random.below(3), 10 + random.below(20));
            let address = match family {
                "IPv4" => format!("10.244.{node}.{last}"),
                _ => format!("fd12:3456:789a:f40{node}::{last}"),
            };
            endpoint(&address, node, !random.one_in(5))
        })
        .collect();
    slice(name, family, &endpoints)
}

fn endpoint(address: &str, node: u16, ready: bool) -> Value {
    let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
    json!({"addresses": [address], "nodeName": format!("node-{node}"), "conditions": conditions})
}

fn slice(service: &str, family: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": [
            {"name": "web", "port": 8080, "protocol": "TCP"},
            {"name": "more", "port": 8081, "protocol": "UDP"},
        ],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(handle: u8, elements: &Value, rules: [&str; 2]) -> String {
        let rule = |text: &str| json!({"rule": {"family": "ip", "table": "t", "chain": "c", "handle": handle, "expr": [text]}});
        json!({"nftables": [
            {"metainfo": {"version": "1"}},
            {"table": {"family": "ip", "name": "t", "handle": handle}},
            {"map": {"family": "ip", "table": "t", "name": "m", "handle": handle, "elem": elements}},
            {"chain": {"family": "ip", "table": "t", "name": "c", "handle": handle}},
            rule(rules[0]), rule(rules[1]),
        ]})
        .to_string()
    }

    #[test]
    fn handles_and_the_order_of_elements_do_not_count_and_the_order_of_rules_does() {
        let one = normalise(&listing(1, &json!([["a", 1], ["b", 2]]), ["x", "y"])).unwrap();
        let two = normalise(&listing(9, &json!([["b", 2], ["a", 1]]), ["x", "y"])).unwrap();
        assert_eq!(one, two);
        let other_rules = normalise(&listing(1, &json!([["a", 1], ["b", 2]]), ["y", "x"])).unwrap();
        assert_ne!(one, other_rules);
        let other_elements =
            normalise(&listing(1, &json!([["a", 1], ["b", 3]]), ["x", "y"])).unwrap();
        assert_ne!(one, other_elements);
    }
}
