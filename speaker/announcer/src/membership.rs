//! Which peers are heard, on which link, and what they say.
//!
//! A peer's heartbeats form a *session* for each pair of links. A session begins with a proof that the peer is of now:
//! it echoes a recent sequence number of ours, which start at random, so that no recording can have it. After that
//! sequence numbers only grow, within a window for reordering. No clock but our own is involved.
//!
//! A recording of a moment ago does have a recent number. It is told by its sequence number while the peer's start is the
//! same; once another start has proven itself, only what echoes something later brings back a former one.

mod peer;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use config::name::NodeName;

use crate::configuration::Timing;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::{Echo, Heartbeat, NodeId};
use crate::link::LinkIndex;
use crate::packet::MacAddr;
use crate::time::Time;
pub use peer::{Peer, Received};

/// All peers that this speaker remembers.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<NodeName, Peer>,
}

/// What a speaker has sent so far: the low half of the last sequence number on each link.
#[derive(Clone, Debug, Default)]
pub struct Sent(Vec<u32>);

impl Sent {
    /// Everything up to these sequence numbers, one for each link.
    pub fn until(sequences: impl IntoIterator<Item = u64>) -> Self {
        Self(sequences.into_iter().map(low_half).collect())
    }

    /// Whether a number is that of one of the last heartbeats.
    fn has_lately(&self, sequence: u32) -> bool {
        let mut last = self.0.iter();
        last.any(|last| last.wrapping_sub(sequence) < RECENT)
    }
}

impl Peers {
    /// Takes in an authentic heartbeat of another node that came in on `link`.
    ///
    /// `sent` is what this speaker, `own`, has sent so far.
    ///
    /// # Errors
    /// The reason why it is not heeded.
    pub fn receive(
        &mut self,
        link: LinkIndex,
        heartbeat: &Heartbeat,
        own: NodeId,
        sent: &Sent,
        timing: &Timing,
        now: Time,
    ) -> Result<Received, Rejection> {
        if !self.peers.contains_key(&heartbeat.node) {
            self.make_room()?;
        }
        let peer = self
            .peers
            .entry(heartbeat.node.clone())
            .or_insert_with(|| Peer::new(NodeId::of(&heartbeat.node)));
        peer.receive(link, heartbeat, own, sent, timing, now)
    }

    /// Forgets the peer that was silent for the longest time, if there are too many.
    fn make_room(&mut self) -> Result<(), Rejection> {
        if self.peers.len() < MOST_PEERS {
            return Ok(());
        }
        let oldest = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.is_heard())
            .min_by_key(|(_, peer)| peer.last_heard())
            .map(|(node, _)| node.clone())
            .ok_or(Rejection::TooManyPeers)?;
        self.peers.remove(&oldest);
        Ok(())
    }

    /// The peer with this name, if it was ever heard.
    pub fn get(&self, node: &NodeName) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// All peers that were ever heard.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.was_heard())
    }

    /// The peers that are heard on at least one link.
    pub fn heard(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.is_heard())
    }

    /// The peer one of whose links has this hardware address.
    pub fn with_mac(&self, mac: MacAddr) -> Option<(&NodeName, &Peer)> {
        self.peers.iter().find(|(_, peer)| peer.has_mac(mac))
    }

    /// A heard peer other than `node` that says that it hears `node`.
    pub fn witness_of(&self, node: &NodeName) -> Option<&NodeName> {
        let id = NodeId::of(node);
        self.heard()
            .find(|(witness, peer)| *witness != node && peer.hears(id))
            .map(|(witness, _)| witness)
    }

    /// Whether somebody sends authentic heartbeats without having proven yet that they are of now.
    pub fn any_unproven(&self) -> bool {
        self.peers.values().any(Peer::is_to_be_proven)
    }

    /// What to echo on `link`.
    pub fn echoes(&self, link: LinkIndex) -> Vec<Echo> {
        self.peers
            .values()
            .flat_map(|peer| peer.echoes(link))
            .collect()
    }

    /// The peers whose tables this speaker has to ask for.
    pub fn wanted(&self, most: usize) -> Vec<NodeId> {
        self.heard()
            .filter(|(_, peer)| peer.differs_since().is_some())
            .map(|(_, peer)| peer.id())
            .take(most)
            .collect()
    }

    /// Ends the sessions whose time is over by `now`, and names the peers concerned.
    pub fn expire(&mut self, now: Time) -> Vec<NodeName> {
        let silent = self.whoever(|peer| peer.expire(now));
        self.peers
            .retain(|_, peer| peer.was_heard() || peer.is_to_be_proven());
        silent
    }

    /// Gives every heard peer time until `deadline`: this speaker was away and cannot judge.
    pub fn spare_until(&mut self, deadline: Time) {
        for peer in self.peers.values_mut() {
            peer.spare_until(deadline);
        }
    }

    /// Forgets that anybody was heard on `link`, which is gone or down; names the peers concerned.
    pub fn forget_link(&mut self, link: LinkIndex) -> Vec<NodeName> {
        self.whoever(|peer| peer.forget_link(link))
    }

    /// When the next session ends, if nothing more is heard.
    pub fn next_deadline(&self) -> Option<Time> {
        self.peers.values().filter_map(Peer::next_deadline).min()
    }

    /// Changes all of them; the names of those for which `change` says so.
    fn whoever(&mut self, mut change: impl FnMut(&mut Peer) -> bool) -> Vec<NodeName> {
        let concerned = self
            .peers
            .iter_mut()
            .filter_map(|(node, peer)| change(peer).then_some(node));
        concerned.cloned().collect()
    }
}

/// The low half of a sequence number, as echoes have it.
fn low_half(sequence: u64) -> u32 {
    u32::try_from(sequence & u64::from(u32::MAX)).unwrap_or_default()
}

/// The most peers that are remembered.
pub const MOST_PEERS: usize = 256;
/// How many of our last heartbeats an echo may be of.
const RECENT: u32 = 256;
