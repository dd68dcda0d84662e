//! When to look at what is to be written: some time after something happened.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use config::name::{NodeName, ServiceKey};
use jiff::Timestamp;
use speaker_announcer::Event;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Duty, History, Subject, duties};
use crate::engine::{Control, Gone};

/// Keeps what is to be written as the machine says.
#[derive(Debug)]
pub struct Recorder {
    node: NodeName,
    control: Control,
    history: History,
    due: Option<Instant>,
    duties: watch::Sender<BTreeMap<Subject, Duty>>,
}

impl Recorder {
    /// Asks `control` and tells `duties`.
    pub fn new(
        node: NodeName,
        control: Control,
        duties: watch::Sender<BTreeMap<Subject, Duty>>,
    ) -> Self {
        Self {
            node,
            control,
            history: History::default(),
            due: None,
            duties,
        }
    }

    /// The machine said something.
    pub fn note(&mut self, event: &Event) {
        self.history.note(event, Timestamp::now());
        self.touch();
    }

    /// Something changed: what is to be written is looked at soon.
    pub fn touch(&mut self) {
        // Not put off by what comes later, so that a steady stream of changes does not keep it for ever.
        let soon = Instant::now() + REST;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Waits until it is time to look; cancel-safe.
    pub async fn until_due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Looks what is to be written; `services` has the Services of an address with their UIDs.
    ///
    /// # Errors
    /// If the machine has ended.
    pub async fn look(
        &mut self,
        services: impl Fn(IpAddr) -> Vec<(ServiceKey, String)>,
    ) -> Result<(), Gone> {
        self.due = None;
        let state = self.control.state().await?;
        let wanted = duties(&self.node, &state, &self.history, services);
        self.due = (!wanted.is_empty()).then(|| Instant::now() + REFRESH);
        self.duties
            .send_if_modified(|held| std::mem::replace(held, wanted.clone()) != wanted);
        Ok(())
    }
}

/// Between an event and the look: what happens together is written together.
const REST: Duration = Duration::from_millis(300);
/// Between two looks without an event: where the other nodes stand changes without one, as when a proxy falls ill there.
const REFRESH: Duration = Duration::from_secs(5);
