//! Packet sockets: whole Ethernet frames of one EtherType on one interface.
//!
//! One socket for each EtherType and not one for all: a socket for all is offered every frame that the interface
//! receives *and sends*, so that all traffic would run through its filter.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use speaker_announcer::{LinkIndex, MacAddr};

use super::filter;

/// What a packet socket receives and sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EtherType {
    /// The Address Resolution Protocol.
    Arp,
    /// IPv6, for Neighbor Discovery.
    Ipv6,
}

impl EtherType {
    /// The number, as on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }

    /// The EtherType of a frame without VLAN tag, if it is one of these.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let number = frame.get(12..14)?;
        [Self::Arp, Self::Ipv6]
            .into_iter()
            .find(|ether_type| number == ether_type.number().to_be_bytes())
    }
}

/// A packet socket. Needs the capability NET_RAW.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    link: LinkIndex,
}

impl PacketSocket {
    /// Opens a socket that passes nothing yet: see [`Self::set_filter`].
    ///
    /// Opened with protocol 0 and bound after the filter is in place, so that no frame comes in unfiltered.
    ///
    /// # Errors
    /// If the kernel refuses, as without NET_RAW.
    pub fn open(link: LinkIndex, ether_type: EtherType) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.attach_filter(&filter::nothing())?;
        socket.bind(&address(link, ether_type))?;
        Ok(Self { socket, link })
    }

    /// Replaces the filter, with no moment in between without one.
    ///
    /// # Errors
    /// If the kernel refuses the program.
    pub fn set_filter(&self, program: &[SockFilter]) -> io::Result<()> {
        self.socket.attach_filter(program)
    }

    /// The next frame, without waiting; the number of its octets.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none, or what is wrong with the interface.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.socket, buffer)?)
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// If the interface does not take it, as when it is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Lets the interface receive frames for a multicast address, for as long as the socket is open.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_membership(&self, group: MacAddr) -> io::Result<()> {
        let MacAddr(a, b, c, d, e, f) = group;
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(self.link.0).unwrap_or(0),
            mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).unwrap_or(0),
            mr_alen: 6,
            mr_address: [a, b, c, d, e, f, 0, 0],
        };
        let length = socket_length(size_of_val(&request));
        // SAFETY: the pointer is to a request that lives during the call, and the length is that of the request.
        let outcome = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                length,
            )
        };
        if outcome == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(link: LinkIndex, ether_type: EtherType) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every socket address, and all zeroes is a valid sockaddr_ll.
    let raw = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    raw.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    raw.sll_protocol = ether_type.number().to_be();
    raw.sll_ifindex = i32::try_from(link.0).unwrap_or(0);
    let length = socket_length(size_of::<libc::sockaddr_ll>());
    // SAFETY: the storage holds a sockaddr_ll, and the length is its length.
    unsafe { SockAddr::new(storage, length) }
}

fn socket_length(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(0)
}
