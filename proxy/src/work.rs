//! One piece of work: Services compiled, the table changed, the kernel brought along.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use config::endpoint::EndpointSlice;
use config::name::{NodeName, ServiceKey};
use config::service::Service;
use proxy_table::{
    ForwardingTable, FrontendKey, FrontendKind, HealthCheck, NodeContext, Outcome, ServiceTable,
    TableChange, compile_service, serving_endpoints,
};

use crate::conntrack::{Expected, outlives_its_endpoint};
use crate::data_plane::{DataPlane, PlaneError, Sent};

/// A Service as the cluster says it is, with the slices of its endpoints.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The Service.
    pub service: Arc<Service>,
    /// Slices of its endpoints.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Another context: then `services` are all there are.
    pub context: Option<Arc<NodeContext>>,
    /// The nodes that are silent now.
    pub suspects: BTreeSet<NodeName>,
    /// Services that changed, or went (`None`).
    pub services: Vec<(ServiceKey, Option<Workload>)>,
    /// Whether the kernel is to be read back and compared as a whole.
    pub settle: bool,
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// What the kernel was sent, or why it was not.
    pub sent: Result<Sent, PlaneError>,
    /// Whether the kernel was compared as a whole.
    pub whole: bool,
    /// What connections that outlive their endpoints may go to, for the frontends of the Services in the job.
    pub expected: Expected,
    /// Health checks that are answered now, or no longer, of the Services in the job.
    pub health_checks: Vec<(ServiceKey, Option<HealthCheck>)>,
    /// How many Services have a frontend without endpoints on this node, by policy.
    pub without_local: WithoutLocal,
    /// How many Services and frontends the table has.
    pub size: (usize, usize),
}

/// How many Services drop flows because their policy is Local and no endpoint is here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WithoutLocal {
    /// With `internalTrafficPolicy: Local`.
    pub internal: i64,
    /// With `externalTrafficPolicy: Local`.
    pub external: i64,
}

/// Holds the table and the data plane, and does one job after the other.
#[derive(Debug)]
pub struct Worker<P> {
    table: ForwardingTable,
    plane: P,
    without_local: WithoutLocal,
    /// Whether what the kernel holds is unknown: at the start, and after an error.
    unsure: bool,
}

impl<P: DataPlane> Worker<P> {
    /// A worker that knows nothing yet; its first job should bring a context.
    pub fn new(plane: P, context: Arc<NodeContext>) -> Self {
        Self {
            table: ForwardingTable::new(context),
            plane,
            without_local: WithoutLocal::default(),
            unsure: true,
        }
    }

    /// Does a job. An error of the kernel is part of the result: the next job begins by reading back.
    pub fn run(&mut self, job: Job) -> Done {
        let mut whole = self.unsure || job.settle;
        if let Some(context) = &job.context {
            self.table = ForwardingTable::new(Arc::clone(context));
            self.without_local = WithoutLocal::default();
            whole = true;
        }
        let mut expected = Expected {
            frontends: HashMap::new(),
            node_port_addresses: self.table.context().node_port_addresses.clone(),
        };
        let mut changes = Vec::new();
        let mut health_checks = Vec::new();
        for (key, workload) in &job.services {
            let (change, health_check) =
                self.update(key, workload.as_ref(), &job.suspects, &mut expected);
            if !change.is_empty() {
                changes.push(change);
            }
            health_checks.extend(health_check.map(|check| (key.clone(), check)));
        }
        let sent = if whole {
            self.plane.settle(&self.table)
        } else if changes.is_empty() {
            Ok(Sent::default())
        } else {
            self.plane.update(&self.table, &changes)
        };
        self.unsure = sent.is_err();
        Done {
            sent,
            whole,
            expected,
            health_checks,
            without_local: self.without_local,
            size: (self.table.services().len(), self.table.frontends().len()),
        }
    }

    /// Brings one Service up to date; its health check too, if that is different.
    fn update(
        &mut self,
        key: &ServiceKey,
        workload: Option<&Workload>,
        suspects: &BTreeSet<NodeName>,
        expected: &mut Expected,
    ) -> (TableChange, Option<Option<HealthCheck>>) {
        let part = workload.map(|workload| {
            let context = self.table.context();
            compile_service(&workload.service, &workload.slices, context, suspects)
        });
        let before = self.table.service(key).cloned().unwrap_or_default();
        let change = self.table.update(key, part);
        let after = self.table.service(key).cloned().unwrap_or_default();
        self.without_local.internal +=
            i64::from(lacks_internal(&after)) - i64::from(lacks_internal(&before));
        self.without_local.external +=
            i64::from(lacks_external(&after)) - i64::from(lacks_external(&before));
        for frontend in touched(&before, &after) {
            let serving = match (self.table.frontend(&frontend), workload) {
                (None, _) => None,
                (Some((holder, _)), Some(workload)) if holder == key => {
                    let Workload { service, slices } = workload;
                    Some(serving_endpoints(service, slices, suspects, frontend))
                }
                // Another Service has it now; its own turn says what is expected.
                (Some(_), _) => continue,
            };
            expected.frontends.insert(frontend, serving.map(Arc::new));
        }
        let health_check =
            (before.health_check != after.health_check).then_some(after.health_check);
        (change, health_check)
    }
}

/// The frontends before and after whose flows outlive their endpoints.
fn touched(before: &ServiceTable, after: &ServiceTable) -> BTreeSet<FrontendKey> {
    let keys = before.frontends.keys().chain(after.frontends.keys());
    keys.filter(|key| outlives_its_endpoint(key.protocol))
        .copied()
        .collect()
}

fn lacks_internal(part: &ServiceTable) -> bool {
    let mut frontends = part.frontends.values();
    frontends.any(|frontend| {
        frontend.kind == FrontendKind::ClusterIp && frontend.outside == Outcome::Drop
    })
}

fn lacks_external(part: &ServiceTable) -> bool {
    let mut frontends = part.frontends.values();
    frontends.any(|frontend| {
        frontend.kind != FrontendKind::ClusterIp && frontend.outside == Outcome::Drop
    })
}
