//! Which examples there are, and what must come of each.

/// Where an example is in MetalLB's module.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// A file of `configsamples`.
    Sample(&'static str),
    /// The first block of a page of its website that has these words.
    Page(&'static str, &'static [&'static str]),
}

/// An example.
pub(crate) struct Example {
    /// What it shows.
    pub(crate) about: &'static str,
    pub(crate) sources: &'static [Source],
    /// What it names and leaves to the reader.
    pub(crate) besides: &'static [Pool],
    pub(crate) services: &'static [Expected],
}

/// A Service, and what it must have.
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    /// Whether the test makes it; otherwise the example does.
    pub(crate) is_ours: bool,
    pub(crate) labels: &'static [(&'static str, &'static str)],
    pub(crate) annotations: &'static [(&'static str, &'static str)],
    /// The pool that its addresses are from; `None` if it must have none.
    pub(crate) pool: Option<&'static str>,
    /// How many addresses: two are one of each family.
    pub(crate) addresses: usize,
    /// The address that it must have.
    pub(crate) wish: Option<&'static str>,
    /// The nodes that may announce it; none if nothing is behind it.
    pub(crate) nodes: &'static [usize],
}

/// One IPv4 address from a pool, announced by any node.
const fn from_pool(pool: &'static str) -> Expected {
    Expected {
        name: "web",
        namespace: "default",
        is_ours: true,
        labels: &[],
        annotations: &[],
        pool: Some(pool),
        addresses: 1,
        wish: None,
        nodes: &[1, 2, 3],
    }
}

const fn both_families(pool: &'static str) -> Expected {
    Expected {
        addresses: 2,
        ..from_pool(pool)
    }
}

/// A Service of the example itself.
const fn of_example(name: &'static str, pool: &'static str) -> Expected {
    Expected {
        name,
        is_ours: false,
        ..from_pool(pool)
    }
}

/// What the examples have and is not here, and what is here instead, of the same form.
pub(crate) const HERE: &[(&str, &str)] = &[
    ("192.168.10.0/24", "192.168.1.128/27"),
    ("192.168.9.1-192.168.9.5", "192.168.1.201-192.168.1.205"),
    ("fc00:f853:0ccd:e799::/124", "fd12:3456:789a:1::f:0/124"),
    ("192.168.20.0/24", "192.168.1.160/27"),
    ("42.176.25.64/30", "192.168.1.208/30"),
    ("192.168.144.0/20", "192.168.1.192/29"),
    // The outside machine has this one.
    ("192.168.1.100", "192.168.1.150"),
    ("loadBalancerIP: 1.2.3.4", "loadBalancerIP: 192.168.1.151"),
    ("kind-control-plane", "node-1"),
    ("NodeA", "node-1"),
    ("NodeB", "node-2"),
    ("NodeC", "node-3"),
    ("hostB", "node-2"),
    ("eno1", "eth0"),
    ("ens18", "eth0"),
    ("eth3", "eth0"),
];

/// The namespaces of the examples, and the labels that they must have.
pub(crate) const NAMESPACES: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("metallb-system", &[]),
    ("namespace-a", &[]),
    ("labelled", &["foo=bar"]),
];

/// A pool that an example takes for granted: its name and what its `spec` says.
pub(crate) type Pool = (&'static str, &'static str);

const SOME: &str = "addresses: [192.168.1.128/27]";
const LAN: Pool = ("lan", "addresses: [192.168.1.128-192.168.1.199]");
const PUBLIC: Pool = (
    "production-public-ips",
    "autoAssign: false, addresses: [192.168.1.128/27]",
);

const START: &str = "configuration/_index.md";
const POOLS: &str = "configuration/_advanced_ipaddresspool_configuration.md";
const LAYER_2: &str = "configuration/_advanced_l2_configuration.md";
const USAGE: &str = "usage/_index.md";
const FULL: &str = "usage/example.md";

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        about: "a pool with three ranges and an advertisement",
        sources: &[Source::Sample("simple_pool_adv_l2.yaml")],
        besides: &[],
        services: &[both_families("example")],
    },
    Example {
        about: "a pool alone",
        sources: &[Source::Sample("ipaddresspool_simple.yaml")],
        besides: &[],
        services: &[both_families("example")],
    },
    Example {
        about: "a pool for some namespaces and Services, without buggy addresses",
        sources: &[Source::Sample("ipaddresspool_with_selector.yaml")],
        besides: &[],
        services: &[
            Expected {
                name: "by-name",
                namespace: "namespace-a",
                labels: &[("app", "bar")],
                ..from_pool("ippool-ns-service-alloc-sample")
            },
            Expected {
                name: "by-label",
                namespace: "labelled",
                labels: &[("app", "bar")],
                ..from_pool("ippool-ns-service-alloc-sample")
            },
            Expected {
                name: "other-label",
                namespace: "namespace-a",
                pool: None,
                ..from_pool("")
            },
            Expected {
                name: "other-namespace",
                labels: &[("app", "bar")],
                pool: None,
                ..from_pool("")
            },
        ],
    },
    Example {
        about: "an advertisement of a pool by its name",
        sources: &[
            Source::Sample("l2adv_selects_pools_by_list.yaml"),
            Source::Page(START, &["kind: IPAddressPool", "192.168.9.1-192.168.9.5"]),
        ],
        besides: &[],
        services: &[both_families("first-pool")],
    },
    Example {
        about: "an advertisement from one node",
        sources: &[
            Source::Sample("l2adv_with_node_selector.yaml"),
            Source::Sample("ipaddresspool_simple.yaml"),
        ],
        besides: &[],
        services: &[Expected {
            nodes: &[1],
            ..both_families("example")
        }],
    },
    Example {
        about: "the page on layer 2, a range and an advertisement of everything",
        sources: &[
            Source::Page(START, &["192.168.1.240-192.168.1.250"]),
            Source::Page(START, &["kind: L2Advertisement"]),
        ],
        besides: &[],
        services: &[from_pool("first-pool")],
    },
    Example {
        about: "a cheap pool and an expensive one that is not given unasked",
        sources: &[
            Source::Page(POOLS, &["name: cheap"]),
            Source::Page(POOLS, &["autoAssign: false"]),
        ],
        besides: &[],
        services: &[
            from_pool("cheap"),
            Expected {
                name: "rich",
                annotations: &[("metallb.io/address-pool", "expensive")],
                ..from_pool("expensive")
            },
        ],
    },
    Example {
        about: "nodes that a pool is announced from",
        sources: &[
            Source::Page(LAYER_2, &["first-pool", "NodeA", "NodeB"]),
            Source::Page(START, &["192.168.1.240-192.168.1.250"]),
        ],
        besides: &[],
        services: &[Expected {
            nodes: &[1, 2],
            ..from_pool("first-pool")
        }],
    },
    Example {
        about: "one node for another pool",
        sources: &[Source::Page(LAYER_2, &["second-pool"])],
        besides: &[("second-pool", SOME)],
        services: &[Expected {
            nodes: &[3],
            ..from_pool("second-pool")
        }],
    },
    Example {
        about: "interfaces, of which nodes have one",
        sources: &[Source::Page(LAYER_2, &["third-pool"])],
        besides: &[("third-pool", SOME)],
        services: &[from_pool("third-pool")],
    },
    Example {
        about: "an interface of one node",
        sources: &[Source::Page(LAYER_2, &["fourth-pool"])],
        besides: &[("fourth-pool", SOME)],
        services: &[Expected {
            nodes: &[1],
            ..from_pool("fourth-pool")
        }],
    },
    Example {
        about: "the union of advertisements",
        sources: &[Source::Page(LAYER_2, &["example-advertisement9"])],
        besides: &[("pool1", SOME)],
        services: &[from_pool("pool1")],
    },
    Example {
        about: "the full example without BGP, where sandboxes name their pool",
        sources: &[
            Source::Page(FULL, &["kind: IPAddressPool", "name: production"]),
            Source::Page(FULL, &["kind: IPAddressPool", "name: sandbox"]),
        ],
        besides: &[],
        services: &[Expected {
            annotations: &[("metallb.io/address-pool", "sandbox")],
            ..from_pool("sandbox")
        }],
    },
    Example {
        about: "a Service that asks for an address",
        sources: &[Source::Page(USAGE, &["metallb.io/loadBalancerIPs:"])],
        besides: &[LAN],
        services: &[Expected {
            wish: Some("192.168.1.150"),
            ..of_example("nginx", "lan")
        }],
    },
    Example {
        about: "a Service that asks for a pool",
        sources: &[Source::Page(USAGE, &["metallb.io/address-pool:"])],
        besides: &[PUBLIC],
        services: &[of_example("nginx", "production-public-ips")],
    },
    Example {
        about: "two Services with one address",
        sources: &[Source::Page(USAGE, &["metallb.io/allow-shared-ip:"])],
        besides: &[LAN],
        services: &[
            Expected {
                wish: Some("192.168.1.151"),
                nodes: &[],
                ..of_example("dns-service-tcp", "lan")
            },
            Expected {
                wish: Some("192.168.1.151"),
                nodes: &[],
                ..of_example("dns-service-udp", "lan")
            },
        ],
    },
    // The last: it brings the Deployment of the others, and takes it away.
    Example {
        about: "everything from the pool to the web server",
        sources: &[Source::Sample("deployment_l2.yaml")],
        besides: &[],
        services: &[of_example("nginx", "example")],
    },
];
