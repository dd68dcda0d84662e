//! Where each node stands in the question who owns a VIP: the answer for status, `why` and logs.

use std::fmt;

use config::name::NodeName;

use crate::candidates::Ineligible;
use crate::packet::MacAddr;
use crate::time::Time;

/// Where one node stands for one VIP, as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It answers for the VIP.
    Owner {
        /// Whether it wants another node to take over.
        leaving: bool,
    },
    /// It probes the link and will answer if nobody else does.
    Claiming,
    /// It could own the VIP, but another node does or is asked first.
    Outranked {
        /// The other node.
        by: NodeName,
    },
    /// It heard the old owner on the wire, whose heartbeats are lost.
    Fenced {
        /// The hardware address that answered, if the wire said it and not a peer.
        mac: Option<MacAddr>,
    },
    /// Another machine has the address.
    Quarantined {
        /// The hardware address of that machine.
        mac: MacAddr,
    },
    /// It may not own the VIP.
    Ineligible(Ineligible),
}

impl Standing {
    /// The same in a word.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Owner { leaving: false } => "Owner",
            Self::Owner { leaving: true } => "Leaving",
            Self::Claiming => "Claiming",
            Self::Outranked { .. } => "Outranked",
            Self::Fenced { .. } => "Fenced",
            Self::Quarantined { .. } => "Quarantined",
            Self::Ineligible(reason) => reason.label(),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { leaving: false } => formatter.write_str("owns the address"),
            Self::Owner { leaving: true } => {
                formatter.write_str("owns the address and waits for another node to take it over")
            }
            Self::Claiming => formatter.write_str("probes the link before it takes the address"),
            Self::Outranked { by } => write!(formatter, "would be next, but {by} comes first"),
            Self::Fenced { mac: Some(mac) } => write!(
                formatter,
                "heard {mac} answer for the address: the old owner lives, only its heartbeats are lost"
            ),
            Self::Fenced { mac: None } => {
                formatter.write_str("does not hear the owner, but other nodes do")
            }
            Self::Quarantined { mac } => {
                write!(
                    formatter,
                    "another machine with the hardware address {mac} has the address"
                )
            }
            Self::Ineligible(reason) => reason.fmt(formatter),
        }
    }
}

/// Everything this node knows about who owns one VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VipStanding {
    /// The owner, if one is known and heard (or is this node).
    pub owner: Option<NodeName>,
    /// Since when the owner has been the owner, as this node saw it.
    pub since: Option<Time>,
    /// Where this node stands.
    pub own: Standing,
    /// All candidates in their order, this node among them.
    pub candidates: Vec<(NodeName, Standing)>,
}
