//! The fields of `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`, Kubernetes 1.37), and which of them apply.

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
    idle("featureGates", Shape::Anything, "they are kube-proxy's own"),
    section("clientConnection", CLIENT_CONNECTION),
    idle(
        "logging",
        Shape::Anything,
        "write --log-level and --log-format",
    ),
    applies("hostnameOverride", Shape::Text),
    idle(
        "bindAddress",
        Shape::Text,
        "write healthzBindAddress and metricsBindAddress",
    ),
    applies("healthzBindAddress", Shape::Text),
    applies("metricsBindAddress", Shape::Text),
    idle(
        "bindAddressHardFail",
        Shape::Switch,
        "an address that is in use is tried again",
    ),
    idle("enableProfiling", Shape::Switch, "there are no such pages"),
    idle(
        "showHiddenMetricsForVersion",
        Shape::Text,
        "no metric is hidden",
    ),
    applies("mode", Shape::Text),
    section("iptables", IPTABLES),
    section("ipvs", IPVS),
    section("nftables", NFTABLES),
    idle("winkernel", Shape::Anything, "it is about Windows"),
    applies("detectLocalMode", Shape::Text),
    section("detectLocal", DETECT_LOCAL),
    applies("clusterCIDR", Shape::Text),
    applies("nodePortAddresses", Shape::Texts),
    idle("oomScoreAdj", Shape::Whole, "it is the manifest's to say"),
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
    idle(
        "localhostNodePorts",
        Shape::Switch,
        "NodePorts are not offered on 127.0.0.1",
    ),
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

const CLIENT: &str = "the watches are four requests, and nothing is written";
const NO_MARKS: &str = "packets are not marked";
const EVERY_CHANGE: &str = "each change goes to the kernel at once";
const WATCHED: &str = "changes are watched";
const OTHERS_STAY: &str = "virtual servers of others are left alone";
const ALWAYS_STRICT: &str = "no address of a Service is told to the LAN";
const MACHINE: &str = "limits of the connection tracking are set by sysctl";
