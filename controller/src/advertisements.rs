//! What the statuses of advertisements say.

use std::collections::{BTreeMap, BTreeSet};

use config::advertisement::L2Advertisement;
use config::crd::{EFFECTIVE, L2AdvertisementStatus};
use config::name::PoolName;
use config::pool::Origin;
use config::refusal::{Kind, Refusal};
use config::snapshot::Snapshot;
use jiff::Timestamp;
use serde_json::Value;

use crate::conditions::{self, Wanted, accepted, conditions, refused, shorten};

/// Why an advertisement that is in force announces less than it says.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ineffective {
    #[error("there is no pool {0}: create it, or take it out of spec.ipAddressPools")]
    UnknownPool(PoolName),
    #[error("it selects no pool: nothing is announced by it")]
    NoPool,
    #[error(
        "it selects no node: the addresses of its pools are announced by nobody else than what other advertisements select"
    )]
    NoNode,
}

impl Ineffective {
    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownPool(_) => "UnknownPool",
            Self::NoPool => "NoPool",
            Self::NoNode => "NoNode",
        }
    }
}

/// Everything by which an advertisement announces less than it says.
pub fn shortcomings(advertisement: &L2Advertisement, snapshot: &Snapshot) -> Vec<Ineffective> {
    let pools = snapshot.pools();
    let unknown = advertisement
        .pools
        .iter()
        .filter(|name| !pools.contains_key(*name));
    let mut found: Vec<Ineffective> = unknown.cloned().map(Ineffective::UnknownPool).collect();
    if !pools.values().any(|pool| advertisement.selects_pool(pool)) {
        found.push(Ineffective::NoPool);
    }
    let mut nodes = snapshot.nodes().values();
    if !nodes.any(|node| advertisement.selects_node(&node.labels)) {
        found.push(Ineffective::NoNode);
    }
    found
}

/// The conditions of all advertisements that are objects of ours in the cluster, by name.
pub fn reports(snapshot: &Snapshot, refusals: &BTreeSet<Refusal>) -> BTreeMap<String, Vec<Wanted>> {
    let refused = refused(Kind::Advertisement, refusals);
    let advertisements = snapshot.advertisements().values();
    let in_force: BTreeMap<&str, _> = advertisements
        .filter(|advertisement| advertisement.origin == Origin::Cluster)
        .map(|advertisement| (advertisement.name.as_str(), advertisement))
        .collect();
    let names: BTreeSet<&str> = in_force.keys().chain(refused.keys()).copied().collect();
    let report = |name: &str| {
        let found = in_force.get(name);
        let refusal = refused.get(name).cloned();
        let mut wanted = vec![accepted(Kind::Advertisement, found.is_some(), refusal)];
        wanted.extend(found.map(|found| effective(&shortcomings(found, snapshot))));
        wanted
    };
    let names = names.into_iter();
    names.map(|name| (name.to_owned(), report(name))).collect()
}

fn effective(shortcomings: &[Ineffective]) -> Wanted {
    match shortcomings.first() {
        None => {
            let message = "it selects pools and nodes".to_owned();
            (EFFECTIVE, true, "Selects", message)
        }
        Some(first) => {
            let texts: Vec<String> = shortcomings.iter().map(ToString::to_string).collect();
            (EFFECTIVE, false, first.reason(), shorten(texts.join("; ")))
        }
    }
}

/// The body of the server-side apply that makes the status of an advertisement say what it should; none if it does already.
pub fn apply(
    name: &str,
    known: Option<&L2AdvertisementStatus>,
    wanted: &[Wanted],
    now: Timestamp,
) -> Option<(Value, L2AdvertisementStatus)> {
    let before = known.map_or(&[][..], |known| &known.conditions);
    let status = L2AdvertisementStatus {
        conditions: conditions(before, wanted, now),
    };
    conditions::apply(Kind::Advertisement, name, known, status)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::declaration::{Group, Object, read};
    use config::node::Node;
    use config::snapshot::{Change, Dirty};

    use serde_json::json;

    use super::*;

    fn snapshot(advertisement: Value) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut apply = |change| snapshot.apply(change, &mut Dirty::default());
        for (kind, name, spec) in [
            (Kind::Pool, "lan", json!({"addresses": ["192.0.2.0/24"]})),
            (Kind::Advertisement, "a", advertisement),
        ] {
            let labels = Default::default();
            apply(
                match read(Group::Foghorn, kind, name, labels, spec, Origin::Cluster).unwrap() {
                    Object::Pool(pool) => Change::Pool(pool.name.clone(), Some(pool)),
                    Object::Advertisement(found) => {
                        Change::Advertisement(found.name.clone(), Some(found))
                    }
                },
            );
        }
        let node = Node {
            labels: [("rack".to_owned(), "1".to_owned())].into(),
            ..Node::default()
        };
        apply(Change::Node("node-1".into(), Some(Arc::new(node))));
        snapshot
    }

    #[test]
    fn says_by_what_it_announces_less_than_it_says() {
        for (spec, expected) in [
            (json!({}), &[][..]),
            (
                json!({"ipAddressPools": ["lan"], "nodeSelectors": [{"matchLabels": {"rack": "1"}}]}),
                &[],
            ),
            (json!({"ipAddressPools": ["lan", "wan"]}), &["UnknownPool"]),
            (
                json!({"ipAddressPools": ["wan"]}),
                &["UnknownPool", "NoPool"],
            ),
            (
                json!({"ipAddressPoolSelectors": [{"matchLabels": {"zone": "b"}}]}),
                &["NoPool"],
            ),
            (
                json!({"nodeSelectors": [{"matchLabels": {"rack": "2"}}]}),
                &["NoNode"],
            ),
        ] {
            let snapshot = snapshot(spec.clone());
            let advertisement = snapshot.advertisements().values().next().unwrap();
            let found = shortcomings(advertisement, &snapshot);
            let found: Vec<&str> = found.iter().map(Ineffective::reason).collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn a_status_that_says_it_is_not_written_again() {
        let snapshot = snapshot(json!({"ipAddressPools": ["wan"]}));
        let reports = reports(&snapshot, &BTreeSet::new());
        let wanted = &reports["a"];
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let (body, status) = apply("a", None, wanted, now).unwrap();
        let texts: Vec<&str> = status
            .conditions
            .iter()
            .map(|condition| condition.message.as_str())
            .collect();
        assert_eq!(
            texts,
            [
                "the advertisement is in force as written",
                "there is no pool wan: create it, or take it out of spec.ipAddressPools; it selects no pool: nothing is announced by it"
            ]
        );
        assert_eq!(body["kind"], "L2Advertisement");
        let later = "2026-01-02T03:05:05Z".parse().unwrap();
        assert_eq!(apply("a", Some(&status), wanted, later), None);
    }
}
