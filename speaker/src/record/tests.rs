use std::time::Duration;

use proptest::prelude::*;
use speaker_announcer::{Ineligible, MacAddr, VipStanding};

use super::*;

const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fn vip() -> IpAddr {
    "192.0.2.240".parse().unwrap()
}

fn subject() -> Subject {
    Subject {
        service: ServiceKey::new("default", "web"),
        vip: vip(),
    }
}

fn state(owner: Option<&str>, own: Standing) -> State {
    let standing = VipStanding {
        owner: owner.map(NodeName::from),
        since: None,
        candidates: vec![
            ("node-1".into(), own.clone()),
            ("node-2".into(), Standing::Ineligible(Ineligible::Excluded)),
        ],
        own,
    };
    let view = VipView {
        standing,
        owned_for: Some(Duration::from_secs(1)),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mac: MAC,
        }],
    };
    State {
        vips: [(vip(), view)].into(),
        ..State::default()
    }
}

fn duties_of(state: &State, history: &History) -> BTreeMap<Subject, Duty> {
    let services = |_| vec![(ServiceKey::new("default", "web"), "uid".to_owned())];
    duties(&"node-1".into(), state, history, services)
}

fn history(event: &Event) -> History {
    let mut history = History::default();
    history.note(event, "2026-11-25T10:00:00.5Z".parse().unwrap());
    history
}

fn owner() -> Standing {
    Standing::Owner { leaving: false }
}

#[test]
fn an_object_is_named_after_service_and_address() {
    for (vip, expected) in [
        ("192.0.2.240", "web.192.0.2.240"),
        ("2001:db8::1", "web.2001-db8-0-0-0-0-0-1"),
        ("::", "web.0-0-0-0-0-0-0-0"),
    ] {
        let subject = Subject {
            vip: vip.parse().unwrap(),
            ..subject()
        };
        assert_eq!(subject.object_name(), expected);
    }
}

#[test]
fn the_owner_writes_who_where_since_when_and_why() {
    let history = history(&Event::TakenOver {
        vip: vip(),
        from: "node-2".into(),
        silent_for: Duration::from_millis(190),
    });
    let duties = duties_of(&state(Some("node-1"), owner()), &history);
    let Some(Duty::Write(record)) = duties.get(&subject()) else {
        panic!("{duties:?}");
    };
    let written = serde_json::to_value(&record.status).unwrap();
    let expected = serde_json::json!({
        "address": "192.0.2.240", "node": "node-1", "serviceName": "web", "serviceNamespace": "default",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}],
        "since": "2026-11-25T10:00:00Z", "reason": "AddressTakenOver",
        "message": "took over 192.0.2.240 from node-2, silent for 190 ms",
        "candidates": [
            {"node": "node-1", "standing": "Owner", "reason": "owns the address"},
            {"node": "node-2", "standing": "Excluded",
             "reason": "the node is labelled node.kubernetes.io/exclude-from-external-load-balancers"},
        ],
    });
    assert_eq!(written, expected);
}

#[test]
fn who_writes_what() {
    let quarantined = Standing::Quarantined { mac: MAC };
    let idle = Standing::Ineligible(Ineligible::NoReadyEndpoint);
    let kept = [subject()];
    // Who owns it, where this node stands, whether it wrote last: whether it writes, with which node and conflict.
    for (owner_is, own, kept, expected) in [
        (Some("node-1"), owner(), &[][..], Some(("node-1", false))),
        (Some("node-2"), idle.clone(), &[], None),
        (Some("node-2"), idle.clone(), &kept, None),
        (None, idle.clone(), &[], None),
        (None, idle, &kept, Some(("", false))),
        (None, quarantined, &[], Some(("", true))),
    ] {
        let duties = duties_of(&state(owner_is, own), &History::default());
        let mut written = Written::default();
        kept.iter()
            .for_each(|subject: &Subject| written.found(subject.clone()));
        let step = written.next(&duties);
        let found = match &step {
            Some(Step::Write(_, record)) => Some((
                record.status.node.as_str(),
                record.status.conflict.is_some(),
            )),
            Some(Step::Remove(_)) | None => None,
        };
        assert_eq!(found, expected, "{owner_is:?} {kept:?}");
    }
}

#[test]
fn what_is_not_to_be_is_removed_once_and_what_others_write_is_left_alone() {
    let mut written = Written::default();
    let mine = duties_of(&state(Some("node-1"), owner()), &History::default());
    let step = written.next(&mine).unwrap();
    assert!(matches!(step, Step::Write(..)));
    written.done(step);
    assert_eq!(written.next(&mine), None);
    let theirs = [(subject(), Duty::Leave)].into();
    assert_eq!(written.next(&theirs), None);
    assert_eq!(written.next(&BTreeMap::new()), None, "it is another's now");
    written.found(subject());
    assert_eq!(
        written.next(&BTreeMap::new()),
        Some(Step::Remove(subject()))
    );
    written.done(Step::Remove(subject()));
    assert_eq!(written.next(&BTreeMap::new()), None);
}

proptest! {
    /// Whatever the duties were: after the steps of each there is nothing left to do, what is written is what the last ones
    /// say, and nothing is written twice.
    #[test]
    fn the_records_are_what_the_last_duties_say(
        stories in prop::collection::vec(prop::collection::btree_map(0..4_u8, 0..5_u8, 0..4), 1..8),
    ) {
        let mut written = Written::default();
        let mut objects: BTreeMap<Subject, Arc<Record>> = BTreeMap::new();
        for story in stories {
            let duties: BTreeMap<_, _> = story.iter().map(|(&number, &what)| {
                let subject = Subject { service: ServiceKey::new("a", number.to_string()), vip: vip() };
                let record = Arc::new(Record { service_uid: what.to_string(), status: ServiceL2StatusStatus::default() });
                let duty = match what {
                    0 => Duty::Leave,
                    1 | 2 => Duty::Write(record),
                    _ => Duty::Correct(record),
                };
                (subject, duty)
            }).collect();
            let before = objects.clone();
            let mut steps = 0;
            while let Some(step) = written.next(&duties) {
                steps += 1;
                prop_assert!(steps <= 8, "it does not come to an end");
                match &step {
                    Step::Write(subject, record) => {
                        prop_assert_ne!(objects.get(subject), Some(record));
                        objects.insert(subject.clone(), Arc::clone(record));
                    }
                    Step::Remove(subject) => {
                        prop_assert!(objects.remove(subject).is_some());
                    }
                }
                written.done(step);
            }
            // Another node writes them from now on.
            objects.retain(|subject, _| duties.get(subject) != Some(&Duty::Leave));
            let wanted: BTreeMap<_, _> = duties.iter().filter_map(|(subject, duty)| match duty {
                Duty::Write(record) => Some((subject.clone(), Arc::clone(record))),
                Duty::Correct(record) => before.contains_key(subject).then(|| (subject.clone(), Arc::clone(record))),
                Duty::Leave => None,
            }).collect();
            prop_assert_eq!(&objects, &wanted);
        }
    }
}
