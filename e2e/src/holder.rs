//! Whose rules the kernel of a node has, and in which of its parts.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::namespace::Namespace;

/// A proxy, and a part of the kernel where it has something.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Holder {
    /// Our table of nf_tables, which is there with IPVS too.
    FoghornNftables,
    /// Our chains in the back end nf_tables of iptables.
    FoghornIptablesNft,
    /// Our chains in the back end legacy of iptables.
    FoghornIptablesLegacy,
    /// Our interface, which is there as long as one of our virtual servers is.
    FoghornIpvs,
    /// kube-proxy's tables of nf_tables.
    KubeProxyNftables,
    /// kube-proxy's chains of iptables, which are there with IPVS too.
    KubeProxyIptables,
    /// The interface of kube-proxy's IPVS mode.
    KubeProxyIpvs,
}

impl Holder {
    /// Everybody who has something in the kernel of this network.
    pub fn all_in(namespace: &Namespace) -> Result<BTreeSet<Self>> {
        let mut holders = BTreeSet::new();
        let tables = namespace.output("nft", &["list", "tables"])?;
        for (name, holder) in [
            (" foghorn", Self::FoghornNftables),
            (" kube-proxy", Self::KubeProxyNftables),
        ] {
            if tables.lines().any(|line| line.ends_with(name)) {
                holders.insert(holder);
            }
        }
        for (infix, ours) in [
            ("nft", Self::FoghornIptablesNft),
            ("legacy", Self::FoghornIptablesLegacy),
        ] {
            let chains = chains(namespace, infix)?;
            if chains.contains("FOGHORN-") {
                holders.insert(ours);
            }
            if chains.contains("KUBE-SERVICES") {
                holders.insert(Self::KubeProxyIptables);
            }
        }
        let links = namespace.output("ip", &["-o", "link", "show"])?;
        for (name, holder) in [
            (" foghorn0:", Self::FoghornIpvs),
            (" kube-ipvs0:", Self::KubeProxyIpvs),
        ] {
            if links.contains(name) {
                holders.insert(holder);
            }
        }
        Ok(holders)
    }
}

/// What a back end of iptables has of both families, in the tables that proxies write.
fn chains(namespace: &Namespace, back_end: &str) -> Result<String> {
    let mut all = String::new();
    for family in ["iptables", "ip6tables"] {
        for table in ["nat", "filter"] {
            let program = format!("{family}-{back_end}-save");
            all.push_str(&namespace.output(&program, &["-t", table])?);
        }
    }
    Ok(all)
}
