//! Sockets on the interfaces: frames of ARP and Neighbor Discovery, heartbeats, groups.

pub mod filter;
pub mod groups;
pub mod heartbeat_socket;
pub mod limiter;
pub mod link_sockets;
pub mod packet_socket;
pub mod route;

use std::io;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::Socket;

/// Makes room for what comes while the machine is busy: a table of a thousand addresses from each of many peers at once.
/// Beyond the limit of the system with the capability NET_ADMIN, up to it without.
///
/// Not for frames: whoever floods the LAN would fill a long queue too, and answers would come late from its end.
fn make_room(socket: &Socket) -> io::Result<()> {
    match setsockopt(socket, RcvBufForce, &ROOM) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(ROOM),
    }
}

/// Octets, as the kernel counts them: some hundreds for each packet beyond its own.
const ROOM: usize = 2 << 20;
