//! What is told about Services, in Events and in the log.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::name::{PoolName, ServiceKey};
use config_runtime::debug::Question;
use config_runtime::events::{Event, Severity, Subject};
use controller_allocator::Outcome;
use controller_allocator::status::{Notice, ServiceStatus};
use serde::Serialize;

use super::Reign;
use crate::observed::Observed;
use crate::patch;

impl Reign<'_> {
    /// Tells what is new about a Service, unless its status says so already, as after a restart.
    pub(super) fn announce(&self, outcome: &Outcome) {
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

    /// Answers what people want to see.
    pub(super) fn answer(&self, question: Question) {
        match question.subject() {
            "assignment" => question.answer(self.assignment()),
            _ => question.answer(self.replica.source.snapshot()),
        }
    }

    fn assignment(&self) -> Assignment<'_> {
        let services = self.allocator.decisions().map(|(service, decision)| {
            let granted = decision.granted.iter();
            let given = Given {
                addresses: granted
                    .map(|granted| (granted.address, granted.pool.clone()))
                    .collect(),
                lacks: decision.rejection.as_ref().map(ToString::to_string),
            };
            (service, given)
        });
        let held = self.allocator.holds().map(|hold| Held {
            address: hold.address,
            service: hold.service,
            until: hold.until.to_string(),
        });
        Assignment {
            services: services.collect(),
            held: held.collect(),
            pending_writes: self.writes.pending(),
        }
    }

    pub(super) fn tell(&self, observed: &Observed, severity: Severity, reason: &str, note: String) {
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
}

/// What a Service has and lacks, for people who look into a running controller.
#[derive(Serialize)]
struct Given {
    addresses: BTreeMap<IpAddr, Option<PoolName>>,
    lacks: Option<String>,
}

#[derive(Serialize)]
struct Held {
    address: IpAddr,
    service: ServiceKey,
    until: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assignment<'a> {
    services: BTreeMap<&'a ServiceKey, Given>,
    /// Of deleted Services.
    held: Vec<Held>,
    /// How many writes to the API server wait or are under way.
    pending_writes: usize,
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
