//! The netlink socket that tells of interfaces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Interfaces;

/// Why the interfaces could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("the kernel did not list the interfaces")]
pub struct ListError(#[from] io::Error);

/// Keeps [`Interfaces`] as the kernel has them.
#[derive(Debug)]
pub struct InterfaceSocket {
    notices: Socket,
    buffer: Vec<u8>,
    interfaces: Interfaces,
    complaints: Complaints,
}

/// Says once that something could not be read: it would come again with every Pod.
#[derive(Debug, Default)]
struct Complaints {
    said: bool,
}

impl Complaints {
    fn complain(&mut self, error: &dyn std::error::Error) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%error, "Kernel said something of an interface that cannot be read: it is left out");
        }
    }
}

impl InterfaceSocket {
    /// Subscribes to changes, and lists what is there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open() -> Result<Self, ListError> {
        let mut notices = Socket::new(NETLINK_ROUTE)?;
        notices.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            notices.add_membership(group)?;
        }
        notices.set_non_blocking(true)?;
        // Not fatal: when it overflows, everything is listed anew.
        let _ = notices.set_rx_buf_sz(RECEIVE_BUFFER);
        let mut socket = Self {
            notices,
            buffer: vec![0; LONGEST],
            interfaces: Interfaces::default(),
            complaints: Complaints::default(),
        };
        socket.list()?;
        Ok(socket)
    }

    /// What is known, with what has changed.
    pub fn interfaces(&mut self) -> &mut Interfaces {
        &mut self.interfaces
    }

    /// Reads everything that the kernel has told. After an overflow everything is listed anew.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn read(&mut self) -> Result<(), ListError> {
        loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.notices.recv(&mut buffer, 0) {
                Ok(size) => {
                    let interfaces = &mut self.interfaces;
                    let octets = self.buffer.get(..size).unwrap_or_default();
                    each_message(octets, &mut self.complaints, |payload| {
                        if let NetlinkPayload::InnerMessage(message) = payload {
                            interfaces.handle_message(message);
                        }
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.discard()?;
                    self.list()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Forgets what is queued: it is older than what was lost, and would undo what is about to be listed.
    fn discard(&mut self) -> Result<(), ListError> {
        loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.notices.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn list(&mut self) -> Result<(), ListError> {
        let mut fresh = Interfaces::default();
        let requests = [
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        ];
        for request in requests {
            dump(request, &mut self.buffer, &mut fresh, &mut self.complaints)?;
        }
        self.interfaces.replace(fresh);
        Ok(())
    }
}

impl AsFd for InterfaceSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.notices)
    }
}

fn borrow(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the socket that is borrowed with it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Asks on a socket of its own, so that answers and notices do not mix.
fn dump(
    request: RouteNetlinkMessage,
    buffer: &mut [u8],
    interfaces: &mut Interfaces,
    complaints: &mut Complaints,
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let patience = TimeVal::milliseconds(PATIENCE.subsec_millis().into());
    setsockopt(&borrow(&socket), sockopt::ReceiveTimeout, &patience)?;
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    socket.send(&octets, 0)?;
    loop {
        let mut room = &mut *buffer;
        let size = socket.recv(&mut room, 0)?;
        let mut outcome = None;
        each_message(
            buffer.get(..size).unwrap_or_default(),
            complaints,
            |payload| match payload {
                NetlinkPayload::InnerMessage(message) => interfaces.handle_message(message),
                NetlinkPayload::Done(_) => outcome = Some(Ok(())),
                NetlinkPayload::Error(error) => outcome = Some(Err(error.to_io())),
                _ => {}
            },
        );
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}

/// Walks over the messages in a buffer; one that cannot be read is left out.
fn each_message(
    mut octets: &[u8],
    complaints: &mut Complaints,
    mut visit: impl FnMut(&NetlinkPayload<RouteNetlinkMessage>),
) {
    while let Some(length) = octets.first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let Some(one) = octets.get(..length).filter(|one| one.len() >= HEADER) else {
            return;
        };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
            Ok(message) => visit(&message.payload),
            Err(error) => complaints.complain(&error),
        }
        // Messages begin at multiples of four octets.
        let next = length.next_multiple_of(4);
        octets = octets.get(next..).unwrap_or_default();
    }
}

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
const RECEIVE_BUFFER: usize = 1 << 20;
/// Octets of the longest datagram: the kernel fills 32 KiB at most.
const LONGEST: usize = 1 << 16;
const HEADER: usize = 16;
const PATIENCE: Duration = Duration::from_millis(500);
