//! The task between the cluster and the machine: what the snapshot says goes in, what the machine says comes out.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use config::name::NodeName;
use config::snapshot::Dirty;
use config_runtime::debug::{Question, Questions};
use config_runtime::server::Flag;
use config_runtime::source::Source;
use tokio::sync::mpsc;

use crate::compile::Compiler;
use crate::engine::{Command, Control, Report};
use crate::metrics::{Metrics, Peer};
use crate::record::recorder::Recorder;
use crate::status::{self, Sources};
use crate::tell::Teller;

/// Feeds the machine, and tells what it says.
pub struct Feed {
    /// What the cluster and the files say.
    pub source: Source,
    /// What follows from it for the machine; shared with whoever answers questions.
    pub compiler: Arc<RwLock<Compiler>>,
    /// The machine.
    pub control: Control,
    /// What the machine says; ends with it.
    pub reports: mpsc::Receiver<Report>,
    /// Tells it on.
    pub teller: Teller,
    /// Writes down who announces what.
    pub recorder: Recorder,
    /// Raised once the machine knows what the cluster says.
    pub configured: Flag,
    /// Metrics.
    pub metrics: Metrics,
    /// The nodes that had a speaker when the machine was last told.
    pub speakers: BTreeSet<NodeName>,
    /// What is told about the machine.
    pub sources: Sources,
    /// What people want to see.
    pub questions: Questions,
}

/// What `/debug` tells.
pub const SUBJECTS: [&str; 2] = ["snapshot", "assignment"];

impl Feed {
    /// Runs until the machine has ended.
    ///
    /// # Errors
    /// Never: with the API server away it goes on with what is known.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut waiting = Dirty::default();
        loop {
            tokio::select! {
                // Cancel-safe: none loses anything.
                report = self.reports.recv() => match report {
                    Some(report) => self.tell(report),
                    None => return Ok(()),
                },
                () = self.recorder.until_due() => self.record().await,
                question = self.questions.next() => self.answer(question),
                update = self.source.changed() => {
                    waiting.merge(update.dirty);
                    // A part of the truth would take addresses from nodes.
                    if update.synced {
                        self.sync(&std::mem::take(&mut waiting));
                    }
                }
            }
        }
    }

    fn answer(&self, question: Question) {
        if question.subject() != "assignment" {
            return question.answer(self.source.snapshot());
        }
        let sources = self.sources.clone();
        // The machine answers when it has time; what comes in meanwhile need not wait.
        tokio::spawn(async move {
            if let Ok(status) = status::look(&sources, None).await {
                question.answer(status);
            }
        });
    }

    fn sync(&mut self, dirty: &Dirty) {
        let mut compiler = self
            .compiler
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = compiler.sync(self.source.snapshot(), dirty);
        if !changed && self.configured.is_raised() {
            return;
        }
        let configuration = compiler.configuration();
        let count = configuration.vips.len();
        // A node that is no more is not silent.
        for gone in self.speakers.difference(&configuration.speakers) {
            self.metrics.peers.remove(&Peer::from(gone));
        }
        self.speakers.clone_from(&configuration.speakers);
        let scope = compiler.scope().clone();
        drop(compiler);
        tracing::debug!(count, "Addresses to announce");
        self.metrics
            .addresses
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        if self
            .control
            .tell(Command::Configure(configuration, scope))
            .is_ok()
        {
            self.configured.raise();
        }
        self.recorder.touch();
    }

    async fn record(&mut self) {
        let snapshot = self.source.snapshot();
        let compiler = Arc::clone(&self.compiler);
        let services = |vip| {
            let compiler = compiler.read().unwrap_or_else(PoisonError::into_inner);
            let services = compiler
                .services_of(vip)
                .filter_map(|key| snapshot.service(key));
            services
                .map(|service| (service.key.clone(), service.uid.to_string()))
                .collect()
        };
        // If the machine has ended, its reports end too.
        let _ = self.recorder.look(services).await;
    }

    fn tell(&mut self, report: Report) {
        if let Report::Event(event, _) = &report {
            self.recorder.note(event);
        }
        let compiler = self.compiler.read().unwrap_or_else(PoisonError::into_inner);
        self.teller.tell(report, &compiler, self.source.snapshot());
    }
}
