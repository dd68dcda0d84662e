//! What the allocator promises, case by case.

mod support;

use config::pool::OnInUse;
use config::service::Protocol::{Tcp, Udp};
use controller_allocator::status::{Notice, ServiceStatus};
use controller_allocator::{Claim, Context, Stranger};
use jiff::Timestamp;
use support::*;

fn lan() -> Context {
    context(vec![pool(
        "lan",
        &["192.0.2.1-192.0.2.3", "2001:db8::1-2001:db8::2"],
    )])
}

/// Each Service with what it has and what it lacks, after all came at once.
#[track_caller]
fn check(context: Context, claims: Vec<Claim>, expected: &[(&str, &str, &str)]) {
    let allocator = settled(context, claims);
    for &(service, addresses, lacks) in expected {
        let found = answer(&allocator, service);
        assert_eq!(found, (addresses.to_owned(), lacks.to_owned()), "{service}");
    }
}

#[test]
fn gives_the_first_free_address_of_each_family() {
    check(
        lan(),
        vec![
            claim("a/a", V4),
            claim("a/b", V6),
            claim("a/c", DUAL),
            claim("a/d", V4),
        ],
        &[
            ("a/a", "192.0.2.1", ""),
            ("a/b", "2001:db8::1", ""),
            ("a/c", "192.0.2.2 2001:db8::2", ""),
            ("a/d", "192.0.2.3", ""),
        ],
    );
}

#[test]
fn holders_go_first_and_among_them_the_older() {
    check(
        lan(),
        vec![
            created(claim("a/new", V4), 1),
            created(holding(claim("a/young", V4), &["192.0.2.1"]), 9),
            created(holding(claim("a/old", V4), &["192.0.2.1"]), 5),
        ],
        &[
            ("a/old", "192.0.2.1", ""),
            ("a/new", "192.0.2.2", ""),
            ("a/young", "192.0.2.3", ""),
        ],
    );
}

#[test]
fn says_what_was_asked_what_stands_in_the_way_and_what_to_do() {
    let mut automatic = pool("web", &["198.51.100.1"]);
    automatic.auto_assign = false;
    let pools = vec![
        pool("lan", &["192.0.2.1"]),
        pool("six", &["2001:db8::/64"]),
        for_namespace(pool("media", &["203.0.113.1"]), "media", 1),
        automatic,
    ];
    let mut context = context(pools);
    context.nodes.insert(ip("203.0.113.1"), "node-1".into());
    check(
        context,
        vec![
            claim("a/a", V4),
            claim("a/b", V4),
            asking(claim("a/c", V4), &["192.0.2.1"]),
            asking(claim("a/d", V4), &["192.0.2.9"]),
            asking_pool(claim("a/e", V4), "dmz"),
            asking(asking_pool(claim("a/f", V4), "six"), &["192.0.2.1"]),
            asking(claim("a/g", V4), &["2001:db8::1"]),
            asking(claim("media/h", V4), &["203.0.113.1"]),
            claim("media/i", V4),
            asking_pool(claim("a/j", V4), "six"),
        ],
        &[
            ("a/a", "192.0.2.1", ""),
            (
                "a/b",
                "",
                "asked for an IPv4 address: pool media does not serve the namespace a; pool lan has no free IPv4 address: 1 of 1 in use; pool six has no IPv4 addresses; pool web serves only Services that ask for it (autoAssign: false). To do: add a range to a pool, or delete a Service that needs no address",
            ),
            (
                "a/c",
                "",
                "asked for 192.0.2.1: 192.0.2.1 is in use by a/a. To do: choose another one, or let both share it (annotation allow-shared-ip)",
            ),
            (
                "a/d",
                "",
                "asked for 192.0.2.9: 192.0.2.9 is in no pool. To do: ask for an address of a pool, or add it to one",
            ),
            (
                "a/e",
                "",
                "asked for an IPv4 address of pool dmz: there is no pool dmz. To do: create it, or change the annotation address-pool",
            ),
            (
                "a/f",
                "",
                "asked for 192.0.2.1: 192.0.2.1 is not in the pool six, which the Service asks for; 192.0.2.1 is in use by a/a. To do: choose another one, or let both share it (annotation allow-shared-ip)",
            ),
            (
                "a/g",
                "",
                "asked for 2001:db8::1: 2001:db8::1 is IPv6, and the Service has no IPv6 address. To do: change the address, or the Service's ipFamilies",
            ),
            (
                "media/h",
                "",
                "asked for 203.0.113.1: 203.0.113.1 is the address of node node-1. To do: choose another one, and take it out of the pool",
            ),
            (
                "media/i",
                "",
                "asked for an IPv4 address: pool media has no free IPv4 address: 0 of 1 in use, 1 reserved or of others; pool lan has no free IPv4 address: 1 of 1 in use; pool six has no IPv4 addresses; pool web serves only Services that ask for it (autoAssign: false). To do: add a range to a pool, or delete a Service that needs no address",
            ),
            (
                "a/j",
                "",
                "asked for an IPv4 address of pool six: pool six has no IPv4 addresses. To do: add a range of that family to a pool that serves the Service",
            ),
        ],
    );
    check(
        Context::default(),
        vec![claim("a/a", V4)],
        &[(
            "a/a",
            "",
            "asked for an IPv4 address: there is no pool. To do: create an IPAddressPool",
        )],
    );
}

#[test]
fn require_dual_stack_takes_both_or_none_and_prefer_takes_what_there_is() {
    let four = || context(vec![pool("four", &["192.0.2.1-192.0.2.2"])]);
    check(
        four(),
        vec![requiring(claim("a/all", DUAL)), claim("a/some", DUAL)],
        &[
            (
                "a/all",
                "",
                "asked for an IPv6 address: pool four has no IPv6 addresses; ipFamilyPolicy RequireDualStack takes both families or none. To do: add a range of that family to a pool that serves the Service",
            ),
            (
                "a/some",
                "192.0.2.1",
                "asked for an IPv6 address: pool four has no IPv6 addresses. To do: add a range of that family to a pool that serves the Service",
            ),
        ],
    );
    let mut allocator = settled(four(), vec![claim("a/some", DUAL)]);
    allocator.configure(context(vec![
        pool("four", &["192.0.2.1-192.0.2.2"]),
        pool("six", &["2001:db8::1"]),
    ]));
    let outcomes = allocator.settle();
    assert_eq!(
        answer(&allocator, "a/some"),
        ("192.0.2.1 2001:db8::1".into(), "".into())
    );
    assert_eq!(outcomes[0].gained, [ip("2001:db8::1")]);
}

#[test]
fn both_families_come_from_one_pool_if_one_has_them() {
    check(
        context(vec![
            pool("a-four", &["192.0.2.1"]),
            pool("b-both", &["198.51.100.1", "2001:db8::1"]),
        ]),
        vec![claim("a/a", DUAL), claim("a/b", V4)],
        &[
            ("a/a", "198.51.100.1 2001:db8::1", ""),
            ("a/b", "192.0.2.1", ""),
        ],
    );
}

#[test]
fn pools_made_for_a_namespace_go_first_by_priority_and_zero_is_last() {
    let pools = || {
        vec![
            pool("any", &["192.0.2.1"]),
            for_namespace(pool("x-second", &["192.0.2.2"]), "a", 20),
            for_namespace(pool("y-first", &["192.0.2.3"]), "a", 10),
            for_namespace(pool("b-zero", &["192.0.2.4"]), "a", 0),
        ]
    };
    let claims = ["a/1", "a/2", "a/3", "a/4"].map(|service| claim(service, V4));
    check(
        context(pools()),
        claims.to_vec(),
        &[
            ("a/1", "192.0.2.3", ""),
            ("a/2", "192.0.2.2", ""),
            ("a/3", "192.0.2.4", ""),
            ("a/4", "192.0.2.1", ""),
        ],
    );
}

#[test]
fn an_address_out_of_all_pools_stays_unless_its_pool_reassigns() {
    let held = || vec![holding(claim("a/a", V4), &["198.51.100.9"])];
    check(lan(), held(), &[("a/a", "198.51.100.9", "")]);
    check(Context::default(), held(), &[("a/a", "198.51.100.9", "")]);
    let mut reassigning = pool("lan", &["192.0.2.1"]);
    reassigning.on_in_use = OnInUse::Reassign;
    check(
        context(vec![reassigning.clone()]),
        held(),
        &[("a/a", "192.0.2.1", "")],
    );
    let mut keeping = held();
    keeping.push(holding(claim("a/b", V4), &["192.0.2.1"]));
    check(
        context(vec![reassigning]),
        keeping,
        &[(
            "a/a",
            "198.51.100.9",
            "198.51.100.9 should be reassigned (onInUse: Reassign): pool lan has no free IPv4 address: 1 of 1 in use. To do: add a range to a pool, or delete a Service that needs no address",
        )],
    );
}

#[test]
fn all_addresses_that_must_move_do_so_at_once() {
    let mut reassigning = pool("lan", &["192.0.2.1-192.0.2.2"]);
    reassigning.on_in_use = OnInUse::Reassign;
    check(
        context(vec![reassigning]),
        vec![holding(claim("a/a", V4), &["198.51.100.8", "198.51.100.9"])],
        &[("a/a", "192.0.2.1 192.0.2.2", "")],
    );
}

#[test]
fn an_empty_configuration_releases_nothing() {
    let mut allocator = settled(lan(), vec![claim("a/a", DUAL)]);
    allocator.configure(Context::default());
    let outcomes = allocator.settle();
    assert_eq!(outcomes[0].released, []);
    assert_eq!(answer(&allocator, "a/a").0, "192.0.2.1 2001:db8::1");
    allocator.configure(lan());
    allocator.settle();
    assert_eq!(answer(&allocator, "a/a").0, "192.0.2.1 2001:db8::1");
}

#[test]
fn a_wish_that_cannot_be_fulfilled_costs_nothing_and_is_fulfilled_when_it_can() {
    let mut allocator = settled(lan(), vec![claim("a/a", V4), claim("a/b", V4)]);
    step(&mut allocator, asking(claim("a/b", V4), &["192.0.2.1"]));
    let (addresses, lacks) = answer(&allocator, "a/b");
    assert_eq!(addresses, "192.0.2.2");
    assert!(
        lacks.starts_with("asked for 192.0.2.1: 192.0.2.1 is in use by a/a"),
        "{lacks}"
    );
    allocator.withdraw(&key("a/a"));
    let outcomes = allocator.settle();
    assert_eq!(answer(&allocator, "a/b"), ("192.0.2.1".into(), "".into()));
    let told: Vec<String> = Notice::of(&outcomes[0])
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "Took 192.0.2.2 away: the Service asked for something else and has it now",
            "Assigned 192.0.2.1 from pool lan",
        ]
    );
}

#[test]
fn another_pool_or_another_family_is_a_wish_too() {
    let two = context(vec![
        pool("lan", &["192.0.2.1"]),
        pool("web", &["198.51.100.1", "2001:db8::1"]),
    ]);
    let mut allocator = settled(two, vec![claim("a/a", V4)]);
    step(&mut allocator, asking_pool(claim("a/a", DUAL), "web"));
    assert_eq!(answer(&allocator, "a/a").0, "198.51.100.1 2001:db8::1");
    step(&mut allocator, claim("a/a", V6));
    assert_eq!(answer(&allocator, "a/a").0, "2001:db8::1");
}

#[test]
fn shares_by_the_rules_of_metallb() {
    let one = || context(vec![pool("lan", &["192.0.2.1"])]);
    let first = || sharing(claim("a/a", V4), "dns", Udp, 53);
    let why = |claim: Claim| {
        let claims = vec![first(), created(claim, 1)];
        answer(&settled(one(), claims), "b/b").1
    };
    let other = |key, protocol, port| sharing(claim("b/b", V4), key, protocol, port);
    assert_eq!(why(other("dns", Tcp, 53)), "", "also across namespaces");
    assert_eq!(why(other("dns", Udp, 54)), "");
    let in_use = |service: Claim| {
        let refusal = why(asking(service, &["192.0.2.1"]));
        let (_, rest) = refusal.split_once("192.0.2.1 is in use by a/a").unwrap();
        rest.split_once(". To do").unwrap().0.to_owned()
    };
    assert_eq!(
        in_use(other("dns", Udp, 53)),
        ", and both listen on UDP port 53"
    );
    assert_eq!(
        in_use(other("web", Tcp, 53)),
        ", and their annotations allow-shared-ip differ"
    );
    assert_eq!(
        in_use(claim("b/b", V4)),
        ", and only one of the two has the annotation allow-shared-ip"
    );
    assert_eq!(
        in_use(local(other("dns", Tcp, 53), "b")),
        ", and their externalTrafficPolicy differs"
    );
    let locals = |app| {
        let claims = vec![
            local(first(), "a"),
            created(local(other("dns", Tcp, 53), app), 1),
        ];
        answer(&settled(one(), claims), "b/b").0
    };
    assert_eq!(locals("a"), "192.0.2.1");
    assert_eq!(locals("b"), "");
}

#[test]
fn the_one_who_changed_loses_a_shared_address_not_the_other() {
    let tcp = sharing(claim("a/young", V4), "dns", Tcp, 53);
    let udp = created(sharing(claim("a/old", V4), "dns", Udp, 53), -9);
    let mut allocator = settled(lan(), vec![tcp, udp.clone()]);
    assert_eq!(
        answer(&allocator, "a/old").0,
        answer(&allocator, "a/young").0
    );
    let outcomes = step(
        &mut allocator,
        created(sharing(claim("a/old", V4), "dns", Tcp, 53), -9),
    );
    assert_eq!(answer(&allocator, "a/young").0, "192.0.2.1");
    assert_eq!(answer(&allocator, "a/old").0, "192.0.2.2");
    assert_eq!(
        outcomes[0].released[0].1.to_string(),
        "192.0.2.1 is in use by a/young, and both listen on TCP port 53"
    );
}

#[test]
fn what_another_machine_has_is_exchanged_only_if_it_was_just_given() {
    let machine = Stranger {
        mac: "02:bb:00:00:00:01".to_owned(),
        heard_by: "node-2".to_owned(),
    };
    let plain = context(vec![pool("lan", &["192.0.2.1-192.0.2.4"])]);
    let mut strange = plain.clone();
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        strange.strangers.insert(ip(address), machine.clone());
    }
    let mut allocator = settled(
        plain,
        vec![
            holding(claim("a/adopted", V4), &["192.0.2.1"]),
            claim("a/given", V4),
            asking(claim("a/asked", V4), &["192.0.2.3"]),
        ],
    );
    assert_eq!(answer(&allocator, "a/given").0, "192.0.2.2");
    allocator.configure(strange.clone());
    let outcomes = allocator.settle();
    for (service, address) in [
        ("a/adopted", "192.0.2.1"),
        ("a/given", "192.0.2.4"),
        ("a/asked", "192.0.2.3"),
    ] {
        assert_eq!(answer(&allocator, service).0, address, "{service}");
    }
    let given = outcomes
        .iter()
        .find(|outcome| outcome.service == key("a/given"));
    assert_eq!(
        given.unwrap().released[0].1.to_string(),
        "192.0.2.2 is in use by a machine on the LAN with the hardware address 02:bb:00:00:00:01, as node node-2 hears"
    );
    // Whoever asks for the very address gets it, and waits for the machine to go.
    step(&mut allocator, asking(claim("a/wish", V4), &["192.0.2.2"]));
    assert_eq!(answer(&allocator, "a/wish").0, "192.0.2.2");
    // A minute later its clients know the address.
    allocator.advance(Timestamp::from_second(100).unwrap());
    strange.strangers.insert(ip("192.0.2.4"), machine);
    strange.strangers.remove(&ip("192.0.2.2"));
    allocator.configure(strange);
    allocator.settle();
    assert_eq!(answer(&allocator, "a/given").0, "192.0.2.4");
}

#[test]
fn a_reservation_waits_for_its_service() {
    let reserved = || {
        context(vec![reserving(
            pool("lan", &["192.0.2.1-192.0.2.2"]),
            "192.0.2.1",
            "a/later",
        )])
    };
    let mut allocator = settled(reserved(), vec![claim("a/a", V4), claim("a/b", V4)]);
    assert_eq!(answer(&allocator, "a/a").0, "192.0.2.2");
    assert_eq!(
        answer(&allocator, "a/b").1.split(". To do").next(),
        Some(
            "asked for an IPv4 address: pool lan has no free IPv4 address: 1 of 2 in use, 1 reserved or of others"
        )
    );
    step(&mut allocator, claim("a/later", V4));
    assert_eq!(answer(&allocator, "a/later").0, "192.0.2.1");
    check(
        reserved(),
        vec![
            holding(claim("a/a", V4), &["192.0.2.1"]),
            claim("a/later", V4),
        ],
        &[
            ("a/a", "192.0.2.1", ""),
            (
                "a/later",
                "",
                "192.0.2.1 is reserved for it: 192.0.2.1 is in use by a/a. To do: choose another one, or let both share it (annotation allow-shared-ip)",
            ),
        ],
    );
}

#[test]
fn a_disabled_pool_keeps_its_services_and_takes_no_new_ones() {
    let mut disabled = pool("lan", &["192.0.2.1-192.0.2.3"]);
    disabled.disabled = true;
    check(
        context(vec![disabled]),
        vec![holding(claim("a/a", V4), &["192.0.2.1"]), claim("a/b", V4)],
        &[
            ("a/a", "192.0.2.1", ""),
            (
                "a/b",
                "",
                "asked for an IPv4 address: pool lan is disabled. To do: enable the pool, or add another one",
            ),
        ],
    );
}

#[test]
fn avoids_buggy_addresses_unless_asked_for_one() {
    let mut careful = pool("lan", &["192.0.2.255-192.0.3.1"]);
    careful.avoid_buggy_ips = true;
    check(
        context(vec![careful]),
        vec![
            claim("a/a", V4),
            asking(claim("a/b", V4), &["192.0.2.255"]),
            claim("a/c", V4),
        ],
        &[
            ("a/a", "192.0.3.1", ""),
            ("a/b", "192.0.2.255", ""),
            (
                "a/c",
                "",
                "asked for an IPv4 address: pool lan has no free IPv4 address: 1 of 1 in use. To do: add a range to a pool, or delete a Service that needs no address",
            ),
        ],
    );
}

#[test]
fn a_service_created_again_is_another_one() {
    let mut allocator = settled(lan(), vec![claim("a/a", V4), claim("a/b", V4)]);
    let mut again = claim("a/b", V4);
    again.uid = "2".into();
    allocator.withdraw(&key("a/a"));
    step(&mut allocator, again);
    assert_eq!(answer(&allocator, "a/b").0, "192.0.2.1");
}

#[test]
fn one_that_is_served_never_yields_to_one_that_arrives() {
    let mut allocator = settled(lan(), vec![created(claim("a/a", V4), 9)]);
    let older = created(holding(claim("a/older", V4), &["192.0.2.1"]), 1);
    // Both are looked at in one settle.
    allocator.claim(created(sharing(claim("a/a", V4), "k", Tcp, 80), 9));
    step(&mut allocator, older);
    assert_eq!(answer(&allocator, "a/a").0, "192.0.2.1");
    assert_eq!(answer(&allocator, "a/older").0, "192.0.2.2");
}

#[test]
fn the_condition_says_it_all() {
    let mut edited = lan();
    edited.nodes.insert(ip("192.0.2.1"), "node-1".into());
    let held = holding(claim("a/a", V4), &["192.0.2.1"]);
    for (context, claim, expected) in [
        (
            lan(),
            claim("a/a", V4),
            (true, "Assigned", "192.0.2.1 from pool lan"),
        ),
        (
            edited,
            held,
            (
                true,
                "Kept",
                "192.0.2.1 stays although it is the address of node node-1",
            ),
        ),
        (
            context(vec![pool("four", &["192.0.2.1"])]),
            claim("a/a", DUAL),
            (
                true,
                "PartlyAssigned",
                "192.0.2.1 from pool four. asked for an IPv6 address: pool four has no IPv6 addresses. To do: add a range of that family to a pool that serves the Service",
            ),
        ),
        (
            Context::default(),
            claim("a/a", V4),
            (
                false,
                "NoPools",
                "asked for an IPv4 address: there is no pool. To do: create an IPAddressPool",
            ),
        ),
    ] {
        let allocator = settled(context, vec![claim.clone()]);
        let decision = allocator.decision(&claim.service).unwrap();
        let condition = ServiceStatus::of(&claim, decision).condition;
        assert_eq!(
            (
                condition.is_true,
                condition.reason,
                condition.message.as_str()
            ),
            expected
        );
    }
}

#[test]
fn every_pool_says_what_it_would_do() {
    let mut by_request = pool("a", &["192.0.2.64/28"]);
    by_request.auto_assign = false;
    let context = context(vec![
        by_request,
        pool("b", &["192.0.2.1"]),
        pool("c", &["192.0.2.2"]),
        for_namespace(pool("d", &["192.0.2.3"]), "media", 7),
    ]);
    let first = created(claim("x/first", V4), 1);
    let verdicts = |second: Claim| {
        let service = second.service.clone();
        let allocator = settled(context.clone(), vec![first.clone(), created(second, 2)]);
        let verdicts = allocator.verdicts(&service).into_iter();
        let verdicts = verdicts.map(|verdict| {
            let obstacle = verdict.obstacle.map(|obstacle| obstacle.to_string());
            format!("{}: {}", verdict.pool, obstacle.unwrap_or_default())
        });
        verdicts.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        verdicts(asking(claim("x/second", V4), &["198.51.100.1"])),
        "d: pool d does not serve the namespace x\n\
         a: pool a serves only Services that ask for it (autoAssign: false)\n\
         b: pool b has no free IPv4 address: 1 of 1 in use\n\
         c: "
    );
    assert_eq!(
        verdicts(asking_pool(claim("x/second", V6), "a")),
        "d: pool d does not serve the namespace x\n\
         a: pool a has no IPv6 addresses\n\
         b: pool b has no IPv6 addresses\n\
         c: pool c has no IPv6 addresses"
    );
}

#[test]
fn a_quota_limits_what_is_new_in_each_namespace_and_family() {
    let mut limited = pool("lan", &["192.0.2.1-192.0.2.9", "2001:db8::1"]);
    limited.quota = std::num::NonZeroU32::new(2);
    let full = "asked for an IPv4 address: pool lan gives a namespace at most 2 IPv4 addresses (quota), and a has 2. To do: delete a Service of the namespace that needs no address, share one (annotation allow-shared-ip), or raise the pool's quota";
    let mut allocator = settled(
        context(vec![limited.clone()]),
        vec![
            claim("a/1", V4),
            sharing(claim("a/2", V4), "k", Tcp, 80),
            claim("a/3", V4),
            sharing(claim("a/4", V4), "k", Tcp, 81),
            claim("a/5", V6),
            claim("b/1", V4),
        ],
    );
    for (service, address, lacks) in [
        ("a/1", "192.0.2.1", ""),
        ("a/2", "192.0.2.2", ""),
        ("a/3", "", full),
        ("a/4", "192.0.2.2", ""),
        ("a/5", "2001:db8::1", ""),
        ("b/1", "192.0.2.3", ""),
    ] {
        let expected = (address.to_owned(), lacks.to_owned());
        assert_eq!(answer(&allocator, service), expected, "{service}");
    }
    // Another address in place of its own costs nothing; a lower quota takes nothing away.
    step(&mut allocator, asking(claim("a/1", V4), &["192.0.2.9"]));
    assert_eq!(answer(&allocator, "a/1").0, "192.0.2.9");
    limited.quota = std::num::NonZeroU32::new(1);
    allocator.configure(context(vec![limited]));
    allocator.settle();
    assert_eq!(answer(&allocator, "a/1").0, "192.0.2.9");
    assert_eq!(answer(&allocator, "a/2").0, "192.0.2.2");
    allocator.withdraw(&key("a/1"));
    allocator.settle();
    assert_eq!(answer(&allocator, "a/3").0, "");
    allocator.withdraw(&key("a/2"));
    allocator.withdraw(&key("a/4"));
    allocator.settle();
    assert_eq!(answer(&allocator, "a/3").0, "192.0.2.1");
}

#[test]
fn an_address_on_hold_that_another_machine_has_is_not_given_again() {
    let mut held = pool("lan", &["192.0.2.1-192.0.2.2"]);
    held.hold_after_deletion = Some("10m".parse().unwrap());
    let plain = context(vec![held]);
    let mut allocator = settled(plain.clone(), vec![claim("a/1", V4)]);
    assert_eq!(answer(&allocator, "a/1").0, "192.0.2.1");
    allocator.delete(&key("a/1"));
    let mut strange = plain;
    let machine = Stranger {
        mac: "02:bb:00:00:00:01".to_owned(),
        heard_by: "node-2".to_owned(),
    };
    strange.strangers.insert(ip("192.0.2.1"), machine);
    allocator.configure(strange);
    step(&mut allocator, claim("a/1", V4));
    assert_eq!(answer(&allocator, "a/1").0, "192.0.2.2");
}

#[test]
fn an_address_is_held_for_a_deleted_service_of_the_same_name() {
    let mut held = pool("lan", &["192.0.2.1-192.0.2.2"]);
    held.hold_after_deletion = Some("10m".parse().unwrap());
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut allocator = settled(
        context(vec![held]),
        vec![claim("a/1", V4), claim("a/2", V4)],
    );
    allocator.advance(time("2026-01-02T03:00:00.7Z"));
    allocator.delete(&key("a/1"));
    step(&mut allocator, claim("b/any", V4));
    step(&mut allocator, asking(claim("b/this", V4), &["192.0.2.1"]));
    let lacks = |allocator: &_, service| answer(allocator, service).1;
    assert_eq!(
        lacks(&allocator, "b/any"),
        "asked for an IPv4 address: pool lan has no free IPv4 address: 1 of 2 in use, 1 held for deleted Services. To do: add a range to a pool, or delete a Service that needs no address"
    );
    assert_eq!(
        lacks(&allocator, "b/this"),
        "asked for 192.0.2.1: 192.0.2.1 is held for a/1, which was deleted, until 2026-01-02T03:10:00Z. To do: choose another one, or wait until then"
    );
    let mut again = allocator.clone();
    step(&mut again, claim("a/1", V4));
    assert_eq!(answer(&again, "a/1").0, "192.0.2.1");
    assert_eq!(again.poll_timeout(), None);
    allocator.advance(time("2026-01-02T03:09:59Z"));
    assert_eq!(allocator.settle(), []);
    assert_eq!(allocator.poll_timeout(), Some(time("2026-01-02T03:10:00Z")));
    allocator.advance(time("2026-01-02T03:10:00Z"));
    allocator.settle();
    assert_eq!(answer(&allocator, "b/any").0, "192.0.2.1");
    assert!(lacks(&allocator, "b/this").contains("in use by b/any"));
}
