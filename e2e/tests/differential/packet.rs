//! The first packet of a connection, written octet by octet, and recognised wherever it comes out.
//!
//! Each packet carries a number that no translation of addresses touches: the sequence number of TCP, the payload of UDP,
//! the initiate tag of SCTP. Refusals bring it back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use config::service::Protocol;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Probe {
    pub(crate) source: SocketAddr,
    /// Of the same family as the source.
    pub(crate) destination: SocketAddr,
    pub(crate) protocol: Protocol,
    /// Not 0: SCTP has no such tag.
    pub(crate) number: u32,
}

/// How a connection is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Refusal {
    /// ICMP or ICMPv6 says that the destination cannot be reached, with this code.
    Unreachable(u8),
    /// RST of TCP, ABORT of SCTP.
    Reset,
}

/// What a packet is to the one who waits for probes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sighting {
    /// A probe came through.
    Probe(Probe),
    /// The probe with this number was refused.
    Refused(u32, Refusal),
}

impl Probe {
    /// The packet, from the IP header on.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut segment = self.segment();
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
        let next = self.protocol.number();
        let addresses = [octets(source), octets(destination)].concat();
        match self.protocol {
            Protocol::Tcp | Protocol::Udp => {
                let at = if self.protocol == Protocol::Tcp {
                    16
                } else {
                    6
                };
                let pseudo = [&addresses[..], &[0, next], &length.to_be_bytes(), &segment].concat();
                segment[at..at + 2].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());
            }
            Protocol::Sctp => {
                let sum = crc32c(&segment).to_le_bytes();
                segment[8..12].copy_from_slice(&sum);
            }
        }
        let header = match source {
            IpAddr::V4(_) => {
                let [high, low] = (length + 20).to_be_bytes();
                // Version and length, no fragments, 64 hops.
                let fixed = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, next, 0, 0];
                let mut header = [&fixed[..], &addresses].concat();
                let sum = internet_checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                header
            }
            IpAddr::V6(_) => {
                let [high, low] = length.to_be_bytes();
                [&[0x60, 0, 0, 0, high, low, next, 64][..], &addresses].concat()
            }
        };
        [header, segment].concat()
    }

    /// The transport header with a checksum of zero, and what follows it.
    fn segment(&self) -> Vec<u8> {
        let [source, destination] =
            [self.source, self.destination].map(|address| address.port().to_be_bytes());
        let number = self.number.to_be_bytes();
        let ports = [source, destination].concat();
        match self.protocol {
            // Five words long, SYN, a window of 1024 octets.
            Protocol::Tcp => {
                let rest = [0, 0, 0, 0, 0x50, SYN, 4, 0, 0, 0, 0, 0];
                [&ports[..], &number, &rest].concat()
            }
            Protocol::Udp => [&ports[..], &[0, 12, 0, 0], &number].concat(),
            // INIT of 20 octets: window of 64 KiB, one stream each way (RFC 9260 §3.3.2).
            Protocol::Sctp => {
                let tag_and_sum = [0; 8];
                let chunk = [INIT, 0, 0, 20];
                let rest = [0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
                [&ports[..], &tag_and_sum, &chunk, &number, &rest].concat()
            }
        }
    }
}

/// Recognises a packet that begins with an IP header.
pub(crate) fn sighting(packet: &[u8]) -> Option<Sighting> {
    let (source, destination, next, segment) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet.first()? & 0x0f) * 4;
            let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
            let (source, destination) = (address(12)?.into(), address(16)?.into());
            (source, destination, *packet.get(9)?, packet.get(length..)?)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
            let (source, destination) = (address(8)?.into(), address(24)?.into());
            (source, destination, *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    sighting_in(source, destination, next, segment)
}

/// Recognises what follows an IP header.
pub(crate) fn sighting_in(
    source: IpAddr,
    destination: IpAddr,
    next: u8,
    segment: &[u8],
) -> Option<Sighting> {
    let unreachable = match next {
        ICMP => Some(3),
        ICMPV6 => Some(1),
        _ => None,
    };
    if let Some(kind) = unreachable {
        let (&found, &code) = (segment.first()?, segment.get(1)?);
        return match sighting(segment.get(8..)?)? {
            Sighting::Probe(probe) if found == kind => {
                Some(Sighting::Refused(probe.number, Refusal::Unreachable(code)))
            }
            _ => None,
        };
    }
    let word = |at: usize| Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk::<4>()?));
    let [source_port, destination_port] =
        [0, 2].map(|at| Some(u16::from_be_bytes(*segment.get(at..)?.first_chunk::<2>()?)));
    let probe = |protocol, number| {
        Some(Sighting::Probe(Probe {
            source: SocketAddr::new(source, source_port?),
            destination: SocketAddr::new(destination, destination_port?),
            protocol,
            number,
        }))
    };
    let reset = |number| Some(Sighting::Refused(number, Refusal::Reset));
    match next {
        6 => match segment.get(13)? & (SYN | RST) {
            SYN => probe(Protocol::Tcp, word(4)?),
            // It acknowledges the SYN.
            RST => reset(word(8)?.wrapping_sub(1)),
            _ => None,
        },
        17 => probe(Protocol::Udp, word(8)?),
        132 => match *segment.get(12)? {
            INIT => probe(Protocol::Sctp, word(16)?),
            // To an INIT it carries the tag that the INIT asked for (RFC 9260 §8.5.1).
            ABORT => reset(word(4)?),
            _ => None,
        },
        _ => None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071.
fn internet_checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// RFC 9260, appendix A.
fn crc32c(octets: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for octet in octets {
        sum ^= u32::from(*octet);
        for _ in 0..8 {
            let carry = sum & 1;
            sum >>= 1;
            if carry == 1 {
                sum ^= 0x82f6_3b78;
            }
        }
    }
    !sum
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const INIT: u8 = 1;
const ABORT: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(source: &str, destination: &str, protocol: Protocol) -> Probe {
        Probe {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            number: 0x0102_0304,
        }
    }

    #[test]
    fn probes_are_recognised_and_so_are_their_refusals() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for (source, destination, unreachable) in [
                (
                    "192.0.2.1:1025",
                    "198.51.100.7:80",
                    &[3, 3, 0, 0, 0, 0, 0, 0],
                ),
                (
                    "[2001:db8::1]:1025",
                    "[2001:db8:1::7]:80",
                    &[1, 4, 0, 0, 0, 0, 0, 0],
                ),
            ] {
                let probe = probe(source, destination, protocol);
                let octets = probe.octets();
                assert_eq!(sighting(&octets), Some(Sighting::Probe(probe)));
                let next = if probe.source.is_ipv4() { ICMP } else { ICMPV6 };
                let refusal = [&unreachable[..], &octets].concat();
                let (from, to) = (probe.destination.ip(), probe.source.ip());
                assert_eq!(
                    sighting_in(from, to, next, &refusal),
                    Some(Sighting::Refused(
                        0x0102_0304,
                        Refusal::Unreachable(unreachable[1])
                    ))
                );
                for length in 0..octets.len() {
                    // Never a panic; UDP and SCTP are known before they end.
                    let _ = sighting(&octets[..length]);
                }
            }
        }
    }

    #[test]
    fn a_syn_has_the_octets_of_rfc_9293() {
        let syn = probe("192.0.2.1:1025", "198.51.100.7:80", Protocol::Tcp).octets();
        assert_eq!(syn[..10], *b"\x45\0\0\x28\0\0\x40\0\x40\x06");
        assert_eq!(
            syn[20..36],
            *b"\x04\x01\0\x50\x01\x02\x03\x04\0\0\0\0\x50\x02\x04\0"
        );
        // A sum over what has a right checksum is zero.
        assert_eq!(internet_checksum(&syn[..20]), 0);
        let pseudo = [&syn[12..20], &[0, 6, 0, 20], &syn[20..]].concat();
        assert_eq!(internet_checksum(&pseudo), 0);
    }

    #[test]
    fn the_checksum_of_sctp_is_that_of_the_standard() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
