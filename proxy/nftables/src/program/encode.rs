//! Elements as octets, and back.

use std::net::IpAddr;
use std::num::NonZeroU16;

use config::address::IpFamily;
use config::service::Protocol;
use ipnet::IpNet;
use proxy_table::Endpoint;

use crate::netlink::message::{ElementData, SetElement};
use crate::program::item::{
    Class, EndpointName, Item, Key, Masqueraded, Side, Slot, Value, family_of,
};
use crate::program::{rules, schema};

impl Item {
    /// The name of the set or map that the element is in.
    pub(crate) fn set(&self) -> &'static str {
        match self {
            Self::Class(_, Side::All, _) => schema::CLASSES,
            Self::Class(_, Side::Outside, _) => schema::OUTSIDE_CLASSES,
            Self::PodNetwork(_) => schema::POD_NETWORKS,
            Self::Hairpin(..) => schema::HAIRPINS,
            Self::Frontend(Side::All, _) => schema::FRONTENDS,
            Self::Frontend(Side::Outside, _) => schema::OUTSIDE_FRONTENDS,
            Self::Endpoint(..) => schema::ENDPOINTS,
            Self::AffinitySlot(..) => schema::AFFINITY_SLOTS,
            Self::AffinityEndpoint(..) => schema::AFFINITY_ENDPOINTS,
            Self::Masquerade(Masqueraded::Always, _) => schema::MASQUERADE_ALWAYS,
            Self::Masquerade(Masqueraded::UnlessPod, _) => schema::MASQUERADE_UNLESS_POD,
            Self::Masquerade(Masqueraded::OnlyNode, _) => schema::MASQUERADE_NODE,
            Self::Masquerade(Masqueraded::OnlyHairpin, _) => schema::MASQUERADE_HAIRPIN,
            Self::Guarded(_) => schema::GUARDED,
            Self::Source(..) => schema::SOURCES,
            Self::ClusterIp(_) => schema::CLUSTER_IPS,
            Self::LeftAlone(_) => schema::LEFT_ALONE,
            Self::ServiceCidr(_) => schema::SERVICE_CIDRS,
            Self::Bound(_) => schema::BOUND,
        }
    }

    /// The element as the kernel has it; an interval is two.
    pub(crate) fn encode(&self, value: Value) -> Vec<SetElement> {
        let member = |key| vec![SetElement::key(key)];
        match self {
            Self::Class(_, side, class) => vec![SetElement {
                key: class.number().to_ne_bytes().to_vec(),
                data: Some(ElementData::Verdict(rules::class_verdict(*side, *class))),
                ..SetElement::default()
            }],
            Self::PodNetwork(network) | Self::ServiceCidr(network) => interval(*network),
            Self::Hairpin(endpoint, protocol) => {
                let key = Key {
                    address: endpoint.address,
                    protocol: *protocol,
                    port: endpoint.port,
                };
                let mut octets = address_octets(key.address);
                octets.extend(key_octets(&key, 0));
                member(octets)
            }
            Self::Frontend(_, key) => vec![SetElement {
                key: key_octets(key, 0),
                data: value.encode(),
                ..SetElement::default()
            }],
            Self::Endpoint(key, slot) | Self::AffinitySlot(key, slot) => {
                let mut octets = key_octets(key, 4);
                octets.extend_from_slice(&slot.number().to_ne_bytes());
                vec![SetElement {
                    key: octets,
                    data: value.encode(),
                    ..SetElement::default()
                }]
            }
            Self::AffinityEndpoint(key, name) => {
                let mut octets = key_octets(key, 4);
                octets.extend_from_slice(&name.0.to_ne_bytes());
                vec![SetElement {
                    key: octets,
                    data: value.encode(),
                    ..SetElement::default()
                }]
            }
            Self::Masquerade(_, key) | Self::Guarded(key) => member(key_octets(key, 0)),
            Self::Source(key, network) => {
                let with = |address: IpAddr| {
                    let mut octets = key_octets(key, 16);
                    octets.extend(address_octets(address));
                    octets
                };
                vec![SetElement {
                    key: with(network.network()),
                    key_end: Some(with(network.broadcast())),
                    ..SetElement::default()
                }]
            }
            Self::ClusterIp(address) | Self::LeftAlone(address) | Self::Bound(address) => {
                member(address_octets(*address))
            }
        }
    }
}

impl Value {
    fn encode(self) -> Option<ElementData> {
        Some(ElementData::Value(match self {
            Self::Member => return None,
            Self::Class(class) => class.number().to_ne_bytes().to_vec(),
            Self::Name(name) => name.0.to_ne_bytes().to_vec(),
            Self::Endpoint(endpoint) => {
                let mut octets = address_octets(endpoint.address);
                octets.extend_from_slice(&endpoint.port.get().to_be_bytes());
                octets.extend_from_slice(&[0; 2]);
                octets
            }
        }))
    }
}

/// What a key in registers means in a set; for ranges see [`decode_ranges`].
pub(crate) fn decode_key(set: &str, family: IpFamily, octets: &[u8]) -> Option<Item> {
    let mut reader = Reader { octets, family };
    let item = match set {
        schema::CLASSES => Item::Class(family, Side::All, Class::from_number(reader.number()?)?),
        schema::OUTSIDE_CLASSES => {
            Item::Class(family, Side::Outside, Class::from_number(reader.number()?)?)
        }
        schema::HAIRPINS => {
            let address = reader.address()?;
            let key = reader.key()?;
            let endpoint = Endpoint {
                address,
                port: key.port,
            };
            (key.address == address).then_some(Item::Hairpin(endpoint, key.protocol))?
        }
        schema::FRONTENDS => Item::Frontend(Side::All, reader.key()?),
        schema::OUTSIDE_FRONTENDS => Item::Frontend(Side::Outside, reader.key()?),
        schema::ENDPOINTS => Item::Endpoint(reader.key()?, Slot::from_number(reader.number()?)),
        schema::AFFINITY_SLOTS => {
            Item::AffinitySlot(reader.key()?, Slot::from_number(reader.number()?))
        }
        schema::AFFINITY_ENDPOINTS => {
            Item::AffinityEndpoint(reader.key()?, EndpointName(reader.number()?))
        }
        schema::MASQUERADE_ALWAYS => Item::Masquerade(Masqueraded::Always, reader.key()?),
        schema::MASQUERADE_UNLESS_POD => Item::Masquerade(Masqueraded::UnlessPod, reader.key()?),
        schema::MASQUERADE_NODE => Item::Masquerade(Masqueraded::OnlyNode, reader.key()?),
        schema::MASQUERADE_HAIRPIN => Item::Masquerade(Masqueraded::OnlyHairpin, reader.key()?),
        schema::GUARDED => Item::Guarded(reader.key()?),
        schema::CLUSTER_IPS => Item::ClusterIp(reader.address()?),
        schema::LEFT_ALONE => Item::LeftAlone(reader.address()?),
        schema::BOUND => Item::Bound(reader.address()?),
        _ => return None,
    };
    reader.octets.is_empty().then_some(item)
}

/// Reads an element of a set that has no intervals.
pub(crate) fn decode(set: &str, family: IpFamily, element: &SetElement) -> Option<(Item, Value)> {
    let item = decode_key(set, family, &element.key)?;
    let value = match (&item, &element.data) {
        (Item::Class(_, side, class), Some(ElementData::Verdict(verdict))) => {
            (*verdict == rules::class_verdict(*side, *class)).then_some(Value::Member)?
        }
        (Item::Frontend(..), Some(ElementData::Value(octets))) => {
            Value::Class(Class::from_number(Reader { octets, family }.number()?)?)
        }
        (Item::Endpoint(..) | Item::AffinityEndpoint(..), Some(ElementData::Value(octets))) => {
            let mut reader = Reader { octets, family };
            let address = reader.address()?;
            Value::Endpoint(Endpoint {
                address,
                port: reader.port()?,
            })
        }
        (Item::AffinitySlot(..), Some(ElementData::Value(octets))) => {
            Value::Name(EndpointName(Reader { octets, family }.number()?))
        }
        (_, None) => Value::Member,
        _ => return None,
    };
    Some((item, value))
}

/// What the key of a lookup in `sources` asks for: a frontend and a source.
pub(crate) fn decode_source(family: IpFamily, octets: &[u8]) -> Option<(Key, IpAddr)> {
    let mut reader = Reader { octets, family };
    let key = reader.key()?;
    Some((key, reader.address()?))
}

/// The address in these octets.
pub(crate) fn decode_address(family: IpFamily, octets: &[u8]) -> Option<IpAddr> {
    Reader { octets, family }.address()
}

/// Reads all elements of a set of intervals; none if one of them is none of ours.
pub(crate) fn decode_ranges(
    set: &str,
    family: IpFamily,
    elements: &[SetElement],
) -> Option<Vec<Item>> {
    if set == schema::SOURCES {
        let sources = elements.iter().map(|element| {
            let (key, first) = decode_source(family, &element.key)?;
            let (_, last) =
                decode_source(family, element.key_end.as_ref().unwrap_or(&element.key))?;
            Some(Item::Source(key, network(first, last)?))
        });
        return sources.collect();
    }
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    for element in elements {
        let address = decode_address(family, &element.key)?;
        match element.ends_interval {
            false => starts.push(address),
            // `nft` writes an end before everything when it loads a set.
            true if address.is_unspecified() => {}
            true => ends.push(address),
        }
    }
    starts.sort_unstable();
    ends.sort_unstable();
    let ends = ends.into_iter().map(Some).chain(std::iter::repeat(None));
    let networks = starts.into_iter().zip(ends).map(|(first, end)| {
        let last = match end {
            Some(end) => before(end)?,
            None => last_address(family),
        };
        let network = network(first, last)?;
        match set {
            schema::POD_NETWORKS => Some(Item::PodNetwork(network)),
            schema::SERVICE_CIDRS => Some(Item::ServiceCidr(network)),
            _ => None,
        }
    });
    networks.collect()
}

/// Two elements: the first address, and the first one behind.
fn interval(network: IpNet) -> Vec<SetElement> {
    let start = SetElement::key(address_octets(network.network()));
    let last = network.broadcast();
    if last == last_address(family_of(network)) {
        return vec![start];
    }
    let behind = match last {
        IpAddr::V4(last) => IpAddr::from((u32::from(last) + 1).to_be_bytes()),
        IpAddr::V6(last) => IpAddr::from((u128::from(last) + 1).to_be_bytes()),
    };
    let end = SetElement {
        key: address_octets(behind),
        ends_interval: true,
        ..SetElement::default()
    };
    vec![start, end]
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::from(u32::from(address).checked_sub(1)?.to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from(u128::from(address).checked_sub(1)?.to_be_bytes()),
    })
}

fn last_address(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => IpAddr::from([u8::MAX; 4]),
        IpFamily::V6 => IpAddr::from([u8::MAX; 16]),
    }
}

/// The prefix from `first` to `last`, if it is one.
fn network(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let same = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (u32::from(first) ^ u32::from(last)).leading_zeros()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            (u128::from(first) ^ u128::from(last)).leading_zeros()
        }
        _ => return None,
    };
    let network = IpNet::new(first, u8::try_from(same).ok()?).ok()?;
    (network.network() == first && network.broadcast() == last).then_some(network)
}

pub(crate) fn address_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Each field of a concatenation fills whole registers of 4 octets.
fn key_octets(key: &Key, more: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(24 + more);
    match key.address {
        IpAddr::V4(address) => octets.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => octets.extend_from_slice(&address.octets()),
    }
    octets.extend_from_slice(&[key.protocol.number(), 0, 0, 0]);
    octets.extend_from_slice(&key.port.get().to_be_bytes());
    octets.extend_from_slice(&[0; 2]);
    octets
}

/// Reads the fields of a concatenation.
struct Reader<'a> {
    octets: &'a [u8],
    family: IpFamily,
}

impl Reader<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.octets.split_first_chunk::<LENGTH>()?;
        self.octets = rest;
        Some(*taken)
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            IpFamily::V4 => IpAddr::from(self.take::<4>()?),
            IpFamily::V6 => IpAddr::from(self.take::<16>()?),
        })
    }

    fn port(&mut self) -> Option<NonZeroU16> {
        let [high, low, _, _] = self.take()?;
        NonZeroU16::new(u16::from_be_bytes([high, low]))
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take()?))
    }

    fn key(&mut self) -> Option<Key> {
        let address = self.address()?;
        let [number, ..] = self.take::<4>()?;
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = protocols
            .into_iter()
            .find(|protocol| protocol.number() == number)?;
        Some(Key {
            address,
            protocol,
            port: self.port()?,
        })
    }
}
