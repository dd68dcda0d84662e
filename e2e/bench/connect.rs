//! TCP connects from the node's network, timed.

use std::io::Error;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, getsockopt, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeSpec;

/// Connects once; how long the handshake took, or `None` if there was none in time.
///
/// The connection ends with a reset, so that nothing of it is left in either network.
pub(crate) fn connect_once(server: SocketAddrV4, patience: Duration) -> Result<Option<Duration>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(
        AddressFamily::Inet,
        SockType::Stream,
        flags,
        SockProtocol::Tcp,
    )?;
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once)?;
    let begin = Instant::now();
    match connect(stream.as_raw_fd(), &SockaddrIn::from(server)) {
        Ok(()) => return Ok(Some(begin.elapsed())),
        Err(Errno::EINPROGRESS) => {}
        Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EPERM) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    let deadline = begin + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let took = begin.elapsed();
    let error = getsockopt(&stream, sockopt::SocketError)?;
    match error {
        0 => Ok(Some(took)),
        libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ECONNRESET => Ok(None),
        other => bail!("connect: {}", Error::from_raw_os_error(other)),
    }
}

/// Connects again and again until it works; the moment when it did.
///
/// An attempt starts each [`PACE`] at the latest, with a source port of its own.
pub(crate) fn first_connect(server: SocketAddrV4, deadline: Instant) -> Result<Instant> {
    loop {
        let begin = Instant::now();
        if connect_once(server, PACE)?.is_some() {
            return Ok(Instant::now());
        }
        if begin > deadline {
            bail!("nothing answers at {server}");
        }
        // A refusal comes at once.
        let rest = PACE.saturating_sub(begin.elapsed());
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
    }
}

/// The longest time between two attempts.
const PACE: Duration = Duration::from_micros(200);
