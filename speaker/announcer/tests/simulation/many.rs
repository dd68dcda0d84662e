//! Hundreds of addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::setup::*;
use crate::support::segment::Segment;

#[test]
fn a_node_that_comes_back_takes_none_of_hundreds_of_addresses() {
    let names = &NAMES[..5];
    let configuration = many(names, 500);
    let mut segment = Segment::new(19, names, &configuration);
    segment.start_all();
    segment.run(Duration::from_secs(3));
    for victim in 0..5 {
        segment.set_link(victim, false);
        segment.run(Duration::from_secs(1));
        moves(&mut segment);
        segment.set_link(victim, true);
        segment.run(Duration::from_secs(3));
        let moved = moves(&mut segment);
        assert!(moved.is_empty(), "{} moves: {:?}", moved.len(), &moved[..5]);
    }
}

#[test]
fn a_cold_start_gives_every_address_one_owner_and_spreads_them() {
    let segment = settled(1, 4, 12);
    let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
    for vip in (0..12).map(address) {
        *shares.entry(segment.owners(vip)[0]).or_default() += 1;
        let first = segment.machines[0].configuration.vips[&vip].candidates[0]
            .node
            .to_string();
        assert_eq!(
            segment.machines[segment.owners(vip)[0]].name,
            first,
            "{}",
            segment.log.join("\n")
        );
    }
    assert!(shares.len() >= 3, "{shares:?}");
}

#[test]
fn five_hundred_addresses_fail_over_within_the_same_promise() {
    let names = &NAMES[..5];
    let configuration = spread(names, 500);
    let mut segment = Segment::new(15, names, &configuration);
    segment.start_all();
    segment.run(Duration::from_secs(3));
    let owned = |segment: &Segment, number: usize| -> usize {
        segment.machines[number]
            .announcer
            .as_ref()
            .map_or(0, |announcer| announcer.owned().count())
    };
    let shares: Vec<_> = (0..5).map(|number| owned(&segment, number)).collect();
    assert_eq!(shares.iter().sum::<usize>(), 500, "{shares:?}");
    assert!(
        shares.iter().all(|share| (60..=140).contains(share)),
        "{shares:?}"
    );
    segment.kill(2);
    let death = segment.now;
    while (0..5).map(|number| owned(&segment, number)).sum::<usize>() < 500 {
        assert!(
            segment.step(death + Duration::from_millis(350)),
            "not all are served"
        );
    }
    println!("all of {} within {:?}", shares[2], segment.now.since(death));
    segment.run(Duration::from_secs(5));
    assert_eq!(
        (0..5).map(|number| owned(&segment, number)).sum::<usize>(),
        500
    );
}

/// Thirty machines, hundreds of addresses: after a second each has one owner, and nothing moves any more.
#[test]
fn thirty_machines_share_hundreds_of_addresses() {
    let names: Vec<String> = (1..=30).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let configuration = spread(&names, 300);
    let mut segment = Segment::new(31, &names, &configuration);
    segment.start_all();
    segment.run(Duration::from_secs(1));
    let mut shares = vec![0; names.len()];
    for &vip in configuration.vips.keys() {
        let owners = segment.owners(vip);
        assert_eq!(owners.len(), 1, "{vip}");
        shares[owners[0]] += 1;
    }
    assert!(
        shares.iter().all(|share| (1..=30).contains(share)),
        "{shares:?}"
    );
    moves(&mut segment);
    segment.run(Duration::from_secs(2));
    assert_eq!(moves(&mut segment), Vec::<String>::new());
}
