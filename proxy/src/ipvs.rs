//! The IPVS data plane, put to the seam.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use config::scheduler::Scheduler;
use config_runtime::chain::Chain;
use proxy::arguments::Arguments;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent, sent};
use proxy_ipvs::{KernelError, Timeouts};
use proxy_table::{ForwardingTable, TableChange};

/// IPVS of this network namespace, and the rules before it.
#[derive(Debug)]
pub(crate) struct Ipvs {
    plane: proxy_ipvs::Ipvs,
    /// Schedulers of which the log has that they are missing.
    said: BTreeSet<Scheduler>,
}

impl Ipvs {
    /// Opens it; nothing is changed, but the module of IPVS may be loaded.
    pub(crate) fn open(arguments: &Arguments) -> Result<Self, KernelError> {
        let timeouts = Timeouts {
            tcp: arguments.ipvs_tcp_timeout.or_else(timeout_of_conntrack),
            tcp_fin: arguments.ipvs_tcpfin_timeout,
            udp: arguments.ipvs_udp_timeout,
        };
        Ok(Self {
            plane: proxy_ipvs::Ipvs::open(arguments.ipvs_scheduler, timeouts)?,
            said: BTreeSet::new(),
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

/// After how much silence conntrack forgets a TCP connection: earlier than that, IPVS should not.
fn timeout_of_conntrack() -> Option<Duration> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
