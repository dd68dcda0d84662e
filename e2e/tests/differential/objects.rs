//! Random tables: a few Services with their EndpointSlices, of every shape that the API server takes.
//!
//! The frontends of one table are its own, since the API server refuses those that collide: each table has a *slot*, and
//! every address and port follows from the slot.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use config::address::IpFamily;
use config::endpoint::EndpointSlice;
use config::service::Service;
use e2e::random::Random;
use serde_json::{Value, json};

use crate::network::{self, NODE_ADDRESSES, v4};

/// A few Services that stand in the kernel at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its number in the run, from which its seed follows.
    pub(crate) number: u32,
    pub(crate) workloads: Vec<Workload>,
}

/// A Service with its endpoints, as objects of the API.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) service: Value,
    /// The merge patch of its status; none if it has no external addresses.
    pub(crate) status: Option<Value>,
    pub(crate) slices: Vec<Value>,
}

/// Services of each table.
pub(crate) const SERVICES: u16 = 4;
/// Tables that stand in the kernel at the same time, at most.
pub(crate) const MOST_SLOTS: u16 = 40;
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

impl Table {
    /// The table with this number, in this slot, in the round with this number.
    pub(crate) fn random(seed: u64, number: u32, slot: u16, round: u16) -> Self {
        let mut random = random_of(seed, number);
        let workloads = (0..SERVICES).map(|position| {
            let shape = Shape {
                random: &mut random,
                table: number,
                round,
                slot,
                position,
            };
            shape.workload()
        });
        Self {
            number,
            workloads: workloads.collect(),
        }
    }
}

/// The chances of a table.
pub(crate) fn random_of(seed: u64, number: u32) -> Random {
    Random::seeded(
        seed.wrapping_mul(0x9e37_79b9)
            .wrapping_add(u64::from(number) << 20),
    )
}

impl Workload {
    /// As the programs read them.
    pub(crate) fn read(&self) -> Result<(Service, Vec<Arc<EndpointSlice>>)> {
        let mut service = self.service.clone();
        if let Some(status) = &self.status {
            service["status"] = status["status"].clone();
        }
        let service = serde_json::from_value(service)?;
        let service = Service::from_api(&service).context("not a Service")?;
        let mut slices = Vec::new();
        for slice in &self.slices {
            let slice = serde_json::from_value(slice.clone())?;
            slices.extend(EndpointSlice::from_api(&slice).map(Arc::new));
        }
        Ok((service, slices))
    }
}

/// What a Service is made from.
pub(crate) struct Shape<'a> {
    pub(crate) random: &'a mut Random,
    table: u32,
    round: u16,
    slot: u16,
    position: u16,
}

/// A port of a Service, as far as its endpoints have to know it.
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: &'static str,
}

impl Shape<'_> {
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        *self.random.choose(choices).expect("choices")
    }

    pub(crate) fn one_in(&mut self, count: u16) -> bool {
        self.random.one_in(count)
    }

    /// The number of the Service among all that stand at the same time.
    fn number(&self) -> u16 {
        self.slot * SERVICES + self.position
    }

    /// Services have the names of those that they follow in their slot, so that most are changed and not made anew. Those
    /// that keep clients on their endpoints never follow one, since whom it kept would be kept on.
    fn name(&self, spec: &Value) -> String {
        let (slot, position) = (self.slot, self.position);
        if spec["sessionAffinity"] == "ClientIP" {
            format!("sticky-{}-{position}", self.table)
        } else {
            format!("web-{slot}-{position}")
        }
    }

    fn workload(mut self) -> Workload {
        let families = self.pick(&[
            &[IpFamily::V4][..],
            &[IpFamily::V6],
            &[IpFamily::V4, IpFamily::V6],
            &[IpFamily::V4, IpFamily::V6],
            &[IpFamily::V6, IpFamily::V4],
        ]);
        let kind = self.pick(&[
            "ClusterIP",
            "ClusterIP",
            "NodePort",
            "NodePort",
            "LoadBalancer",
            "LoadBalancer",
            "LoadBalancer",
            "LoadBalancer",
        ]);
        let sticky = self.one_in(4);
        let (ports, named) = self.ports(kind, sticky);
        let mut spec = json!({
            "type": kind,
            "ipFamilyPolicy": if families.len() == 2 { "RequireDualStack" } else { "SingleStack" },
            "ipFamilies": families.iter().map(|family| family_name(*family)).collect::<Vec<_>>(),
            "ports": ports,
        });
        let addresses: Vec<IpAddr> = families
            .iter()
            .map(|family| self.cluster_ip(*family))
            .collect();
        spec["clusterIP"] = json!(addresses[0]);
        spec["clusterIPs"] = json!(addresses);
        let labels = self.oddities(&mut spec, families);
        self.policies(&mut spec, kind, families, sticky);
        let name = self.name(&spec);
        let status =
            (kind == "LoadBalancer" && spec["type"] == kind).then(|| self.status(families));
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "default", "name": name, "labels": labels},
            "spec": spec,
        });
        let slices = self.slices(&name, families, &named);
        Workload {
            name,
            service,
            status,
            slices,
        }
    }

    /// One to three ports; a number may be there for more than one protocol.
    fn ports(&mut self, kind: &str, sticky: bool) -> (Vec<Value>, Vec<Port>) {
        let count = 1 + self.random.below(3);
        let shared = self.one_in(4);
        let mut ports = Vec::new();
        let mut named = Vec::new();
        let protocols = ["TCP", "UDP", "SCTP"];
        let first = usize::from(self.random.below(5)) % 3;
        for index in 0..count {
            let protocol = protocols[(first + usize::from(index)) % 3];
            let protocol = if shared {
                protocol
            } else {
                self.pick(&["TCP", "TCP", "UDP", "SCTP"])
            };
            // Services of one table may share an address, and all may share the node's: never an address and port.
            let at = 3 * self.number() + if shared { 0 } else { index };
            let (port, node_port) = self.port_numbers(at, sticky);
            let mut port = json!({"port": port, "protocol": protocol, "targetPort": 8080});
            if count > 1 {
                port["name"] = json!(format!("p{index}"));
            }
            if kind != "ClusterIP" {
                port["nodePort"] = json!(node_port);
            }
            let name = port["name"].as_str().unwrap_or_default().to_owned();
            ports.push(port);
            named.push(Port { name, protocol });
        }
        (ports, named)
    }

    /// The port and the node port with this number among those of a round. Where clients keep their endpoints, the ports
    /// are others in each table, and the node ports others for some rounds: nobody finds what others have kept.
    fn port_numbers(&self, at: u16, sticky: bool) -> (u16, u16) {
        const BAND: u16 = 3 * SERVICES * MOST_SLOTS;
        if !sticky {
            return (1000 + at, 30_000 + at);
        }
        let table = u16::try_from(self.table % 4000).unwrap_or(0);
        let within = at % (3 * SERVICES);
        (
            2000 + 3 * SERVICES * table + within,
            30_000 + BAND * (1 + self.round % 3) + at,
        )
    }

    /// Services that no proxy, or another one, serves; the labels.
    fn oddities(&mut self, spec: &mut Value, families: &[IpFamily]) -> Value {
        match self.random.below(24) {
            0 => {
                *spec = json!({"type": "ExternalName", "externalName": "example.com"});
                json!({})
            }
            1 => {
                let ports = spec["ports"].clone();
                let names: Vec<_> = families.iter().map(|family| family_name(*family)).collect();
                let policy = spec["ipFamilyPolicy"].clone();
                *spec = json!({
                    "type": "ClusterIP", "clusterIP": "None", "ports": ports,
                    "ipFamilies": names, "ipFamilyPolicy": policy,
                });
                for port in spec["ports"].as_array_mut().into_iter().flatten() {
                    port.as_object_mut().expect("a port").remove("nodePort");
                }
                json!({})
            }
            2 => json!({PROXY_NAME_LABEL: "other"}),
            3 => json!({"service.kubernetes.io/headless": ""}),
            _ => json!({}),
        }
    }

    fn policies(&mut self, spec: &mut Value, kind: &str, families: &[IpFamily], sticky: bool) {
        if spec["type"] != kind || spec["clusterIP"] == "None" {
            return;
        }
        let external_ips = if self.one_in(4) {
            self.external_ips(kind, families)
        } else {
            Vec::new()
        };
        if sticky {
            spec["sessionAffinity"] = json!("ClientIP");
            spec["sessionAffinityConfig"] =
                json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
        }
        if self.one_in(3) {
            spec["internalTrafficPolicy"] = json!("Local");
        }
        if (kind != "ClusterIP" || !external_ips.is_empty()) && self.one_in(2) {
            spec["externalTrafficPolicy"] = json!("Local");
        }
        if !external_ips.is_empty() {
            spec["externalIPs"] = json!(external_ips);
        }
        if kind != "LoadBalancer" {
            return;
        }
        if spec["externalTrafficPolicy"] == "Local" {
            spec["healthCheckNodePort"] = json!(32_000 + self.number());
        }
        if self.one_in(3) {
            let count = 1 + self.random.below(2);
            let ranges: Vec<_> = (0..count).map(|_| self.pick(&SOURCE_RANGES)).collect();
            spec["loadBalancerSourceRanges"] = json!(ranges);
        }
        if self.one_in(5) {
            spec["allocateLoadBalancerNodePorts"] = json!(false);
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                port.as_object_mut().expect("a port").remove("nodePort");
            }
        }
    }

    fn cluster_ip(&self, family: IpFamily) -> IpAddr {
        let number = self.number();
        match family {
            IpFamily::V4 => v4([10, 96, 1 + low(number / 250), 1 + low(number % 250)]),
            IpFamily::V6 => v6(&format!("fd12:3456:789a:10::{:x}", 0x100 + number)),
        }
    }

    /// An address of the table that its Services may share, or the node's own.
    fn vip(&mut self, family: IpFamily) -> IpAddr {
        let vip = network::vips(self.slot, family)[usize::from(self.random.below(2))];
        match (family, self.one_in(8)) {
            (IpFamily::V4, true) => NODE_ADDRESSES[0],
            (IpFamily::V6, true) => NODE_ADDRESSES[1],
            (_, false) => vip,
        }
    }

    /// Never an address that the Service may have as a VIP too.
    fn external_ips(&mut self, kind: &str, families: &[IpFamily]) -> Vec<IpAddr> {
        let (slot, position) = (self.slot, self.position);
        let mut addresses = Vec::new();
        for family in families {
            let on_node = kind != "LoadBalancer" && self.one_in(8);
            addresses.push(match (family, on_node) {
                (IpFamily::V4, true) => NODE_ADDRESSES[0],
                (IpFamily::V4, false) => v4([198, 19, low(slot), 1 + low(position)]),
                (IpFamily::V6, _) => v6(&format!("2001:db8:200:{slot:x}::{:x}", 1 + position)),
            });
        }
        addresses
    }

    fn status(&mut self, families: &[IpFamily]) -> Value {
        let mut ingress = Vec::new();
        for family in families {
            if self.one_in(8) {
                continue;
            }
            let mut one = json!({"ip": self.vip(*family)});
            match self.random.below(8) {
                0 => one["ipMode"] = json!("Proxy"),
                1 => one["ipMode"] = json!("VIP"),
                2 => one = json!({"hostname": "balancer.example.com"}),
                _ => {}
            }
            ingress.push(one);
        }
        json!({"status": {"loadBalancer": {"ingress": ingress}}})
    }
}

pub(crate) fn family_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

fn low(number: u16) -> u8 {
    let [_, low] = number.to_be_bytes();
    low
}

fn v6(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Longer than it takes to ask twice, shorter than the rounds after which node ports come again.
const AFFINITY_SECONDS: u32 = 5;
/// They divide the outsiders, the Pods, and have the node on one side.
const SOURCE_RANGES: [&str; 7] = [
    "198.51.100.0/25",
    "198.51.100.0/24",
    "10.244.1.0/24",
    "192.168.1.0/24",
    "2001:db8::/112",
    "2001:db8::/64",
    "fd12:3456:789a:f401::/64",
];
