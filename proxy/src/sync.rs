//! The loop: changes in, jobs out, one at a time; what arrives during one is the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::name::{NodeName, ServiceKey};
use config::snapshot::Snapshot;
use config_runtime::chain::Chain;
use config_runtime::debug::{Question, Questions};
use config_runtime::source::{Source, Update};
use futures::future::Either;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::conntrack::Cleaner;
use crate::data_plane::DataPlane;
use crate::health_check::Notice;
use crate::metrics::Metrics;
use crate::moved::{Goal, goals};
use crate::pending::Pending;
use crate::programmed::Programmed;
use crate::speaker_socket::Said;
use crate::status::Status;
use crate::surroundings::Settings;
use crate::work::{Done, Job, Worker};

/// What `/debug` tells.
pub const SUBJECTS: [&str; 3] = ["snapshot", "table", "program"];

/// Everything that the loop hears, and everybody whom it tells.
#[derive(Debug)]
pub struct Sync<P> {
    /// What was asked for.
    pub settings: Settings,
    /// The machine's addresses.
    pub addresses: watch::Receiver<BTreeSet<IpAddr>>,
    /// What the speaker says.
    pub said: watch::Receiver<Said>,
    /// Where goes for which VIPs segments are to be sent on, and to which node.
    pub goals: watch::Sender<BTreeMap<IpAddr, Goal>>,
    /// Who does the jobs.
    pub worker: Worker<P>,
    /// Which addresses nodes may announce, for the speaker; nothing until the kernel has held everything once.
    pub programmed: watch::Sender<Option<Programmed>>,
    /// Who ends stale connections, if that is possible here.
    pub cleaner: Option<Cleaner>,
    /// Who answers health checks.
    pub health_checks: mpsc::UnboundedSender<Notice>,
    /// What others ask for.
    pub status: Arc<Status>,
    /// What is counted.
    pub metrics: Metrics,
    /// What people want to see of all this.
    pub questions: Questions,
}

impl<P: DataPlane> Sync<P> {
    /// Syncs with what the cluster says until `stop`. Nothing reaches the kernel before everything is known, and the rules
    /// stay when it ends.
    ///
    /// Small jobs are done in place, so its thread should be nobody else's.
    pub async fn run(self, mut source: Source, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            settings,
            mut addresses,
            mut said,
            goals: told_goals,
            worker,
            programmed,
            cleaner,
            health_checks,
            status,
            metrics,
            mut questions,
        } = self;
        let first = tokio::select! {
            update = source.synced() => update,
            () = stop.cancelled() => return Ok(()),
        };
        tracing::info!("Everything is known: syncing");
        let node_name = settings.node_name.clone();
        if source.snapshot().node(&node_name).is_none() {
            tracing::warn!(node = %node_name, "Node object does not exist: NodePorts are not offered, and no endpoint counts as local");
        }
        let mut pending = Pending::new(settings);
        pending.handle_addresses(addresses.borrow_and_update().clone());
        let mut heard = said.borrow_and_update().clone();
        pending.handle_silent(heard.silent.clone(), source.snapshot());
        let mut reports = Reports {
            node_name,
            programmed,
            cleaner,
            health_checks,
            status,
            metrics,
            seen_changes: HashMap::new(),
            triggers: Vec::new(),
            started: Timestamp::now(),
        };
        reports.heard(&first, source.snapshot());
        pending.handle_change(first.dirty);
        let mut workplace = Workplace::Idle(Box::new(worker));
        let mut goals_touched = true;
        let mut failures = Failures::default();
        let mut audit = every(AUDIT_INTERVAL);
        let mut look = every(LOOK_INTERVAL);
        loop {
            workplace = match workplace {
                Workplace::Idle(worker) if failures.may_try() => {
                    match pending.take(source.snapshot()) {
                        Some(job) => Workplace::begin(worker, job, &mut reports),
                        None => Workplace::Idle(worker),
                    }
                }
                other => other,
            };
            reports.waiting(pending.services());
            if std::mem::take(&mut goals_touched) {
                let found = goals(&heard, source.snapshot());
                told_goals.send_if_modified(|held| {
                    let changed = *held != found;
                    *held = found;
                    changed
                });
            }
            // Every branch is cancel-safe: what a future took in it returns in the same poll.
            tokio::select! {
                update = source.changed() => {
                    reports.heard(&update, source.snapshot());
                    goals_touched |= !update.dirty.nodes.is_empty();
                    pending.handle_change(update.dirty);
                }
                Ok(()) = addresses.changed() => {
                    pending.handle_addresses(addresses.borrow_and_update().clone());
                }
                Ok(()) = said.changed() => {
                    let before = std::mem::replace(&mut heard, said.borrow_and_update().clone());
                    if before.silent != heard.silent {
                        pending.handle_silent(heard.silent.clone(), source.snapshot());
                    }
                    goals_touched = true;
                }
                (worker, begun, done) = workplace.end() => {
                    workplace = Workplace::Idle(worker);
                    match reports.done(begun, done) {
                        Ok(()) => failures = Failures::default(),
                        Err(Refused) => {
                            failures.add();
                            pending.handle_failure();
                        }
                    }
                }
                () = failures.wait() => failures.let_try(),
                _ = audit.tick() => {
                    pending.handle_audit(source.snapshot());
                }
                _ = look.tick() => {
                    if let Workplace::Idle(worker) = &mut workplace
                        && !worker.look()
                    {
                        tracing::warn!("Somebody else changed or removed our rules: reading them back");
                        reports.metrics.drifts.inc();
                        pending.handle_failure();
                    }
                }
                question = questions.next(), if workplace.is_idle() => {
                    workplace.answer(question, source.snapshot());
                }
                () = stop.cancelled() => break,
            }
        }
        if let Workplace::Busy(..) = workplace {
            workplace.end().await;
        }
        Ok(())
    }
}

/// A worker at rest, or one that works: at once if the job is brief, else on a thread that may block.
enum Workplace<P> {
    Idle(Box<Worker<P>>),
    Busy(Begun, Working<P>),
}

type Ended<P> = Box<(Box<Worker<P>>, Done)>;
type Working<P> = Either<Ready<Result<Ended<P>, JoinError>>, JoinHandle<Ended<P>>>;

/// A job that was begun.
#[derive(Clone, Debug)]
struct Begun {
    at: Instant,
    context_addresses: Option<BTreeSet<IpAddr>>,
}

impl<P: DataPlane> Workplace<P> {
    fn begin(mut worker: Box<Worker<P>>, job: Job, reports: &mut Reports) -> Self {
        let context = job.context.as_ref();
        let begun = Begun {
            at: Instant::now(),
            context_addresses: context.map(|context| context.node_port_addresses.clone()),
        };
        reports.handle_triggers(&job);
        let is_brief = job.is_brief();
        let work = move || {
            let done = worker.run(job);
            Box::new((worker, done))
        };
        let working = if is_brief {
            Either::Left(ready(Ok(work())))
        } else {
            Either::Right(tokio::task::spawn_blocking(work))
        };
        Self::Busy(begun, working)
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// Tells what a worker at rest holds.
    fn answer(&self, question: Question, snapshot: &Snapshot) {
        let Self::Idle(worker) = self else {
            return;
        };
        match question.subject() {
            "table" => question.answer(worker.table()),
            "program" => question.answer(worker.describe()),
            _ => question.answer(snapshot),
        }
    }

    /// Waits until the job is done; for ever if there is none.
    async fn end(&mut self) -> (Box<Worker<P>>, Begun, Done) {
        match self {
            Self::Idle(_) => std::future::pending().await,
            Self::Busy(begun, working) => match working.await {
                Ok(ended) => {
                    let (worker, done) = *ended;
                    (worker, begun.clone(), done)
                }
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down.
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}

/// When to try again after the kernel refused.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    retry: Option<Instant>,
}

impl Failures {
    fn add(&mut self) {
        let delay = FIRST_RETRY.saturating_mul(1 << self.count.min(10));
        self.count += 1;
        self.retry = Some(Instant::now() + delay.min(LONGEST_RETRY));
    }

    fn may_try(&self) -> bool {
        self.retry.is_none()
    }

    async fn wait(&self) {
        match self.retry {
            Some(retry) => tokio::time::sleep_until(retry).await,
            None => std::future::pending().await,
        }
    }

    fn let_try(&mut self) {
        self.retry = None;
    }
}

/// The kernel refused; it is logged already.
struct Refused;

/// Those who hear what became of the jobs.
struct Reports {
    node_name: NodeName,
    programmed: watch::Sender<Option<Programmed>>,
    cleaner: Option<Cleaner>,
    health_checks: mpsc::UnboundedSender<Notice>,
    status: Arc<Status>,
    metrics: Metrics,
    /// The last change of endpoints that was counted, for each Service of the last minutes.
    seen_changes: HashMap<ServiceKey, i64>,
    /// When the endpoints changed that wait for the kernel, in milliseconds since 1970.
    triggers: Vec<i64>,
    started: Timestamp,
}

impl Reports {
    fn heard(&self, update: &Update, snapshot: &Snapshot) {
        let now = std::time::Instant::now();
        let count = u64::try_from(update.dirty.services.len()).unwrap_or(u64::MAX);
        if count > 0 || update.dirty.service_cidrs {
            self.status.handle_change(now);
            self.metrics.last_queued.set(seconds_now());
        }
        self.metrics.service_changes.inc_by(count);
        self.metrics.endpoint_changes.inc_by(count);
        if update.dirty.nodes.contains(&self.node_name) || update.synced {
            let node = snapshot.node(&self.node_name);
            self.status
                .handle_node(node.is_some_and(|node| node.being_deleted), now);
        }
    }

    fn waiting(&self, services: usize) {
        let count = i64::try_from(services).unwrap_or(i64::MAX);
        self.metrics.service_changes_pending.set(count);
        self.metrics.endpoint_changes_pending.set(count);
    }

    /// Changes of endpoints that the job brings to the kernel for the first time.
    fn handle_triggers(&mut self, job: &Job) {
        for (key, workload) in &job.services {
            let slices = workload.iter().flat_map(|workload| &workload.slices);
            let Some(latest) = slices
                .filter_map(|slice| slice.last_change_milliseconds)
                .max()
            else {
                continue;
            };
            let is_new = latest > self.started.as_millisecond()
                && self.seen_changes.get(key).is_none_or(|&seen| seen < latest);
            if is_new {
                self.seen_changes.insert(key.clone(), latest);
                self.triggers.push(latest);
            }
        }
        if self.seen_changes.len() > SEEN_CHANGES {
            let oldest = Timestamp::now().as_millisecond() - SEEN_MILLISECONDS;
            self.seen_changes.retain(|_, seen| *seen > oldest);
        }
    }

    fn done(&mut self, begun: Begun, done: Done) -> Result<(), Refused> {
        let took = begun.at.elapsed().as_secs_f64();
        self.metrics.sync.observe(took);
        let kind = if done.whole {
            &self.metrics.full_sync
        } else {
            &self.metrics.partial_sync
        };
        kind.observe(took);
        if let Some(addresses) = begun.context_addresses {
            tracing::info!(?addresses, "NodePorts are offered on the node's addresses");
            self.tell(Notice::Addresses(addresses));
        }
        for (service, check) in done.health_checks {
            self.tell(Notice::Service(service, check));
        }
        for conflict in &done.conflicts {
            tracing::warn!(service = %conflict.service, reason = %conflict, "Frontend not served");
        }
        self.metrics.set_without_local(done.without_local);
        let count = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        self.metrics.services.set(count(done.size.0));
        self.metrics.frontends.set(count(done.size.1));
        if done.drifted {
            self.metrics.drifts.inc();
        }
        match done.sent {
            Ok(sent) => {
                self.programmed.send_if_modified(|held| {
                    let is_first = held.is_none();
                    let programmed = held.get_or_insert_default();
                    programmed.apply(done.announceable) || is_first
                });
                self.status
                    .handle_synced(begun.at.into_std(), std::time::Instant::now());
                self.metrics.last_sync.set(seconds_now());
                let now = Timestamp::now().as_millisecond();
                for trigger in self.triggers.drain(..) {
                    let waited = Duration::from_millis(u64::try_from(now - trigger).unwrap_or(0));
                    self.metrics
                        .network_programming
                        .observe(waited.as_secs_f64());
                }
                tracing::debug!(
                    seconds = took,
                    whole = done.whole,
                    changed = sent.anything,
                    "Synced"
                );
                if let Some(cleaner) = &self.cleaner {
                    cleaner.ask(done.expected);
                }
                Ok(())
            }
            Err(error) => {
                self.metrics.sync_failures.inc();
                tracing::error!(error = %Chain(&error), "Sync failed: reading the kernel back");
                Err(Refused)
            }
        }
    }

    fn tell(&self, notice: Notice) {
        if self.health_checks.send(notice).is_err() {
            tracing::error!("Health checks are not answered any more");
        }
    }
}

/// The first time after one interval.
fn every(interval: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn seconds_now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

/// How often the kernel is read back and compared although nothing went wrong.
const AUDIT_INTERVAL: Duration = Duration::from_secs(300);
/// How often we ask whether somebody else has changed or removed the rules.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const SEEN_CHANGES: usize = 4096;
const SEEN_MILLISECONDS: i64 = 600_000;
