//! One peer: its sessions, and what it says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::session::Session;
use super::{MOST_PEERS, Sent, low_half};
use crate::configuration::Timing;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::{Claim, Echo, Heartbeat, NodeId, Unfit};
use crate::link::LinkIndex;
use crate::packet::MacAddr;
use crate::table::{Changed, PeerTable};
use crate::time::Time;

/// A peer.
#[derive(Debug)]
pub struct Peer {
    id: NodeId,
    incarnation: Option<u64>,
    /// What this speaker had sent when that start proved itself: what was recorded before echoes nothing later.
    sent_before: Sent,
    sessions: BTreeMap<(LinkIndex, u32), Session>,
    /// The last authentic heartbeats on each link that belong to no session yet.
    unproven: BTreeMap<LinkIndex, Unproven>,
    table: PeerTable,
    /// The digest that the peer's table has by its own word.
    digest: u64,
    /// Since when this speaker's copy of the table has differed from it.
    differs_since: Option<Time>,
    unfit: Option<Unfit>,
    /// Whom the peer hears.
    hears: BTreeMap<NodeId, bool>,
    /// What the last heartbeat said of that, if it said everything: most say the same again.
    last_hears: Option<Vec<(NodeId, bool)>>,
    last_heard: Time,
}

#[derive(Debug)]
struct Unproven {
    incarnation: u64,
    sequence: u32,
    at: Time,
}

/// What a heartbeat changed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// The peer was not heard on this link before.
    pub newly_heard: bool,
    /// The peer was not heard on any link before.
    pub appeared: bool,
    /// It was heard before and fell silent without saying good-bye, on this link or with this start: others may have heard
    /// what it said meanwhile.
    pub returned: bool,
    /// What it says that is new.
    pub changed: Vec<Changed>,
    /// It hears other peers than before.
    pub hears_others: bool,
    /// This speaker's copy of its table, that differed, equals it now.
    pub in_step: bool,
}

impl Peer {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            incarnation: None,
            sent_before: Sent::default(),
            sessions: BTreeMap::new(),
            unproven: BTreeMap::new(),
            table: PeerTable::default(),
            digest: 0,
            differs_since: None,
            unfit: None,
            hears: BTreeMap::new(),
            last_hears: None,
            last_heard: Time::START,
        }
    }

    /// Its name in few octets.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Whether it is heard on any link.
    pub fn is_heard(&self) -> bool {
        self.sessions.values().any(|session| session.heard)
    }

    /// Whether it is heard on this link.
    pub fn is_heard_on(&self, link: LinkIndex) -> bool {
        self.sessions
            .iter()
            .any(|((local, _), session)| *local == link && session.heard)
    }

    /// Whether it was ever heard.
    pub(super) fn was_heard(&self) -> bool {
        self.incarnation.is_some()
    }

    /// Whether it sends authentic heartbeats without having proven yet that they are of now.
    pub(super) fn is_to_be_proven(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// Whether one of its links has this hardware address.
    pub(super) fn has_mac(&self, mac: MacAddr) -> bool {
        self.sessions.values().any(|session| session.mac == mac)
    }

    /// What it does, or did when it was last heard, about `vip`.
    pub fn claim(&self, vip: IpAddr) -> Option<Claim> {
        self.table.claim(vip)
    }

    /// What would change if it were not heard any more.
    pub fn all_gone(&self) -> impl Iterator<Item = Changed> + '_ {
        self.table.all_gone()
    }

    /// Why it stands for nothing, if so.
    pub fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// Whether it says that it hears the node with this id.
    pub fn hears(&self, id: NodeId) -> bool {
        self.hears.get(&id).copied().unwrap_or(false)
    }

    /// When it was last heard.
    pub fn last_heard(&self) -> Time {
        self.last_heard
    }

    /// Since when this speaker's copy of its table has differed from what it says.
    pub fn differs_since(&self) -> Option<Time> {
        self.differs_since
    }

    pub(super) fn receive(
        &mut self,
        link: LinkIndex,
        heartbeat: &Heartbeat,
        own: NodeId,
        sent: &Sent,
        timing: &Timing,
        now: Time,
    ) -> Result<Received, Rejection> {
        let key = (link, heartbeat.link);
        let same_start = self.incarnation == Some(heartbeat.incarnation);
        let mut received = Received::default();
        let heard = (self.is_heard(), self.is_heard_on(link));
        let fell_silent = self.incarnation.is_some()
            && self.unfit != Some(Unfit::ShuttingDown)
            && self.sessions.values().any(|session| !session.heard);
        let newest = if same_start && self.sessions.contains_key(&key) {
            self.sessions
                .get_mut(&key)
                .map_or(Err(Rejection::Replayed), |session| {
                    session.receive(heartbeat, timing, now)
                })?
        } else {
            let proves = |sequence| {
                sent.has_lately(sequence) && (same_start || !self.sent_before.has_lately(sequence))
            };
            let mut echoes = heartbeat.echoes.iter();
            if !echoes.any(|echo| echo.node == own && proves(echo.sequence)) {
                self.remember_unproven(link, heartbeat, now);
                return Err(Rejection::Unproven);
            }
            if !same_start {
                received.changed.extend(self.table.all_gone());
                *self = Self::new(self.id);
                self.incarnation = Some(heartbeat.incarnation);
                self.sent_before = sent.clone();
            }
            if self.sessions.len() >= MOST_SESSIONS {
                self.sessions.retain(|_, session| session.heard);
                if self.sessions.len() >= MOST_SESSIONS {
                    return Err(Rejection::TooManyPeers);
                }
            }
            self.unproven.remove(&link);
            self.sessions
                .insert(key, Session::new(heartbeat, timing, now));
            true
        };
        received.appeared = !heard.0 || !same_start;
        received.newly_heard = !heard.1 || !same_start;
        received.returned = received.newly_heard && fell_silent;
        self.last_heard = now;
        received
            .changed
            .extend(self.table.apply(heartbeat.version, &heartbeat.entries));
        if newest {
            received.hears_others = self.take_in_header(heartbeat);
        }
        received.in_step = self.compare(now);
        Ok(received)
    }

    /// Takes in what only the newest heartbeat tells; says whether the peer hears others than before.
    fn take_in_header(&mut self, heartbeat: &Heartbeat) -> bool {
        self.digest = heartbeat.digest;
        self.unfit = heartbeat.unfit;
        let said = heartbeat.echoes.iter().map(|echo| (echo.node, echo.heard));
        let said = heartbeat.echoes_complete.then(|| said.collect::<Vec<_>>());
        if said.is_some() && said == self.last_hears {
            return false;
        }
        self.last_hears = said;
        let mut hears = if heartbeat.echoes_complete {
            BTreeMap::new()
        } else {
            self.hears.clone()
        };
        for echo in &heartbeat.echoes {
            if hears.len() < MOST_PEERS || hears.contains_key(&echo.node) {
                hears.insert(echo.node, echo.heard);
            }
        }
        let before = std::mem::replace(&mut self.hears, hears);
        before != self.hears
    }

    /// Compares the copy of the table with the digest; says whether they agree again.
    fn compare(&mut self, now: Time) -> bool {
        if self.table.is(self.digest) {
            self.differs_since.take().is_some()
        } else {
            self.differs_since.get_or_insert(now);
            false
        }
    }

    fn remember_unproven(&mut self, link: LinkIndex, heartbeat: &Heartbeat, now: Time) {
        if self.unproven.len() < MOST_SESSIONS || self.unproven.contains_key(&link) {
            let unproven = Unproven {
                incarnation: heartbeat.incarnation,
                sequence: low_half(heartbeat.sequence),
                at: now,
            };
            self.unproven.insert(link, unproven);
        }
    }

    /// The heartbeats to echo: of the session, and of a start of the peer that has not proven itself yet.
    pub(super) fn echoes(&self, link: LinkIndex) -> impl Iterator<Item = Echo> + '_ {
        let heard = self
            .sessions
            .iter()
            .filter(move |((local, _), _)| *local == link)
            .map(|(_, session)| session)
            .max_by_key(|session| session.last)
            .map(|session| Echo {
                node: self.id,
                sequence: low_half(session.sequence),
                heard: session.heard,
            });
        let unproven = self.unproven.get(&link).map(|unproven| Echo {
            node: self.id,
            sequence: unproven.sequence,
            heard: heard.is_some_and(|echo| echo.heard),
        });
        heard.into_iter().chain(unproven)
    }

    /// Ends the sessions whose time is over by `now`; says whether there were any.
    pub(super) fn expire(&mut self, now: Time) -> bool {
        let mut any = false;
        for session in self.sessions.values_mut() {
            if session.heard && session.deadline <= now {
                session.heard = false;
                any = true;
            }
        }
        self.unproven
            .retain(|_, unproven| now.since(unproven.at) < UNPROVEN_KEPT);
        any
    }

    /// Gives its sessions time until `deadline`.
    pub(super) fn spare_until(&mut self, deadline: Time) {
        let sessions = self.sessions.values_mut();
        for session in sessions.filter(|session| session.heard) {
            session.deadline = session.deadline.max(deadline);
        }
    }

    /// Forgets that it was heard on `link`; says whether it was.
    pub(super) fn forget_link(&mut self, link: LinkIndex) -> bool {
        self.unproven.remove(&link);
        let mut any = false;
        for ((local, _), session) in &mut self.sessions {
            if *local == link {
                any |= std::mem::take(&mut session.heard);
            }
        }
        any
    }

    /// When its next session ends, if nothing more is heard.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let sessions = self.sessions.values();
        let heard = sessions.filter(|session| session.heard);
        heard.map(|session| session.deadline).min()
    }

    /// The start of the peer that has not proven itself yet on this link, if any.
    pub fn unproven_incarnation(&self, link: LinkIndex) -> Option<u64> {
        self.unproven
            .get(&link)
            .map(|unproven| unproven.incarnation)
    }
}

/// How long a heartbeat without proof is echoed, so that its sender can prove itself.
const UNPROVEN_KEPT: Duration = Duration::from_secs(2);
/// The most pairs of links over which one peer is heard.
const MOST_SESSIONS: usize = 8;
