//! What waits to be done: gathered while the worker works, handed over when it is free.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use config::name::{NodeName, ServiceKey};
use config::snapshot::{Dirty, Snapshot};
use proxy_table::NodeContext;

use crate::conntrack::outlives_its_endpoint;
use crate::surroundings::Settings;
use crate::work::{Job, Workload};

/// What waits to be done.
#[derive(Debug)]
pub struct Pending {
    settings: Settings,
    addresses: BTreeSet<IpAddr>,
    suspects: BTreeSet<NodeName>,
    /// What the worker was last told of the node.
    context: Option<Arc<NodeContext>>,
    context_touched: bool,
    services: BTreeSet<ServiceKey>,
    settle: bool,
}

impl Pending {
    /// Everything waits: nothing was done yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            addresses: BTreeSet::new(),
            suspects: BTreeSet::new(),
            context: None,
            context_touched: true,
            services: BTreeSet::new(),
            settle: false,
        }
    }

    /// The snapshot changed.
    pub fn handle_change(&mut self, dirty: Dirty) {
        self.services.extend(dirty.services);
        self.context_touched |=
            dirty.service_cidrs || dirty.nodes.contains(&self.settings.node_name);
    }

    /// The machine has these addresses now.
    pub fn handle_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.context_touched = true;
        self.addresses = addresses;
    }

    /// These nodes are silent now. Looks at all endpoints for those on nodes that became silent or no longer are; that is
    /// rare.
    pub fn handle_silent(&mut self, silent: BTreeSet<NodeName>, snapshot: &Snapshot) {
        let changed: BTreeSet<&NodeName> = self.suspects.symmetric_difference(&silent).collect();
        let services = snapshot.services().map(|service| &service.key);
        let affected = services.filter(|key| {
            let mut endpoints = snapshot.slices(key).flat_map(|slice| &slice.endpoints);
            endpoints.any(|endpoint| {
                endpoint
                    .node
                    .as_ref()
                    .is_some_and(|node| changed.contains(node))
            })
        });
        self.services.extend(affected.cloned());
        self.suspects = silent;
    }

    /// The kernel is to be compared as a whole, and every connection that may outlive its endpoint.
    pub fn handle_audit(&mut self, snapshot: &Snapshot) {
        self.settle = true;
        let services = snapshot.services().filter(|service| {
            let mut ports = service.ports.iter();
            ports.any(|port| outlives_its_endpoint(port.protocol))
        });
        self.services
            .extend(services.map(|service| service.key.clone()));
    }

    /// The worker failed: the kernel is to be compared as a whole.
    pub fn handle_failure(&mut self) {
        self.settle = true;
    }

    /// How many Services wait.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The next job, if anything waits.
    pub fn take(&mut self, snapshot: &Snapshot) -> Option<Job> {
        let context = self.new_context(snapshot);
        if context.is_none() && self.services.is_empty() && !self.settle {
            return None;
        }
        let dirty = std::mem::take(&mut self.services);
        let keys: Vec<ServiceKey> = match context {
            // What is gone needs no word: the worker begins a new table.
            Some(_) => {
                let present = snapshot.services().map(|service| service.key.clone());
                dirty
                    .into_iter()
                    .chain(present)
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            }
            None => dirty.into_iter().collect(),
        };
        let services = keys
            .into_iter()
            .map(|key| {
                let workload = snapshot.service(&key).map(|service| Workload {
                    service: Arc::clone(service),
                    slices: snapshot.slices(&key).cloned().collect(),
                });
                (key, workload)
            })
            .collect();
        Some(Job {
            context,
            suspects: self.suspects.clone(),
            services,
            settle: std::mem::take(&mut self.settle),
        })
    }

    /// The context, if it is another one now.
    fn new_context(&mut self, snapshot: &Snapshot) -> Option<Arc<NodeContext>> {
        if !std::mem::take(&mut self.context_touched) {
            return None;
        }
        let node = snapshot.node(&self.settings.node_name);
        let node = node.map(|node| &**node);
        let cidrs = snapshot.service_cidrs();
        let context = self.settings.context(node, &self.addresses, cidrs);
        if self.context.as_deref() == Some(&context) {
            return None;
        }
        let context = Arc::new(context);
        self.context = Some(Arc::clone(&context));
        Some(context)
    }
}
