//! Frames out and in: answers, announcements, probes, and what other machines claim.

use std::net::IpAddr;

use super::vip::Role;
use super::{Announcer, MOST_TRANSMITS, Payload, Transmit};
use crate::announcement::{announcements, ndp_frame, probe};
use crate::event::Event;
use crate::link::LinkIndex;
use crate::packet::arp::{Arp, Operation};
use crate::packet::ndp::{Message, Ndp};
use crate::packet::{Body, Frame, FrameError, MacAddr};
use crate::time::Time;

/// How another machine claims an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Foreign {
    /// It says that it has the address.
    Has,
    /// It probes for the address in order to take it.
    Probes,
}

impl Announcer {
    pub(super) fn receive_frame(
        &mut self,
        link: LinkIndex,
        frame: &Frame,
        now: Time,
    ) -> Result<(), FrameError> {
        let state = self.links.get(&link).filter(|state| state.link.up);
        let own = state.ok_or(FrameError::UnknownLink)?.link.mac;
        if self
            .links
            .values()
            .any(|state| state.link.mac == frame.source)
        {
            return Ok(());
        }
        match &frame.body {
            Body::Arp(arp) => self.receive_arp(link, own, arp, now),
            Body::Ndp(ndp) => self.receive_ndp(link, own, frame.source, ndp, now),
        }
        Ok(())
    }

    fn receive_arp(&mut self, link: LinkIndex, own: MacAddr, arp: &Arp, now: Time) {
        if !arp.sender.is_unspecified() {
            self.claimed(arp.sender.into(), link, arp.sender_mac, Foreign::Has, now);
        }
        let target = IpAddr::from(arp.target);
        if arp.operation != Operation::Request || arp.sender == arp.target {
            return;
        }
        if self.answers_for(target, link, now) {
            let answer = Frame {
                source: own,
                destination: arp.sender_mac,
                body: Body::Arp(arp.answer(own)),
            };
            self.send(link, &answer);
        } else if arp.is_probe() {
            self.claimed(target, link, arp.sender_mac, Foreign::Probes, now);
        }
    }

    fn receive_ndp(
        &mut self,
        link: LinkIndex,
        own: MacAddr,
        source: MacAddr,
        ndp: &Ndp,
        now: Time,
    ) {
        let target = IpAddr::from(ndp.target());
        match ndp.message {
            Message::Solicitation(solicitation) if self.answers_for(target, link, now) => {
                let answer = Ndp::answer(ndp.source, solicitation.target, own);
                let mut frame = ndp_frame(own, answer);
                if !ndp.source.is_unspecified() {
                    frame.destination = solicitation.source_mac.unwrap_or(source);
                }
                self.send(link, &frame);
            }
            Message::Solicitation(_) if ndp.source.is_unspecified() => {
                self.claimed(target, link, source, Foreign::Probes, now);
            }
            Message::Solicitation(_) => {}
            Message::Advertisement(advertisement) => {
                let mac = advertisement.target_mac.unwrap_or(source);
                self.claimed(target, link, mac, Foreign::Has, now);
            }
        }
    }

    /// Whether this node answers for `vip` on `link`.
    fn answers_for(&self, vip: IpAddr, link: LinkIndex, now: Time) -> bool {
        now >= self.hold_until
            && self
                .vips
                .get(&vip)
                .is_some_and(|state| state.is_owner() && state.links.contains(&link))
    }

    /// Another machine claims an address on the wire.
    fn claimed(&mut self, vip: IpAddr, link: LinkIndex, mac: MacAddr, how: Foreign, now: Time) {
        // When hundreds of addresses move, every speaker hears every announcement: most of them concern nobody but clients.
        let concerned = self.vips.get(&vip).is_some_and(|state| {
            state.links.contains(&link) && matches!(state.role, Role::Claiming(_) | Role::Owner(_))
        });
        if !concerned || self.links.values().any(|state| state.link.mac == mac) {
            return;
        }
        let peer = self
            .peers
            .with_mac(mac)
            .map(|(node, peer)| (node.clone(), peer.is_heard()));
        let is_probing = |role: &Role| matches!(role, Role::Claiming(_));
        let Some(mut state) = self.vips.remove(&vip) else {
            return;
        };
        match peer {
            Some((node, heard)) if is_probing(&state.role) && how == Foreign::Has => {
                self.fence_by_answer(vip, &mut state, node, heard, mac, now);
            }
            // Peers settle everything else among themselves.
            Some(_) => {}
            None if is_probing(&state.role) => self.quarantine(vip, &mut state, link, mac, now),
            None if state.may_defend(how == Foreign::Has, self.timing.defend_interval, now) => {
                self.announce(vip, &state.links, now);
                self.emit(Event::Defended { vip, link, mac });
            }
            None => {}
        }
        self.vips.insert(vip, state);
        self.dirty.insert(vip);
    }

    /// Announces `vip` on these links.
    pub(super) fn announce(&mut self, vip: IpAddr, links: &[LinkIndex], now: Time) {
        if now < self.hold_until {
            return;
        }
        for &link in links {
            if let Some(mac) = self.links.get(&link).map(|state| state.link.mac) {
                for frame in announcements(mac, vip) {
                    self.send(link, &frame);
                }
            }
        }
    }

    /// Asks on these links whether anybody has `vip`.
    pub(super) fn send_probe(&mut self, vip: IpAddr, links: &[LinkIndex]) {
        for &link in links {
            if let Some(mac) = self.links.get(&link).map(|state| state.link.mac) {
                self.send(link, &probe(mac, vip));
            }
        }
    }

    /// Announces everything owned again: somebody may not know.
    pub(super) fn announce_again(&mut self, now: Time) {
        let now = now.max(self.unsure_until);
        for (vip, state) in &mut self.vips {
            if state.announce_again(now) {
                self.dirty.insert(*vip);
            }
        }
    }

    /// Announces everything owned on `link` again, whose hardware address changed.
    pub(super) fn announce_again_on(&mut self, link: LinkIndex, now: Time) {
        for (vip, state) in &mut self.vips {
            if state.links.contains(&link) && state.announce_again(now) {
                self.dirty.insert(*vip);
            }
        }
    }

    fn send(&mut self, link: LinkIndex, frame: &Frame) {
        if self.transmits.len() < MOST_TRANSMITS {
            self.transmits.push_back(Transmit {
                link,
                payload: Payload::Frame(frame.emit()),
            });
        }
    }
}
