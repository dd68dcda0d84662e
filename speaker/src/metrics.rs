//! Metrics.

use config::name::NodeName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use speaker_announcer::{EventReason, EventSubject};

/// All metrics of the speaker.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What goes over the wire.
    pub packets: Packets,
    /// Addresses that this node answers for: 1 for each.
    pub owned: Family<Address, Gauge>,
    /// Changes of ownership at this node, by cause.
    pub moves: Family<Cause, Counter>,
    /// Seconds from the last sign of the old owner to the first announcement of this node.
    pub takeover: Histogram,
    /// Claims of other machines to our addresses, by what came of it.
    pub conflicts: Family<Cause, Counter>,
    /// Peers: 1 if it is heard, 0 if it is silent.
    pub peers: Family<Peer, Gauge>,
    /// Times that this speaker was stopped for so long that it could not judge its peers.
    pub stalls: Counter,
    /// Addresses that speakers of the cluster announce.
    pub addresses: Gauge,
    /// 1 if the service proxy of this node is healthy.
    pub proxy_healthy: Gauge,
}

/// Counters of packets, made once so that the machine's thread touches nothing but atomics.
#[derive(Clone, Debug)]
pub struct Packets {
    /// Frames of ARP received.
    pub received_arp: Counter,
    /// Frames of Neighbor Discovery received.
    pub received_ndp: Counter,
    /// Heartbeats received.
    pub received_heartbeats: Counter,
    /// Frames of ARP sent.
    pub sent_arp: Counter,
    /// Frames of Neighbor Discovery sent.
    pub sent_ndp: Counter,
    /// Heartbeats sent.
    pub sent_heartbeats: Counter,
    /// Packets that could not be sent.
    pub not_sent: Counter,
    /// Frames that were not looked at because their sender sends too many.
    pub too_many: Counter,
    /// Packets received that were not heeded, by reason.
    pub refused: Family<Refused, Counter>,
}

/// The labels of a packet counter.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Direction {
    direction: &'static str,
    kind: &'static str,
}

/// The labels of a packet that is not heeded.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Refused {
    /// `frame` or `heartbeat`.
    pub kind: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The label of a VIP.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Address {
    /// The VIP.
    pub address: String,
}

/// The label of a cause.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Cause {
    /// The reason of the event.
    pub cause: &'static str,
}

/// The label of a peer.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Peer {
    /// The name of its node.
    pub node: String,
}

impl From<&NodeName> for Peer {
    fn from(node: &NodeName) -> Self {
        Self {
            node: node.to_string(),
        }
    }
}

impl Metrics {
    /// Metrics that are counted from now on, shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("foghorn_speaker");
        let metrics = Self {
            packets: Packets::register(registry),
            owned: Family::default(),
            moves: Family::default(),
            takeover: Histogram::new(exponential_buckets(0.01, 1.5, 16)),
            conflicts: Family::default(),
            peers: Family::default(),
            stalls: Counter::default(),
            addresses: Gauge::default(),
            proxy_healthy: Gauge::default(),
        };
        // From 0 on: who looks for an increase does not see a counter that appears with 1.
        for reason in EventReason::ALL {
            let cause = Cause {
                cause: reason.name(),
            };
            match reason.subject() {
                EventSubject::Move { .. } => drop(metrics.moves.get_or_create(&cause)),
                EventSubject::Conflict => drop(metrics.conflicts.get_or_create(&cause)),
                EventSubject::Speakers => {}
            }
        }
        registry.register(
            "owner",
            "1 for each address that this node answers for",
            metrics.owned.clone(),
        );
        registry.register(
            "moves",
            "Changes of ownership at this node, by the reason of the Event",
            metrics.moves.clone(),
        );
        registry.register_with_unit(
            "takeover_duration",
            "From the last sign of the old owner to the first announcement of this node",
            Unit::Seconds,
            metrics.takeover.clone(),
        );
        registry.register(
            "conflicts",
            "Claims of other machines to our addresses, by what came of them",
            metrics.conflicts.clone(),
        );
        registry.register(
            "peer_heard",
            "Whether the speaker of a node is heard: 1, or silent: 0",
            metrics.peers.clone(),
        );
        registry.register(
            "stalls",
            "Times that this speaker was stopped for too long to judge its peers",
            metrics.stalls.clone(),
        );
        registry.register(
            "addresses",
            "Addresses that speakers of the cluster announce",
            metrics.addresses.clone(),
        );
        registry.register(
            "proxy_healthy",
            "Whether the service proxy of this node is healthy, or nobody asks it",
            metrics.proxy_healthy.clone(),
        );
        metrics
    }
}

impl Packets {
    fn register(registry: &mut Registry) -> Self {
        let packets = Family::<Direction, Counter>::default();
        let refused = Family::<Refused, Counter>::default();
        let not_sent = Counter::default();
        registry.register(
            "packets",
            "Packets on the wire: received or sent, of the kinds arp, ndp and heartbeat",
            packets.clone(),
        );
        registry.register(
            "packets_refused",
            "Packets received and not heeded: frames and heartbeats",
            refused.clone(),
        );
        registry.register(
            "packets_not_sent",
            "Packets that could not be sent",
            not_sent.clone(),
        );
        let too_many = refused
            .get_or_create(&Refused {
                kind: "frame",
                reason: "too_many",
            })
            .clone();
        let counter = |direction, kind| {
            packets
                .get_or_create(&Direction { direction, kind })
                .clone()
        };
        Self {
            received_arp: counter("received", "arp"),
            received_ndp: counter("received", "ndp"),
            received_heartbeats: counter("received", "heartbeat"),
            sent_arp: counter("sent", "arp"),
            sent_ndp: counter("sent", "ndp"),
            sent_heartbeats: counter("sent", "heartbeat"),
            not_sent,
            too_many,
            refused,
        }
    }

    /// Counts a packet that was not heeded.
    pub fn refuse(&self, kind: &'static str, reason: &'static str) {
        self.refused.get_or_create(&Refused { kind, reason }).inc();
    }
}
