//! What the engine says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;
use speaker_announcer::{Event, Link, MacAddr, Time, VipStanding};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Report {
    /// The machine says this; about a VIP, with the interfaces on which it is announced.
    Event(Event, Vec<Interface>),
    /// These nodes are silent, and peers agree.
    Silent(BTreeSet<NodeName>),
    /// For each VIP the peer that owns it, or owned it before this node.
    LastOwners(BTreeMap<IpAddr, NodeName>),
    /// These VIPs would go to another node if no connection went through them.
    Watched(BTreeSet<IpAddr>),
    /// A socket does not do what it should, with all causes.
    SocketFailed(String),
}

/// An interface, as people know it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// Where everything stands.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The time on the machine's clock.
    pub now: Time,
    /// Every VIP that is configured.
    pub vips: BTreeMap<IpAddr, VipView>,
    /// Every peer that was ever heard.
    pub peers: BTreeMap<NodeName, PeerView>,
    /// The nodes that are silent, and peers agree.
    pub silent: BTreeSet<NodeName>,
    /// The interfaces in use.
    pub links: Vec<Link>,
}

/// Where one VIP stands.
#[derive(Clone, Debug)]
pub struct VipView {
    /// Who owns it, and where every candidate stands.
    pub standing: VipStanding,
    /// For how long its owner has been the owner, as this node saw it.
    pub owned_for: Option<Duration>,
    /// The interfaces of this node on which it may be announced.
    pub interfaces: Vec<Interface>,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerView {
    /// Whether it is heard.
    pub heard: bool,
    /// When that changed last.
    pub since: Time,
}
