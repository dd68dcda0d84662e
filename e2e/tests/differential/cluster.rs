//! Objects written to the API server, and when both twins have taken them in.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use config::service::Protocol;
use e2e::connection::Connection;
use e2e::wait;
use serde_json::{Value, json};

use crate::network::{local_pods, v4};
use crate::objects::{Table, Workload};
use crate::packet::Probe;
use crate::twin::Twin;
use crate::wire::{Entry, Outcome};

/// What the API server holds of ours.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: SocketAddr,
    held: BTreeMap<String, Workload>,
    rounds: u16,
}

impl Cluster {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            held: BTreeMap::new(),
            rounds: 0,
        }
    }

    /// How often both proxies were waited for.
    pub(crate) fn rounds(&self) -> u16 {
        self.rounds
    }

    /// Puts these tables in the place of those that are there; Services are changed where they can be.
    pub(crate) fn write(&mut self, tables: &[Table]) -> Result<()> {
        let wanted: BTreeMap<String, Workload> = tables
            .iter()
            .flat_map(|table| &table.workloads)
            .map(|workload| (workload.name.clone(), workload.clone()))
            .collect();
        // What goes first makes room: addresses and ports belong to slots.
        let gone = self
            .held
            .iter()
            .filter(|(name, _)| !wanted.contains_key(*name));
        self.change_all(gone.map(|(_, workload)| (Some(workload), None)).collect())?;
        let there = wanted
            .iter()
            .map(|(name, to)| (self.held.get(name), Some(to)));
        self.change_all(there.collect())?;
        self.held = wanted;
        Ok(())
    }

    fn change_all(&self, changes: Vec<(Option<&Workload>, Option<&Workload>)>) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut connection = Connection::open(self.server)?;
            while let Some((from, to)) = changes.get(next.fetch_add(1, Ordering::Relaxed)) {
                change(&mut connection, *from, *to).with_context(|| format!("{to:#?}"))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().ok().context("a writer panicked")?
            };
            threads.into_iter().try_for_each(join)
        })
    }

    /// Writes one more Service, which both proxies learn of last, and waits until both serve it in both families.
    pub(crate) fn wait_for(&mut self, twins: &mut [Twin; 2]) -> Result<()> {
        self.rounds += 1;
        let mut connection = Connection::open(self.server)?;
        let port = 1000 + self.rounds;
        let [service, slices @ ..] = last_objects(port);
        if self.rounds == 1 {
            connection.create(SERVICES, &service)?;
            slices
                .iter()
                .try_for_each(|slice| connection.create(SLICES, slice))?;
        } else {
            connection.replace(&format!("{SERVICES}/last"), &service)?;
            for slice in &slices {
                connection.replace(&format!("{SLICES}/{}", name_of(slice)), slice)?;
            }
        }
        for twin in twins {
            let name = twin.proxy.name();
            wait::until(&format!("the last Service at {name}"), PATIENCE, || {
                twin.expect_running()?;
                Ok(serves_last(twin, port)?.then_some(()))
            })?;
        }
        Ok(())
    }
}

fn change(
    connection: &mut Connection,
    from: Option<&Workload>,
    to: Option<&Workload>,
) -> Result<()> {
    let service = |workload: &Workload| format!("{SERVICES}/{}", workload.name);
    match (from, to) {
        (Some(from), Some(to)) if may_become(&from.service, &to.service) => {
            connection.replace(&service(to), &to.service)?;
        }
        (from, to) => {
            if let Some(from) = from {
                connection.delete(&service(from))?;
            }
            if let Some(to) = to {
                connection.create(SERVICES, &to.service)?;
            }
        }
    }
    if let Some(to) = to
        && let Some(status) = &to.status
    {
        connection.patch(&format!("{}/status", service(to)), status)?;
    }
    let by_name = |workload: Option<&Workload>| -> HashMap<String, Value> {
        let slices = workload.into_iter().flat_map(|workload| &workload.slices);
        slices
            .map(|slice| (name_of(slice), slice.clone()))
            .collect()
    };
    let (before, after) = (by_name(from), by_name(to));
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        connection.delete(&format!("{SLICES}/{name}"))?;
    }
    for (name, slice) in &after {
        if before.contains_key(name) {
            connection.replace(&format!("{SLICES}/{name}"), slice)?;
        } else {
            connection.create(SLICES, slice)?;
        }
    }
    Ok(())
}

/// Whether the API server takes the second in the place of the first.
fn may_become(from: &Value, to: &Value) -> bool {
    let of = |object: &Value, field: &str| object["spec"][field].clone();
    let alike = |field| of(from, field) == of(to, field) && !of(to, field).is_null();
    alike("ipFamilies") && alike("clusterIPs")
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A Service whose port is that of its only endpoint, and new each time.
fn last_objects(port: u16) -> [Value; 3] {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "last"},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": "10.96.250.1",
            "clusterIPs": ["10.96.250.1", "fd12:3456:789a:10::fa01"],
            "ports": [{"port": port}],
        },
    });
    let slice = |family: &str, address: std::net::IpAddr| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": format!("last-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": "last"},
            },
            "addressType": family,
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "nodeName": "node-1", "conditions": {"ready": true}}],
        })
    };
    let pods = [config::address::IpFamily::V4, config::address::IpFamily::V6]
        .map(|family| local_pods(family)[0]);
    [service, slice("IPv4", pods[0]), slice("IPv6", pods[1])]
}

fn serves_last(twin: &mut Twin, port: u16) -> Result<bool> {
    let frontends = [v4([10, 96, 250, 1]), "fd12:3456:789a:10::fa01".parse()?];
    let pods = [config::address::IpFamily::V4, config::address::IpFamily::V6]
        .map(|family| local_pods(family)[0]);
    let probes: Vec<_> = frontends
        .into_iter()
        .zip(pods)
        .map(|(frontend, pod)| {
            let probe = Probe {
                source: SocketAddr::new(pod, 999),
                destination: SocketAddr::new(frontend, port),
                protocol: Protocol::Tcp,
                number: 0,
            };
            (Entry::Interface(1), probe)
        })
        .collect();
    let outcomes = twin.wire.send(&probes)?;
    let arrived = |(outcome, pod): (&Outcome, std::net::IpAddr)| matches!(outcome, Outcome::Out { destination, .. } if *destination == SocketAddr::new(pod, port));
    Ok(outcomes.iter().zip(pods).all(arrived))
}

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const CONNECTIONS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);
