//! What the engine is told from outside.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::EventFd;
use speaker_announcer::{Configuration, Fitness, Keyring, Programmed};
use tokio::sync::oneshot;

use super::report::State;
use crate::compile::Scope;

/// Something to tell the engine.
#[derive(Debug)]
pub enum Command {
    /// The cluster says this now.
    Configure(Configuration, Scope),
    /// Whether the node can serve.
    Fitness(Fitness),
    /// Which VIPs the proxy of this node forwards.
    Programmed(Programmed),
    /// Which of the VIPs that are watched carry no connection.
    Idle(BTreeSet<IpAddr>),
    /// The keys of heartbeats.
    Keys(Keyring),
    /// Says where everything stands.
    State(oneshot::Sender<State>),
    /// Hand everything over and end.
    Shutdown,
}

/// Tells the engine; cheap to copy, never waits.
#[derive(Clone, Debug)]
pub struct Control {
    sender: mpsc::Sender<Command>,
    waker: Arc<EventFd>,
}

/// The engine has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the thread of the machine has ended")]
pub struct Gone;

impl Control {
    pub(super) fn new(sender: mpsc::Sender<Command>, waker: Arc<EventFd>) -> Self {
        Self { sender, waker }
    }

    /// Tells it.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn tell(&self, command: Command) -> Result<(), Gone> {
        self.sender.send(command).map_err(|_| Gone)?;
        // It fails only if the counter is at its end, and then the engine wakes anyway.
        let _ = self.waker.write(1);
        Ok(())
    }

    /// Asks where everything stands.
    ///
    /// # Errors
    /// If the engine has ended.
    pub async fn state(&self) -> Result<State, Gone> {
        let (answer, asked) = oneshot::channel();
        self.tell(Command::State(answer))?;
        asked.await.map_err(|_| Gone)
    }

    /// Takes back the wake-ups so far.
    pub(super) fn calm(&self) {
        let _ = self.waker.read();
    }
}
