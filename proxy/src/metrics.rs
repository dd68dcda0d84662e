//! Metrics, under kube-proxy's names where they exist.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use crate::mode::Mode;
use crate::work::WithoutLocal;

/// All metrics of the proxy.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds that a sync took, whichever kind.
    pub sync: Histogram,
    /// Seconds that a sync took that compared the kernel as a whole.
    pub full_sync: Histogram,
    /// Seconds that a sync took that sent what changed.
    pub partial_sync: Histogram,
    /// Seconds from a change of endpoints, as its controller noted it, to the kernel.
    pub network_programming: Histogram,
    /// Services that changed.
    pub service_changes: Counter,
    /// Services that wait for the next sync.
    pub service_changes_pending: Gauge,
    /// Services whose endpoints changed.
    pub endpoint_changes: Counter,
    /// Services whose endpoints wait for the next sync.
    pub endpoint_changes_pending: Gauge,
    /// When the last sync ended, in seconds since 1970.
    pub last_sync: Gauge<f64, AtomicU64>,
    /// When the last change came, in seconds since 1970.
    pub last_queued: Gauge<f64, AtomicU64>,
    /// Syncs that the kernel refused.
    pub sync_failures: Counter,
    /// Syncs of what changed that iptables refused; the whole was compared then.
    pub iptables_partial_failures: Counter,
    /// Rules of ours in iptables.
    pub iptables_rules: Family<Rules, Gauge>,
    /// Rules that the last sync wrote into iptables.
    pub iptables_written: Family<Rules, Gauge>,
    /// Comparisons that found the kernel different from what was sent before.
    pub drifts: Counter,
    /// Answers of `/healthz`, by status code.
    pub healthz: Family<Code, Counter>,
    /// Answers of `/livez`, by status code.
    pub livez: Family<Code, Counter>,
    /// Tracked connections that were ended because their endpoint is gone.
    pub conntrack_deleted: Counter,
    /// Services in the table.
    pub services: Gauge,
    /// Frontends in the table.
    pub frontends: Gauge,
    without_local: Family<Policy, Gauge>,
}

/// The label `code`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Code {
    /// HTTP status code.
    pub code: u16,
}

/// The labels of a table of iptables.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Rules {
    /// `filter` or `nat`.
    pub table: &'static str,
    /// `IPv4` or `IPv6`.
    pub ip_family: String,
}

/// The label `traffic_policy`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Policy {
    traffic_policy: &'static str,
}

impl Metrics {
    /// Metrics that are counted from now on, shown by `registry`; some have names that only kube-proxy in this mode has.
    pub fn register(registry: &mut Registry, mode: Mode) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        let metrics = Self {
            sync: seconds(),
            full_sync: seconds(),
            partial_sync: seconds(),
            network_programming: seconds(),
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            sync_failures: Counter::default(),
            iptables_partial_failures: Counter::default(),
            iptables_rules: Family::default(),
            iptables_written: Family::default(),
            drifts: Counter::default(),
            healthz: Family::default(),
            livez: Family::default(),
            conntrack_deleted: Counter::default(),
            services: Gauge::default(),
            frontends: Gauge::default(),
            without_local: Family::default(),
        };
        let of_kube_proxy = registry.sub_registry_with_prefix("kubeproxy");
        metrics.show_as_kube_proxy(of_kube_proxy);
        metrics.show_as_kube_proxy_in(mode, of_kube_proxy);
        let ours = registry.sub_registry_with_prefix("foghorn_proxy");
        ours.register(
            "services",
            "Services in the table",
            metrics.services.clone(),
        );
        ours.register(
            "frontends",
            "Frontends in the table",
            metrics.frontends.clone(),
        );
        ours.register(
            "drifts",
            "Comparisons that found the kernel different from what was sent before",
            metrics.drifts.clone(),
        );
        ours.register(
            "sync_failures",
            "Syncs that the kernel refused",
            metrics.sync_failures.clone(),
        );
        metrics
    }

    fn show_as_kube_proxy(&self, registry: &mut Registry) {
        for (name, help, histogram) in [
            (
                "sync_proxy_rules_duration",
                "Duration of a sync of either kind",
                &self.sync,
            ),
            (
                "sync_full_proxy_rules_duration",
                "Duration of a sync that compared everything",
                &self.full_sync,
            ),
            (
                "sync_partial_proxy_rules_duration",
                "Duration of a sync that sent what changed",
                &self.partial_sync,
            ),
            (
                "network_programming_duration",
                "From the change of endpoints to the kernel",
                &self.network_programming,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        for (name, help, counter) in [
            (
                "sync_proxy_rules_service_changes",
                "Services that changed",
                &self.service_changes,
            ),
            (
                "sync_proxy_rules_endpoint_changes",
                "Services whose endpoints changed",
                &self.endpoint_changes,
            ),
            (
                "conntrack_reconciler_deleted_entries",
                "Tracked connections ended for a lost endpoint",
                &self.conntrack_deleted,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            (
                "sync_proxy_rules_service_changes_pending",
                "Services that wait for the next sync",
                &self.service_changes_pending,
            ),
            (
                "sync_proxy_rules_endpoint_changes_pending",
                "Services whose endpoints wait for the next sync",
                &self.endpoint_changes_pending,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in [
            (
                "sync_proxy_rules_last_timestamp",
                "When the last sync ended",
                &self.last_sync,
            ),
            (
                "sync_proxy_rules_last_queued_timestamp",
                "When the last change came",
                &self.last_queued,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        }
        for (name, help, family) in [
            ("proxy_healthz", "Answers of /healthz", &self.healthz),
            ("proxy_livez", "Answers of /livez", &self.livez),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Services with the policy Local and no endpoint on this node",
            self.without_local.clone(),
        );
    }

    /// What kube-proxy counts in one of its modes alone.
    fn show_as_kube_proxy_in(&self, mode: Mode, registry: &mut Registry) {
        let failures = match mode {
            Mode::Auto | Mode::Nftables => "sync_proxy_rules_nftables_sync_failures",
            Mode::Iptables | Mode::Ipvs => "sync_proxy_rules_iptables_restore_failures",
        };
        registry.register(
            failures,
            "The same as foghorn_proxy_sync_failures_total",
            self.sync_failures.clone(),
        );
        if mode != Mode::Iptables {
            return;
        }
        registry.register(
            "sync_proxy_rules_iptables_partial_restore_failures",
            "Syncs of what changed that iptables refused: the whole is compared then",
            self.iptables_partial_failures.clone(),
        );
        for (name, help, family) in [
            (
                "sync_proxy_rules_iptables_total",
                "Rules of ours in iptables",
                &self.iptables_rules,
            ),
            (
                "sync_proxy_rules_iptables_last",
                "Rules that the last sync wrote into iptables",
                &self.iptables_written,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    /// How many Services have the policy Local and no endpoint on this node.
    pub fn set_without_local(&self, count: WithoutLocal) {
        for (traffic_policy, count) in [("internal", count.internal), ("external", count.external)]
        {
            let policy = Policy { traffic_policy };
            self.without_local.get_or_create(&policy).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scrape finds in a mode.
    fn scraped(mode: Mode) -> String {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, mode);
        metrics.healthz.get_or_create(&Code { code: 200 }).inc();
        metrics.set_without_local(WithoutLocal {
            internal: 1,
            external: 2,
        });
        let rules = Rules {
            table: "nat",
            ip_family: "IPv6".to_owned(),
        };
        metrics.iptables_rules.get_or_create(&rules).set(7);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn dashboards_made_for_kube_proxy_find_their_names() {
        let text = scraped(Mode::Nftables);
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 0",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 0",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 0",
            "kubeproxy_network_programming_duration_seconds_count 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds 0.0",
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds 0.0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn what_kube_proxy_counts_in_one_mode_is_counted_in_that_mode() {
        let failures_of_nftables = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total 0";
        let failures_of_iptables = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total 0";
        let partial = "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total 0";
        let rules = "kubeproxy_sync_proxy_rules_iptables_total{table=\"nat\",ip_family=\"IPv6\"} 7";
        let all = [failures_of_nftables, failures_of_iptables, partial, rules];
        for (mode, expected) in [
            (Mode::Nftables, &[failures_of_nftables][..]),
            (Mode::Iptables, &[failures_of_iptables, partial, rules]),
            (Mode::Ipvs, &[failures_of_iptables]),
        ] {
            let text = scraped(mode);
            let found = all
                .into_iter()
                .filter(|line| text.lines().any(|found| found == *line));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{mode:?}");
            assert!(
                text.contains("foghorn_proxy_sync_failures_total 0"),
                "{mode:?}"
            );
        }
    }
}
