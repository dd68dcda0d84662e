//! What the machine says when asked: who owns what, who stands where, who is silent.

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::name::NodeName;

use super::Announcer;
use super::vip::{Role, VipState};
use crate::candidates::Ineligible;
use crate::election::Voices;
use crate::event::Event;
use crate::heartbeat::{Claim, Unfit};
use crate::link::LinkIndex;
use crate::membership::Peer;
use crate::standing::{Standing, VipStanding};
use crate::time::Time;

impl Announcer {
    /// The VIPs that this node answers for.
    pub fn owned(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips
            .iter()
            .filter(|(_, state)| state.is_owner())
            .map(|(vip, _)| *vip)
    }

    /// All VIPs that are configured.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.keys().copied()
    }

    /// The VIPs that may be announced on an interface, owned or not: what its socket filter must pass.
    pub fn vips_on(&self, link: LinkIndex) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips
            .iter()
            .filter(move |(_, state)| state.links.contains(&link))
            .map(|(vip, _)| *vip)
    }

    /// The interfaces on which `vip` may be announced now.
    pub fn links_of(&self, vip: IpAddr) -> &[LinkIndex] {
        self.vips.get(&vip).map_or(&[], |state| &state.links)
    }

    /// Who owns `vip` and where every candidate stands; nothing if it is not configured.
    pub fn standing(&self, vip: IpAddr) -> Option<VipStanding> {
        let state = self.vips.get(&vip)?;
        let voices = self.voices(vip, state);
        let own = self.own_standing(vip, state, &voices);
        let (owner, since) = match &state.role {
            Role::Owner(owner) => (Some(self.node.clone()), Some(owner.since)),
            _ => {
                let owner = voices.owner(vip).map(|(voice, _)| voice.node.clone());
                let since = state
                    .last_owner
                    .as_ref()
                    .filter(|(node, _)| Some(node) == owner.as_ref());
                let since = since.map(|(_, since)| *since);
                (owner, since)
            }
        };
        let candidates = state.vip.candidates.iter().map(|candidate| {
            let standing = if candidate.node == self.node {
                own.clone()
            } else {
                let eligibility = candidate.eligibility;
                self.peer_standing(vip, &candidate.node, eligibility, owner.as_ref())
            };
            (candidate.node.clone(), standing)
        });
        Some(VipStanding {
            candidates: candidates.collect(),
            owner,
            since,
            own,
        })
    }

    fn own_standing(&self, vip: IpAddr, state: &VipState, voices: &Voices) -> Standing {
        match &state.role {
            Role::Owner(owner) => Standing::Owner {
                leaving: owner.leaving.is_some(),
            },
            Role::Claiming(_) => Standing::Claiming,
            Role::Fenced { mac, .. } => Standing::Fenced { mac: *mac },
            Role::Quarantined(quarantine) => Standing::Quarantined {
                mac: quarantine.mac,
            },
            Role::Idle => match self.fit(vip, state) {
                Err(reason) => Standing::Ineligible(reason),
                Ok(()) => {
                    let owner = voices.owner(vip).map(|(voice, _)| voice);
                    let first = owner.or_else(|| voices.best_before(state.position(), &self.node));
                    first.map_or(Standing::Claiming, |voice| Standing::Outranked {
                        by: voice.node.clone(),
                    })
                }
            },
        }
    }

    fn peer_standing(
        &self,
        vip: IpAddr,
        node: &NodeName,
        eligibility: Result<(), Ineligible>,
        owner: Option<&NodeName>,
    ) -> Standing {
        let heard = self.peers.get(node).filter(|peer| peer.is_heard());
        match heard.map(|peer| (peer, peer.claim(vip))) {
            Some((_, Some(Claim::Owned { .. }))) => Standing::Owner { leaving: false },
            Some((_, Some(Claim::Leaving { .. }))) => Standing::Owner { leaving: true },
            Some((_, Some(Claim::Claiming))) => Standing::Claiming,
            Some((_, Some(Claim::Quarantined))) => Standing::Ineligible(Ineligible::Conflict),
            Some((_, Some(Claim::Offered))) => Standing::Outranked {
                by: owner.unwrap_or(&self.node).clone(),
            },
            Some((peer, None)) => {
                Standing::Ineligible(eligibility.err().unwrap_or_else(|| reason_of(peer)))
            }
            None => Standing::Ineligible(eligibility.err().unwrap_or(Ineligible::Silent)),
        }
    }

    /// For each VIP the peer that owns it; where this node owns it, the peer that owned it last.
    pub fn last_owners(&self) -> impl Iterator<Item = (IpAddr, &NodeName)> {
        self.vips.iter().filter_map(|(vip, state)| {
            let (node, _) = state.last_owner.as_ref()?;
            Some((*vip, node))
        })
    }

    /// Whether [`Self::last_owners`] says something else since the last call.
    pub fn take_last_owners_changed(&mut self) -> bool {
        std::mem::take(&mut self.last_owners_changed)
    }

    /// The nodes that are silent, and whose silence every peer confirms that can be asked.
    ///
    /// Empty while this speaker hears nobody although it knows of several: then it is this node that is cut off. A
    /// speaker that said good-bye is not silent. Changes come with [`Event::SilenceAgreed`] and
    /// [`Event::SilenceEnded`].
    pub fn silent_nodes(&self) -> &BTreeSet<NodeName> {
        &self.silent
    }

    pub(super) fn update_silent(&mut self, now: Time) {
        if now < self.unsure_until {
            return;
        }
        let silent: BTreeSet<_> = self
            .peers
            .iter()
            .filter(|(node, peer)| {
                !peer.is_heard()
                    && peer.unfit() != Some(Unfit::ShuttingDown)
                    && (self.speakers.is_empty() || self.speakers.contains(*node))
            })
            .map(|(node, _)| node.clone())
            .collect();
        let cut_off = silent.len() > 1 && self.peers.heard().next().is_none();
        let silent: BTreeSet<_> = silent
            .into_iter()
            .filter(|node| !cut_off && self.peers.witness_of(node).is_none())
            .collect();
        if silent == self.silent {
            return;
        }
        let before = std::mem::replace(&mut self.silent, silent);
        let ended: Vec<_> = before.difference(&self.silent).cloned().collect();
        let agreed: Vec<_> = self.silent.difference(&before).cloned().collect();
        for node in ended {
            self.emit(Event::SilenceEnded { node });
        }
        for node in agreed {
            self.emit(Event::SilenceAgreed { node });
        }
    }
}

/// Why a heard peer does not stand for a VIP.
fn reason_of(peer: &Peer) -> Ineligible {
    match peer.unfit() {
        Some(Unfit::Starting) => Ineligible::Starting,
        Some(Unfit::ProxyUnhealthy) => Ineligible::ProxyUnhealthy,
        Some(Unfit::Draining) => Ineligible::Draining,
        Some(Unfit::ShuttingDown) => Ineligible::ShuttingDown,
        None => Ineligible::NotStanding,
    }
}
