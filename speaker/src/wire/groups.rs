//! The solicited-node groups of our VIPs, joined so that switches let solicitations through (MLD snooping).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use socket2::Socket;
use speaker_announcer::LinkIndex;

use super::heartbeat_socket::membership_socket;

/// The groups that are joined on one interface.
///
/// The kernel reports them by MLD, answers queries for them, and lets the network card receive them. A socket can only be a
/// member of so many groups, so there may be several.
#[derive(Debug, Default)]
pub struct Groups {
    sockets: Vec<Socket>,
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl Groups {
    /// Joins what is new in `wanted` and leaves what is not in it any more; those that could not be joined, with the
    /// reason.
    pub fn set(
        &mut self,
        link: LinkIndex,
        wanted: &BTreeSet<Ipv6Addr>,
    ) -> Vec<(Ipv6Addr, io::Error)> {
        self.joined.retain(|group, at| {
            let keep = wanted.contains(group);
            if !keep && let Some(socket) = self.sockets.get(*at) {
                // It fails if the interface is gone, and the membership with it.
                let _ = socket.leave_multicast_v6(group, link.0);
            }
            keep
        });
        let mut failed = Vec::new();
        for group in wanted {
            if self.joined.contains_key(group) {
                continue;
            }
            match self.join(link, group) {
                Ok(at) => {
                    self.joined.insert(*group, at);
                }
                Err(error) => failed.push((*group, error)),
            }
        }
        failed
    }

    /// Forgets all memberships: those of an interface that was down may be gone.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    fn join(&mut self, link: LinkIndex, group: &Ipv6Addr) -> io::Result<usize> {
        if let Some(at) = self.sockets.len().checked_sub(1)
            && let Some(socket) = self.sockets.get(at)
        {
            match socket.join_multicast_v6(group, link.0) {
                Ok(()) => return Ok(at),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let socket = membership_socket()?;
        socket.join_multicast_v6(group, link.0)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }
}

/// The socket has no room for another membership (`net.core.optmem_max`).
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::ENOMEM | nix::libc::ENOBUFS)
    )
}
