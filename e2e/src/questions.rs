//! What a test asks the cluster, and what it waits for.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value answers null for what it does not have"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::Lab;
use crate::machine;
use crate::manifest;
use crate::namespace::Namespace;
use crate::topology::{INTERFACE, POOL_IPV4, POOL_IPV6};
use crate::wait;

impl Lab {
    /// Makes three Pods, one on each node, and a dual-stack Service of type LoadBalancer before them.
    pub fn create_web(&self, name: &str) -> Result<()> {
        self.api.create(
            "/apis/apps/v1/namespaces/default/deployments",
            &manifest::deployment(name, 3),
        )?;
        self.api.create(
            "/api/v1/namespaces/default/services",
            &manifest::load_balancer(name),
        )?;
        Ok(())
    }

    /// Makes a pool of both families and a Service `web`, and waits until it has an address of each and three endpoints;
    /// the addresses.
    pub fn serve_web(&self, patience: Duration) -> Result<Vec<IpAddr>> {
        let pool = manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]);
        self.kubectl.apply(&pool)?;
        self.create_web("web")?;
        let vips = self.wait_for_external_addresses("default", "web", 2, patience)?;
        self.wait_for_endpoints("default", "web", 3, patience)?;
        Ok(vips)
    }

    /// Waits until this many addresses are announced on the LAN, as the speakers say it of themselves.
    pub fn wait_for_announcements(&self, count: usize, patience: Duration) -> Result<()> {
        let what = format!("{count} addresses to be announced");
        wait::until(&what, patience, || {
            let records = self.api.get(RECORDS)?;
            let is_announced = |record: &&Value| record["status"]["node"].is_string();
            let announced = items(&records).filter(is_announced).count();
            Ok((announced == count).then_some(()))
        })
    }

    /// Waits until this many Pods of a Deployment are ready.
    pub fn wait_for_ready_pods(&self, app: &str, count: usize, patience: Duration) -> Result<()> {
        let path = format!("/api/v1/namespaces/default/pods?labelSelector=app={app}");
        wait::until(&format!("{count} ready Pods of {app}"), patience, || {
            let pods = self.api.get(&path)?;
            let is_ready = |pod: &&Value| {
                let mut conditions = items_of(&pod["status"]["conditions"]);
                conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
            };
            let ready = items(&pods).filter(is_ready).count();
            Ok((ready == count).then_some(()))
        })
    }

    /// Plugs another machine into the LAN, no node and nothing of Kubernetes, with the hardware address `02:00:00:00:01:NN`.
    pub fn plug_in_host(&self, name: &str, number: u8, addresses: &[&str]) -> Result<Namespace> {
        let (first, others) = addresses
            .split_first()
            .context("a machine needs an address")?;
        let host = machine::plug_in(
            name,
            &format!("port-{number:x}"),
            &format!("02:00:00:00:01:{number:02x}"),
            first,
            &format!("fd12:3456:789a:1::{number:x}/64"),
        )?;
        for address in others {
            host.configure(&format!("addr add {address} dev {INTERFACE}"))?;
        }
        Ok(host)
    }

    /// The external addresses that a Service has, in the order of its status.
    pub fn external_addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        let service = self.api.get(&format!(
            "/api/v1/namespaces/{namespace}/services/{service}"
        ))?;
        Ok(external_addresses(&service))
    }

    /// Waits until a Service has `count` external addresses.
    pub fn wait_for_external_addresses(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<IpAddr>> {
        wait::until(
            &format!("{count} external addresses of {service}"),
            patience,
            || {
                let addresses = self.external_addresses(namespace, service)?;
                Ok((addresses.len() == count).then_some(addresses))
            },
        )
    }

    /// Waits until a Service has this many ready endpoints for each family; returns the Pods' names and their nodes.
    pub fn wait_for_endpoints(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        patience: Duration,
    ) -> Result<BTreeMap<String, String>> {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name={service}"
        );
        wait::until(&format!("{count} endpoints of {service}"), patience, || {
            let slices = self.api.get(&path)?;
            let mut families = BTreeMap::<&str, BTreeMap<String, String>>::new();
            for slice in items(&slices) {
                let pods = families
                    .entry(slice["addressType"].as_str().unwrap_or_default())
                    .or_default();
                for endpoint in items_of(&slice["endpoints"]) {
                    if endpoint["conditions"]["ready"] == true {
                        pods.insert(
                            endpoint["targetRef"]["name"]
                                .as_str()
                                .unwrap_or_default()
                                .to_owned(),
                            endpoint["nodeName"].as_str().unwrap_or_default().to_owned(),
                        );
                    }
                }
            }
            let complete =
                !families.is_empty() && families.values().all(|pods| pods.len() == count);
            Ok(complete.then(|| families.into_values().next().unwrap_or_default()))
        })
    }

    /// The network namespace of the Pod that has this address.
    pub fn pod_namespace(&self, address: IpAddr) -> Result<Namespace> {
        for entry in fs::read_dir("/run/netns")? {
            let namespace = Namespace::named(&entry?.file_name().to_string_lossy());
            // A namespace that goes away while we look belongs to another Pod.
            if namespace
                .run(|| has_address(address))
                .is_ok_and(|found| found)
            {
                return Ok(namespace);
            }
        }
        bail!("no network namespace has {address}")
    }
}

/// The external addresses in a Service's status.
pub fn external_addresses(service: &Value) -> Vec<IpAddr> {
    items_of(&service["status"]["loadBalancer"]["ingress"])
        .filter_map(|ingress| ingress["ip"].as_str()?.parse().ok())
        .collect()
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    items_of(&list["items"])
}

/// The values of an array; none if it is no array.
pub fn items_of(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

/// An address and a port.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

const RECORDS: &str = "/apis/foghorn.dev/v1alpha1/namespaces/default/servicel2statuses";

fn has_address(address: IpAddr) -> bool {
    // Binding to an address works only where it is.
    UdpSocket::bind((address, 0)).is_ok()
}
