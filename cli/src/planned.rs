//! `move`, `drain` and `undrain`: planned moves, asked for by an annotation and watched until they are done.
//!
//! What is asked and when it is done are decided here; [`crate::fetch`] knows how to reach the cluster.

use std::time::Duration;

use anyhow::Context as _;
use config::annotation::PREFERRED_NODE;
use config::crd::{ServiceL2Status, ServiceL2StatusStatus};
use config::name::ServiceKey;
use config::node::DRAIN;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use crate::output::print;

/// How far a planned move is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// All addresses are where they should be: what to say of each.
    Done(Vec<String>),
    /// Some are not yet: what to say of those if there is no more time.
    Waiting(Vec<String>),
}

/// Whether all of these addresses have moved to `node`.
pub fn moved_to(node: &str, records: &[ServiceL2StatusStatus]) -> Progress {
    let (there, elsewhere): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| record.node == node);
    if elsewhere.is_empty() && !records.is_empty() {
        let sentence = |record: &&ServiceL2StatusStatus| {
            format!("{}: {} announces it", record.address, record.node)
        };
        return Progress::Done(there.iter().map(sentence).collect());
    }
    let sentence = |record: &&ServiceL2StatusStatus| {
        format!(
            "{} stays with {}: {node} {}",
            record.address,
            owner(record),
            standing(record, node)
        )
    };
    Progress::Waiting(elsewhere.iter().map(sentence).collect())
}

/// Whether `node` announces none of these addresses any more; `before` are those that it announced.
pub fn left(node: &str, before: &[String], records: &[ServiceL2StatusStatus]) -> Progress {
    let stay = records.iter().filter(|record| record.node == node);
    let stay: Vec<_> = stay
        .map(|record| {
            let others: Vec<_> = record
                .candidates
                .iter()
                .filter(|candidate| candidate.node != node)
                .map(|candidate| format!("{}: {}", candidate.node, candidate.reason))
                .collect();
            format!(
                "{} of {}/{} stays: no other node can take it ({})",
                record.address,
                record.service_namespace,
                record.service_name,
                others.join("; ")
            )
        })
        .collect();
    if !stay.is_empty() {
        return Progress::Waiting(stay);
    }
    let moved = records
        .iter()
        .filter(|record| before.contains(&record.address));
    Progress::Done(
        moved
            .map(|record| {
                format!(
                    "{} of {}/{}: {} announces it",
                    record.address,
                    record.service_namespace,
                    record.service_name,
                    owner(record)
                )
            })
            .collect(),
    )
}

/// Why `node` can never get an address, as far as its record says; nothing if it can or is not mentioned.
pub fn obstacle(node: &str, records: &[ServiceL2StatusStatus]) -> Option<String> {
    records.iter().find_map(|record| {
        let candidate = record
            .candidates
            .iter()
            .find(|candidate| candidate.node == node)?;
        let can = ["Owner", "Leaving", "Outranked", "Claiming", "Fenced"];
        let cannot = !can.contains(&candidate.standing.as_str());
        cannot.then(|| {
            format!(
                "{node} cannot announce {}: {}",
                record.address, candidate.reason
            )
        })
    })
}

fn owner(record: &ServiceL2StatusStatus) -> &str {
    match record.node.as_str() {
        "" => "nobody",
        node => node,
    }
}

fn standing(record: &ServiceL2StatusStatus, node: &str) -> String {
    let found = record
        .candidates
        .iter()
        .find(|candidate| candidate.node == node);
    found.map_or_else(
        || "is not among the nodes that were asked".to_owned(),
        |candidate| format!("says \"{}\"", candidate.reason),
    )
}

/// Moves the addresses of a Service to `node`; unless `keep`, the wish is taken back when they are there.
///
/// # Errors
/// If the node or the Service is not there, the node cannot announce them, or they are not there within `patience`.
pub async fn move_to(
    client: &Client,
    service: &ServiceKey,
    node: &str,
    keep: bool,
    patience: Duration,
) -> anyhow::Result<()> {
    expect_node(client, node).await?;
    let records = records_of(client, service).await?;
    anyhow::ensure!(
        !records.is_empty(),
        "Service {service} has no address that a speaker announces: kubectl foghorn why {service} says why"
    );
    if let Some(obstacle) = obstacle(node, &records) {
        anyhow::bail!("{obstacle}; nothing was changed");
    }
    annotate_service(client, service, Some(node)).await?;
    let outcome = wait(patience, async || {
        Ok(moved_to(node, &records_of(client, service).await?))
    })
    .await;
    let is_done = matches!(outcome, Ok(Progress::Done(_)));
    if !keep || !is_done {
        annotate_service(client, service, None).await?;
    }
    match outcome? {
        Progress::Done(sentences) => print(&lines(&sentences)),
        Progress::Waiting(sentences) => anyhow::bail!("{}", sentences.join("\n")),
    }
}

/// Makes a node hand its addresses over, and says where each went.
///
/// # Errors
/// If there is no such node, or it still announces addresses after `patience` since nobody else can: the node stays
/// marked, and they go as soon as somebody can.
pub async fn drain(client: &Client, node: &str, patience: Duration) -> anyhow::Result<()> {
    expect_node(client, node).await?;
    let own = all_records(client).await?.into_iter();
    let own = own.filter(|record| record.node == node);
    let before: Vec<_> = own.map(|record| record.address).collect();
    annotate_node(client, node, Some("true")).await?;
    let outcome = wait(patience, async || {
        Ok(left(node, &before, &all_records(client).await?))
    });
    match outcome.await? {
        Progress::Done(sentences) => {
            print(&lines(&sentences))?;
            print(&format!(
                "{node} announces no address, and gets none until: kubectl foghorn undrain {node}\n"
            ))
        }
        Progress::Waiting(sentences) => anyhow::bail!(
            "{}\n{node} stays marked: they go as soon as another node can take them",
            sentences.join("\n")
        ),
    }
}

/// Lets a node announce addresses again. Nothing moves back by itself.
///
/// # Errors
/// If there is no such node.
pub async fn undrain(client: &Client, node: &str) -> anyhow::Result<()> {
    expect_node(client, node).await?;
    annotate_node(client, node, None).await?;
    print(&format!(
        "{node} may announce addresses again; those that left stay where they are\n"
    ))
}

async fn expect_node(client: &Client, node: &str) -> anyhow::Result<()> {
    let found = Api::<Node>::all(client.clone())
        .get_metadata_opt(node)
        .await?;
    found.with_context(|| format!("there is no node {node}: kubectl get nodes lists them"))?;
    Ok(())
}

async fn wait(
    patience: Duration,
    ask: impl AsyncFn() -> anyhow::Result<Progress>,
) -> anyhow::Result<Progress> {
    let end = Instant::now() + patience;
    loop {
        let progress = ask().await?;
        if matches!(progress, Progress::Done(_)) || Instant::now() >= end {
            return Ok(progress);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn records_of(
    client: &Client,
    service: &ServiceKey,
) -> anyhow::Result<Vec<ServiceL2StatusStatus>> {
    let api = Api::<ServiceL2Status>::namespaced(client.clone(), service.namespace());
    let mut records = statuses(&api).await?;
    records.retain(|record| record.service_name == service.name());
    Ok(records)
}

async fn all_records(client: &Client) -> anyhow::Result<Vec<ServiceL2StatusStatus>> {
    statuses(&Api::all(client.clone())).await
}

async fn statuses(api: &Api<ServiceL2Status>) -> anyhow::Result<Vec<ServiceL2StatusStatus>> {
    let list = api.list(&ListParams::default()).await.context(
        "failed to list servicel2statuses, in which speakers say what they announce (deploy/crds)",
    )?;
    let records = list.items.into_iter();
    Ok(records.filter_map(|record| record.status).collect())
}

async fn annotate_service(
    client: &Client,
    service: &ServiceKey,
    node: Option<&str>,
) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {PREFERRED_NODE: node}}}));
    Api::<Service>::namespaced(client.clone(), service.namespace())
        .patch_metadata(service.name(), &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("failed to annotate Service {service}"))?;
    Ok(())
}

async fn annotate_node(client: &Client, node: &str, value: Option<&str>) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {DRAIN: value}}}));
    Api::<Node>::all(client.clone())
        .patch_metadata(node, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("failed to annotate node {node}"))?;
    Ok(())
}

fn lines(sentences: &[String]) -> String {
    sentences
        .iter()
        .map(|sentence| format!("{sentence}\n"))
        .collect()
}

const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(address: &str, node: &str, other: (&str, &str, &str)) -> ServiceL2StatusStatus {
        let status = json!({
            "address": address, "node": node, "serviceName": "web", "serviceNamespace": "default",
            "candidates": [
                {"node": node, "standing": "Owner", "reason": "owns the address"},
                {"node": other.0, "standing": other.1, "reason": other.2},
            ],
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_move_is_done_when_every_address_is_there() {
        let next = ("b", "Outranked", "would be next, but a comes first");
        let there = record("192.0.2.1", "b", ("a", "Outranked", ""));
        let elsewhere = record("192.0.2.2", "a", next);
        assert_eq!(
            moved_to("b", std::slice::from_ref(&there)),
            Progress::Done(vec!["192.0.2.1: b announces it".to_owned()])
        );
        assert_eq!(
            moved_to("b", &[there, elsewhere]),
            Progress::Waiting(vec![
                "192.0.2.2 stays with a: b says \"would be next, but a comes first\"".to_owned()
            ])
        );
        assert_eq!(moved_to("b", &[]), Progress::Waiting(Vec::new()));
    }

    #[test]
    fn a_node_is_drained_when_it_announces_nothing() {
        let before = ["192.0.2.1".to_owned()];
        let moved = record("192.0.2.1", "b", ("a", "Draining", ""));
        let anothers = record("192.0.2.9", "b", ("a", "Draining", ""));
        assert_eq!(
            left("a", &before, &[moved.clone(), anothers]),
            Progress::Done(vec!["192.0.2.1 of default/web: b announces it".to_owned()])
        );
        let stays = record("192.0.2.2", "a", ("b", "Excluded", "the node is labelled"));
        assert_eq!(
            left("a", &before, &[moved, stays]),
            Progress::Waiting(vec![
                "192.0.2.2 of default/web stays: no other node can take it (b: the node is labelled)".to_owned()
            ])
        );
    }

    #[test]
    fn what_stands_in_the_way_is_said_before_anything_is_changed() {
        for (standing, expected) in [
            ("Outranked", None),
            ("Owner", None),
            ("LinkDown", Some("b cannot announce 192.0.2.1: it is so")),
        ] {
            let record = record("192.0.2.1", "a", ("b", standing, "it is so"));
            assert_eq!(obstacle("b", &[record]).as_deref(), expected);
        }
    }
}
