//! Every door of a Service, and who must answer there.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value answers null for what it does not have"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::client::{Protocol, Question, Target};
use crate::lab::Lab;
use crate::manifest::{TCP_PORT, UDP_PORT};
use crate::namespace::Namespace;
use crate::questions::{at, external_addresses, items, items_of};
use crate::topology::{Family, NODES};

/// One door of a Service and who stands behind it.
#[derive(Debug)]
pub struct Frontend {
    /// From where to ask.
    pub place: Place,
    /// Its name, for people.
    pub title: String,
    /// Where to ask.
    pub target: Target,
    /// Who must answer, sooner or later.
    pub pods: BTreeSet<String>,
}

/// From where to ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The outside client.
    Client,
    /// One of the nodes, by its index.
    Node(usize),
    /// A Pod of the cluster.
    Pod,
}

/// Every frontend of a Service, in both families and over both protocols.
pub fn frontends_of(lab: &Lab, name: &str, pods: BTreeSet<String>) -> Result<Vec<Frontend>> {
    let service = lab
        .api
        .get(&format!("/api/v1/namespaces/default/services/{name}"))?;
    let cluster_addresses: Vec<IpAddr> = items_of(&service["spec"]["clusterIPs"])
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect();
    ensure!(cluster_addresses.len() == 2, "{name} is not dual-stack");
    let mut frontends = Vec::new();
    for protocol in Protocol::BOTH {
        let (port_name, port) = match protocol {
            Protocol::Tcp => ("tcp", TCP_PORT),
            Protocol::Udp => ("udp", UDP_PORT),
        };
        let node_port = node_port(&service, port_name)?;
        let mut add = |place, title: &str, address: IpAddr, port| {
            let target = Target {
                address: at(address, port),
                protocol,
            };
            let title = format!("{name}: {title}");
            let pods = pods.clone();
            frontends.push(Frontend {
                place,
                title,
                target,
                pods,
            });
        };
        for &address in &cluster_addresses {
            add(Place::Pod, "ClusterIP from a Pod", address, port);
            for node in 0..NODES.len() {
                add(Place::Node(node), "ClusterIP from a node", address, port);
            }
        }
        for family in Family::BOTH {
            for node in NODES {
                add(Place::Client, "NodePort", node.address(family), node_port);
            }
        }
        for address in external_addresses(&service) {
            add(Place::Client, "external address", address, port);
            add(
                Place::Node(0),
                "external address from a node",
                address,
                port,
            );
            add(Place::Pod, "external address from a Pod", address, port);
        }
    }
    Ok(frontends)
}

fn node_port(service: &Value, name: &str) -> Result<u16> {
    items_of(&service["spec"]["ports"])
        .find(|port| port["name"] == name)
        .and_then(|port| u16::try_from(port["nodePort"].as_u64()?).ok())
        .with_context(|| format!("no NodePort for {name}"))
}

/// Asks at every frontend until each Pod has answered there; each request must be answered. Says how much that was.
///
/// The Pod to ask from is one of the Service `asker`, so that it also meets itself there.
pub fn ask_all(lab: &Lab, frontends: &[Frontend], asker: &str) -> Result<String> {
    let begin = Instant::now();
    let pod = a_pod(lab, asker)?;
    let mut places: Vec<(Place, &Namespace)> =
        vec![(Place::Client, &lab.client), (Place::Pod, &pod)];
    places.extend(
        lab.nodes
            .iter()
            .enumerate()
            .map(|(number, node)| (Place::Node(number), &node.namespace)),
    );
    let mut requests = 0;
    let mut failures = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = places
            .into_iter()
            .map(|(place, namespace)| {
                scope.spawn(move || -> Result<(usize, Vec<String>)> {
                    namespace.enter()?;
                    let (mut requests, mut failures) = (0, Vec::new());
                    for frontend in frontends.iter().filter(|frontend| frontend.place == place) {
                        match ask_until_all_answered(frontend) {
                            Ok(count) => requests += count,
                            Err(error) => failures.push(format!(
                                "{}, {}: {error:#}",
                                frontend.title, frontend.target
                            )),
                        }
                    }
                    Ok((requests, failures))
                })
            })
            .collect();
        for thread in threads {
            let (more, failed) = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            requests += more;
            failures.extend(failed);
        }
        Ok(())
    })?;
    let told = format!(
        "{} frontends asked with {requests} requests in {:.1} s, {} failed",
        frontends.len(),
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    ensure!(
        failures.is_empty(),
        "{} of {} frontends failed:\n{}",
        failures.len(),
        frontends.len(),
        failures.into_iter().take(20).collect::<Vec<_>>().join("\n")
    );
    Ok(told)
}

/// Asks until each Pod has answered once; returns how often that was. Each request must be answered.
fn ask_until_all_answered(frontend: &Frontend) -> Result<usize> {
    // Of three equally likely ones, one is missing after 100 answers once in 10^17 times.
    const MOST: usize = 100;
    let mut seen = BTreeSet::new();
    for count in 1..=MOST {
        let answer = frontend
            .target
            .ask(Question::Hostname, Duration::from_secs(1))
            .with_context(|| format!("request {count}"))?;
        ensure!(
            frontend.pods.contains(&answer),
            "{answer:?} answered, which is no endpoint"
        );
        seen.insert(answer);
        if seen == frontend.pods {
            return Ok(count);
        }
    }
    bail!("after {MOST} requests only {seen:?} have answered")
}

fn a_pod(lab: &Lab, app: &str) -> Result<Namespace> {
    let pods = lab.api.get(&format!(
        "/api/v1/namespaces/default/pods?labelSelector=app={app}"
    ))?;
    let address = items(&pods)
        .find_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok())
        .context("no Pod has an address")?;
    lab.pod_namespace(address)
}
