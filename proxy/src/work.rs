//! One piece of work: Services compiled, the table changed, the kernel brought along.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use config::endpoint::EndpointSlice;
use config::name::{NodeName, ServiceKey};
use config::service::Service;
use proxy_table::{
    Endpoint, ForwardingTable, FrontendKey, FrontendKind, HealthCheck, NodeContext, Outcome,
    ServiceTable, TableChange, compile_service, serving_endpoints,
};

use crate::conntrack::{Expected, outlives_its_endpoint};
use crate::data_plane::{DataPlane, Description, PlaneError, Sent};
use crate::programmed::{Tally, announceable};

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

impl Job {
    /// Whether it takes no longer than waking another thread for it would be worth: a few milliseconds at most.
    pub fn is_brief(&self) -> bool {
        self.context.is_none() && !self.settle && self.services.len() <= BRIEF_SERVICES
    }
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// What the kernel was sent, or why it was not.
    pub sent: Result<Sent, PlaneError>,
    /// Whether the kernel was compared as a whole.
    pub whole: bool,
    /// Whether the kernel was found different from what was sent before.
    pub drifted: bool,
    /// What connections that outlive their endpoints may go to, for the frontends of the Services in the job and in those before
    /// that the kernel refused; none if it refused.
    pub expected: Expected,
    /// Health checks that are answered now, or no longer, of the Services in the job.
    pub health_checks: Vec<(ServiceKey, Option<HealthCheck>)>,
    /// Addresses that nodes may announce from now on, or not any more; none if the kernel refused.
    pub announceable: Vec<(IpAddr, bool)>,
    /// Frontends that Services in the job claim and others have.
    pub conflicts: Vec<Conflict>,
    /// How many Services have a frontend without endpoints on this node, by policy.
    pub without_local: WithoutLocal,
    /// How many Services and frontends the table has.
    pub size: (usize, usize),
}

/// A frontend that two Services claim.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{frontend} of Service {service} goes to Service {holder}, which claims it too and goes first"
)]
pub struct Conflict {
    /// The Service that does not have it.
    pub service: ServiceKey,
    /// What both claim.
    pub frontend: FrontendKey,
    /// The Service that has it.
    pub holder: ServiceKey,
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
    tally: Tally,
    without_local: WithoutLocal,
    /// The nodes that were silent at the last job.
    suspects: BTreeSet<NodeName>,
    /// Addresses that Services have and the kernel does not forward.
    withheld: BTreeSet<IpAddr>,
    /// What nobody was told yet of where connections may go: the kernel refused.
    expected: Expected,
    /// Whether what the kernel holds is unknown: at the start, and after an error.
    unsure: bool,
}

impl<P: DataPlane> Worker<P> {
    /// A worker that knows nothing yet; its first job should bring a context.
    pub fn new(plane: P, context: Arc<NodeContext>) -> Self {
        Self {
            table: ForwardingTable::new(context),
            plane,
            tally: Tally::default(),
            without_local: WithoutLocal::default(),
            suspects: BTreeSet::new(),
            withheld: BTreeSet::new(),
            expected: Expected::default(),
            unsure: true,
        }
    }

    /// Does a job. An error of the kernel is part of the result: the next job begins by reading back.
    pub fn run(&mut self, job: Job) -> Done {
        let whole = self.unsure || job.settle || job.context.is_some();
        let former = job
            .context
            .map(|context| mem::replace(&mut self.table, ForwardingTable::new(context)));
        if former.is_some() {
            self.tally.restart();
        }
        let mut expected = Expected {
            frontends: HashMap::new(),
            node_port_addresses: self.table.context().node_port_addresses.clone(),
        };
        let some_fell_silent = !job.suspects.is_subset(&self.suspects);
        self.suspects.clone_from(&job.suspects);
        let mut changes = Vec::new();
        let mut health_checks = Vec::new();
        for (key, workload) in &job.services {
            let table = former.as_ref().unwrap_or(&self.table);
            let before = table.service(key).cloned().unwrap_or_default();
            let change = self.update(key, workload.as_ref(), &job.suspects);
            if !change.is_empty() {
                changes.push(change);
            }
            let after = self.table.service(key).cloned().unwrap_or_default();
            let addresses = workload
                .as_ref()
                .map(|workload| announceable(&workload.service, &after, self.table.context()));
            self.tally.update(key, addresses.unwrap_or_default());
            self.without_local.count(&before, -1);
            self.without_local.count(&after, 1);
            if before.health_check != after.health_check {
                health_checks.push((key.clone(), after.health_check));
            }
            for frontend in touched(&before, &after, some_fell_silent) {
                if let Some(goals) = self.goals(key, workload.as_ref(), &job.suspects, frontend) {
                    expected.frontends.insert(frontend, goals);
                }
            }
        }
        let sent = if whole {
            self.plane.settle(&self.table)
        } else if changes.is_empty() {
            Ok(Sent::default())
        } else {
            self.plane.update(&self.table, &changes)
        };
        let conflicts = job.services.iter().flat_map(|(key, _)| {
            let lost = self.table.conflicts(key);
            lost.map(|(frontend, holder)| Conflict {
                service: key.clone(),
                frontend,
                holder: holder.clone(),
            })
        });
        let conflicts = conflicts.collect();
        self.expected.merge(expected);
        // Whether what a sync that failed brought is in the kernel, the next one finds out.
        let told = sent
            .is_ok()
            .then(|| (self.announceable(whole), mem::take(&mut self.expected)));
        let (announceable, expected) = told.unwrap_or_default();
        let was_unsure = mem::replace(&mut self.unsure, sent.is_err());
        let changed = sent.as_ref().is_ok_and(|sent| sent.anything);
        Done {
            drifted: changed && changes.is_empty() && former.is_none() && !was_unsure,
            sent,
            whole,
            expected,
            health_checks,
            announceable,
            conflicts,
            without_local: self.without_local,
            size: (self.table.services().len(), self.table.frontends().len()),
        }
    }

    /// What became of addresses, or may have: of all after everything was compared.
    fn announceable(&mut self, whole: bool) -> Vec<(IpAddr, bool)> {
        if whole {
            self.tally.touch_all();
        }
        self.tally.touch(mem::take(&mut self.withheld));
        let mut told = self.tally.take_touched();
        for (address, here) in &mut told {
            if *here && !self.plane.forwards(*address) {
                self.withheld.insert(*address);
                *here = false;
            }
        }
        told
    }

    /// Looks whether the kernel still holds the rules; if not, the next job reads back.
    pub fn look(&mut self) -> bool {
        let intact = self.unsure || self.plane.is_intact();
        self.unsure |= !intact;
        intact
    }

    /// What all flows meet.
    pub fn table(&self) -> &ForwardingTable {
        &self.table
    }

    /// What the kernel should hold, for people.
    pub fn describe(&self) -> Description {
        self.plane.describe(&self.table)
    }

    fn update(
        &mut self,
        key: &ServiceKey,
        workload: Option<&Workload>,
        suspects: &BTreeSet<NodeName>,
    ) -> TableChange {
        let part = workload.map(|workload| {
            let context = self.table.context();
            compile_service(&workload.service, &workload.slices, context, suspects)
        });
        self.table.update(key, part)
    }

    /// Where connections through a frontend may stay: `Some(None)` if it is gone; `None` if another Service has it now,
    /// whose own turn says.
    fn goals(
        &self,
        key: &ServiceKey,
        workload: Option<&Workload>,
        suspects: &BTreeSet<NodeName>,
        frontend: FrontendKey,
    ) -> Option<Option<Arc<BTreeSet<Endpoint>>>> {
        let Some((holder, held)) = self.table.frontend(&frontend) else {
            return Some(None);
        };
        let Workload { service, slices } = workload.filter(|_| holder == key)?;
        let mut goals = serving_endpoints(service, slices, suspects, frontend);
        goals.extend(held.inside.endpoints());
        goals.extend(held.outside.endpoints());
        Some(Some(Arc::new(goals)))
    }
}

impl WithoutLocal {
    fn count(&mut self, part: &ServiceTable, by: i64) {
        let drops = |internal: bool| {
            part.frontends.values().any(|frontend| {
                (frontend.kind == FrontendKind::ClusterIp) == internal
                    && frontend.outside == Outcome::Drop
            })
        };
        self.internal += if drops(true) { by } else { 0 };
        self.external += if drops(false) { by } else { 0 };
    }
}

/// The frontends before and after whose flows outlive their endpoints: all of them, if those are on a node that fell silent.
fn touched(
    before: &ServiceTable,
    after: &ServiceTable,
    some_fell_silent: bool,
) -> BTreeSet<FrontendKey> {
    let keys = before.frontends.keys().chain(after.frontends.keys());
    keys.filter(|key| some_fell_silent || outlives_its_endpoint(key.protocol))
        .copied()
        .collect()
}

const BRIEF_SERVICES: usize = 32;
