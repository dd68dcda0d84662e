use std::collections::BTreeMap;

use config::advertisement::L2Advertisement;
use config::pool::{OnInUse, Origin, Pool};
use config::snapshot::Change;
use objects::{node, service, slice};
use proptest::prelude::*;
use speaker_announcer::Links;

use super::*;

/// Objects as the API server has them.
mod objects {
    use config::endpoint::EndpointSlice;
    use config::snapshot::Change;
    use serde_json::{Value, json};

    use super::*;

    pub(super) fn service(name: &str, vips: &[&str], more: Value) -> Change {
        let ingress: Vec<_> = vips.iter().map(|vip| json!({"ip": vip})).collect();
        let mut object = json!({
            "metadata": {"namespace": "default", "name": name, "uid": name},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        merge(&mut object, more);
        let service = Service::from_api(&serde_json::from_value(object).unwrap()).unwrap();
        Change::Service(service.key.clone(), Some(Arc::new(service)))
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    /// The endpoints of a Service: a node for each, and whether it is ready; if not it serves while it ends.
    pub(super) fn slice(service: &str, endpoints: &[(&str, bool)]) -> Change {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(node, ready)| {
                json!({"addresses": ["10.0.0.1"], "nodeName": node,
                    "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
            })
            .collect();
        let slice = EndpointSlice::from_api(
            &serde_json::from_value(json!({
                "metadata": {"namespace": "default", "name": service,
                    "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "endpoints": endpoints, "ports": [],
            }))
            .unwrap(),
        )
        .unwrap();
        Change::Slice(
            slice.service.clone(),
            slice.name.clone(),
            Some(Arc::new(slice)),
        )
    }

    pub(super) fn node(name: &str, labels: Value, spec: Value) -> Change {
        let (name, node) = Node::from_api(
            &serde_json::from_value(json!({
                "metadata": {"name": name, "labels": labels}, "spec": spec,
            }))
            .unwrap(),
        )
        .unwrap();
        Change::Node(name, Some(Arc::new(node)))
    }
}

fn pool(name: &str, range: &str) -> Change {
    let pool = Pool {
        name: name.into(),
        origin: Origin::Cluster,
        labels: BTreeMap::new(),
        ranges: vec![range.parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        disabled: false,
        allocation: None,
        reservations: Vec::new(),
        on_in_use: OnInUse::Keep,
        quota: None,
        hold_after_deletion: None,
    };
    Change::Pool(pool.name.clone(), Some(Arc::new(pool)))
}

fn advertisement(name: &str, change: impl FnOnce(&mut L2Advertisement)) -> Change {
    let mut advertisement = L2Advertisement {
        name: name.into(),
        origin: Origin::Cluster,
        pools: Vec::new(),
        pool_selectors: Vec::new(),
        service_selectors: Vec::new(),
        node_selectors: Vec::new(),
        preferred_node_selectors: Vec::new(),
        interfaces: Vec::new(),
        failback: Default::default(),
        partition: Default::default(),
    };
    change(&mut advertisement);
    Change::Advertisement(advertisement.name.clone(), Some(Arc::new(advertisement)))
}

/// The first candidate and what may own an address, after these changes beside nodes `a` and `b`.
fn first_candidate(changes: impl IntoIterator<Item = Change>) -> (String, Vec<String>) {
    let mut snapshot = Snapshot::default();
    let mut dirty = Dirty::default();
    let nodes = ["a", "b"].map(|name| node(name, serde_json::json!({}), serde_json::json!({})));
    for change in nodes.into_iter().chain(changes) {
        snapshot.apply(change, &mut dirty);
    }
    let mut compiler = Compiler::new(settings());
    compiler.sync(&snapshot, &dirty);
    let configuration = compiler.configuration();
    let vip = configuration.vips.values().next().unwrap();
    let refused = vip.candidates.iter().filter_map(|candidate| {
        let reason = candidate.eligibility.err()?;
        Some(format!("{}: {reason}", candidate.node))
    });
    (vip.candidates[0].node.to_string(), refused.collect())
}

#[test]
fn the_node_that_a_service_asks_for_comes_first() {
    for name in ["a", "b"] {
        let asking =
            serde_json::json!({"metadata": {"annotations": {"foghorn.dev/preferred-node": name}}});
        let (first, refused) = first_candidate([
            pool("lan", "192.0.2.240-192.0.2.250"),
            service("web", &["192.0.2.240"], asking),
            slice("web", &[("a", true)]),
        ]);
        assert_eq!((first.as_str(), refused.len()), (name, 0));
    }
}

#[test]
fn a_drained_node_may_own_nothing() {
    let drained = serde_json::json!({"metadata": {"name": "a", "annotations": {"foghorn.dev/drain": "true"}}});
    let (name, drained) = Node::from_api(&serde_json::from_value(drained).unwrap()).unwrap();
    let (first, refused) = first_candidate([
        pool("lan", "192.0.2.240-192.0.2.250"),
        service("web", &["192.0.2.240"], serde_json::json!({})),
        slice("web", &[("a", true)]),
        Change::Node(name, Some(Arc::new(drained))),
    ]);
    assert_eq!(first, "b");
    assert_eq!(refused, ["a: the node is being drained"]);
}

fn selector(key: &str, value: &str) -> config::selector::LabelSelector {
    config::selector::LabelSelector::from_api(
        &serde_json::from_value(serde_json::json!({"matchLabels": {key: value}})).unwrap(),
    )
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        node: "a".into(),
        classes: ["foghorn.dev/foghorn".to_owned()].into(),
        unnamed_class: true,
        ignore_exclude_label: false,
        leave_cordoned: false,
    }
}

/// A cluster of three nodes, a pool, and a Service with ready endpoints on two of them.
fn cluster() -> Vec<Change> {
    vec![
        node("a", serde_json::json!({"zone": "1"}), serde_json::json!({})),
        node("b", serde_json::json!({"zone": "2"}), serde_json::json!({})),
        node("c", serde_json::json!({"zone": "2"}), serde_json::json!({})),
        pool("lan", "192.0.2.240-192.0.2.250"),
        service("web", &["192.0.2.240"], serde_json::json!({})),
        slice("web", &[("a", true), ("b", true)]),
    ]
}

fn compile(settings: Settings, changes: impl IntoIterator<Item = Change>) -> Compiler {
    let mut compiler = Compiler::new(settings);
    let (mut snapshot, mut dirty) = (Snapshot::default(), Dirty::default());
    for change in changes {
        snapshot.apply(change, &mut dirty);
    }
    compiler.sync(&snapshot, &dirty);
    compiler
}

/// Who may own the only VIP, and why the others may not.
#[track_caller]
fn check(settings: Settings, changes: &[Change], expected: &[(&str, &str)]) {
    let compiler = compile(
        settings,
        cluster().into_iter().chain(changes.iter().cloned()),
    );
    let found: BTreeMap<_, _> = compiler
        .vips
        .values()
        .flat_map(|vip| &vip.candidates)
        .map(|candidate| {
            let said = candidate
                .eligibility
                .map_or_else(Ineligible::label, |()| "yes");
            (candidate.node.to_string(), said)
        })
        .collect();
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(node, said)| ((*node).to_owned(), *said))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_node_may_announce_unless_something_speaks_against_it() {
    check(settings(), &[], &[("a", "yes"), ("b", "yes"), ("c", "yes")]);
    let local = || {
        service(
            "web",
            &["192.0.2.240"],
            serde_json::json!({"spec": {"externalTrafficPolicy": "Local"}}),
        )
    };
    check(
        settings(),
        &[local()],
        &[("a", "yes"), ("b", "yes"), ("c", "NoReadyLocalEndpoint")],
    );
    // The last ones serve while they end; one that is ready is better.
    let ending = slice("web", &[("a", false), ("b", false)]);
    check(
        settings(),
        &[local(), ending],
        &[("a", "yes"), ("b", "yes"), ("c", "NoReadyLocalEndpoint")],
    );
    let one_left = slice("web", &[("a", false), ("b", true)]);
    check(
        settings(),
        &[local(), one_left],
        &[
            ("a", "NoReadyLocalEndpoint"),
            ("b", "yes"),
            ("c", "NoReadyLocalEndpoint"),
        ],
    );
    let nothing = slice("web", &[]);
    check(
        settings(),
        &[nothing],
        &[
            ("a", "NoReadyEndpoint"),
            ("b", "NoReadyEndpoint"),
            ("c", "NoReadyEndpoint"),
        ],
    );
}

#[test]
fn nodes_may_be_excluded_or_about_to_go() {
    let label = serde_json::json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let excluded = node("a", label, serde_json::json!({}));
    let cordoned = node(
        "b",
        serde_json::json!({}),
        serde_json::json!({"unschedulable": true}),
    );
    let changes = [excluded, cordoned];
    check(
        settings(),
        &changes,
        &[("a", "Excluded"), ("b", "yes"), ("c", "yes")],
    );
    let other = Settings {
        ignore_exclude_label: true,
        leave_cordoned: true,
        ..settings()
    };
    check(
        other,
        &changes,
        &[("a", "yes"), ("b", "Cordoned"), ("c", "yes")],
    );
}

/// As a load balancer that hands out the addresses of nodes leaves it, or whoever may write statuses wants it.
#[test]
fn nobody_announces_the_address_of_a_node() {
    let vip = "192.0.2.240";
    for (internal, external) in [(&[vip][..], &[][..]), (&[], &[vip])] {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let has_it = Node {
            internal_ips: addresses(internal),
            external_ips: addresses(external),
            ..Node::default()
        };
        let has_it = Change::Node("b".into(), Some(Arc::new(has_it)));
        let nobody = ["a", "b", "c"].map(|node| (node, "NodeAddress"));
        check(settings(), &[has_it], &nobody);
    }
}

#[test]
fn advertisements_select_nodes_services_and_interfaces() {
    let in_zone_2 = advertisement("zone", |advertisement| {
        advertisement.node_selectors = vec![selector("zone", "2")];
    });
    check(
        settings(),
        &[in_zone_2],
        &[("a", "NotSelected"), ("b", "yes"), ("c", "yes")],
    );
    let about_another_pool = advertisement("other", |advertisement| {
        advertisement.pools = vec!["dmz".into()];
    });
    check(
        settings(),
        &[about_another_pool],
        &[("a", "yes"), ("b", "yes"), ("c", "yes")],
    );
    let for_others = advertisement("others", |advertisement| {
        advertisement.service_selectors = vec![selector("app", "mail")];
    });
    check(
        settings(),
        &[for_others],
        &[
            ("a", "NotSelected"),
            ("b", "NotSelected"),
            ("c", "NotSelected"),
        ],
    );

    let named = |zone: &'static str, interface: &'static str| {
        advertisement(zone, move |advertisement| {
            advertisement.node_selectors = vec![selector("zone", zone)];
            advertisement.interfaces = vec![interface.to_owned()];
        })
    };
    let changes = cluster()
        .into_iter()
        .chain([named("1", "eth1"), named("2", "eth2")]);
    let compiler = compile(settings(), changes);
    let vip = compiler.vips.values().next().unwrap();
    assert_eq!(
        vip.links,
        Links::Named(["eth1".to_owned()].into()),
        "what applies to this node"
    );
}

#[test]
fn only_addresses_that_are_ours_are_announced() {
    let addresses = |more: Change| {
        let compiler = compile(settings(), cluster().into_iter().chain([more]));
        compiler
            .addresses()
            .map(|address| address.to_string())
            .collect::<Vec<_>>()
    };
    let web = |vip: &str, more| service("web", &[vip], more);
    let condition = serde_json::json!({"status": {"conditions": [{"type": "foghorn.dev/AddressAssigned",
        "status": "True", "reason": "Kept", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    for (change, expected) in [
        (web("198.51.100.1", serde_json::json!({})), &[][..]),
        (web("198.51.100.1", condition), &["198.51.100.1"]),
        (
            web(
                "198.51.100.1",
                serde_json::json!({"spec": {"loadBalancerClass": "foghorn.dev/foghorn"}}),
            ),
            &["198.51.100.1"],
        ),
        (
            web(
                "192.0.2.241",
                serde_json::json!({"spec": {"loadBalancerClass": "other"}}),
            ),
            &[],
        ),
        (
            web(
                "192.0.2.241",
                serde_json::json!({"spec": {"type": "ClusterIP"}}),
            ),
            &[],
        ),
        (web("192.0.2.241", serde_json::json!({})), &["192.0.2.241"]),
    ] {
        assert_eq!(addresses(change), expected);
    }
}

#[test]
fn services_that_share_an_address_go_together() {
    let sharing = |name| {
        let key =
            serde_json::json!({"metadata": {"annotations": {"metallb.io/allow-shared-ip": "k"}}});
        service(name, &["192.0.2.240"], key)
    };
    let changes = cluster()
        .into_iter()
        .chain([sharing("web"), sharing("mail")]);
    let compiler = compile(settings(), changes);
    let vip = compiler.vips.values().next().unwrap();
    assert_eq!(vip.placement, PlacementKey::Sharing("k".to_owned()));
    assert_eq!(
        compiler.services_of("192.0.2.240".parse().unwrap()).count(),
        2
    );
    // One of them has endpoints.
    assert!(
        vip.candidates
            .iter()
            .all(|candidate| candidate.eligibility.is_ok())
    );
}

#[test]
fn sockets_are_opened_where_a_pool_or_the_node_is() {
    let link = |name: &str, addresses: &[&str]| speaker_announcer::Link {
        index: speaker_announcer::LinkIndex(2),
        name: name.to_owned(),
        mac: speaker_announcer::MacAddr::new(2, 0, 0, 0, 0, 1),
        up: true,
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
    };
    let own = Node {
        internal_ips: vec!["198.51.100.5".parse().unwrap()],
        ..Node::default()
    };
    let own = Change::Node("a".into(), Some(Arc::new(own)));
    let named = advertisement("named", |advertisement| {
        advertisement.interfaces = vec!["dmz0".to_owned()]
    });
    let compiler = compile(settings(), cluster().into_iter().chain([own, named]));
    for (link, expected) in [
        (link("eth0", &["192.0.2.5/24"]), true),
        (link("eth0", &["192.0.2.245/32"]), false),
        (link("eth1", &["198.51.100.5/24"]), true),
        (link("eth2", &["198.51.100.6/24"]), false),
        (link("cni0", &["10.0.0.1/24"]), false),
        (link("dmz0", &[]), true),
        (link("eth3", &["2001:db8::5/64"]), false),
    ] {
        assert_eq!(compiler.scope().concerns(&link), expected, "{link:?}");
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let service = (
        0..4_u8,
        prop::collection::vec(239..244_u8, 0..3),
        any::<bool>(),
        any::<bool>(),
    );
    let service = service.prop_map(|(number, vips, local, gone)| {
        let vips: Vec<_> = vips.iter().map(|last| format!("192.0.2.{last}")).collect();
        let vips: Vec<_> = vips.iter().map(String::as_str).collect();
        let policy = if local { "Local" } else { "Cluster" };
        let change = objects::service(
            &format!("s{number}"),
            &vips,
            serde_json::json!({"spec": {"externalTrafficPolicy": policy}}),
        );
        match change {
            Change::Service(key, _) if gone => Change::Service(key, None),
            change => change,
        }
    });
    let nodes = || prop::sample::select(vec!["a", "b", "c"]);
    let slice = (
        0..4_u8,
        prop::collection::vec((nodes(), any::<bool>()), 0..3),
    );
    let slice =
        slice.prop_map(|(number, endpoints)| objects::slice(&format!("s{number}"), &endpoints));
    let node_change = (nodes(), any::<bool>(), any::<bool>()).prop_map(|(name, excluded, gone)| {
        let labels = if excluded {
            serde_json::json!({config::node::EXCLUDE_LABEL: ""})
        } else {
            serde_json::json!({"zone": name})
        };
        match node(name, labels, serde_json::json!({})) {
            Change::Node(name, _) if gone => Change::Node(name, None),
            change => change,
        }
    });
    let pool = (240..243_u8).prop_map(|first| pool("lan", &format!("192.0.2.{first}-192.0.2.250")));
    let advertisement = (nodes(), any::<bool>()).prop_map(|(zone, gone)| {
        let change = advertisement("zone", |advertisement| {
            advertisement.node_selectors = vec![selector("zone", zone)];
        });
        match change {
            Change::Advertisement(name, _) if gone => Change::Advertisement(name, None),
            change => change,
        }
    });
    prop_oneof![4 => service, 3 => slice, 2 => node_change, 1 => pool, 1 => advertisement]
}

proptest! {
    #[test]
    fn change_by_change_equals_all_at_once(batches in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 1..12)) {
        let mut compiler = Compiler::new(settings());
        let mut snapshot = Snapshot::default();
        for batch in &batches {
            let mut dirty = Dirty::default();
            let before = (compiler.configuration(), compiler.scope().clone());
            for change in batch {
                snapshot.apply(change.clone(), &mut dirty);
            }
            let changed = compiler.sync(&snapshot, &dirty);
            let after = (compiler.configuration(), compiler.scope().clone());
            prop_assert!(changed || before == after, "a change was not noticed");
        }
        let fresh = compile(settings(), batches.into_iter().flatten());
        prop_assert_eq!(compiler.configuration(), fresh.configuration());
        prop_assert_eq!(compiler.scope(), fresh.scope());
        prop_assert_eq!(compiler.services, fresh.services);
    }
}
