//! One VIP: what is known of it, and the look at it that decides what this node does next.

use std::collections::BTreeMap;
use std::mem::{discriminant, take};
use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use super::Announcer;
use super::owner::Owner;
use crate::candidates::Ineligible;
use crate::configuration::{Failback, Partition, Vip};
use crate::election::{Voice, Voices};
use crate::event::Event;
use crate::heartbeat::Claim;
use crate::link::LinkIndex;
use crate::packet::MacAddr;
use crate::time::Time;

/// What this node knows of one VIP and does about it.
#[derive(Debug)]
pub(super) struct VipState {
    pub(super) vip: Vip,
    /// The place of each node among the candidates.
    pub(super) positions: BTreeMap<NodeName, usize>,
    /// The place of this node.
    pub(super) position: usize,
    /// The links on which it may be announced and that are up.
    pub(super) links: Vec<LinkIndex>,
    /// Whether there are such links that are down.
    pub(super) any_link_down: bool,
    pub(super) role: Role,
    /// The highest number of a claim ever heard of.
    pub(super) epoch: u32,
    /// The peer that owns it, or owned it last, and since when this node has seen that.
    pub(super) last_owner: Option<(NodeName, Time)>,
    /// Since when nobody owns it, or its owner wants to be rid of it.
    pub(super) vacant_since: Option<Time>,
    /// Since when this node has been fit for it: peers must have heard that before it claims.
    pub(super) offered_since: Option<Time>,
    /// Since when peers contradict that its owner is silent.
    pub(super) witnessed_since: Option<Time>,
    /// Whether an event about the fence has been emitted for this owner.
    pub(super) fence_told: bool,
    pub(super) idle: bool,
    /// Since when this node has owned it although its proxy does not forward it.
    pub(super) unprogrammed_since: Option<Time>,
    /// When to look at it again.
    pub(super) wake: Option<Time>,
    /// The entry in the queue of wakes.
    pub(super) queued: Option<Time>,
}

/// What this node does about a VIP.
#[derive(Debug, Default)]
pub(super) enum Role {
    #[default]
    Idle,
    Claiming(Claiming),
    Fenced {
        until: Time,
        mac: Option<MacAddr>,
    },
    Quarantined(Quarantine),
    Owner(Owner),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Claiming {
    pub(super) probes_left: u8,
    pub(super) gap: Duration,
    pub(super) next: Time,
    /// When the last answer was due, if all probes are sent.
    pub(super) complete: Option<Time>,
    /// The conflict that these probes are to find ended.
    pub(super) conflict: Option<Quarantine>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quarantine {
    pub(super) mac: MacAddr,
    pub(super) delay: Duration,
    pub(super) until: Time,
}

impl VipState {
    pub(super) fn new(vip: Vip, own: &NodeName) -> Self {
        let mut state = Self {
            vip: vip.clone(),
            positions: BTreeMap::new(),
            position: 0,
            links: Vec::new(),
            any_link_down: false,
            role: Role::Idle,
            epoch: 0,
            last_owner: None,
            vacant_since: None,
            offered_since: None,
            witnessed_since: None,
            fence_told: false,
            idle: false,
            unprogrammed_since: None,
            wake: None,
            queued: None,
        };
        state.configure(vip, own);
        state
    }

    pub(super) fn configure(&mut self, vip: Vip, own: &NodeName) {
        if self.vip.requested != vip.requested {
            self.wish_changed();
        }
        self.position = vip.position(own);
        self.positions = vip
            .candidates
            .iter()
            .enumerate()
            .map(|(position, candidate)| (candidate.node.clone(), position))
            .collect();
        self.vip = vip;
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn position_of(&self, node: &NodeName) -> usize {
        self.positions
            .get(node)
            .copied()
            .unwrap_or(self.positions.len())
    }

    pub(super) fn is_owner(&self) -> bool {
        matches!(self.role, Role::Owner(_))
    }

    /// Whether it waits for what peers say of each other, or of their tables.
    pub(super) fn waits_for_peers(&self, all: bool) -> bool {
        let strict = self.vip.partition == Partition::Strict;
        strict || matches!(self.role, Role::Claiming(_)) || (all && self.vacant_since.is_some())
    }

    /// Whether it matters who else stands for it: not while its owner, this node or another, keeps it whoever does.
    pub(super) fn heeds_offers(&self) -> bool {
        match &self.role {
            Role::Idle => self.vacant_since.is_some(),
            Role::Owner(owner) => {
                owner.leaving.is_some()
                    || self.vip.requested.is_some()
                    || self.vip.failback != Failback::Never
            }
            Role::Claiming(_) | Role::Fenced { .. } | Role::Quarantined(_) => true,
        }
    }

    /// Asks to be looked at again at `time` at the latest.
    pub(super) fn wake_by(&mut self, time: Time) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// A peer owns it: nobody else is to be asked. Whether that is another one than before.
    fn owned_by(&mut self, voice: &Voice, now: Time) -> bool {
        let same = self
            .last_owner
            .as_ref()
            .is_some_and(|(node, _)| *node == voice.node);
        if !same {
            self.last_owner = Some((voice.node.clone(), now));
        }
        self.witnessed_since = None;
        self.fence_told = false;
        if matches!(voice.claim, Claim::Owned { .. }) {
            self.vacant_since = None;
        }
        !same
    }
}

impl Announcer {
    /// Looks at one VIP: what is heard about it decides what this node does.
    pub(super) fn evaluate(&mut self, vip: IpAddr, now: Time) {
        let Some(mut state) = self.vips.remove(&vip) else {
            return;
        };
        state.wake = None;
        match self.fit(vip, &state) {
            Ok(()) => state.offered_since = state.offered_since.or(Some(now)),
            Err(_) => state.offered_since = None,
        }
        let voices = self.voices(vip, &state);
        if let Some((voice, epoch)) = voices.owner(vip) {
            state.epoch = state.epoch.max(epoch);
            if !state.is_owner() {
                self.last_owners_changed |= state.owned_by(voice, now);
            }
        }
        for _ in 0..MOST_STEPS {
            let before = discriminant(&state.role);
            state.role = match take(&mut state.role) {
                Role::Idle => self.step_idle(vip, &mut state, &voices, now),
                Role::Claiming(claiming) => {
                    self.step_claiming(vip, &mut state, claiming, &voices, now)
                }
                Role::Fenced { until, mac } => {
                    self.step_fenced(vip, &mut state, until, mac, &voices, now)
                }
                Role::Quarantined(quarantine) => {
                    self.step_quarantined(vip, &mut state, quarantine, &voices, now)
                }
                Role::Owner(owner) => self.step_owner(vip, &mut state, owner, &voices, now),
            };
            if discriminant(&state.role) == before {
                break;
            }
            state.wake = None;
        }
        if !state.is_owner() {
            state.unprogrammed_since = None;
            self.watch(vip, false);
        }
        let claim = self.claim_of(vip, &state);
        if self.own.set(vip, claim) {
            self.soon = true;
        }
        self.queue_wake(vip, &mut state, now);
        self.vips.insert(vip, state);
    }

    fn queue_wake(&mut self, vip: IpAddr, state: &mut VipState, now: Time) {
        if let Some(queued) = state.queued.take() {
            self.wakes.remove(&(queued, vip));
        }
        state.queued = state.wake.map(|wake| wake.max(now + SHORTEST_WAKE));
        if let Some(wake) = state.queued {
            self.wakes.insert((wake, vip));
        }
    }

    /// A VIP is not to be announced any more.
    pub(super) fn forget_vip(&mut self, vip: IpAddr) {
        if let Some(state) = self.vips.remove(&vip) {
            if state.is_owner() {
                self.emit(Event::Unconfigured { vip });
            }
            self.last_owners_changed |= state.last_owner.is_some();
            if let Some(queued) = state.queued {
                self.wakes.remove(&(queued, vip));
            }
        }
        self.dirty.remove(&vip);
        self.watch(vip, false);
        if self.own.set(vip, None) {
            self.soon = true;
        }
    }

    /// What the peers that are heard on the VIP's links do about it.
    pub(super) fn voices(&self, vip: IpAddr, state: &VipState) -> Voices {
        let heard = self.peers.heard().filter(|(_, peer)| {
            state.links.is_empty() || state.links.iter().any(|&link| peer.is_heard_on(link))
        });
        Voices(
            heard
                .filter_map(|(node, peer)| {
                    Some(Voice {
                        claim: peer.claim(vip)?,
                        position: state.position_of(node),
                        node: node.clone(),
                    })
                })
                .collect(),
        )
    }

    /// What this node tells its peers about a VIP.
    fn claim_of(&self, vip: IpAddr, state: &VipState) -> Option<Claim> {
        match &state.role {
            Role::Idle => self.fit(vip, state).is_ok().then_some(Claim::Offered),
            Role::Claiming(Claiming {
                conflict: Some(_), ..
            })
            | Role::Quarantined(_) => Some(Claim::Quarantined),
            Role::Claiming(_) => Some(Claim::Claiming),
            Role::Fenced { .. } => None,
            Role::Owner(owner) => Some(owner.claim()),
        }
    }

    /// Why this node as a whole should own nothing, if so.
    pub(super) fn unfit(&self) -> Option<Ineligible> {
        let listening =
            |links: usize| links > 0 && self.links.values().all(|state| state.listening.is_some());
        if self.shutdown_deadline.is_some() {
            Some(Ineligible::ShuttingDown)
        } else if self.fitness.unfit.is_some() {
            self.fitness.unfit
        } else if !self.configured || listening(self.links.len()) {
            Some(Ineligible::Starting)
        } else {
            None
        }
    }

    /// Whether this node may own a VIP, as far as cluster, links and the partition policy say.
    pub(super) fn able(&self, state: &VipState) -> Result<(), Ineligible> {
        state.vip.eligibility(&self.node)?;
        if state.links.is_empty() {
            return Err(if state.any_link_down {
                Ineligible::LinkDown
            } else {
                Ineligible::NoLink
            });
        }
        if state.vip.partition == Partition::Strict && !self.hears_majority() {
            return Err(Ineligible::NoMajority);
        }
        Ok(())
    }

    /// Whether the proxy of this node forwards a VIP, or has no say in it.
    pub(super) fn is_programmed(&self, vip: IpAddr) -> bool {
        let programmed = self.programmed.as_ref();
        programmed.is_none_or(|programmed| programmed.contains(&vip))
    }

    /// Whether this node may take a VIP.
    pub(super) fn fit(&self, vip: IpAddr, state: &VipState) -> Result<(), Ineligible> {
        self.able(state)?;
        if let Some(reason) = self.unfit() {
            return Err(reason);
        }
        if !self.is_programmed(vip) {
            return Err(Ineligible::NotProgrammed);
        }
        let listening = |link: &LinkIndex| {
            self.links
                .get(link)
                .is_none_or(|state| state.listening.is_some())
        };
        if state.links.iter().all(listening) {
            return Err(Ineligible::Starting);
        }
        Ok(())
    }

    /// Whether the shell is to find out if connections go through a VIP.
    pub(super) fn watch(&mut self, vip: IpAddr, wanted: bool) {
        self.watched_changed |= if wanted {
            self.watched.insert(vip)
        } else {
            self.watched.remove(&vip)
        };
    }

    /// Whether this node and a majority of the speakers hear each other.
    fn hears_majority(&self) -> bool {
        let mutual = self
            .peers
            .heard()
            .filter(|(_, peer)| peer.hears(self.id))
            .count()
            + 1;
        mutual * 2 > self.speakers.len()
    }
}

/// Changes of role in one look: idle, claiming, owner.
const MOST_STEPS: usize = 4;
/// So that no disagreement about time can make the shell spin.
const SHORTEST_WAKE: Duration = Duration::from_millis(1);
