//! The elements of our sets and maps, as values.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use config::address::IpFamily;
use config::service::Protocol;
use ipnet::IpNet;
use proxy_table::Endpoint;

/// The destination of packets to a frontend: what rules look up.
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: NonZeroU16,
}

/// What distinguishes the elements of a set or map: the key, and which set it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Item {
    /// The verdict of a class.
    Class(IpFamily, Side, Class),
    /// A source network of Pods.
    PodNetwork(IpNet),
    /// An endpoint that reaches itself, or answers outside its connection.
    Hairpin(Endpoint, Protocol),
    /// The class of a frontend, or of its flows from outside only.
    Frontend(Side, Key),
    /// The endpoint at a slot.
    Endpoint(Key, Slot),
    /// The name of the endpoint at a slot, where clients keep theirs.
    AffinitySlot(Key, Slot),
    /// The endpoint of a name, where clients keep theirs.
    AffinityEndpoint(Key, EndpointName),
    /// Flows to the frontend whose source is replaced.
    Masquerade(Masqueraded, Key),
    /// A frontend that admits only some sources.
    Guarded(Key),
    /// Sources that a frontend admits.
    Source(Key, IpNet),
    /// A ClusterIP whose other ports are rejected.
    ClusterIp(IpAddr),
    /// A ClusterIP whose other ports are left alone.
    LeftAlone(IpAddr),
    /// A prefix whose other addresses are dropped.
    ServiceCidr(IpNet),
    /// An address that the node has only so that IPVS sees what goes there: its other ports are rejected.
    Bound(IpAddr),
}

/// What a map has for a key.
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Value {
    /// Nothing: it is a set, or the key says it.
    Member,
    Class(Class),
    Endpoint(Endpoint),
    Name(EndpointName),
}

/// Which flows: all, or those from outside that meet something else (`externalTrafficPolicy: Local`).
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Side {
    All,
    Outside,
}

/// A place in a list of endpoints, counted from the first place of its [`Side`].
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    pub side: Side,
    pub index: u32,
}

/// A name of an endpoint that stays when others of its frontend come and go.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointName(pub u32);

/// Whose flows have their source replaced.
#[expect(missing_docs, reason = "as in `proxy_table::Masquerade`")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Masqueraded {
    Always,
    UnlessPod,
    OnlyNode,
    /// Told apart from flows that are none of ours only where IPVS forwards.
    OnlyHairpin,
}

/// What happens to flows: frontends of one class share a chain.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Answered with ICMP port unreachable.
    Reject,
    /// Dropped.
    Drop,
    /// Left to IPVS.
    Leave,
    /// To one of the first `count` slots; for `affinity_seconds` the client keeps it.
    #[expect(missing_docs, reason = "the variant says it")]
    Pick {
        count: u32,
        affinity_seconds: Option<NonZeroU32>,
    },
}

impl Class {
    /// To one of `count` endpoints; more than [`MOST_ENDPOINTS`] are not told apart.
    pub fn pick(count: usize, affinity_seconds: Option<NonZeroU32>) -> Self {
        let count = u32::try_from(count).map_or(MOST_ENDPOINTS, |count| count.min(MOST_ENDPOINTS));
        let longest = NonZeroU32::new(LONGEST_AFFINITY_SECONDS);
        Self::Pick {
            count,
            affinity_seconds: affinity_seconds.min(longest.or(affinity_seconds)),
        }
    }

    /// The number of the class: the same on every node and after every restart.
    pub fn number(self) -> u32 {
        match self {
            Self::Reject => 1 << COUNT_BITS,
            Self::Drop => 2 << COUNT_BITS,
            Self::Leave => 3 << COUNT_BITS,
            Self::Pick {
                count,
                affinity_seconds,
            } => affinity_seconds.map_or(0, NonZeroU32::get) << COUNT_BITS | count,
        }
    }

    /// The class of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        let (high, count) = (number >> COUNT_BITS, number & MOST_ENDPOINTS);
        match (high, count) {
            (1, 0) => Some(Self::Reject),
            (2, 0) => Some(Self::Drop),
            (3, 0) => Some(Self::Leave),
            (_, 0) => None,
            _ => Some(Self::Pick {
                count,
                affinity_seconds: NonZeroU32::new(high),
            }),
        }
    }

    /// The name of the chain of the class; the dropping class needs none.
    pub fn chain(self, side: Side) -> Option<String> {
        let Self::Pick {
            count,
            affinity_seconds,
        } = self
        else {
            return match self {
                Self::Reject => Some(UNREACHABLE_CHAIN.to_owned()),
                Self::Leave => Some(LEAVE_CHAIN.to_owned()),
                _ => None,
            };
        };
        let side = match side {
            Side::All => "",
            Side::Outside => "outside-",
        };
        Some(match affinity_seconds {
            None => format!("{side}pick-{count}"),
            Some(seconds) => format!("{side}pick-{count}-affinity-{seconds}"),
        })
    }

    /// The class of the chain of this name.
    pub fn from_chain(name: &str) -> Option<(Side, Self)> {
        if name == LEAVE_CHAIN {
            return Some((Side::All, Self::Leave));
        }
        let (side, rest) = match name.strip_prefix("outside-") {
            None => (Side::All, name),
            Some(rest) => (Side::Outside, rest),
        };
        let rest = rest.strip_prefix("pick-")?;
        let (count, affinity_seconds) = match rest.split_once("-affinity-") {
            None => (rest, None),
            Some((count, seconds)) => (count, Some(NonZeroU32::new(seconds.parse().ok()?)?)),
        };
        let count: u32 = count.parse().ok()?;
        let class = Self::Pick {
            count,
            affinity_seconds,
        };
        (count > 0 && class.chain(side)? == name).then_some((side, class))
    }
}

impl Slot {
    /// The number of the slot among all slots of a frontend.
    pub fn number(self) -> u32 {
        self.index + self.side.first_slot()
    }

    /// The slot of this number.
    pub fn from_number(number: u32) -> Self {
        match number.checked_sub(OUTSIDE_FIRST_SLOT) {
            None => Self {
                side: Side::All,
                index: number,
            },
            Some(index) => Self {
                side: Side::Outside,
                index,
            },
        }
    }
}

impl Side {
    /// The number of the first slot.
    pub fn first_slot(self) -> u32 {
        match self {
            Self::All => 0,
            Self::Outside => OUTSIDE_FIRST_SLOT,
        }
    }
}

impl Item {
    /// The family of the table that the element is in.
    pub fn family(&self) -> IpFamily {
        match self {
            Self::Class(family, ..) => *family,
            Self::Hairpin(endpoint, _) => IpFamily::of(endpoint.address),
            Self::Frontend(_, key)
            | Self::Endpoint(key, _)
            | Self::AffinitySlot(key, _)
            | Self::AffinityEndpoint(key, _)
            | Self::Masquerade(_, key)
            | Self::Guarded(key)
            | Self::Source(key, _) => IpFamily::of(key.address),
            Self::ClusterIp(address) | Self::LeftAlone(address) | Self::Bound(address) => {
                IpFamily::of(*address)
            }
            Self::PodNetwork(network) | Self::ServiceCidr(network) => family_of(*network),
        }
    }

    /// The frontend that the element belongs to, if it belongs to one.
    pub fn frontend(&self) -> Option<Key> {
        match self {
            Self::Frontend(_, key)
            | Self::Endpoint(key, _)
            | Self::AffinitySlot(key, _)
            | Self::AffinityEndpoint(key, _)
            | Self::Masquerade(_, key)
            | Self::Guarded(key)
            | Self::Source(key, _) => Some(*key),
            _ => None,
        }
    }
}

/// The family of a prefix.
pub(crate) fn family_of(network: IpNet) -> IpFamily {
    IpFamily::of(network.addr())
}

/// The most endpoints that one frontend spreads its flows over; any further ones stay idle.
pub const MOST_ENDPOINTS: u32 = (1 << COUNT_BITS) - 1;
/// The longest time that a client keeps its endpoint; the API allows a day.
pub const LONGEST_AFFINITY_SECONDS: u32 = (1 << (32 - COUNT_BITS)) - 2;
/// The chain that rejects.
pub(crate) const UNREACHABLE_CHAIN: &str = "unreachable";
/// The chain that leaves packets to IPVS.
pub(crate) const LEAVE_CHAIN: &str = "ipvs";
const COUNT_BITS: u32 = 15;
const OUTSIDE_FIRST_SLOT: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_known_by_its_number_and_by_its_chain() {
        let classes = [
            (Class::pick(3, None), 3, "pick-3"),
            (
                Class::pick(3, NonZeroU32::new(10_800)),
                0x1518_0003,
                "pick-3-affinity-10800",
            ),
            (
                Class::pick(1, NonZeroU32::new(1)),
                0x8001,
                "pick-1-affinity-1",
            ),
            (Class::pick(99_999, None), 32_767, "pick-32767"),
        ];
        for (class, number, chain) in classes {
            assert_eq!(class.number(), number);
            assert_eq!(Class::from_number(number), Some(class));
            assert_eq!(class.chain(Side::All).unwrap(), chain);
            assert_eq!(Class::from_chain(chain), Some((Side::All, class)));
            let outside = format!("outside-{chain}");
            assert_eq!(Class::from_chain(&outside), Some((Side::Outside, class)));
        }
        for class in [Class::Reject, Class::Drop] {
            assert_eq!(Class::from_number(class.number()), Some(class));
        }
    }

    #[test]
    fn other_names_and_numbers_are_no_class() {
        for name in [
            "pick-0",
            "pick-03",
            "pick-3-affinity-0",
            "services",
            "outside-",
            "pick-",
        ] {
            assert_eq!(Class::from_chain(name), None, "{name}");
        }
        for number in [0, 4 << 15] {
            assert_eq!(Class::from_number(number), None, "{number}");
        }
    }
}
