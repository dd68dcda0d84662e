//! ARP and NDP: meaning in values, octets at the edge.

pub mod arp;
pub mod ndp;

use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
pub use pnet::util::MacAddr;

use arp::Arp;
use ndp::Ndp;

/// An Ethernet frame with what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The hardware address that sent it.
    pub source: MacAddr,
    /// The hardware address, unicast, multicast or broadcast, that it is for.
    pub destination: MacAddr,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// IPv4: the Address Resolution Protocol.
    Arp(Arp),
    /// IPv6: Neighbor Discovery.
    Ndp(Ndp),
}

/// Why a frame says nothing to us.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is shorter than its headers say")]
    Truncated,
    #[error("neither ARP nor IPv6")]
    OtherProtocol,
    #[error("ARP that does not map IPv4 to Ethernet, or is neither request nor reply")]
    OtherArp,
    #[error("IPv6, but neither a solicitation nor an advertisement of a neighbour")]
    OtherIpv6,
    #[error("a hop limit other than 255: the packet was forwarded by a router (RFC 4861 §7.1)")]
    Forwarded,
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    #[error("an option of length zero or beyond the end of the packet (RFC 4861 §4.6)")]
    Option,
    #[error("addresses or flags that RFC 4861 §7.1 forbids")]
    Invalid,
    #[error("the frame came on an interface that is not known or is down")]
    UnknownLink,
}

impl FrameError {
    /// The reason as a label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::OtherProtocol => "other_protocol",
            Self::OtherArp => "other_arp",
            Self::OtherIpv6 => "other_ipv6",
            Self::Forwarded => "forwarded",
            Self::Checksum => "checksum",
            Self::Option => "option",
            Self::Invalid => "invalid",
            Self::UnknownLink => "unknown_link",
        }
    }
}

impl Frame {
    /// Reads a frame as a data-link socket gives it, without VLAN tag; padding at the end is allowed.
    ///
    /// # Errors
    /// The reason why the frame is to be ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, FrameError> {
        let ethernet = EthernetPacket::new(octets).ok_or(FrameError::Truncated)?;
        let body = match ethernet.get_ethertype() {
            EtherTypes::Arp => Body::Arp(Arp::parse(ethernet.payload())?),
            EtherTypes::Ipv6 => Body::Ndp(Ndp::parse(ethernet.payload())?),
            _ => return Err(FrameError::OtherProtocol),
        };
        Ok(Self {
            source: ethernet.get_source(),
            destination: ethernet.get_destination(),
            body,
        })
    }

    /// The octets to send, without padding: the interface adds that.
    pub fn emit(&self) -> Vec<u8> {
        let (ether_type, body) = match &self.body {
            Body::Arp(arp) => (EtherTypes::Arp, arp.emit().to_vec()),
            Body::Ndp(ndp) => (EtherTypes::Ipv6, ndp.emit()),
        };
        let mut octets = vec![0; EthernetPacket::minimum_packet_size() + body.len()];
        if let Some(mut ethernet) = MutableEthernetPacket::new(&mut octets) {
            ethernet.set_destination(self.destination);
            ethernet.set_source(self.source);
            ethernet.set_ethertype(ether_type);
            ethernet.set_payload(&body);
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    #[test]
    fn an_announcement_is_broadcast_with_these_octets() {
        let frame = Frame {
            source: MAC,
            destination: MacAddr::broadcast(),
            body: Body::Arp(Arp::announcement(MAC, Ipv4Addr::new(192, 0, 2, 1))),
        };
        let octets = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\
            \x00\x01\x08\x00\x06\x04\x00\x01\x02\0\0\0\0\x01\xc0\0\x02\x01\0\0\0\0\0\0\xc0\0\x02\x01";
        assert_eq!(frame.emit(), octets);
        assert_eq!(Frame::parse(octets), Ok(frame.clone()));
        let padded = [&octets[..], &[0; 18]].concat();
        assert_eq!(Frame::parse(&padded), Ok(frame));
    }

    #[test]
    fn other_traffic_is_refused_with_its_reason() {
        let header = |ether_type: u16| [&[0; 12][..], &ether_type.to_be_bytes()].concat();
        for (octets, reason) in [
            (vec![], FrameError::Truncated),
            (vec![0; 13], FrameError::Truncated),
            (header(0x0800), FrameError::OtherProtocol),
            (header(0x8100), FrameError::OtherProtocol),
            (header(0x0806), FrameError::Truncated),
            (header(0x86dd), FrameError::Truncated),
        ] {
            assert_eq!(Frame::parse(&octets), Err(reason), "{octets:02x?}");
        }
    }

    fn any_mac() -> impl Strategy<Value = MacAddr> {
        any::<[u8; 6]>().prop_map(MacAddr::from)
    }

    fn unicast_ipv6() -> impl Strategy<Value = Ipv6Addr> {
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits & !(0xff << 120) | 0x20 << 120))
    }

    prop_compose! {
        fn any_arp()(operation in prop_oneof![Just(arp::Operation::Request), Just(arp::Operation::Reply)],
            sender_mac in any_mac(), target_mac in any_mac(),
            sender in any::<u32>(), target in any::<u32>()) -> Arp {
            Arp { operation, sender_mac, sender: Ipv4Addr::from_bits(sender), target_mac, target: Ipv4Addr::from_bits(target) }
        }
    }

    fn any_ndp() -> impl Strategy<Value = Ndp> {
        let solicitation = (
            unicast_ipv6(),
            unicast_ipv6(),
            unicast_ipv6(),
            any::<Option<[u8; 6]>>(),
        )
            .prop_map(|(source, destination, target, mac)| Ndp {
                source,
                destination,
                message: ndp::Message::Solicitation(ndp::Solicitation {
                    target,
                    source_mac: mac.map(MacAddr::from),
                }),
            });
        let advertisement = (
            unicast_ipv6(),
            unicast_ipv6(),
            unicast_ipv6(),
            any::<Option<[u8; 6]>>(),
            any::<[bool; 3]>(),
        )
            .prop_map(
                |(source, destination, target, mac, [router, solicited, override_])| Ndp {
                    source,
                    destination,
                    message: ndp::Message::Advertisement(ndp::Advertisement {
                        target,
                        target_mac: mac.map(MacAddr::from),
                        router,
                        solicited,
                        override_,
                    }),
                },
            );
        prop_oneof![solicitation, advertisement]
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(source in any_mac(), destination in any_mac(),
            body in prop_oneof![any_arp().prop_map(Body::Arp), any_ndp().prop_map(Body::Ndp)]) {
            let frame = Frame { source, destination, body };
            prop_assert_eq!(Frame::parse(&frame.emit()), Ok(frame));
        }

        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..120), ether_type in prop_oneof![Just(0x0806_u16), Just(0x86dd)]) {
            let frame = [&[2; 12][..], &ether_type.to_be_bytes(), &octets].concat();
            let _ = Frame::parse(&frame);
            let _ = Frame::parse(&octets);
        }

        #[test]
        fn no_damage_makes_it_panic(ndp in any_ndp(), at in any::<prop::sample::Index>(), octet in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut octets = ndp.emit();
            let at = at.index(octets.len());
            octets[at] = octet;
            let _ = Ndp::parse(&octets);
            let _ = Ndp::parse(&octets[..cut.index(octets.len())]);
        }
    }
}
