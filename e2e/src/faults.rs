//! What goes wrong on a LAN, on demand.

use std::process::Command;

use anyhow::Result;

use crate::namespace::{feed, ip};
use crate::topology::NodeNumber;

/// The bridge with the faults that were put on it.
///
/// All of it is made where the bridge is, so the node notices only what it would notice of a real cable or switch.
#[derive(Debug)]
pub struct Faults(());

/// A direction on a node's cable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// What the node sends is lost; it hears everything.
    FromNode,
    /// What is sent to the node is lost; everybody hears it.
    ToNode,
}

impl Direction {
    fn set(self) -> &'static str {
        match self {
            Self::FromNode => "from_node",
            Self::ToNode => "to_node",
        }
    }
}

impl Faults {
    /// Prepares the bridge; nothing is lost yet.
    pub fn prepare() -> Result<Self> {
        nft(RULES)?;
        Ok(Self(()))
    }

    /// Pulls the node's cable: both ends see the carrier go.
    pub fn link_down(&self, node: NodeNumber) -> Result<()> {
        ip(&["link", "set", &node.port(), "down"])?;
        Ok(())
    }

    /// Plugs the node's cable in again.
    pub fn link_up(&self, node: NodeNumber) -> Result<()> {
        ip(&["link", "set", &node.port(), "up"])?;
        Ok(())
    }

    /// Loses every frame in one direction, with the carrier up.
    pub fn lose(&self, node: NodeNumber, direction: Direction) -> Result<()> {
        nft(&format!(
            "add element bridge faults {} {{ {} }}",
            direction.set(),
            node.port()
        ))
    }

    /// Lets every frame through again, for every node.
    pub fn lose_nothing(&self) -> Result<()> {
        nft("flush set bridge faults from_node\nflush set bridge faults to_node")
    }
}

fn nft(commands: &str) -> Result<()> {
    feed(Command::new("nft").args(["-f", "-"]), commands)
}

const RULES: &str = "
table bridge faults {
    set from_node { type ifname; }
    set to_node { type ifname; }
    chain from_node { type filter hook prerouting priority -300; iifname @from_node drop; }
    chain to_node { type filter hook postrouting priority 300; oifname @to_node drop; }
}
";
