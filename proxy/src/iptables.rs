//! The iptables data plane, put to the seam.

use std::net::IpAddr;

use config_runtime::chain::Chain;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent, sent};
use proxy::metrics::{Metrics, Rules};
use proxy_iptables::{Backend, Found, KernelError};
use proxy_table::{ForwardingTable, TableChange};

/// The iptables of this network namespace.
#[derive(Debug)]
pub(crate) struct Iptables {
    plane: proxy_iptables::Iptables,
    metrics: Option<Metrics>,
    /// What was said of IPv6.
    said: Option<String>,
}

impl Iptables {
    /// Finds it; nothing is changed.
    pub(crate) fn open(
        backend: Option<Backend>,
        mark: proxy_iptables::Mark,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            plane: proxy_iptables::Iptables::open(backend, mark)?,
            metrics: None,
            said: None,
        })
    }

    /// The back end, and how it was found.
    pub(crate) fn found(&self) -> &Found {
        self.plane.found()
    }

    /// Counts rules there from now on.
    pub(crate) fn count_in(&mut self, metrics: &Metrics) {
        self.metrics = Some(metrics.clone());
    }

    /// Once, and again if it is something else.
    fn say_what_is_lacking(&mut self) {
        let lacks = self.plane.lacks_ipv6();
        let lacks = lacks.map(|lacks| Chain(lacks).to_string());
        if lacks == self.said {
            return;
        }
        match &lacks {
            Some(reason) => tracing::warn!(reason, "IPv4 is served alone"),
            None => tracing::info!("IPv6 is served too"),
        }
        self.said = lacks;
    }

    fn count(&self) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        for rules in self.plane.rule_counts() {
            let labels = Rules {
                table: rules.table.name(),
                ip_family: rules.family.to_string(),
            };
            for (family, count) in [
                (&metrics.iptables_rules, rules.held),
                (&metrics.iptables_written, rules.written),
            ] {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                family.get_or_create(&labels).set(count);
            }
        }
    }
}

impl DataPlane for Iptables {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        let outcome = self.plane.settle(table);
        self.say_what_is_lacking();
        self.count();
        sent(outcome)
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        let outcome = self.plane.update(table, changes);
        if let (Some(metrics), Err(_)) = (&self.metrics, &outcome) {
            metrics.iptables_partial_failures.inc();
        }
        self.count();
        sent(outcome)
    }

    fn forwards(&self, address: IpAddr) -> bool {
        self.plane.forwards(address)
    }

    fn is_intact(&mut self) -> bool {
        !self.plane.is_disturbed()
    }

    fn describe(&self, table: &ForwardingTable) -> Description {
        self.plane.describe(table)
    }
}
