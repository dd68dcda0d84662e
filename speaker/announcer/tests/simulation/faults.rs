//! Nodes that die, cannot serve any more, or come back.

use std::collections::BTreeSet;
use std::time::Duration;

use speaker_announcer::{Event, Ineligible, Standing};

use crate::setup::*;
use crate::support::law::Watch;
use crate::support::segment::{STRANGER_MAC, Segment};

#[test]
fn a_dead_owner_is_replaced_within_the_promise() {
    let mut gaps: Vec<_> = (0..100)
        .map(|seed| {
            let mut segment = settled(seed, 3, 1);
            let within = segment.dice.micros(0, 100_000);
            segment.run(within);
            let owner = segment.owners(address(0))[0];
            segment.kill(owner);
            let death = segment.now;
            while segment.owners(address(0)).is_empty() {
                assert!(
                    segment.step(death + Duration::from_secs(2)),
                    "{}",
                    segment.log.join("\n")
                );
            }
            segment.now.since(death)
        })
        .collect();
    gaps.sort();
    println!("p50 {:?}, max {:?}", gaps[50], gaps[99]);
    assert!(
        gaps[50] < Duration::from_millis(200) && gaps[99] < Duration::from_millis(350),
        "{gaps:?}"
    );
}

#[test]
fn loss_of_fitness_hands_over_and_recovery_takes_nothing_back() {
    let mut segment = settled(3, 3, 1);
    let owner = segment.owners(address(0))[0];
    moves(&mut segment);
    let mut watch = Watch::new(STEADY, [address(0)], segment.now);
    watch.planned = true;
    segment.set_unfit(owner, Some(Ineligible::ProxyUnhealthy));
    watch.run(&mut segment, Duration::from_secs(1)).unwrap();
    let successor = segment.owners(address(0));
    assert!(
        successor.len() == 1 && successor[0] != owner,
        "{}",
        segment.log.join("\n")
    );
    segment.set_unfit(owner, None);
    watch.run(&mut segment, Duration::from_secs(20)).unwrap();
    assert_eq!(segment.owners(address(0)), successor);
}

#[test]
fn an_address_goes_to_a_node_that_forwards_it_and_leaves_one_that_ceased_to() {
    let mut segment = settled(21, 3, 2);
    let vips = [address(0), address(1)];
    let all = BTreeSet::from(vips);
    (0..3).for_each(|number| segment.set_programmed(number, Some(all.clone())));
    moves(&mut segment);
    let mut watch = Watch::new(STEADY, vips, segment.now);
    watch.planned = true;
    // The first of the others is not asked: its proxy does not forward it either.
    let owner = segment.owners(vips[0])[0];
    let (deaf, taker) = ((owner + 1) % 3, (owner + 2) % 3);
    for number in [owner, deaf] {
        segment.set_programmed(number, Some([vips[1]].into()));
    }
    watch.run(&mut segment, Duration::from_millis(900)).unwrap();
    assert_eq!(
        moves(&mut segment),
        [""; 0],
        "it may be that the address is about to go"
    );
    watch.run(&mut segment, Duration::from_millis(500)).unwrap();
    assert_eq!(
        segment.owners(vips[0]),
        [taker],
        "{}",
        segment.log.join("\n")
    );
    let told = moves(&mut segment).join("\n");
    assert!(told.contains("does not forward the address"), "{told}");
    // What nobody forwards stays where it is, and a proxy that says nothing keeps nothing from its node.
    segment.set_programmed(taker, Some(BTreeSet::new()));
    watch.run(&mut segment, Duration::from_secs(20)).unwrap();
    assert_eq!(segment.owners(vips[0]), [taker]);
    segment.set_programmed(owner, None);
    watch.last_fault = segment.now;
    watch.run(&mut segment, Duration::from_secs(2)).unwrap();
    assert_eq!(segment.owners(vips[0]), [owner]);
}

#[test]
fn an_unfit_owner_keeps_what_nobody_else_can_take() {
    let mut segment = settled(4, 2, 1);
    for number in 0..2 {
        segment.set_unfit(number, Some(Ineligible::Draining));
    }
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(address(0)).len(), 1);
}

#[test]
fn a_restart_steals_nothing() {
    let mut segment = settled(5, 3, 6);
    let victim = segment.owners(address(0))[0];
    segment.kill(victim);
    segment.run(Duration::from_secs(2));
    let owners: Vec<_> = (0..6).map(|vip| segment.owners(address(vip))).collect();
    moves(&mut segment);
    segment.start(victim);
    segment.run(Duration::from_secs(5));
    assert_eq!(moves(&mut segment), Vec::<String>::new());
    assert_eq!(
        (0..6)
            .map(|vip| segment.owners(address(vip)))
            .collect::<Vec<_>>(),
        owners
    );
}

#[test]
fn an_address_of_a_stranger_is_quarantined_and_released_when_it_is_gone() {
    let names = &NAMES[..3];
    let mut segment = Segment::new(10, names, &configuration(names, 3, &[]));
    segment.stranger = (0..3).map(address).collect();
    segment.start_all();
    segment.run(Duration::from_secs(20));
    for vip in (0..3).map(address) {
        assert_eq!(segment.owners(vip), [0; 0], "{}", segment.log.join("\n"));
        let conflicts = segment.events.iter().filter(|(_, _, event)| {
            matches!(event, Event::Conflict { vip: of, mac, .. } if *of == vip && *mac == STRANGER_MAC)
        });
        assert_eq!(
            conflicts.count(),
            1,
            "told once\n{}",
            segment.log.join("\n")
        );
        let standing = segment
            .machines
            .iter()
            .filter_map(|machine| machine.announcer.as_ref()?.standing(vip));
        let quarantined =
            standing.filter(|standing| matches!(standing.own, Standing::Quarantined { .. }));
        assert_eq!(quarantined.count(), 1);
    }
    segment.stranger.clear();
    segment.run(Duration::from_secs(70));
    for vip in (0..3).map(address) {
        assert_eq!(segment.owners(vip).len(), 1, "{}", segment.log.join("\n"));
    }
}

#[test]
fn somebody_claims_even_if_everybody_thinks_that_another_node_is_first() {
    let names = &NAMES[..2];
    let one_view = configuration(names, 6, &[]);
    let mut segment = Segment::new(14, names, &one_view);
    segment.machines[1].configuration = reversed(&one_view);
    segment.start_all();
    segment.run(Duration::from_secs(3));
    for vip in (0..6).map(address) {
        assert_eq!(segment.owners(vip).len(), 1, "{}", segment.log.join("\n"));
    }
}

#[test]
fn the_silence_of_a_dead_node_is_agreed_and_ends() {
    let mut segment = settled(12, 4, 1);
    segment.kill(3);
    segment.run(Duration::from_millis(260));
    let silent = |segment: &Segment, number: usize| -> Vec<String> {
        let announcer = segment.machines[number].announcer.as_ref().unwrap();
        announcer
            .silent_nodes()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    for number in 0..3 {
        assert_eq!(silent(&segment, number), ["d"]);
    }
    segment.start(3);
    segment.run(Duration::from_millis(300));
    for number in 0..4 {
        assert_eq!(silent(&segment, number), Vec::<String>::new());
    }
}

#[test]
fn an_endpoint_that_moves_takes_its_address_with_it() {
    let mut segment = settled(13, 3, 1);
    let owner = segment.owners(address(0))[0];
    let mut watch = Watch::new(STEADY, [address(0)], segment.now);
    let refused = [NAMES[owner]];
    let next = configuration(&NAMES[..3], 1, &refused);
    watch.planned = true;
    for number in 0..3 {
        segment.configure(number, &next);
        watch.run(&mut segment, Duration::from_millis(120)).unwrap();
    }
    let owners = segment.owners(address(0));
    assert!(
        owners.len() == 1 && owners[0] != owner,
        "{}",
        segment.log.join("\n")
    );
    let none = configuration(&NAMES[..3], 1, &NAMES[..3]);
    for number in 0..3 {
        segment.configure(number, &none);
    }
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(address(0)), [0; 0], "nobody has an endpoint");
}
