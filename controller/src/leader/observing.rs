//! What the watch of Services says, taken in.

use std::net::IpAddr;
use std::time::Instant;

use config::name::ServiceKey;
use config::service::ServiceKind;
use config_runtime::chain::Chain;
use config_runtime::events::Severity;
use controller_allocator::Claim;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1 as api;
use kube::runtime::watcher::{self, Event as WatchEvent};

use super::{POOL_DELAY, Reign, watch_services};
use crate::contention::Verdict;
use crate::observed::Observed;

/// How many events of the watch are taken in before the allocator decides.
const BATCH: usize = 2048;
impl Reign<'_> {
    pub(super) fn take_in_events(
        &mut self,
        first: Result<WatchEvent<api::Service>, watcher::Error>,
    ) {
        self.take_in_event(first);
        for _ in 1..BATCH {
            match self.services.next().now_or_never() {
                Some(Some(event)) => self.take_in_event(event),
                _ => return,
            }
        }
    }

    pub(super) fn take_in_event(
        &mut self,
        event: Result<WatchEvent<api::Service>, watcher::Error>,
    ) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if !std::mem::replace(&mut self.watch_failing, true) {
                    tracing::warn!(error = %Chain(&error), "Services cannot be watched");
                    // Not resumed but listed anew: an API server that was restored from a backup knows less than it did, and
                    // would say nothing to whoever has seen more.
                    self.services = watch_services(&self.replica.client);
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
                let known = self.book.keys().chain(self.others.keys());
                let gone = known.filter(|key| !listing.contains(*key));
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
                    self.note_other(&service, Vec::new());
                    let known = self.book.get(&service);
                    if known.is_some_and(|known| known.service.uid == observed.service.uid) {
                        self.forget(&service);
                    }
                }
            }
        }
    }

    /// A Service of another class has these addresses now.
    fn note_other(&mut self, service: &ServiceKey, addresses: Vec<IpAddr>) {
        let before = if addresses.is_empty() {
            self.others.remove(service)
        } else {
            self.others.insert(service.clone(), addresses)
        };
        self.others_touched |= before.as_ref() != self.others.get(service);
    }

    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.note_other(service, Vec::new());
        self.tell_time();
        let had = self.allocator.delete(service);
        self.pools_due
            .get_or_insert_with(|| Instant::now() + POOL_DELAY);
        if !had.is_empty() {
            tracing::info!(%service, count = had.len(), "Released the addresses of a deleted Service");
        }
        self.book.remove(service);
        self.writes.forget(service);
        self.contention.forget(service);
    }

    /// Takes in a Service as it is now.
    pub(super) fn observe(&mut self, observed: Observed) {
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
        self.note_other(&service, Vec::new());
        self.tell_time();
        self.allocator.claim(claim);
        self.book.insert(service.clone(), observed);
        self.writes.request(&service, now);
    }

    /// Takes in a Service that is not ours; it may have been.
    pub(super) fn observe_other(&mut self, observed: Observed) {
        let service = observed.service.key.clone();
        let of_other = Claim::of_other(&observed.service, &self.replica.classes);
        self.note_other(&service, of_other);
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

    pub(super) fn overwritten(&mut self, observed: &Observed, now: Instant) {
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
}
