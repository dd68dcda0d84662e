//! Changes of our tables that somebody else makes, as the kernel tells them (`NFNLGRP_NFTABLES`).

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket as NetlinkSocket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::socket::{Message, messages, widen_receive_buffer};
use crate::netlink::attribute::find_text;
use crate::netlink::message::SUBSYSTEM;
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
        widen_receive_buffer(&socket);
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
    message.kind >> 8 == SUBSYSTEM
        && message.kind != SUBSYSTEM << 8 | NEW_GENERATION
        && find_text(message.attributes(), 1) == Some(TABLE)
}

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN` (linux/netfilter/nf_tables.h).
const NEW_GENERATION: u16 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel sends it: `nlmsghdr`, `nfgenmsg`, and the first attribute, which is a text.
    fn message(kind: u8, port: u32, text: &[u8; 8]) -> Vec<u8> {
        let mut octets = vec![32, 0, 0, 0, kind, 10, 0, 0, 0, 0, 0, 0];
        octets.extend(port.to_ne_bytes());
        octets.extend([2, 0, 0, 0, 12, 0, 1, 0]);
        octets.extend(text);
        octets
    }

    #[test]
    fn only_changes_of_our_table_by_others_count() {
        const NEW_ELEMENT: u8 = 12;
        const GENERATION: u8 = 15;
        for (what, kind, port, table, expected) in [
            ("another's element", NEW_ELEMENT, 7, b"foghorn\0", true),
            ("our own element", NEW_ELEMENT, 5, b"foghorn\0", false),
            ("another table", NEW_ELEMENT, 7, b"foghorm\0", false),
            ("a generation", GENERATION, 7, b"foghorn\0", false),
        ] {
            let octets = message(kind, port, table);
            assert_eq!(tells_foreign_change(&octets, 5), expected, "{what}");
        }
        let theirs = message(NEW_ELEMENT, 7, b"foghorn\0");
        let both = [message(NEW_ELEMENT, 5, b"foghorn\0"), theirs.clone()];
        assert!(tells_foreign_change(&both.concat(), 5));
        for cut in [0, 20] {
            assert!(!tells_foreign_change(&theirs[..cut], 5), "{cut} octets");
        }
    }
}
