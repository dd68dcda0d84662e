//! Who announces an address: what the speakers say, or else what they wrote down, or else the last Events.

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::crd::ServiceL2StatusStatus;
use config::service::Service;
use jiff::Timestamp;

use super::Cluster;

impl Cluster {
    /// Who announces an address, as far as anybody says.
    pub fn announcer(
        &self,
        service: &Service,
        address: IpAddr,
        now: Timestamp,
    ) -> Option<Announcer> {
        self.announcer_by_speakers(address, now)
            .or_else(|| self.announcer_by_records(service, address))
            .or_else(|| self.announcer_by_events(service, address))
    }

    /// What speakers wrote down about an address of a Service.
    pub fn record(&self, service: &Service, address: IpAddr) -> Option<&ServiceL2StatusStatus> {
        self.records.iter().find(|record| {
            record.service_name == service.key.name()
                && record.service_namespace == service.key.namespace()
                && record.address.parse() == Ok(address)
        })
    }

    fn announcer_by_records(&self, service: &Service, address: IpAddr) -> Option<Announcer> {
        let record = self
            .record(service, address)
            .filter(|record| !record.node.is_empty())?;
        let found = record.interfaces.iter();
        Some(Announcer {
            node: record.node.clone(),
            interfaces: interfaces(found.map(|found| (&found.name, &found.mac))),
            since: record.since.as_ref().map(|since| since.0),
            source: Source::Record,
        })
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
        let found = status.interfaces.iter();
        Some(Announcer {
            interfaces: if speaker.node == node {
                interfaces(found.map(|found| (&found.name, &found.mac)))
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

/// Interfaces with their hardware addresses, as speakers write them in Events.
fn interfaces<'a>(found: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let texts: Vec<_> = found.map(|(name, mac)| format!("{name}, {mac}")).collect();
    texts.join("; ")
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
    /// What a speaker wrote down (ServiceL2Status).
    Record,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::name::ServiceKey;
    use serde_json::json;

    use super::*;
    use crate::speaker::SpeakerStatus;

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
    fn what_was_written_down_counts_more_than_events() {
        let mut cluster = Cluster::read(vec![
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "web"}}),
            json!({"apiVersion": "foghorn.dev/v1alpha1", "kind": "ServiceL2Status",
                "metadata": {"namespace": "a", "name": "web.192.0.2.24"}, "spec": {},
                "status": {"address": "192.0.2.24", "node": "node-2", "serviceName": "web", "serviceNamespace": "a",
                    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}], "since": "1970-01-01T00:00:05Z"}}),
        ]);
        assert_eq!(cluster.gaps, [""; 0]);
        let service = Arc::clone(cluster.snapshot.services().next().unwrap());
        let address = "192.0.2.24".parse().unwrap();
        let found = cluster.announcer(&service, address, Timestamp::UNIX_EPOCH);
        let expected = Announcer {
            node: "node-2".to_owned(),
            interfaces: "eth0, 02:00:00:00:00:01".to_owned(),
            since: Some(Timestamp::from_second(5).unwrap()),
            source: Source::Record,
        };
        assert_eq!(found, Some(expected));
        cluster.records[0].node.clear();
        let found = cluster.announcer(&service, address, Timestamp::UNIX_EPOCH);
        assert_eq!(found, None);
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
}
