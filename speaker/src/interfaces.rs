//! The interfaces of this machine, as the kernel tells of them over netlink.

mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use speaker_announcer::{Link, LinkIndex, MacAddr};

pub use socket::{InterfaceSocket, ListError};

/// Everything known of the interfaces that could lead to a LAN: Ethernet, and neither loopback nor without ARP.
#[derive(Debug, Default)]
pub struct Interfaces {
    links: BTreeMap<LinkIndex, Known>,
    /// Addresses may be told of before their interface is.
    addresses: BTreeMap<LinkIndex, BTreeSet<IpNet>>,
    changed: BTreeSet<LinkIndex>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Known {
    name: String,
    mac: MacAddr,
    up: bool,
}

impl Interfaces {
    /// Takes in what the kernel says.
    pub fn handle_message(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.handle_link(link),
            RouteNetlinkMessage::DelLink(link) if !is_of_a_bridge(link) => {
                let index = LinkIndex(link.header.index);
                self.addresses.remove(&index);
                if self.links.remove(&index).is_some() {
                    self.changed.insert(index);
                }
            }
            RouteNetlinkMessage::NewAddress(address) => self.handle_address(address, true),
            RouteNetlinkMessage::DelAddress(address) => self.handle_address(address, false),
            _ => {}
        }
    }

    fn handle_link(&mut self, message: &LinkMessage) {
        // A bridge tells of its ports with a message of its own that looks almost like one about the interface.
        if is_of_a_bridge(message) {
            return;
        }
        let index = LinkIndex(message.header.index);
        let known = known(message);
        let changed = self.links.get(&index) != known.as_ref();
        match known {
            Some(known) => self.links.insert(index, known),
            None => self.links.remove(&index),
        };
        if changed {
            self.changed.insert(index);
        }
    }

    fn handle_address(&mut self, message: &AddressMessage, is_there: bool) {
        let index = LinkIndex(message.header.index);
        let Some(address) = own_address(message) else {
            return;
        };
        let addresses = self.addresses.entry(index).or_default();
        let changed = if is_there {
            addresses.insert(address)
        } else {
            addresses.remove(&address)
        };
        if changed {
            self.changed.insert(index);
        }
    }

    /// The interfaces that came, changed or went since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<LinkIndex> {
        std::mem::take(&mut self.changed)
    }

    /// The interface with this index, if it is there.
    pub fn get(&self, index: LinkIndex) -> Option<Link> {
        let known = self.links.get(&index)?;
        let addresses = self.addresses.get(&index);
        Some(Link {
            index,
            name: known.name.clone(),
            mac: known.mac,
            up: known.up,
            addresses: addresses.into_iter().flatten().copied().collect(),
        })
    }

    /// All interfaces.
    pub fn iter(&self) -> impl Iterator<Item = Link> + '_ {
        self.links.keys().filter_map(|&index| self.get(index))
    }

    /// Everything was told anew in `fresh`: takes it over, and knows what is different.
    pub fn replace(&mut self, fresh: Self) {
        let before = std::mem::take(self);
        let indices = before.links.keys().chain(fresh.links.keys());
        let changed = indices.filter(|&&index| before.get(index) != fresh.get(index));
        self.changed = changed.copied().chain(before.changed.clone()).collect();
        self.links = fresh.links;
        self.addresses = fresh.addresses;
    }
}

fn known(message: &LinkMessage) -> Option<Known> {
    let header = &message.header;
    let flags = header.flags;
    if header.link_layer_type != LinkLayerType::Ether
        || flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp)
    {
        return None;
    }
    let mut name = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found.clone()),
            LinkAttribute::Address(octets) => {
                if let &[a, b, c, d, e, f] = octets.as_slice() {
                    mac = Some(MacAddr::new(a, b, c, d, e, f));
                }
            }
            _ => {}
        }
    }
    Some(Known {
        name: name?,
        mac: mac?,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    })
}

fn is_of_a_bridge(message: &LinkMessage) -> bool {
    message.header.interface_family != netlink_packet_route::AddressFamily::Unspec
}

/// On a point-to-point link the local address is apart from the address, which is then the peer's.
fn own_address(message: &AddressMessage) -> Option<IpNet> {
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => {
                address = Some(*local);
                break;
            }
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    IpNet::new(address?, message.header.prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, flags: LinkFlags) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = flags;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        ];
        RouteNetlinkMessage::NewLink(message)
    }

    fn address(index: u32, address: &str) -> AddressMessage {
        let address: IpNet = address.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.attributes = vec![AddressAttribute::Address(address.addr())];
        message
    }

    const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp);

    #[test]
    fn what_the_kernel_tells_becomes_links() {
        let mut interfaces = Interfaces::default();
        let two = LinkIndex(2);
        interfaces.handle_message(&RouteNetlinkMessage::NewAddress(address(2, "192.0.2.5/24")));
        interfaces.handle_message(&link(2, "eth0", UP));
        assert_eq!(interfaces.take_changed(), [two].into());
        assert!(interfaces.take_changed().is_empty());
        let found = interfaces.get(two).unwrap();
        assert_eq!(
            (found.name.as_str(), found.up, found.mac),
            ("eth0", true, MacAddr::new(2, 0, 0, 0, 0, 1))
        );
        assert_eq!(found.addresses, ["192.0.2.5/24".parse::<IpNet>().unwrap()]);

        for (message, changes) in [
            (link(2, "eth0", UP), false),
            (link(2, "eth0", LinkFlags::Up), true),
            (link(2, "lan0", LinkFlags::Up), true),
            (link(1, "lo", UP | LinkFlags::Loopback), false),
            (
                RouteNetlinkMessage::DelAddress(address(2, "192.0.2.9/24")),
                false,
            ),
            (
                RouteNetlinkMessage::DelAddress(address(2, "192.0.2.5/24")),
                true,
            ),
        ] {
            interfaces.handle_message(&message);
            assert_eq!(
                !interfaces.take_changed().is_empty(),
                changes,
                "{message:?}"
            );
        }
        assert_eq!(interfaces.iter().count(), 1);
    }

    #[test]
    fn a_new_list_says_what_is_different() {
        let mut interfaces = Interfaces::default();
        for index in 2..5 {
            interfaces.handle_message(&link(index, &format!("eth{index}"), UP));
        }
        interfaces.take_changed();
        let mut fresh = Interfaces::default();
        fresh.handle_message(&link(2, "eth2", UP));
        fresh.handle_message(&link(3, "eth3", LinkFlags::Up));
        interfaces.replace(fresh);
        assert_eq!(
            interfaces.take_changed(),
            [LinkIndex(3), LinkIndex(4)].into()
        );
        assert!(interfaces.get(LinkIndex(4)).is_none());
    }
}
