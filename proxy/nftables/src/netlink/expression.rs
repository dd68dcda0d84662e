//! The expressions of rules: what nf_tables does with a packet, one register at a time.

use crate::netlink::attribute::{Writer, attributes, find, find_number, find_text};

/// One step of a rule.
#[expect(missing_docs, reason = "named as `nft --debug=netlink` prints them")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Expression {
    Payload {
        to: Register,
        base: PayloadBase,
        offset: u8,
        length: u8,
    },
    MetaLoad {
        to: Register,
        key: MetaKey,
    },
    MetaSet {
        from: Register,
        key: MetaKey,
    },
    CtLoad {
        to: Register,
        key: CtKey,
    },
    Immediate {
        to: Register,
        value: Vec<u8>,
    },
    Verdict(RuleVerdict),
    Compare {
        register: Register,
        equal: bool,
        value: Vec<u8>,
    },
    Mask {
        register: Register,
        mask: [u8; 4],
    },
    /// Ends the rule unless the key is in the set.
    Member {
        register: Register,
        set: &'static str,
        inverted: bool,
    },
    Map {
        register: Register,
        map: &'static str,
        to: Register,
    },
    VerdictMap {
        register: Register,
        map: &'static str,
    },
    Random {
        to: Register,
        modulus: u32,
        offset: u32,
    },
    DestinationNat {
        address: Register,
        port: Register,
        family: u8,
    },
    MasqueradeFullyRandom,
    RejectPort {
        code: u8,
    },
    Remember {
        key: Register,
        map: &'static str,
        value: Register,
        timeout_ms: u64,
    },
    Forget {
        key: Register,
        map: &'static str,
        value: Register,
    },
    /// Ends the rule unless the register is greater; never read back.
    Greater {
        register: Register,
        than: Vec<u8>,
    },
    /// Keeps the octets where the mask is set and puts others in place of the rest; never read back.
    Replace {
        register: Register,
        mask: Vec<u8>,
        others: Vec<u8>,
    },
    /// Writes into the header of layer 3, with its checksum at the offset if it has one; never read back.
    PayloadSet {
        from: Register,
        offset: u8,
        length: u8,
        checksum: Option<u8>,
    },
    /// Sends a copy to another node as it is, with a hop less; never read back.
    Duplicate {
        to: Register,
    },
    /// One that we never write: the rule is not ours.
    Foreign(String),
}

/// A register of 4 octets, 0 to 15; longer values go on in the following ones.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Register(pub u8);

/// Where the offset of a payload counts from.
#[expect(missing_docs, reason = "named as in nf_tables")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PayloadBase {
    Network = 1,
    Transport = 2,
}

/// What is known of a packet besides its octets.
#[expect(missing_docs, reason = "named as in nf_tables")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MetaKey {
    Priority = 2,
    InputInterface = 4,
    InputInterfaceName = 6,
    TransportProtocol = 16,
}

/// What is known of the connection of a packet.
#[expect(missing_docs, reason = "named as in nf_tables")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CtKey {
    State,
    Status,
    OriginalDestination4,
    OriginalDestination6,
    OriginalDestinationPort,
}

/// What becomes of a packet.
#[expect(missing_docs, reason = "named as in nf_tables")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RuleVerdict {
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Register {
    /// The number by which nf_tables knows the register: 1 to 4 for those at a multiple of 16 octets, 8 to 23 else.
    fn number(self) -> u32 {
        let slot = u32::from(self.0);
        if slot.is_multiple_of(4) {
            1 + slot / 4
        } else {
            8 + slot
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        let slot = match number {
            1..=4 => (number - 1) * 4,
            8..=23 => number - 8,
            _ => return None,
        };
        u8::try_from(slot).ok().map(Self)
    }
}

impl RuleVerdict {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Jump(chain) => (-3_i32, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        writer.nested(DATA_VERDICT, |writer| {
            writer.attribute(VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                writer.text(VERDICT_CHAIN, chain);
            }
        });
    }

    /// Reads the attributes of `NFTA_DATA_*`.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let verdict = find(data, DATA_VERDICT)?;
        let chain = || find_text(verdict, VERDICT_CHAIN).map(str::to_owned);
        match i32::from_be_bytes(*find(verdict, VERDICT_CODE)?.first_chunk()?) {
            0 => Some(Self::Drop),
            -3 => Some(Self::Jump(chain()?)),
            -4 => Some(Self::Goto(chain()?)),
            -5 => Some(Self::Return),
            _ => None,
        }
    }
}

impl CtKey {
    /// `NFT_CT_*`, and whether it is of the original direction.
    fn number(self) -> (u32, bool) {
        match self {
            Self::State => (0, false),
            Self::Status => (2, false),
            Self::OriginalDestinationPort => (12, true),
            Self::OriginalDestination4 => (20, true),
            Self::OriginalDestination6 => (22, true),
        }
    }
}

impl Expression {
    /// Writes an element of `NFTA_RULE_EXPRESSIONS`.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.nested(LIST_ELEMENT, |writer| {
            writer.text(EXPRESSION_NAME, self.name());
            writer.nested(EXPRESSION_DATA, |writer| self.write_content(writer));
        });
    }

    fn name(&self) -> &str {
        match self {
            Self::Payload { .. } | Self::PayloadSet { .. } => "payload",
            Self::MetaLoad { .. } | Self::MetaSet { .. } => "meta",
            Self::CtLoad { .. } => "ct",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Compare { .. } | Self::Greater { .. } => "cmp",
            Self::Mask { .. } | Self::Replace { .. } => "bitwise",
            Self::Duplicate { .. } => "dup",
            Self::Member { .. } | Self::Map { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Random { .. } => "numgen",
            Self::DestinationNat { .. } => "nat",
            Self::MasqueradeFullyRandom => "masq",
            Self::RejectPort { .. } => "reject",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::Foreign(name) => name,
        }
    }

    fn write_content(&self, writer: &mut Writer) {
        let data = |writer: &mut Writer, kind: u16, value: &[u8]| {
            writer.nested(kind, |writer| writer.attribute(DATA_VALUE, value));
        };
        match self {
            Self::Payload {
                to,
                base,
                offset,
                length,
            } => {
                writer.number(1, to.number());
                writer.number(2, *base as u32);
                writer.number(3, u32::from(*offset));
                writer.number(4, u32::from(*length));
            }
            Self::MetaLoad { to, key } => {
                writer.number(2, *key as u32);
                writer.number(1, to.number());
            }
            Self::MetaSet { from, key } => {
                writer.number(2, *key as u32);
                writer.number(3, from.number());
            }
            Self::CtLoad { to, key } => {
                let (number, original) = key.number();
                writer.number(2, number);
                writer.number(1, to.number());
                if original {
                    writer.attribute(3, &[0]);
                }
            }
            Self::Immediate { to, value } => {
                writer.number(1, to.number());
                data(writer, 2, value);
            }
            Self::Verdict(verdict) => {
                writer.number(1, 0);
                writer.nested(2, |writer| verdict.write(writer));
            }
            Self::Compare {
                register,
                equal,
                value,
            } => {
                writer.number(1, register.number());
                writer.number(2, u32::from(!equal));
                data(writer, 3, value);
            }
            Self::Mask { register, mask } => {
                writer.number(1, register.number());
                writer.number(2, register.number());
                writer.number(3, 4);
                data(writer, 4, mask);
                data(writer, 5, &[0; 4]);
            }
            Self::Member {
                register,
                set,
                inverted,
            } => {
                writer.text(1, set);
                writer.number(2, register.number());
                if *inverted {
                    writer.number(5, 1);
                }
            }
            Self::Map { register, map, to } => {
                writer.text(1, map);
                writer.number(2, register.number());
                writer.number(3, to.number());
            }
            Self::VerdictMap { register, map } => {
                writer.text(1, map);
                writer.number(2, register.number());
                writer.number(3, 0);
            }
            Self::Random {
                to,
                modulus,
                offset,
            } => {
                writer.number(1, to.number());
                writer.number(2, *modulus);
                writer.number(3, 1);
                writer.number(4, *offset);
            }
            Self::DestinationNat {
                address,
                port,
                family,
            } => {
                writer.number(1, 1);
                writer.number(2, u32::from(*family));
                writer.number(3, address.number());
                writer.number(5, port.number());
            }
            Self::MasqueradeFullyRandom => writer.number(1, RANDOM_FULLY),
            Self::RejectPort { code } => {
                writer.number(1, 0);
                writer.attribute(2, &[*code]);
            }
            Self::Remember {
                key,
                map,
                value,
                timeout_ms,
            } => {
                writer.text(1, map);
                writer.number(3, 1);
                writer.number(4, key.number());
                writer.number(5, value.number());
                writer.number64(6, *timeout_ms);
            }
            Self::Forget { key, map, value } => {
                writer.text(1, map);
                writer.number(3, 2);
                writer.number(4, key.number());
                writer.number(5, value.number());
            }
            Self::Greater { register, than } => {
                writer.number(1, register.number());
                writer.number(2, COMPARE_GREATER);
                data(writer, 3, than);
            }
            Self::Replace {
                register,
                mask,
                others,
            } => {
                writer.number(1, register.number());
                writer.number(2, register.number());
                writer.number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                data(writer, 4, mask);
                data(writer, 5, others);
            }
            Self::PayloadSet {
                from,
                offset,
                length,
                checksum,
            } => {
                writer.number(2, PayloadBase::Network as u32);
                writer.number(3, u32::from(*offset));
                writer.number(4, u32::from(*length));
                writer.number(5, from.number());
                if let Some(checksum) = checksum {
                    writer.number(6, CHECKSUM_OF_INTERNET);
                    writer.number(7, u32::from(*checksum));
                }
            }
            Self::Duplicate { to } => writer.number(1, to.number()),
            Self::Foreign(_) => {}
        }
    }

    /// Reads `NFTA_RULE_EXPRESSIONS`; `known` are the names of sets that may be meant.
    pub(crate) fn read_all(list: &[u8], known: &[&'static str]) -> Vec<Self> {
        attributes(list)
            .filter_map(|(_, element)| {
                let name = find_text(element, EXPRESSION_NAME).unwrap_or_default();
                let content = find(element, EXPRESSION_DATA).unwrap_or_default();
                if changes_nothing(name, content) {
                    return None;
                }
                let known = Self::read(name, content, known);
                Some(known.unwrap_or_else(|| Self::Foreign(name.to_owned())))
            })
            .collect()
    }

    fn read(name: &str, content: &[u8], known: &[&'static str]) -> Option<Self> {
        let number = |kind| find_number(content, kind);
        let register = |kind| Register::from_number(number(kind)?);
        let value = |kind| find(find(content, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
        let set = || {
            let name = find_text(content, 1)?;
            known.iter().copied().find(|known| *known == name)
        };
        Some(match name {
            "payload" if number(5).is_some() => return None,
            "payload" => Self::Payload {
                to: register(1)?,
                base: match number(2)? {
                    1 => PayloadBase::Network,
                    2 => PayloadBase::Transport,
                    _ => return None,
                },
                offset: u8::try_from(number(3)?).ok()?,
                length: u8::try_from(number(4)?).ok()?,
            },
            "meta" => {
                let key = match number(2)? {
                    2 => MetaKey::Priority,
                    4 => MetaKey::InputInterface,
                    6 => MetaKey::InputInterfaceName,
                    16 => MetaKey::TransportProtocol,
                    _ => return None,
                };
                match register(1) {
                    Some(to) => Self::MetaLoad { to, key },
                    None => Self::MetaSet {
                        from: register(3)?,
                        key,
                    },
                }
            }
            "ct" => {
                let key = match (number(2)?, find(content, 3)) {
                    (0, _) => CtKey::State,
                    (2, _) => CtKey::Status,
                    (12, Some([0])) => CtKey::OriginalDestinationPort,
                    (20, Some([0])) => CtKey::OriginalDestination4,
                    (22, Some([0])) => CtKey::OriginalDestination6,
                    _ => return None,
                };
                Self::CtLoad {
                    to: register(1)?,
                    key,
                }
            }
            "immediate" if number(1)? == 0 => Self::Verdict(RuleVerdict::read(find(content, 2)?)?),
            "immediate" => Self::Immediate {
                to: register(1)?,
                value: value(2)?,
            },
            "cmp" => Self::Compare {
                register: register(1)?,
                equal: match number(2)? {
                    0 => true,
                    1 => false,
                    _ => return None,
                },
                value: value(3)?,
            },
            "bitwise" => {
                let same = register(1)? == register(2)? && value(5)? == [0; 4];
                let mask = <[u8; 4]>::try_from(value(4)?).ok()?;
                same.then_some(Self::Mask {
                    register: register(1)?,
                    mask,
                })?
            }
            "lookup" => match (number(3), number(5).unwrap_or(0)) {
                (None, inverted @ 0..=1) => Self::Member {
                    register: register(2)?,
                    set: set()?,
                    inverted: inverted == 1,
                },
                (Some(0), 0) => Self::VerdictMap {
                    register: register(2)?,
                    map: set()?,
                },
                (Some(_), 0) => Self::Map {
                    register: register(2)?,
                    map: set()?,
                    to: register(3)?,
                },
                _ => return None,
            },
            "numgen" if number(3)? == 1 => Self::Random {
                to: register(1)?,
                modulus: number(2)?,
                offset: number(4).unwrap_or(0),
            },
            "nat" if number(1)? == 1 => Self::DestinationNat {
                family: u8::try_from(number(2)?).ok()?,
                address: register(3)?,
                port: register(5)?,
            },
            "masq" if number(1)? == RANDOM_FULLY => Self::MasqueradeFullyRandom,
            "reject" if number(1)? == 0 => Self::RejectPort {
                code: *find(content, 2)?.first()?,
            },
            "dynset" => match number(3)? {
                1 => Self::Remember {
                    key: register(4)?,
                    map: set()?,
                    value: register(5)?,
                    timeout_ms: u64::from_be_bytes(*find(content, 6)?.first_chunk()?),
                },
                2 => Self::Forget {
                    key: register(4)?,
                    map: set()?,
                    value: register(5)?,
                },
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// Whether this swaps the octets of pairs in a single octet, as `nft` 1.0.6 writes where a key with ranges has a protocol.
fn changes_nothing(name: &str, content: &[u8]) -> bool {
    let number = |kind| find_number(content, kind);
    name == "byteorder" && number(1) == number(2) && number(4) == Some(1) && number(5) == Some(2)
}

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`.
pub(crate) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_CMP_GT`.
const COMPARE_GREATER: u32 = 4;
/// `NFT_PAYLOAD_CSUM_INET`.
const CHECKSUM_OF_INTERNET: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 1 << 4;
