//! Moves that somebody asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use speaker_announcer::Failback;

use crate::setup::*;
use crate::support::law::Watch;
use crate::support::segment::Segment;

#[test]
fn a_planned_end_leaves_no_gap_and_is_told_as_such() {
    for seed in 0..20 {
        let mut segment = settled(seed, 3, 4);
        let mut watch = Watch::new(STEADY, (0..4).map(address), segment.now);
        watch.run(&mut segment, Duration::from_millis(10)).unwrap();
        moves(&mut segment);
        let owner = segment.owners(address(0))[0];
        watch.planned = true;
        segment.shut_down(owner);
        watch
            .run(&mut segment, Duration::from_millis(300))
            .unwrap_or_else(|error| panic!("{error}\n{}", segment.log.join("\n")));
        assert!(
            segment.machines[owner]
                .announcer
                .as_ref()
                .unwrap()
                .is_done()
        );
        let moves = moves(&mut segment).join("\n");
        assert!(moves.contains("by a planned hand-over"), "{moves}");
        assert!(moves.contains("the speaker is shutting down"), "{moves}");
        segment.kill(owner);
        segment.run(Duration::from_secs(1));
        for number in (0..3).filter(|&number| number != owner) {
            let silent = segment.machines[number]
                .announcer
                .as_ref()
                .unwrap()
                .silent_nodes();
            assert!(
                silent.is_empty(),
                "a speaker that said good-bye is not silent: {silent:?}"
            );
        }
    }
}

/// So the proxy of whoever receives an address knows before the first packet where its older connections are.
#[test]
fn before_an_address_moves_everybody_knows_its_owner_and_afterwards_the_one_before() {
    let mut segment = settled(6, 3, 1);
    let known = |segment: &mut Segment, number: usize| {
        let mut said = None;
        segment.with(number, |announcer, _| {
            let changed = announcer.take_last_owners_changed();
            let owners = announcer.last_owners();
            let owners: Vec<_> = owners.map(|(_, node)| node.to_string()).collect();
            said = Some((changed, owners));
        });
        said.unwrap()
    };
    let owner = segment.owners(address(0))[0];
    let owner_name = segment.machines[owner].name.clone();
    for number in (0..3).filter(|&number| number != owner) {
        assert_eq!(
            known(&mut segment, number),
            (true, vec![owner_name.clone()])
        );
    }
    assert_eq!(known(&mut segment, owner), (false, vec![]));
    segment.shut_down(owner);
    segment.run(Duration::from_millis(300));
    let successor = segment.owners(address(0))[0];
    let successor_name = segment.machines[successor].name.clone();
    assert_ne!(successor, owner);
    // Known before: nothing has to reach the proxy while packets come already.
    assert_eq!(known(&mut segment, successor), (false, vec![owner_name]));
    let third = 3 - owner - successor;
    assert_eq!(
        known(&mut segment, third),
        (true, vec![successor_name.clone()])
    );
    assert_eq!(known(&mut segment, owner), (true, vec![successor_name]));
}

#[test]
fn failback_is_a_planned_move_and_only_if_asked() {
    for (failback, idle, expected) in [
        (Failback::Never, true, false),
        (Failback::Idle, false, false),
        (Failback::Idle, true, true),
        (Failback::Always, false, true),
    ] {
        let mut configuration = configuration(&NAMES[..2], 1, &[]);
        configuration
            .vips
            .values_mut()
            .for_each(|vip| vip.failback = failback);
        let mut segment = Segment::new(11, &NAMES[..2], &configuration);
        segment.start_all();
        segment.run(Duration::from_secs(2));
        let best = segment.owners(address(0))[0];
        segment.kill(best);
        segment.run(Duration::from_secs(1));
        segment.start(best);
        segment.run(Duration::from_secs(2));
        let mut watch = Watch::new(STEADY, [address(0)], segment.now);
        watch.planned = true;
        watch.last_fault = segment.now + Duration::from_secs(100);
        segment.with(1 - best, |announcer, now| {
            let asked = BTreeSet::from_iter((failback == Failback::Idle).then_some(address(0)));
            assert_eq!(*announcer.watched(), asked);
            assert_eq!(announcer.take_watched_changed(), failback == Failback::Idle);
            if idle {
                announcer.handle_idle(&BTreeSet::from([address(0)]), now);
            }
        });
        watch.run(&mut segment, Duration::from_secs(15)).unwrap();
        assert_eq!(
            segment.owners(address(0)) == [best],
            expected,
            "{failback:?}, idle {idle}\n{}",
            segment.log.join("\n")
        );
        segment.with(1 - best, |announcer, _| {
            assert_eq!(
                announcer.watched().is_empty(),
                expected || failback != Failback::Idle
            );
        });
    }
}

#[test]
fn an_owner_that_gives_back_heeds_a_better_node_that_it_never_heard_before() {
    let names = &NAMES[..2];
    let mut configuration = configuration(names, 1, &[]);
    for vip in configuration.vips.values_mut() {
        vip.failback = Failback::Always;
    }
    let first = &configuration.vips[&address(0)].candidates[0].node;
    let best = names.iter().position(|name| first.as_str() == *name);
    let best = best.unwrap();
    let mut segment = Segment::new(12, names, &configuration);
    segment.start(1 - best);
    segment.run(Duration::from_secs(10));
    assert_eq!(segment.owners(address(0)), [1 - best]);
    segment.start(best);
    segment.run(segment.timing.failback_hold + Duration::from_secs(1));
    assert_eq!(
        segment.owners(address(0)),
        [best],
        "{}",
        segment.log.join("\n")
    );
}

#[test]
fn an_address_goes_to_the_node_that_is_asked_for_without_a_gap_and_stays_when_nobody_asks() {
    let mut segment = settled(15, 3, 4);
    let vips: Vec<_> = (0..4).map(address).collect();
    let plain = configuration(&NAMES[..3], 4, &[]);
    let mut watch = Watch::new(STEADY, vips.iter().copied(), segment.now);
    watch.planned = true;
    for (number, name) in NAMES[..3].iter().enumerate() {
        watch.last_fault = segment.now;
        for machine in 0..3 {
            segment.configure(machine, &requested(plain.clone(), name));
            // The others learn of it later.
            watch.run(&mut segment, Duration::from_millis(40)).unwrap();
        }
        watch.run(&mut segment, Duration::from_secs(1)).unwrap();
        for &vip in &vips {
            assert_eq!(segment.owners(vip), [number], "{}", segment.log.join("\n"));
        }
    }
    for machine in 0..3 {
        segment.configure(machine, &plain);
    }
    watch.run(&mut segment, Duration::from_secs(30)).unwrap();
    assert!(vips.iter().all(|&vip| segment.owners(vip) == [2]));
}

#[test]
fn two_nodes_that_each_believe_the_other_is_asked_for_do_not_throw_the_address_to_and_fro() {
    let mut segment = settled(18, 2, 1);
    let plain = configuration(&NAMES[..2], 1, &[]);
    let wishes = ["a", "b"].map(|name| requested(plain.clone(), name));
    let mut watch = Watch::new(STEADY, [address(0)], segment.now);
    watch.planned = true;
    watch.last_fault = segment.now;
    moves(&mut segment);
    segment.configure(0, &wishes[1]);
    segment.configure(1, &wishes[0]);
    watch.run(&mut segment, Duration::from_secs(6)).unwrap();
    let moved = moves(&mut segment);
    assert!(moved.len() <= 2, "received and handed over: {moved:?}");
    // One of the two was right all the time: what it is offered again it takes, and from then on it is at once.
    for (count, wish, seconds) in [(0, 0, 11), (1, 1, 1), (2, 0, 1)] {
        watch.last_fault = segment.now;
        (0..2).for_each(|number| segment.configure(number, &wishes[wish]));
        watch
            .run(&mut segment, Duration::from_secs(seconds))
            .unwrap();
        assert_eq!(segment.owners(address(0)), [wish], "wish {count}");
    }
}

#[test]
fn a_node_that_is_asked_for_but_cannot_serve_gets_nothing() {
    let mut segment = settled(16, 3, 1);
    let owner = segment.owners(address(0))[0];
    let dead = (owner + 1) % 3;
    segment.kill(dead);
    segment.run(Duration::from_secs(1));
    let mut watch = Watch::new(STEADY, [address(0)], segment.now);
    watch.planned = true;
    watch.last_fault = segment.now;
    let wish = requested(configuration(&NAMES[..3], 1, &[]), NAMES[dead]);
    (0..3).for_each(|machine| segment.configure(machine, &wish));
    watch.run(&mut segment, Duration::from_secs(20)).unwrap();
    assert_eq!(segment.owners(address(0)), [owner]);
    segment.start(dead);
    watch.last_fault = segment.now;
    watch.run(&mut segment, Duration::from_secs(20)).unwrap();
    assert_eq!(segment.owners(address(0)), [dead]);
}

#[test]
fn a_drained_node_hands_over_what_others_can_take_and_keeps_the_rest() {
    let mut segment = settled(17, 2, 3);
    let plain = configuration(&NAMES[..2], 3, &[]);
    let vips: Vec<_> = (0..3).map(address).collect();
    let mut watch = Watch::new(STEADY, vips.iter().copied(), segment.now);
    watch.planned = true;
    watch.last_fault = segment.now;
    for machine in 0..2 {
        segment.configure(machine, &drained(plain.clone(), "a"));
        watch.run(&mut segment, Duration::from_millis(70)).unwrap();
    }
    watch.run(&mut segment, Duration::from_secs(1)).unwrap();
    assert!(vips.iter().all(|&vip| segment.owners(vip) == [1]));
    let both = drained(drained(plain, "a"), "b");
    (0..2).for_each(|machine| segment.configure(machine, &both));
    watch.run(&mut segment, Duration::from_secs(20)).unwrap();
    assert!(
        vips.iter().all(|&vip| segment.owners(vip) == [1]),
        "nobody else can take them\n{}",
        segment.log.join("\n")
    );
}
