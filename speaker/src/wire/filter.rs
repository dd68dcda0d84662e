//! Socket filters: programs of classic BPF that the kernel runs on each packet before it copies anything.
//!
//! The filter of a packet socket passes ARP and Neighbor Discovery that is about one of our VIPs, and nothing else. The
//! VIPs are looked up as sorted ranges by bisection: neighbouring addresses, as a pool gives them, cost as much as one.
//! With more than [`MOST_RANGES`] ranges the nearest are joined; the filter then passes some packets for addresses in
//! between, which the machine ignores. It never drops one that is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

/// A filter that passes nothing.
pub fn nothing() -> Vec<SockFilter> {
    vec![ret(DROP)]
}

/// Passes ARP requests and replies whose sender or target is one of `vips`.
///
/// For a socket that sees Ethernet headers and is bound to the EtherType of ARP.
pub fn arp(vips: &BTreeSet<Ipv4Addr>) -> Vec<SockFilter> {
    if vips.is_empty() {
        return nothing();
    }
    let ranges = ranges(vips.iter().map(|vip| vip.to_bits()), MOST_RANGES);
    let mut program = for_this_host();
    // The operation: 1 asks, 2 answers.
    program.extend([
        load_half(ETHERNET + 6),
        jump(EQUAL, 1, 2, 0),
        jump(EQUAL, 2, 1, 0),
        ret(DROP),
        load_word(ETHERNET + 14),
    ]);
    program.extend(search(&ranges));
    program.push(load_word(ETHERNET + 24));
    program.extend(search(&ranges));
    program.push(ret(DROP));
    program
}

/// Passes Neighbor Solicitations and Advertisements, sent on the link itself (hop limit 255), whose target is one of
/// `vips`.
///
/// For a socket that sees Ethernet headers and is bound to the EtherType of IPv6. Extension headers are not looked
/// behind: nobody puts any before Neighbor Discovery.
pub fn ndp(vips: &BTreeSet<Ipv6Addr>) -> Vec<SockFilter> {
    if vips.is_empty() {
        return nothing();
    }
    let mut program = for_this_host();
    program.extend([
        load_byte(ETHERNET + 6),
        jump(EQUAL, ICMPV6, 1, 0),
        ret(DROP),
        load_byte(ETHERNET + 7),
        jump(EQUAL, 255, 1, 0),
        ret(DROP),
        load_byte(ETHERNET + 40),
        jump(EQUAL, SOLICITATION, 2, 0),
        jump(EQUAL, ADVERTISEMENT, 1, 0),
        ret(DROP),
    ]);
    let networks = networks(vips);
    let most = (MOST_RANGES / networks.len().max(1)).max(1);
    for (network, lows) in networks {
        let mut looked_up = vec![load_word(TARGET + 12)];
        looked_up.extend(search(&ranges(lows.into_iter(), most)));
        let size = u32::try_from(looked_up.len()).unwrap_or(u32::MAX);
        // In another network: on to the next one, behind what is skipped here.
        for (word, offset) in network.into_iter().flatten().zip([0, 4, 8]) {
            let left = 2 - offset / 4;
            program.extend([
                load_word(TARGET + offset),
                jump(EQUAL, word, 1, 0),
                skip(size + left * 3),
            ]);
        }
        program.extend(looked_up);
    }
    program.push(ret(DROP));
    program
}

/// Passes datagrams that begin as heartbeats do and that no router has forwarded (RFC 5082), on a UDP socket of IPv6.
pub fn heartbeat_v6() -> Vec<SockFilter> {
    heartbeat(NETWORK_HEADER + 7)
}

/// As [`heartbeat_v6`], on a UDP socket of IPv4.
pub fn heartbeat_v4() -> Vec<SockFilter> {
    heartbeat(NETWORK_HEADER + 8)
}

fn heartbeat(hop_limit: u32) -> Vec<SockFilter> {
    vec![
        load_byte(hop_limit),
        jump(EQUAL, 255, 1, 0),
        ret(DROP),
        load_word(8),
        jump(EQUAL, MAGIC, 1, 0),
        ret(DROP),
        ret(PASS),
    ]
}

/// Drops what a network card in promiscuous mode picks up for others, and what this host sends.
fn for_this_host() -> Vec<SockFilter> {
    vec![
        load_byte(PACKET_TYPE),
        jump(GREATER, PACKET_MULTICAST, 0, 1),
        ret(DROP),
    ]
}

/// The VIPs by their first 96 bits; all together without a network if there are many.
fn networks(vips: &BTreeSet<Ipv6Addr>) -> BTreeMap<Option<[u32; 3]>, BTreeSet<u32>> {
    let words = |vip: &Ipv6Addr| {
        let bits = vip.to_bits();
        [96, 64, 32, 0].map(|shift| u32::try_from((bits >> shift) & 0xffff_ffff).unwrap_or(0))
    };
    let mut networks: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for [first, second, third, low] in vips.iter().map(words) {
        let network = Some([first, second, third]);
        networks.entry(network).or_default().insert(low);
    }
    if networks.len() > MOST_NETWORKS {
        let all = networks.into_values().flatten().collect();
        networks = BTreeMap::from([(None, all)]);
    }
    networks
}

/// Sorted numbers as at most `most` ranges that contain them all: exactly them, if that is possible.
fn ranges(numbers: impl Iterator<Item = u32>, most: usize) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    while ranges.len() > most {
        let gap = |pair: &[(u32, u32)]| match pair {
            [(_, last), (first, _)] => first - last,
            _ => u32::MAX,
        };
        let nearest = ranges
            .windows(2)
            .enumerate()
            .min_by_key(|(_, pair)| gap(pair))
            .map_or(0, |(at, _)| at);
        let (_, last) = ranges.remove(nearest + 1);
        if let Some(range) = ranges.get_mut(nearest) {
            range.1 = last;
        }
    }
    ranges
}

/// Passes the packet if the accumulator is in one of the sorted ranges; goes on behind itself if not.
fn search(ranges: &[(u32, u32)]) -> Vec<SockFilter> {
    search_before(ranges, 0)
}

/// As [`search`], where this many instructions follow that are to be left out too.
fn search_before(ranges: &[(u32, u32)], follow: u32) -> Vec<SockFilter> {
    match ranges {
        [] => vec![skip(follow)],
        &[(first, last)] => vec![
            jump(AT_LEAST, first, 0, 2),
            jump(GREATER, last, 1, 0),
            ret(PASS),
            skip(follow),
        ],
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let boundary = left.last().map_or(0, |&(_, last)| last);
            let right = search_before(right, follow);
            let behind = u32::try_from(right.len()).unwrap_or(u32::MAX);
            let left = search_before(left, follow + behind);
            let mut program = vec![
                jump(GREATER, boundary, 0, 1),
                skip(u32::try_from(left.len()).unwrap_or(u32::MAX)),
            ];
            program.extend(left);
            program.extend(right);
            program
        }
    }
}

fn load_word(offset: u32) -> SockFilter {
    SockFilter::new(LOAD_WORD, 0, 0, offset)
}

fn load_half(offset: u32) -> SockFilter {
    SockFilter::new(LOAD_HALF, 0, 0, offset)
}

fn load_byte(offset: u32) -> SockFilter {
    SockFilter::new(LOAD_BYTE, 0, 0, offset)
}

/// Compares the accumulator with `operand` and leaves out as many instructions as the outcome says.
fn jump(comparison: u16, operand: u32, if_so: u8, if_not: u8) -> SockFilter {
    SockFilter::new(comparison, if_so, if_not, operand)
}

/// Leaves out this many instructions.
fn skip(count: u32) -> SockFilter {
    SockFilter::new(JUMP, 0, 0, count)
}

/// Ends: with the octets to pass, none to drop the packet.
fn ret(octets: u32) -> SockFilter {
    SockFilter::new(RETURN, 0, 0, octets)
}

/// More ranges than this are joined to this many.
pub const MOST_RANGES: usize = 256;
/// With more different first 96 bits than this only the last 32 bits are compared.
const MOST_NETWORKS: usize = 32;

/// Octets of the Ethernet header.
const ETHERNET: u32 = 14;
/// The target of a solicitation or advertisement, behind the headers of Ethernet, IPv6 and ICMPv6.
const TARGET: u32 = ETHERNET + 40 + 8;
const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;
const MAGIC: u32 = u32::from_be_bytes(*b"FOGH");

// Of linux/filter.h and linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where the kernel offers the type of the packet (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = 0xffff_f004;
/// Where the header of the network layer begins (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// The last of `PACKET_HOST`, `PACKET_BROADCAST` and `PACKET_MULTICAST`.
const PACKET_MULTICAST: u32 = 2;
const PASS: u32 = 0x4_0000;
const DROP: u32 = 0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use speaker_announcer::MacAddr;
    use speaker_announcer::announcement::{announcements, probe};

    use super::*;

    /// Runs a program as the kernel does; whether it passes the packet.
    fn passes(program: &[SockFilter], packet: &[u8], packet_type: u32) -> bool {
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            // SAFETY: both are four plain fields of the same sizes in the same order, by the layout of the kernel.
            let (code, if_so, if_not, operand): (u16, u8, u8, u32) = unsafe {
                let raw: nix::libc::sock_filter = std::mem::transmute_copy(&program[at]);
                (raw.code, raw.jt, raw.jf, raw.k)
            };
            at += 1;
            let load = |size: usize| {
                if operand == PACKET_TYPE {
                    return Some(packet_type);
                }
                let from = usize::try_from(operand).unwrap();
                let octets = packet.get(from..from + size)?;
                Some(
                    octets
                        .iter()
                        .fold(0, |sum, &octet| sum << 8 | u32::from(octet)),
                )
            };
            let decided = match code {
                LOAD_WORD | LOAD_HALF | LOAD_BYTE => {
                    let size = match code {
                        LOAD_WORD => 4,
                        LOAD_HALF => 2,
                        _ => 1,
                    };
                    match load(size) {
                        Some(loaded) => accumulator = loaded,
                        None => return false,
                    }
                    continue;
                }
                JUMP => {
                    at += usize::try_from(operand).unwrap();
                    continue;
                }
                EQUAL => accumulator == operand,
                GREATER => accumulator > operand,
                AT_LEAST => accumulator >= operand,
                RETURN => return operand != DROP,
                _ => panic!("code {code:#x}"),
            };
            at += usize::from(if decided { if_so } else { if_not });
        }
    }

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn v4(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xc000_0200 + number)
    }

    fn v6(number: u32) -> Ipv6Addr {
        let network = u128::from(number % 3) << 40;
        Ipv6Addr::from_bits((0x2001_0db8 << 96) + network + u128::from(number))
    }

    proptest! {
        #[test]
        fn arp_for_our_vips_passes_and_no_other(ours in prop::collection::btree_set(0..200_u32, 0..40), asked in 0..200_u32) {
            let program = arp(&ours.iter().copied().map(v4).collect());
            for frame in announcements(MAC, v4(asked).into()).into_iter().chain([probe(MAC, v4(asked).into())]) {
                prop_assert_eq!(passes(&program, &frame.emit(), 1), ours.contains(&asked));
                prop_assert!(!passes(&program, &frame.emit(), 3), "for another host");
            }
        }

        #[test]
        fn neighbour_discovery_for_our_vips_passes_and_no_other(ours in prop::collection::btree_set(0..200_u32, 0..40), asked in 0..200_u32) {
            let program = ndp(&ours.iter().copied().map(v6).collect());
            for frame in announcements(MAC, v6(asked).into()).into_iter().chain([probe(MAC, v6(asked).into())]) {
                prop_assert_eq!(passes(&program, &frame.emit(), 2), ours.contains(&asked));
            }
        }

        #[test]
        fn too_many_ranges_are_joined_and_lose_nothing(ours in prop::collection::btree_set(any::<u32>(), 0..1000), most in 1..300_usize) {
            let ranges = ranges(ours.iter().copied(), most);
            prop_assert!(ranges.len() <= most);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            for number in ours {
                prop_assert!(ranges.iter().any(|&(first, last)| (first..=last).contains(&number)));
            }
        }
    }

    #[test]
    fn a_program_for_very_many_vips_is_one_that_the_kernel_takes() {
        // BPF_MAXINSNS
        const MOST: usize = 4096;
        let far_apart = (0..5000_u32).map(|number| number * 7919);
        let v4: BTreeSet<_> = far_apart.clone().map(Ipv4Addr::from_bits).collect();
        let v6: BTreeSet<_> = far_apart
            .map(|number| Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number)))
            .collect();
        let (arp, ndp) = (arp(&v4), ndp(&v6));
        assert!(
            arp.len() <= MOST && ndp.len() <= MOST,
            "{} {}",
            arp.len(),
            ndp.len()
        );
        for vip in &v4 {
            assert!(passes(&arp, &probe(MAC, (*vip).into()).emit(), 1), "{vip}");
        }
        for vip in &v6 {
            assert!(passes(&ndp, &probe(MAC, (*vip).into()).emit(), 2), "{vip}");
        }
    }

    #[test]
    fn what_a_router_forwarded_or_what_asks_nothing_is_dropped() {
        let vip = v6(1);
        let program = ndp(&[vip].into());
        let good = probe(MAC, vip.into()).emit();
        assert!(passes(&program, &good, 2));
        for (at, octet) in [(21, 254), (20, 17), (54, 128)] {
            let mut other = good.clone();
            other[at] = octet;
            assert!(!passes(&program, &other, 2), "octet {at} is {octet}");
        }
        let program = arp(&[v4(1)].into());
        let mut other = probe(MAC, v4(1).into()).emit();
        other[21] = 3;
        assert!(!passes(&program, &other, 1), "reverse ARP");
        assert!(!passes(&program, &other[..20], 1), "cut off");
    }
}
