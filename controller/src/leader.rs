//! What the leader does: watch Services, let the allocator decide, write.

mod observing;
mod records;
mod telling;
mod writing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use config::name::ServiceKey;
use config_runtime::debug::Questions;
use config_runtime::events::Events;
use config_runtime::lease::Leadership;
use config_runtime::server::Flag;
use config_runtime::source::{Source, Update};
use controller_allocator::{Allocator, Classes, Context, Hold};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::records::Records;
use self::writing::{Statuses, StatusesWritten, Written, read_holds};
use crate::contention::Contention;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::writes::Writes;

/// A replica of the controller.
pub struct Replica {
    /// Client of the API server.
    pub client: Client,
    /// Pools, namespaces, nodes.
    pub source: Source,
    /// Which Services to serve.
    pub classes: Classes,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// Where to tell Events.
    pub events: Events,
    /// Where to count.
    pub metrics: Metrics,
    /// Raised once this replica could lead.
    pub ready: Flag,
    /// What people want to see of all this.
    pub questions: Questions,
}

/// What `/debug` tells.
pub const SUBJECTS: [&str; 2] = ["snapshot", "assignment"];

/// How long the statuses of pools may lag behind.
const POOL_DELAY: Duration = Duration::from_millis(500);
impl Replica {
    /// Follows until elected, then leads until deposed, and so on until `stopping`.
    ///
    /// # Errors
    /// None so far.
    pub async fn run(mut self, stopping: CancellationToken) -> anyhow::Result<()> {
        loop {
            // Cancel-safe: `changed` keeps what it took in, and a follower keeps nothing else.
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                _ = self.source.changed() => {
                    if self.source.is_synced() {
                        self.ready.raise();
                    }
                }
                question = self.questions.next() => match question.subject() {
                    "assignment" => question.answer("this replica does not lead: ask the other one"),
                    _ => question.answer(self.source.snapshot()),
                },
                () = self.leadership.elected() => {
                    self.metrics.set_leading(true);
                    Reign::begin(&mut self).run(&stopping).await;
                    self.metrics.set_leading(false);
                }
            }
        }
    }
}

/// The time from an election to the end of the leadership. Nothing of it outlives it.
struct Reign<'a> {
    replica: &'a mut Replica,
    services: BoxStream<'static, Result<WatchEvent<api::Service>, watcher::Error>>,
    /// Services seen by the list that is under way; the others are gone when it is done.
    listing: HashSet<ServiceKey>,
    listed: bool,
    watch_failing: bool,
    /// What speakers say about the addresses of Services.
    records: Records,
    allocator: Allocator,
    /// The addresses of Services that are of other classes.
    others: BTreeMap<ServiceKey, Vec<IpAddr>>,
    others_touched: bool,
    /// The Services that are ours, or were.
    book: HashMap<ServiceKey, Observed>,
    writes: Writes,
    contention: Contention,
    in_flight: JoinSet<Written>,
    statuses: Option<Statuses>,
    pools_due: Option<Instant>,
    pools_in_flight: JoinSet<StatusesWritten>,
    /// What the statuses of pools say about deleted Services, while it is read.
    holds_in_flight: JoinSet<Vec<Hold>>,
    /// What was read, until it is known which pools there are.
    holds: Option<Vec<Hold>>,
    began: Instant,
    decided: bool,
}

/// All Services from the newest list on.
fn watch_services(
    client: &Client,
) -> BoxStream<'static, Result<WatchEvent<api::Service>, watcher::Error>> {
    let services = Api::<api::Service>::all(client.clone());
    watch(services, watcher::Config::default())
        .default_backoff()
        .boxed()
}

impl<'a> Reign<'a> {
    fn begin(replica: &'a mut Replica) -> Self {
        let services = watch_services(&replica.client);
        let records = Records::watch(&replica.client);
        let mut holds_in_flight = JoinSet::new();
        holds_in_flight.spawn(read_holds(Api::all(replica.client.clone())));
        Self {
            replica,
            services,
            listing: HashSet::new(),
            listed: false,
            watch_failing: false,
            records,
            allocator: Allocator::default(),
            others: BTreeMap::new(),
            others_touched: false,
            book: HashMap::new(),
            writes: Writes::default(),
            contention: Contention::default(),
            in_flight: JoinSet::new(),
            statuses: None,
            pools_due: Some(Instant::now()),
            pools_in_flight: JoinSet::new(),
            holds_in_flight,
            holds: None,
            began: Instant::now(),
            decided: false,
        }
    }

    async fn run(mut self, stopping: &CancellationToken) {
        let leadership = self.replica.leadership.clone();
        self.configure();
        loop {
            let timeout = self.next_timeout();
            // Cancel-safe: every branch takes something in as a whole, or nothing.
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = leadership.deposed() => break,
                Some(written) = self.in_flight.join_next() => self.take_in_write(written.ok()),
                Some(written) = self.pools_in_flight.join_next() => self.take_in_statuses(written.ok()),
                Some(holds) = self.holds_in_flight.join_next() => {
                    self.holds = Some(holds.unwrap_or_default());
                }
                update = self.replica.source.changed() => self.take_in_update(&update),
                Some(event) = self.services.next() => self.take_in_events(event),
                changed = self.records.changed() => {
                    if changed {
                        self.configure();
                    }
                }
                question = self.replica.questions.next() => self.answer(question),
                () = sleep_until(timeout) => {}
            }
            self.advance();
        }
        // What is on its way names the version it was made for: letting it end harms nobody.
        while self.in_flight.join_next().await.is_some() {}
    }

    fn next_timeout(&self) -> Option<Instant> {
        let pools = self
            .pools_due
            .filter(|_| self.is_ready() && self.pools_in_flight.is_empty());
        let writes = self.writes.poll_timeout().filter(|_| self.is_ready());
        let hold = self.allocator.poll_timeout().filter(|_| self.is_ready());
        let hold = hold.map(|until| {
            let left = until.duration_since(Timestamp::now());
            Instant::now() + left.try_into().unwrap_or(Duration::ZERO)
        });
        let records = self.records.poll_timeout();
        [pools, writes, hold, records].into_iter().flatten().min()
    }

    /// Whether everything is known: before, nothing may be decided.
    fn is_ready(&self) -> bool {
        self.listed && self.replica.source.is_synced() && (self.decided || self.holds.is_some())
    }

    fn take_in_update(&mut self, update: &Update) {
        if self.replica.source.is_synced() {
            self.replica.ready.raise();
        }
        if update.dirty.configuration || !update.dirty.nodes.is_empty() {
            self.configure();
        }
        self.pools_due
            .get_or_insert_with(|| Instant::now() + POOL_DELAY);
    }

    fn configure(&mut self) {
        self.others_touched = false;
        let others = self.others.iter();
        let others = others.map(|(service, addresses)| (service, addresses.iter().copied()));
        let context = Context::of(self.replica.source.snapshot());
        let mut context = context.beside(others);
        context.strangers = self.records.strangers();
        self.allocator.configure(context);
    }

    /// Ends the holds whose time is over.
    fn tell_time(&mut self) {
        let first = self.allocator.poll_timeout();
        self.allocator.advance(Timestamp::now());
        if self.allocator.poll_timeout() != first {
            self.pools_due
                .get_or_insert_with(|| Instant::now() + POOL_DELAY);
        }
    }

    /// Decides what is open, then writes what can be written.
    fn advance(&mut self) {
        if !self.is_ready() {
            return;
        }
        let begin = Instant::now();
        if self.records.advance() || self.others_touched {
            self.configure();
        }
        self.tell_time();
        let holds = self.holds.take().into_iter().flatten();
        holds.for_each(|hold| self.allocator.restore(hold));
        let outcomes = self.allocator.settle();
        if !outcomes.is_empty() {
            self.replica
                .metrics
                .observe_settle(begin.elapsed().as_secs_f64());
            self.pools_due.get_or_insert(begin + POOL_DELAY);
        }
        for outcome in &outcomes {
            self.announce(outcome);
            self.writes.request(&outcome.service, begin);
        }
        if !std::mem::replace(&mut self.decided, true) {
            let duration_ms = self.began.elapsed().as_millis();
            tracing::info!(
                count = self.book.len(),
                duration_ms,
                "Adopted what Services hold"
            );
        }
        self.write(Instant::now());
        self.write_pools(Instant::now());
        let contested = self.contention.count(begin);
        self.replica
            .metrics
            .set_queue(self.writes.pending(), contested);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
