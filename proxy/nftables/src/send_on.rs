//! Segments of connections that another node knows, sent on to it: a table of its own beside the forwarding table.
//!
//! A VIP that moves to this node brings segments of connections that began at its former owner. Here they would go to an
//! endpoint that knows nothing of them and answers with a reset. So what conntrack knows nothing of, and what does not
//! begin a connection, goes to the former owner, as it is; there conntrack knows where it belongs.
//!
//! A client that uses a port again may meet what conntrack here remembers of an earlier connection, for two minutes after its
//! end: its segments are out of the window of that one. They go to the former owner too, for here they would be dropped. But if
//! that one does not know them either, they are of a connection that lives here, and are dropped there instead: a
//! reset would end it.
//!
//! No packet is sent on twice, even if two nodes name each other: it leaves with [`HOPS`] hops at most, and what comes with so
//! few stays.

mod kernel;

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::address::IpFamily;

use crate::netlink::expression::{CtKey, Expression, MetaKey, PayloadBase, Register, RuleVerdict};
use crate::netlink::message::{ElementData, Hook, SetElement, SetShape};
use crate::program::Rule;
use crate::program::encode::address_octets;
use crate::program::schema::address_length;
pub use kernel::SendOn;

/// For each VIP the address of the node that knows its older connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Goals(BTreeMap<IpAddr, IpAddr>);

/// How one becomes another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Difference {
    pub(crate) removed: Vec<IpAddr>,
    pub(crate) added: Vec<(IpAddr, IpAddr)>,
}

impl FromIterator<(IpAddr, IpAddr)> for Goals {
    /// A node is reached in the family of the VIP; other pairs are left out.
    fn from_iter<T: IntoIterator<Item = (IpAddr, IpAddr)>>(pairs: T) -> Self {
        let same_family = |(vip, node): &(IpAddr, IpAddr)| vip.is_ipv4() == node.is_ipv4();
        Self(pairs.into_iter().filter(same_family).collect())
    }
}

impl Goals {
    /// Whether nothing is sent on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one family.
    pub(crate) fn of(&self, family: IpFamily) -> Self {
        let pairs = self.0.iter().map(|(vip, node)| (*vip, *node));
        Self(
            pairs
                .filter(|(vip, _)| IpFamily::of(*vip) == family)
                .collect(),
        )
    }

    pub(crate) fn diff(&self, wanted: &Self) -> Difference {
        let differs = |other: &Self, vip: &IpAddr, node: &IpAddr| other.0.get(vip) != Some(node);
        let removed = self
            .0
            .iter()
            .filter(|(vip, node)| differs(wanted, vip, node));
        let added = wanted
            .0
            .iter()
            .filter(|(vip, node)| differs(self, vip, node));
        Difference {
            removed: removed.map(|(vip, _)| *vip).collect(),
            added: added.map(|(vip, node)| (*vip, *node)).collect(),
        }
    }
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// An element of the set of those VIPs.
pub(crate) fn member(vip: IpAddr) -> SetElement {
    SetElement::key(address_octets(vip))
}

/// An element of the map; without a node one to be removed.
pub(crate) fn element(vip: IpAddr, node: Option<IpAddr>) -> SetElement {
    SetElement {
        key: address_octets(vip),
        data: node.map(|node| ElementData::Value(address_octets(node))),
        ..SetElement::default()
    }
}

/// The shapes of the set and of the map, and what `nft` needs to print them: addresses are in the order of the network.
///
/// The map alone would do, but kernels before 6.12 (6.1 at least) refuse to ask a map whether it has a key.
pub(crate) fn shapes(family: IpFamily) -> [(SetShape, &'static [u8]); 2] {
    let length = u32::from(address_length(family));
    let kind = match family {
        IpFamily::V4 => 7,
        IpFamily::V6 => 8,
    };
    let map = SetShape {
        name: MOVED,
        flags: 0x8,
        key_type: kind,
        key_length: length,
        data: Some((kind, length)),
        size: 0,
        timeout_ms: 0,
        fields: &[],
    };
    let set = SetShape {
        name: MOVED_VIPS,
        flags: 0,
        data: None,
        ..map
    };
    [
        (set, b"\0\x04\x02\0\0\0"),
        (map, b"\0\x04\x02\0\0\0\x01\x04\x02\0\0\0\x06\x04\0\0\0\0"),
    ]
}

/// The chains, those first that others name.
pub(crate) fn chains(family: IpFamily) -> [(&'static str, Option<Hook>, Vec<Rule>); 3] {
    let hook = Hook {
        kind: "filter",
        number: 0,
        priority: BEFORE_OUR_FILTER,
    };
    let unknown = vec![
        send_on(family, HOPS),
        ending(
            moved_with_more_hops(family, HOPS_OF_INVALID),
            RuleVerdict::Return,
        ),
        ending(moved(family), RuleVerdict::Drop),
    ];
    let segments = vec![
        continuation(STATE_NEW, SEND_ON),
        // Also what ends an unknown connection: conntrack never takes that up as one.
        continuation(STATE_INVALID, SEND_INVALID_ON),
    ];
    [
        (SEND_ON, None, unknown),
        (
            SEND_INVALID_ON,
            None,
            vec![send_on(family, HOPS_OF_INVALID)],
        ),
        ("prerouting", Some(hook), segments),
    ]
}

/// TCP in this state of conntrack that begins no connection goes to this chain.
fn continuation(state: u32, chain: &str) -> Rule {
    let register = Register(0);
    vec![
        Expression::CtLoad {
            to: register,
            key: CtKey::State,
        },
        Expression::Mask {
            register,
            mask: state.to_ne_bytes(),
        },
        Expression::Compare {
            register,
            equal: false,
            value: vec![0; 4],
        },
        Expression::MetaLoad {
            to: register,
            key: MetaKey::TransportProtocol,
        },
        Expression::Compare {
            register,
            equal: true,
            value: vec![TCP],
        },
        Expression::Payload {
            to: register,
            base: PayloadBase::Transport,
            offset: TCP_FLAGS,
            length: 1,
        },
        Expression::Replace {
            register,
            mask: vec![FIN | SYN | RST | ACK],
            others: vec![0],
        },
        Expression::Compare {
            register,
            equal: false,
            value: vec![SYN],
        },
        Expression::Verdict(RuleVerdict::Goto(chain.to_owned())),
    ]
}

fn load(offset: u8, length: u8) -> Expression {
    Expression::Payload {
        to: Register(0),
        base: PayloadBase::Network,
        offset,
        length,
    }
}

fn destination(family: IpFamily) -> Expression {
    match family {
        IpFamily::V4 => load(16, 4),
        IpFamily::V6 => load(24, 16),
    }
}

fn offset_of_hops(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 8,
        IpFamily::V6 => 7,
    }
}

/// What goes to a VIP that moved.
fn moved(family: IpFamily) -> Rule {
    let member = Expression::Member {
        register: Register(0),
        set: MOVED_VIPS,
        inverted: false,
    };
    vec![destination(family), member]
}

fn ending(mut rule: Rule, verdict: RuleVerdict) -> Rule {
    rule.push(Expression::Verdict(verdict));
    rule
}

/// What goes to a VIP that moved, and has more hops left than these.
fn moved_with_more_hops(family: IpFamily, hops: u8) -> Rule {
    let mut rule = moved(family);
    rule.push(load(offset_of_hops(family), 1));
    rule.push(Expression::Greater {
        register: Register(0),
        than: vec![hops],
    });
    rule
}

/// Sends what goes to a VIP that moved, and was not sent on already, to its former owner, with these hops left.
fn send_on(family: IpFamily, hops_left: u8) -> Rule {
    let register = Register(0);
    let hops = offset_of_hops(family);
    let mut rule = moved_with_more_hops(family, HOPS);
    match family {
        // By two octets, since a checksum is over those.
        IpFamily::V4 => rule.extend([
            load(hops, 2),
            Expression::Replace {
                register,
                mask: vec![0, 0xff],
                others: vec![hops_left, 0],
            },
            Expression::PayloadSet {
                from: register,
                offset: hops,
                length: 2,
                checksum: Some(10),
            },
        ]),
        IpFamily::V6 => rule.extend([
            Expression::Immediate {
                to: register,
                value: vec![hops_left],
            },
            Expression::PayloadSet {
                from: register,
                offset: hops,
                length: 1,
                checksum: None,
            },
        ]),
    }
    rule.extend([
        destination(family),
        Expression::Map {
            register,
            map: MOVED,
            to: register,
        },
        Expression::Duplicate { to: register },
        Expression::Verdict(RuleVerdict::Drop),
    ]);
    rule
}

/// The name of the table, one for each family.
pub(crate) const TABLE: &str = "foghorn-moved";
const MOVED: &str = "moved";
const MOVED_VIPS: &str = "moved-vips";
const SEND_ON: &str = "send-on";
const SEND_INVALID_ON: &str = "send-invalid-on";
/// Behind conntrack (-200), before what drops segments out of window (-110) and destination NAT (-100).
const BEFORE_OUR_FILTER: i32 = -120;
/// Hops that are left to what is sent on. Clients are never so many away that less is left of the 64 that they begin
/// with, and from a node to a Pod they are few.
const HOPS: u8 = 16;
/// The same for what conntrack here took for a part of another connection: by this the former owner knows it.
const HOPS_OF_INVALID: u8 = 8;
const TCP: u8 = 6;
/// Offset of the flags in the header of TCP.
const TCP_FLAGS: u8 = 13;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// `NF_CT_STATE_BIT(..)`
const STATE_INVALID: u32 = 1;
const STATE_NEW: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn goals(pairs: &[(&str, &str)]) -> Goals {
        let parse = |text: &str| text.parse().unwrap();
        pairs
            .iter()
            .map(|(vip, node)| (parse(vip), parse(node)))
            .collect()
    }

    #[test]
    fn a_difference_makes_one_of_the_other() {
        let none = goals(&[]);
        let one = goals(&[("192.0.2.240", "192.0.2.1"), ("192.0.2.241", "192.0.2.1")]);
        let other = goals(&[("192.0.2.240", "192.0.2.2"), ("192.0.2.242", "192.0.2.1")]);
        for from in [&none, &one, &other] {
            for to in [&none, &one, &other] {
                let difference = from.diff(to);
                let mut held = from.clone();
                for vip in &difference.removed {
                    assert!(held.0.remove(vip).is_some());
                }
                for (vip, node) in &difference.added {
                    assert_eq!(held.0.insert(*vip, *node), None);
                }
                assert_eq!(&held, to);
                assert_eq!(difference.is_empty(), from == to);
            }
        }
    }

    #[test]
    fn a_node_is_reached_in_the_family_of_the_vip() {
        let mixed = goals(&[
            ("192.0.2.240", "2001:db8::1"),
            ("2001:db8::240", "2001:db8::1"),
        ]);
        assert!(mixed.of(IpFamily::V4).is_empty());
        assert_eq!(mixed, goals(&[("2001:db8::240", "2001:db8::1")]));
    }
}
