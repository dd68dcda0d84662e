//! One VIP at a node that does not own it: waiting, claiming, being fenced, quarantine.

use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use super::Announcer;
use super::owner::Owner;
use super::vip::{Claiming, Quarantine, Role, VipState};
use crate::election::{Voice, Voices};
use crate::event::Event;
use crate::heartbeat::Claim;
use crate::link::LinkIndex;
use crate::packet::MacAddr;
use crate::time::Time;

impl Announcer {
    pub(super) fn step_idle(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        voices: &Voices,
        now: Time,
    ) -> Role {
        if self.fit(vip, state).is_err() {
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

    pub(super) fn step_claiming(
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
        if owned || not_my_turn || self.fit(vip, state).is_err() {
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
        let received_from = match &event {
            Event::Received { from, .. } => Some(from.clone()),
            _ => None,
        };
        self.emit(event);
        let mut owner = Owner::new(state.epoch, received_from, now);
        self.announce_when_due(vip, state, &mut owner, now);
        Role::Owner(owner)
    }

    pub(super) fn step_fenced(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        until: Time,
        mac: Option<MacAddr>,
        voices: &Voices,
        now: Time,
    ) -> Role {
        if voices.owner(vip).is_some() || self.fit(vip, state).is_err() || now >= until {
            return Role::Idle;
        }
        state.wake_by(until);
        Role::Fenced { until, mac }
    }

    pub(super) fn step_quarantined(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        quarantine: Quarantine,
        voices: &Voices,
        now: Time,
    ) -> Role {
        if voices.owner(vip).is_some() || self.fit(vip, state).is_err() {
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

    /// How long each candidate waits for the one before it.
    fn stagger(&self) -> Duration {
        self.interval() * STAGGER_INTERVALS
    }
}

/// Intervals that a candidate has to claim before the next one does: its probes, and a heartbeat lost.
const STAGGER_INTERVALS: u32 = 3;
/// Times the stagger that a claim, or a table still to be heard, is waited for.
const PATIENCE: u32 = 6;
