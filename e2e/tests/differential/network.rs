//! Who has which address around a twin's node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::address::IpFamily;

use crate::objects::MOST_SLOTS;
use crate::wire::Entry;

/// The node whose proxies are compared.
pub(crate) const NODE: &str = "node-1";

/// Its addresses on the LAN.
pub(crate) const NODE_ADDRESSES: [IpAddr; 2] = [v4([192, 168, 1, 11]), lan_v6(0x11)];
/// Its addresses towards its Pods.
pub(crate) const POD_GATEWAYS: [IpAddr; 2] = [v4([10, 244, 1, 1]), pod_v6(1, 1)];

/// What a twin's `ip` is told once its interfaces are there: Pods from .128 on have an interface of their own.
pub(crate) const ADDRESSES_AND_ROUTES: &str = "link set lo up
link set eth0 up txqueuelen 2000
link set cbr0 up txqueuelen 2000
link set veth7 up txqueuelen 2000
addr add 192.168.1.11/24 dev eth0
addr add fd12:3456:789a:1::11/64 dev eth0 nodad
addr add 10.244.1.1/24 dev cbr0
addr add fd12:3456:789a:f401::1/64 dev cbr0 nodad
route add 10.244.1.128/25 dev veth7
route add fd12:3456:789a:f401::80/121 dev veth7
route add default dev eth0
route add ::/0 dev eth0
";

/// The load-balancer addresses of a slot; the second one is an address of the node as well.
pub(crate) fn vips(slot: u16, family: IpFamily) -> [IpAddr; 2] {
    let [_, low] = slot.to_be_bytes();
    [1, 2].map(|last: u8| match family {
        IpFamily::V4 => v4([198, 18, low, last]),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::new(
            0x2001,
            0xdb8,
            0x100,
            slot,
            0,
            0,
            0,
            last.into(),
        )),
    })
}

/// The load-balancer addresses that the node has on its loopback interface, as some announcers do it.
pub(crate) fn own_vips() -> impl Iterator<Item = IpAddr> {
    let families = [IpFamily::V4, IpFamily::V6];
    (0..MOST_SLOTS).flat_map(move |slot| families.map(|family| vips(slot, family)[1]))
}

/// Whether it is an address of the node.
pub(crate) fn is_own(address: IpAddr) -> bool {
    NODE_ADDRESSES.contains(&address)
        || POD_GATEWAYS.contains(&address)
        || own_vips().any(|vip| vip == address)
}

/// Nothing is limited, and nothing is refused for what its addresses look like.
pub(crate) const PARAMETERS: &str = "net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
net.ipv4.conf.all.send_redirects=0
net.ipv4.conf.default.send_redirects=0
net.ipv4.icmp_ratelimit=0
net.ipv4.icmp_ratemask=0
net.ipv6.icmp.ratelimit=0
net.ipv6.icmp.ratemask=255
";

/// Hosts that know nothing of Kubernetes; the ranges of sources that Services admit divide them.
pub(crate) fn outsiders(family: IpFamily) -> Vec<IpAddr> {
    match family {
        IpFamily::V4 => vec![
            v4([198, 51, 100, 16]),
            v4([198, 51, 100, 130]),
            v4([192, 168, 1, 100]),
        ],
        IpFamily::V6 => vec![outside_v6(0x10), outside_v6(0x1_0010), lan_v6(0x100)],
    }
}

/// The other nodes.
pub(crate) fn other_nodes(family: IpFamily) -> Vec<IpAddr> {
    match family {
        IpFamily::V4 => vec![v4([192, 168, 1, 12]), v4([192, 168, 1, 13])],
        IpFamily::V6 => vec![lan_v6(0x12), lan_v6(0x13)],
    }
}

/// Pods of this node, on both interfaces.
pub(crate) fn local_pods(family: IpFamily) -> Vec<IpAddr> {
    match family {
        IpFamily::V4 => [16, 17, 18, 144, 145]
            .map(|last| v4([10, 244, 1, last]))
            .to_vec(),
        IpFamily::V6 => [16, 17, 18, 144, 145].map(|last| pod_v6(1, last)).to_vec(),
    }
}

/// Pods of the other nodes, with the number of the node.
pub(crate) fn remote_pods(family: IpFamily) -> Vec<(u8, IpAddr)> {
    let numbers = [(2, 16), (2, 17), (3, 16), (3, 17)];
    let address = |node: u8, last: u8| match family {
        IpFamily::V4 => v4([10, 244, node, last]),
        IpFamily::V6 => pod_v6(node.into(), last.into()),
    };
    numbers
        .map(|(node, last)| (node, address(node, last)))
        .to_vec()
}

/// Where packets of a Pod of this node come in.
pub(crate) fn interface_of(pod: IpAddr) -> Entry {
    let last = match pod {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    Entry::Interface(if last < 128 { 1 } else { 2 })
}

pub(crate) const fn v4(octets: [u8; 4]) -> IpAddr {
    let [a, b, c, d] = octets;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn lan_v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, last))
}

const fn pod_v6(node: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        0xfd12,
        0x3456,
        0x789a,
        0xf400 + node,
        0,
        0,
        0,
        last,
    ))
}

const fn outside_v6(low: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        0x2001,
        0xdb8,
        0,
        0,
        0,
        0,
        (low >> 16) as u16,
        (low & 0xffff) as u16,
    ))
}
