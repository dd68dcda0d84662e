//! One machine, asked from outside: what it answers on the wire, and what no input can do to it.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here is a failing test, in helpers as well"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use speaker_announcer::heartbeat::{Claim, Echo, Entries, Entry, Heartbeat, NodeId};
use speaker_announcer::packet::arp::{Arp, Operation};
use speaker_announcer::packet::ndp::{self, Message, Ndp, solicited_node};
use speaker_announcer::packet::{Body, Frame};
use speaker_announcer::{
    Announcer, Candidate, Configuration, Event, EventReason, Failback, Fitness, FrameError,
    Identity, Ineligible, Key, Keyring, Link, LinkIndex, Links, MacAddr, Partition, Payload,
    PlacementKey, Programmed, Rejection, Time, Timing, Vip,
};

const LINK: LinkIndex = LinkIndex(2);
const OTHER_LINK: LinkIndex = LinkIndex(3);
const OWN: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
const CLIENT: MacAddr = MacAddr(2, 0, 0, 0, 0, 9);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);

fn keys() -> Keyring {
    Keyring::new(Key::new(&[7; 32]).unwrap(), None)
}

fn link(index: LinkIndex, mac: MacAddr, addresses: &[&str]) -> Link {
    Link {
        index,
        name: format!("eth{}", index.0),
        mac,
        up: true,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn configuration(vips: impl IntoIterator<Item = IpAddr>, nodes: &[&str]) -> Configuration {
    let vip = Vip {
        placement: PlacementKey::Sharing("web".to_owned()),
        candidates: nodes
            .iter()
            .map(|&node| Candidate {
                node: node.into(),
                eligibility: Ok(()),
            })
            .collect(),
        requested: None,
        failback: Failback::Never,
        partition: Partition::Available,
        links: Links::InSubnet,
    };
    Configuration {
        vips: vips
            .into_iter()
            .map(|address| (address, vip.clone()))
            .collect(),
        speakers: nodes.iter().map(|&node| node.into()).collect(),
    }
}

fn drain(announcer: &mut Announcer) -> Vec<(LinkIndex, Frame)> {
    let transmits = std::iter::from_fn(|| announcer.poll_transmit());
    transmits
        .filter_map(|transmit| match transmit.payload {
            Payload::Frame(octets) => Some((transmit.link, Frame::parse(&octets).unwrap())),
            Payload::Heartbeat(_) => None,
        })
        .collect()
}

fn events(announcer: &mut Announcer) -> Vec<Event> {
    std::iter::from_fn(|| announcer.poll_event()).collect()
}

fn run(announcer: &mut Announcer, end: Time) {
    while let Some(due) = announcer.poll_timeout().filter(|&due| due <= end) {
        announcer.handle_timeout(due);
    }
    announcer.handle_timeout(end);
}

/// A machine alone on its links, with a foot in another subnet; at two seconds it owns both VIPs.
fn owner() -> (Announcer, Time) {
    let identity = Identity {
        node: "a".into(),
        incarnation: 1,
        seed: 1,
    };
    let mut announcer = Announcer::new(identity, keys(), Timing::default(), Time::START);
    announcer.handle_link(
        link(LINK, OWN, &["192.0.2.1/24", "2001:db8::1/64"]),
        Time::START,
    );
    announcer.handle_link(
        link(OTHER_LINK, MacAddr(2, 0, 0, 0, 1, 1), &["198.51.100.1/24"]),
        Time::START,
    );
    announcer.handle_configuration(
        configuration([VIP4.into(), VIP6.into()], &["a", "b"]),
        Time::START,
    );
    let now = Time::from_millis(2900);
    run(&mut announcer, now);
    assert_eq!(announcer.owned().count(), 2);
    drain(&mut announcer);
    events(&mut announcer);
    (announcer, now)
}

fn request(sender: Ipv4Addr, target: Ipv4Addr) -> Body {
    Body::Arp(Arp {
        operation: Operation::Request,
        sender_mac: CLIENT,
        sender,
        target_mac: MacAddr::zero(),
        target,
    })
}

fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, source_mac: Option<MacAddr>) -> Body {
    Body::Ndp(Ndp {
        source,
        destination,
        message: Message::Solicitation(ndp::Solicitation {
            target: VIP6,
            source_mac,
        }),
    })
}

/// What the owner says to a client that says this.
fn answers(link: LinkIndex, body: Body) -> Vec<Frame> {
    let (mut announcer, now) = owner();
    let frame = Frame {
        source: CLIENT,
        destination: MacAddr::broadcast(),
        body,
    };
    assert_eq!(announcer.handle_frame(link, &frame.emit(), now), Ok(()));
    let frames = drain(&mut announcer);
    frames
        .into_iter()
        .inspect(|(to, _)| assert_eq!(*to, link))
        .map(|(_, frame)| frame)
        .collect()
}

#[test]
fn questions_about_an_ipv4_vip_are_answered_to_whoever_asked() {
    let client = Ipv4Addr::new(192, 0, 2, 9);
    for (sender, target, link, answered) in [
        (client, VIP4, LINK, true),
        (Ipv4Addr::UNSPECIFIED, VIP4, LINK, true),
        (client, VIP4, OTHER_LINK, false),
        (client, Ipv4Addr::new(192, 0, 2, 101), LINK, false),
    ] {
        let expected = Frame {
            source: OWN,
            destination: CLIENT,
            body: Body::Arp(Arp {
                operation: Operation::Reply,
                sender_mac: OWN,
                sender: VIP4,
                target_mac: CLIENT,
                target: sender,
            }),
        };
        let expected = if answered { vec![expected] } else { vec![] };
        assert_eq!(
            answers(link, request(sender, target)),
            expected,
            "{sender} {target} {link}"
        );
    }
}

#[test]
fn questions_about_an_ipv6_vip_are_answered_with_and_without_option_unicast_and_multicast() {
    let answer = |destination_mac, source| Frame {
        source: OWN,
        destination: destination_mac,
        body: Body::Ndp(Ndp::answer(source, VIP6, OWN)),
    };
    let elsewhere = MacAddr(2, 0, 0, 0, 0, 8);
    for (body, expected) in [
        (
            solicitation(CLIENT6, solicited_node(VIP6), Some(CLIENT)),
            answer(CLIENT, CLIENT6),
        ),
        (
            solicitation(CLIENT6, solicited_node(VIP6), None),
            answer(CLIENT, CLIENT6),
        ),
        (solicitation(CLIENT6, VIP6, None), answer(CLIENT, CLIENT6)),
        (
            solicitation(CLIENT6, VIP6, Some(elsewhere)),
            answer(elsewhere, CLIENT6),
        ),
        (
            solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(VIP6), None),
            answer(MacAddr(0x33, 0x33, 0, 0, 0, 1), Ipv6Addr::UNSPECIFIED),
        ),
    ] {
        assert_eq!(answers(LINK, body.clone()), [expected], "{body:?}");
        assert_eq!(answers(OTHER_LINK, body), []);
    }
}

#[test]
fn an_address_is_defended_at_most_once_in_ten_seconds_and_never_given_up() {
    let (mut announcer, now) = owner();
    let claim = Frame {
        source: CLIENT,
        destination: MacAddr::broadcast(),
        body: Body::Arp(Arp::announcement(CLIENT, VIP4)),
    };
    let mut defended = Vec::new();
    for seconds in 0..25 {
        let now = now + Duration::from_secs(seconds);
        run(&mut announcer, now);
        drain(&mut announcer);
        announcer.handle_frame(LINK, &claim.emit(), now).unwrap();
        if !drain(&mut announcer).is_empty() {
            defended.push(seconds);
        }
    }
    assert_eq!(defended, [0, 10, 20]);
    let told: Vec<_> = events(&mut announcer)
        .iter()
        .map(ToString::to_string)
        .collect();
    let sentence =
        "another machine with the hardware address 02:00:00:00:00:09 claims 192.0.2.100: defended";
    assert_eq!(told, [sentence; 3]);
    assert_eq!(announcer.owned().count(), 2);
}

#[test]
fn its_own_frames_are_not_foreign() {
    let (mut announcer, now) = owner();
    for body in [
        Body::Arp(Arp::announcement(OWN, VIP4)),
        Body::Ndp(Ndp::announcement(OWN, VIP6)),
    ] {
        let frame = Frame {
            source: OWN,
            destination: MacAddr::broadcast(),
            body,
        };
        announcer.handle_frame(LINK, &frame.emit(), now).unwrap();
    }
    assert_eq!(events(&mut announcer), []);
}

#[test]
fn nothing_is_taken_in_from_a_link_that_is_unknown_or_down() {
    let (mut announcer, now) = owner();
    let question = Frame {
        source: CLIENT,
        destination: MacAddr::broadcast(),
        body: request(Ipv4Addr::new(192, 0, 2, 9), VIP4),
    };
    let unknown = LinkIndex(9);
    assert_eq!(
        announcer.handle_frame(unknown, &question.emit(), now),
        Err(FrameError::UnknownLink)
    );
    assert_eq!(
        announcer.handle_heartbeat(unknown, b"", now),
        Err(Rejection::UnknownLink)
    );
    let down = Link {
        up: false,
        ..link(LINK, OWN, &["192.0.2.1/24"])
    };
    announcer.handle_link(down, now);
    assert_eq!(
        announcer.handle_frame(LINK, &question.emit(), now),
        Err(FrameError::UnknownLink)
    );
    assert_eq!(announcer.owned().count(), 0);
    let reason = Ineligible::LinkDown;
    let released = Event::Released {
        vip: VIP4.into(),
        reason,
    };
    assert!(events(&mut announcer).contains(&released));
}

#[test]
fn a_vip_that_is_configured_away_is_not_answered_for() {
    let (mut announcer, now) = owner();
    announcer.handle_configuration(configuration([VIP6.into()], &["a", "b"]), now);
    assert_eq!(
        events(&mut announcer),
        [Event::Unconfigured { vip: VIP4.into() }]
    );
    let question = Frame {
        source: CLIENT,
        destination: MacAddr::broadcast(),
        body: request(Ipv4Addr::new(192, 0, 2, 9), VIP4),
    };
    announcer.handle_frame(LINK, &question.emit(), now).unwrap();
    assert_eq!(drain(&mut announcer), []);
}

#[test]
fn a_changed_hardware_address_is_announced() {
    let (mut announcer, now) = owner();
    let mac = MacAddr(2, 0, 0, 0, 0, 77);
    announcer.handle_link(link(LINK, mac, &["192.0.2.1/24", "2001:db8::1/64"]), now);
    let announced: Vec<_> = drain(&mut announcer)
        .into_iter()
        .map(|(_, frame)| frame)
        .collect();
    assert!(announced.iter().all(|frame| frame.source == mac));
    assert!(
        announced
            .iter()
            .any(|frame| frame.body == Body::Arp(Arp::announcement(mac, VIP4)))
    );
    assert!(
        announced
            .iter()
            .any(|frame| frame.body == Body::Ndp(Ndp::announcement(mac, VIP6)))
    );
}

#[test]
fn the_groups_to_join_are_those_of_the_vips_of_the_link() {
    let (announcer, _) = owner();
    assert_eq!(
        announcer.solicited_node_groups(LINK),
        [solicited_node(VIP6)].into()
    );
    assert_eq!(announcer.solicited_node_groups(OTHER_LINK), [].into());
}

/// A heartbeat of the peer `node`, made with the right key.
fn heartbeat(node: &str, incarnation: u64, sequence: u64) -> Heartbeat {
    Heartbeat {
        node: node.into(),
        link: 2,
        mac: MacAddr(2, 0, 0, 0, 2, 2),
        incarnation,
        sequence,
        interval: Duration::from_millis(50),
        unfit: None,
        version: 1,
        digest: 0,
        echoes: vec![],
        echoes_complete: true,
        wanted: vec![],
        entries: Entries::Changes(vec![]),
    }
}

#[test]
fn forged_foreign_replayed_and_unproven_heartbeats_are_refused_with_their_reasons() {
    let (mut announcer, now) = owner();
    let good = heartbeat("b", 1, 1).seal(&keys());
    let mut forged = good.clone();
    forged[20] ^= 1;
    let foreign = heartbeat("b", 1, 1).seal(&Keyring::new(Key::new(&[8; 32]).unwrap(), None));
    for (octets, reason) in [
        (good.clone(), Rejection::Unproven),
        (good[..good.len() - 1].to_vec(), Rejection::Forged),
        (forged, Rejection::Forged),
        (foreign, Rejection::UnknownKey),
        (heartbeat("a", 1, 1).seal(&keys()), Rejection::Own),
        (heartbeat("a", 2, 1).seal(&keys()), Rejection::NameTaken),
        (b"hello".to_vec(), Rejection::Length),
        (vec![0; 64], Rejection::NotAHeartbeat),
    ] {
        assert_eq!(announcer.handle_heartbeat(LINK, &octets, now), Err(reason));
    }
    assert_eq!(events(&mut announcer), [], "and nothing happens");
}

/// Recorded heartbeats of a dead peer do not bring it back to life.
#[test]
fn a_recording_proves_nothing() {
    let (mut announcer, mut now) = owner();
    let mut sequence = 0;
    for _ in 0..100 {
        now += Duration::from_millis(20);
        sequence += 1;
        let octets = heartbeat("b", 1, sequence).seal(&keys());
        assert_eq!(
            announcer.handle_heartbeat(LINK, &octets, now),
            Err(Rejection::Unproven)
        );
        run(&mut announcer, now);
    }
    let heard = events(&mut announcer)
        .into_iter()
        .any(|event| matches!(event, Event::PeerHeard { .. }));
    assert!(!heard);
}

/// The last heartbeat that the machine sent on the link.
fn last_sent(announcer: &mut Announcer) -> Option<Heartbeat> {
    std::iter::from_fn(|| announcer.poll_transmit())
        .filter_map(|transmit| match transmit.payload {
            Payload::Heartbeat(octets) if transmit.link == LINK => {
                Heartbeat::open(&octets, &keys()).ok()
            }
            _ => None,
        })
        .last()
}

/// Who was away itself declares nobody silent, and is itself silent until it has heard who took its VIPs.
#[test]
fn a_machine_that_was_stopped_blames_nobody_and_holds_its_answers() {
    let (mut announcer, mut now) = owner();
    now += Duration::from_millis(50);
    announcer.handle_timeout(now);
    let mut peer = heartbeat("b", 1, 1);
    peer.echoes = vec![Echo {
        node: NodeId::of(&"a".into()),
        sequence: u32::try_from(last_sent(&mut announcer).unwrap().sequence & 0xffff_ffff).unwrap(),
        heard: true,
    }];
    assert_eq!(
        announcer.handle_heartbeat(LINK, &peer.seal(&keys()), now),
        Ok(())
    );
    events(&mut announcer);
    drain(&mut announcer);
    now += Duration::from_secs(1);
    let question = Frame {
        source: CLIENT,
        destination: MacAddr::broadcast(),
        body: request(Ipv4Addr::new(192, 0, 2, 9), VIP4),
    };
    announcer.handle_frame(LINK, &question.emit(), now).unwrap();
    assert_eq!(drain(&mut announcer), [], "it may have lost the address");
    let told: Vec<_> = events(&mut announcer).iter().map(Event::reason).collect();
    assert_eq!(told, [EventReason::SpeakerStalled]);
    now += Duration::from_millis(149);
    run(&mut announcer, now);
    assert_eq!(events(&mut announcer), []);
    announcer.handle_frame(LINK, &question.emit(), now).unwrap();
    assert_eq!(drain(&mut announcer).len(), 1, "nobody has claimed it");
    run(&mut announcer, now + Duration::from_millis(1));
    let told: Vec<_> = events(&mut announcer).iter().map(Event::reason).collect();
    assert_eq!(
        told,
        [EventReason::PeerSilent, EventReason::SilenceAgreed],
        "after a window the peer is silent indeed"
    );
}

/// 100 peers and 500 VIPs: a second of the machine's time costs a fraction of a second of the processor's, and
/// while nothing changes no heartbeat makes it look at the VIPs.
#[test]
fn a_hundred_peers_and_five_hundred_vips_are_cheap() {
    let names: Vec<_> = (0..100).map(|number| format!("n{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let vips = (0..500_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([192, 0, high, low])
    });
    let identity = Identity {
        node: "n0".into(),
        incarnation: 1,
        seed: 1,
    };
    let mut now = Time::START;
    let mut announcer = Announcer::new(identity, keys(), Timing::default(), now);
    announcer.handle_link(link(LINK, OWN, &["192.0.0.1/16"]), now);
    announcer.handle_configuration(configuration(vips, &names), now);
    run(&mut announcer, now + Duration::from_millis(100));
    now += Duration::from_millis(100);
    let mut echo = last_sent(&mut announcer).unwrap().sequence;
    let started = std::time::Instant::now();
    for beat in 0..20_u64 {
        for name in &names[1..] {
            let mut heartbeat = heartbeat(name, 1, 1 + beat);
            heartbeat.interval = Duration::from_millis(100);
            heartbeat.echoes = vec![Echo {
                node: NodeId::of(&"n0".into()),
                sequence: u32::try_from(echo & 0xffff_ffff).unwrap(),
                heard: true,
            }];
            assert_eq!(
                announcer.handle_heartbeat(LINK, &heartbeat.seal(&keys()), now),
                Ok(())
            );
        }
        now += Duration::from_millis(100);
        run(&mut announcer, now);
        echo = last_sent(&mut announcer).map_or(echo, |heartbeat| heartbeat.sequence);
    }
    let spent = started.elapsed();
    assert_eq!(
        announcer.owned().count(),
        500,
        "the first candidate of all of them, and nobody else stands"
    );
    assert!(
        spent < Duration::from_secs(2),
        "two seconds of 99 peers and 500 VIPs took {spent:?}"
    );
}

/// Anything that can be done to the machine.
#[derive(Clone, Debug)]
enum Input {
    Heartbeat(Vec<u8>),
    Sealed(Vec<u8>),
    Peer(u8, u64, u64, Vec<(u8, u8)>),
    Frame(Vec<u8>),
    Arp(bool, [u8; 6], u8, u8),
    Link(u8, bool, bool),
    LinkRemoved(u8),
    Configuration(Vec<u8>, u8),
    Fitness(bool),
    Idle(Vec<u8>),
    Programmed(Option<Vec<u8>>),
    Reprogrammed(Vec<u8>, Vec<u8>),
    Shutdown,
    Pass(u32),
}

fn any_input() -> impl Strategy<Value = Input> {
    let octets = || prop::collection::vec(any::<u8>(), 0..150);
    let some_vips = || prop::collection::vec(0..8_u8, 0..8);
    prop_oneof![
        octets().prop_map(Input::Heartbeat),
        octets().prop_map(Input::Sealed),
        (
            0..4_u8,
            0..3_u64,
            any::<u64>(),
            prop::collection::vec((0..8_u8, 0..7_u8), 0..6)
        )
            .prop_map(|(node, incarnation, sequence, claims)| Input::Peer(
                node,
                incarnation,
                sequence,
                claims
            )),
        octets().prop_map(Input::Frame),
        (any::<bool>(), any::<[u8; 6]>(), 0..8_u8, 0..8_u8)
            .prop_map(|(request, mac, sender, target)| Input::Arp(request, mac, sender, target)),
        (0..3_u8, any::<bool>(), any::<bool>())
            .prop_map(|(index, up, subnet)| Input::Link(index, up, subnet)),
        (0..3_u8).prop_map(Input::LinkRemoved),
        (prop::collection::vec(0..8_u8, 0..8), 0..4_u8)
            .prop_map(|(vips, nodes)| Input::Configuration(vips, nodes)),
        any::<bool>().prop_map(Input::Fitness),
        some_vips().prop_map(Input::Idle),
        prop::option::of(some_vips()).prop_map(Input::Programmed),
        (some_vips(), some_vips()).prop_map(|(added, removed)| Input::Reprogrammed(added, removed)),
        Just(Input::Shutdown),
        (0..2_000_000_u32).prop_map(Input::Pass),
        (0..50_000_u32).prop_map(Input::Pass),
    ]
}

fn small(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn addresses(numbers: Vec<u8>) -> BTreeSet<IpAddr> {
    let numbers = numbers.into_iter();
    numbers.map(|number| small(number).into()).collect()
}

fn claim(number: u8, epoch: u32) -> Option<Claim> {
    match number {
        0 => None,
        1 => Some(Claim::Offered),
        2 => Some(Claim::Claiming),
        3 => Some(Claim::Owned { epoch }),
        4 => Some(Claim::Owned { epoch: u32::MAX }),
        5 => Some(Claim::Leaving { epoch }),
        _ => Some(Claim::Quarantined),
    }
}

fn feed(announcer: &mut Announcer, input: Input, echo: u64, now: &mut Time) {
    let link_index = LinkIndex(2);
    match input {
        Input::Heartbeat(octets) => {
            let _ = announcer.handle_heartbeat(link_index, &octets, *now);
        }
        Input::Sealed(octets) => {
            let _ = announcer.handle_heartbeat(link_index, &keys().seal(&octets), *now);
        }
        Input::Peer(node, incarnation, sequence, claims) => {
            let mut heartbeat = heartbeat(
                ["a", "b", "c", "d"][usize::from(node)],
                incarnation,
                sequence,
            );
            heartbeat.echoes = vec![Echo {
                node: NodeId::of(&"a".into()),
                sequence: u32::try_from(echo & 0xffff_ffff).unwrap(),
                heard: true,
            }];
            let epoch = u32::try_from(sequence % 5).unwrap();
            let entries = claims.into_iter().map(|(vip, number)| Entry {
                vip: small(vip).into(),
                claim: claim(number, epoch),
            });
            heartbeat.entries = Entries::Changes(entries.collect());
            let _ = announcer.handle_heartbeat(link_index, &heartbeat.seal(&keys()), *now);
        }
        Input::Frame(octets) => {
            let _ = announcer.handle_frame(link_index, &octets, *now);
        }
        Input::Arp(request, mac, sender, target) => {
            let arp = Arp {
                operation: if request {
                    Operation::Request
                } else {
                    Operation::Reply
                },
                sender_mac: mac.into(),
                sender: if sender == 0 {
                    Ipv4Addr::UNSPECIFIED
                } else {
                    small(sender)
                },
                target_mac: OWN,
                target: small(target),
            };
            let frame = Frame {
                source: mac.into(),
                destination: OWN,
                body: Body::Arp(arp),
            };
            let _ = announcer.handle_frame(link_index, &frame.emit(), *now);
        }
        Input::Link(index, up, subnet) => {
            let addresses: &[&str] = if subnet { &["192.0.2.1/24"] } else { &[] };
            let link = Link {
                up,
                ..link(LinkIndex(u32::from(index) + 1), OWN, addresses)
            };
            announcer.handle_link(link, *now);
        }
        Input::LinkRemoved(index) => {
            announcer.handle_link_removed(LinkIndex(u32::from(index) + 1), *now)
        }
        Input::Configuration(vips, nodes) => {
            let nodes = &["a", "b", "c"][..usize::from(nodes)];
            announcer.handle_configuration(
                configuration(vips.into_iter().map(|vip| small(vip).into()), nodes),
                *now,
            );
        }
        Input::Fitness(fit) => {
            let unfit = (!fit).then_some(Ineligible::Draining);
            announcer.handle_fitness(Fitness { unfit }, *now);
        }
        Input::Idle(idle) => announcer.handle_idle(&addresses(idle), *now),
        Input::Programmed(vips) => {
            let programmed = vips.map_or(Programmed::Unknown, |vips| {
                Programmed::Only(addresses(vips))
            });
            announcer.handle_programmed(programmed, *now);
        }
        Input::Reprogrammed(added, removed) => {
            let programmed = Programmed::Changed {
                added: addresses(added),
                removed: addresses(removed),
            };
            announcer.handle_programmed(programmed, *now);
        }
        Input::Shutdown => announcer.handle_shutdown(*now),
        Input::Pass(microseconds) => {
            *now += Duration::from_micros(microseconds.into());
            announcer.handle_timeout(*now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_input_makes_it_panic_spin_or_answer_for_what_it_does_not_own(inputs in prop::collection::vec(any_input(), 0..120)) {
        let identity = Identity { node: "a".into(), incarnation: 1, seed: 1 };
        let mut now = Time::from_millis(1000);
        let mut announcer = Announcer::new(identity, keys(), Timing::default(), now);
        announcer.handle_link(link(LINK, OWN, &["192.0.2.1/24"]), now);
        announcer.handle_configuration(configuration((0..4).map(|vip| small(vip).into()), &["a", "b", "c"]), now);
        let mut echo = 0;
        for input in inputs {
            feed(&mut announcer, input, echo, &mut now);
            if announcer.poll_timeout().is_some_and(|due| due <= now) {
                announcer.handle_timeout(now);
            }
            let sent: Vec<_> = std::iter::from_fn(|| announcer.poll_transmit()).collect();
            prop_assert!(sent.len() < 200, "{} packets at once", sent.len());
            for transmit in sent {
                match transmit.payload {
                    Payload::Heartbeat(octets) => {
                        prop_assert!(octets.len() <= 1400);
                        let sent = Heartbeat::open(&octets, &keys()).unwrap();
                        if transmit.link == LINK {
                            echo = sent.sequence;
                        }
                    }
                    Payload::Frame(octets) => {
                        let frame = Frame::parse(&octets).unwrap();
                        if let Body::Arp(arp) = frame.body {
                            let owned = arp.sender.is_unspecified() || announcer.owned().any(|vip| vip == arp.sender);
                            prop_assert!(owned, "{:?}", arp);
                        }
                    }
                }
            }
            let _ = events(&mut announcer);
            for vip in 0..8 {
                let _ = announcer.standing(small(vip).into());
            }
            prop_assert!(announcer.poll_timeout().unwrap() > now, "it would spin");
        }
    }
}
