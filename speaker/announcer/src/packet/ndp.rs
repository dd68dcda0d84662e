//! Neighbor Discovery for IPv6: solicitations and advertisements (RFC 4861 §4.3, §4.4, §7; RFC 4862 §5.4).

use std::net::Ipv6Addr;

use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::util::ipv6_checksum;

use super::{FrameError, MacAddr};

/// A Neighbor Discovery message with the addresses of the packet that carries it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ndp {
    /// The source address of the packet; unspecified in a probe for duplicate addresses.
    pub source: Ipv6Addr,
    /// The destination address of the packet.
    pub destination: Ipv6Addr,
    /// The message.
    pub message: Message,
}

/// The two messages that concern us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// A question who has an address.
    Solicitation(Solicitation),
    /// A statement who has an address.
    Advertisement(Advertisement),
}

/// A Neighbor Solicitation (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Solicitation {
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The source link-layer address option, if there is one.
    pub source_mac: Option<MacAddr>,
}

/// A Neighbor Advertisement (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement {
    /// The address it is about.
    pub target: Ipv6Addr,
    /// The target link-layer address option, if there is one.
    pub target_mac: Option<MacAddr>,
    /// The R flag: the sender is a router.
    pub router: bool,
    /// The S flag: it answers a solicitation.
    pub solicited: bool,
    /// The O flag: caches are to be overwritten.
    pub override_: bool,
}

/// All nodes of the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which a host with `address` listens for solicitations (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let prefix = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from_bits(prefix.to_bits() | (address.to_bits() & 0x00ff_ffff))
}

/// The hardware address of an IPv6 multicast group (RFC 2464 §7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr::new(0x33, 0x33, a, b, c, d)
}

impl Ndp {
    /// The question whether anybody has `target`, from a host that has no address yet (RFC 4862 §5.4.2).
    pub fn probe(target: Ipv6Addr) -> Self {
        Self {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(target),
            message: Message::Solicitation(Solicitation {
                target,
                source_mac: None,
            }),
        }
    }

    /// The unsolicited statement to all nodes that `mac` has `vip` now (RFC 4861 §7.2.6).
    pub fn announcement(mac: MacAddr, vip: Ipv6Addr) -> Self {
        Self {
            source: vip,
            destination: ALL_NODES,
            message: Message::Advertisement(Advertisement {
                target: vip,
                target_mac: Some(mac),
                router: false,
                solicited: false,
                override_: true,
            }),
        }
    }

    /// The answer that `mac` has `target`, to whoever sent the solicitation from `source` (RFC 4861 §7.2.4).
    ///
    /// A probe for duplicate addresses, which has no source, is answered to all nodes and not as solicited. The
    /// target link-layer address is always given: it must be for multicast solicitations and harms no other.
    pub fn answer(source: Ipv6Addr, target: Ipv6Addr, mac: MacAddr) -> Self {
        let probe = source.is_unspecified();
        Self {
            source: target,
            destination: if probe { ALL_NODES } else { source },
            message: Message::Advertisement(Advertisement {
                target,
                target_mac: Some(mac),
                router: false,
                solicited: !probe,
                override_: true,
            }),
        }
    }

    /// The address that the message is about.
    pub fn target(&self) -> Ipv6Addr {
        match self.message {
            Message::Solicitation(solicitation) => solicitation.target,
            Message::Advertisement(advertisement) => advertisement.target,
        }
    }

    /// Reads an IPv6 packet; octets after it are padding.
    ///
    /// Extension headers are not looked behind: neighbours send none, and RFC 6980 forbids fragments here.
    ///
    /// # Errors
    /// The reason why RFC 4861 §7.1 wants the packet to be discarded, or that it is none of ours.
    pub fn parse(octets: &[u8]) -> Result<Self, FrameError> {
        let packet = Ipv6Packet::new(octets).ok_or(FrameError::Truncated)?;
        if packet.get_version() != 6 || packet.get_next_header() != IpNextHeaderProtocols::Icmpv6 {
            return Err(FrameError::OtherIpv6);
        }
        let length = usize::from(packet.get_payload_length());
        let body = octets
            .get(IPV6_HEADER..IPV6_HEADER + length)
            .ok_or(FrameError::Truncated)?;
        let (source, destination) = (packet.get_source(), packet.get_destination());
        let (kind, code) = match *body {
            [kind @ (SOLICITATION | ADVERTISEMENT), code, ..] => (kind, code),
            _ => return Err(FrameError::OtherIpv6),
        };
        if packet.get_hop_limit() != HOP_LIMIT {
            return Err(FrameError::Forwarded);
        }
        if checksum(body, source, destination) != 0 {
            return Err(FrameError::Checksum);
        }
        let target = body
            .get(8..FIXED)
            .and_then(|octets| <[u8; 16]>::try_from(octets).ok())
            .map(Ipv6Addr::from)
            .ok_or(FrameError::Truncated)?;
        if code != 0 || target.is_multicast() || source.is_multicast() {
            return Err(FrameError::Invalid);
        }
        let options = body.get(FIXED..).unwrap_or_default();
        let message = if kind == SOLICITATION {
            Message::Solicitation(solicitation(source, destination, target, options)?)
        } else {
            let flags = body.get(4).copied().unwrap_or_default();
            Message::Advertisement(advertisement(flags, destination, target, options)?)
        };
        Ok(Self {
            source,
            destination,
            message,
        })
    }

    /// The octets of the IPv6 packet.
    pub fn emit(&self) -> Vec<u8> {
        let body = self.emit_body();
        let mut octets = vec![0; IPV6_HEADER + body.len()];
        if let Some(mut packet) = MutableIpv6Packet::new(&mut octets) {
            packet.set_version(6);
            packet.set_payload_length(u16::try_from(body.len()).unwrap_or_default());
            packet.set_next_header(IpNextHeaderProtocols::Icmpv6);
            packet.set_hop_limit(HOP_LIMIT);
            packet.set_source(self.source);
            packet.set_destination(self.destination);
            packet.set_payload(&body);
        }
        octets
    }

    fn emit_body(&self) -> Vec<u8> {
        let (kind, flags, target, option) = match self.message {
            Message::Solicitation(Solicitation { target, source_mac }) => (
                SOLICITATION,
                0,
                target,
                source_mac.map(|mac| (SOURCE_LINK_LAYER_ADDRESS, mac)),
            ),
            Message::Advertisement(advertisement) => (
                ADVERTISEMENT,
                flag(advertisement.router, ROUTER)
                    | flag(advertisement.solicited, SOLICITED)
                    | flag(advertisement.override_, OVERRIDE),
                advertisement.target,
                advertisement
                    .target_mac
                    .map(|mac| (TARGET_LINK_LAYER_ADDRESS, mac)),
            ),
        };
        let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        body.extend(target.octets());
        if let Some((kind, mac)) = option {
            body.extend([kind, 1]);
            body.extend(mac.octets());
        }
        let [high, low] = checksum(&body, self.source, self.destination).to_be_bytes();
        if let [_, _, first, second, ..] = body.as_mut_slice() {
            (*first, *second) = (high, low);
        }
        body
    }
}

fn solicitation(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    options: &[u8],
) -> Result<Solicitation, FrameError> {
    let source_mac = link_layer_address(options, SOURCE_LINK_LAYER_ADDRESS)?;
    let probe_is_wrong =
        source.is_unspecified() && (source_mac.is_some() || destination != solicited_node(target));
    if probe_is_wrong {
        return Err(FrameError::Invalid);
    }
    Ok(Solicitation { target, source_mac })
}

fn advertisement(
    flags: u8,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    options: &[u8],
) -> Result<Advertisement, FrameError> {
    let solicited = flags & SOLICITED != 0;
    if solicited && destination.is_multicast() {
        return Err(FrameError::Invalid);
    }
    Ok(Advertisement {
        target,
        target_mac: link_layer_address(options, TARGET_LINK_LAYER_ADDRESS)?,
        router: flags & ROUTER != 0,
        solicited,
        override_: flags & OVERRIDE != 0,
    })
}

/// The link-layer address in the first option of this kind; other options are skipped (RFC 4861 §4.6).
///
/// An address of another length than Ethernet's is as good as none.
fn link_layer_address(mut options: &[u8], kind: u8) -> Result<Option<MacAddr>, FrameError> {
    let mut found = None;
    while !options.is_empty() {
        let &[option, units, ..] = options else {
            return Err(FrameError::Option);
        };
        let length = usize::from(units) * 8;
        let (this, rest) = options
            .split_at_checked(length)
            .filter(|_| length > 0)
            .ok_or(FrameError::Option)?;
        if let (true, None, &[_, _, a, b, c, d, e, f]) = (option == kind, found, this) {
            found = Some(MacAddr::new(a, b, c, d, e, f));
        }
        options = rest;
    }
    Ok(found)
}

/// The ICMPv6 checksum over a body (RFC 4443 §2.3); zero if the body has the right one in it.
fn checksum(body: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> u16 {
    ipv6_checksum(
        body,
        usize::MAX,
        &[],
        &source,
        &destination,
        IpNextHeaderProtocols::Icmpv6,
    )
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

const IPV6_HEADER: usize = 40;
/// Octets of both messages before their options.
const FIXED: usize = 24;
/// RFC 4861 §7.1: no router lets a packet through with this hop limit.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    #[track_caller]
    fn check(packet: Ndp, octets: &str) {
        let octets = hex(octets);
        assert_eq!(packet.emit(), octets, "{:02x?}", packet.emit());
        assert_eq!(Ndp::parse(&octets), Ok(packet));
    }

    #[test]
    fn groups_are_those_of_the_standards() {
        let group = solicited_node(ip("2001:db8::12:3456"));
        assert_eq!(group, ip("ff02::1:ff12:3456"));
        assert_eq!(
            multicast_mac(group),
            MacAddr::new(0x33, 0x33, 0xff, 0x12, 0x34, 0x56)
        );
    }

    /// The checksums were added up outside this code: all 16-bit words of pseudo-header and body, complemented.
    #[test]
    fn packets_have_the_octets_of_the_standards() {
        check(
            Ndp::probe(ip("2001:db8::1")),
            "60000000 0018 3a ff
             00000000000000000000000000000000 ff0200000000000000000001ff000001
             87 00 4ced 00000000 20010db8000000000000000000000001",
        );
        check(
            Ndp::announcement(MAC, ip("2001:db8::1")),
            "60000000 0020 3a ff
             20010db8000000000000000000000001 ff020000000000000000000000000001
             88 00 f92a 20000000 20010db8000000000000000000000001 0201 020000000001",
        );
        check(
            Ndp::answer(ip("fe80::9"), ip("2001:db8::1"), MAC),
            "60000000 0020 3a ff
             20010db8000000000000000000000001 fe800000000000000000000000000009
             88 00 b9a4 60000000 20010db8000000000000000000000001 0201 020000000001",
        );
    }

    #[test]
    fn a_probe_is_answered_to_all_nodes_and_not_as_solicited() {
        let answer = Ndp::answer(Ipv6Addr::UNSPECIFIED, ip("2001:db8::1"), MAC);
        assert_eq!(answer, Ndp::announcement(MAC, ip("2001:db8::1")));
    }

    /// A solicitation from fe80::9 with these options, made right by a correct checksum.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let (source, target) = (ip("fe80::9"), ip("2001:db8::1"));
        let mut octets = Ndp {
            source,
            destination: solicited_node(target),
            message: Message::Solicitation(Solicitation {
                target,
                source_mac: None,
            }),
        }
        .emit();
        octets.extend(options);
        octets[5] = u8::try_from(FIXED + options.len()).unwrap();
        octets[42..44].fill(0);
        let sum = checksum(&octets[40..], source, solicited_node(target));
        octets[42..44].copy_from_slice(&sum.to_be_bytes());
        octets
    }

    #[test]
    fn options_are_walked_with_care() {
        let source_mac = |octets: &[u8]| match Ndp::parse(octets)?.message {
            Message::Solicitation(solicitation) => Ok(solicitation.source_mac),
            Message::Advertisement(_) => panic!("not a solicitation"),
        };
        let address = [1, 1, 2, 0, 0, 0, 0, 1];
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        for (options, expected) in [
            (vec![], Ok(None)),
            (address.to_vec(), Ok(Some(MAC))),
            ([nonce, address].concat(), Ok(Some(MAC))),
            (nonce.to_vec(), Ok(None)),
            (vec![1, 0, 0, 0, 0, 0, 0, 0], Err(FrameError::Option)),
            (vec![1, 2, 0, 0, 0, 0, 0, 0], Err(FrameError::Option)),
            (vec![1], Err(FrameError::Option)),
            (
                [address.as_slice(), &[14, 255]].concat(),
                Err(FrameError::Option),
            ),
        ] {
            assert_eq!(
                source_mac(&with_options(&options)),
                expected,
                "{options:02x?}"
            );
        }
    }

    #[test]
    fn what_rfc_4861_wants_discarded_is_discarded() {
        let good = Ndp::announcement(MAC, ip("2001:db8::1")).emit();
        for (at, octet, reason) in [
            (0, 0x40, FrameError::OtherIpv6),
            (6, 17, FrameError::OtherIpv6),
            (7, 254, FrameError::Forwarded),
            (40, 128, FrameError::OtherIpv6),
            (41, 1, FrameError::Checksum),
            (70, 9, FrameError::Checksum),
            (5, 0xff, FrameError::Truncated),
        ] {
            let mut octets = good.clone();
            octets[at] = octet;
            assert_eq!(Ndp::parse(&octets), Err(reason), "octet {at}");
        }
        let mut probe_with_option = Ndp::probe(ip("2001:db8::1"));
        if let Message::Solicitation(solicitation) = &mut probe_with_option.message {
            solicitation.source_mac = Some(MAC);
        }
        let mut probe_to_all = Ndp::probe(ip("2001:db8::1"));
        probe_to_all.destination = ALL_NODES;
        let mut solicited_to_all = Ndp::announcement(MAC, ip("2001:db8::1"));
        if let Message::Advertisement(advertisement) = &mut solicited_to_all.message {
            advertisement.solicited = true;
        }
        let about_a_group = Ndp::probe(ALL_NODES);
        for packet in [
            probe_with_option,
            probe_to_all,
            solicited_to_all,
            about_a_group,
        ] {
            assert_eq!(
                Ndp::parse(&packet.emit()),
                Err(FrameError::Invalid),
                "{packet:?}"
            );
        }
    }
}
