//! The socket to nf_tables, and its answers.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket as NetlinkSocket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};

use crate::netlink::attribute::{Writer, find_number, find_text};
use crate::netlink::message::{Batch, Family, GET_GENERATION, Subject, get};

/// A socket to nf_tables that blocks.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: NetlinkSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel said instead of doing what it was asked for.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("nf_tables cannot be reached: the kernel module may be missing, or CAP_NET_ADMIN")]
    Open(#[source] io::Error),
    #[error("failed to send {octets} octets to nf_tables")]
    Send {
        octets: usize,
        #[source]
        source: Errno,
    },
    #[error("failed to receive from nf_tables")]
    Receive(#[source] Errno),
    #[error("nf_tables refused to {verb} {name} in table {table}{}", reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Refused {
        verb: &'static str,
        table: &'static str,
        name: String,
        /// The kernel's own words, if it had some.
        reason: Option<String>,
        #[source]
        source: Errno,
    },
    #[error("nf_tables refused a question")]
    Question(#[source] Errno),
    #[error("somebody else changed nf_tables at the same time")]
    Generation,
    #[error("nf_tables did not answer")]
    Silence,
}

impl Socket {
    /// What options are set on.
    pub(crate) fn inner(&self) -> &NetlinkSocket {
        &self.socket
    }

    pub(crate) fn open() -> Result<Self, SocketError> {
        let mut socket = NetlinkSocket::new(NETLINK_NETFILTER).map_err(SocketError::Open)?;
        socket
            .bind(&SocketAddr::new(0, 0))
            .map_err(SocketError::Open)?;
        socket.set_ext_ack(true).map_err(SocketError::Open)?;
        socket.set_cap_ack(true).map_err(SocketError::Open)?;
        // More than the limit of the system, where that is allowed; otherwise as much as that.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
        }
        widen_receive_buffer(&socket);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; 1 << 16],
        })
    }

    /// The port by which the kernel tells this socket from others.
    pub(crate) fn port(&self) -> u32 {
        let mut address = SocketAddr::new(0, 0);
        // Of a socket that is bound it is always known.
        let _ = self.socket.get_address(&mut address);
        address.port_number()
    }

    /// Sends a batch; when it returns, all of it is in force or nothing.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<(), SocketError> {
        let (octets, last, subjects) = batch.finish();
        self.drain();
        self.send(&octets)?;
        let mut acknowledged = false;
        let mut first_error = None;
        // The kernel has done everything before `send` returned: all answers are there.
        while let Some(length) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                match message.error() {
                    Some(0) if message.sequence == last => acknowledged = true,
                    Some(code) if code != 0 && first_error.is_none() => {
                        first_error = Some(refused(&message, code, &subjects));
                    }
                    _ => {}
                }
            }
        }
        match first_error {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(SocketError::Silence),
        }
    }

    /// Asks for all objects of a kind; `each` sees the attributes of each.
    ///
    /// False if somebody changed them in between: what was seen is worth nothing then.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: Family,
        content: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, SocketError> {
        self.drain();
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&get(kind, true, sequence, family, content))?;
        let mut consistent = true;
        loop {
            let Some(length) = self.receive(MsgFlags::empty())? else {
                return Err(SocketError::Silence);
            };
            for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & DUMP_INTERRUPTED == 0;
                match (message.kind, message.error()) {
                    (DONE, _) => return Ok(consistent),
                    (_, Some(0)) => {}
                    (_, Some(code)) => match Errno::from_raw(-code) {
                        Errno::ENOENT => return Ok(consistent),
                        Errno::EINTR => return Ok(false),
                        errno => return Err(SocketError::Question(errno)),
                    },
                    _ => each(message.attributes()),
                }
            }
        }
    }

    /// Asks for one object; none if it does not exist.
    pub(crate) fn get(
        &mut self,
        kind: u16,
        family: Family,
        content: impl FnOnce(&mut Writer),
    ) -> Result<Option<Vec<u8>>, SocketError> {
        self.drain();
        self.sequence += 1;
        self.send(&get(kind, false, self.sequence, family, content))?;
        let Some(length) = self.receive(MsgFlags::empty())? else {
            return Err(SocketError::Silence);
        };
        let mut answers = messages(self.buffer.get(..length).unwrap_or_default());
        let answer = answers.next().ok_or(SocketError::Silence)?;
        match answer.error() {
            None => Ok(Some(answer.attributes().to_vec())),
            Some(code) => match Errno::from_raw(-code) {
                Errno::ENOENT | Errno::EAFNOSUPPORT => Ok(None),
                errno => Err(SocketError::Question(errno)),
            },
        }
    }

    /// The number of changes that nf_tables has seen in this network namespace.
    pub(crate) fn generation(&mut self) -> Result<u32, SocketError> {
        let answer = self.get(GET_GENERATION, 0, |_| {})?;
        answer
            .and_then(|answer| find_number(&answer, 1))
            .ok_or(SocketError::Silence)
    }

    fn send(&self, octets: &[u8]) -> Result<(), SocketError> {
        match send(self.socket.as_raw_fd(), octets, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(source) => Err(SocketError::Send {
                octets: octets.len(),
                source,
            }),
        }
    }

    /// The length of what is in the buffer then; none if nothing is there and it was not to wait.
    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>, SocketError> {
        loop {
            return match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => Ok(Some(length)),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(None),
                Err(errno) => Err(SocketError::Receive(errno)),
            };
        }
    }

    /// Forgets answers to earlier questions, which an error may have left.
    fn drain(&mut self) {
        while let Ok(Some(_)) = self.receive(MsgFlags::MSG_DONTWAIT) {}
    }
}

/// Room for what the kernel says at once: more than the limit of the system, where that is allowed.
pub(super) fn widen_receive_buffer(socket: &NetlinkSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
}

fn refused(message: &Message<'_>, code: i32, subjects: &[Subject]) -> SocketError {
    let errno = Errno::from_raw(-code);
    if errno == Errno::ERESTART {
        return SocketError::Generation;
    }
    let index = usize::try_from(message.sequence).unwrap_or(usize::MAX);
    let subject = subjects.get(index).or(subjects.first());
    SocketError::Refused {
        verb: subject.map_or("commit", |subject| subject.verb),
        table: subject.map_or("", |subject| subject.table),
        name: subject.map_or_else(String::new, |subject| subject.name.clone()),
        reason: message.words().map(str::to_owned),
        source: errno,
    }
}

/// One message of an answer.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    /// Of the socket whose question this answers, or whose change it tells.
    pub(super) port: u32,
    content: &'a [u8],
}

impl<'a> Message<'a> {
    /// The code of an acknowledgement (0) or error (negative), if it is one.
    fn error(&self) -> Option<i32> {
        let code = self.content.first_chunk()?;
        (self.kind == ERROR).then(|| i32::from_ne_bytes(*code))
    }

    /// The kernel's words about the error; with capped acknowledgements only the header of the question precedes them.
    fn words(&self) -> Option<&'a str> {
        if self.flags & HAS_WORDS == 0 {
            return None;
        }
        find_text(self.content.get(4 + HEADER..)?, 1)
    }

    /// The attributes behind the header of nfnetlink.
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.content.get(4..).unwrap_or_default()
    }
}

pub(super) fn messages(mut octets: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (fields, _) = octets.first_chunk::<HEADER>()?.as_chunks::<4>();
        let [length, [k0, k1, f0, f1], sequence, port] = *fields.first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
        let content = octets.get(HEADER..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes(sequence),
            port: u32::from_ne_bytes(port),
            content,
        })
    })
}

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK_TLVS`.
const HAS_WORDS: u16 = 0x200;
/// Octets that a batch may have; the kernel doubles it.
const SEND_BUFFER: usize = 1 << 28;
const RECEIVE_BUFFER: usize = 1 << 22;
