//! Requests to the kernel's netfilter over netlink: one socket, one request after the other, blocking.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// A socket to netfilter.
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl Netfilter {
    /// Opens a socket.
    ///
    /// # Errors
    /// If the kernel has no netfilter or refuses the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            received: vec![0; RECEIVE_BYTES],
        })
    }

    /// Asks for all objects of a kind and hands each one that can be read to `take`.
    ///
    /// # Errors
    /// If the kernel refuses, or the socket fails.
    pub fn dump(
        &mut self,
        family: NetfilterProtoFamily,
        request: impl Into<NetfilterMessageInner>,
        mut take: impl FnMut(NetfilterMessage),
    ) -> io::Result<()> {
        let header = NetfilterHeader::new(family, 0, 0);
        let request = self.request(header, request, NLM_F_DUMP);
        self.send(&[request])?;
        let sequence = self.sequence;
        loop {
            let done = self.receive(|message| {
                if message.header.sequence_number != sequence {
                    return Ok(false);
                }
                match message.payload {
                    NetlinkPayload::Done(_) => Ok(true),
                    NetlinkPayload::Error(error) => Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => {
                        take(message);
                        Ok(false)
                    }
                    _ => Ok(false),
                }
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Sends requests that change something, and waits until each is answered: how many succeeded, and what went wrong
    /// with the first that did not for another reason than that its object was gone.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn change(
        &mut self,
        requests: impl IntoIterator<Item = (NetfilterProtoFamily, NetfilterMessageInner)>,
    ) -> io::Result<(usize, Option<io::Error>)> {
        let messages: Vec<_> = requests
            .into_iter()
            .map(|(family, request)| {
                self.request(NetfilterHeader::new(family, 0, 0), request, NLM_F_ACK)
            })
            .collect();
        let mut succeeded = 0;
        let mut failed = None;
        for few in messages.chunks(REQUESTS_IN_FLIGHT) {
            self.send(few)?;
            let mut awaited = few.len();
            while awaited > 0 {
                self.receive(|message| {
                    if let NetlinkPayload::Error(error) = message.payload {
                        awaited = awaited.saturating_sub(1);
                        match error.code {
                            None => succeeded += 1,
                            Some(_) if error.to_io().kind() == io::ErrorKind::NotFound => {}
                            Some(_) => failed = failed.take().or(Some(error.to_io())),
                        }
                    }
                    Ok(false)
                })?;
            }
        }
        Ok((succeeded, failed))
    }

    /// Sends messages as they are, together, and waits for the answer to the last one or an error to any.
    ///
    /// # Errors
    /// If the kernel refuses, or the socket fails.
    pub fn transact(
        &mut self,
        messages: impl IntoIterator<Item = (NetfilterHeader, NetfilterMessageInner)>,
    ) -> io::Result<()> {
        let mut messages: Vec<_> = messages
            .into_iter()
            .map(|(header, message)| self.request(header, message, 0))
            .collect();
        // The batch ends with a message that is not answered: ask for the answer to the one before it.
        let asked = messages.len().saturating_sub(2);
        if let Some(message) = messages.get_mut(asked) {
            message.header.flags |= NLM_F_ACK;
        }
        self.send(&messages)?;
        loop {
            let done = self.receive(|message| match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                NetlinkPayload::Error(_) => Ok(true),
                _ => Ok(false),
            })?;
            if done {
                return Ok(());
            }
        }
    }

    fn request(
        &mut self,
        header: NetfilterHeader,
        request: impl Into<NetfilterMessageInner>,
        flags: u16,
    ) -> NetlinkMessage<NetfilterMessage> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut netlink = NetlinkHeader::default();
        netlink.flags = NLM_F_REQUEST | flags;
        netlink.sequence_number = self.sequence;
        let payload = NetfilterMessage::new(header, request);
        let mut message = NetlinkMessage::new(netlink, NetlinkPayload::from(payload));
        message.finalize();
        message
    }

    fn send(&self, messages: &[NetlinkMessage<NetfilterMessage>]) -> io::Result<()> {
        let mut octets = Vec::new();
        for message in messages {
            let mut buffer = vec![0; message.buffer_len()];
            message.serialize(&mut buffer);
            octets.extend_from_slice(&buffer);
        }
        self.socket.send(&octets, 0)?;
        Ok(())
    }

    /// Takes what one datagram holds, until `take` says that it has enough.
    fn receive(
        &mut self,
        mut take: impl FnMut(NetlinkMessage<NetfilterMessage>) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let size = self.socket.recv(&mut &mut self.received[..], 0)?;
        let mut rest = self.received.get(..size).unwrap_or_default();
        while rest.len() >= NETLINK_HEADER_BYTES {
            let length = rest
                .first_chunk::<4>()
                .map_or(0, |octets| u32::from_ne_bytes(*octets));
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let aligned = length
                .next_multiple_of(4)
                .clamp(NETLINK_HEADER_BYTES, rest.len());
            let (octets, after) = rest.split_at(aligned);
            rest = after;
            // What this version of the library cannot read is none of the objects that we look for.
            if let Ok(message) = NetlinkMessage::deserialize(octets)
                && take(message)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

const NETLINK_HEADER_BYTES: usize = 16;
/// The largest datagram that the kernel sends in a dump is 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Few enough that neither buffer runs over.
const REQUESTS_IN_FLIGHT: usize = 64;
