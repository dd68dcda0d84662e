use std::time::Duration;

use super::*;
use crate::heartbeat::Entries;

const LINK: LinkIndex = LinkIndex(2);
const OWN: NodeId = NodeId(1);
/// The number of the last heartbeat that was sent, unless a test says otherwise.
const LAST: u32 = 1000;

fn heartbeat(node: &str, incarnation: u64, sequence: u64, echo: Option<u32>) -> Heartbeat {
    Heartbeat {
        node: node.into(),
        link: 3,
        mac: MacAddr::new(2, 0, 0, 0, 0, 9),
        incarnation,
        sequence,
        interval: Duration::from_millis(50),
        unfit: None,
        version: 0,
        digest: 0,
        echoes: echo
            .map(|sequence| Echo {
                node: OWN,
                sequence,
                heard: true,
            })
            .into_iter()
            .collect(),
        echoes_complete: true,
        wanted: vec![],
        entries: Entries::Changes(vec![]),
    }
}

fn receive(peers: &mut Peers, heartbeat: &Heartbeat, milliseconds: u64) -> Result<bool, Rejection> {
    receive_after(LAST, peers, heartbeat, milliseconds)
}

fn receive_after(
    last: u32,
    peers: &mut Peers,
    heartbeat: &Heartbeat,
    milliseconds: u64,
) -> Result<bool, Rejection> {
    peers
        .receive(
            LINK,
            heartbeat,
            OWN,
            &Sent::until([last.into()]),
            &Timing::default(),
            Time::from_millis(milliseconds),
        )
        .map(|received| received.newly_heard)
}

#[test]
fn whom_a_peer_hears_is_what_it_said_of_each_last() {
    let mut peers = Peers::default();
    receive(&mut peers, &heartbeat("a", 5, 1, Some(LAST)), 0).unwrap();
    for (sequence, said, complete, hears) in [
        (2, &[(8, true)][..], true, [false, true, false]),
        (3, &[(8, true)], true, [false, true, false]),
        (4, &[(9, true)], false, [false, true, true]),
        (5, &[(8, false)], false, [false, false, true]),
        (6, &[], true, [false; 3]),
        (7, &[], true, [false; 3]),
        (8, &[(9, true)], false, [false, false, true]),
        (9, &[], true, [false; 3]),
    ] {
        let echoes = said.iter().map(|&(node, heard)| Echo {
            node: NodeId(node),
            sequence: 1,
            heard,
        });
        let heartbeat = Heartbeat {
            echoes: echoes.collect(),
            echoes_complete: complete,
            ..heartbeat("a", 5, sequence, None)
        };
        receive(&mut peers, &heartbeat, 0).unwrap();
        let peer = peers.get(&"a".into()).unwrap();
        let heard = [OWN, NodeId(8), NodeId(9)].map(|node| peer.hears(node));
        assert_eq!(heard, hears, "{sequence}");
    }
}

#[test]
fn only_what_is_of_now_is_heard() {
    let mut peers = Peers::default();
    for (incarnation, sequence, echo, expected) in [
        (5, 100, None, Err(Rejection::Unproven)),
        (5, 101, Some(LAST - 256), Err(Rejection::Unproven)),
        (5, 102, Some(LAST), Ok(true)),
        (5, 103, None, Ok(false)),
        (5, 103, None, Err(Rejection::Replayed)),
        (5, 106, None, Ok(false)),
        (5, 104, None, Ok(false)),
        (5, 104, None, Err(Rejection::Replayed)),
        (5, 1000, None, Ok(false)),
        (5, 936, None, Err(Rejection::Replayed)),
        (5, 937, None, Ok(false)),
        (4, 2000, None, Err(Rejection::Unproven)),
        (6, 1, Some(LAST + 6), Ok(true)),
        (5, 1001, None, Err(Rejection::Unproven)),
        (6, 2, None, Ok(false)),
    ] {
        let heartbeat = heartbeat("a", incarnation, sequence, echo);
        let last = LAST + u32::try_from(incarnation).unwrap();
        assert_eq!(
            receive_after(last, &mut peers, &heartbeat, 0),
            expected,
            "{incarnation} {sequence} {echo:?}"
        );
    }
}

/// What a machine on the LAN recorded a moment before a speaker was restarted echoes numbers that are still recent.
#[test]
fn a_recording_of_a_former_start_is_not_heard_however_fresh() {
    let mut peers = Peers::default();
    for (last, incarnation, sequence, echo, expected) in [
        (100, 5, 1, Some(100), Ok(true)),
        (110, 6, 1, Some(110), Ok(true)),
        (110, 5, 2, Some(100), Err(Rejection::Unproven)),
        (120, 5, 3, Some(110), Err(Rejection::Unproven)),
        (120, 6, 2, None, Ok(false)),
        // One that lives has heard what was sent since.
        (121, 5, 4, Some(121), Ok(true)),
        (121, 6, 3, Some(121), Err(Rejection::Unproven)),
        (122, 6, 4, Some(122), Ok(true)),
    ] {
        let heartbeat = heartbeat("a", incarnation, sequence, echo);
        assert_eq!(
            receive_after(last, &mut peers, &heartbeat, 0),
            expected,
            "{incarnation} {sequence} {echo:?} after {last}"
        );
    }
}

#[test]
fn three_missing_heartbeats_are_silence() {
    let mut peers = Peers::default();
    receive(&mut peers, &heartbeat("a", 5, 1, Some(LAST)), 1000).unwrap();
    receive(&mut peers, &heartbeat("a", 5, 2, None), 1050).unwrap();
    assert_eq!(peers.next_deadline(), Some(Time::from_millis(1200)));
    assert_eq!(peers.expire(Time::from_millis(1199)), []);
    assert_eq!(peers.expire(Time::from_millis(1200)), ["a".into()]);
    assert_eq!(peers.expire(Time::from_millis(1200)), []);
    assert_eq!(
        receive(&mut peers, &heartbeat("a", 5, 9, None), 2000),
        Ok(true)
    );
}

#[test]
fn jitter_earns_patience_and_steadiness_loses_it() {
    let mut peers = Peers::default();
    receive(&mut peers, &heartbeat("a", 5, 0, Some(LAST)), 0).unwrap();
    receive(&mut peers, &heartbeat("a", 5, 1, None), 90).unwrap();
    assert_eq!(
        peers.next_deadline(),
        Some(Time::from_millis(90 + 150 + 40))
    );
    for beat in 2..60 {
        receive(&mut peers, &heartbeat("a", 5, beat, None), 40 + 50 * beat).unwrap();
    }
    let last = 40 + 50 * 59;
    assert!(peers.next_deadline().unwrap() < Time::from_millis(last + 152));
}

#[test]
fn memory_has_an_end_and_the_heard_are_kept() {
    let mut peers = Peers::default();
    receive(&mut peers, &heartbeat("heard", 5, 1, Some(LAST)), 0).unwrap();
    for number in 0..1000 {
        let node = format!("n{number}");
        assert_eq!(
            receive(&mut peers, &heartbeat(&node, 5, 1, None), 0),
            Err(Rejection::Unproven)
        );
    }
    assert_eq!(peers.peers.len(), MOST_PEERS);
    assert!(peers.get(&"heard".into()).is_some());
    for number in 0..1000 {
        let node = format!("m{number}");
        let _ = receive(&mut peers, &heartbeat(&node, 5, 1, Some(LAST)), 0);
    }
    assert_eq!(
        receive(&mut peers, &heartbeat("late", 5, 1, Some(LAST)), 0),
        Err(Rejection::TooManyPeers)
    );
}
