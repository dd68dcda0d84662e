//! Command-line arguments of `foghorn-controller`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use config_runtime::arguments::CommonArguments;
use controller_allocator::Classes;

/// Gives Services of type LoadBalancer their addresses.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "foghorn-controller", version)]
pub struct Arguments {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "documented there; a comment here would become its help"
    )]
    pub common: CommonArguments,

    /// Value of `spec.loadBalancerClass` to serve; may be given several times. If given, Services without a class are
    /// left to others unless `--serve-classless` is given too [default: `foghorn.dev/foghorn`, and Services without a class]
    #[arg(
        long = "load-balancer-class",
        visible_alias = "lb-class",
        value_name = "CLASS"
    )]
    pub load_balancer_class: Vec<String>,

    /// Whether to serve Services without `spec.loadBalancerClass` [default: `true` without `--load-balancer-class`, else `false`]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub serve_classless: Option<bool>,

    /// Whether replicas elect a leader; without it only one may run
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the Lease
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        default_value = "kube-system"
    )]
    pub lease_namespace: String,

    /// Name of the Lease
    #[arg(long, value_name = "NAME", default_value = "foghorn-controller")]
    pub lease_name: String,

    /// Name of this replica in the Lease, unique among replicas [default: the host's name and the health port]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub lease_identity: Option<String>,
}

/// Where metrics are served unless asked otherwise.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7472);
/// Where health is served unless asked otherwise.
const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7473);

impl Arguments {
    /// The classes to serve.
    pub fn classes(&self) -> Classes {
        if self.load_balancer_class.is_empty() {
            return Classes {
                unnamed: self.serve_classless.unwrap_or(true),
                ..Classes::default()
            };
        }
        Classes {
            names: self.load_balancer_class.iter().cloned().collect(),
            unnamed: self.serve_classless.unwrap_or(false),
        }
    }

    /// Where to serve metrics, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.common.metrics_address_or(METRICS)
    }

    /// Where to serve health, if anywhere.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.common.health_address_or(HEALTH)
    }

    /// The name of this replica: the same after a restart, so that it goes on at once; another one for any other.
    ///
    /// Two replicas on one host cannot listen on the same health port. Without one the name has something random.
    pub fn identity(&self, host: &str) -> String {
        match (&self.lease_identity, self.health_address()) {
            (Some(identity), _) => identity.clone(),
            (None, Some(address)) if address.port() != 0 => format!("{host}-{}", address.port()),
            (None, _) => format!("{host}-{:016x}", fastrand::u64(..)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[track_caller]
    fn serves(line: &str, expected: &[(Option<&str>, bool)]) {
        let words = std::iter::once("foghorn-controller").chain(line.split_whitespace());
        let classes = Arguments::try_parse_from(words).unwrap().classes();
        for &(class, served) in expected {
            assert_eq!(classes.serve(class), served, "{line}: {class:?}");
        }
    }

    #[test]
    fn classes_are_ours_and_none_unless_named() {
        let ours = Some("foghorn.dev/foghorn");
        serves("", &[(None, true), (ours, true), (Some("x"), false)]);
        serves("--serve-classless=false", &[(None, false), (ours, true)]);
        serves(
            "--lb-class x",
            &[(None, false), (ours, false), (Some("x"), true)],
        );
        serves(
            "--load-balancer-class x --lb-class y --serve-classless",
            &[(None, true), (Some("x"), true), (Some("y"), true)],
        );
    }

    #[test]
    fn the_identity_survives_a_restart_and_is_not_shared() {
        let identity = |line: &str| {
            let words = std::iter::once("foghorn-controller").chain(line.split_whitespace());
            Arguments::try_parse_from(words).unwrap().identity("host")
        };
        assert_eq!(identity("--lease-identity pod-1"), "pod-1");
        assert_eq!(identity(""), identity(""));
        assert_ne!(identity("--health-address :1"), identity(""));
        assert_ne!(
            identity("--health-address off"),
            identity("--health-address off")
        );
    }
}
