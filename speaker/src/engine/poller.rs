//! Waiting for several sockets, commands and one exact timer.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use speaker_announcer::{LinkIndex, Time};

use crate::clock::Clock;

/// What became ready.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Token {
    /// The timer.
    Timer,
    /// Somebody told something.
    Commands,
    /// The kernel told of interfaces.
    Interfaces,
    /// A socket for heartbeats on this interface.
    Heartbeats(LinkIndex),
    /// A socket for frames on this interface.
    Frames(LinkIndex),
}

/// Waits.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<Time>,
    ready: Vec<EpollEvent>,
}

impl Poller {
    pub(super) fn new() -> nix::Result<(Self, EventFd)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let waker = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let poller = Self {
            epoll,
            timer,
            armed: None,
            ready: vec![EpollEvent::empty(); MOST_READY],
        };
        poller.add(&poller.timer, Token::Timer)?;
        poller.add(&waker, Token::Commands)?;
        Ok((poller, waker))
    }

    /// Waits for a socket too, until it is closed; adding it twice is allowed.
    pub(super) fn add(&self, socket: &impl AsFd, token: Token) -> nix::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token.number());
        match self.epoll.add(socket.as_fd(), event) {
            Err(Errno::EEXIST) => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits until something is ready, `deadline` at the latest.
    pub(super) fn wait(
        &mut self,
        clock: &Clock,
        deadline: Option<Time>,
    ) -> nix::Result<Vec<Token>> {
        if deadline != self.armed {
            match deadline {
                Some(deadline) => {
                    let expiration = Expiration::OneShot(clock.absolute(deadline));
                    self.timer
                        .set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                }
                None => self.timer.unset()?,
            }
            self.armed = deadline;
        }
        let count = match self.epoll.wait(&mut self.ready, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error),
        };
        let ready = self.ready.iter().take(count);
        let tokens: Vec<_> = ready.filter_map(|event| Token::of(event.data())).collect();
        if tokens.contains(&Token::Timer) {
            // A one-shot timer that fired is set again, whatever the deadline.
            self.armed = None;
            match self.timer.wait() {
                Ok(()) | Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tokens)
    }
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Self::Timer => 0,
            Self::Commands => 1,
            Self::Interfaces => 2,
            Self::Heartbeats(LinkIndex(index)) => HEARTBEATS | u64::from(index),
            Self::Frames(LinkIndex(index)) => FRAMES | u64::from(index),
        }
    }

    fn of(number: u64) -> Option<Self> {
        let index = LinkIndex(u32::try_from(number & u64::from(u32::MAX)).ok()?);
        Some(match number {
            0 => Self::Timer,
            1 => Self::Commands,
            2 => Self::Interfaces,
            number if number & HEARTBEATS != 0 => Self::Heartbeats(index),
            number if number & FRAMES != 0 => Self::Frames(index),
            _ => return None,
        })
    }
}

const HEARTBEATS: u64 = 1 << 32;
const FRAMES: u64 = 1 << 33;
/// More are ready at the next call.
const MOST_READY: usize = 64;
