//! The wires of a twin: packets put on its interfaces, or sent by the node itself, and whatever comes out.
//!
//! Interfaces are TUN devices, so the kernel has dealt with a packet when the call that hands it over returns: silence is
//! known at once, without waiting for it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
    SockaddrIn6, bind, recvmsg, send, setsockopt, socket,
};
use socket2::{Domain, Protocol as Number, Socket, Type};

use crate::packet::{Probe, Refusal, Sighting, sighting, sighting_in};

/// Where a probe enters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Entry {
    /// The node itself sends it.
    Node,
    /// It arrives on the interface with this index in [`INTERFACES`].
    Interface(usize),
}

/// Towards the outside, the bridge of Pods, and one Pod's own interface.
pub(crate) const INTERFACES: [&str; 3] = ["eth0", "cbr0", "veth7"];

/// What became of a probe.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Outcome {
    /// It came out, for this address and port, from this source address.
    Out {
        destination: SocketAddr,
        source: IpAddr,
    },
    /// The one who sent it was told that it was refused.
    Refused(Refusal),
    /// Neither.
    #[default]
    Silence,
}

/// The interfaces of a twin and the sockets of its node.
#[derive(Debug)]
pub(crate) struct Wire {
    interfaces: Vec<File>,
    /// Send packets with their IP headers from the node, by family.
    senders: [Socket; 2],
    /// Hear what is delivered to the node, by protocol.
    ipv4: Vec<Socket>,
    ipv6: Vec<(u8, Socket)>,
    conntrack: OwnedFd,
    next: u32,
}

impl Wire {
    /// Makes the interfaces in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        let raw = |domain, number: i32| -> Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(Number::from(number)))
                .context("failed to open a raw socket")?;
            socket.set_nonblocking(true)?;
            // As much as the machine grants.
            socket.set_recv_buffer_size(4 << 20)?;
            Ok(socket)
        };
        let hears_ipv6 = |number: u8| -> Result<(u8, Socket)> {
            let socket = raw(Domain::IPV6, number.into())?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            Ok((number, socket))
        };
        let conntrack = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(conntrack.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            interfaces: INTERFACES.into_iter().map(tun).collect::<Result<_>>()?,
            senders: [
                raw(Domain::IPV4, libc::IPPROTO_RAW)?,
                raw(Domain::IPV6, libc::IPPROTO_RAW)?,
            ],
            ipv4: [1, 6, 17, 132]
                .into_iter()
                .map(|number| raw(Domain::IPV4, number))
                .collect::<Result<_>>()?,
            ipv6: [58, 6, 17, 132]
                .into_iter()
                .map(hears_ipv6)
                .collect::<Result<_>>()?,
            conntrack,
            next: 1,
        })
    }

    /// Sends probes, each a connection of its own, and says what became of each.
    pub(crate) fn send(&mut self, probes: &[(Entry, Probe)]) -> Result<Vec<Outcome>> {
        // The kernel has room for this many packets on each way out.
        const TOGETHER: usize = 64;
        // The connection tracking has room for this many connections.
        const BETWEEN_FLUSHES: usize = 100 * TOGETHER;
        let mut outcomes = vec![Outcome::Silence; probes.len()];
        for (position, few) in probes.chunks(TOGETHER).enumerate() {
            if (position * TOGETHER).is_multiple_of(BETWEEN_FLUSHES) {
                self.forget_connections()?;
            }
            let mut sent = HashMap::new();
            for (index, (entry, probe)) in few.iter().enumerate() {
                let number = self.next;
                self.next = self.next.checked_add(1).unwrap_or(1);
                sent.insert(number, position * TOGETHER + index);
                self.put(*entry, Probe { number, ..*probe })?;
            }
            for seen in self.hear()? {
                match seen {
                    Sighting::Probe(probe) => {
                        if let Some(&index) = sent.get(&probe.number) {
                            outcomes[index] = Outcome::Out {
                                destination: probe.destination,
                                source: probe.source.ip(),
                            };
                        }
                    }
                    Sighting::Refused(number, refusal) => {
                        // What was delivered may be refused by the node it was delivered to: that it arrived counts.
                        if let Some(&index) = sent.get(&number)
                            && !matches!(outcomes[index], Outcome::Out { .. })
                        {
                            outcomes[index] = Outcome::Refused(refusal);
                        }
                    }
                }
            }
        }
        Ok(outcomes)
    }

    fn put(&mut self, entry: Entry, probe: Probe) -> Result<()> {
        let octets = probe.octets();
        match entry {
            Entry::Interface(index) => {
                self.interfaces[index].write_all(&octets)?;
            }
            Entry::Node => {
                let socket = &self.senders[usize::from(probe.source.is_ipv6())];
                let to = SocketAddr::new(probe.destination.ip(), 0);
                match socket.send_to(&octets, &to.into()) {
                    Ok(_) => {}
                    // How the node's own kernel says that a rule dropped or refused it.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                    Err(error) => bail!("{probe:?} could not be sent: {error}"),
                }
            }
        }
        Ok(())
    }

    /// Everything that came out since the last time.
    fn hear(&mut self) -> Result<Vec<Sighting>> {
        let mut seen = Vec::new();
        let mut packet = [0; 2048];
        for interface in &mut self.interfaces {
            while let Some(length) = unless_empty(interface.read(&mut packet))? {
                seen.extend(sighting(&packet[..length]));
            }
        }
        for socket in &mut self.ipv4 {
            while let Some(length) = unless_empty(Read::read(socket, &mut packet))? {
                seen.extend(sighting(&packet[..length]));
            }
        }
        for (next, socket) in &self.ipv6 {
            while let Some((source, destination, length)) = receive_ipv6(socket, &mut packet)? {
                seen.extend(sighting_in(source, destination, *next, &packet[..length]));
            }
        }
        Ok(seen)
    }

    /// Ends all tracked connections: a new one may have the ports of an earlier one.
    fn forget_connections(&self) -> Result<()> {
        // A request to delete (type 2 of subsystem 1, ctnetlink) that names no connection means all; answered (flags 5).
        let mut message = [0; 20];
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&0x0102_u16.to_ne_bytes());
        message[6..8].copy_from_slice(&5_u16.to_ne_bytes());
        send(self.conntrack.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 256];
        let length =
            nix::sys::socket::recv(self.conntrack.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match answer.get(16..20) {
            Some([0, 0, 0, 0]) if length >= 20 => Ok(()),
            code => bail!("connections could not be forgotten: {code:?}"),
        }
    }
}

fn unless_empty(outcome: std::io::Result<usize>) -> Result<Option<usize>> {
    match outcome {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn receive_ipv6(socket: &Socket, packet: &mut [u8]) -> Result<Option<(IpAddr, IpAddr, usize)>> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(packet)];
    let received = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    );
    let received = match received {
        Ok(received) => received,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let destination = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let source = received.address.context("a packet from nowhere")?.ip();
    let destination = destination.context("a packet to nowhere")?;
    Ok(Some((source.into(), destination.into(), received.bytes)))
}

nix::ioctl_write_ptr_bad!(
    /// Makes the device that a file of `/dev/net/tun` stands for.
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// An interface of this name whose packets are read from and written to a file.
fn tun(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("failed to open /dev/net/tun: this test needs TUN devices")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    // SAFETY: the request is a whole `ifreq` that ends its name with a zero, and lives longer than the call.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("failed to make the interface {name}"))?;
    Ok(file)
}
