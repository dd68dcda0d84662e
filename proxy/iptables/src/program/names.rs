//! Names of chains: at most 28 characters, and those of a Service's port stay while its endpoints come and go.

use std::net::IpAddr;
use std::sync::Arc;

use config::name::ServiceKey;
use config::service::Protocol;
use ipnet::IpNet;
use proxy_table::Endpoint;
use sha2::{Digest, Sha256};

use super::PREFIX;
use crate::rule::Rule;

/// Entered by packets to Services, in either table.
pub(crate) const SERVICES: &str = "FOGHORN-SERVICES";
/// Entered by packets of the node itself.
pub(crate) const OUTPUT: &str = "FOGHORN-OUTPUT";
/// Replaces the source of marked packets.
pub(crate) const POSTROUTING: &str = "FOGHORN-POSTROUTING";
/// Marks packets.
pub(crate) const MARK_MASQUERADE: &str = "FOGHORN-MARK-MASQ";
/// Marks packets of anybody but Pods.
pub(crate) const MARK_OUTSIDE: &str = "FOGHORN-MARK-OUTSIDE";
/// Entered by packets from outside of the node, in `filter`.
pub(crate) const OUTSIDE: &str = "FOGHORN-OUTSIDE";
/// Drops answers outside of their connections.
pub(crate) const ANSWERS: &str = "FOGHORN-ANSWERS";
/// Lets through what we forward.
pub(crate) const FORWARD: &str = "FOGHORN-FORWARD";

/// What a chain of a Service's port is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Role {
    /// One of the endpoints for the policy `Cluster`.
    Cluster,
    /// One of those on this node, for the policy `Local`.
    Local,
    /// Flows from outside of the node to addresses that are not ClusterIPs.
    External,
    /// Flows of the node itself to such addresses.
    ExternalOutput,
    /// The sources that may use the load balancer's addresses.
    Firewall,
    /// The same, for flows of the node itself.
    FirewallOutput,
    /// Flows from outside that are refused.
    Outside,
}

impl Role {
    fn infix(self) -> &'static str {
        match self {
            Self::Cluster => "SVC",
            Self::Local => "SVL",
            Self::External => "EXT",
            Self::ExternalOutput => "EXO",
            Self::Firewall => "FW",
            Self::FirewallOutput => "FWO",
            Self::Outside => "OUT",
        }
    }
}

/// A port of a Service, in one family.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Port {
    text: String,
}

impl Port {
    pub(crate) fn new(service: &ServiceKey, name: &str, protocol: Protocol) -> Self {
        let colon = if name.is_empty() { "" } else { ":" };
        let suffix = match protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/UDP",
            Protocol::Sctp => "/SCTP",
        };
        Self {
            text: format!("{service}{colon}{name}{suffix}"),
        }
    }

    /// As people see it in comments: `namespace/name:port`, with the protocol unless that is TCP. A Service's only port may be
    /// without a name.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn chain(&self, role: Role) -> Arc<str> {
        let infix = role.infix();
        format!("{PREFIX}{infix}-{}", hash(&[&self.text, infix])).into()
    }

    /// A chain that has another name with other rules.
    pub(crate) fn chain_of(&self, role: Role, rules: &[Rule]) -> Arc<str> {
        let infix = role.infix();
        let rules = format!("{rules:?}");
        format!("{PREFIX}{infix}-{}", hash(&[&self.text, infix, &rules])).into()
    }

    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> Arc<str> {
        format!("{PREFIX}SEP-{}", hash(&[&self.text, &endpoint.to_string()])).into()
    }

    /// The list of clients that keep an endpoint, of those that a chain chooses from.
    pub(crate) fn clients(&self, role: Role, endpoint: &Endpoint) -> Arc<str> {
        let endpoint = endpoint.to_string();
        format!(
            "{PREFIX}AFF-{}",
            hash(&[&self.text, role.infix(), &endpoint])
        )
        .into()
    }
}

/// The chain for the addresses of a network, in a tree of chains.
pub(crate) fn network(tree: &str, network: IpNet) -> Arc<str> {
    match network {
        IpNet::V4(network) => format!(
            "{PREFIX}{tree}-{}-{}",
            network.network(),
            network.prefix_len()
        )
        .into(),
        IpNet::V6(network) => format!("{PREFIX}{tree}-{}", hash(&[&network.to_string()])).into(),
    }
}

/// The chain for some NodePorts of an address.
pub(crate) fn ports(tree: &str, address: IpAddr, protocol: Protocol, first: u16) -> Arc<str> {
    let text = format!("{address} {protocol} {first}");
    format!("{PREFIX}{tree}P-{}", hash(&[&text])).into()
}

/// 80 bits of a hash that is the same in every version of ours, as 16 letters and digits.
fn hash(parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let digest = hasher.finalize();
    let mut bits = digest
        .iter()
        .take(10)
        .fold(0_u128, |bits, octet| bits << 8 | u128::from(*octet));
    let mut text = String::with_capacity(16);
    for _ in 0..16 {
        let letter = usize::try_from(bits & 31).unwrap_or_default();
        text.extend(ALPHABET.get(letter).map(|letter| char::from(*letter)));
        bits >>= 5;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_enough_and_never_those_of_kube_proxy() {
        let port = Port::new(&ServiceKey::new("shop", "web"), "http", Protocol::Udp);
        assert_eq!(port.text(), "shop/web:http/UDP");
        let endpoint = Endpoint {
            address: "2001:db8::1".parse().unwrap(),
            port: 8080.try_into().unwrap(),
        };
        let roles = [
            Role::Cluster,
            Role::Local,
            Role::External,
            Role::ExternalOutput,
            Role::Firewall,
            Role::FirewallOutput,
            Role::Outside,
        ];
        let mut names: Vec<Arc<str>> = roles.map(|role| port.chain(role)).into();
        names.push(port.endpoint(&endpoint));
        names.push(network("D", "255.255.255.240/28".parse().unwrap()));
        names.push(network("D", "2001:db8::10/124".parse().unwrap()));
        names.push(ports("D", endpoint.address, Protocol::Tcp, 30016));
        let fixed = [
            SERVICES,
            OUTPUT,
            OUTSIDE,
            POSTROUTING,
            MARK_MASQUERADE,
            MARK_OUTSIDE,
            ANSWERS,
            FORWARD,
        ];
        names.extend(fixed.map(Arc::from));
        for name in &names {
            assert!(name.starts_with("FOGHORN-") && name.len() <= 28, "{name}");
        }
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        // Rules of another version are found by these.
        assert_eq!(&*port.chain(Role::Cluster), "FOGHORN-SVC-FUTD34M4XZXJJESO");
    }
}
