//! Heartbeats out and in.

use config::name::NodeName;

use super::{Announcer, MOST_TRANSMITS, Payload, Transmit};
use crate::candidates::Ineligible;
use crate::event::Event;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::{Echo, Entries, Heartbeat, MOST_ECHOES, MOST_WANTED, Unfit};
use crate::link::LinkIndex;
use crate::membership::{Received, Sent};
use crate::table::Changed;
use crate::time::Time;

impl Announcer {
    /// When the next heartbeat is due: sooner than regularly if something changed, but not much sooner.
    pub(super) fn beat_due(&self) -> Time {
        match self.last_beat.filter(|_| self.soon) {
            Some(last) => self.next_beat.min(last + self.interval() / SOONEST),
            None => self.next_beat,
        }
    }

    /// Sends a round of heartbeats on every link that is up.
    pub(super) fn beat(&mut self, now: Time) {
        self.soon = false;
        self.last_beat = Some(now);
        self.next_beat = now + self.interval();
        let links: Vec<_> = self
            .links
            .values()
            .filter(|state| state.link.up)
            .map(|state| state.link.index)
            .collect();
        let templates: Vec<_> = links
            .into_iter()
            .filter_map(|link| self.template(link))
            .collect();
        let Some(room) = templates.iter().map(Heartbeat::room).min() else {
            return;
        };
        let round = self.own.round(room, MOST_PARTS);
        if self.own.has_more() {
            self.soon = true;
        }
        for template in templates {
            for entries in &round {
                self.send_heartbeat(&template, entries.clone());
            }
        }
    }

    /// What a heartbeat on `link` says, apart from its sequence number and entries.
    fn template(&self, link: LinkIndex) -> Option<Heartbeat> {
        let state = self.links.get(&link)?;
        let (echoes, echoes_complete) = in_turns(self.peers.echoes(link), state.sequence);
        Some(Heartbeat {
            node: self.node.clone(),
            link: link.0,
            mac: state.link.mac,
            incarnation: self.incarnation,
            sequence: state.sequence,
            interval: self.interval(),
            unfit: self.unfit().and_then(as_unfit),
            version: self.own.version(),
            digest: self.own.digest(),
            echoes,
            echoes_complete,
            wanted: self.peers.wanted(MOST_WANTED),
            entries: Entries::Changes(Vec::new()),
        })
    }

    fn send_heartbeat(&mut self, template: &Heartbeat, entries: Entries) {
        let link = LinkIndex(template.link);
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        state.sequence += 1;
        let heartbeat = Heartbeat {
            sequence: state.sequence,
            entries,
            ..template.clone()
        };
        if self.transmits.len() >= MOST_TRANSMITS {
            self.transmits.pop_front();
        }
        self.transmits.push_back(Transmit {
            link,
            payload: Payload::Heartbeat(heartbeat.seal(&self.keys)),
        });
    }

    pub(super) fn receive_heartbeat(
        &mut self,
        link: LinkIndex,
        octets: &[u8],
        now: Time,
    ) -> Result<(), Rejection> {
        if !self.links.get(&link).is_some_and(|state| state.link.up) {
            return Err(Rejection::UnknownLink);
        }
        let heartbeat = Heartbeat::open(octets, &self.keys)?;
        if heartbeat.node == self.node {
            return Err(if heartbeat.incarnation == self.incarnation {
                Rejection::Own
            } else {
                Rejection::NameTaken
            });
        }
        let sent = Sent::until(self.links.values().map(|state| state.sequence));
        let known = self
            .peers
            .get(&heartbeat.node)
            .and_then(|peer| peer.unproven_incarnation(link));
        let received = self
            .peers
            .receive(link, &heartbeat, self.id, &sent, &self.timing, now);
        if received == Err(Rejection::Unproven) && known != Some(heartbeat.incarnation) {
            // An echo of a start that is new here lets the peer prove itself without waiting for our next turn.
            self.soon = true;
        }
        self.heard(&heartbeat, &received?, now);
        Ok(())
    }

    fn heard(&mut self, heartbeat: &Heartbeat, received: &Received, now: Time) {
        self.look_where_heeded(received.changed.iter().copied());
        if received.appeared {
            self.measure_interval();
            self.emit(Event::PeerHeard {
                node: heartbeat.node.clone(),
            });
        }
        if received.newly_heard {
            self.tell_whole_if_rested(now);
            self.soon = true;
        }
        if received.returned {
            self.announce_again(now);
        }
        if received.newly_heard || received.in_step || received.hears_others {
            self.look_again(received.newly_heard || received.in_step);
        }
        if heartbeat.wanted.contains(&self.id) {
            self.tell_whole_if_rested(now);
        }
    }

    /// Tells the whole table, unless that began a short while ago: many who come at once hear the same telling, and whoever
    /// missed it asks again.
    fn tell_whole_if_rested(&mut self, now: Time) {
        let rest = self.interval() * self.own.rounds_of_whole().min(REST_AFTER_WHOLE);
        let is_rested = self.last_whole.is_none_or(|last| now.since(last) >= rest);
        if is_rested && !self.own.telling_whole() {
            self.own.tell_whole();
            self.last_whole = Some(now);
            self.soon = true;
        }
    }

    /// A peer is not heard any more on some link.
    pub(super) fn peer_lost(&mut self, node: &NodeName, now: Time) {
        let Some(peer) = self.peers.get(node) else {
            return;
        };
        let gone: Vec<_> = peer.all_gone().collect();
        if !peer.is_heard() && peer.unfit() != Some(Unfit::ShuttingDown) {
            let silent_for = now.since(peer.last_heard());
            self.emit(Event::PeerSilent {
                node: node.clone(),
                silent_for,
            });
        }
        self.measure_interval();
        self.look_where_heeded(gone);
        self.look_again(true);
        // The others wait for this: as long as somebody hears the peer, nobody takes its VIPs.
        self.soon = true;
    }

    /// Looks at the VIPs for which it makes a difference here what a peer says.
    ///
    /// Who stands for an address that somebody else owns is news for its owner alone: where a thousand addresses are told by
    /// each of many peers, to look at all of them each time would be most of the work.
    fn look_where_heeded(&mut self, changed: impl IntoIterator<Item = Changed>) {
        let heeded = changed.into_iter().filter(|changed| {
            self.vips
                .get(&changed.vip)
                .is_some_and(|state| !changed.is_offer() || state.heeds_offers())
        });
        self.dirty.extend(heeded.map(|changed| changed.vip));
    }

    /// Looks again at VIPs that wait for what peers say of each other: all of them, or those being claimed.
    fn look_again(&mut self, all: bool) {
        let waiting = self
            .vips
            .iter()
            .filter(|(_, state)| state.waits_for_peers(all))
            .map(|(vip, _)| *vip);
        self.dirty.extend(waiting);
    }
}

/// As many echoes as a heartbeat has room for, and whether that is all of them.
fn in_turns(mut echoes: Vec<Echo>, turn: u64) -> (Vec<Echo>, bool) {
    if echoes.len() <= MOST_ECHOES {
        return (echoes, true);
    }
    let start = usize::try_from(turn)
        .unwrap_or_default()
        .wrapping_mul(MOST_ECHOES)
        % echoes.len();
    echoes.rotate_left(start);
    echoes.truncate(MOST_ECHOES);
    (echoes, false)
}

fn as_unfit(reason: Ineligible) -> Option<Unfit> {
    match reason {
        Ineligible::Starting => Some(Unfit::Starting),
        Ineligible::ProxyUnhealthy => Some(Unfit::ProxyUnhealthy),
        Ineligible::Draining => Some(Unfit::Draining),
        Ineligible::ShuttingDown => Some(Unfit::ShuttingDown),
        _ => None,
    }
}

/// Which part of an interval must pass between two heartbeats, so that even constant changes have a bounded rate.
const SOONEST: u32 = 4;
/// Datagrams for entries in one round at most.
///
/// When many speakers tell their tables at once, a receiver that is busy must have room for a round of each of them.
const MOST_PARTS: usize = 8;
/// Intervals from the beginning of one telling of the whole table to the next, at most: a table that is told in fewer
/// rounds may be told again sooner, so that two owners that begin to hear each other know it within the bound.
///
/// Thirty speakers that start at once with a thousand addresses would do nothing but tell and listen otherwise.
const REST_AFTER_WHOLE: u32 = 4;
