//! Who announces which address, written down as objects of the kind `ServiceL2Status`, one for each address of a Service.
//!
//! Whoever owns an address writes its object; while nobody does, whoever owned it last. The objects belong to their
//! Services and go with them. What is to be written is decided here; [`write`] writes it.

pub mod recorder;
pub mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::crd::{CandidateSpec, ConflictSpec, InterfaceSpec, ServiceL2StatusStatus};
use config::name::{NodeName, ServiceKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use speaker_announcer::{Event, Standing};

use crate::engine::{Interface, State, VipView};

/// What a record is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// The Service.
    pub service: ServiceKey,
    /// One of its addresses.
    pub vip: IpAddr,
}

impl Subject {
    /// The name of the object, in the namespace of the Service: a DNS subdomain, in which an IPv6 address has dashes.
    pub fn object_name(&self) -> String {
        let address = match self.vip {
            IpAddr::V4(vip) => vip.to_string(),
            // Labels begin and end with a letter or digit, so nothing is left out.
            IpAddr::V6(vip) => {
                let groups = vip.segments();
                let groups: Vec<_> = groups.iter().map(|group| format!("{group:x}")).collect();
                groups.join("-")
            }
        };
        format!("{}.{address}", self.service.name())
    }
}

/// What this node has to do about a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Duty {
    /// It says this.
    Write(Arc<Record>),
    /// Nobody owns the address: it says this if it was the last to write the record.
    Correct(Arc<Record>),
    /// Another node writes it.
    Leave,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The UID of the Service that the object belongs to.
    pub service_uid: String,
    /// The status.
    pub status: ServiceL2StatusStatus,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this record.
    Write(Subject, Arc<Record>),
    /// Remove this record.
    Remove(Subject),
}

/// Why each address stands as it does: the last thing that happened to it.
#[derive(Clone, Debug, Default)]
pub struct History(BTreeMap<IpAddr, Happening>);

#[derive(Clone, Debug)]
struct Happening {
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl History {
    /// Remembers an event if it says who has an address.
    pub fn note(&mut self, event: &Event, now: Timestamp) {
        let Some(vip) = event.vip() else { return };
        if matches!(event, Event::Unconfigured { .. }) {
            self.0.remove(&vip);
        } else if event.owns().is_some() || matches!(event, Event::Conflict { .. }) {
            let happening = Happening {
                reason: event.reason().name(),
                message: event.to_string(),
                // The API has whole seconds.
                at: Timestamp::from_second(now.as_second()).unwrap_or(now),
            };
            self.0.insert(vip, happening);
        }
    }
}

/// What `node` has to do about every record there should be; records of others that should not be are not in it.
///
/// `services` has the Services of an address with their UIDs.
pub fn duties(
    node: &NodeName,
    state: &State,
    history: &History,
    services: impl Fn(IpAddr) -> Vec<(ServiceKey, String)>,
) -> BTreeMap<Subject, Duty> {
    let mut duties = BTreeMap::new();
    for (&vip, view) in &state.vips {
        for (service, service_uid) in services(vip) {
            let subject = Subject { service, vip };
            let record = || record(node, &subject, view, history, service_uid);
            let duty = match &view.standing.owner {
                Some(owner) if owner != node => Duty::Leave,
                Some(_) => Duty::Write(record()),
                None if is_conflict(view) => Duty::Write(record()),
                None => Duty::Correct(record()),
            };
            duties.insert(subject, duty);
        }
    }
    duties
}

fn is_conflict(view: &VipView) -> bool {
    matches!(view.standing.own, Standing::Quarantined { .. })
}

fn record(
    node: &NodeName,
    subject: &Subject,
    view: &VipView,
    history: &History,
    service_uid: String,
) -> Arc<Record> {
    let standing = &view.standing;
    let is_owner = standing.owner.as_ref() == Some(node);
    let happening = history.0.get(&subject.vip);
    let candidates = standing.candidates.iter();
    let status = ServiceL2StatusStatus {
        address: subject.vip.to_string(),
        node: if is_owner {
            node.to_string()
        } else {
            String::new()
        },
        service_name: subject.service.name().to_owned(),
        service_namespace: subject.service.namespace().to_owned(),
        interfaces: if is_owner {
            view.interfaces.iter().map(interface).collect()
        } else {
            Vec::new()
        },
        since: happening.map(|happening| Time(happening.at)),
        reason: happening.map_or_else(String::new, |happening| happening.reason.to_owned()),
        message: happening.map_or_else(String::new, |happening| happening.message.clone()),
        candidates: candidates
            .map(|(node, standing)| CandidateSpec {
                node: node.to_string(),
                standing: standing.label().to_owned(),
                reason: standing.to_string(),
            })
            .collect(),
        conflict: match &standing.own {
            Standing::Quarantined { mac } => Some(ConflictSpec {
                mac: mac.to_string(),
                heard_by: node.to_string(),
            }),
            _ => None,
        },
    };
    Arc::new(Record {
        service_uid,
        status,
    })
}

fn interface(interface: &Interface) -> InterfaceSpec {
    InterfaceSpec {
        name: interface.name.clone(),
        mac: interface.mac.to_string(),
    }
}

/// What this node has written and nobody else has since, as far as it knows.
#[derive(Clone, Debug, Default)]
pub struct Written(BTreeMap<Subject, Option<Arc<Record>>>);

impl Written {
    /// A record of this node that was found, whatever it says.
    pub fn found(&mut self, subject: Subject) {
        self.0.entry(subject).or_insert(None);
    }

    /// A step was done.
    pub fn done(&mut self, step: Step) {
        match step {
            Step::Write(subject, record) => drop(self.0.insert(subject, Some(record))),
            Step::Remove(subject) => drop(self.0.remove(&subject)),
        }
    }

    /// What is to be done next. What others write is forgotten.
    pub fn next(&mut self, duties: &BTreeMap<Subject, Duty>) -> Option<Step> {
        self.0
            .retain(|subject, _| duties.get(subject) != Some(&Duty::Leave));
        let gone = self.0.keys().find(|subject| !duties.contains_key(*subject));
        if let Some(subject) = gone {
            return Some(Step::Remove(subject.clone()));
        }
        duties.iter().find_map(|(subject, duty)| {
            let before = self.0.get(subject);
            let record = match duty {
                Duty::Write(record) => record,
                Duty::Correct(record) if before.is_some() => record,
                Duty::Correct(_) | Duty::Leave => return None,
            };
            let is_news = before.and_then(Option::as_ref) != Some(record);
            is_news.then(|| Step::Write(subject.clone(), Arc::clone(record)))
        })
    }
}

#[cfg(test)]
mod tests;
