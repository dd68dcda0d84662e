//! What the fields mean, and what is said of those that mean nothing.

use serde_json::json;

use super::*;
use crate::advertisement::{Failback, PartitionPolicy};
use crate::pool::{OnInUse, Origin};
use crate::selector::Labels;

#[test]
fn every_field_of_a_pool_means_something() {
    let spec: IPAddressPoolSpec = serde_json::from_value(json!({
        "addresses": ["192.0.2.0/28", "2001:db8::1"],
        "autoAssign": false, "avoidBuggyIPs": true, "disabled": true, "onInUse": "Reassign",
        "quota": {"perNamespace": 2}, "holdAfterDeletion": "10m",
        "serviceAllocation": {
            "priority": 7, "namespaces": ["media"],
            "namespaceSelectors": [{"matchLabels": {"team": "a"}}],
            "serviceSelectors": [{"matchExpressions": [{"key": "lan", "operator": "Exists"}]}],
        },
        "reservations": [{"address": "192.0.2.3", "service": "media/jellyfin"}],
    }))
    .unwrap();
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    let pool = spec
        .to_pool("lan", labels.clone(), Origin::Cluster)
        .unwrap();
    let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let allocation = pool.allocation.as_ref().unwrap();
    assert!(!pool.auto_assign && pool.avoid_buggy_ips && pool.disabled);
    assert_eq!(
        (pool.labels.clone(), pool.on_in_use),
        (labels, OnInUse::Reassign)
    );
    assert_eq!(pool.ranges.len(), 2);
    assert_eq!(pool.quota.map(u32::from), Some(2));
    assert_eq!(
        pool.hold_after_deletion.map(|hold| hold.seconds()),
        Some(600)
    );
    assert_eq!(allocation.priority, 7);
    assert!(allocation.admits_namespace("media", &Labels::new()));
    assert!(allocation.admits_namespace("x", &label("team", "a")));
    assert!(!allocation.admits_namespace("x", &Labels::new()));
    assert!(allocation.admits_service(&label("lan", "")));
    assert!(!allocation.admits_service(&Labels::new()));
    let reserved = pool.reserved_for("192.0.2.3".parse().unwrap());
    assert_eq!(reserved.unwrap().to_string(), "media/jellyfin");
}

#[test]
fn what_is_not_written_is_what_the_documentation_says() {
    let spec: IPAddressPoolSpec =
        serde_json::from_value(json!({"addresses": ["192.0.2.1"]})).unwrap();
    let pool = spec.to_pool("lan", Labels::new(), Origin::Cluster).unwrap();
    assert!(pool.auto_assign && !pool.avoid_buggy_ips && !pool.disabled);
    assert_eq!((pool.allocation, pool.on_in_use), (None, OnInUse::Keep));
    assert_eq!((pool.quota, pool.hold_after_deletion), (None, None));
    let spec: L2AdvertisementSpec = serde_json::from_value(json!({})).unwrap();
    let advertisement = spec.to_advertisement("lan", Origin::Cluster).unwrap();
    assert_eq!(advertisement.failback, Failback::Never);
    assert_eq!(advertisement.partition, PartitionPolicy::Available);
    assert!(advertisement.selects_node(&Labels::new()));
    assert!(advertisement.selects_service(&Labels::new()));
}

#[test]
fn every_field_of_an_advertisement_means_something() {
    let spec: L2AdvertisementSpec = serde_json::from_value(json!({
        "ipAddressPools": ["lan"], "ipAddressPoolSelectors": [{"matchLabels": {"a": "b"}}],
        "serviceSelectors": [{"matchLabels": {"s": ""}}],
        "nodeSelectors": [{"matchLabels": {"n": ""}}],
        "preferredNodeSelectors": [
            {"weight": 100, "preference": {"matchLabels": {"fast": ""}}},
            {"weight": 1, "preference": {}},
        ],
        "interfaces": ["eth0"], "failback": "Idle", "partition": "Strict",
    }))
    .unwrap();
    let found = spec.to_advertisement("lan", Origin::Cluster).unwrap();
    let label = |key: &str| Labels::from([(key.to_owned(), String::new())]);
    assert_eq!(found.pools, ["lan".into()]);
    assert_eq!(found.pool_selectors.len(), 1);
    assert!(found.selects_service(&label("s")) && !found.selects_service(&label("n")));
    assert!(found.selects_node(&label("n")) && !found.selects_node(&label("s")));
    assert_eq!(found.preference(&label("fast")), 101);
    assert_eq!(found.preference(&label("slow")), 1);
    assert_eq!(found.interfaces, ["eth0"]);
    assert_eq!(
        (found.failback, found.partition),
        (Failback::Idle, PartitionPolicy::Strict)
    );
}

#[test]
fn refusals_name_the_field() {
    let spec: L2AdvertisementSpec = serde_json::from_value(json!({
        "nodeSelectors": [{}, {"matchExpressions": [{"key": "a", "operator": "In"}]}],
        "preferredNodeSelectors": [{"weight": 101, "preference": {}}],
    }))
    .unwrap();
    let errors = spec.to_advertisement("lan", Origin::Cluster).unwrap_err();
    let found: Vec<_> = errors
        .iter()
        .map(|error| format!("{}: {}", error.field, error.reason))
        .collect();
    assert_eq!(
        found,
        [
            "spec.nodeSelectors[1]: In of the label a needs at least one value",
            "spec.preferredNodeSelectors[0].weight: the weight 101 is not from 1 to 100: write how much better these nodes are",
        ]
    );
}
