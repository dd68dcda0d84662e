//! The tables of a round, as the specification sees them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use config::address::IpFamily;
use config::endpoint::EndpointSlice;
use config::name::ServiceKey;
use config::service::Service;
use proxy_table::{ForwardingTable, FrontendKey, NodeContext, Place, compile_service};

use crate::flows::{Question, Targets};
use crate::network::is_own;
use crate::objects::{Table, Workload};
use crate::scene::Scene;

/// What stands in the kernel in one round, as the specification sees it.
pub(crate) struct Round {
    pub(crate) tables: Vec<Table>,
    pub(crate) services: HashMap<ServiceKey, (Service, Vec<Arc<EndpointSlice>>)>,
    pub(crate) spec: ForwardingTable,
    /// By table, also what only kube-proxy serves.
    pub(crate) targets: Vec<Targets>,
}

impl Round {
    /// Makes these tables.
    pub(crate) fn new(seed: u64, scene: &Scene, numbers: &[u32], round: u16) -> Result<Self> {
        let tables = (0..).zip(numbers);
        let tables: Vec<Table> = tables
            .map(|(slot, number)| Table::random(seed, *number, slot, round))
            .collect();
        let context = Arc::new(scene.context());
        let everything = Arc::new(NodeContext {
            allow_external_ips: true,
            ..scene.context()
        });
        let mut spec = ForwardingTable::new(Arc::clone(&context));
        let mut services = HashMap::new();
        let mut targets = Vec::new();
        for table in &tables {
            let mut all = Targets::new();
            for workload in &table.workloads {
                let (service, slices) = workload.read()?;
                let key = service.key.clone();
                let part = |context: &NodeContext| {
                    compile_service(&service, &slices, context, &Default::default())
                };
                spec.update(&key, Some(part(&context)));
                let frontends = part(&everything).frontends.into_iter();
                all.extend(frontends.map(|(at, frontend)| (at, key.clone(), (*frontend).clone())));
                services.insert(key, (service, slices));
            }
            targets.push(all);
        }
        Ok(Self {
            tables,
            services,
            spec,
            targets,
        })
    }

    /// Whether Services are served at this address, and the node does not have it anyway.
    pub(crate) fn has_a_service_at(&self, address: IpAddr) -> bool {
        let mut places = self.spec.frontends().map(|(key, _, _)| key.place);
        !is_own(address) && places.any(|place| place == Place::Address(address))
    }

    /// The Service that the question is about: of its own table, else of another one that has the same place and port. Tables
    /// share the addresses of the node.
    pub(crate) fn owner(&self, position: usize, question: &Question) -> Option<&ServiceKey> {
        let flow = &question.flow;
        let at_port = |key: &FrontendKey| key.port == flow.port && key.protocol == flow.protocol;
        let is_there = |key: &FrontendKey| match key.place {
            Place::Address(address) => address == flow.destination,
            Place::Node(family) => family == IpFamily::of(flow.destination),
        };
        let own = self.targets[position].iter();
        let mut own = own.filter(|(key, ..)| at_port(key));
        let all = self.targets.iter().flatten();
        let mut all = all.filter(|(key, ..)| at_port(key) && is_there(key));
        let (_, service, _) = own.next().or_else(|| all.next())?;
        Some(service)
    }

    /// The objects of a Service.
    pub(crate) fn workload(&self, service: &ServiceKey) -> Option<&Workload> {
        let mut workloads = self.tables.iter().flat_map(|table| &table.workloads);
        workloads.find(|workload| workload.name == service.name())
    }
}
