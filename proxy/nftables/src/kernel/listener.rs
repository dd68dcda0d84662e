//! Changes of our tables that somebody else makes, as the kernel tells them (`NFNLGRP_NFTABLES`).

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket as NetlinkSocket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::socket::{Message, messages};
use crate::netlink::attribute::find_text;
use crate::program::schema::TABLE;

/// Hears every change of nf_tables in this network namespace.
///
/// The kernel writes a message for each element as long as anybody listens, so nobody should while very many of our own
/// are on their way.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: NetlinkSocket,
    buffer: Vec<u8>,
}

/// What was heard since the last time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// Nothing about our tables that we did not do ourselves.
    Nothing,
    /// Somebody else changed our tables.
    Foreign,
    /// There was more than the socket could hold: nobody knows.
    TooMuch,
}

impl Listener {
    /// Begins to listen.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // What one of our changes makes the kernel say has room, where that is allowed.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        socket.add_membership(GROUP)?;
        Ok(Self {
            socket,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Hears what is there; `own` is the port of the socket that our changes come from.
    pub(crate) fn hear(&mut self, own: u32) -> Heard {
        let mut heard = Heard::Nothing;
        loop {
            let flags = MsgFlags::MSG_DONTWAIT;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => {
                    let octets = self.buffer.get(..length).unwrap_or_default();
                    if heard == Heard::Nothing && tells_foreign_change(octets, own) {
                        heard = Heard::Foreign;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return heard,
                Err(_) => return Heard::TooMuch,
            }
        }
    }
}

/// Whether the messages tell a change of our table that did not come from the port `own`.
fn tells_foreign_change(octets: &[u8], own: u32) -> bool {
    messages(octets).any(|message| message.port != own && is_about_our_table(&message))
}

/// In every message about nf_tables but that of a new generation, the first attribute names the table.
fn is_about_our_table(message: &Message<'_>) -> bool {
    let [subsystem, kind] = message.kind.to_be_bytes();
    subsystem == SUBSYSTEM
        && kind != NEW_GENERATION
        && find_text(message.attributes(), 1) == Some(TABLE)
}

const RECEIVE_BUFFER: usize = 4 << 20;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
/// `NFT_MSG_NEWGEN` (linux/netfilter/nf_tables.h).
const NEW_GENERATION: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel sends it: `nlmsghdr`, `nfgenmsg`, and the first attribute, which is a text.
    fn message(kind: u8, port: u32, text: &[u8; 8]) -> Vec<u8> {
        let mut octets = vec![32, 0, 0, 0, kind, SUBSYSTEM, 0, 0, 0, 0, 0, 0];
        octets.extend(port.to_ne_bytes());
        octets.extend([2, 0, 0, 0, 12, 0, 1, 0]);
        octets.extend(text);
        octets
    }

    #[test]
    fn only_changes_of_our_table_by_others_count() {
        const NEW_ELEMENT: u8 = 12;
        for (what, octets, expected) in [
            (
                "another's element",
                message(NEW_ELEMENT, 7, b"foghorn\0"),
                true,
            ),
            (
                "our own element",
                message(NEW_ELEMENT, 5, b"foghorn\0"),
                false,
            ),
            (
                "another table",
                message(NEW_ELEMENT, 7, b"foghorm\0"),
                false,
            ),
            (
                "a generation",
                message(NEW_GENERATION, 7, b"foghorn\0"),
                false,
            ),
            ("nothing", Vec::new(), false),
            (
                "half a message",
                message(NEW_ELEMENT, 7, b"foghorn\0")[..20].to_vec(),
                false,
            ),
        ] {
            assert_eq!(tells_foreign_change(&octets, 5), expected, "{what}");
        }
        let both = [
            message(NEW_ELEMENT, 5, b"foghorn\0"),
            message(NEW_ELEMENT, 7, b"foghorn\0"),
        ];
        assert!(tells_foreign_change(&both.concat(), 5));
    }
}
