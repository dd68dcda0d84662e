//! Who answers for an address on the LAN, as this node hears it: asks by ARP or Neighbor Discovery, and listens.
//!
//! The proof that nothing but the wire can give: a speaker knows who should answer, and only the wire who does.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use speaker_announcer::announcement::probe;
use speaker_announcer::packet::arp::{Arp, Operation};
use speaker_announcer::packet::ndp::{Message, Ndp, Solicitation, multicast_mac, solicited_node};
use speaker_announcer::packet::{Body, Frame};
use speaker_announcer::{Link, MacAddr};

use crate::wire::filter;
use crate::wire::packet_socket::{EtherType, PacketSocket};

/// Asks on one interface who has `vip`, and listens for a while; blocks. The node itself is not among the answers.
///
/// # Errors
/// If the kernel gives no packet socket, or does not take the frame.
pub fn who_has(link: &Link, vip: IpAddr) -> io::Result<BTreeSet<MacAddr>> {
    let (ether_type, program) = match vip {
        IpAddr::V4(vip) => (EtherType::Arp, filter::arp(&[vip].into())),
        IpAddr::V6(vip) => (EtherType::Ipv6, filter::ndp(&[vip].into())),
    };
    let socket = PacketSocket::open(link.index, ether_type)?;
    socket.set_filter(&program)?;
    let question = question(link, vip).emit();
    let begin = Instant::now();
    let mut asked = 0;
    let mut answers = BTreeSet::new();
    let mut buffer = [0; 2048];
    while begin.elapsed() < PATIENCE {
        if begin.elapsed() >= REPEAT * asked {
            socket.send(&question)?;
            asked += 1;
        }
        while let Ok(length) = socket.receive(&mut buffer) {
            answers.extend(buffer.get(..length).and_then(|frame| answerer(frame, vip)));
        }
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(10_u8))?;
    }
    answers.remove(&link.mac);
    Ok(answers)
}

/// The question of a host that has addresses on the interface; that of one without where it has none of the family.
fn question(link: &Link, vip: IpAddr) -> Frame {
    let own = |is_near: &dyn Fn(&ipnet::IpNet) -> bool| {
        let mut subnets = link.addresses.iter();
        subnets
            .find(|subnet| is_near(subnet))
            .map(|subnet| subnet.addr())
    };
    let near = own(&|subnet| subnet.contains(&vip));
    let any = own(&|subnet| subnet.addr().is_ipv4() == vip.is_ipv4());
    match (vip, near.or(any)) {
        (IpAddr::V4(target), Some(IpAddr::V4(sender))) => asking_ipv4(link.mac, sender, target),
        (IpAddr::V6(target), Some(IpAddr::V6(source))) => asking_ipv6(link.mac, source, target),
        _ => probe(link.mac, vip),
    }
}

fn asking_ipv4(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    Frame {
        source: mac,
        destination: MacAddr::broadcast(),
        body: Body::Arp(Arp {
            operation: Operation::Request,
            sender_mac: mac,
            sender,
            target_mac: MacAddr::zero(),
            target,
        }),
    }
}

fn asking_ipv6(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let destination = solicited_node(target);
    Frame {
        source: mac,
        destination: multicast_mac(destination),
        body: Body::Ndp(Ndp {
            source,
            destination,
            message: Message::Solicitation(Solicitation {
                target,
                source_mac: Some(mac),
            }),
        }),
    }
}

/// The machine that says by this frame that it has `vip`.
fn answerer(octets: &[u8], vip: IpAddr) -> Option<MacAddr> {
    let frame = Frame::parse(octets).ok()?;
    match &frame.body {
        Body::Arp(arp) => (IpAddr::V4(arp.sender) == vip).then_some(arp.sender_mac),
        Body::Ndp(ndp) => match ndp.message {
            Message::Advertisement(advertisement) if IpAddr::V6(advertisement.target) == vip => {
                Some(advertisement.target_mac.unwrap_or(frame.source))
            }
            _ => None,
        },
    }
}

/// How long to listen: a machine on the LAN answers within a millisecond, one that sleeps or a slow radio takes longer.
const PATIENCE: Duration = Duration::from_millis(400);
/// When to ask again: somebody may have missed it.
const REPEAT: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use speaker_announcer::LinkIndex;
    use speaker_announcer::announcement::announcements;

    use super::*;

    fn link(addresses: &[&str]) -> Link {
        Link {
            index: LinkIndex(2),
            name: "eth0".to_owned(),
            mac: MacAddr::new(2, 0, 0, 0, 0, 1),
            up: true,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// From whom, and for which address, a host with these addresses asks.
    fn asks(addresses: &[&str], vip: &str) -> String {
        match question(&link(addresses), vip.parse().unwrap()).body {
            Body::Arp(arp) => format!("{} for {}", arp.sender, arp.target),
            Body::Ndp(ndp) => format!("{} for {}", ndp.source, ndp.target()),
        }
    }

    #[test]
    fn asks_with_an_address_of_the_same_network_if_there_is_one() {
        let both = ["10.0.0.1/8", "192.0.2.1/24", "fe80::1/64", "2001:db8::1/64"];
        for (addresses, vip, expected) in [
            (&both[..], "192.0.2.9", "192.0.2.1 for 192.0.2.9"),
            (&both, "198.51.100.9", "10.0.0.1 for 198.51.100.9"),
            (&both, "2001:db8::9", "2001:db8::1 for 2001:db8::9"),
            (&both, "2001:db8:1::9", "fe80::1 for 2001:db8:1::9"),
            (&[], "192.0.2.9", "0.0.0.0 for 192.0.2.9"),
            (&[], "2001:db8::9", ":: for 2001:db8::9"),
        ] {
            assert_eq!(asks(addresses, vip), expected, "{addresses:?} {vip}");
        }
    }

    #[test]
    fn only_who_says_that_it_has_the_address_answers() {
        let other = MacAddr::new(2, 0, 0, 0, 0, 9);
        for vip in ["192.0.2.9", "2001:db8::9"] {
            let vip: IpAddr = vip.parse().unwrap();
            let asked = question(&link(&["192.0.2.1/24", "2001:db8::1/64"]), vip);
            let answer = match &asked.body {
                Body::Arp(arp) => Body::Arp(arp.answer(other)),
                Body::Ndp(ndp) => Body::Ndp(Ndp::answer(ndp.source, ndp.target(), other)),
            };
            let answer = Frame {
                source: other,
                destination: asked.source,
                body: answer,
            };
            assert_eq!(answerer(&answer.emit(), vip), Some(other));
            assert_eq!(answerer(&asked.emit(), vip), None, "a question");
            assert_eq!(
                answerer(&announcements(other, vip)[0].emit(), vip),
                Some(other)
            );
            let another = announcements(other, "192.0.2.8".parse().unwrap());
            assert_eq!(answerer(&another[0].emit(), vip), None);
            assert_eq!(answerer(&[1, 2, 3], vip), None);
        }
    }
}
