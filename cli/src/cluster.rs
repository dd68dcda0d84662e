//! What the cluster says, read from the objects of the API.

mod announcer;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::catalogue::{Catalogue, Slot, Writer};
use config::crd::{ServiceL2Status, ServiceL2StatusStatus};
use config::declaration::{Group, read};
use config::endpoint::EndpointSlice;
use config::name::ServiceKey;
use config::node::Node;
use config::pool::Origin;
use config::refusal::{Kind, Refusal};
use config::service::{ASSIGNED_CONDITION, Service, ServiceKind};
use config::snapshot::{Change, Dirty, Snapshot};
use controller_allocator::{Allocator, Claim, Classes, Context};
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    networking::v1 as networking,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::announcer::{Announcer, Source, mentions};
use crate::speaker::SpeakerStatus;

/// What the cluster says at one moment.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// What everything is decided from.
    pub snapshot: Snapshot,
    /// Who declared which pools and advertisements.
    pub catalogue: Catalogue,
    /// Our condition on each Service that has it.
    pub conditions: BTreeMap<ServiceKey, Condition>,
    /// Events about Services, the oldest first.
    pub events: Vec<Event>,
    /// Leases.
    pub leases: Vec<Lease>,
    /// What speakers wrote down about addresses.
    pub records: Vec<ServiceL2StatusStatus>,
    /// What speakers say.
    pub speakers: Vec<SpeakerStatus>,
    /// What could not be read, and what that means.
    pub gaps: Vec<String>,
}

/// Our condition on a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// The Service has an address.
    pub is_true: bool,
    /// When that last changed.
    pub since: Timestamp,
}

/// An Event about a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// The Service.
    pub service: ServiceKey,
    /// Identity of the object that it is about.
    pub uid: String,
    /// `type: Warning`.
    pub is_warning: bool,
    /// The reason, one word.
    pub reason: String,
    /// The whole reason.
    pub message: String,
    /// When it last happened.
    pub last: Timestamp,
}

/// A Lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who has it.
    pub holder: Option<String>,
    /// When it was renewed.
    pub renewed: Option<Timestamp>,
    /// For how long it counts after that, in seconds.
    pub duration_seconds: i32,
}

impl Lease {
    /// Whether somebody holds it at `now`.
    pub fn is_held(&self, now: Timestamp) -> bool {
        let holder = self.holder.as_deref().unwrap_or_default();
        let until = self.renewed.map(|renewed| {
            renewed
                .as_second()
                .saturating_add(i64::from(self.duration_seconds))
        });
        !holder.is_empty() && until.is_some_and(|until| now.as_second() <= until)
    }
}

impl Cluster {
    /// Reads objects; those that are about something else are passed over.
    pub fn read(objects: Vec<Value>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
            let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            let name = name.unwrap_or_default().to_owned();
            if let Err(error) = cluster.take_in(&version, &kind, object) {
                cluster
                    .gaps
                    .push(format!("{kind} {name} is left out: {error}"));
            }
        }
        cluster.events.sort_by_key(|event| event.last);
        cluster
    }

    fn take_in(&mut self, version: &str, kind: &str, object: Value) -> Result<(), String> {
        let group = version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "Service") => self.service(&typed(object)?),
            ("", "Node") => {
                if let Some((name, node)) = Node::from_api(&typed::<core::Node>(object)?) {
                    self.apply(Change::Node(name, Some(Arc::new(node))));
                }
            }
            ("", "Namespace") => {
                let metadata = typed::<core::Namespace>(object)?.metadata;
                let labels = Arc::new(metadata.labels.unwrap_or_default());
                if let Some(name) = metadata.name {
                    self.apply(Change::Namespace(name.into(), Some(labels)));
                }
            }
            ("networking.k8s.io", "ServiceCIDR") => {
                let object = typed::<networking::ServiceCIDR>(object)?;
                let texts = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
                let prefixes = texts.iter().filter_map(|text| text.parse().ok()).collect();
                let name = object.metadata.name.unwrap_or_default().into();
                self.apply(Change::ServiceCidr(name, Some(prefixes)));
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                if let Some(slice) =
                    EndpointSlice::from_api(&typed::<discovery::EndpointSlice>(object)?)
                {
                    let (key, name) = (slice.service.clone(), slice.name.clone());
                    self.apply(Change::Slice(key, name, Some(Arc::new(slice))));
                }
            }
            ("", "Event") => self.events.extend(event(typed(object)?)),
            ("coordination.k8s.io", "Lease") => self.leases.extend(lease(typed(object)?)),
            (config::crd::GROUP, "ServiceL2Status") => {
                self.records
                    .extend(typed::<ServiceL2Status>(object)?.status);
            }
            (config::crd::GROUP, "IPAddressPool") => {
                self.declare(Group::Foghorn, Kind::Pool, object)
            }
            (config::crd::GROUP, "L2Advertisement") => {
                self.declare(Group::Foghorn, Kind::Advertisement, object);
            }
            (config::metallb::GROUP, "IPAddressPool") => {
                self.declare(Group::MetalLb, Kind::Pool, object);
            }
            (config::metallb::GROUP, "L2Advertisement") => {
                self.declare(Group::MetalLb, Kind::Advertisement, object);
            }
            _ => {}
        }
        Ok(())
    }

    fn apply(&mut self, change: Change) {
        self.snapshot.apply(change, &mut Dirty::default());
    }

    fn service(&mut self, object: &core::Service) {
        let Some(service) = Service::from_api(object) else {
            return;
        };
        let conditions = object
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        if let Some(ours) = conditions.find(|condition| condition.type_ == ASSIGNED_CONDITION) {
            let condition = Condition {
                is_true: ours.status == "True",
                since: ours.last_transition_time.0,
            };
            self.conditions.insert(service.key.clone(), condition);
        }
        self.apply(Change::Service(
            service.key.clone(),
            Some(Arc::new(service)),
        ));
    }

    fn declare(&mut self, group: Group, kind: Kind, mut object: Value) {
        let metadata = |key: &str| object.pointer(&format!("/metadata/{key}")).cloned();
        let text = |key| metadata(key).and_then(|value| value.as_str().map(str::to_owned));
        let name: Arc<str> = text("name").unwrap_or_default().into();
        let labels = metadata("labels").and_then(|labels| serde_json::from_value(labels).ok());
        let writer = match group {
            Group::Foghorn => Writer::Cluster,
            Group::MetalLb => Writer::MetalLb(text("namespace").unwrap_or_default().into()),
        };
        let origin = Origin::from(&writer);
        let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
        let labels = labels.unwrap_or_default();
        let object = read(group, kind, &name, labels, spec, origin.clone()).map_err(|errors| {
            let refusals = errors.into_iter().map(|error| Refusal {
                origin: origin.clone(),
                place: None,
                kind: Some(kind),
                name: Some(name.to_string()),
                field: error.field,
                reason: error.reason,
            });
            refusals.collect()
        });
        let slot = Slot {
            writer,
            kind,
            name: Arc::clone(&name),
        };
        if let Some(change) = self.catalogue.declare(slot, object) {
            self.apply(change);
        }
    }

    /// What the addresses of all Services depend on beside the Services that are served.
    pub fn context(&self, classes: &Classes) -> Context {
        let services = self.snapshot.services();
        let others = services.map(|service| (&service.key, Claim::of_other(service, classes)));
        Context::of(&self.snapshot).beside(others)
    }

    /// What a controller decides that starts on what the cluster says: the one there is has decided the same, or will.
    pub fn decide(&self, classes: &Classes) -> Allocator {
        let mut allocator = Allocator::default();
        allocator.configure(self.context(classes));
        for service in self.snapshot.services() {
            if let Some(claim) = Claim::of(service, classes) {
                allocator.claim(claim);
            }
        }
        allocator.settle();
        allocator
    }

    /// Services of type LoadBalancer by namespace and name, those of one namespace if one is given.
    pub fn load_balancers(&self, namespace: Option<&str>) -> BTreeMap<&ServiceKey, &Service> {
        let services = self
            .snapshot
            .services()
            .map(|service| (&service.key, &**service));
        let is_asked = |key: &ServiceKey| namespace.is_none_or(|name| name == key.namespace());
        services
            .filter(|(key, service)| service.kind == ServiceKind::LoadBalancer && is_asked(key))
            .collect()
    }

    /// Events about this very object, the oldest first.
    pub fn events_of<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl DoubleEndedIterator<Item = &'a Event> {
        let is_about = |event: &&Event| {
            event.service == service.key && (event.uid.is_empty() || event.uid == *service.uid)
        };
        self.events.iter().filter(is_about)
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}

fn event(event: core::Event) -> Option<Event> {
    let subject = event.involved_object;
    if subject.kind.as_deref() != Some("Service") {
        return None;
    }
    let last = event.last_timestamp.or(event.first_timestamp);
    let last = last
        .or(event.metadata.creation_timestamp)
        .map(|time| time.0);
    Some(Event {
        service: ServiceKey::new(subject.namespace?, subject.name?),
        uid: subject.uid.unwrap_or_default(),
        is_warning: event.type_.as_deref() == Some("Warning"),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
        last: last.unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

fn lease(lease: coordination::Lease) -> Option<Lease> {
    let spec = lease.spec.unwrap_or_default();
    Some(Lease {
        namespace: lease.metadata.namespace?,
        name: lease.metadata.name?,
        holder: spec.holder_identity,
        renewed: spec.renew_time.map(|time| time.0),
        duration_seconds: spec.lease_duration_seconds.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_gap_and_harms_nothing_else() {
        let cluster = Cluster::read(vec![
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "web"}, "spec": 7}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
            json!({"kind": 3}),
        ]);
        assert_eq!(cluster.gaps.len(), 1, "{:?}", cluster.gaps);
        assert!(
            cluster
                .gaps
                .concat()
                .starts_with("Service web is left out: ")
        );
        assert!(cluster.snapshot.namespace_labels("a").is_some());
    }
}
