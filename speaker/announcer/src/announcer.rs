//! The machine: what comes in, what goes out, and when.

mod claims;
mod facts;
mod heartbeats;
mod owner;
mod status;
mod vip;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use config::name::NodeName;

use crate::announcement::Budget;
use crate::configuration::{Fitness, Timing};
use crate::event::Event;
use crate::heartbeat::NodeId;
use crate::heartbeat::key::Keyring;
use crate::heartbeat::rejection::Rejection;
use crate::link::{Link, LinkIndex};
use crate::membership::Peers;
use crate::packet::ndp::solicited_node;
use crate::packet::{Frame, FrameError};
use crate::random::Random;
use crate::table::OwnTable;
use crate::time::Time;
use vip::VipState;

/// Who a speaker is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The name of its node.
    pub node: NodeName,
    /// A number that no other start of a speaker on this node had or will have: random, or the time of the start.
    pub incarnation: u64,
    /// The seed of all jitter and of the first sequence numbers: random; in a simulation, chosen.
    pub seed: u64,
}

/// Something to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// The interface to send it on.
    pub link: LinkIndex,
    /// What to send.
    pub payload: Payload,
}

/// What to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// A whole Ethernet frame, without padding and checksum.
    Frame(Vec<u8>),
    /// The payload of a UDP datagram to [`crate::heartbeat::GROUP_V6`] or [`crate::heartbeat::GROUP_V4`].
    Heartbeat(Vec<u8>),
}

/// Decides which node answers for each VIP and what this node says on the wire.
///
/// After each `handle_*`, empty [`Self::poll_transmit`] and [`Self::poll_event`], and ask [`Self::poll_timeout`] when
/// to call [`Self::handle_timeout`]. Read all sockets before that call: what has arrived is heard before anybody is
/// declared silent. Times must not run backwards.
///
/// Invariant: it never reads a clock, opens a socket or logs; equal inputs give equal outputs.
/// Invariant: its memory is bounded by the configuration and the constants of this package, whatever arrives.
#[derive(Debug)]
pub struct Announcer {
    node: NodeName,
    id: NodeId,
    incarnation: u64,
    timing: Timing,
    keys: Keyring,
    random: Random,
    configured: bool,
    speakers: BTreeSet<NodeName>,
    fitness: Fitness,
    /// What the proxy of this node forwards, if it says so.
    programmed: Option<BTreeSet<IpAddr>>,
    /// The VIPs that would go back if they were idle, and whether those are others than the shell knows.
    watched: BTreeSet<IpAddr>,
    watched_changed: bool,
    links: BTreeMap<LinkIndex, LinkState>,
    peers: Peers,
    own: OwnTable,
    vips: BTreeMap<IpAddr, VipState>,
    /// The VIPs to look at before anything else happens.
    dirty: BTreeSet<IpAddr>,
    wakes: BTreeSet<(Time, IpAddr)>,
    /// When the first heartbeat came in that was not followed up yet.
    heard_at: Option<Time>,
    /// Time between two heartbeats.
    interval: Duration,
    budget: Budget,
    last_beat: Option<Time>,
    next_beat: Time,
    /// Whether something is to be told before the next regular heartbeat.
    soon: bool,
    last_whole: Option<Time>,
    /// Until when nothing is answered, because this speaker was away and may have lost its VIPs.
    hold_until: Time,
    /// Until when this speaker cannot say who is silent, because it was away.
    unsure_until: Time,
    shutdown_deadline: Option<Time>,
    silent: BTreeSet<NodeName>,
    last_owners_changed: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct LinkState {
    link: Link,
    /// The sequence number of the last heartbeat on it.
    sequence: u64,
    listening: Option<Listening>,
}

/// A link that is up since a short while: nothing is claimed on it before its owners had time to be heard.
#[derive(Clone, Copy, Debug)]
struct Listening {
    until: Time,
    longest: Time,
}

impl Announcer {
    /// A speaker that has just started and knows nothing yet.
    pub fn new(identity: Identity, keys: Keyring, timing: Timing, now: Time) -> Self {
        Self {
            id: NodeId::of(&identity.node),
            node: identity.node,
            incarnation: identity.incarnation,
            random: Random::new(identity.seed),
            interval: timing.interval_among(1),
            timing,
            keys,
            configured: false,
            speakers: BTreeSet::new(),
            fitness: Fitness::default(),
            programmed: None,
            watched: BTreeSet::new(),
            watched_changed: false,
            links: BTreeMap::new(),
            peers: Peers::default(),
            own: OwnTable::default(),
            vips: BTreeMap::new(),
            dirty: BTreeSet::new(),
            wakes: BTreeSet::new(),
            heard_at: None,
            budget: Budget::new(now),
            last_beat: None,
            next_beat: now,
            soon: false,
            last_whole: None,
            hold_until: now,
            unsure_until: now,
            shutdown_deadline: None,
            silent: BTreeSet::new(),
            last_owners_changed: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The VIPs of this node that would go back to a better candidate if no connection went through them.
    pub fn watched(&self) -> &BTreeSet<IpAddr> {
        &self.watched
    }

    /// Whether [`Self::watched`] changed since this was asked last.
    pub fn take_watched_changed(&mut self) -> bool {
        std::mem::take(&mut self.watched_changed)
    }

    /// Heartbeats are signed and checked with these keys from now on.
    pub fn handle_keys(&mut self, keys: Keyring) {
        self.keys = keys;
    }

    /// A datagram came in on the heartbeat port. What follows from it is done at the next [`Self::handle_timeout`], which is
    /// due at once: of many that came together the VIPs are looked at once and not for each.
    ///
    /// # Errors
    /// The reason why it is not heeded, to be counted.
    pub fn handle_heartbeat(
        &mut self,
        link: LinkIndex,
        octets: &[u8],
        now: Time,
    ) -> Result<(), Rejection> {
        self.notice_stall(now);
        let outcome = self.receive_heartbeat(link, octets, now);
        if outcome.is_ok() {
            self.heard_at.get_or_insert(now);
        }
        outcome
    }

    /// A frame with ARP or Neighbor Discovery came in.
    ///
    /// # Errors
    /// The reason why it says nothing, to be counted.
    pub fn handle_frame(
        &mut self,
        link: LinkIndex,
        octets: &[u8],
        now: Time,
    ) -> Result<(), FrameError> {
        self.notice_stall(now);
        // Who may answer is decided by everything that was heard before.
        if self.heard_at.is_some() {
            self.advance(now);
        }
        let outcome = Frame::parse(octets).and_then(|frame| self.receive_frame(link, &frame, now));
        if !self.dirty.is_empty() || self.poll_timeout().is_some_and(|due| due <= now) {
            self.advance(now);
        }
        outcome
    }

    /// The speaker is asked to end: hand everything over, then [`Self::is_done`].
    pub fn handle_shutdown(&mut self, now: Time) {
        self.notice_stall(now);
        if self.shutdown_deadline.is_none() {
            self.shutdown_deadline = Some(now + self.timing.hand_over_longest);
            self.soon = true;
            self.all_dirty();
        }
        self.advance(now);
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.notice_stall(now);
        self.advance(now);
    }

    /// The next thing to send; call until `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let listening = self.links.values().filter_map(|state| state.listening);
        [
            self.heard_at,
            Some(self.beat_due()),
            self.peers.next_deadline(),
            self.wakes.first().map(|(time, _)| *time),
            listening.map(|listening| listening.until).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether everything is handed over or given up after [`Self::handle_shutdown`]: send what is left, and end.
    pub fn is_done(&self) -> bool {
        self.shutdown_deadline.is_some() && !self.soon && self.owned().next().is_none()
    }

    /// The groups to join on an interface, so that switches let solicitations for its VIPs through (RFC 4291 §2.7.1).
    ///
    /// Those of all VIPs that may be announced there, owned or not: a takeover must not wait for a switch to learn.
    pub fn solicited_node_groups(&self, link: LinkIndex) -> BTreeSet<Ipv6Addr> {
        self.vips
            .iter()
            .filter(|(_, state)| state.links.contains(&link))
            .filter_map(|(vip, _)| match vip {
                IpAddr::V6(vip) => Some(solicited_node(*vip)),
                IpAddr::V4(_) => None,
            })
            .collect()
    }

    /// Everything that is due at `now`.
    fn advance(&mut self, now: Time) {
        self.heard_at = None;
        for node in self.peers.expire(now) {
            self.peer_lost(&node, now);
        }
        self.end_listening(now);
        while let Some(&(time, vip)) = self.wakes.first().filter(|(time, _)| *time <= now) {
            self.wakes.remove(&(time, vip));
            self.dirty.insert(vip);
        }
        while let Some(vip) = self.dirty.pop_first() {
            self.evaluate(vip, now);
        }
        if now >= self.beat_due() {
            self.beat(now);
        }
        self.update_silent(now);
    }

    /// A timer that fires more than an interval late means that this speaker was away, not its peers.
    fn notice_stall(&mut self, now: Time) {
        let late = now.since(self.next_beat);
        if self.last_beat.is_none() || late <= self.interval() {
            return;
        }
        let window = self.window();
        self.unsure_until = now + window;
        self.peers.spare_until(self.unsure_until);
        self.emit(Event::Stalled { late });
        if late > window && self.peers.iter().next().is_some() {
            self.hold_until = now + self.interval() * 2;
        }
        // The last heartbeat was one interval before the one that is late: nobody has missed this speaker before.
        if late + self.interval() >= window {
            for (vip, state) in &mut self.vips {
                if state.postpone_announcements(self.unsure_until) {
                    self.dirty.insert(*vip);
                }
            }
        }
        self.next_beat = now;
    }

    fn listening(&self, now: Time) -> Listening {
        Listening {
            until: now + self.interval() * LISTENING_INTERVALS,
            longest: now + self.interval() * LISTENING_INTERVALS * 2,
        }
    }

    /// Ends the listening on links where everybody who could be heard by now was.
    fn end_listening(&mut self, now: Time) {
        let unsettled = self.peers.any_unproven()
            || self
                .peers
                .heard()
                .any(|(_, peer)| peer.differs_since().is_some());
        let step = self.interval();
        let mut ended = false;
        for state in self.links.values_mut() {
            let Some(listening) = &mut state.listening else {
                continue;
            };
            if now < listening.until {
                continue;
            }
            if unsettled && now < listening.longest {
                listening.until = now + step;
            } else {
                state.listening = None;
                ended = true;
            }
        }
        if ended {
            self.soon = true;
            self.all_dirty();
        }
    }

    fn all_dirty(&mut self) {
        self.dirty.extend(self.vips.keys());
    }

    /// Time between two heartbeats.
    fn interval(&self) -> Duration {
        self.interval
    }

    /// To be called when other peers are heard than before, or other speakers are to be expected.
    fn measure_interval(&mut self) {
        let heard = self.peers.heard().count() + 1;
        self.interval = self.timing.interval_among(self.speakers.len().max(heard));
    }

    /// Time without heartbeats after which a peer is silent.
    fn window(&self) -> Duration {
        self.interval() * self.timing.multiplier
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Intervals for which a new link is listened to: two to be heard and proven, the rest for lost heartbeats.
const LISTENING_INTERVALS: u32 = 6;
/// Events that wait for the shell at most; the oldest are dropped.
const MOST_EVENTS: usize = 8192;
/// Frames and heartbeats that wait for the shell at most.
const MOST_TRANSMITS: usize = 16_384;
