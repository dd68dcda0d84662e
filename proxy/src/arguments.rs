//! The command line: kube-proxy's names and defaults where they exist.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use config::scheduler::Scheduler;
use config_runtime::arguments::{CommonArguments, ListenAddress};
use ipnet::IpNet;
use proxy_iptables::{Backend, Mark};

/// Forwards what lands on a Service to its endpoints.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "foghorn-proxy",
    version,
    about,
    mut_arg("config", |argument| argument
        .value_name("FILE")
        .help("KubeProxyConfiguration file, as kube-proxy has it; arguments go before what it says"))
)]
pub struct Arguments {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "documented there; a comment here would become its help"
    )]
    pub common: CommonArguments,

    /// Name of the Node object of this machine; needed but for `--cleanup`
    #[arg(
        long,
        visible_alias = "hostname-override",
        value_name = "NAME",
        env = "NODE_NAME"
    )]
    pub node_name: Option<String>,

    /// What in the kernel forwards: `nftables`, `iptables`, `ipvs`, or `auto`: nftables where the kernel has it, else iptables.
    /// The log says which and why
    #[arg(
        long,
        visible_alias = "proxy-mode",
        value_name = "MODE",
        default_value = "auto"
    )]
    pub dataplane: String,

    /// Which iptables to use, with `--dataplane iptables`
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t)]
    pub iptables_backend: IptablesBackend,

    /// The bit of packet marks, 0 to 31, that says, until the end of postrouting, that a packet's source is to be replaced; with
    /// `--dataplane iptables` only
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..32))]
    pub iptables_masquerade_bit: u8,

    /// How IPVS chooses among the endpoints of Services without the annotation `foghorn.dev/ipvs-scheduler`: `rr`, `wrr`, `lc`,
    /// `wlc`, `sh`, `mh`…
    #[arg(long, value_name = "NAME", default_value_t)]
    pub ipvs_scheduler: Scheduler,

    /// After how much silence IPVS forgets a TCP connection, as `15m`; `0s` leaves it as it is [default: as conntrack]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ipvs_tcp_timeout: Option<Duration>,

    /// The same after a FIN [default: `0s`]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ipvs_tcpfin_timeout: Option<Duration>,

    /// The same for UDP [default: `0s`]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ipvs_udp_timeout: Option<Duration>,

    /// Remove everything of ours from the kernel, and end
    #[arg(long)]
    pub cleanup: bool,

    /// Addresses on which NodePorts are offered: `primary` for the node's InternalIPs, or those of the machine in these prefixes
    #[arg(
        long,
        value_name = "PREFIX,..",
        value_delimiter = ',',
        default_value = "primary"
    )]
    pub nodeport_addresses: Vec<String>,

    /// The networks of the cluster's Pods, to tell Pods from outsiders
    #[arg(long, value_name = "PREFIX,..", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,

    /// How Pods are told from outsiders [default: `ClusterCIDR` with `--cluster-cidr`, `NodeCIDR` without]
    #[arg(long, value_name = "MODE")]
    pub detect_local_mode: Option<DetectLocalMode>,

    /// The bridge of this node's Pods, for `BridgeInterface`
    #[arg(long, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,

    /// How names of Pods' interfaces begin, for `InterfaceNamePrefix`
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,

    /// Masquerade all flows to ClusterIPs
    #[arg(long)]
    pub masquerade_all: bool,

    /// Serve `spec.externalIPs` too; whoever may write Services can then take addresses (CVE-2020-8554)
    #[arg(long)]
    pub allow_external_ips: bool,

    /// Serve the Services whose label `service.kubernetes.io/service-proxy-name` has this value, instead of those without it
    #[arg(long, value_name = "NAME")]
    pub service_proxy_name: Option<String>,

    /// As `--health-address`
    #[arg(long, value_name = "ADDRESS")]
    pub healthz_bind_address: Option<ListenAddress>,

    /// As `--metrics-address`
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_bind_address: Option<ListenAddress>,

    /// Let connections live on whose segments are outside the window: sets `nf_conntrack_tcp_be_liberal`
    #[arg(long)]
    pub conntrack_tcp_be_liberal: bool,

    /// Socket on which the speaker of this node says which nodes fell silent
    #[arg(long, value_name = "PATH", default_value = "/run/foghorn/proxy.sock")]
    pub speaker_socket: PathBuf,
}

/// Reads a duration as kube-proxy has them, such as 1h30m.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>();
    let parsed = parsed.map_err(|error| format!("{error}: write a duration such as 15m"))?;
    Duration::try_from(parsed)
        .map_err(|_| "it is negative: write a duration such as 15m".to_owned())
}

/// Port of `/healthz` and `/livez` by default, as kube-proxy's.
pub const HEALTH_PORT: u16 = 10256;

/// Which iptables to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum IptablesBackend {
    /// Where the kubelet's chains are, else where most rules are, else what `iptables` on this machine is
    #[default]
    Auto,
    /// The one that keeps its rules in nf_tables
    Nft,
    /// The older one
    Legacy,
}

impl From<IptablesBackend> for Option<Backend> {
    fn from(backend: IptablesBackend) -> Self {
        match backend {
            IptablesBackend::Auto => None,
            IptablesBackend::Nft => Some(Backend::Nft),
            IptablesBackend::Legacy => Some(Backend::Legacy),
        }
    }
}

/// How Pods are told from outsiders, under kube-proxy's names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum DetectLocalMode {
    /// Their address is in `--cluster-cidr`
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// Their address is in the node's podCIDRs
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// They arrive on `--pod-bridge-interface`
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// They arrive on an interface whose name begins with `--pod-interface-name-prefix`
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

impl Arguments {
    /// Where health is served, if anywhere.
    pub fn health_address(&self) -> Option<SocketAddr> {
        let default = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), HEALTH_PORT);
        match self.healthz_bind_address {
            Some(ListenAddress(address)) => address,
            None => self.common.health_address_or(default),
        }
    }

    /// The packet mark of `--iptables-masquerade-bit`.
    pub fn masquerade_mark(&self) -> Mark {
        // The range of the argument leaves a bit.
        let mark = 1_u32.checked_shl(self.iptables_masquerade_bit.into());
        Mark(mark.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    /// Where metrics are served, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
        match self.metrics_bind_address {
            Some(ListenAddress(address)) => address,
            None => self.common.metrics_address_or(default),
        }
    }
}
