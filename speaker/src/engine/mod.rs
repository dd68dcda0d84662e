//! The thread around the machine: sockets in, sockets out, and nothing that decides.
//!
//! One thread of its own, with real-time priority where the kernel allows it, that waits in `epoll` for heartbeats, frames,
//! news of interfaces, commands and the timer. Everything that may wait (the API server, HTTP, logs) is elsewhere and
//! talks to it over channels.

mod control;
mod poller;
mod report;
mod run;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use speaker_announcer::{Announcer, Fitness, Identity, Keyring, LinkIndex, Time, Timing};

use crate::clock::Clock;
use crate::compile::Scope;
use crate::interfaces::{InterfaceSocket, ListError};
use crate::metrics::Packets;
use crate::real_time;
use crate::wire::limiter::Limiter;
use crate::wire::link_sockets::LinkSockets;
pub use control::{Command, Control, Gone};
use poller::{Poller, Token};
pub use report::{Interface, PeerView, Report, State, VipView};

/// What the engine starts with.
#[derive(Debug)]
pub struct Settings {
    /// Who this speaker is.
    pub identity: Identity,
    /// The keys of heartbeats.
    pub keys: Keyring,
    /// The schedule of the machine.
    pub timing: Timing,
    /// Whether the node can serve, as far as is known at the start.
    pub fitness: Fitness,
}

/// Why the engine could not start, or ended.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("failed to set up the wait for packets and timers")]
    Poller(#[source] nix::Error),
    #[error(transparent)]
    Interfaces(#[from] ListError),
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    #[error("failed to wait for packets and timers")]
    Wait(#[source] nix::Error),
}

/// The machine with its sockets.
pub struct Engine {
    announcer: Announcer,
    clock: Clock,
    poller: Poller,
    interfaces: InterfaceSocket,
    scope: Scope,
    links: BTreeMap<LinkIndex, LinkSockets>,
    limiter: Limiter,
    /// When to try again to open sockets that could not be opened.
    retry: Option<Time>,
    commands: mpsc::Receiver<Command>,
    control: Control,
    reports: tokio::sync::mpsc::Sender<Report>,
    peers: BTreeMap<config::name::NodeName, PeerView>,
    packets: Packets,
    shutting_down: bool,
    buffer: Box<[u8]>,
    pulse: Pulse,
}

/// When the engine was last seen at work; shared.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Clock,
    last_milliseconds: Arc<AtomicU64>,
}

impl Pulse {
    fn beat(&self, now: Time) {
        let milliseconds = now.since_start().as_millis();
        let milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX);
        self.last_milliseconds
            .store(milliseconds, Ordering::Relaxed);
    }

    /// Whether the engine works: it has something to do each heartbeat at least.
    ///
    /// # Errors
    /// For how long it has not.
    pub fn check(&self) -> Result<(), String> {
        let last = Time::from_millis(self.last_milliseconds.load(Ordering::Relaxed));
        let idle = self.clock.now().since(last);
        if idle < LONGEST_IDLE {
            Ok(())
        } else {
            Err(format!("no sign of life for {} s", idle.as_secs()))
        }
    }
}

impl Engine {
    /// Opens what is needed to begin with; nothing is sent yet.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(
        settings: Settings,
        packets: Packets,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Result<(Self, Control), EngineError> {
        let clock = Clock::start().map_err(EngineError::Poller)?;
        let (poller, waker) = Poller::new().map_err(EngineError::Poller)?;
        let interfaces = InterfaceSocket::open()?;
        poller
            .add(&interfaces, Token::Interfaces)
            .map_err(EngineError::Poller)?;
        let (sender, commands) = mpsc::channel();
        let control = Control::new(sender, Arc::new(waker));
        let now = clock.now();
        let mut announcer = Announcer::new(settings.identity, settings.keys, settings.timing, now);
        announcer.handle_fitness(settings.fitness, now);
        let engine = Self {
            announcer,
            clock,
            poller,
            interfaces,
            scope: Scope::default(),
            links: BTreeMap::new(),
            limiter: Limiter::new(now),
            retry: None,
            commands,
            control: control.clone(),
            reports,
            peers: BTreeMap::new(),
            packets,
            shutting_down: false,
            buffer: vec![0; LONGEST_PACKET].into_boxed_slice(),
            pulse: Pulse {
                clock,
                last_milliseconds: Arc::default(),
            },
        };
        Ok((engine, control))
    }

    /// Whether it is at work can be asked here.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs the engine on a thread of its own; what it returns is ready when the thread has ended.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        self,
        real_time: bool,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), EngineError>>, EngineError> {
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("announcer".to_owned())
            .spawn(move || {
                if real_time {
                    let granted = real_time::claim();
                    match &granted.priority {
                        Ok(()) => tracing::info!(%granted, "Machine runs with real-time priority"),
                        Err(_) => tracing::info!(
                            %granted,
                            "Machine runs without real-time priority: allow SYS_NICE, or a busy node may be taken for dead"
                        ),
                    }
                }
                // Nobody waits any more if it cannot be sent.
                let _ = ended.send(self.run());
            })
            .map_err(EngineError::Thread)?;
        Ok(end)
    }
}

/// An engine that does nothing for this long is stuck; heartbeats are 5 seconds apart at most.
const LONGEST_IDLE: Duration = Duration::from_secs(20);
/// Longer than any frame that a filter passes, and any heartbeat.
const LONGEST_PACKET: usize = 2048;
/// Packets that are read from one socket before others have their turn.
const MOST_AT_ONCE: usize = 64;
/// How long to wait before sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(1);
