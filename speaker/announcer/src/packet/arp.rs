//! ARP for IPv4 over Ethernet (RFC 826) and its use against conflicts (RFC 5227).

use std::net::Ipv4Addr;

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::EtherTypes;

use super::{FrameError, MacAddr};

/// An ARP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// Whether it asks or answers.
    pub operation: Operation,
    /// `ar$sha`: the hardware address of the sender.
    pub sender_mac: MacAddr,
    /// `ar$spa`: the address that the sender says it has; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// `ar$tha`: the hardware address of the target; zero in requests.
    pub target_mac: MacAddr,
    /// `ar$tpa`: the address that it is about.
    pub target: Ipv4Addr,
}

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// It asks who has the target address.
    Request,
    /// It says who has the sender address.
    Reply,
}

/// The length of an ARP packet for IPv4 over Ethernet, in octets.
pub const LEN: usize = 28;

impl Arp {
    /// The question who has `target`, from a host that has no address yet (RFC 5227 §1.1, ARP Probe).
    pub fn probe(mac: MacAddr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::zero(),
            target,
        }
    }

    /// The announcement that `mac` has `vip`: a request whose sender and target address are both `vip` (RFC 5227 §2.3).
    pub fn announcement(mac: MacAddr, vip: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: vip,
            target_mac: MacAddr::zero(),
            target: vip,
        }
    }

    /// The same announcement as a reply, for hosts and switches that heed only those (RFC 5227 §3 explains both).
    pub fn announcement_as_reply(mac: MacAddr, vip: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Reply,
            target_mac: MacAddr::broadcast(),
            ..Self::announcement(mac, vip)
        }
    }

    /// The answer that `mac` has the target of this request (RFC 826, "Packet Reception").
    pub fn answer(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// Whether it is a probe: a request from no address (RFC 5227 §1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender.is_unspecified()
    }

    /// Reads the packet; octets after it are padding.
    ///
    /// # Errors
    /// If it is too short, or not about IPv4 and Ethernet.
    pub fn parse(octets: &[u8]) -> Result<Self, FrameError> {
        let packet = ArpPacket::new(octets).ok_or(FrameError::Truncated)?;
        let operation = match packet.get_operation() {
            ArpOperations::Request => Operation::Request,
            ArpOperations::Reply => Operation::Reply,
            _ => return Err(FrameError::OtherArp),
        };
        let about_ipv4_and_ethernet = packet.get_hardware_type() == ArpHardwareTypes::Ethernet
            && packet.get_protocol_type() == EtherTypes::Ipv4
            && packet.get_hw_addr_len() == 6
            && packet.get_proto_addr_len() == 4;
        if !about_ipv4_and_ethernet {
            return Err(FrameError::OtherArp);
        }
        Ok(Self {
            operation,
            sender_mac: packet.get_sender_hw_addr(),
            sender: packet.get_sender_proto_addr(),
            target_mac: packet.get_target_hw_addr(),
            target: packet.get_target_proto_addr(),
        })
    }

    /// The octets of the packet.
    pub fn emit(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        if let Some(mut packet) = MutableArpPacket::new(&mut octets) {
            packet.set_hardware_type(ArpHardwareTypes::Ethernet);
            packet.set_protocol_type(EtherTypes::Ipv4);
            packet.set_hw_addr_len(6);
            packet.set_proto_addr_len(4);
            packet.set_operation(match self.operation {
                Operation::Request => ArpOperations::Request,
                Operation::Reply => ArpOperations::Reply,
            });
            packet.set_sender_hw_addr(self.sender_mac);
            packet.set_sender_proto_addr(self.sender);
            packet.set_target_hw_addr(self.target_mac);
            packet.set_target_proto_addr(self.target);
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[track_caller]
    fn check(packet: Arp, octets: &[u8; LEN]) {
        assert_eq!(packet.emit(), *octets);
        assert_eq!(Arp::parse(octets), Ok(packet));
    }

    #[test]
    fn packets_have_the_octets_of_the_standards() {
        check(
            Arp::announcement(MAC, VIP),
            b"\x00\x01\x08\x00\x06\x04\x00\x01\x02\0\0\0\0\x01\xc0\0\x02\x01\0\0\0\0\0\0\xc0\0\x02\x01",
        );
        check(
            Arp::announcement_as_reply(MAC, VIP),
            b"\x00\x01\x08\x00\x06\x04\x00\x02\x02\0\0\0\0\x01\xc0\0\x02\x01\xff\xff\xff\xff\xff\xff\xc0\0\x02\x01",
        );
        check(
            Arp::probe(MAC, VIP),
            b"\x00\x01\x08\x00\x06\x04\x00\x01\x02\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\xc0\0\x02\x01",
        );
        let request = Arp::parse(
            b"\x00\x01\x08\x00\x06\x04\x00\x01\x02\0\0\0\0\x09\xc0\0\x02\x09\0\0\0\0\0\0\xc0\0\x02\x01",
        );
        check(
            request.unwrap().answer(MAC),
            b"\x00\x01\x08\x00\x06\x04\x00\x02\x02\0\0\0\0\x01\xc0\0\x02\x01\x02\0\0\0\0\x09\xc0\0\x02\x09",
        );
    }

    #[test]
    fn only_ipv4_over_ethernet_is_read() {
        let good = Arp::probe(MAC, VIP).emit();
        assert!(Arp::parse(&good).is_ok_and(|packet| packet.is_probe()));
        for (at, octet, reason) in [
            (1, 6, FrameError::OtherArp),
            (2, 9, FrameError::OtherArp),
            (4, 8, FrameError::OtherArp),
            (5, 16, FrameError::OtherArp),
            (7, 3, FrameError::OtherArp),
        ] {
            let mut octets = good;
            octets[at] = octet;
            assert_eq!(Arp::parse(&octets), Err(reason), "octet {at}");
        }
        assert_eq!(Arp::parse(&good[..LEN - 1]), Err(FrameError::Truncated));
    }
}
