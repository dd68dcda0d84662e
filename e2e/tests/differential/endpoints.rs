//! Random EndpointSlices of a Service.

use std::net::IpAddr;

use config::address::IpFamily;
use e2e::random::Random;
use serde_json::{Value, json};

use crate::network::{self, NODE, NODE_ADDRESSES};
use crate::objects::{Port, Shape, family_name};
use crate::scene::ZONES;

impl Shape<'_> {
    /// The slices of a Service with these ports.
    pub(crate) fn slices(
        &mut self,
        service: &str,
        families: &[IpFamily],
        ports: &[Port],
    ) -> Vec<Value> {
        let mut slices = Vec::new();
        for family in families {
            let endpoints = self.endpoints(*family);
            // Most often all are in one slice; an endpoint that moves is in two.
            let count = self.pick(&[1, 1, 1, 2, 3]);
            for index in 0..count {
                let shares =
                    |random: &mut Random| count == 1 || random.below(count) == 0 || index == 0;
                let some: Vec<Value> = endpoints
                    .iter()
                    .filter(|_| shares(self.random))
                    .cloned()
                    .collect();
                let ports = self.endpoint_ports(ports);
                slices.push(json!({
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "namespace": "default",
                        "name": format!("{service}-{}-{index}", family_name(*family).to_lowercase()),
                        "labels": {"kubernetes.io/service-name": service},
                    },
                    "addressType": family_name(*family),
                    "ports": ports,
                    "endpoints": some,
                }));
            }
        }
        slices
    }

    /// Now and then a port is missing, or is there for another protocol.
    fn endpoint_ports(&mut self, ports: &[Port]) -> Vec<Value> {
        let mut found = Vec::new();
        for port in ports {
            if self.one_in(15) {
                continue;
            }
            let protocol = if self.one_in(20) {
                "TCP"
            } else {
                port.protocol
            };
            let number = self.pick(&[8080, 8080, 8081, 80]);
            found.push(json!({"name": port.name, "port": number, "protocol": protocol}));
        }
        found
    }

    /// Endpoints with different addresses; whatever slice one is in, it is the same there.
    fn endpoints(&mut self, family: IpFamily) -> Vec<Value> {
        let count = self.pick(&[0, 1, 2, 3, 3, 4, 5]);
        // What all have in common makes topology and terminating endpoints matter at all.
        let hinted = self.pick(&[0, 0, 1, 2, 3]);
        let all_leave = self.one_in(6);
        let only_remote = self.one_in(4);
        let mut pool: Vec<(Option<u8>, IpAddr)> = network::remote_pods(family)
            .into_iter()
            .map(|(node, address)| (Some(node), address))
            .collect();
        if !only_remote {
            pool.extend(
                network::local_pods(family)
                    .into_iter()
                    .map(|address| (Some(1), address)),
            );
        }
        // Pods in the network of a node.
        pool.push((Some(2), network::other_nodes(family)[0]));
        if !only_remote && self.one_in(3) {
            pool.push((Some(1), NODE_ADDRESSES[usize::from(family == IpFamily::V6)]));
        }
        let mut endpoints = Vec::new();
        for _ in 0..count {
            let at = usize::from(self.random.below(u16::try_from(pool.len()).unwrap_or(1)));
            let (node, address) = pool.swap_remove(at);
            endpoints.push(self.endpoint(node, address, hinted, all_leave));
        }
        endpoints
    }

    fn endpoint(
        &mut self,
        node: Option<u8>,
        address: IpAddr,
        hinted: u16,
        all_leave: bool,
    ) -> Value {
        let mut conditions = match self.random.below(10) {
            _ if all_leave => {
                json!({"ready": false, "serving": !self.one_in(3), "terminating": true})
            }
            0 => json!({"ready": false, "serving": false, "terminating": false}),
            1 => json!({"ready": false, "serving": true, "terminating": true}),
            2 => json!({"ready": false, "serving": false, "terminating": true}),
            // publishNotReadyAddresses
            3 => json!({"ready": true, "serving": true, "terminating": true}),
            4 => json!({}),
            _ => json!({"ready": true, "serving": true, "terminating": false}),
        };
        if self.one_in(20) {
            conditions
                .as_object_mut()
                .expect("conditions")
                .remove("serving");
        }
        let mut endpoint = json!({"addresses": [address], "conditions": conditions});
        if let Some(node) = node
            && !self.one_in(15)
        {
            endpoint["nodeName"] = json!(format!("node-{node}"));
        }
        let zone = self.pick(&ZONES);
        endpoint["zone"] = json!(zone);
        let mut hints = json!({});
        if (hinted & 1 == 1) && !self.one_in(12) {
            hints["forZones"] = json!([{"name": self.pick(&ZONES)}]);
        }
        if (hinted & 2 == 2) && !self.one_in(12) {
            let name = self.pick(&[NODE, "node-2", "node-3"]);
            hints["forNodes"] = json!([{"name": name}]);
        }
        if hints.as_object().is_some_and(|hints| !hints.is_empty()) {
            endpoint["hints"] = hints;
        }
        endpoint
    }
}
