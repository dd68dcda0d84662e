//! A simulated LAN of speakers: faults in any order, laws at every step.
//!
//! `FOGHORN_SIMULATION_SEEDS=N` runs seeds 0 to N; `FOGHORN_SIMULATION_SEED=N` runs that one and prints its log.

#![expect(
    unreachable_pub,
    reason = "the modules of a test are reached from the test alone"
)]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here is a failing test, in helpers as well"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use config::name::ServiceKey;
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{
    Configuration, Event, Failback, Ineligible, Links, Partition, PlacementKey, Standing, Vip,
};
use support::law::{Bounds, Watch};
use support::random::Dice;
use support::segment::{Cut, STRANGER_MAC, Segment};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const STEADY: Bounds = Bounds {
    unserved: Duration::from_millis(1500),
    doubled: Duration::from_millis(200),
    calm: Duration::from_secs(6),
};
const LOSSY: Bounds = Bounds {
    unserved: Duration::from_secs(4),
    doubled: Duration::from_millis(1500),
    calm: Duration::from_secs(6),
};

fn address(number: usize) -> IpAddr {
    let number = u8::try_from(number).unwrap();
    if number % 3 == 2 {
        format!("2001:db8::{:x}", 0x100 + u16::from(number))
            .parse()
            .unwrap()
    } else {
        IpAddr::from([192, 0, 2, 100 + number])
    }
}

/// A configuration with this many VIPs; `refused` may not own them.
fn configuration(names: &[&str], vips: usize, refused: &[&str]) -> Configuration {
    let vips = (0..vips).map(|number| {
        let placement = PlacementKey::Service(ServiceKey::new("default", format!("s{number}")));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: if refused.contains(&name) {
                Err(Ineligible::NoReadyLocalEndpoint)
            } else {
                Ok(())
            },
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            requested: None,
            failback: Failback::Never,
            partition: Partition::Available,
            links: Links::InSubnet,
        };
        (address(number), vip)
    });
    Configuration {
        vips: vips.collect(),
        speakers: names.iter().map(|&name| name.into()).collect(),
    }
}

/// The same with the candidates in the opposite order: the view of a node that has another snapshot.
fn reversed(configuration: &Configuration) -> Configuration {
    let mut reversed = configuration.clone();
    for vip in reversed.vips.values_mut() {
        vip.candidates.reverse();
    }
    reversed
}

fn settled(seed: u64, machines: usize, vips: usize) -> Segment {
    let names = &NAMES[..machines];
    let mut segment = Segment::new(seed, names, &configuration(names, vips, &[]));
    segment.start_all();
    segment.run(Duration::from_secs(3));
    for vip in (0..vips).map(address) {
        assert_eq!(
            segment.owners(vip).len(),
            1,
            "{vip}\n{}",
            segment.log.join("\n")
        );
    }
    segment
}

/// The moves of ownership since the last call.
fn moves(segment: &mut Segment) -> Vec<String> {
    let events = std::mem::take(&mut segment.events);
    events
        .iter()
        .filter(|(_, _, event)| event.owns().is_some())
        .map(|(_, machine, event)| format!("{}: {event}", segment.machines[*machine].name))
        .collect()
}

/// Hundreds of addresses of both families.
fn many(names: &[&str], vips: usize) -> Configuration {
    let one = configuration(names, 1, &[]).vips[&address(0)].clone();
    let vips = (0..vips).map(|number| {
        let placement =
            PlacementKey::Service(ServiceKey::new("default", format!("s{}", number / 2)));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: Ok(()),
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            ..one.clone()
        };
        let number = u32::try_from(number).unwrap();
        let address = if number % 2 == 0 {
            IpAddr::V4((0xc000_0210 + (number % 200)).into())
        } else {
            format!("2001:db8::{:x}", 0x1000 + number).parse().unwrap()
        };
        (address, vip)
    });
    Configuration {
        vips: vips.collect(),
        speakers: names.iter().map(|&name| name.into()).collect(),
    }
}

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

/// Addresses of Services of their own, which their first candidates share.
fn spread(names: &[&str], vips: u16) -> Configuration {
    let one = configuration(names, 1, &[]);
    let template = one.vips.values().next().unwrap();
    let vips = (0..vips).map(|number| {
        let placement = PlacementKey::Service(ServiceKey::new("many", format!("s{number}")));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: Ok(()),
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            links: Links::Named(["eth0".to_owned()].into()),
            ..template.clone()
        };
        let [high, low] = number.to_be_bytes();
        (IpAddr::from([198, 18, high, low]), vip)
    });
    Configuration {
        vips: vips.collect(),
        ..one.clone()
    }
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

/// The same, with this node asked for.
fn requested(mut configuration: Configuration, name: &str) -> Configuration {
    for vip in configuration.vips.values_mut() {
        vip.requested = Some(name.into());
        vip.candidates
            .sort_by_key(|candidate| candidate.node.as_str() != name);
    }
    configuration
}

/// The same, with this node drained.
fn drained(mut configuration: Configuration, name: &str) -> Configuration {
    for vip in configuration.vips.values_mut() {
        for candidate in &mut vip.candidates {
            if candidate.node.as_str() == name {
                candidate.eligibility = Err(Ineligible::Draining);
            }
        }
        vip.candidates
            .sort_by_key(|candidate| candidate.eligibility.is_err());
    }
    configuration
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

/// One random story.
fn story(seed: u64) -> (Segment, Result<Watch, String>) {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let machines = 2 + dice.index(4);
    let vips = 1 + dice.index(5);
    let names = &NAMES[..machines];
    let mut segment = Segment::new(seed, names, &configuration(names, vips, &[]));
    let lossy = dice.chance(40);
    if lossy {
        segment.wire.loss_percent = 1 + dice.below(12);
        segment.wire.duplicate_percent = dice.below(10);
        segment.wire.delay = (50, 1000 + dice.below(15_000));
    }
    let bounds = if lossy { LOSSY } else { STEADY };
    for number in 0..machines {
        segment.start(number);
        let pause = dice.micros(0, 300_000);
        segment.run(pause);
    }
    segment.run(Duration::from_secs(2));
    let mut watch = Watch::new(bounds, (0..vips).map(address), segment.now);
    watch.lossy = lossy;
    let outcome = (0..5 + dice.below(8))
        .try_for_each(|_| act(&mut segment, &mut watch, &mut dice))
        .and_then(|()| heal(&mut segment, &mut watch, vips));
    let outcome = outcome.map(|()| watch);
    (segment, outcome)
}

/// Something goes wrong.
fn act(segment: &mut Segment, watch: &mut Watch, dice: &mut Dice) -> Result<(), String> {
    let machines = segment.machines.len();
    let number = dice.index(machines);
    let other = (number + 1 + dice.index(machines - 1)) % machines;
    let name = segment.machines[number].name.clone();
    let cut = if dice.chance(30) {
        Cut::Heartbeats
    } else {
        Cut::Everything
    };
    let fault = match dice.below(18) {
        0 => {
            segment.kill(number);
            "is killed".to_owned()
        }
        1 | 2 => {
            segment.start(number);
            "is started afresh".to_owned()
        }
        3 => {
            segment.pause(number);
            "is stopped".to_owned()
        }
        4 => {
            segment.resume(number);
            "goes on".to_owned()
        }
        5 => {
            segment.set_link(number, false);
            "loses its link".to_owned()
        }
        6 => {
            segment.set_link(number, true);
            "has its link".to_owned()
        }
        7 => {
            segment.cuts.insert((number, other), cut);
            format!("is not heard by {other}: {cut:?}")
        }
        8 => {
            for peer in (0..machines).filter(|&peer| peer != number) {
                segment.cuts.insert((number, peer), cut);
                segment.cuts.insert((peer, number), cut);
            }
            format!("is cut off: {cut:?}")
        }
        9 => {
            let side: Vec<_> = (0..machines).map(|_| dice.chance(50)).collect();
            for (a, b) in (0..machines).flat_map(|a| (0..machines).map(move |b| (a, b))) {
                if side[a] != side[b] {
                    segment.cuts.insert((a, b), cut);
                }
            }
            format!("{side:?} are two sides: {cut:?}")
        }
        10 => {
            segment.cuts.clear();
            "and all others hear each other".to_owned()
        }
        11 => {
            let unfit = [
                None,
                Some(Ineligible::Draining),
                Some(Ineligible::ProxyUnhealthy),
            ][dice.index(3)];
            segment.set_unfit(number, unfit);
            format!("is unfit: {unfit:?}")
        }
        16 | 17 => {
            let vips = segment.machines[number].configuration.vips.keys().copied();
            let programmed = dice
                .chance(80)
                .then(|| vips.filter(|_| dice.chance(60)).collect());
            let text = format!("forwards {programmed:?}");
            segment.set_programmed(number, programmed);
            text
        }
        12 => {
            segment.shut_down(number);
            "is shut down".to_owned()
        }
        13 | 14 => {
            let vips = segment.machines[number].configuration.vips.len();
            let plain = configuration(&NAMES[..machines], vips, &[]);
            let asked_for = dice.chance(50);
            let next = if asked_for {
                requested(plain, &name)
            } else {
                drained(plain, &name)
            };
            for machine in (0..machines).filter(|_| dice.chance(80)) {
                segment.configure(machine, &next);
            }
            let word = if asked_for { "asked for" } else { "drained" };
            format!("is {word}, as most others learn")
        }
        _ => {
            let names: Vec<_> = NAMES[..machines].to_vec();
            let refused: Vec<_> = names.iter().filter(|_| dice.chance(25)).copied().collect();
            let vips = segment.machines[number].configuration.vips.len();
            let next = configuration(&names, vips, &refused);
            for machine in 0..machines {
                match dice.below(10) {
                    0..5 => segment.configure(machine, &next),
                    5..7 => segment.configure(machine, &reversed(&next)),
                    _ => {}
                }
            }
            format!(
                "and some others learn that {refused:?} have no endpoint, some in another order"
            )
        }
    };
    segment.note(format!("{name} {fault}"));
    watch.last_fault = segment.now;
    let pause = dice.micros(1000, 3_000_000);
    watch.run(segment, pause)
}

/// All faults end; then every address has exactly one owner, and nothing moves any more.
fn heal(segment: &mut Segment, watch: &mut Watch, vips: usize) -> Result<(), String> {
    segment.note("everything heals");
    segment.cuts.clear();
    let configuration = configuration(&NAMES[..segment.machines.len()], vips, &[]);
    for number in 0..segment.machines.len() {
        let shut_down = segment.machines[number]
            .announcer
            .as_ref()
            .is_none_or(|announcer| announcer.is_done());
        if shut_down {
            segment.start(number);
        }
        segment.resume(number);
        segment.set_link(number, true);
        segment.set_unfit(number, None);
        let all = configuration.vips.keys().copied().collect();
        segment.set_programmed(number, Some(all));
        segment.configure(number, &configuration);
    }
    watch.last_fault = segment.now;
    watch.run(segment, Duration::from_secs(10))?;
    for vip in (0..vips).map(address) {
        let owners = segment.owners(vip);
        if owners.len() != 1 && !watch.lossy {
            return Err(format!("{vip} has the owners {owners:?} in the end"));
        }
    }
    Ok(())
}

#[test]
fn the_laws_hold_in_every_story() {
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match variable("FOGHORN_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("FOGHORN_SIMULATION_SEEDS").unwrap_or(200),
    };
    let alone = seeds.end - seeds.start == 1;
    // Each processor takes the next seed: a story is a function of its seed alone.
    let next = AtomicU64::new(seeds.start);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let sums = thread::scope(|scope| {
        let work = || {
            let mut sum = Sum::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !seeds.contains(&seed) {
                    return sum;
                }
                sum.tell(seed, alone);
            }
        };
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let sums = workers.into_iter().map(|worker| worker.join().unwrap());
        sums.reduce(Sum::and).unwrap()
    });
    println!(
        "seeds {seeds:?}, {:.2} hours simulated, longest without an owner {:?}, longest with two {:?}, {} laws broken",
        sums.simulated.as_secs_f64() / 3600.0,
        sums.unserved,
        sums.doubled,
        sums.failures.len()
    );
    assert!(
        sums.failures.is_empty(),
        "{} of {} stories broke a law; replay one with FOGHORN_SIMULATION_SEED=N:\n{}",
        sums.failures.len(),
        seeds.end - seeds.start,
        sums.failures.join("\n")
    );
}

/// What many stories come to.
#[derive(Default)]
struct Sum {
    simulated: Duration,
    unserved: Duration,
    doubled: Duration,
    failures: Vec<String>,
}

impl Sum {
    fn tell(&mut self, seed: u64, aloud: bool) {
        let (segment, outcome) = story(seed);
        self.simulated += segment.now.since_start();
        #[expect(clippy::print_stdout, reason = "the log of one story, asked for")]
        if aloud {
            println!("{}", segment.log.join("\n"));
        }
        match outcome {
            Ok(watch) => {
                self.unserved = self.unserved.max(watch.longest_unserved);
                self.doubled = self.doubled.max(watch.longest_doubled);
            }
            Err(error) => self
                .failures
                .push(format!("seed {seed} at {}: {error}", segment.now)),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            simulated: self.simulated + other.simulated,
            unserved: self.unserved.max(other.unserved),
            doubled: self.doubled.max(other.doubled),
            failures: [self.failures, other.failures].concat(),
        }
    }
}
