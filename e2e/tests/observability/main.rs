//! What the programs measure, as a real Prometheus scrapes it: the reference names all of it, and alerts and dashboard
//! find what they ask for.
//!
//! Run by `make test-observability`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

mod picture;
mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::failover::wait_for_announcer;
use e2e::lab::{Lab, Options, with_lab};
use e2e::topology::{INTERFACE, POOL_IPV4, POOL_IPV6, ROUTER_IPV4};
use e2e::wait;
use prometheus::Prometheus;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs the lab: make test-observability"]
fn prometheus_finds_what_the_reference_the_alerts_and_the_dashboard_say() -> Result<()> {
    with_lab(&Options::as_pods("observability"), |lab| {
        lab.install_by_helm(&[
            &format!("pool={{{POOL_IPV4},{POOL_IPV6}}}"),
            "prometheus.enabled=true,proxy.enabled=true",
            &format!("proxy.apiServer.host={ROUTER_IPV4}"),
        ])?;
        lab.create_web("web")?;
        lab.wait_until_web_answers(PATIENCE)?;
        lab.wait_for_components(&[("controller", 2), ("speaker", 3), ("proxy", 3)], PATIENCE)?;
        let prometheus = Prometheus::start(lab, &scrape_config()?)?;
        wait::until(
            "two controllers, three speakers, three proxies",
            PATIENCE,
            || {
                let up = prometheus.values("count by (job) (up == 1)")?;
                Ok(
                    (up == [2.0, 3.0, 3.0] || up == [3.0, 2.0, 3.0] || up == [3.0, 3.0, 2.0])
                        .then_some(()),
                )
            },
        )?;
        things_happen(lab)?;
        let dashboard: Value = serde_json::from_str(&read("charts/foghorn/files/dashboard.json")?)?;
        every_query_of_the_dashboard_has_an_answer(&prometheus, &dashboard)?;
        the_first_moves_are_seen(&prometheus, &dashboard)?;
        picture::write(&prometheus, &dashboard)?;
        every_rule_can_be_evaluated(&prometheus)?;
        the_reference_is_what_is_exported(&prometheus)
    })
}

/// What makes metrics that exist only once something has happened.
fn things_happen(lab: &mut Lab) -> Result<()> {
    let vips = lab.external_addresses("default", "web")?;
    let vip = vips[0];
    let owner = wait_for_announcer(lab, vip)?;
    println!("{owner} loses its cable");
    lab.faults.link_down(owner)?;
    wait::until("another owner", PATIENCE, || {
        Ok((wait_for_announcer(lab, vip)? != owner).then_some(()))
    })?;
    lab.faults.link_up(owner)?;
    println!("the client claims {vip}");
    let address = format!("{vip}/32");
    lab.client
        .output("ip", &["address", "add", &address, "dev", INTERFACE])?;
    let claim = [
        "-c",
        "2",
        "-U",
        "-i",
        INTERFACE,
        "-S",
        &vip.to_string(),
        &vip.to_string(),
    ];
    // It fails, since nobody answers such a claim.
    let _ = lab.client.command("arping").args(claim).output()?;
    lab.client
        .output("ip", &["address", "delete", &address, "dev", INTERFACE])?;
    let services = "/api/v1/namespaces/default/services";
    for (name, policy, annotation) in [
        ("lacking", "Cluster", "there-is-no-such-pool"),
        ("local", "Local", "lan"),
    ] {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "annotations": {"foghorn.dev/address-pool": annotation}},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": {"app": name}, "ports": [{"port": 80}]},
        });
        lab.api.create(services, &object)?;
    }
    for node in &lab.nodes {
        let health = ["--silent", "http://127.0.0.1:10256/livez"];
        node.namespace.output("curl", &health)?;
    }
    Ok(())
}

fn every_query_of_the_dashboard_has_an_answer(
    prometheus: &Prometheus,
    dashboard: &Value,
) -> Result<()> {
    let mut count = 0;
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("an expression")?;
            let query = query.replace("$__rate_interval", "1m");
            let what = format!("an answer to {query:?} of the panel {}", panel["title"]);
            wait::until(&what, PATIENCE, || {
                let values = prometheus.values(&query)?;
                Ok(values.iter().any(|value| value.is_finite()).then_some(()))
            })?;
            count += 1;
        }
    }
    println!("{count} queries of the dashboard have an answer");
    ensure!(count > 30, "only {count} queries: are they found?");
    Ok(())
}

/// Counters begin with 0, or an increase would miss the first of each kind.
fn the_first_moves_are_seen(prometheus: &Prometheus, dashboard: &Value) -> Result<()> {
    let mut panels = dashboard["panels"].as_array().context("panels")?.iter();
    let panel = panels.find(|panel| panel["title"] == "Changes of ownership");
    let query = panel.context("the panel")?["targets"][0]["expr"].as_str();
    let query = query
        .context("its query")?
        .replace("$__rate_interval", "5m");
    wait::until("changes of ownership", PATIENCE, || {
        let values = prometheus.values(&query)?;
        Ok(values.iter().any(|value| *value > 0.0).then_some(()))
    })
}

/// None is misspelt, those about what has happened fire, and those about what has not do not.
fn every_rule_can_be_evaluated(prometheus: &Prometheus) -> Result<()> {
    let handbook = read("docs/alerts.md")?;
    let expected = ["FoghornAddressConflict", "FoghornServicePending"];
    let calm = [
        "FoghornNoLeader",
        "FoghornProgramDown",
        "FoghornProxySyncFails",
        "FoghornHeartbeatsRefused",
    ];
    wait::until("the state of every alert", PATIENCE, || {
        let rules = prometheus.rules()?;
        ensure!(rules.len() >= 20, "only {} rules", rules.len());
        let mut is_complete = true;
        for rule in &rules {
            let name = rule["name"].as_str().context("a name")?;
            ensure!(
                handbook.contains(&format!("\n## {name}\n")),
                "docs/alerts.md has no section {name}"
            );
            ensure!(rule["health"] != "err", "{name}: {}", rule["lastError"]);
            ensure!(
                !calm.contains(&name) || rule["state"] != "firing",
                "{name} fires: {}",
                rule["alerts"]
            );
            is_complete &= rule["health"] == "ok";
            is_complete &= !expected.contains(&name) || rule["state"] != "inactive";
        }
        Ok(is_complete.then_some(()))
    })
}

fn the_reference_is_what_is_exported(prometheus: &Prometheus) -> Result<()> {
    let documented = documented(&read("docs/reference.md")?);
    ensure!(
        documented.len() > 30,
        "only {documented:?}: are they found?"
    );
    let exported = prometheus.names()?;
    let missing: Vec<_> = exported.difference(&documented).collect();
    ensure!(
        missing.is_empty(),
        "docs/reference.md does not name {missing:?}"
    );
    let superfluous: Vec<_> = documented.difference(&exported).collect();
    ensure!(
        superfluous.is_empty(),
        "nobody exports {superfluous:?} of docs/reference.md"
    );
    println!("{} metrics, all of them in the reference", exported.len());
    Ok(())
}

/// The names in the first column of the table of metrics, but those that are not exported by what forwards here.
fn documented(reference: &str) -> BTreeSet<String> {
    let section = reference.split("\n## Metrics\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let is_here = |row: &&str| match row.split_once("(mode ") {
        Some((_, modes)) => modes.contains("nftables"),
        None => true,
    };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.filter(is_here);
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`'))
        .filter(|word| word.starts_with("foghorn_") || word.starts_with("kubeproxy_"))
        .map(str::to_owned)
        .collect()
}

/// What the handbook says to write into the configuration of Prometheus.
fn scrape_config() -> Result<String> {
    let page = read("docs/observability.md")?;
    let block = page
        .split("```yaml\n")
        .find(|block| block.starts_with("scrape_configs:"));
    let block = block.context("docs/observability.md has no scrape_configs")?;
    Ok(block.split("```").next().unwrap_or_default().to_owned())
}

fn read(path: &str) -> Result<String> {
    let path = root().join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
