//! One VIP at a node that does not own it: waiting, claiming, being fenced, quarantine.

use std::collections::BTreeMap;
use std::mem::{discriminant, take};
use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use super::Announcer;
use super::owner::Owner;
use crate::candidates::Ineligible;
use crate::configuration::{Partition, Vip};
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
    positions: BTreeMap<NodeName, usize>,
    /// The place of this node.
    position: usize,
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
    vacant_since: Option<Time>,
    /// Since when this node has been fit for it: peers must have heard that before it claims.
    offered_since: Option<Time>,
    /// Since when peers contradict that its owner is silent.
    witnessed_since: Option<Time>,
    /// Whether an event about the fence has been emitted for this owner.
    fence_told: bool,
    pub(super) idle: bool,
    /// When to look at it again.
    wake: Option<Time>,
    /// The entry in the queue of wakes.
    queued: Option<Time>,
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
    probes_left: u8,
    gap: Duration,
    next: Time,
    /// When the last answer was due, if all probes are sent.
    complete: Option<Time>,
    /// The conflict that these probes are to find ended.
    conflict: Option<Quarantine>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quarantine {
    pub(super) mac: MacAddr,
    delay: Duration,
    until: Time,
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
            wake: None,
            queued: None,
        };
        state.configure(vip, own);
        state
    }

    pub(super) fn configure(&mut self, vip: Vip, own: &NodeName) {
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

    /// Asks to be looked at again at `time` at the latest.
    pub(super) fn wake_by(&mut self, time: Time) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// A peer owns it: nobody else is to be asked.
    fn owned_by(&mut self, voice: &Voice, now: Time) {
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
    }
}

impl Announcer {
    /// Looks at one VIP: what is heard about it decides what this node does.
    pub(super) fn evaluate(&mut self, vip: IpAddr, now: Time) {
        let Some(mut state) = self.vips.remove(&vip) else {
            return;
        };
        state.wake = None;
        match self.fit(&state) {
            Ok(()) => state.offered_since = state.offered_since.or(Some(now)),
            Err(_) => state.offered_since = None,
        }
        let voices = self.voices(vip, &state);
        if let Some((voice, epoch)) = voices.owner(vip) {
            state.epoch = state.epoch.max(epoch);
            if !state.is_owner() {
                state.owned_by(voice, now);
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
        let claim = self.claim_of(&state);
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
            if let Some(queued) = state.queued {
                self.wakes.remove(&(queued, vip));
            }
        }
        self.dirty.remove(&vip);
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
    fn claim_of(&self, state: &VipState) -> Option<Claim> {
        match &state.role {
            Role::Idle => self.fit(state).is_ok().then_some(Claim::Offered),
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

    /// Whether this node may take a VIP.
    pub(super) fn fit(&self, state: &VipState) -> Result<(), Ineligible> {
        self.able(state)?;
        if let Some(reason) = self.unfit() {
            return Err(reason);
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

    fn step_idle(&mut self, vip: IpAddr, state: &mut VipState, voices: &Voices, now: Time) -> Role {
        if self.fit(state).is_err() {
            return Role::Idle;
        }
        match voices.owner(vip) {
            Some((
                Voice {
                    claim: Claim::Leaving { .. },
                    node,
                    ..
                },
                _,
            )) => {
                let since = *state.vacant_since.get_or_insert(now);
                let due = since + self.stagger() * voices.place(state.position, &self.node);
                if now < due {
                    state.wake_by(due);
                    return Role::Idle;
                }
                let from = node.clone();
                self.acquire(vip, state, Event::Received { vip, from }, now)
            }
            Some(_) => Role::Idle,
            None => match self.may_claim(state, voices, now) {
                Ok(()) => Role::Claiming(self.start_claiming(state, None, now)),
                Err(wake) => {
                    if let Some(wake) = wake {
                        state.wake_by(wake);
                    }
                    Role::Idle
                }
            },
        }
    }

    /// Whether it is this node's turn to claim a VIP that nobody owns; if not, when to ask again.
    fn may_claim(
        &self,
        state: &mut VipState,
        voices: &Voices,
        now: Time,
    ) -> Result<(), Option<Time>> {
        if voices.quarantined() {
            return Err(None);
        }
        let since = *state.vacant_since.get_or_insert(now);
        let patience = since + self.stagger() * PATIENCE;
        let own = &self.node;
        if now < patience && voices.better_claims(state.position, own) {
            return Err(Some(patience));
        }
        let unheard = self
            .peers
            .heard()
            .filter_map(|(_, peer)| peer.differs_since())
            .map(|since| since + self.stagger() * PATIENCE)
            .filter(|&until| now < until)
            .max();
        if let Some(until) = unheard {
            return Err(Some(until));
        }
        let offered = state.offered_since.unwrap_or(now) + self.interval();
        let due = offered.max(since + self.stagger() * voices.place(state.position, own));
        if now < due { Err(Some(due)) } else { Ok(()) }
    }

    fn start_claiming(
        &self,
        state: &VipState,
        conflict: Option<Quarantine>,
        now: Time,
    ) -> Claiming {
        let timing = &self.timing;
        let (probes_left, gap) = if state.epoch == 0 || conflict.is_some() {
            (timing.fresh_probes, timing.fresh_probe_gap)
        } else {
            (timing.takeover_probes, timing.takeover_probe_gap)
        };
        Claiming {
            probes_left,
            gap,
            next: now,
            complete: None,
            conflict,
        }
    }

    fn step_claiming(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        mut claiming: Claiming,
        voices: &Voices,
        now: Time,
    ) -> Role {
        let owned = voices.owner(vip).is_some();
        let not_my_turn =
            claiming.conflict.is_none() && self.may_claim(state, voices, now).is_err();
        if owned || not_my_turn || self.fit(state).is_err() {
            return Role::Idle;
        }
        if now >= claiming.next && claiming.complete.is_none() {
            if claiming.probes_left == 0 {
                claiming.complete = Some(now);
            } else {
                claiming.probes_left -= 1;
                claiming.next = now + claiming.gap;
                self.send_probe(vip, &state.links);
            }
        }
        match claiming.complete {
            None => {
                state.wake_by(claiming.next);
                Role::Claiming(claiming)
            }
            Some(complete) => self.complete_claim(vip, state, claiming, complete, now),
        }
    }

    /// No probe was answered: the VIP is this node's, unless peers still hear the old owner.
    fn complete_claim(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        claiming: Claiming,
        complete: Time,
        now: Time,
    ) -> Role {
        let silent = state
            .last_owner
            .as_ref()
            .filter(|(node, _)| self.peers.get(node).is_some_and(|peer| !peer.is_heard()))
            .map(|(node, _)| node.clone());
        let witness = silent
            .as_ref()
            .and_then(|node| self.peers.witness_of(node).cloned());
        if let (Some(owner), Some(witness)) = (&silent, witness) {
            let since = *state.witnessed_since.get_or_insert(now);
            if now < since + self.timing.witness_patience {
                let fresh_until = complete + self.interval();
                if now < fresh_until {
                    state.wake_by(fresh_until);
                    return Role::Claiming(claiming);
                }
                let owner = owner.clone();
                self.tell_fence(
                    state,
                    Event::OwnerHeard {
                        vip,
                        owner,
                        witness,
                    },
                );
                let until = now + self.interval();
                return Role::Fenced { until, mac: None };
            }
        }
        if claiming.conflict.is_some() {
            self.emit(Event::ConflictEnded { vip });
        }
        let event = match silent.and_then(|from| self.peers.get(&from).map(|peer| (from, peer))) {
            Some((from, peer)) if peer.claim(vip).and_then(Claim::epoch).is_some() => {
                Event::TakenOver {
                    vip,
                    from,
                    silent_for: now.since(peer.last_heard()),
                }
            }
            _ => Event::Acquired { vip },
        };
        self.acquire(vip, state, event, now)
    }

    /// This node answers for the VIP from now on.
    fn acquire(&mut self, vip: IpAddr, state: &mut VipState, event: Event, now: Time) -> Role {
        state.epoch = state.epoch.saturating_add(1);
        state.vacant_since = None;
        state.witnessed_since = None;
        state.fence_told = false;
        self.emit(event);
        let mut owner = Owner::new(state.epoch, now);
        self.announce_when_due(vip, state, &mut owner, now);
        Role::Owner(owner)
    }

    fn step_fenced(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        until: Time,
        mac: Option<MacAddr>,
        voices: &Voices,
        now: Time,
    ) -> Role {
        if voices.owner(vip).is_some() || self.fit(state).is_err() || now >= until {
            return Role::Idle;
        }
        state.wake_by(until);
        Role::Fenced { until, mac }
    }

    fn step_quarantined(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        quarantine: Quarantine,
        voices: &Voices,
        now: Time,
    ) -> Role {
        if voices.owner(vip).is_some() || self.fit(state).is_err() {
            return Role::Idle;
        }
        if now >= quarantine.until {
            return Role::Claiming(self.start_claiming(state, Some(quarantine), now));
        }
        state.wake_by(quarantine.until);
        Role::Quarantined(quarantine)
    }

    /// A peer answered a probe: it lives.
    pub(super) fn fence_by_answer(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        owner: NodeName,
        heard: bool,
        mac: MacAddr,
        now: Time,
    ) {
        let hold = if heard {
            // What it does about the VIP is in a heartbeat that is on its way.
            self.interval() * 2
        } else {
            self.tell_fence(state, Event::OwnerAnswered { vip, owner, mac });
            self.timing.fence_retry
        };
        state.role = Role::Fenced {
            until: now + hold,
            mac: Some(mac),
        };
    }

    fn tell_fence(&mut self, state: &mut VipState, event: Event) {
        if !std::mem::replace(&mut state.fence_told, true) {
            self.emit(event);
        }
    }

    /// Another machine has, or probes for, the address that is being claimed.
    pub(super) fn quarantine(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        link: LinkIndex,
        mac: MacAddr,
        now: Time,
    ) {
        let before = match &state.role {
            Role::Claiming(claiming) => claiming.conflict,
            _ => None,
        };
        let longest = self.timing.quarantine_longest;
        let delay = before.map_or(self.timing.quarantine, |before| {
            (before.delay * 2).min(longest)
        });
        if before.is_none_or(|before| before.mac != mac) {
            self.emit(Event::Conflict { vip, link, mac });
        }
        let until = now + self.random.between(delay, delay + delay / 8);
        state.role = Role::Quarantined(Quarantine { mac, delay, until });
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

    /// How long each candidate waits for the one before it.
    fn stagger(&self) -> Duration {
        self.interval() * STAGGER_INTERVALS
    }
}

/// Intervals that a candidate has to claim before the next one does: its probes, and a heartbeat lost.
const STAGGER_INTERVALS: u32 = 3;
/// Times the stagger that a claim, or a table still to be heard, is waited for.
const PATIENCE: u32 = 6;
/// Changes of role in one look: idle, claiming, owner.
const MOST_STEPS: usize = 4;
/// So that no disagreement about time can make the shell spin.
const SHORTEST_WAKE: Duration = Duration::from_millis(1);
