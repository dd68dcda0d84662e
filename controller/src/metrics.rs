//! The metrics of the controller.

use std::sync::atomic::AtomicU64;

use controller_allocator::{Allocator, FamilyUsage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The metrics of the controller; cheap to copy.
#[derive(Clone, Debug)]
pub struct Metrics {
    in_use: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    total: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    pending: Family<ReasonLabels, Gauge>,
    contested: Gauge,
    leading: Gauge,
    queue: Gauge,
    writes: Family<ResultLabels, Counter>,
    write_seconds: Histogram,
    settle_seconds: Histogram,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PoolLabels {
    pool: String,
    family: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

/// What became of the write of a status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteResult {
    /// It was written.
    Written,
    /// The Service had changed meanwhile.
    Stale,
    /// The Service was gone.
    Gone,
    /// This replica did not lead any more.
    NotLeading,
    /// The API server could not be asked, or refused.
    Failed,
}

impl WriteResult {
    const ALL: [Self; 5] = [
        Self::Written,
        Self::Stale,
        Self::Gone,
        Self::NotLeading,
        Self::Failed,
    ];

    const fn labels(self) -> ResultLabels {
        ResultLabels {
            result: match self {
                Self::Written => "written",
                Self::Stale => "stale",
                Self::Gone => "gone",
                Self::NotLeading => "not_leading",
                Self::Failed => "failed",
            },
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            in_use: Family::default(),
            total: Family::default(),
            pending: Family::default(),
            contested: Gauge::default(),
            leading: Gauge::default(),
            queue: Gauge::default(),
            writes: Family::default(),
            write_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            settle_seconds: Histogram::new(exponential_buckets(0.000_05, 4.0, 10)),
        };
        // From 0 on: who looks for an increase does not see a counter that appears with 1.
        for result in WriteResult::ALL {
            drop(metrics.writes.get_or_create(&result.labels()));
        }
        let registry = registry.sub_registry_with_prefix("foghorn");
        registry.register(
            "allocator_addresses_in_use",
            "Addresses that Services hold",
            metrics.in_use.clone(),
        );
        registry.register(
            "allocator_addresses_total",
            "Addresses that the pool may give, held ones included",
            metrics.total.clone(),
        );
        registry.register(
            "controller_services_pending",
            "Services that lack something they asked for",
            metrics.pending.clone(),
        );
        registry.register(
            "controller_services_contested",
            "Services whose status somebody else keeps changing",
            metrics.contested.clone(),
        );
        registry.register(
            "controller_leading",
            "Whether this replica leads",
            metrics.leading.clone(),
        );
        registry.register(
            "controller_writes_pending",
            "Statuses that wait to be written",
            metrics.queue.clone(),
        );
        registry.register(
            "controller_writes",
            "Statuses that were to be written, by what became of them",
            metrics.writes.clone(),
        );
        registry.register(
            "controller_write_duration_seconds",
            "Time until the API server answered a write",
            metrics.write_seconds.clone(),
        );
        registry.register(
            "allocator_settle_duration_seconds",
            "Time to decide everything that was open",
            metrics.settle_seconds.clone(),
        );
        metrics
    }

    /// A write was answered.
    pub fn count_write(&self, result: WriteResult, seconds: f64) {
        self.writes.get_or_create(&result.labels()).inc();
        self.write_seconds.observe(seconds);
    }

    /// Everything that was open was decided.
    pub fn observe_settle(&self, seconds: f64) {
        self.settle_seconds.observe(seconds);
    }

    /// This replica leads, or does not.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// How many statuses wait to be written, and how many are contested.
    pub fn set_queue(&self, pending: usize, contested: usize) {
        self.queue.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.contested
            .set(i64::try_from(contested).unwrap_or(i64::MAX));
    }

    /// How full the pools are, and who lacks something for which reason.
    pub fn set_allocation(&self, allocator: &Allocator) {
        self.in_use.clear();
        self.total.clear();
        for (pool, usage) in allocator.usage() {
            for (family, usage) in [("IPv4", usage.v4), ("IPv6", usage.v6)] {
                let FamilyUsage {
                    total, assigned, ..
                } = usage;
                if total == 0 && assigned == 0 {
                    continue;
                }
                let labels = PoolLabels {
                    pool: pool.to_string(),
                    family,
                };
                self.in_use.get_or_create(&labels).set(rounded(assigned));
                self.total.get_or_create(&labels).set(rounded(total));
            }
        }
        self.pending.clear();
        for service in allocator.lacking() {
            let decision = allocator.decision(service);
            let rejection = decision.and_then(|decision| decision.rejection.as_ref());
            let reason = rejection.map_or("Refused", |rejection| rejection.reason());
            self.pending.get_or_create(&ReasonLabels { reason }).inc();
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; an IPv6 pool is rounded"
)]
fn rounded(count: u128) -> f64 {
    count as f64
}
