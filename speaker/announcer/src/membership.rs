//! Which peers are heard, on which link, and what they say.
//!
//! A peer's heartbeats form a *session* for each pair of links. A session begins with a proof that the peer is of now:
//! it echoes a recent sequence number of ours, which start at random, so that no recording can have it. After that
//! sequence numbers only grow, within a window for reordering. No clock but our own is involved.
//!
//! A recording of a moment ago does have a recent number. It is told by its sequence number while the peer's start is the
//! same; once another start has proven itself, only what echoes something later brings back a former one.

mod session;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use crate::configuration::Timing;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::{Claim, Echo, Heartbeat, NodeId, Unfit};
use crate::link::LinkIndex;
use crate::packet::MacAddr;
use crate::table::{Changed, PeerTable};
use crate::time::Time;
use session::Session;

/// All peers that this speaker remembers.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<NodeName, Peer>,
}

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

impl Peer {
    fn new(id: NodeId) -> Self {
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
    fn was_heard(&self) -> bool {
        self.incarnation.is_some()
    }

    /// Whether it sends authentic heartbeats without having proven yet that they are of now.
    fn is_to_be_proven(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// Whether one of its links has this hardware address.
    fn has_mac(&self, mac: MacAddr) -> bool {
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

    fn receive(
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
    fn echoes(&self, link: LinkIndex) -> impl Iterator<Item = Echo> + '_ {
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
    fn expire(&mut self, now: Time) -> bool {
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
    fn spare_until(&mut self, deadline: Time) {
        let sessions = self.sessions.values_mut();
        for session in sessions.filter(|session| session.heard) {
            session.deadline = session.deadline.max(deadline);
        }
    }

    /// Forgets that it was heard on `link`; says whether it was.
    fn forget_link(&mut self, link: LinkIndex) -> bool {
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
    fn next_deadline(&self) -> Option<Time> {
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

/// The low half of a sequence number, as echoes have it.
fn low_half(sequence: u64) -> u32 {
    u32::try_from(sequence & u64::from(u32::MAX)).unwrap_or_default()
}

/// The most peers that are remembered.
pub const MOST_PEERS: usize = 256;
/// How many of our last heartbeats an echo may be of.
const RECENT: u32 = 256;
/// How long a heartbeat without proof is echoed, so that its sender can prove itself.
const UNPROVEN_KEPT: Duration = Duration::from_secs(2);
/// The most pairs of links over which one peer is heard.
const MOST_SESSIONS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Entries;

    const LINK: LinkIndex = LinkIndex(2);
    const OWN: NodeId = NodeId(1);
    /// The number of the last heartbeat that was sent, unless a test says otherwise.
    const LAST: u32 = 1000;

    fn heartbeat(node: &str, incarnation: u64, sequence: u64, echo: Option<u32>) -> Heartbeat {
        Heartbeat {
            node: node.into(),
            link: 3,
            mac: MacAddr::new(2, 0, 0, 0, 0, 9),
            incarnation,
            sequence,
            interval: Duration::from_millis(50),
            unfit: None,
            version: 0,
            digest: 0,
            echoes: echo
                .map(|sequence| Echo {
                    node: OWN,
                    sequence,
                    heard: true,
                })
                .into_iter()
                .collect(),
            echoes_complete: true,
            wanted: vec![],
            entries: Entries::Changes(vec![]),
        }
    }

    fn receive(
        peers: &mut Peers,
        heartbeat: &Heartbeat,
        milliseconds: u64,
    ) -> Result<bool, Rejection> {
        receive_after(LAST, peers, heartbeat, milliseconds)
    }

    fn receive_after(
        last: u32,
        peers: &mut Peers,
        heartbeat: &Heartbeat,
        milliseconds: u64,
    ) -> Result<bool, Rejection> {
        peers
            .receive(
                LINK,
                heartbeat,
                OWN,
                &Sent::until([last.into()]),
                &Timing::default(),
                Time::from_millis(milliseconds),
            )
            .map(|received| received.newly_heard)
    }

    #[test]
    fn whom_a_peer_hears_is_what_it_said_of_each_last() {
        let mut peers = Peers::default();
        receive(&mut peers, &heartbeat("a", 5, 1, Some(LAST)), 0).unwrap();
        for (sequence, said, complete, hears) in [
            (2, &[(8, true)][..], true, [false, true, false]),
            (3, &[(8, true)], true, [false, true, false]),
            (4, &[(9, true)], false, [false, true, true]),
            (5, &[(8, false)], false, [false, false, true]),
            (6, &[], true, [false; 3]),
            (7, &[], true, [false; 3]),
            (8, &[(9, true)], false, [false, false, true]),
            (9, &[], true, [false; 3]),
        ] {
            let echoes = said.iter().map(|&(node, heard)| Echo {
                node: NodeId(node),
                sequence: 1,
                heard,
            });
            let heartbeat = Heartbeat {
                echoes: echoes.collect(),
                echoes_complete: complete,
                ..heartbeat("a", 5, sequence, None)
            };
            receive(&mut peers, &heartbeat, 0).unwrap();
            let peer = peers.get(&"a".into()).unwrap();
            let heard = [OWN, NodeId(8), NodeId(9)].map(|node| peer.hears(node));
            assert_eq!(heard, hears, "{sequence}");
        }
    }

    #[test]
    fn only_what_is_of_now_is_heard() {
        let mut peers = Peers::default();
        for (incarnation, sequence, echo, expected) in [
            (5, 100, None, Err(Rejection::Unproven)),
            (5, 101, Some(LAST - 256), Err(Rejection::Unproven)),
            (5, 102, Some(LAST), Ok(true)),
            (5, 103, None, Ok(false)),
            (5, 103, None, Err(Rejection::Replayed)),
            (5, 106, None, Ok(false)),
            (5, 104, None, Ok(false)),
            (5, 104, None, Err(Rejection::Replayed)),
            (5, 1000, None, Ok(false)),
            (5, 936, None, Err(Rejection::Replayed)),
            (5, 937, None, Ok(false)),
            (4, 2000, None, Err(Rejection::Unproven)),
            (6, 1, Some(LAST + 6), Ok(true)),
            (5, 1001, None, Err(Rejection::Unproven)),
            (6, 2, None, Ok(false)),
        ] {
            let heartbeat = heartbeat("a", incarnation, sequence, echo);
            let last = LAST + u32::try_from(incarnation).unwrap();
            assert_eq!(
                receive_after(last, &mut peers, &heartbeat, 0),
                expected,
                "{incarnation} {sequence} {echo:?}"
            );
        }
    }

    /// What a machine on the LAN recorded a moment before a speaker was restarted echoes numbers that are still recent.
    #[test]
    fn a_recording_of_a_former_start_is_not_heard_however_fresh() {
        let mut peers = Peers::default();
        for (last, incarnation, sequence, echo, expected) in [
            (100, 5, 1, Some(100), Ok(true)),
            (110, 6, 1, Some(110), Ok(true)),
            (110, 5, 2, Some(100), Err(Rejection::Unproven)),
            (120, 5, 3, Some(110), Err(Rejection::Unproven)),
            (120, 6, 2, None, Ok(false)),
            // One that lives has heard what was sent since.
            (121, 5, 4, Some(121), Ok(true)),
            (121, 6, 3, Some(121), Err(Rejection::Unproven)),
            (122, 6, 4, Some(122), Ok(true)),
        ] {
            let heartbeat = heartbeat("a", incarnation, sequence, echo);
            assert_eq!(
                receive_after(last, &mut peers, &heartbeat, 0),
                expected,
                "{incarnation} {sequence} {echo:?} after {last}"
            );
        }
    }

    #[test]
    fn three_missing_heartbeats_are_silence() {
        let mut peers = Peers::default();
        receive(&mut peers, &heartbeat("a", 5, 1, Some(LAST)), 1000).unwrap();
        receive(&mut peers, &heartbeat("a", 5, 2, None), 1050).unwrap();
        assert_eq!(peers.next_deadline(), Some(Time::from_millis(1200)));
        assert_eq!(peers.expire(Time::from_millis(1199)), []);
        assert_eq!(peers.expire(Time::from_millis(1200)), ["a".into()]);
        assert_eq!(peers.expire(Time::from_millis(1200)), []);
        assert_eq!(
            receive(&mut peers, &heartbeat("a", 5, 9, None), 2000),
            Ok(true)
        );
    }

    #[test]
    fn jitter_earns_patience_and_steadiness_loses_it() {
        let mut peers = Peers::default();
        receive(&mut peers, &heartbeat("a", 5, 0, Some(LAST)), 0).unwrap();
        receive(&mut peers, &heartbeat("a", 5, 1, None), 90).unwrap();
        assert_eq!(
            peers.next_deadline(),
            Some(Time::from_millis(90 + 150 + 40))
        );
        for beat in 2..60 {
            receive(&mut peers, &heartbeat("a", 5, beat, None), 40 + 50 * beat).unwrap();
        }
        let last = 40 + 50 * 59;
        assert!(peers.next_deadline().unwrap() < Time::from_millis(last + 152));
    }

    #[test]
    fn memory_has_an_end_and_the_heard_are_kept() {
        let mut peers = Peers::default();
        receive(&mut peers, &heartbeat("heard", 5, 1, Some(LAST)), 0).unwrap();
        for number in 0..1000 {
            let node = format!("n{number}");
            assert_eq!(
                receive(&mut peers, &heartbeat(&node, 5, 1, None), 0),
                Err(Rejection::Unproven)
            );
        }
        assert_eq!(peers.peers.len(), MOST_PEERS);
        assert!(peers.get(&"heard".into()).is_some());
        for number in 0..1000 {
            let node = format!("m{number}");
            let _ = receive(&mut peers, &heartbeat(&node, 5, 1, Some(LAST)), 0);
        }
        assert_eq!(
            receive(&mut peers, &heartbeat("late", 5, 1, Some(LAST)), 0),
            Err(Rejection::TooManyPeers)
        );
    }
}
