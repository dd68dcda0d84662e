//! Speakers that do not hear each other.

use std::time::Duration;

use speaker_announcer::{Event, Partition};

use crate::setup::*;
use crate::support::segment::{Cut, Segment};

#[test]
fn blocked_heartbeats_alone_move_nothing() {
    let mut segment = settled(6, 2, 1);
    moves(&mut segment);
    for pair in [(0, 1), (1, 0)] {
        segment.cuts.insert(pair, Cut::Heartbeats);
    }
    segment.run(Duration::from_secs(5));
    let fenced: Vec<_> = segment
        .events
        .iter()
        .filter(|(_, _, event)| matches!(event, Event::OwnerAnswered { .. }))
        .collect();
    assert_eq!(fenced.len(), 1, "told once: {}", segment.log.join("\n"));
    assert_eq!(segment.owners(address(0)).len(), 1);
    assert_eq!(moves(&mut segment), Vec::<String>::new());
}

#[test]
fn a_witness_keeps_the_owner_where_it_is() {
    let mut segment = settled(7, 3, 1);
    let owner = segment.owners(address(0))[0];
    let other = (owner + 1) % 3;
    moves(&mut segment);
    for pair in [(owner, other), (other, owner)] {
        segment.cuts.insert(pair, Cut::Everything);
    }
    segment.run(Duration::from_millis(1500));
    assert_eq!(moves(&mut segment), Vec::<String>::new());
    let silent = |number: usize| {
        segment.machines[number]
            .announcer
            .as_ref()
            .unwrap()
            .silent_nodes()
            .len()
    };
    assert_eq!(
        (silent(owner), silent(other)),
        (0, 0),
        "nobody is silent on one speaker's word"
    );
}

#[test]
fn when_a_partition_heals_the_later_acquirer_keeps_and_announces_again() {
    let mut segment = settled(8, 2, 1);
    let old = segment.owners(address(0))[0];
    let new = 1 - old;
    for pair in [(0, 1), (1, 0)] {
        segment.cuts.insert(pair, Cut::Everything);
    }
    segment.run(Duration::from_secs(1));
    assert_eq!(
        segment.owners(address(0)).len(),
        2,
        "each side serves its clients"
    );
    moves(&mut segment);
    segment.cuts.clear();
    segment.run(Duration::from_millis(150));
    assert_eq!(segment.owners(address(0)), [new]);
    assert_eq!(moves(&mut segment).len(), 1);
    assert!(segment.machines[new].sent.2 > 0, "announced again");
}

#[test]
fn whoever_was_cut_off_hears_again_whose_an_address_is_and_a_newcomer_is_no_reason_to_tell() {
    let names = &NAMES[..3];
    let mut segment = Segment::new(9, names, &configuration(names, 1, &names[1..]));
    let announced = |segment: &mut Segment| {
        let mut any = false;
        for _ in 0..10 {
            segment.run(Duration::from_millis(100));
            any |= segment.machines[0].sent.2 > 0;
        }
        any
    };
    segment.start(0);
    segment.start(1);
    segment.run(Duration::from_millis(10_500));
    assert_eq!(segment.owners(address(0)), [0]);
    segment.start(2);
    assert!(!announced(&mut segment), "a newcomer");
    for pair in [(0, 1), (1, 0)] {
        segment.cuts.insert(pair, Cut::Everything);
    }
    assert!(!announced(&mut segment), "somebody is cut off");
    segment.cuts.clear();
    assert!(announced(&mut segment), "somebody is back");
}

#[test]
fn with_the_strict_policy_a_minority_serves_nobody() {
    let mut configuration = configuration(&NAMES[..3], 1, &[]);
    configuration
        .vips
        .values_mut()
        .for_each(|vip| vip.partition = Partition::Strict);
    let mut segment = Segment::new(9, &NAMES[..3], &configuration);
    segment.start_all();
    segment.run(Duration::from_secs(3));
    let owner = segment.owners(address(0))[0];
    for other in (0..3).filter(|&other| other != owner) {
        segment.cuts.insert((owner, other), Cut::Everything);
        segment.cuts.insert((other, owner), Cut::Everything);
    }
    let end = segment.now + Duration::from_secs(1);
    while segment.step(end) {
        assert!(
            segment.owners(address(0)).len() < 2,
            "{}",
            segment.log.join("\n")
        );
    }
    let owners = segment.owners(address(0));
    assert!(
        owners.len() == 1 && owners[0] != owner,
        "{}",
        segment.log.join("\n")
    );
}
