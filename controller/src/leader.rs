//! What the leader does: watch Services, let the allocator decide, write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use config::crd::{IPAddressPool, IPAddressPoolStatus};
use config::name::ServiceKey;
use config::service::ServiceKind;
use config_runtime::events::{Event, Events, Severity, Subject};
use config_runtime::lease::Leadership;
use config_runtime::server::Flag;
use config_runtime::source::{Source, Update};
use config_runtime::telemetry::Chain;
use controller_allocator::status::{Notice, ServiceStatus};
use controller_allocator::{Allocator, Claim, Classes, Context, Outcome};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::contention::{Contention, Verdict};
use crate::metrics::Metrics;
use crate::observed::{FIELD_MANAGER, Observed};
use crate::writes::Writes;
use crate::{patch, pools};

/// A replica of the controller.
pub struct Replica {
    /// Client of the API server.
    pub client: Client,
    /// Pools, namespaces, nodes.
    pub source: Source,
    /// Which Services to serve.
    pub classes: Classes,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// Where to tell Events.
    pub events: Events,
    /// Where to count.
    pub metrics: Metrics,
    /// Raised once this replica could lead.
    pub ready: Flag,
}

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many events of the watch are taken in before the allocator decides.
const BATCH: usize = 2048;
/// How long the statuses of pools may lag behind.
const POOL_DELAY: Duration = Duration::from_millis(500);
/// How long to wait before the statuses of pools are tried again.
const POOL_RETRY: Duration = Duration::from_secs(10);

impl Replica {
    /// Follows until elected, then leads until deposed, and so on until `stopping`.
    ///
    /// # Errors
    /// None so far.
    pub async fn run(mut self, stopping: CancellationToken) -> anyhow::Result<()> {
        loop {
            // Cancel-safe: `changed` keeps what it took in, and a follower keeps nothing else.
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                _ = self.source.changed() => {
                    if self.source.is_synced() {
                        self.ready.raise();
                    }
                }
                () = self.leadership.elected() => {
                    self.metrics.set_leading(true);
                    Reign::begin(&mut self).run(&stopping).await;
                    self.metrics.set_leading(false);
                }
            }
        }
    }
}

/// The time from an election to the end of the leadership. Nothing of it outlives it.
struct Reign<'a> {
    replica: &'a mut Replica,
    services: BoxStream<'static, Result<WatchEvent<api::Service>, watcher::Error>>,
    /// Services seen by the list that is under way; the others are gone when it is done.
    listing: HashSet<ServiceKey>,
    listed: bool,
    watch_failing: bool,
    allocator: Allocator,
    /// The Services that are ours, or were.
    book: HashMap<ServiceKey, Observed>,
    writes: Writes,
    contention: Contention,
    in_flight: JoinSet<Written>,
    pool_statuses: Option<BTreeMap<String, IPAddressPoolStatus>>,
    pools_due: Option<Instant>,
    pools_in_flight: JoinSet<PoolsWritten>,
    began: Instant,
    decided: bool,
}

/// A write of a Service's status that was answered.
struct Written {
    service: ServiceKey,
    result: Result<Box<api::Service>, WriteError>,
    duration: Duration,
}

enum WriteError {
    /// Another version is in force by now.
    Stale,
    /// The Service is gone.
    Gone,
    /// This replica does not lead any more.
    NotLeading,
    Failed(String),
}

type PoolsWritten = (BTreeMap<String, IPAddressPoolStatus>, Option<String>);

impl<'a> Reign<'a> {
    fn begin(replica: &'a mut Replica) -> Self {
        let services = Api::<api::Service>::all(replica.client.clone());
        let services = watch(services, watcher::Config::default()).default_backoff();
        Self {
            replica,
            services: services.boxed(),
            listing: HashSet::new(),
            listed: false,
            watch_failing: false,
            allocator: Allocator::default(),
            book: HashMap::new(),
            writes: Writes::default(),
            contention: Contention::default(),
            in_flight: JoinSet::new(),
            pool_statuses: None,
            pools_due: Some(Instant::now()),
            pools_in_flight: JoinSet::new(),
            began: Instant::now(),
            decided: false,
        }
    }

    async fn run(mut self, stopping: &CancellationToken) {
        let leadership = self.replica.leadership.clone();
        self.configure();
        loop {
            let timeout = self.next_timeout();
            // Cancel-safe: every branch takes something in as a whole, or nothing.
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = leadership.deposed() => break,
                Some(written) = self.in_flight.join_next() => self.take_in_write(written.ok()),
                Some(written) = self.pools_in_flight.join_next() => self.take_in_pools(written.ok()),
                update = self.replica.source.changed() => self.take_in_update(&update),
                Some(event) = self.services.next() => self.take_in_events(event),
                () = sleep_until(timeout) => {}
            }
            self.advance();
        }
        // What is on its way names the version it was made for: letting it end harms nobody.
        while self.in_flight.join_next().await.is_some() {}
    }

    fn next_timeout(&self) -> Option<Instant> {
        let pools = self
            .pools_due
            .filter(|_| self.is_ready() && self.pools_in_flight.is_empty());
        let writes = self.writes.poll_timeout().filter(|_| self.is_ready());
        [pools, writes].into_iter().flatten().min()
    }

    /// Whether everything is known: before, nothing may be decided.
    fn is_ready(&self) -> bool {
        self.listed && self.replica.source.is_synced()
    }

    fn take_in_update(&mut self, update: &Update) {
        if self.replica.source.is_synced() {
            self.replica.ready.raise();
        }
        if update.dirty.configuration || !update.dirty.nodes.is_empty() {
            self.configure();
        }
        self.pools_due
            .get_or_insert_with(|| Instant::now() + POOL_DELAY);
    }

    fn configure(&mut self) {
        self.allocator
            .configure(Context::of(self.replica.source.snapshot()));
    }

    fn take_in_events(&mut self, first: Result<WatchEvent<api::Service>, watcher::Error>) {
        self.take_in_event(first);
        for _ in 1..BATCH {
            match self.services.next().now_or_never() {
                Some(Some(event)) => self.take_in_event(event),
                _ => return,
            }
        }
    }

    fn take_in_event(&mut self, event: Result<WatchEvent<api::Service>, watcher::Error>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if !std::mem::replace(&mut self.watch_failing, true) {
                    tracing::warn!(error = %Chain(&error), "Services cannot be watched");
                }
                return;
            }
        };
        if std::mem::take(&mut self.watch_failing) {
            tracing::info!("Services can be watched again");
        }
        match event {
            WatchEvent::Init => self.listing.clear(),
            WatchEvent::InitApply(object) => {
                if let Some(observed) = Observed::from_api(&object) {
                    self.listing.insert(observed.service.key.clone());
                    self.observe(observed);
                }
            }
            WatchEvent::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                let gone = self.book.keys().filter(|key| !listing.contains(*key));
                for service in gone.cloned().collect::<Vec<_>>() {
                    self.forget(&service);
                }
                self.listed = true;
            }
            WatchEvent::Apply(object) => {
                if let Some(observed) = Observed::from_api(&object) {
                    self.observe(observed);
                }
            }
            WatchEvent::Delete(object) => {
                if let Some(observed) = Observed::from_api(&object) {
                    let service = observed.service.key;
                    let known = self.book.get(&service);
                    if known.is_some_and(|known| known.service.uid == observed.service.uid) {
                        self.forget(&service);
                    }
                }
            }
        }
    }

    fn forget(&mut self, service: &ServiceKey) {
        let had = self.allocator.withdraw(service);
        if !had.is_empty() {
            tracing::info!(%service, count = had.len(), "Released the addresses of a deleted Service");
        }
        self.book.remove(service);
        self.writes.forget(service);
        self.contention.forget(service);
    }

    /// Takes in a Service as it is now.
    fn observe(&mut self, observed: Observed) {
        let service = observed.service.key.clone();
        let known = self.book.get(&service);
        let known = known.filter(|known| known.service.uid == observed.service.uid);
        if known.is_some_and(|known| !observed.is_newer_than(known)) {
            return;
        }
        let now = Instant::now();
        let Some(claim) = Claim::of(&observed.service, &self.replica.classes) else {
            self.observe_other(observed);
            return;
        };
        let held: Vec<_> = self
            .allocator
            .decision(&service)
            .map(|decision| decision.addresses().collect())
            .unwrap_or_default();
        let says = |observed: &Observed| {
            observed
                .service
                .ingress
                .iter()
                .map(|entry| entry.address)
                .eq(held.iter().copied())
        };
        if let Some(known) = known {
            if held.is_empty() && !says(&observed) && observed.foreign_writer().is_some() {
                // Somebody else gave it an address, and we did not: adopt it.
                self.allocator.withdraw(&service);
            } else if !held.is_empty() && says(known) && !says(&observed) {
                self.overwritten(&observed, now);
            }
        }
        self.allocator.claim(claim);
        self.book.insert(service.clone(), observed);
        self.writes.request(&service, now);
    }

    /// Takes in a Service that is not ours; it may have been.
    fn observe_other(&mut self, observed: Observed) {
        let service = observed.service.key.clone();
        let had = self.allocator.withdraw(&service);
        let is_balancer = observed.service.kind == ServiceKind::LoadBalancer;
        if !had.is_empty() {
            let had: Vec<String> = had.iter().map(ToString::to_string).collect();
            let why = if is_balancer {
                "its spec.loadBalancerClass is not ours"
            } else {
                "it is no load balancer any more"
            };
            tracing::info!(%service, vip = had.join(" "), reason = why, "Released addresses");
            let note = format!("Took {} away: {why}", had.join(", "));
            self.tell(&observed, Severity::Normal, "AddressReleased", note);
        }
        if is_balancer || observed.condition.is_none() {
            self.book.remove(&service);
            self.writes.forget(&service);
            self.contention.forget(&service);
        } else {
            self.book.insert(service.clone(), observed);
            self.writes.request(&service, Instant::now());
        }
    }

    fn overwritten(&mut self, observed: &Observed, now: Instant) {
        let service = &observed.service.key;
        let writer = observed.foreign_writer().unwrap_or("somebody else");
        match self.contention.handle_overwritten(service, now) {
            Verdict::WriteAgain => {
                tracing::warn!(%service, writer, "Status was overwritten: writing it again");
            }
            Verdict::YieldFirst(until) => {
                tracing::error!(%service, writer, "Status is contested: leaving it as it is");
                let note = format!(
                    "{writer} keeps changing status.loadBalancer: it is left as it is for {} minutes. To do: stop one of the two, or give the Service a spec.loadBalancerClass",
                    until.saturating_duration_since(now).as_secs() / 60
                );
                self.tell(observed, Severity::Warning, "StatusContested", note);
            }
            Verdict::Yield(_) => {}
        }
    }

    /// Decides what is open, then writes what can be written.
    fn advance(&mut self) {
        if !self.is_ready() {
            return;
        }
        let begin = Instant::now();
        let outcomes = self.allocator.settle();
        if !outcomes.is_empty() {
            self.replica
                .metrics
                .observe_settle(begin.elapsed().as_secs_f64());
            self.pools_due.get_or_insert(begin + POOL_DELAY);
        }
        for outcome in &outcomes {
            self.announce(outcome);
            self.writes.request(&outcome.service, begin);
        }
        if !std::mem::replace(&mut self.decided, true) {
            let duration_ms = self.began.elapsed().as_millis();
            tracing::info!(
                count = self.book.len(),
                duration_ms,
                "Adopted what Services hold"
            );
        }
        self.write(Instant::now());
        self.write_pools(Instant::now());
        let contested = self.contention.count(begin);
        self.replica
            .metrics
            .set_queue(self.writes.pending(), contested);
    }

    /// Tells what is new about a Service, unless its status says so already, as after a restart.
    fn announce(&self, outcome: &Outcome) {
        let service = &outcome.service;
        let (Some(observed), Some(claim)) =
            (self.book.get(service), self.allocator.claim_of(service))
        else {
            return;
        };
        let desired = ServiceStatus::of(claim, &outcome.decision);
        let said = patch::says_condition(observed, &desired.condition);
        if said && outcome.gained.is_empty() && outcome.released.is_empty() {
            return;
        }
        for notice in Notice::of(outcome) {
            let severity = if notice.is_warning() {
                Severity::Warning
            } else {
                Severity::Normal
            };
            log(service, &notice);
            self.tell(observed, severity, notice.reason(), notice.to_string());
        }
    }

    fn tell(&self, observed: &Observed, severity: Severity, reason: &str, note: String) {
        let service = &observed.service;
        self.replica.events.tell(Event {
            subject: Subject {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                namespace: Some(service.key.namespace().to_owned()),
                name: service.key.name().to_owned(),
                uid: service.uid.to_string(),
            },
            severity,
            reason: reason.to_owned(),
            note,
        });
    }

    fn write(&mut self, now: Instant) {
        while let Some(service) = self.writes.poll_write(now) {
            match self.body(&service, now) {
                Some(body) => self.send(service, body),
                None => {
                    self.writes.handle_done(&service, now);
                    if let Some(until) = self.contention.yields_until(&service, now) {
                        self.writes.request_at(&service, until);
                    }
                }
            }
        }
    }

    /// What must be written to a Service, if anything.
    fn body(&mut self, service: &ServiceKey, now: Instant) -> Option<Value> {
        let observed = self.book.get(service)?;
        let time = Timestamp::now();
        let (Some(decision), Some(claim)) = (
            self.allocator.decision(service),
            self.allocator.claim_of(service),
        ) else {
            let body = patch::retract(observed);
            if body.is_none() {
                self.book.remove(service);
            }
            return body;
        };
        let desired = ServiceStatus::of(claim, decision);
        if self.contention.yields_until(service, now).is_some() {
            patch::contested(observed, &desired, time)
        } else {
            patch::apply(observed, &desired, time)
        }
    }

    fn send(&mut self, service: ServiceKey, body: Value) {
        let api = Api::<api::Service>::namespaced(self.replica.client.clone(), service.namespace());
        let leadership = self.replica.leadership.clone();
        self.in_flight.spawn(async move {
            let begin = Instant::now();
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(body);
            // Asked last of all: this replica may have stood still since it decided.
            let result = if leadership.holds() {
                let write = api.patch_status(service.name(), &parameters, &patch);
                match tokio::time::timeout(WRITE_TIMEOUT, write).await {
                    Ok(Ok(object)) => Ok(Box::new(object)),
                    Ok(Err(error)) => Err(WriteError::from(&error)),
                    Err(_) => Err(WriteError::Failed("no answer in time".to_owned())),
                }
            } else {
                Err(WriteError::NotLeading)
            };
            Written {
                service,
                result,
                duration: begin.elapsed(),
            }
        });
    }

    fn take_in_write(&mut self, written: Option<Written>) {
        let Some(Written {
            service,
            result,
            duration,
        }) = written
        else {
            return;
        };
        let now = Instant::now();
        let label = match result {
            Ok(object) => {
                if let Some(observed) = Observed::from_api(&object) {
                    self.observe(observed);
                }
                self.writes.handle_done(&service, now);
                "written"
            }
            Err(WriteError::Stale) => {
                tracing::debug!(%service, "Service changed meanwhile: looking at it again");
                self.writes.handle_failed(&service, now, fastrand::f64());
                "stale"
            }
            Err(WriteError::Gone) => {
                self.writes.handle_done(&service, now);
                "gone"
            }
            Err(WriteError::NotLeading) => {
                self.writes.handle_done(&service, now);
                "not_leading"
            }
            Err(WriteError::Failed(error)) => {
                let failures = self.writes.handle_failed(&service, now, fastrand::f64());
                if failures == 1 {
                    tracing::warn!(%service, error, "Status cannot be written: trying again");
                } else {
                    tracing::debug!(%service, error, count = failures, "Status cannot be written");
                }
                "failed"
            }
        };
        self.replica
            .metrics
            .count_write(label, duration.as_secs_f64());
    }

    fn write_pools(&mut self, now: Instant) {
        let is_due = self.pools_due.is_some_and(|due| due <= now);
        if !is_due || !self.pools_in_flight.is_empty() {
            return;
        }
        self.pools_due = None;
        self.replica.metrics.set_allocation(&self.allocator);
        let source = &self.replica.source;
        let reports = pools::reports(source.snapshot(), source.refusals(), &self.allocator);
        let known = self.pool_statuses.take();
        let api = Api::<IPAddressPool>::all(self.replica.client.clone());
        let leadership = self.replica.leadership.clone();
        self.pools_in_flight
            .spawn(write_pools(api, leadership, known, reports));
    }

    fn take_in_pools(&mut self, written: Option<PoolsWritten>) {
        let Some((statuses, failure)) = written else {
            return;
        };
        self.pool_statuses = Some(statuses);
        if let Some(error) = failure {
            tracing::warn!(error, "Status of a pool cannot be written: trying again");
            self.pool_statuses = None;
            self.pools_due.get_or_insert(Instant::now() + POOL_RETRY);
        }
    }
}

impl From<&kube::Error> for WriteError {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Stale,
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            _ => Self::Failed(Chain(error).to_string()),
        }
    }
}

/// Writes the statuses of pools that are not what they should be. Without the custom resources there are none.
async fn write_pools(
    api: Api<IPAddressPool>,
    leadership: Leadership,
    known: Option<BTreeMap<String, IPAddressPoolStatus>>,
    reports: BTreeMap<String, pools::Report>,
) -> PoolsWritten {
    let mut statuses = match known {
        Some(known) => known,
        None if reports.is_empty() => return (BTreeMap::new(), None),
        None => match api.list(&ListParams::default()).await {
            Ok(list) => list
                .items
                .into_iter()
                .filter_map(|pool| Some((pool.metadata.name?, pool.status?)))
                .collect(),
            Err(error) => return (BTreeMap::new(), Some(Chain(&error).to_string())),
        },
    };
    statuses.retain(|name, _| reports.contains_key(name));
    for (name, report) in reports {
        let body = pools::apply(&name, statuses.get(&name), &report, Timestamp::now());
        let Some((body, status)) = body else {
            continue;
        };
        if !leadership.holds() {
            break;
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(body);
        let write = api.patch_status(&name, &parameters, &patch);
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(_)) => {
                statuses.insert(name, status);
            }
            // Gone meanwhile: the watch will say so.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => {}
            Ok(Err(error)) => return (statuses, Some(Chain(&error).to_string())),
            Err(_) => return (statuses, Some("no answer in time".to_owned())),
        }
    }
    (statuses, None)
}

fn log(service: &ServiceKey, notice: &Notice) {
    match notice {
        Notice::Assigned(vip, pool) => {
            let pool = pool.as_ref().map(tracing::field::display);
            tracing::info!(%service, %vip, pool, "Assigned address");
        }
        Notice::Adopted(vip, pool) => {
            let pool = pool.as_ref().map(tracing::field::display);
            tracing::info!(%service, %vip, pool, "Adopted address");
        }
        Notice::Kept(vip, obstacle) => {
            tracing::warn!(%service, %vip, reason = %obstacle, "Keeping address");
        }
        Notice::Released(vip, why) => {
            tracing::info!(%service, %vip, reason = %why, "Released address");
        }
        Notice::Refused(rejection, _) => {
            tracing::warn!(%service, reason = %rejection, "Refused address");
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
