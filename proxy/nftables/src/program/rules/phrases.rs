//! What rules are made of: what is looked up, where, and what follows from it.

use config::address::IpFamily;
use proxy_table::PodDetection;

use super::Rules;
use crate::netlink::expression::{CtKey, Expression, MetaKey, PayloadBase, Register, RuleVerdict};
use crate::program::Rule;
use crate::program::schema::{POD_NETWORKS, address_length, family_number};

/// What a rule looks up: parts of the packet and of its connection.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Source,
    Destination,
    Protocol,
    SourcePort,
    DestinationPort,
    Random { modulus: u32, offset: u32 },
    Priority,
    OriginalDestination,
    OriginalPort,
}

impl Rules<'_> {
    /// Loads a concatenation into the first registers.
    pub(super) fn load(&self, fields: &[Field]) -> Rule {
        let mut slot = 0;
        let mut rule = Vec::with_capacity(fields.len());
        let length = address_length(self.family);
        for field in fields {
            let to = Register(slot);
            let address = |offset| Expression::Payload {
                to,
                base: PayloadBase::Network,
                offset,
                length,
            };
            let port = |offset| Expression::Payload {
                to,
                base: PayloadBase::Transport,
                offset,
                length: 2,
            };
            let v4 = self.family == IpFamily::V4;
            rule.push(match *field {
                Field::Source => address(if v4 { 12 } else { 8 }),
                Field::Destination => address(if v4 { 16 } else { 24 }),
                Field::Protocol => Expression::MetaLoad {
                    to,
                    key: MetaKey::TransportProtocol,
                },
                Field::SourcePort => port(0),
                Field::DestinationPort => port(2),
                Field::Random { modulus, offset } => Expression::Random {
                    to,
                    modulus,
                    offset,
                },
                Field::Priority => Expression::MetaLoad {
                    to,
                    key: MetaKey::Priority,
                },
                Field::OriginalDestination => Expression::CtLoad {
                    to,
                    key: if v4 {
                        CtKey::OriginalDestination4
                    } else {
                        CtKey::OriginalDestination6
                    },
                },
                Field::OriginalPort => Expression::CtLoad {
                    to,
                    key: CtKey::OriginalDestinationPort,
                },
            });
            slot += match field {
                Field::Source | Field::Destination | Field::OriginalDestination => length / 4,
                _ => 1,
            };
        }
        rule
    }

    pub(super) fn member(&self, fields: &[Field], set: &'static str, inverted: bool) -> Rule {
        let mut rule = self.load(fields);
        rule.push(Expression::Member {
            register: FIRST,
            set,
            inverted,
        });
        rule
    }

    /// Loads what a map has for the key.
    fn look_up(&self, fields: &[Field], map: &'static str) -> Rule {
        let mut rule = self.load(fields);
        rule.push(Expression::Map {
            register: FIRST,
            map,
            to: FIRST,
        });
        rule
    }

    /// Puts what a map has for the key into the packet's priority, our scratch.
    pub(super) fn priority_from(&self, fields: &[Field], map: &'static str) -> Rule {
        let mut rule = self.look_up(fields, map);
        rule.push(Expression::MetaSet {
            from: FIRST,
            key: MetaKey::Priority,
        });
        rule
    }

    pub(super) fn to_class(map: &'static str) -> Rule {
        vec![
            Expression::MetaLoad {
                to: FIRST,
                key: MetaKey::Priority,
            },
            Expression::VerdictMap {
                register: FIRST,
                map,
            },
        ]
    }

    pub(super) fn to_endpoint(&self, fields: &[Field], map: &'static str) -> Rule {
        let mut rule = self.look_up(fields, map);
        rule.push(Expression::DestinationNat {
            address: FIRST,
            port: Register(address_length(self.family) / 4),
            family: family_number(self.family),
        });
        rule
    }

    /// Ends the rule for flows of Pods.
    pub(super) fn unless_pod(&self) -> Rule {
        let name_is_not = |value: Vec<u8>| {
            vec![
                Expression::MetaLoad {
                    to: FIRST,
                    key: MetaKey::InputInterfaceName,
                },
                Expression::Compare {
                    register: FIRST,
                    equal: false,
                    value,
                },
            ]
        };
        match self.pods {
            PodDetection::None => Vec::new(),
            PodDetection::Networks(_) => self.member(&[Field::Source], POD_NETWORKS, true),
            PodDetection::Bridge(name) => {
                let mut octets = name.as_bytes().to_vec();
                octets.resize(INTERFACE_NAME_LENGTH, 0);
                name_is_not(octets)
            }
            PodDetection::InterfacePrefix(prefix) => {
                let octets = prefix
                    .as_bytes()
                    .iter()
                    .copied()
                    .take(INTERFACE_NAME_LENGTH - 1);
                name_is_not(octets.collect())
            }
        }
    }

    pub(super) fn clear_priority() -> Rule {
        vec![
            Expression::Immediate {
                to: FIRST,
                value: vec![0; 4],
            },
            Expression::MetaSet {
                from: FIRST,
                key: MetaKey::Priority,
            },
        ]
    }

    pub(super) fn jump(chain: &str) -> Rule {
        vec![Expression::Verdict(RuleVerdict::Jump(chain.to_owned()))]
    }

    pub(super) fn is_protocol(protocol: u8) -> Rule {
        vec![
            Expression::MetaLoad {
                to: FIRST,
                key: MetaKey::TransportProtocol,
            },
            Expression::Compare {
                register: FIRST,
                equal: true,
                value: vec![protocol],
            },
        ]
    }

    pub(super) fn masquerade() -> Rule {
        vec![Expression::MasqueradeFullyRandom]
    }
}

pub(super) const ORIGINAL: [Field; 3] = [
    Field::OriginalDestination,
    Field::Protocol,
    Field::OriginalPort,
];
pub(super) const ITSELF: [Field; 4] = [
    Field::Source,
    Field::Destination,
    Field::Protocol,
    Field::DestinationPort,
];
/// TCP, UDP and SCTP.
pub(super) const PROTOCOLS: [u8; 3] = [6, 17, 132];
pub(super) const FRONTEND: [Field; 3] =
    [Field::Destination, Field::Protocol, Field::DestinationPort];
pub(super) const FIRST: Register = Register(0);
/// `IFNAMSIZ`.
const INTERFACE_NAME_LENGTH: usize = 16;
