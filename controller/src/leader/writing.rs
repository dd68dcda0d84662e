//! What is written: the statuses of Services, pools and advertisements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use config::crd::{IPAddressPool, IPAddressPoolStatus, L2Advertisement, L2AdvertisementStatus};
use config::name::ServiceKey;
use config_runtime::chain::Chain;
use config_runtime::lease::Leadership;
use controller_allocator::Hold;
use controller_allocator::status::ServiceStatus;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Reign;
use crate::conditions::Wanted;
use crate::metrics::WriteResult;
use crate::observed::{FIELD_MANAGER, Observed};
use crate::{advertisements, patch, pools};

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before the statuses of pools are tried again.
const POOL_RETRY: Duration = Duration::from_secs(10);

/// How long to wait before the statuses of pools are read again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// A write of a Service's status that was answered.
pub(super) struct Written {
    service: ServiceKey,
    result: Result<Box<api::Service>, WriteError>,
    duration: Duration,
}

pub(super) enum WriteError {
    /// Another version is in force by now.
    Stale,
    /// The Service is gone.
    Gone,
    /// This replica does not lead any more.
    NotLeading,
    Failed(String),
}

pub(super) type StatusesWritten = (Statuses, Option<String>);

impl Reign<'_> {
    pub(super) fn write(&mut self, now: Instant) {
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
    pub(super) fn body(&mut self, service: &ServiceKey, now: Instant) -> Option<Value> {
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

    pub(super) fn send(&mut self, service: ServiceKey, body: Value) {
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

    pub(super) fn take_in_write(&mut self, written: Option<Written>) {
        let Some(Written {
            service,
            result: outcome,
            duration,
        }) = written
        else {
            return;
        };
        let now = Instant::now();
        let result = match outcome {
            Ok(object) => {
                if let Some(observed) = Observed::from_api(&object) {
                    self.observe(observed);
                }
                self.writes.handle_done(&service, now);
                WriteResult::Written
            }
            Err(WriteError::Stale) => {
                tracing::debug!(%service, "Service changed meanwhile: looking at it again");
                self.writes.handle_failed(&service, now, fastrand::f64());
                WriteResult::Stale
            }
            Err(WriteError::Gone) => {
                self.writes.handle_done(&service, now);
                WriteResult::Gone
            }
            Err(WriteError::NotLeading) => {
                self.writes.handle_done(&service, now);
                WriteResult::NotLeading
            }
            Err(WriteError::Failed(error)) => {
                let failures = self.writes.handle_failed(&service, now, fastrand::f64());
                if failures == 1 {
                    tracing::warn!(%service, error, "Status cannot be written: trying again");
                } else {
                    tracing::debug!(%service, error, count = failures, "Status cannot be written");
                }
                WriteResult::Failed
            }
        };
        self.replica
            .metrics
            .count_write(result, duration.as_secs_f64());
    }

    pub(super) fn write_pools(&mut self, now: Instant) {
        let is_due = self.pools_due.is_some_and(|due| due <= now);
        if !is_due || !self.pools_in_flight.is_empty() {
            return;
        }
        self.pools_due = None;
        self.replica.metrics.set_allocation(&self.allocator);
        let source = &self.replica.source;
        let reports = pools::reports(source.snapshot(), source.refusals(), &self.allocator);
        let wanted = (
            reports,
            advertisements::reports(source.snapshot(), source.refusals()),
        );
        let known = self.statuses.take();
        let client = self.replica.client.clone();
        let leadership = self.replica.leadership.clone();
        self.pools_in_flight
            .spawn(write_statuses(client, leadership, known, wanted));
    }

    pub(super) fn take_in_statuses(&mut self, written: Option<StatusesWritten>) {
        let Some((statuses, failure)) = written else {
            return;
        };
        self.statuses = Some(statuses);
        if let Some(error) = failure {
            tracing::warn!(
                error,
                "Status of a pool or advertisement cannot be written: trying again"
            );
            self.statuses = None;
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

/// What the statuses of pools say is held for deleted Services. Without the custom resources nothing is.
pub(super) async fn read_holds(api: Api<IPAddressPool>) -> Vec<Hold> {
    let mut was_told = false;
    loop {
        let error = match api.list(&ListParams::default()).await {
            Ok(list) => {
                let statuses = list.items.into_iter().filter_map(|pool| pool.status);
                return statuses.flat_map(|status| pools::holds(&status)).collect();
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => return Vec::new(),
            Err(error) => error,
        };
        if !std::mem::replace(&mut was_told, true) {
            tracing::warn!(error = %Chain(&error), "Statuses of pools cannot be read: trying again");
        }
        tokio::time::sleep(READ_RETRY).await;
    }
}

/// What the statuses of our objects are known to say, by name.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    pools: BTreeMap<String, IPAddressPoolStatus>,
    advertisements: BTreeMap<String, L2AdvertisementStatus>,
}

type Reports = (
    BTreeMap<String, pools::Report>,
    BTreeMap<String, Vec<Wanted>>,
);

/// Writes the statuses of pools and advertisements that are not what they should be. Without the custom resources there
/// are none.
async fn write_statuses(
    client: Client,
    leadership: Leadership,
    known: Option<Statuses>,
    (pools, advertisements): Reports,
) -> StatusesWritten {
    let (known_pools, known_advertisements) = known
        .map(|known| (known.pools, known.advertisements))
        .unzip();
    let of_pool = |pool: IPAddressPool| Some((pool.metadata.name?, pool.status?));
    let of_advertisement = |found: L2Advertisement| Some((found.metadata.name?, found.status?));
    let api = Api::all(client.clone());
    let (pools, failure) =
        write_kind(api, &leadership, known_pools, of_pool, pools, pools::apply).await;
    let mut statuses = Statuses {
        pools,
        ..Statuses::default()
    };
    if failure.is_some() {
        return (statuses, failure);
    }
    let apply = |name: &str, known: Option<&_>, wanted: &Vec<Wanted>, now| {
        advertisements::apply(name, known, wanted, now)
    };
    let api = Api::all(client);
    let (advertisements, failure) = write_kind(
        api,
        &leadership,
        known_advertisements,
        of_advertisement,
        advertisements,
        apply,
    )
    .await;
    statuses.advertisements = advertisements;
    (statuses, failure)
}

/// Writes the statuses of one kind; what they say then, and why not all could be written.
async fn write_kind<K, S, R>(
    api: Api<K>,
    leadership: &Leadership,
    known: Option<BTreeMap<String, S>>,
    status_of: impl Fn(K) -> Option<(String, S)>,
    reports: BTreeMap<String, R>,
    apply: impl Fn(&str, Option<&S>, &R, Timestamp) -> Option<(Value, S)>,
) -> (BTreeMap<String, S>, Option<String>)
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut statuses = match known {
        Some(known) => known,
        None if reports.is_empty() => return (BTreeMap::new(), None),
        None => match api.list(&ListParams::default()).await {
            Ok(list) => list.items.into_iter().filter_map(status_of).collect(),
            Err(error) => return (BTreeMap::new(), Some(Chain(&error).to_string())),
        },
    };
    statuses.retain(|name, _| reports.contains_key(name));
    for (name, report) in reports {
        let body = apply(&name, statuses.get(&name), &report, Timestamp::now());
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
