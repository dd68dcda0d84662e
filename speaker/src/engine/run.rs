//! The loop: wait, feed the machine, flush the machine.

use std::io;
use std::net::IpAddr;

use config::address::IpFamily;
use config_runtime::chain::Chain;
use speaker_announcer::{Event, LinkIndex, Payload, Rejection, Transmit};

use super::control::Command;
use super::poller::Token;
use super::report::{Interface, PeerView, Report, State, VipView};
use super::{Engine, EngineError, MOST_AT_ONCE, RETRY};
use crate::wire::link_sockets::LinkSockets;
use crate::wire::packet_socket::EtherType;

impl Engine {
    /// Runs until it was told to shut down and everything is handed over.
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        while !(self.shutting_down && self.announcer.is_done()) {
            let deadline = [self.announcer.poll_timeout(), self.retry]
                .into_iter()
                .flatten()
                .min();
            let mut ready = self
                .poller
                .wait(&self.clock, deadline)
                .map_err(EngineError::Wait)?;
            // What the kernel knows of interfaces first, then heartbeats, then frames.
            ready.sort_unstable();
            for token in ready {
                match token {
                    Token::Timer => {}
                    Token::Commands => self.take_commands(),
                    Token::Interfaces => self.read_interfaces()?,
                    Token::Heartbeats(index) => self.read_heartbeats(index),
                    Token::Frames(index) => self.read_frames(index),
                }
            }
            let now = self.clock.now();
            self.pulse.beat(now);
            if self.announcer.poll_timeout().is_some_and(|due| due <= now) {
                // What has arrived is heard before anybody is declared silent.
                let links: Vec<_> = self.links.keys().copied().collect();
                for index in links {
                    self.read_heartbeats(index);
                }
                let now = self.clock.now();
                self.announcer.handle_timeout(now);
            }
            if self.retry.is_some_and(|due| due <= now) {
                self.open_sockets();
            }
            self.flush();
        }
        self.flush();
        Ok(())
    }

    fn take_commands(&mut self) {
        self.control.calm();
        // Only the last configuration counts.
        let mut configured = None;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Configure(configuration, scope) => {
                    configured = Some((configuration, scope));
                }
                Command::Fitness(fitness) => {
                    self.announcer.handle_fitness(fitness, self.clock.now());
                }
                Command::Programmed(programmed) => {
                    self.announcer
                        .handle_programmed(programmed, self.clock.now());
                }
                Command::Idle(idle) => self.announcer.handle_idle(&idle, self.clock.now()),
                Command::Keys(keys) => self.announcer.handle_keys(keys),
                Command::State(answer) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(self.state());
                }
                Command::Shutdown => {
                    self.shutting_down = true;
                    self.announcer.handle_shutdown(self.clock.now());
                }
            }
        }
        if let Some((configuration, scope)) = configured {
            self.scope = scope;
            self.apply_scope();
            self.announcer
                .handle_configuration(configuration, self.clock.now());
            self.open_sockets();
        }
    }

    fn read_interfaces(&mut self) -> Result<(), EngineError> {
        self.interfaces.read()?;
        let changed = self.interfaces.interfaces().take_changed();
        let mut reopen = false;
        for index in changed {
            reopen |= self.sync_link(index);
        }
        if reopen {
            self.open_sockets();
        }
        Ok(())
    }

    /// The scope changed: interfaces come into it or fall out of it.
    fn apply_scope(&mut self) {
        self.interfaces.interfaces().take_changed();
        let known: Vec<_> = self
            .interfaces
            .interfaces()
            .iter()
            .map(|link| link.index)
            .collect();
        for index in known {
            self.sync_link(index);
        }
    }

    /// Tells the machine what an interface is now; whether its sockets must be looked at.
    fn sync_link(&mut self, index: LinkIndex) -> bool {
        let now = self.clock.now();
        let found = self.interfaces.interfaces().get(index);
        let Some(link) = found.filter(|link| self.scope.concerns(link)) else {
            if self.links.remove(&index).is_some() {
                self.announcer.handle_link_removed(index, now);
            }
            return false;
        };
        match self.links.get_mut(&index) {
            Some(sockets) if *sockets.link() == link => false,
            Some(sockets) => {
                sockets.set_link(link.clone(), now);
                self.announcer.handle_link(link, now);
                true
            }
            None => {
                self.links
                    .insert(index, LinkSockets::new(link.clone(), now));
                self.announcer.handle_link(link, now);
                true
            }
        }
    }

    /// Opens sockets that are missing, sets filters and groups for the VIPs that may be announced now.
    fn open_sockets(&mut self) {
        let mut failed = false;
        for (&index, sockets) in &mut self.links {
            let groups = self.announcer.solicited_node_groups(index);
            let vips: Vec<_> = self.announcer.vips_on(index).collect();
            for failure in sockets.open_missing(vips.into_iter(), &groups) {
                failed = true;
                let failure = Report::SocketFailed(Chain(&failure).to_string());
                let _ = self.reports.try_send(failure);
            }
            for (_, socket) in sockets.heartbeat_sockets() {
                failed |= self.poller.add(socket, Token::Heartbeats(index)).is_err();
            }
            for (_, socket) in sockets.packet_sockets() {
                failed |= self.poller.add(socket, Token::Frames(index)).is_err();
            }
        }
        self.retry = failed.then(|| self.clock.now() + RETRY);
    }

    fn read_heartbeats(&mut self, index: LinkIndex) {
        let Some(sockets) = self.links.get_mut(&index) else {
            return;
        };
        let mut heard_by_v4_alone = false;
        for (family, socket) in sockets.heartbeat_sockets() {
            for _ in 0..MOST_AT_ONCE {
                let Some(octets) = read(socket.receive(&mut self.buffer), &self.buffer) else {
                    break;
                };
                self.packets.received_heartbeats.inc();
                let now = self.clock.now();
                match self.announcer.handle_heartbeat(index, octets, now) {
                    Ok(()) => heard_by_v4_alone |= family == IpFamily::V4,
                    // The same as came by IPv6.
                    Err(Rejection::Replayed) if family == IpFamily::V4 => {}
                    Err(rejection) => self.packets.refuse("heartbeat", rejection.label()),
                }
            }
        }
        if heard_by_v4_alone {
            sockets.handle_heard_by_v4_alone(self.clock.now());
        }
    }

    fn read_frames(&mut self, index: LinkIndex) {
        let Some(sockets) = self.links.get(&index) else {
            return;
        };
        for (ether_type, socket) in sockets.packet_sockets() {
            for _ in 0..MOST_AT_ONCE {
                let Some(octets) = read(socket.receive(&mut self.buffer), &self.buffer) else {
                    break;
                };
                match ether_type {
                    EtherType::Arp => self.packets.received_arp.inc(),
                    EtherType::Ipv6 => self.packets.received_ndp.inc(),
                };
                let now = self.clock.now();
                if !self.limiter.admits(octets, now) {
                    self.packets.too_many.inc();
                    continue;
                }
                if let Err(error) = self.announcer.handle_frame(index, octets, now) {
                    self.packets.refuse("frame", error.label());
                }
            }
        }
    }

    /// Sends and says everything that the machine has to.
    fn flush(&mut self) {
        while let Some(Transmit { link, payload }) = self.announcer.poll_transmit() {
            let Some(sockets) = self.links.get_mut(&link) else {
                continue;
            };
            let outcome = match payload {
                Payload::Frame(frame) => sockets.send_frame(&frame).map(|ether_type| {
                    match ether_type {
                        EtherType::Arp => self.packets.sent_arp.inc(),
                        EtherType::Ipv6 => self.packets.sent_ndp.inc(),
                    };
                }),
                Payload::Heartbeat(datagram) => {
                    let sent = sockets.send_heartbeat(&datagram, self.clock.now());
                    sent.map(|count| {
                        self.packets.sent_heartbeats.inc_by(count);
                    })
                }
            };
            if outcome.is_err() {
                self.packets.not_sent.inc();
            }
        }
        while let Some(event) = self.announcer.poll_event() {
            self.note_peer(&event);
            let silence = matches!(
                event,
                Event::SilenceAgreed { .. } | Event::SilenceEnded { .. }
            );
            let interfaces = event.vip().map(|vip| self.interfaces_of(vip));
            // If nobody empties the channel, news is lost, never time.
            let _ = self
                .reports
                .try_send(Report::Event(event, interfaces.unwrap_or_default()));
            if silence {
                let silent = self.announcer.silent_nodes().clone();
                let _ = self.reports.try_send(Report::Silent(silent));
            }
        }
        if self.announcer.take_last_owners_changed() {
            let owners = self.announcer.last_owners();
            let owners = owners.map(|(vip, node)| (vip, node.clone())).collect();
            let _ = self.reports.try_send(Report::LastOwners(owners));
        }
        if self.announcer.take_watched_changed() {
            let watched = self.announcer.watched().clone();
            let _ = self.reports.try_send(Report::Watched(watched));
        }
    }

    fn note_peer(&mut self, event: &Event) {
        let (node, heard) = match event {
            Event::PeerHeard { node } => (node, true),
            Event::PeerSilent { node, .. } => (node, false),
            _ => return,
        };
        let since = self.clock.now();
        self.peers.insert(node.clone(), PeerView { heard, since });
    }

    fn interfaces_of(&self, vip: IpAddr) -> Vec<Interface> {
        let links = self.announcer.links_of(vip).iter();
        links
            .filter_map(|index| self.links.get(index))
            .map(|sockets| Interface {
                name: sockets.link().name.clone(),
                mac: sockets.link().mac,
            })
            .collect()
    }

    fn state(&self) -> State {
        let now = self.clock.now();
        let vips = self.announcer.vips().filter_map(|vip| {
            let standing = self.announcer.standing(vip)?;
            let view = VipView {
                owned_for: standing.since.map(|since| now.since(since)),
                interfaces: self.interfaces_of(vip),
                standing,
            };
            Some((vip, view))
        });
        State {
            now,
            vips: vips.collect(),
            peers: self.peers.clone(),
            silent: self.announcer.silent_nodes().clone(),
            links: self
                .links
                .values()
                .map(|sockets| sockets.link().clone())
                .collect(),
        }
    }
}

/// The packet that was read into the buffer, if there was one.
///
/// An interface that is down says so once with an error; the next read waits.
fn read(outcome: io::Result<usize>, buffer: &[u8]) -> Option<&[u8]> {
    buffer.get(..outcome.ok()?)
}
