//! Tells what the machine says: as log lines, metrics, and Events on the Services.

use config::name::NodeName;
use config::snapshot::Snapshot;
use config_runtime::events::{self, Events, Severity, Subject};
use speaker_announcer::{Event, EventSubject};
use tokio::sync::watch;

use crate::compile::Compiler;
use crate::engine::{Interface, Report};
use crate::metrics::{Address, Cause, Metrics, Peer};
use crate::proxy_socket::News;

/// Tells what the machine says.
#[derive(Debug)]
pub struct Teller {
    /// The node of this speaker.
    pub node: NodeName,
    /// Where Events go.
    pub events: Events,
    /// Where counts go.
    pub metrics: Metrics,
    /// Where goes what the proxy has to know.
    pub news: watch::Sender<News>,
}

impl Teller {
    /// Tells one thing.
    pub fn tell(&self, report: Report, compiler: &Compiler, snapshot: &Snapshot) {
        match report {
            Report::Event(event, interfaces) => {
                self.count(&event);
                let note = note(&event, &self.node, &interfaces);
                log(&event, &note);
                self.tell_services(&event, &note, compiler, snapshot);
            }
            Report::Silent(silent) => {
                // Nobody listens while there is no proxy.
                self.news.send_modify(|news| news.silent = silent);
            }
            Report::LastOwners(owners) => {
                self.news.send_modify(|news| news.moved = owners);
            }
            Report::Watched(watched) => {
                self.news.send_modify(|news| news.watched = watched);
            }
            Report::SocketFailed(reason) => {
                tracing::warn!(reason, "Socket not as it should be: trying again");
            }
        }
    }

    fn tell_services(&self, event: &Event, note: &str, compiler: &Compiler, snapshot: &Snapshot) {
        let Some(vip) = event.vip() else { return };
        let services = compiler
            .services_of(vip)
            .filter_map(|key| snapshot.service(key));
        for service in services {
            self.events.tell(events::Event {
                subject: Subject {
                    api_version: "v1".to_owned(),
                    kind: "Service".to_owned(),
                    namespace: Some(service.key.namespace().to_owned()),
                    name: service.key.name().to_owned(),
                    uid: service.uid.to_string(),
                },
                severity: if event.reason().is_warning() {
                    Severity::Warning
                } else {
                    Severity::Normal
                },
                reason: event.reason().name().to_owned(),
                note: note.to_owned(),
            });
        }
    }

    fn count(&self, event: &Event) {
        let metrics = &self.metrics;
        let cause = Cause {
            cause: event.reason().name(),
        };
        if let (Some(vip), Some(owns)) = (event.vip(), event.owns()) {
            let address = Address {
                address: vip.to_string(),
            };
            if owns {
                metrics.owned.get_or_create(&address).set(1);
            } else {
                metrics.owned.remove(&address);
            }
        }
        match event.reason().subject() {
            EventSubject::Move { .. } => {
                metrics.moves.get_or_create(&cause).inc();
            }
            EventSubject::Conflict => {
                metrics.conflicts.get_or_create(&cause).inc();
            }
            EventSubject::Speakers => {}
        }
        match event {
            Event::TakenOver { silent_for, .. } => {
                metrics.takeover.observe(silent_for.as_secs_f64())
            }
            Event::PeerHeard { node } => {
                metrics.peers.get_or_create(&Peer::from(node)).set(1);
            }
            Event::PeerSilent { node, .. } => {
                metrics.peers.get_or_create(&Peer::from(node)).set(0);
            }
            Event::Stalled { .. } => {
                metrics.stalls.inc();
            }
            _ => {}
        }
    }
}

/// What people read: the machine's own sentence, and for a new owner where it announces.
pub fn note(event: &Event, node: &NodeName, interfaces: &[Interface]) -> String {
    let (Some(vip), Some(true)) = (event.vip(), event.owns()) else {
        return format!("{node}: {event}");
    };
    let places: Vec<_> = interfaces
        .iter()
        .map(|interface| format!("{}, {}", interface.name, interface.mac))
        .collect();
    let announcing = format!("Announcing {vip} from node {node} ({})", places.join("; "));
    match event {
        Event::Acquired { .. } => announcing,
        _ => format!("{announcing}: {event}"),
    }
}

fn log(event: &Event, note: &str) {
    let reason = event.reason().name();
    if matches!(event, Event::Stalled { .. }) {
        // On a busy machine without real-time priority there are many; the metric counts them.
        tracing::debug!(reason, "{note}");
    } else if event.reason().is_warning() {
        tracing::warn!(reason, "{note}");
    } else {
        tracing::info!(reason, "{note}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use speaker_announcer::{LinkIndex, MacAddr};

    use super::*;

    #[test]
    fn an_event_says_who_announces_and_where() {
        let vip = "192.0.2.240".parse().unwrap();
        let mac = MacAddr::new(2, 0, 0, 0, 0, 1);
        let interfaces = [Interface {
            name: "eth0".to_owned(),
            mac,
        }];
        let taken_over = Event::TakenOver {
            vip,
            from: "node-1".into(),
            silent_for: Duration::from_millis(190),
        };
        let conflict = Event::Conflict {
            vip,
            link: LinkIndex(2),
            mac,
        };
        for (event, expected) in [
            (
                Event::Acquired { vip },
                "Announcing 192.0.2.240 from node node-2 (eth0, 02:00:00:00:00:01)",
            ),
            (
                taken_over,
                "Announcing 192.0.2.240 from node node-2 (eth0, 02:00:00:00:00:01): took over 192.0.2.240 from node-1, silent for 190 ms",
            ),
            (
                conflict,
                "node-2: 192.0.2.240 is in use by another machine with the hardware address 02:00:00:00:00:01: not announced until that machine is gone",
            ),
        ] {
            assert_eq!(note(&event, &"node-2".into(), &interfaces), expected);
        }
    }
}
