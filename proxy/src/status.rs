//! How the proxy is, as those who ask it hear.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::liveness::Liveness;

/// How the proxy is; shared by all who do its work and all who answer for it.
#[derive(Debug)]
pub struct Status {
    liveness: Mutex<Liveness>,
    node_is_leaving: AtomicBool,
    /// Nothing while it starts: the rules of the proxy before it are in the kernel, and nobody should conclude anything.
    healthy: watch::Sender<Option<bool>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            liveness: Mutex::default(),
            node_is_leaving: AtomicBool::new(false),
            healthy: watch::Sender::new(None),
        }
    }
}

impl Status {
    /// Something changed that the kernel does not hold yet.
    pub fn handle_change(&self, now: Instant) {
        self.liveness().handle_change(now);
    }

    /// The kernel holds everything that was known before `started`.
    pub fn handle_synced(&self, started: Instant, now: Instant) {
        self.liveness().handle_synced(started, now);
        self.refresh(now);
    }

    /// Whether the node is about to be deleted.
    pub fn handle_node(&self, is_leaving: bool, now: Instant) {
        self.node_is_leaving.store(is_leaving, Ordering::Release);
        self.refresh(now);
    }

    /// Time has come to `now`: tells who listens if that makes a difference.
    pub fn refresh(&self, now: Instant) {
        let healthy = self.is_live(now) && !self.node_is_leaving();
        self.healthy.send_if_modified(|held| {
            let next = (healthy || held.is_some()).then_some(healthy);
            std::mem::replace(held, next) != next
        });
    }

    /// Whether changes reach the kernel.
    pub fn is_live(&self, now: Instant) -> bool {
        self.liveness().is_healthy(now)
    }

    /// Whether the node is about to be deleted, so that load balancers should look elsewhere.
    pub fn node_is_leaving(&self) -> bool {
        self.node_is_leaving.load(Ordering::Acquire)
    }

    /// When the kernel last held everything.
    pub fn last_synced(&self) -> Option<Instant> {
        self.liveness().last_synced()
    }

    /// Whether the node should get traffic, as it changes; nothing until the kernel has held everything once.
    pub fn healthy(&self) -> watch::Receiver<Option<bool>> {
        self.healthy.subscribe()
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
