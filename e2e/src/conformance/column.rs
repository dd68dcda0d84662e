//! What the runs are about, and what the table's columns are.

use clap::Args;
use e2e::lab::{Options, ServiceProxy};
use e2e::mode::Mode;

/// Which proxy serves, and how.
#[derive(Args, Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Column {
    /// Run the real kube-proxy instead of ours.
    #[arg(long)]
    pub kube_proxy: bool,
    /// By which part of the kernel the proxy forwards.
    #[arg(long, value_enum, default_value = "nftables")]
    pub mode: Mode,
}

impl Column {
    /// All, mode by mode, ours first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of_mode = |mode| [false, true].map(|kube_proxy| Self { kube_proxy, mode });
        Mode::ALL.into_iter().flat_map(of_mode)
    }

    /// The one that the same is asked of kube-proxy in.
    pub(super) const fn of_kube_proxy(self) -> Self {
        Self {
            kube_proxy: true,
            ..self
        }
    }

    /// For the reader of the table.
    pub(super) fn title(self) -> String {
        format!("{} {}", self.proxy(), self.mode.name())
    }

    /// The name of the run's files.
    pub(super) fn file_stem(self) -> String {
        format!("{}-{}", self.proxy().to_lowercase(), self.mode.name())
    }

    /// The lab with this proxy.
    pub(super) fn lab(self, options: Options) -> Options {
        if self.kube_proxy {
            return Options {
                proxy: ServiceProxy::KubeProxy(self.mode),
                ..options
            };
        }
        // Specs ask for external IPs, which only the operator can allow here.
        let arguments = ["--allow-external-ips", "--dataplane", self.mode.name()];
        Options {
            proxy_arguments: arguments.map(str::to_owned).to_vec(),
            ..options
        }
    }

    /// What this program is told in an emulated machine, to start the nodes.
    pub(super) fn arguments_of_nodes(self) -> Vec<String> {
        let mut arguments = vec!["conformance-nodes", "--mode", self.mode.name()];
        if self.kube_proxy {
            arguments.push("--kube-proxy");
        }
        arguments.into_iter().map(str::to_owned).collect()
    }

    const fn proxy(self) -> &'static str {
        if self.kube_proxy {
            "kube-proxy"
        } else {
            "Foghorn"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_by_proxy_and_mode() {
        let names: Vec<_> = Column::all()
            .map(|column| (column.title(), column.file_stem()))
            .collect();
        let expected = [
            ("Foghorn nftables", "foghorn-nftables"),
            ("kube-proxy nftables", "kube-proxy-nftables"),
            ("Foghorn iptables", "foghorn-iptables"),
            ("kube-proxy iptables", "kube-proxy-iptables"),
            ("Foghorn ipvs", "foghorn-ipvs"),
            ("kube-proxy ipvs", "kube-proxy-ipvs"),
        ];
        assert_eq!(
            names,
            expected.map(|(title, file)| (title.to_owned(), file.to_owned()))
        );
    }
}
