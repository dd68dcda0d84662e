//! What speakers tell each other: values, their octets, and the keys that prove who says it.
//!
//! One UDP datagram to a link-local group, on every link, each interval and when something changes. Every datagram is
//! complete in itself; there is no fragmentation and no connection. It carries
//!
//! - who sends it, and since which start (*incarnation*), with which *sequence* number on this link;
//! - *echoes*: the last sequence number that it received of each peer, which prove to the peer that the sender
//!   is of now and not a recording, without any clock, and say whom the sender hears;
//! - the *version* and *digest* of its table of VIPs (what it offers, claims and owns), so that a peer that missed
//!   something knows and asks; and entries of the table itself: those that changed lately, or a whole range of it.

pub mod codec;
pub mod key;
pub mod rejection;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use config::name::NodeName;
use sha2::{Digest, Sha256};

use crate::candidates::first_octets;
use crate::packet::MacAddr;

/// The UDP port of heartbeats, source and destination.
pub const PORT: u16 = 17992;

/// The group of heartbeats over IPv6: transient, link-local (RFC 4291 §2.7).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x666f, 0x6768);

/// The group of heartbeats over IPv4, for links without IPv6: in the block that no router forwards and every
/// snooping switch floods (RFC 5771 §4, RFC 4541 §2.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 139);

/// The longest datagram: fits every Ethernet with room for IPv6, UDP and a tunnel or two.
pub const LONGEST: usize = 1400;

/// The most echoes in one datagram. With more peers than this the echoes take turns.
pub const MOST_ECHOES: usize = 80;

/// The most peers whose tables are asked for in one datagram.
pub const MOST_WANTED: usize = 16;

/// A node in few octets: the first four of the SHA-256 of its name.
///
/// Used where a mistake by one in four thousand million is harmless; senders are always named in full.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The short form of a name.
    pub fn of(node: &NodeName) -> Self {
        let bits = first_octets(&Sha256::digest(node.as_str())) >> 32;
        Self(u32::try_from(bits).unwrap_or_default())
    }
}

/// A heartbeat.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// The node that sends it.
    pub node: NodeName,
    /// The index, on the sender, of the interface that it is sent on.
    pub link: u32,
    /// The hardware address of that interface: the one that answers for the sender's VIPs.
    pub mac: MacAddr,
    /// The start of the sender that it belongs to.
    pub incarnation: u64,
    /// Its number among the heartbeats of the sender on this link; starts at random.
    pub sequence: u64,
    /// Time to the next one, in whole milliseconds.
    pub interval: Duration,
    /// Why the sender as a whole stands for nothing now, if so.
    pub unfit: Option<Unfit>,
    /// Counts the changes of the sender's table.
    pub version: u64,
    /// The digest of the sender's table at this version.
    pub digest: u64,
    /// The last heartbeats that the sender received, by sender.
    pub echoes: Vec<Echo>,
    /// Whether these are all the echoes there are.
    pub echoes_complete: bool,
    /// The peers whose whole tables the sender wants to hear.
    pub wanted: Vec<NodeId>,
    /// A part of the sender's table.
    pub entries: Entries,
}

/// The last heartbeat that somebody received of a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Echo {
    /// The peer.
    pub node: NodeId,
    /// The low half of its sequence number.
    pub sequence: u32,
    /// Whether the peer counts as heard now.
    pub heard: bool,
}

/// Why a speaker stands for nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It has just started.
    Starting,
    /// The service proxy of its node is not healthy.
    ProxyUnhealthy,
    /// Its node is being drained.
    Draining,
    /// It is about to end.
    ShuttingDown,
}

/// A part of a speaker's table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entries {
    /// What these VIPs are to the sender now; nothing is said of others.
    Changes(Vec<Entry>),
    /// Everything the sender's table has from `first` to `last`, both included.
    Range {
        /// The lowest address that it speaks of.
        first: IpAddr,
        /// The highest address that it speaks of.
        last: IpAddr,
        /// The entries in that range.
        entries: Vec<Entry>,
    },
}

/// What a VIP is to a speaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The address.
    pub vip: IpAddr,
    /// What the speaker does about it; `None` if it does not stand.
    pub claim: Option<Claim>,
}

/// What a speaker does about a VIP.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Claim {
    /// It could own it.
    Offered,
    /// It is about to own it.
    Claiming,
    /// It answers for it.
    Owned {
        /// The number of the claim.
        epoch: u32,
    },
    /// It answers for it and wants another node to take over.
    Leaving {
        /// The number of the claim.
        epoch: u32,
    },
    /// It heard another machine answer for it.
    Quarantined,
}

impl Claim {
    /// The number of the claim of an owner.
    pub fn epoch(self) -> Option<u32> {
        match self {
            Self::Owned { epoch } | Self::Leaving { epoch } => Some(epoch),
            Self::Offered | Self::Claiming | Self::Quarantined => None,
        }
    }

    /// Whether it could own the VIP if asked.
    pub fn stands(self) -> bool {
        matches!(self, Self::Offered | Self::Claiming | Self::Owned { .. })
    }
}
