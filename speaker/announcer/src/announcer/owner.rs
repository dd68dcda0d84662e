//! One VIP at the node that owns it: announcing, leaving, yielding.

use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use super::Announcer;
use super::vip::{Role, VipState};
use crate::announcement::Schedule;
use crate::candidates::Ineligible;
use crate::configuration::Failback;
use crate::election::{Voice, Voices, precedence};
use crate::event::Event;
use crate::heartbeat::Claim;
use crate::time::Time;

/// What an owner keeps in mind.
#[derive(Debug)]
pub(super) struct Owner {
    epoch: u32,
    pub(super) since: Time,
    pub(super) leaving: Option<Leaving>,
    schedule: Schedule,
    defended: Option<Time>,
    /// Since when a better candidate has stood.
    better_since: Option<Time>,
    /// Whether a better candidate did not take what it was offered.
    offered_in_vain: bool,
    /// The node that handed it over, if that was planned: it is not handed back in a hurry.
    received_from: Option<NodeName>,
    /// Whether a lower claim was heard: once it is gone, clients must hear who won.
    rival: bool,
}

/// Why, and since when, an owner wants to be rid of a VIP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// `None` to give it back to a better candidate.
    pub(super) reason: Option<Ineligible>,
    since: Time,
}

impl Owner {
    pub(super) fn new(epoch: u32, received_from: Option<NodeName>, now: Time) -> Self {
        Self {
            epoch,
            received_from,
            since: now,
            leaving: None,
            schedule: Schedule::start(now),
            defended: None,
            better_since: None,
            offered_in_vain: false,
            rival: false,
        }
    }

    pub(super) fn claim(&self) -> Claim {
        let epoch = self.epoch;
        match self.leaving {
            None => Claim::Owned { epoch },
            Some(_) => Claim::Leaving { epoch },
        }
    }

    fn leave(&mut self, reason: Option<Ineligible>, now: Time) -> Time {
        let since = match self.leaving {
            Some(leaving) if leaving.reason == reason => leaving.since,
            _ => now,
        };
        self.leaving = Some(Leaving { reason, since });
        since
    }
}

impl VipState {
    fn owner_mut(&mut self) -> Option<&mut Owner> {
        match &mut self.role {
            Role::Owner(owner) => Some(owner),
            _ => None,
        }
    }

    /// Another node is asked for: what came of the last wish does not count any more.
    pub(super) fn wish_changed(&mut self) {
        if let Some(owner) = self.owner_mut() {
            owner.received_from = None;
            owner.offered_in_vain = false;
        }
    }

    /// Announces twice more from `now` on, if it is owned.
    pub(super) fn announce_again(&mut self, now: Time) -> bool {
        self.owner_mut()
            .map(|owner| owner.schedule.again(now))
            .is_some()
    }

    /// Says nothing before `then` and says it again after that, if it is owned.
    pub(super) fn postpone_announcements(&mut self, then: Time) -> bool {
        let owner = self.owner_mut();
        owner
            .map(|owner| {
                owner.schedule.again(then);
                owner.schedule.postpone(then);
            })
            .is_some()
    }

    /// Whether to defend the address now against a machine that `has` it (RFC 5227 §2.4 (c): at most once in an
    /// interval, and never given up). One that only probes has been answered, which is defence enough.
    pub(super) fn may_defend(&mut self, has: bool, interval: Duration, now: Time) -> bool {
        let Some(owner) = self.owner_mut().filter(|_| has) else {
            return false;
        };
        let due = owner
            .defended
            .is_none_or(|last| now.since(last) >= interval);
        if due {
            owner.defended = Some(now);
        }
        due
    }
}

impl Announcer {
    pub(super) fn step_owner(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        mut owner: Owner,
        voices: &Voices,
        now: Time,
    ) -> Role {
        let rival = voices.owner(vip);
        let own = precedence(vip, owner.epoch, &self.node);
        if let Some((voice, epoch)) = rival
            && precedence(vip, epoch, &voice.node) > own
        {
            return self.yield_to(vip, state, &owner, voice, now);
        }
        if rival.is_none() && std::mem::replace(&mut owner.rival, rival.is_some()) {
            owner.schedule.again(now);
        }
        owner.rival = rival.is_some();
        if let Some(reason) = self.leave_or_stay(vip, state, &mut owner, voices, now) {
            self.emit(Event::Released { vip, reason });
            return Role::Idle;
        }
        self.announce_when_due(vip, state, &mut owner, now);
        Role::Owner(owner)
    }

    /// A higher claim is heard: its owner has announced.
    fn yield_to(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        owner: &Owner,
        voice: &Voice,
        now: Time,
    ) -> Role {
        let to = voice.node.clone();
        state.last_owner = Some((to.clone(), now));
        self.last_owners_changed = true;
        self.emit(match owner.leaving {
            Some(Leaving {
                reason: Some(reason),
                ..
            }) => Event::HandedOver { vip, to, reason },
            Some(Leaving { reason: None, .. }) => Event::HandedBack { vip, to },
            None => Event::Yielded { vip, to },
        });
        Role::Idle
    }

    /// Decides whether the owner wants to be rid of the VIP; gives the reason if it must stop at once.
    fn leave_or_stay(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        owner: &mut Owner,
        voices: &Voices,
        now: Time,
    ) -> Option<Ineligible> {
        let unfit = self.unfit().or(self.unprogrammed(vip, state, now));
        match (self.able(state), unfit) {
            (
                Err(reason @ (Ineligible::LinkDown | Ineligible::NoLink | Ineligible::NoMajority)),
                _,
            ) => Some(reason),
            (Err(reason @ (Ineligible::Draining | Ineligible::Cordoned)), _) => {
                owner.leave(Some(reason), now);
                None
            }
            (Err(reason), _) => {
                let deadline = owner.leave(Some(reason), now) + self.timing.hand_over_longest;
                state.wake_by(deadline);
                (now >= deadline).then_some(reason)
            }
            (Ok(()), Some(reason @ Ineligible::ShuttingDown)) => {
                owner.leave(Some(reason), now);
                let deadline = self.shutdown_deadline?;
                state.wake_by(deadline);
                let alone = self.peers.heard().next().is_none();
                (now >= deadline || alone).then_some(reason)
            }
            (
                Ok(()),
                Some(
                    reason @ (Ineligible::ProxyUnhealthy
                    | Ineligible::Draining
                    | Ineligible::NotProgrammed),
                ),
            ) => {
                owner.leave(Some(reason), now);
                None
            }
            (Ok(()), _) => {
                self.go_back_or_stay(vip, state, owner, voices, now);
                None
            }
        }
    }

    /// The proxy has not forwarded the VIP for a while.
    fn unprogrammed(&self, vip: IpAddr, state: &mut VipState, now: Time) -> Option<Ineligible> {
        if self.is_programmed(vip) {
            state.unprogrammed_since = None;
            return None;
        }
        let since = *state.unprogrammed_since.get_or_insert(now);
        let due = since + self.timing.programming_patience;
        if now < due {
            state.wake_by(due);
            return None;
        }
        Some(Ineligible::NotProgrammed)
    }

    /// Gives the VIP to the node that was asked for, or back to a better candidate that has stood long enough, if the
    /// policy wants that.
    fn go_back_or_stay(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        owner: &mut Owner,
        voices: &Voices,
        now: Time,
    ) {
        let better = voices.best_before(state.position(), &self.node);
        let requested = better
            .map(|voice| &voice.node)
            .filter(|node| state.vip.requested.as_ref() == Some(node));
        let if_idle = state.vip.failback == Failback::Idle && better.is_some();
        self.watch(vip, if_idle && requested.is_none());
        let wanted = match state.vip.failback {
            _ if requested.is_some() => true,
            Failback::Never => false,
            Failback::Idle => state.idle,
            Failback::Always => true,
        };
        if !wanted || better.is_none() {
            owner.better_since = None;
            owner.leaving = None;
            return;
        }
        // The node that handed it over does not agree that it is the one asked for: one of the two has an old snapshot.
        let disputed = requested.is_some() && requested == owner.received_from.as_ref();
        let hold = if requested.is_some() && !disputed && !owner.offered_in_vain {
            Duration::ZERO
        } else {
            self.timing.failback_hold
        };
        let since = *owner.better_since.get_or_insert(now);
        if now < since + hold {
            owner.leaving = None;
            state.wake_by(since + hold);
            return;
        }
        let give_up = owner.leave(None, now) + self.timing.hand_over_longest;
        if now >= give_up {
            owner.offered_in_vain = true;
            owner.better_since = Some(now);
            owner.leaving = None;
        }
        state.wake_by(give_up);
    }

    /// Announces an owned VIP if it is time; the first announcement never waits for the budget.
    pub(super) fn announce_when_due(
        &mut self,
        vip: IpAddr,
        state: &mut VipState,
        owner: &mut Owner,
        now: Time,
    ) {
        if now >= owner.schedule.next() {
            let frames = u32::try_from(state.links.len() * 2).unwrap_or(u32::MAX);
            if self.budget.take(frames, now) || owner.schedule.is_first() {
                self.announce(vip, &state.links, now);
                owner.schedule.made(&self.timing, &mut self.random, now);
            } else {
                owner
                    .schedule
                    .postpone(now + self.random.between(BUDGET_RETRY.0, BUDGET_RETRY.1));
            }
        }
        state.wake_by(owner.schedule.next());
    }
}

/// When to try again if the budget is used up.
const BUDGET_RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
