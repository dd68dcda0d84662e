//! Waiting for what must come true, and not a moment longer.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::environment;

/// The patience that is needed here for what takes `usual` on most machines: `FOGHORN_SLOWNESS` times as long, as on an
/// emulated processor.
pub fn patience(usual: Duration) -> Duration {
    usual * environment::number("FOGHORN_SLOWNESS", 1)
}

/// Whether this machine is slower than most.
pub fn is_slow() -> bool {
    environment::number("FOGHORN_SLOWNESS", 1) > 1
}

/// Looks again and again until `look` finds something; an error of `look` ends the wait.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let patience = self::patience(patience);
    let deadline = Instant::now() + patience;
    let mut pause = SHORTEST_PAUSE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tries again and again until `attempt` succeeds; in the end its last error is the reason.
pub fn until_ok<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let patience = self::patience(patience);
    let deadline = Instant::now() + patience;
    let mut pause = SHORTEST_PAUSE;
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {patience:?} in vain for {what}")));
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
