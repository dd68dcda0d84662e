//! The IPVS data plane, put to the seam.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use config::scheduler::Scheduler;
use config_runtime::chain::Chain;
use proxy::arguments::Arguments;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent, sent};
use proxy_ipvs::{Command, KernelError, Timeouts};
use proxy_table::{ForwardingTable, TableChange};

/// IPVS of this network namespace, and the rules before it.
#[derive(Debug)]
pub(crate) struct Ipvs {
    plane: proxy_ipvs::Ipvs,
    /// Schedulers of which the log has that they are missing.
    said: BTreeSet<Scheduler>,
    /// What the log has of what the kernel refused.
    said_refused: BTreeSet<Command>,
}

impl Ipvs {
    /// Opens it; nothing is changed, but the module of IPVS may be loaded.
    pub(crate) fn open(arguments: &Arguments) -> Result<Self, KernelError> {
        let timeouts = Timeouts {
            tcp: arguments.ipvs_tcp_timeout,
            tcp_fin: arguments.ipvs_tcpfin_timeout,
            udp: arguments.ipvs_udp_timeout,
        };
        Ok(Self {
            plane: proxy_ipvs::Ipvs::open(arguments.ipvs_scheduler, timeouts)?,
            said: BTreeSet::new(),
            said_refused: BTreeSet::new(),
        })
    }

    fn say_what_is_missing(&mut self) {
        let missing = self.plane.missing_schedulers();
        for scheduler in missing.difference(&self.said) {
            tracing::warn!(
                %scheduler,
                "The kernel has no such scheduler of IPVS: Services that name it are served by --ipvs-scheduler. \
                 Load the module ip_vs_{scheduler}"
            );
        }
        self.said.clone_from(missing);
        self.say_what_is_refused();
    }

    fn say_what_is_refused(&mut self) {
        let refused = self.plane.refused().iter();
        let mut news = refused.filter(|(step, _)| !self.said_refused.contains(step));
        for (_, refusal) in news.by_ref().take(MOST_SAID) {
            tracing::warn!(
                error = %Chain(refusal),
                "The kernel refused a part of what IPVS should hold: the rest is served"
            );
        }
        let count = news.count();
        if count > 0 {
            tracing::warn!(
                count,
                "The kernel refused more of the same: /debug tells all"
            );
        }
        let steps = self.plane.refused().iter().map(|(step, _)| step.clone());
        self.said_refused = steps.collect();
    }
}

impl DataPlane for Ipvs {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        let outcome = self.plane.settle(table, Instant::now());
        self.say_what_is_missing();
        sent(outcome)
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        let outcome = self.plane.update(table, changes, Instant::now());
        self.say_what_is_missing();
        sent(outcome)
    }

    fn forwards(&self, address: IpAddr) -> bool {
        self.plane.forwards(address)
    }

    fn is_intact(&mut self) -> bool {
        let now = Instant::now();
        if let Err(error) = self.plane.let_go(now) {
            tracing::warn!(error = %Chain(&error), "Endpoints without connections were not removed");
            return false;
        }
        !self.plane.is_disturbed(now)
    }

    fn describe(&self, table: &ForwardingTable) -> Description {
        self.plane.describe(table)
    }
}

/// How many refusals the log has one by one: a kernel without IPv6 in IPVS refuses every server of it.
const MOST_SAID: usize = 20;
