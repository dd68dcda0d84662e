//! One snapshot from the API server and from files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use config::catalogue::Catalogue;
use config::file::Ignored;
use config::refusal::Refusal;
use config::snapshot::{Dirty, Snapshot};
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use crate::connection::Connection;
use crate::delivery::Delivery;
use crate::watch::Interest;
use crate::{files, watch};

/// Keeps a [`Snapshot`] of what the cluster and the files say.
///
/// Call [`Self::changed`] in a loop. Before [`Update::synced`] is true the snapshot is a part of the truth, from
/// which nothing may be taken away from anybody.
#[derive(Debug)]
pub struct Source {
    snapshot: Snapshot,
    catalogue: Catalogue,
    refusals: BTreeSet<Refusal>,
    waiting_for: BTreeSet<&'static str>,
    deliveries: mpsc::Receiver<Delivery>,
    connection: Connection,
    tasks: JoinSet<()>,
    announced_synced: bool,
}

/// What is new since the last update.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Update {
    /// What in the snapshot was touched.
    pub dirty: Dirty,
    /// Refusals that were not there before; they are logged already.
    pub refused: Vec<Refusal>,
    /// Refusals that no longer hold.
    pub settled: Vec<Refusal>,
    /// Whether everything that was asked for has been delivered once.
    pub synced: bool,
}

/// How many deliveries may wait; more slow down the watches.
const CAPACITY: usize = 4096;

impl Source {
    /// Starts to watch: the API server if there is a client, and the files if there are any.
    ///
    /// Must be called inside a tokio runtime. The watches end with the source.
    pub fn start(client: Option<Client>, files: &[PathBuf], interest: Interest) -> Self {
        let (sender, deliveries) = mpsc::channel(CAPACITY);
        let connection = Connection::default();
        let mut tasks = JoinSet::new();
        let mut waiting_for = BTreeSet::new();
        if let Some(client) = &client {
            let names = watch::start(client, interest, &connection, &sender, &mut tasks);
            waiting_for.extend(names);
        }
        if !files.is_empty() {
            waiting_for.insert(files::NAME);
            tasks.spawn(files::run(files.to_vec(), sender));
        }
        Self {
            snapshot: Snapshot::default(),
            catalogue: Catalogue::default(),
            refusals: BTreeSet::new(),
            waiting_for,
            deliveries,
            connection,
            tasks,
            announced_synced: false,
        }
    }

    /// What is known now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Everything in pools and advertisements that is refused now.
    pub fn refusals(&self) -> &BTreeSet<Refusal> {
        &self.refusals
    }

    /// Whether everything that was asked for has been delivered once.
    pub fn is_synced(&self) -> bool {
        self.waiting_for.is_empty()
    }

    /// Whether the API server answers.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Waits until something is new, takes in everything that is waiting, and says what it touched.
    ///
    /// Cancel-safe: what was taken in is returned by the same call, without an await between.
    ///
    /// # Panics
    /// If a watch panicked.
    pub async fn changed(&mut self) -> Update {
        let mut batch = Vec::new();
        loop {
            if let Some(update) = self.news(Dirty::default()) {
                return update;
            }
            tokio::select! {
                received = self.deliveries.recv_many(&mut batch, CAPACITY), if !self.deliveries.is_closed() || !self.deliveries.is_empty() => {
                    tracing::trace!(count = received, "Took in deliveries");
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                // Nothing is watched.
                else => std::future::pending().await,
            }
            if let Some(update) = self.take_in(&mut batch) {
                return update;
            }
        }
    }

    /// Waits until everything that was asked for has been delivered once; what all of that touched.
    ///
    /// Not cancel-safe: a call that is dropped loses what it had gathered, not what the snapshot holds.
    pub async fn synced(&mut self) -> Update {
        let mut whole = Update::default();
        loop {
            let update = self.changed().await;
            whole.dirty.merge(update.dirty);
            whole.refused.extend(update.refused);
            whole.settled.extend(update.settled);
            whole.synced = update.synced;
            if whole.synced {
                return whole;
            }
        }
    }

    fn take_in(&mut self, batch: &mut Vec<Delivery>) -> Option<Update> {
        let mut dirty = Dirty::default();
        let mut declared = false;
        for delivery in batch.drain(..) {
            let changes = match delivery {
                Delivery::Change(change) => vec![change],
                Delivery::Synced(name) => {
                    self.waiting_for.remove(name);
                    vec![]
                }
                Delivery::Declared(slot, object) => {
                    declared = true;
                    self.catalogue.declare(slot, object).into_iter().collect()
                }
                Delivery::Withdrawn(slot) => {
                    declared = true;
                    self.catalogue.withdraw(&slot).into_iter().collect()
                }
                Delivery::File(path, reading) => {
                    declared = true;
                    log_ignored(&reading.ignored);
                    self.catalogue.read_file(&path, reading)
                }
            };
            for change in changes {
                self.snapshot.apply(change, &mut dirty);
            }
        }
        let (refused, settled) = if declared {
            self.compare_refusals()
        } else {
            (Vec::new(), Vec::new())
        };
        if refused.is_empty() && settled.is_empty() {
            return self.news(dirty);
        }
        self.announced_synced = self.is_synced();
        Some(Update {
            dirty,
            refused,
            settled,
            synced: self.is_synced(),
        })
    }

    /// An update, if something was touched or everything has just been delivered.
    fn news(&mut self, dirty: Dirty) -> Option<Update> {
        let synced = self.is_synced();
        let first = synced && !std::mem::replace(&mut self.announced_synced, synced);
        (first || !dirty.is_empty()).then(|| Update {
            dirty,
            synced,
            ..Update::default()
        })
    }

    fn compare_refusals(&mut self) -> (Vec<Refusal>, Vec<Refusal>) {
        let now = self.catalogue.refusals();
        let refused: Vec<_> = now.difference(&self.refusals).cloned().collect();
        let settled: Vec<_> = self.refusals.difference(&now).cloned().collect();
        self.refusals = now;
        for refusal in &refused {
            tracing::warn!(reason = %refusal, "Refused configuration: the last good version, if there was one, stays in force");
        }
        for refusal in &settled {
            tracing::info!(reason = %refusal, "Refusal of configuration is settled");
        }
        (refused, settled)
    }
}

fn log_ignored(ignored: &[Ignored]) {
    for ignored in ignored {
        tracing::info!(reason = %ignored, "Ignored document");
    }
}
