//! A netlink socket that blocks, and its answers.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket as NetlinkSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::message::Request;

/// A socket to one part of the kernel.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: NetlinkSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why something was not done.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the kernel cannot be reached by netlink")]
    Open(#[source] io::Error),
    #[error("failed to {what}")]
    Refused {
        what: String,
        #[source]
        source: Errno,
    },
    #[error("failed to {what}: the kernel did not answer")]
    Silence { what: String },
    #[error("failed to {what}: the socket to the kernel failed")]
    Broken {
        what: String,
        #[source]
        source: Errno,
    },
}

impl SocketError {
    /// What the kernel said, if it refused.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Some(*source),
            _ => None,
        }
    }
}

impl Socket {
    pub(crate) fn open(protocol: isize) -> Result<Self, SocketError> {
        let mut socket = NetlinkSocket::new(protocol).map_err(SocketError::Open)?;
        let bound = socket.bind(&SocketAddr::new(0, 0));
        bound.map_err(SocketError::Open)?;
        socket.set_cap_ack(true).map_err(SocketError::Open)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Does all of it in order, up to the first that is refused and may not be; each has the errors that do not matter.
    pub(crate) fn commit(
        &mut self,
        requests: Vec<(Request, &'static [Errno])>,
    ) -> Result<(), SocketError> {
        self.commit_each(requests, |_, error| Err(error))
    }

    /// The same where `refused` says what of each that is refused, by its number: an error ends it.
    pub(crate) fn commit_each(
        &mut self,
        requests: Vec<(Request, &'static [Errno])>,
        mut refused: impl FnMut(usize, SocketError) -> Result<(), SocketError>,
    ) -> Result<(), SocketError> {
        let mut numbers = 0..;
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let mut octets = Vec::new();
            let mut waiting = Vec::new();
            for (request, harmless) in requests.by_ref().take(MOST_AT_ONCE) {
                self.sequence += 1;
                waiting.push((self.sequence, request.what.clone(), harmless));
                octets.extend(request.octets(self.sequence));
            }
            self.send(&octets, "send to the kernel")?;
            let mut first_error = None;
            for ((sequence, what, harmless), number) in waiting.into_iter().zip(&mut numbers) {
                match self.answer(sequence, what) {
                    Ok(_) => {}
                    Err(error) if error.errno().is_some_and(|found| harmless.contains(&found)) => {}
                    Err(error) => first_error = first_error.or(refused(number, error).err()),
                }
            }
            if let Some(error) = first_error {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Asks for one thing.
    pub(crate) fn get(&mut self, request: Request) -> Result<Vec<u8>, SocketError> {
        self.sequence += 1;
        let what = request.what.clone();
        self.send(&request.octets(self.sequence), &what)?;
        self.answer(self.sequence, what)
    }

    /// Asks for all of a kind; `each` sees the content of each.
    pub(crate) fn dump(
        &mut self,
        request: Request,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), SocketError> {
        self.sequence += 1;
        let (sequence, what) = (self.sequence, request.what.clone());
        self.send(&request.octets(sequence), &what)?;
        loop {
            let length = self.receive(&what)?;
            for (kind, number, content) in messages(self.buffer.get(..length).unwrap_or_default()) {
                if number != sequence {
                    continue;
                }
                match (kind, code(content)) {
                    (DONE, _) | (ERROR, Some(0)) => return Ok(()),
                    (ERROR, Some(code)) => return Err(refused(what, code)),
                    _ => each(content),
                }
            }
        }
    }

    /// The answer to a question: its content, or nothing but that it is done. Each comes alone.
    fn answer(&mut self, sequence: u32, what: String) -> Result<Vec<u8>, SocketError> {
        loop {
            let length = self.receive(&what)?;
            let mut all = messages(self.buffer.get(..length).unwrap_or_default());
            match all.find(|(_, number, _)| *number == sequence) {
                Some((ERROR, _, content)) => {
                    return match code(content) {
                        Some(0) => Ok(Vec::new()),
                        code => Err(refused(what, code.unwrap_or(-1))),
                    };
                }
                Some((_, _, content)) => return Ok(content.to_vec()),
                None => {}
            }
        }
    }

    fn send(&self, octets: &[u8], what: &str) -> Result<(), SocketError> {
        match send(self.socket.as_raw_fd(), octets, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(source) => Err(SocketError::Broken {
                what: what.to_owned(),
                source,
            }),
        }
    }

    fn receive(&mut self, what: &str) -> Result<usize, SocketError> {
        loop {
            return match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(0) => Err(SocketError::Silence {
                    what: what.to_owned(),
                }),
                Ok(length) => Ok(length),
                Err(Errno::EINTR) => continue,
                Err(source) => Err(SocketError::Broken {
                    what: what.to_owned(),
                    source,
                }),
            };
        }
    }
}

fn refused(what: String, code: i32) -> SocketError {
    SocketError::Refused {
        what,
        source: Errno::from_raw(-code),
    }
}

fn code(content: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*content.first_chunk()?))
}

/// The kind, sequence number and content of each message.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let &[l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3] = octets.first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let content = octets.get(HEADER..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([k0, k1]);
        Some((kind, u32::from_ne_bytes([s0, s1, s2, s3]), content))
    })
}

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Their answers fit into a socket's buffer.
const MOST_AT_ONCE: usize = 100;
