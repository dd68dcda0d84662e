//! Heartbeats as any machine on the LAN meets them: recorded off the wire, changed, and sent.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::metrics::{Metrics, SPEAKER};
use crate::namespace::Namespace;
use crate::topology::{INTERFACE, NodeNumber};

/// The port of heartbeats.
pub const PORT: u16 = 17992;
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x666f, 0x6768);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 139);
/// Speakers believe nothing that a router has forwarded.
const HOP_LIMIT: u32 = 255;

/// Where the parts of a datagram begin: magic, version, key id, body, and its code at the end.
const VERSION: usize = 4;
const KEY_ID: usize = 5;
const BODY: usize = 9;

/// A datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Datagram(Vec<u8>);

impl Datagram {
    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The same of another version of the protocol.
    pub fn of_another_version(&self) -> Self {
        self.with_changed(VERSION)
    }

    /// The same, as of a holder of another key.
    pub fn of_another_key(&self) -> Self {
        self.with_changed(KEY_ID)
    }

    /// The same, saying something else than its sender said.
    pub fn with_another_body(&self) -> Self {
        self.with_changed(BODY + 1)
    }

    fn with_changed(&self, position: usize) -> Self {
        let mut octets = self.0.clone();
        if let Some(octet) = octets.get_mut(position) {
            *octet ^= 0x40;
        }
        Self(octets)
    }

    /// Only the beginning of it.
    pub fn cut(&self, length: usize) -> Self {
        Self(self.0.iter().copied().take(length).collect())
    }

    /// Whether a node's speaker sent it: the name is the first thing in the body, in clear text after its length.
    fn is_of(&self, node: NodeNumber) -> bool {
        let name = node.name();
        let body = self.0.get(BODY..).unwrap_or_default();
        body.split_first().is_some_and(|(&length, rest)| {
            usize::from(length) == name.len() && rest.starts_with(name.as_bytes())
        })
    }
}

/// Records what a node's speaker sends, at least `count` datagrams; fewer if that takes longer than `patience`.
pub fn record(
    namespace: &Namespace,
    node: NodeNumber,
    count: usize,
    patience: Duration,
) -> Result<Vec<Datagram>> {
    namespace.run(|| {
        let socket = socket_v6()?;
        socket.bind(&SocketAddrV6::new(GROUP_V6, PORT, 0, index()?).into())?;
        socket.join_multicast_v6(&GROUP_V6, index()?)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let socket = UdpSocket::from(socket);
        let deadline = Instant::now() + patience;
        let mut recorded = Vec::new();
        let mut buffer = vec![0; 2048];
        while recorded.len() < count && Instant::now() < deadline {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let octets = buffer.get(..length).unwrap_or_default();
                    let datagram = Datagram(octets.to_vec());
                    recorded.extend(Some(datagram).filter(|one| one.is_of(node)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(recorded)
    })?
}

/// Sends datagrams to both groups, and to the port of a host's own address, as speakers do: with the same port and hop limit.
pub fn send(namespace: &Namespace, datagrams: &[Datagram], hosts: &[SocketAddr]) -> Result<()> {
    namespace.run(|| {
        let (v4, v6) = (socket_v4()?, socket_v6()?);
        v4.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT).into())?;
        v6.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
        let groups = [
            SocketAddrV6::new(GROUP_V6, PORT, 0, index()?).into(),
            SocketAddr::from((GROUP_V4, PORT)),
        ];
        for datagram in datagrams {
            for to in groups.iter().chain(hosts) {
                let socket = if to.is_ipv4() { &v4 } else { &v6 };
                match socket.send_to(&datagram.0, &(*to).into()) {
                    Ok(_) => {}
                    // A host said of an earlier one that nobody listens there.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error).with_context(|| format!("to {to}")),
                }
            }
        }
        Ok(())
    })?
}

/// How many heartbeats a node's speaker has refused so far, for this reason or for any.
pub fn refused(node: &Namespace, reason: Option<&str>) -> Result<u64> {
    let reason = reason.map(|reason| ("reason", reason));
    let labels: Vec<_> = [("kind", "heartbeat")].into_iter().chain(reason).collect();
    Metrics::read(node, SPEAKER)?.sum("foghorn_speaker_packets_refused_total", &labels)
}

fn socket_v6() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_only_v6(true)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_unicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_if_v6(index()?)?;
    Ok(socket)
}

fn socket_v4() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_multicast_ttl_v4(HOP_LIMIT)?;
    socket.set_ttl_v4(HOP_LIMIT)?;
    Ok(socket)
}

/// The interface towards the LAN, or of a Pod, in the namespace of the calling thread.
fn index() -> Result<u32> {
    Ok(if_nametoindex(INTERFACE)?)
}
