//! What the machine is told about the cluster and its own node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::vip::VipState;
use super::{Announcer, LinkState};
use crate::configuration::{Configuration, Fitness, Programmed};
use crate::link::{Link, LinkIndex};
use crate::time::Time;

impl Announcer {
    /// The cluster says this now.
    pub fn handle_configuration(&mut self, configuration: Configuration, now: Time) {
        self.notice_stall(now);
        self.speakers = configuration.speakers;
        self.measure_interval();
        if !std::mem::replace(&mut self.configured, true) {
            let listening = self.listening(now);
            for state in self.links.values_mut() {
                state.listening = Some(listening);
            }
        }
        let gone: Vec<_> = self
            .vips
            .keys()
            .filter(|vip| !configuration.vips.contains_key(vip))
            .copied()
            .collect();
        for vip in gone {
            self.forget_vip(vip);
        }
        for (address, vip) in configuration.vips {
            match self.vips.get_mut(&address) {
                Some(state) if state.vip == vip => continue,
                Some(state) => state.configure(vip, &self.node),
                None => {
                    self.vips.insert(address, VipState::new(vip, &self.node));
                }
            }
            self.place_on_links(address);
            self.dirty.insert(address);
        }
        self.advance(now);
    }

    /// An interface appeared or changed.
    pub fn handle_link(&mut self, link: Link, now: Time) {
        self.notice_stall(now);
        let index = link.index;
        let listening = self.listening(now);
        let sequence = self.random.next() >> 1;
        let state = self.links.entry(index).or_insert_with(|| LinkState {
            link: Link {
                up: false,
                ..link.clone()
            },
            sequence,
            listening: None,
        });
        let before = std::mem::replace(&mut state.link, link.clone());
        if link.up && !before.up {
            state.listening = Some(listening);
            self.soon = true;
        }
        if before.up && !link.up {
            self.lose_link(index, now);
        }
        self.links_changed();
        if link.up && before.mac != link.mac {
            self.announce_again_on(index, now);
        }
        self.advance(now);
    }

    /// An interface is gone.
    pub fn handle_link_removed(&mut self, index: LinkIndex, now: Time) {
        self.notice_stall(now);
        if self.links.remove(&index).is_some() {
            self.lose_link(index, now);
            self.links_changed();
        }
        self.advance(now);
    }

    /// This node can serve, or not, for reasons of its own.
    pub fn handle_fitness(&mut self, fitness: Fitness, now: Time) {
        self.notice_stall(now);
        if self.fitness != fitness {
            self.fitness = fitness;
            self.soon = true;
            self.all_dirty();
        }
        self.advance(now);
    }

    /// The service proxy of this node forwards these VIPs.
    pub fn handle_programmed(&mut self, programmed: Programmed, now: Time) {
        self.notice_stall(now);
        match programmed {
            Programmed::Unknown => {
                self.programmed = None;
                self.all_dirty();
            }
            Programmed::Only(vips) => {
                self.programmed = Some(vips);
                self.all_dirty();
            }
            Programmed::Changed { added, removed } => {
                // Without a beginning a change says nothing.
                if let Some(programmed) = &mut self.programmed {
                    programmed.retain(|vip| !removed.contains(vip));
                    let touched = removed.iter().chain(&added);
                    let touched = touched.filter(|vip| self.vips.contains_key(vip));
                    self.dirty.extend(touched.copied());
                    programmed.extend(added);
                }
            }
        }
        self.advance(now);
    }

    /// Of the VIPs in [`Self::watched`], these carry no connection: they may go back ([`crate::Failback::Idle`]).
    pub fn handle_idle(&mut self, idle: &BTreeSet<IpAddr>, now: Time) {
        self.notice_stall(now);
        for (vip, state) in &mut self.vips {
            let is_idle = idle.contains(vip);
            if std::mem::replace(&mut state.idle, is_idle) != is_idle {
                self.dirty.insert(*vip);
            }
        }
        self.advance(now);
    }

    fn lose_link(&mut self, index: LinkIndex, now: Time) {
        for node in self.peers.forget_link(index) {
            self.peer_lost(&node, now);
        }
    }

    fn links_changed(&mut self) {
        let vips: Vec<_> = self.vips.keys().copied().collect();
        for vip in vips {
            self.place_on_links(vip);
        }
        self.all_dirty();
    }

    /// Works out on which links a VIP may be announced now.
    fn place_on_links(&mut self, vip: IpAddr) {
        if let Some(state) = self.vips.get_mut(&vip) {
            let allowed = self
                .links
                .values()
                .filter(|link| state.vip.links.allow(&link.link, vip));
            let (up, down): (Vec<_>, Vec<_>) = allowed.partition(|link| link.link.up);
            state.links = up.iter().map(|link| link.link.index).collect();
            state.any_link_down = !down.is_empty();
        }
    }
}
