//! UDP sockets for heartbeats: one for each family on each interface, members of the link-local group.

use std::io;
use std::net::{SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use config::address::IpFamily;
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket, Type};
use speaker_announcer::LinkIndex;
use speaker_announcer::heartbeat::{GROUP_V4, GROUP_V6, PORT};

use super::filter;

/// A socket for heartbeats on one interface. Needs the capability NET_RAW on old kernels, for SO_BINDTODEVICE.
///
/// Sends with hop limit 255, and its filter passes nothing else: what arrives was sent on the link itself (RFC 5082).
#[derive(Debug)]
pub struct HeartbeatSocket {
    socket: Socket,
    group: SockAddr,
}

impl HeartbeatSocket {
    /// Opens the socket and joins the group.
    ///
    /// # Errors
    /// If the kernel refuses, as where the interface does not have the family or is gone.
    pub fn open(link: LinkIndex, interface: &str, family: IpFamily) -> io::Result<Self> {
        match family {
            IpFamily::V4 => Self::open_v4(link, interface),
            IpFamily::V6 => Self::open_v6(link, interface),
        }
    }

    fn open_v4(link: LinkIndex, interface: &str) -> io::Result<Self> {
        let socket = socket(Domain::IPV4, interface)?;
        socket.attach_filter(&filter::heartbeat_v4())?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_multicast_ttl_v4(HOP_LIMIT)?;
        socket.set_multicast_all_v4(false)?;
        let group = SockAddr::from(SocketAddrV4::new(GROUP_V4, PORT));
        socket.bind(&group)?;
        let interface = InterfaceIndexOrAddress::Index(link.0);
        socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
        Ok(Self { socket, group })
    }

    fn open_v6(link: LinkIndex, interface: &str) -> io::Result<Self> {
        let socket = socket(Domain::IPV6, interface)?;
        socket.attach_filter(&filter::heartbeat_v6())?;
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_if_v6(link.0)?;
        let group = SockAddr::from(SocketAddrV6::new(GROUP_V6, PORT, 0, link.0));
        socket.bind(&group)?;
        socket.join_multicast_v6(&GROUP_V6, link.0)?;
        Ok(Self { socket, group })
    }

    /// The next datagram, without waiting; the number of its octets.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.socket, buffer)?)
    }

    /// Sends a datagram to the group.
    ///
    /// # Errors
    /// If the interface does not take it, as when it is down or has no address of the family.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, &self.group).map(drop)
    }
}

impl AsFd for HeartbeatSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket(domain: Domain, interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    super::make_room(&socket)?;
    // One socket for each interface at the same address.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// A socket that is used to join groups only and never reads.
pub(super) fn membership_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking().cloexec(), None)?;
    socket.set_multicast_all_v6(false)?;
    Ok(socket)
}

const HOP_LIMIT: u32 = 255;
