//! What the cluster says, read from the objects of the API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::catalogue::{Catalogue, Slot, Writer};
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

    /// Who announces an address, as far as anybody says.
    pub fn announcer(
        &self,
        service: &Service,
        address: IpAddr,
        now: Timestamp,
    ) -> Option<Announcer> {
        self.announcer_by_speakers(address, now)
            .or_else(|| self.announcer_by_events(service, address))
    }

    fn announcer_by_speakers(&self, address: IpAddr, now: Timestamp) -> Option<Announcer> {
        let statuses = self.speakers.iter().flat_map(|speaker| {
            let addresses = speaker.addresses.iter();
            let about = addresses.filter(move |status| status.address == address);
            about.map(move |status| (speaker, status))
        });
        let statuses: Vec<_> = statuses.collect();
        // What a node says of itself counts more than what others believe.
        let own = statuses
            .iter()
            .find(|(speaker, status)| status.owner.as_deref() == Some(&speaker.node));
        let (speaker, status) =
            own.or_else(|| statuses.iter().find(|(_, status)| status.owner.is_some()))?;
        let node = status.owner.clone()?;
        let since = status.owned_for_seconds.and_then(|seconds| {
            let past = std::time::Duration::try_from_secs_f64(seconds).ok()?;
            now.checked_sub(past).ok()
        });
        let interfaces = status.interfaces.iter();
        let interfaces = interfaces.map(|found| format!("{}, {}", found.name, found.mac));
        Some(Announcer {
            interfaces: if speaker.node == node {
                interfaces.collect::<Vec<_>>().join("; ")
            } else {
                String::new()
            },
            node,
            since,
            source: Source::Speaker,
        })
    }

    fn announcer_by_events(&self, service: &Service, address: IpAddr) -> Option<Announcer> {
        let start = format!("Announcing {address} from node ");
        let mut ended: BTreeSet<&str> = BTreeSet::new();
        for event in self.events_of(service).rev() {
            if let Some(rest) = event.message.strip_prefix(&start) {
                let (node, rest) = rest.split_once(" (").unwrap_or((rest, ""));
                if ended.contains(node) {
                    return None;
                }
                let interfaces = rest.split_once(')').map_or("", |(inside, _)| inside);
                return Some(Announcer {
                    node: node.to_owned(),
                    interfaces: interfaces.to_owned(),
                    since: Some(event.last),
                    source: Source::Event,
                });
            }
            // A later Event by which a node stopped to announce.
            if let Some((node, about)) = event.message.split_once(": ")
                && STOPPED.contains(&event.reason.as_str())
                && mentions(about, address)
            {
                ended.insert(node);
            }
        }
        None
    }
}

/// Who announces an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcer {
    /// The node.
    pub node: String,
    /// Interfaces and hardware addresses; empty if not known.
    pub interfaces: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who says so.
    pub source: Source,
}

/// Who says who announces an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A speaker.
    Speaker,
    /// The last Event about it.
    Event,
}

/// The reasons of Events by which a speaker says that it stopped to announce an address.
const STOPPED: [&str; 6] = [
    "AddressHandedOver",
    "AddressHandedBack",
    "AddressUnconfigured",
    "AddressYielded",
    "AddressReleased",
    "AddressConflict",
];

/// Whether a sentence has this very address in it.
pub fn mentions(sentence: &str, address: IpAddr) -> bool {
    let words = sentence.split_whitespace();
    let mut words = words.map(|word| word.trim_end_matches([':', ',', ';', '.']));
    words.any(|word| word.parse() == Ok(address))
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

    fn announcing(node: &str) -> (&'static str, String) {
        (
            "AddressAcquired",
            format!("Announcing 192.0.2.24 from node {node} (eth0, 02:00:00:00:00:01)"),
        )
    }

    /// The announcer after these Events, one a second.
    #[track_caller]
    fn after(events: &[(&str, String)], expected: Option<&str>) {
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "web", "uid": "2"},
        })];
        objects.extend(events.iter().zip(0..).map(|((reason, message), second)| {
            json!({
                "apiVersion": "v1", "kind": "Event", "reason": reason, "message": message,
                "involvedObject": {"kind": "Service", "namespace": "a", "name": "web", "uid": "2"},
                "lastTimestamp": Timestamp::from_second(second).unwrap(),
            })
        }));
        let cluster = Cluster::read(objects);
        assert_eq!(cluster.gaps, [""; 0]);
        let service = cluster
            .snapshot
            .service(&ServiceKey::new("a", "web"))
            .unwrap();
        let address = "192.0.2.24".parse().unwrap();
        let found = cluster.announcer(service, address, Timestamp::UNIX_EPOCH);
        assert_eq!(found.map(|found| found.node).as_deref(), expected);
    }

    #[test]
    fn the_last_event_says_who_announces() {
        let released = |vip: &str| {
            (
                "AddressReleased",
                format!("node-1: released {vip}: no endpoint is ready"),
            )
        };
        let lost = (
            "AddressYielded",
            "node-1: withdrew 192.0.2.24: node-2 took it over".to_owned(),
        );
        after(&[], None);
        after(&[announcing("node-1")], Some("node-1"));
        after(
            &[announcing("node-1"), announcing("node-2")],
            Some("node-2"),
        );
        after(&[announcing("node-1"), released("192.0.2.24")], None);
        after(
            &[announcing("node-1"), released("192.0.2.2")],
            Some("node-1"),
        );
        after(&[announcing("node-2"), lost], Some("node-2"));
    }

    #[test]
    fn a_speaker_counts_more_than_events_and_the_owner_more_than_others() {
        let mut cluster = Cluster::read(vec![json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "web"},
        })]);
        let speaker = |node: &str, owner: Option<&str>, seconds: Option<f64>| {
            let status = json!({
                "version": 1, "node": node, "peers": [], "silent": [],
                "addresses": [{
                    "address": "192.0.2.24", "owner": owner, "ownedForSeconds": seconds,
                    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}], "candidates": [],
                }],
            });
            serde_json::from_value::<SpeakerStatus>(status).unwrap()
        };
        cluster.speakers = vec![
            speaker("node-1", Some("node-3"), None),
            speaker("node-2", Some("node-2"), Some(2.0)),
        ];
        let service = cluster.snapshot.services().next().unwrap();
        let now = Timestamp::from_second(10).unwrap();
        let found = cluster.announcer(service, "192.0.2.24".parse().unwrap(), now);
        let expected = Announcer {
            node: "node-2".to_owned(),
            interfaces: "eth0, 02:00:00:00:00:01".to_owned(),
            since: Some(Timestamp::from_second(8).unwrap()),
            source: Source::Speaker,
        };
        assert_eq!(found, Some(expected));
    }

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
