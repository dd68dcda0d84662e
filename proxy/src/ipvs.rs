//! The IPVS data plane, put to the seam.

use std::time::{Duration, Instant};

use config_runtime::telemetry::Chain;
use proxy::arguments::Arguments;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent};
use proxy_ipvs::{KernelError, Timeouts};
use proxy_table::{ForwardingTable, TableChange};

use crate::planes::sent;

/// IPVS of this network namespace, and the rules before it.
#[derive(Debug)]
pub(crate) struct Ipvs(proxy_ipvs::Ipvs);

impl Ipvs {
    /// Opens it; nothing is changed, but the module of IPVS may be loaded.
    pub(crate) fn open(arguments: &Arguments) -> Result<Self, KernelError> {
        let timeouts = Timeouts {
            tcp: arguments.ipvs_tcp_timeout.or_else(timeout_of_conntrack),
            tcp_fin: arguments.ipvs_tcpfin_timeout,
            udp: arguments.ipvs_udp_timeout,
        };
        proxy_ipvs::Ipvs::open(arguments.ipvs_scheduler, timeouts).map(Self)
    }
}

impl DataPlane for Ipvs {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        sent(self.0.settle(table, Instant::now()))
    }

    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError> {
        sent(self.0.update(table, changes, Instant::now()))
    }

    fn is_intact(&mut self) -> bool {
        let now = Instant::now();
        if let Err(error) = self.0.let_go(now) {
            tracing::warn!(error = %Chain(&error), "Endpoints without connections were not removed");
            return false;
        }
        !self.0.is_disturbed(now)
    }

    fn describe(&self, table: &ForwardingTable) -> Description {
        self.0.describe(table)
    }
}

/// After how much silence conntrack forgets a TCP connection: earlier than that, IPVS should not.
fn timeout_of_conntrack() -> Option<Duration> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
