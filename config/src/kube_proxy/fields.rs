//! The fields of `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`, Kubernetes 1.37), and which of them apply.

use std::time::Duration;

use serde_json::Value;

/// A field of the file.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// Why it does nothing here; none if it applies.
    pub(super) without_effect: Option<&'static str>,
}

/// What a field's value looks like.
pub(super) enum Shape {
    Text,
    Switch,
    Whole,
    Number,
    /// As Go writes it: `1h30m`.
    Duration,
    Texts,
    Section(&'static [Field]),
    /// Not looked into.
    Anything,
}

const fn applies(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        without_effect: None,
    }
}

const fn section(name: &'static str, fields: &'static [Field]) -> Field {
    applies(name, Shape::Section(fields))
}

const fn idle(name: &'static str, shape: Shape, reason: &'static str) -> Field {
    Field {
        name,
        shape,
        without_effect: Some(reason),
    }
}

/// The whole file.
pub(super) const ROOT: &[Field] = &[
    applies("apiVersion", Shape::Text),
    applies("kind", Shape::Text),
    idle("featureGates", Shape::Anything, GATES),
    section("clientConnection", CLIENT_CONNECTION),
    idle("logging", Shape::Anything, LOGGING),
    applies("hostnameOverride", Shape::Text),
    idle(
        "bindAddress",
        Shape::Text,
        "write healthzBindAddress and metricsBindAddress",
    ),
    applies("healthzBindAddress", Shape::Text),
    applies("metricsBindAddress", Shape::Text),
    idle("bindAddressHardFail", Shape::Switch, PROBED),
    idle("enableProfiling", Shape::Switch, NO_PAGES),
    idle("showHiddenMetricsForVersion", Shape::Text, NONE_HIDDEN),
    applies("mode", Shape::Text),
    section("iptables", IPTABLES),
    section("ipvs", IPVS),
    section("nftables", NFTABLES),
    idle("winkernel", Shape::Anything, "it is about Windows"),
    applies("detectLocalMode", Shape::Text),
    section("detectLocal", DETECT_LOCAL),
    applies("clusterCIDR", Shape::Text),
    applies("nodePortAddresses", Shape::Texts),
    idle("oomScoreAdj", Shape::Whole, MANIFEST),
    section("conntrack", CONNTRACK),
    idle("configSyncPeriod", Shape::Duration, WATCHED),
    idle(
        "portRange",
        Shape::Text,
        "no ports are opened for NodePorts",
    ),
    idle("windowsRunAsService", Shape::Switch, "it is about Windows"),
];

const CLIENT_CONNECTION: &[Field] = &[
    applies("kubeconfig", Shape::Text),
    idle("acceptContentTypes", Shape::Text, CLIENT),
    idle("contentType", Shape::Text, CLIENT),
    idle("qps", Shape::Number, CLIENT),
    idle("burst", Shape::Whole, CLIENT),
];

const IPTABLES: &[Field] = &[
    applies("masqueradeBit", Shape::Whole),
    applies("masqueradeAll", Shape::Switch),
    idle("localhostNodePorts", Shape::Switch, NO_LOOPBACK),
    idle("syncPeriod", Shape::Duration, EVERY_CHANGE),
    idle("minSyncPeriod", Shape::Duration, EVERY_CHANGE),
];

const IPVS: &[Field] = &[
    idle("syncPeriod", Shape::Duration, EVERY_CHANGE),
    idle("minSyncPeriod", Shape::Duration, EVERY_CHANGE),
    applies("scheduler", Shape::Text),
    idle("excludeCIDRs", Shape::Texts, OTHERS_STAY),
    idle("strictARP", Shape::Switch, ALWAYS_STRICT),
    applies("tcpTimeout", Shape::Duration),
    applies("tcpFinTimeout", Shape::Duration),
    applies("udpTimeout", Shape::Duration),
];

const NFTABLES: &[Field] = &[
    idle("masqueradeBit", Shape::Whole, NO_MARKS),
    applies("masqueradeAll", Shape::Switch),
    idle("syncPeriod", Shape::Duration, EVERY_CHANGE),
    idle("minSyncPeriod", Shape::Duration, EVERY_CHANGE),
];

const DETECT_LOCAL: &[Field] = &[
    applies("bridgeInterface", Shape::Text),
    applies("interfaceNamePrefix", Shape::Text),
];

const CONNTRACK: &[Field] = &[
    idle("maxPerCore", Shape::Whole, MACHINE),
    idle("min", Shape::Whole, MACHINE),
    idle("tcpEstablishedTimeout", Shape::Duration, MACHINE),
    idle("tcpCloseWaitTimeout", Shape::Duration, MACHINE),
    applies("tcpBeLiberal", Shape::Switch),
    idle("udpTimeout", Shape::Duration, MACHINE),
    idle("udpStreamTimeout", Shape::Duration, MACHINE),
];

pub(super) const GATES: &str = "they are kube-proxy's own";
pub(super) const LOGGING: &str = "write --log-level and --log-format";
pub(super) const PROBED: &str = "an address that is in use is tried again";
pub(super) const NO_PAGES: &str = "there are no such pages";
pub(super) const NONE_HIDDEN: &str = "no metric is hidden";
pub(super) const NO_LOOPBACK: &str = "NodePorts are not offered on 127.0.0.1";
pub(super) const MANIFEST: &str = "it is the manifest's to say";
pub(super) const CLIENT: &str = "the watches are four requests, and nothing is written";
const NO_MARKS: &str = "packets are not marked";
pub(super) const EVERY_CHANGE: &str = "each change goes to the kernel at once";
pub(super) const WATCHED: &str = "changes are watched";
pub(super) const OTHERS_STAY: &str = "virtual servers of others are left alone";
pub(super) const ALWAYS_STRICT: &str = "no address of a Service is told to the LAN";
pub(super) const MACHINE: &str = "limits of the connection tracking are set by sysctl";

impl Shape {
    /// What to write, unless the value has this shape; nothing at all always has.
    pub(super) fn unless_fits(&self, value: &Value) -> Option<&'static str> {
        if value.is_null() {
            return None;
        }
        let (fits, wanted) = match self {
            Self::Text => (value.is_string(), "a text, in quotes"),
            Self::Switch => (value.is_boolean(), "true or false"),
            Self::Whole => (value.is_i64() || value.is_u64(), "a whole number"),
            Self::Number => (value.is_number(), "a number"),
            Self::Duration => (
                value
                    .as_str()
                    .is_some_and(|text| duration_of(text).is_some()),
                "a duration such as 1m30s",
            ),
            Self::Texts => (
                value
                    .as_array()
                    .is_some_and(|items| items.iter().all(Value::is_string)),
                "a list of texts",
            ),
            Self::Section(_) | Self::Anything => (true, ""),
        };
        (!fits).then_some(wanted)
    }
}

/// Whether a value says no more than its absence would: kubeadm writes every field.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "0", "0s", "0.0.0.0", "::"].contains(&text.as_str()),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// What Go's `time.ParseDuration` makes of it, without the sign.
pub(super) fn duration_of(text: &str) -> Option<Duration> {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (digits, after) = rest.split_at(number);
        let (unit, after) = UNITS
            .iter()
            .find_map(|(unit, seconds)| Some((seconds, after.strip_prefix(unit)?)))?;
        seconds += digits.parse::<f64>().ok()? * unit;
        rest = after;
    }
    let is_something = !text.is_empty();
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| is_something)
}

/// Units and their seconds, longer names before those that they begin with.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];
