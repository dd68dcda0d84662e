//! All sockets of one interface.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::address::IpFamily;
use socket2::SockFilter;
use speaker_announcer::packet::ndp::multicast_mac;
use speaker_announcer::{Link, Time};

use super::filter;
use super::groups::Groups;
use super::heartbeat_socket::HeartbeatSocket;
use super::packet_socket::{EtherType, PacketSocket};
use super::route::Route;

/// All sockets of one interface; what could not be opened is tried again with [`Self::open_missing`].
#[derive(Debug)]
pub struct LinkSockets {
    link: Link,
    arp: Option<PacketSocket>,
    ndp: Option<PacketSocket>,
    heartbeat_v6: Option<HeartbeatSocket>,
    heartbeat_v4: Option<HeartbeatSocket>,
    groups: Groups,
    /// Groups that only the network card was told of: there is no IPv6 on the interface.
    memberships: BTreeSet<Ipv6Addr>,
    filtered: (BTreeSet<Ipv4Addr>, BTreeSet<Ipv6Addr>),
    route: Route,
}

/// A socket that could not be opened, or does not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{what} on {interface} failed")]
pub struct SocketError {
    /// What was tried.
    pub what: &'static str,
    /// The name of the interface.
    pub interface: String,
    #[source]
    source: io::Error,
}

impl LinkSockets {
    /// No socket yet.
    pub fn new(link: Link, now: Time) -> Self {
        Self {
            link,
            arp: None,
            ndp: None,
            heartbeat_v6: None,
            heartbeat_v4: None,
            groups: Groups::default(),
            memberships: BTreeSet::new(),
            filtered: Default::default(),
            route: Route::new(now),
        }
    }

    /// The interface.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Takes over what is known of the interface now; whether its sockets must be looked at again.
    pub fn set_link(&mut self, link: Link, now: Time) -> bool {
        let came_up = link.up && !self.link.up;
        let renamed = link.name != self.link.name;
        let has = |link: &Link, family| has_family(link, family);
        let families_changed = [IpFamily::V4, IpFamily::V6]
            .into_iter()
            .any(|family| has(&link, family) != has(&self.link, family));
        self.link = link;
        if came_up {
            self.route = Route::new(now);
            // The kernel forgot what it had joined if it took IPv6 from the interface.
            self.groups.forget();
        }
        came_up || renamed || families_changed
    }

    /// Opens the sockets for heartbeats, and those for frames of the families that `vips` are of, with filters for them;
    /// joins `groups`. What fails is said and left out.
    pub fn open_missing(
        &mut self,
        vips: impl Iterator<Item = IpAddr>,
        groups: &BTreeSet<Ipv6Addr>,
    ) -> Vec<SocketError> {
        let mut failures = Vec::new();
        self.open_heartbeats(&mut failures);
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for vip in vips {
            match vip {
                IpAddr::V4(vip) => v4.insert(vip),
                IpAddr::V6(vip) => v6.insert(vip),
            };
        }
        self.open_frames(v4, v6, &mut failures);
        self.join(groups, &mut failures);
        failures
    }

    fn open_heartbeats(&mut self, failures: &mut Vec<SocketError>) {
        let Self {
            link,
            heartbeat_v6,
            heartbeat_v4,
            ..
        } = self;
        for (family, socket) in [(IpFamily::V6, heartbeat_v6), (IpFamily::V4, heartbeat_v4)] {
            if !has_family(link, family) {
                *socket = None;
            } else if socket.is_none() {
                match HeartbeatSocket::open(link.index, &link.name, family) {
                    Ok(opened) => *socket = Some(opened),
                    Err(source) => failures.push(SocketError {
                        what: match family {
                            IpFamily::V4 => "opening a socket for heartbeats over IPv4",
                            IpFamily::V6 => "opening a socket for heartbeats over IPv6",
                        },
                        interface: link.name.clone(),
                        source,
                    }),
                }
            }
        }
    }

    fn open_frames(
        &mut self,
        v4: BTreeSet<Ipv4Addr>,
        v6: BTreeSet<Ipv6Addr>,
        failures: &mut Vec<SocketError>,
    ) {
        let (filtered_v4, filtered_v6) = &mut self.filtered;
        let mut open = |socket: &mut Option<PacketSocket>,
                        ether_type,
                        program: &dyn Fn() -> Vec<SockFilter>| {
            let outcome = (|| {
                if socket.is_none() {
                    *socket = Some(PacketSocket::open(self.link.index, ether_type)?);
                }
                socket
                    .as_ref()
                    .map_or(Ok(()), |socket| socket.set_filter(&program()))
            })();
            outcome.map_err(|source| {
                failures.push(SocketError {
                    what: match ether_type {
                        EtherType::Arp => "opening a packet socket for ARP",
                        EtherType::Ipv6 => "opening a packet socket for Neighbor Discovery",
                    },
                    interface: self.link.name.clone(),
                    source,
                });
            })
        };
        // No socket where nobody listens: even a filter that drops everything costs each packet a little.
        if v4.is_empty() {
            self.arp = None;
        } else if (self.arp.is_none() || *filtered_v4 != v4)
            && open(&mut self.arp, EtherType::Arp, &|| filter::arp(&v4)).is_ok()
        {
            *filtered_v4 = v4;
        }
        if v6.is_empty() {
            self.ndp = None;
        } else if (self.ndp.is_none() || *filtered_v6 != v6)
            && open(&mut self.ndp, EtherType::Ipv6, &|| filter::ndp(&v6)).is_ok()
        {
            *filtered_v6 = v6;
        }
    }

    fn join(&mut self, groups: &BTreeSet<Ipv6Addr>, failures: &mut Vec<SocketError>) {
        if self.ndp.is_none() {
            self.groups.forget();
            self.memberships.clear();
            return;
        }
        let failed = self.groups.set(self.link.index, groups);
        let Some(socket) = &self.ndp else { return };
        for (group, _) in failed {
            if self.memberships.contains(&group) {
                continue;
            }
            match socket.add_membership(multicast_mac(group)) {
                Ok(()) => {
                    self.memberships.insert(group);
                }
                Err(source) => failures.push(SocketError {
                    what: "joining a solicited-node group",
                    interface: self.link.name.clone(),
                    source,
                }),
            }
        }
    }

    /// The sockets for heartbeats, the preferred one first.
    pub fn heartbeat_sockets(&self) -> impl Iterator<Item = (IpFamily, &HeartbeatSocket)> {
        let v6 = self
            .heartbeat_v6
            .iter()
            .map(|socket| (IpFamily::V6, socket));
        let v4 = self
            .heartbeat_v4
            .iter()
            .map(|socket| (IpFamily::V4, socket));
        v6.chain(v4)
    }

    /// The sockets for frames.
    pub fn packet_sockets(&self) -> impl Iterator<Item = (EtherType, &PacketSocket)> {
        let arp = self.arp.iter().map(|socket| (EtherType::Arp, socket));
        let ndp = self.ndp.iter().map(|socket| (EtherType::Ipv6, socket));
        arp.chain(ndp)
    }

    /// A heartbeat came by IPv4 that had not come by IPv6 before.
    pub fn handle_heard_by_v4_alone(&mut self, now: Time) {
        if self.heartbeat_v6.is_some() {
            self.route.handle_heard_by_v4_alone(now);
        }
    }

    /// Sends a heartbeat; the number of datagrams.
    ///
    /// # Errors
    /// If no family took it.
    pub fn send_heartbeat(&mut self, datagram: &[u8], now: Time) -> io::Result<u64> {
        let mut sent = 0;
        let mut failure = None;
        if let Some(socket) = &self.heartbeat_v6 {
            match socket.send(datagram) {
                Ok(()) => sent += 1,
                Err(error) => failure = Some(error),
            }
        }
        let also_v4 = self.route.also_v4(now);
        if let Some(socket) = self.heartbeat_v4.as_ref().filter(|_| also_v4 || sent == 0) {
            match socket.send(datagram) {
                Ok(()) => sent += 1,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if sent == 0 => Err(error),
            None if sent == 0 => Err(io::ErrorKind::NotConnected.into()),
            _ => Ok(sent),
        }
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// If there is no socket for it, or the interface does not take it.
    pub fn send_frame(&self, frame: &[u8]) -> io::Result<EtherType> {
        let ether_type = EtherType::of(frame).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = match ether_type {
            EtherType::Arp => &self.arp,
            EtherType::Ipv6 => &self.ndp,
        };
        match socket {
            Some(socket) => socket.send(frame).map(|()| ether_type),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn has_family(link: &Link, family: IpFamily) -> bool {
    link.addresses
        .iter()
        .any(|subnet| IpFamily::of(subnet.addr()) == family)
}
