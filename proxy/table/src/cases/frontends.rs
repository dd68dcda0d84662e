//! What a frontend does with whom: its address, its port, its policy.

use config::service::Protocol;
use serde_json::json;

use super::{both, check, context, flow, ready, table, table_in};
use crate::{Flow, NodeContext, PodDetection, Verdict};

#[test]
fn a_cluster_ip_goes_to_every_endpoint_and_masquerades_whoever_is_no_pod() {
    check(
        &table(json!({}), both()),
        &[
            (
                "10.244.1.9 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "192.0.2.1@node to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "198.51.100.1 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "10.244.1.2 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080",
            ),
        ],
    );
}

#[test]
fn without_pod_detection_only_the_hairpin_is_masqueraded_unless_all_are() {
    let blind = NodeContext {
        pods: PodDetection::None,
        ..context()
    };
    check(
        &table_in(blind.clone(), json!({}), both()),
        &[
            (
                "198.51.100.1 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "10.244.1.2 to 10.96.0.1:80",
                "10.244.1.2:8080* 10.244.2.2:8080",
            ),
        ],
    );
    let all = NodeContext {
        masquerade_all: true,
        ..blind
    };
    check(
        &table_in(all, json!({}), both()),
        &[(
            "10.244.1.9 to 10.96.0.1:80",
            "10.244.1.2:8080* 10.244.2.2:8080*",
        )],
    );
}

#[test]
fn what_a_cluster_ip_has_no_port_for_is_rejected_and_what_nobody_has_is_dropped() {
    check(
        &table(json!({}), both()),
        &[
            ("10.244.1.9 to 10.96.0.1:81", "Reject"),
            ("10.244.1.9 to 10.96.0.1:30080", "Reject"),
            ("10.244.1.9 to 10.96.0.2:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:81", "NotOurs"),
            ("10.244.1.9 to 192.0.2.1:80", "NotOurs"),
            ("10.244.1.9 to 192.0.2.2:30080", "NotOurs"),
        ],
    );
}

#[test]
fn an_external_frontend_with_policy_cluster_masquerades_everybody() {
    check(
        &table(json!({}), both()),
        &[
            (
                "198.51.100.1 to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "10.244.1.9 to 192.0.2.1:30080",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
            (
                "192.0.2.1@node to 192.0.2.1:30080",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
}

#[test]
fn an_external_frontend_with_policy_local_is_local_to_outsiders_only() {
    let local = || json!({"spec": {"externalTrafficPolicy": "Local"}});
    check(
        &table(local(), both()),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "10.244.1.2:8080"),
            ("198.51.100.1 to 192.0.2.1:30080", "10.244.1.2:8080"),
            (
                "10.244.1.9 to 203.0.113.7:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
            (
                "192.0.2.1@node to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
    check(
        &table(local(), json!([ready("10.244.2.2", "there")])),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:80", "10.244.2.2:8080"),
        ],
    );
    check(
        &table(local(), json!([])),
        &[
            ("198.51.100.1 to 203.0.113.7:80", "Reject"),
            ("10.244.1.9 to 203.0.113.7:80", "Reject"),
        ],
    );
}

#[test]
fn an_internal_policy_local_drops_where_only_others_have_endpoints() {
    let local = || json!({"spec": {"internalTrafficPolicy": "Local"}});
    check(
        &table(local(), both()),
        &[
            ("10.244.1.9 to 10.96.0.1:80", "10.244.1.2:8080"),
            (
                "198.51.100.1 to 203.0.113.7:80",
                "10.244.1.2:8080* 10.244.2.2:8080*",
            ),
        ],
    );
    check(
        &table(local(), json!([ready("10.244.2.2", "there")])),
        &[("10.244.1.9 to 10.96.0.1:80", "Drop")],
    );
    check(
        &table(local(), json!([])),
        &[("10.244.1.9 to 10.96.0.1:80", "Reject")],
    );
}

#[test]
fn source_ranges_filter_the_load_balancer_address_alone() {
    let ranges = |ranges: &[&str]| json!({"spec": {"loadBalancerSourceRanges": ranges}});
    let everybody = "10.244.1.2:8080* 10.244.2.2:8080*";
    check(
        &table(ranges(&["198.51.100.0/25"]), both()),
        &[
            ("198.51.100.1 to 203.0.113.7:80", everybody),
            ("198.51.100.200 to 203.0.113.7:80", "Drop"),
            ("10.244.1.9 to 203.0.113.7:80", "Drop"),
            ("203.0.113.7@node to 203.0.113.7:80", "Drop"),
            ("198.51.100.200 to 192.0.2.1:30080", everybody),
            (
                "10.244.1.9 to 10.96.0.1:80",
                "10.244.1.2:8080 10.244.2.2:8080",
            ),
        ],
    );
    check(
        &table(ranges(&["192.0.2.0/24"]), both()),
        &[("203.0.113.7@node to 203.0.113.7:80", everybody)],
    );
    check(
        &table(ranges(&["198.51.100.0/25"]), json!([])),
        &[
            ("198.51.100.200 to 203.0.113.7:80", "Drop"),
            ("198.51.100.1 to 203.0.113.7:80", "Reject"),
        ],
    );
    check(
        &table(ranges(&["2001:db8::/32"]), both()),
        &[("198.51.100.1 to 203.0.113.7:80", "Drop")],
    );
}

#[test]
fn a_node_port_is_offered_in_the_families_of_the_service() {
    check(
        &table(json!({}), both()),
        &[("2001:db8:9::1 to [2001:db8:2::1]:30080", "NotOurs")],
    );
    let six = json!({"spec": {"clusterIP": "2001:db8:1::1", "clusterIPs": ["2001:db8:1::1"]}});
    check(
        &table(six, json!([ready("2001:db8:f::2", "there")])),
        &[
            (
                "2001:db8:9::1 to [2001:db8:2::1]:30080",
                "[2001:db8:f::2]:8080*",
            ),
            ("2001:db8:9::1 to [2001:db8:1::1]:81", "Reject"),
        ],
    );
}

#[test]
fn a_port_exists_per_protocol() {
    let table = table(json!({}), both());
    for protocol in [Protocol::Udp, Protocol::Sctp] {
        let flow = Flow {
            protocol,
            ..flow("10.244.1.9 to 10.96.0.1:80")
        };
        assert_eq!(table.verdict(&flow), Verdict::Reject);
    }
}
