//! A `KubeProxyConfiguration` file, as the DaemonSet of kube-proxy has it in its ConfigMap.
//!
//! What applies is read, what does nothing here is named, and what kube-proxy would not understand either is refused with
//! its place.

mod fields;
pub mod flags;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::file::{decode, document};
use crate::located::{Located, Node};
use crate::pool::Origin;
use crate::refusal::{Place, Reason, Refusal};
use crate::scheduler::{Scheduler, UnknownScheduler};
use crate::schema::unknown;
use fields::{Field, ROOT, Shape, duration_of, is_nothing};

/// What a file asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KubeProxyConfiguration {
    /// `clientConnection.kubeconfig`: the path of a file.
    pub kubeconfig: Option<String>,
    /// `hostnameOverride`: the name of the Node object.
    pub hostname_override: Option<String>,
    /// `healthzBindAddress`.
    pub healthz_bind_address: Option<SocketAddr>,
    /// `metricsBindAddress`.
    pub metrics_bind_address: Option<SocketAddr>,
    /// `mode`.
    pub mode: Option<Mode>,
    /// `masqueradeAll` of the mode.
    pub masquerade_all: bool,
    /// `clusterCIDR`.
    pub cluster_cidrs: Vec<IpNet>,
    /// `detectLocalMode`.
    pub detect_local_mode: Option<LocalMode>,
    /// `detectLocal.bridgeInterface`.
    pub bridge_interface: Option<String>,
    /// `detectLocal.interfaceNamePrefix`.
    pub interface_name_prefix: Option<String>,
    /// `nodePortAddresses`: `primary` alone, or prefixes.
    pub node_port_addresses: Vec<String>,
    /// `conntrack.tcpBeLiberal`.
    pub tcp_be_liberal: bool,
    /// `iptables.masqueradeBit`, 0 to 31.
    pub masquerade_bit: Option<u8>,
    /// `ipvs.scheduler`.
    pub ipvs_scheduler: Option<Scheduler>,
    /// `ipvs.tcpTimeout`.
    pub ipvs_tcp_timeout: Option<Duration>,
    /// `ipvs.tcpFinTimeout`.
    pub ipvs_tcp_fin_timeout: Option<Duration>,
    /// `ipvs.udpTimeout`.
    pub ipvs_udp_timeout: Option<Duration>,
    /// What does nothing, in the order written.
    pub without_effect: Vec<WithoutEffect>,
}

/// How kube-proxy was to forward.
#[expect(missing_docs, reason = "named as in the file")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Iptables,
    Ipvs,
    Nftables,
}

/// How Pods are told from outsiders.
#[expect(missing_docs, reason = "named as in the file")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LocalMode {
    ClusterCidr,
    NodeCidr,
    BridgeInterface,
    InterfaceNamePrefix,
}

/// A field that is set and does nothing here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WithoutEffect {
    /// The file.
    pub path: Arc<str>,
    /// Where the value stands.
    pub place: Place,
    /// The field, as `conntrack.maxPerCore`.
    pub field: String,
    /// Why.
    pub because: &'static str,
}

impl fmt::Display for WithoutEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            place,
            field,
            because,
        } = self;
        let (line, column) = (place.line, place.column);
        write!(
            formatter,
            "{path}:{line}:{column}: {field} has no effect: {because}"
        )
    }
}

/// Reads a file. `path` is what messages call it.
///
/// # Errors
/// Everything in it that is wrong, in the order written.
pub fn read(path: &str, content: &[u8]) -> Result<KubeProxyConfiguration, Vec<Refusal>> {
    let mut reader = Reader {
        path: path.into(),
        refusals: Vec::new(),
        without_effect: Vec::new(),
    };
    let tree = decode(content).and_then(document);
    let tree = tree.map_err(|(place, reason)| vec![reader.refusal("", place, reason)])?;
    reader.check_kind(&tree);
    if reader.refusals.is_empty() {
        reader.check(&tree, ROOT, "");
    }
    let configuration = reader.configuration(&tree);
    if reader.refusals.is_empty() {
        Ok(KubeProxyConfiguration {
            without_effect: reader.without_effect,
            ..configuration
        })
    } else {
        reader.refusals.sort_by_key(|refusal| refusal.place);
        Err(reader.refusals)
    }
}

/// Port of `healthzBindAddress`, if only an address is written.
const HEALTHZ_PORT: u16 = 10256;
/// Port of `metricsBindAddress`, if only an address is written.
const METRICS_PORT: u16 = 10249;
const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

struct Reader {
    path: Arc<str>,
    refusals: Vec<Refusal>,
    without_effect: Vec<WithoutEffect>,
}

impl Reader {
    fn check_kind(&mut self, tree: &Located) {
        for (field, known) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match tree.get(field) {
                None => self.refuse("", tree.place, Reason::NotAnObject),
                Some(value) if value.text() == Some(known) => {}
                Some(value) => {
                    let found = crate::refusal::shorten(&text_of(value));
                    let known = vec![known.to_owned()];
                    self.refuse(field, value.place, Reason::UnknownValue { found, known });
                }
            }
        }
    }

    /// Looks at every field: its name, its type, and whether it does anything.
    fn check(&mut self, node: &Located, fields: &[Field], path: &str) {
        let Node::Map(entries) = &node.node else {
            if !is_nothing(&node.to_json()) {
                self.refuse(path, node.place, wrong_type("a mapping", node));
            }
            return;
        };
        for (key, value) in entries {
            let Some(field) = fields.iter().find(|field| field.name == key.text) else {
                let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
                let unknown = unknown(key, &known, path);
                self.refuse(path, unknown.place, unknown.reason);
                continue;
            };
            let path = if path.is_empty() {
                field.name.to_owned()
            } else {
                format!("{path}.{}", field.name)
            };
            if let Shape::Section(fields) = field.shape {
                self.check(value, fields, &path);
                continue;
            }
            let json = value.to_json();
            if let Some(wanted) = field.shape.unless_fits(&json) {
                self.refuse(&path, value.place, wrong_type(wanted, value));
            } else if let Some(because) = field.without_effect
                && !is_nothing(&json)
            {
                self.without_effect(path, value.place, because);
            }
        }
    }

    fn configuration(&mut self, tree: &Located) -> KubeProxyConfiguration {
        let mode = self.choice(tree, "mode", &MODES);
        let detect_local_mode = self.choice(tree, "detectLocalMode", &LOCAL_MODES);
        KubeProxyConfiguration {
            kubeconfig: text_at(tree, "clientConnection.kubeconfig"),
            hostname_override: text_at(tree, "hostnameOverride"),
            healthz_bind_address: self.address(tree, "healthzBindAddress", HEALTHZ_PORT),
            metrics_bind_address: self.address(tree, "metricsBindAddress", METRICS_PORT),
            mode,
            masquerade_all: self.masquerade_all(tree, mode),
            cluster_cidrs: self.cluster_cidrs(tree),
            detect_local_mode,
            bridge_interface: text_at(tree, "detectLocal.bridgeInterface"),
            interface_name_prefix: text_at(tree, "detectLocal.interfaceNamePrefix"),
            node_port_addresses: self.node_port_addresses(tree),
            tcp_be_liberal: is_on(tree, "conntrack.tcpBeLiberal"),
            masquerade_bit: self.masquerade_bit(tree),
            ipvs_scheduler: self.ipvs_scheduler(tree),
            ipvs_tcp_timeout: self.timeout(tree, "ipvs.tcpTimeout"),
            ipvs_tcp_fin_timeout: self.timeout(tree, "ipvs.tcpFinTimeout"),
            ipvs_udp_timeout: self.timeout(tree, "ipvs.udpTimeout"),
            without_effect: Vec::new(),
        }
    }

    /// That of the mode counts; without a mode kube-proxy's is iptables, and IPVS takes its.
    fn masquerade_all(&mut self, tree: &Located, mode: Option<Mode>) -> bool {
        const FIELDS: [&str; 2] = ["nftables.masqueradeAll", "iptables.masqueradeAll"];
        let [mut counts, mut other] = FIELDS;
        if mode != Some(Mode::Nftables) {
            (counts, other) = (other, counts);
        }
        if is_on(tree, other) {
            let because = "it is that of another mode";
            self.without_effect(other.to_owned(), tree.find(other), because);
        }
        is_on(tree, counts)
    }

    fn masquerade_bit(&mut self, tree: &Located) -> Option<u8> {
        const FIELD: &str = "iptables.masqueradeBit";
        let number = at(tree, FIELD)?.to_json().as_i64()?;
        let bit = u8::try_from(number).ok().filter(|bit| *bit < 32);
        if bit.is_none() {
            let reason = format!("{number} is not the bit of a mark: write one from 0 to 31");
            self.refuse(FIELD, tree.find(FIELD), Reason::Type(reason));
        }
        bit
    }

    fn ipvs_scheduler(&mut self, tree: &Located) -> Option<Scheduler> {
        const FIELD: &str = "ipvs.scheduler";
        match text_at(tree, FIELD)?.parse() {
            Ok(scheduler) => Some(scheduler),
            Err(error) => {
                let error: UnknownScheduler = error;
                self.refuse(FIELD, tree.find(FIELD), Reason::Type(error.to_string()));
                None
            }
        }
    }

    /// A timeout; one of 0 s says no more than none.
    fn timeout(&mut self, tree: &Located, field: &str) -> Option<Duration> {
        let text = text_at(tree, field)?;
        if text.starts_with('-') {
            let text = crate::refusal::shorten(&text);
            let reason = format!("{text} is negative: write a duration such as 1m30s");
            self.refuse(field, tree.find(field), Reason::Type(reason));
            return None;
        }
        duration_of(&text).filter(|timeout| !timeout.is_zero())
    }

    fn choice<T: Copy>(&mut self, tree: &Located, field: &str, known: &[(&str, T)]) -> Option<T> {
        let text = text_at(tree, field)?;
        let found = known.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let known = known.iter().map(|(name, _)| (*name).to_owned()).collect();
            let found = crate::refusal::shorten(&text);
            self.refuse(
                field,
                tree.find(field),
                Reason::UnknownValue { found, known },
            );
        }
        found.map(|(_, value)| *value)
    }

    fn address(&mut self, tree: &Located, field: &str, port: u16) -> Option<SocketAddr> {
        let text = text_at(tree, field)?;
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let found = text
            .parse()
            .ok()
            .or_else(|| Some(SocketAddr::new(bare.parse().ok()?, port)));
        if found.is_none() {
            let text = crate::refusal::shorten(&text);
            let reason = format!("\"{text}\" is not an address: write one such as 0.0.0.0:{port}");
            self.refuse(field, tree.find(field), Reason::Type(reason));
        }
        found
    }

    fn cluster_cidrs(&mut self, tree: &Located) -> Vec<IpNet> {
        const FIELD: &str = "clusterCIDR";
        let text = text_at(tree, FIELD).unwrap_or_default();
        let mut found = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.trim().parse() {
                Ok(net) => found.push(net),
                Err(_) => self.refuse(FIELD, tree.find(FIELD), not_a_prefix(part)),
            }
        }
        found
    }

    fn node_port_addresses(&mut self, tree: &Located) -> Vec<String> {
        const FIELD: &str = "nodePortAddresses";
        let Some(Node::List(items)) = tree.get(FIELD).map(|list| &list.node) else {
            return Vec::new();
        };
        let texts: Vec<String> = items.iter().map(text_of).collect();
        let primary = texts == [PRIMARY];
        for (index, (item, text)) in items.iter().zip(&texts).enumerate() {
            if !primary && item.text().is_some() && text.parse::<IpNet>().is_err() {
                self.refuse(&format!("{FIELD}[{index}]"), item.place, not_a_prefix(text));
            }
        }
        texts
    }

    fn without_effect(&mut self, field: String, place: Place, because: &'static str) {
        self.without_effect.push(WithoutEffect {
            path: Arc::clone(&self.path),
            place,
            field,
            because,
        });
    }

    fn refuse(&mut self, field: &str, place: Place, reason: Reason) {
        let refusal = self.refusal(field, place, reason);
        // A value of a wrong type is read as if it were not there; it is refused once.
        if self.refusals.iter().all(|held| held.place != refusal.place) {
            self.refusals.push(refusal);
        }
    }

    fn refusal(&self, field: &str, place: Place, reason: Reason) -> Refusal {
        Refusal {
            origin: Origin::File {
                path: Arc::clone(&self.path),
                line: place.line,
            },
            place: Some(place),
            kind: None,
            name: None,
            field: field.to_owned(),
            reason,
        }
    }
}

/// The value at a path of fields.
fn at<'a>(tree: &'a Located, path: &str) -> Option<&'a Located> {
    path.split('.').try_fold(tree, |node, part| node.get(part))
}

fn text_at(tree: &Located, path: &str) -> Option<String> {
    at(tree, path)?
        .text()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn is_on(tree: &Located, path: &str) -> bool {
    at(tree, path).is_some_and(|found| found.to_json() == Value::Bool(true))
}

fn text_of(value: &Located) -> String {
    match &value.node {
        Node::Scalar(Value::String(text)) => text.clone(),
        Node::Scalar(value) => value.to_string(),
        Node::List(_) => "a list".to_owned(),
        Node::Map(_) => "a mapping".to_owned(),
    }
}

fn wrong_type(wanted: &str, found: &Located) -> Reason {
    let found = crate::refusal::shorten(&text_of(found));
    Reason::Type(format!("{found} is not {wanted}: write {wanted}"))
}

fn not_a_prefix(text: &str) -> Reason {
    let text = crate::refusal::shorten(text.trim());
    Reason::Type(format!(
        "\"{text}\" is not a prefix: write one such as 192.0.2.0/24"
    ))
}

const PRIMARY: &str = "primary";
const MODES: [(&str, Mode); 3] = [
    ("iptables", Mode::Iptables),
    ("ipvs", Mode::Ipvs),
    ("nftables", Mode::Nftables),
];
const LOCAL_MODES: [(&str, LocalMode); 4] = [
    ("ClusterCIDR", LocalMode::ClusterCidr),
    ("NodeCIDR", LocalMode::NodeCidr),
    ("BridgeInterface", LocalMode::BridgeInterface),
    ("InterfaceNamePrefix", LocalMode::InterfaceNamePrefix),
];

#[cfg(test)]
mod tests;
