//! Rules as values: the few matches and targets of iptables that we use.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::service::Protocol;
use ipnet::IpNet;

/// A rule: packets that all of its matches accept meet its target.
///
/// Networks have no bits behind their prefix, and none is as wide as a family: that is no match at all.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rule {
    /// `-s`.
    pub source: Option<IpNet>,
    /// `-d`.
    pub destination: Option<IpNet>,
    /// `-i`.
    pub input: Option<InterfaceMatch>,
    /// `-p`.
    pub protocol: Option<Protocol>,
    /// `--sport`.
    pub source_port: Option<NonZeroU16>,
    /// `--dport`, first and last.
    pub destination_ports: Option<(NonZeroU16, NonZeroU16)>,
    /// `--comment`, which people read.
    pub comment: Option<Arc<str>>,
    /// `--ctstate`, any of these; none of them is no match at all.
    pub states: States,
    /// `--ctstate DNAT`: the connection's destination was replaced.
    pub translated: bool,
    /// `--mark`.
    pub mark: Option<MarkMatch>,
    /// `-m statistic --mode random`.
    pub random: Option<Probability>,
    /// `-m recent`.
    pub recent: Option<Recent>,
    /// `-j`.
    pub target: Target,
}

/// What becomes of packets that a rule matches.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// Back to the chain that jumped here.
    #[default]
    Return,
    /// Out of this table's hook.
    Accept,
    /// Dropped without an answer.
    Drop,
    /// Answered with ICMP port unreachable.
    Reject,
    /// To a chain, and back at its end.
    Jump(Arc<str>),
    /// The destination is replaced.
    DestinationNat(SocketAddr),
    /// The bits of a mark are set.
    SetMark(Mark),
    /// The bits of a mark are turned over.
    FlipMark(Mark),
    /// The source is replaced by an address of the node.
    Masquerade {
        /// `--random-fully`: the new port is not guessed from the old one.
        random_fully: bool,
    },
    /// A rule of somebody else in a chain of ours: its text behind `-A CHAIN`.
    Foreign(Arc<str>),
}

/// The name of an interface, or how it begins if it ends with `+`; at most 15 characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceMatch(Arc<str>);

impl InterfaceMatch {
    /// The interface of this name; none if none can have it.
    pub fn name(name: &str) -> Option<Self> {
        let possible = !name.is_empty()
            && name.len() <= LONGEST_INTERFACE_NAME
            && name.chars().all(|character| character.is_ascii_graphic())
            && !name.contains(['"', '\'', '\\', '/']);
        possible.then(|| Self(name.into()))
    }

    /// The interfaces whose names begin with this; none if none can.
    pub fn prefix(prefix: &str) -> Option<Self> {
        if prefix.len() >= LONGEST_INTERFACE_NAME {
            return Self::name(prefix);
        }
        Self::name(&format!("{prefix}+"))
    }

    /// Whether it matches; the name is empty for packets of the node itself.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('+') {
            Some(prefix) => name.starts_with(prefix),
            None => name == &*self.0,
        }
    }
}

impl fmt::Display for InterfaceMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// States of connection tracking, as a set.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct States(u8);

impl States {
    /// Packets that belong to no connection and begin none.
    pub const INVALID: Self = Self(1);
    /// The first packets of connections.
    pub const NEW: Self = Self(2);
    /// Packets that connections caused.
    pub const RELATED: Self = Self(4);
    /// Packets of connections that were answered.
    pub const ESTABLISHED: Self = Self(8);

    /// The states of both.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of these states are in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(state, _)| *state)
    }

    /// In the order in which `iptables-save` prints them.
    const NAMES: [(Self, &'static str); 4] = [
        (Self::INVALID, "INVALID"),
        (Self::NEW, "NEW"),
        (Self::RELATED, "RELATED"),
        (Self::ESTABLISHED, "ESTABLISHED"),
    ];
}

impl fmt::Display for States {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter();
        let names = names.filter(|(state, _)| self.contains(*state));
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        formatter.write_str(&names.join(","))
    }
}

/// The bit of the packet mark that is ours.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark(pub NonZeroU32);

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// Whether packets have the mark, or have not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MarkMatch {
    /// The mark.
    pub mark: Mark,
    /// Whether packets match that have it.
    pub present: bool,
}

/// A probability in steps of 2⁻³¹, which is what the kernel counts in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Probability(u32);

impl Probability {
    /// One of `count`; none if that is certain.
    pub fn one_of(count: u32) -> Option<Self> {
        if count < 2 {
            return None;
        }
        let steps = (Self::WHOLE + u64::from(count) / 2) / u64::from(count);
        u32::try_from(steps).ok().map(Self)
    }

    /// How many of 2³¹ packets match.
    pub fn steps(self) -> u32 {
        self.0
    }

    /// Reads what `iptables-save` prints: a decimal fraction below 1 with 11 places.
    pub fn parse(text: &str) -> Option<Self> {
        let places = text.strip_prefix("0.")?;
        let digits = u32::try_from(places.len())
            .ok()
            .filter(|digits| (1..=18).contains(digits))?;
        let numerator: u64 = places.parse().ok()?;
        let denominator = 10_u64.pow(digits);
        let scaled = u128::from(numerator) * u128::from(Self::WHOLE) + u128::from(denominator / 2);
        u32::try_from(scaled / u128::from(denominator))
            .ok()
            .map(Self)
    }

    const WHOLE: u64 = 1 << 31;
}

impl fmt::Display for Probability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SCALE: u128 = 100_000_000_000;
        let places =
            (u128::from(self.0) * SCALE + u128::from(Self::WHOLE / 2)) / u128::from(Self::WHOLE);
        write!(formatter, "0.{places:011}")
    }
}

/// A look at a list of clients, by their source addresses.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Recent {
    /// Those who were put there within the last seconds match, and are put there again.
    Update {
        /// The list.
        list: Arc<str>,
        /// For how long a client is known.
        seconds: NonZeroU32,
    },
    /// Everybody matches and is put there.
    Set {
        /// The list.
        list: Arc<str>,
    },
}

impl Rule {
    /// A rule with this target alone.
    pub fn to(target: Target) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    /// The same rule, for packets to this network only.
    pub fn destination(mut self, network: IpNet) -> Self {
        self.destination = specific(network);
        self
    }

    /// The same rule, for packets from this network only.
    pub fn source(mut self, network: IpNet) -> Self {
        self.source = specific(network);
        self
    }

    /// The same rule, with a remark for people.
    pub fn comment(mut self, comment: impl Into<Arc<str>>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// A network that does not hold everything.
fn specific(network: IpNet) -> Option<IpNet> {
    (network.prefix_len() > 0).then(|| network.trunc())
}

/// `IFNAMSIZ` without the octet that ends it.
const LONGEST_INTERFACE_NAME: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_printed_as_iptables_prints_them() {
        for (count, text) in [
            (2, "0.50000000000"),
            (3, "0.33333333349"),
            (7, "0.14285714272"),
        ] {
            let probability = Probability::one_of(count).unwrap();
            assert_eq!(probability.to_string(), text);
            assert_eq!(Probability::parse(text), Some(probability));
        }
        assert_eq!(Probability::one_of(1), None);
        assert_eq!(Probability::parse("1.00000000000"), None);
    }

    #[test]
    fn every_probability_is_read_as_it_is_printed() {
        for count in (2..5000).chain([1 << 20, u32::MAX]) {
            let probability = Probability::one_of(count).unwrap();
            assert_eq!(
                Probability::parse(&probability.to_string()),
                Some(probability),
                "{count}"
            );
        }
    }

    #[test]
    fn interfaces_match_as_the_kernel_matches_them() {
        let name = InterfaceMatch::name("cbr0").unwrap();
        let prefix = InterfaceMatch::prefix("veth").unwrap();
        assert!(name.matches("cbr0") && !name.matches("cbr01") && !name.matches(""));
        assert!(prefix.matches("veth7") && !prefix.matches("eth0") && !prefix.matches(""));
        assert_eq!(InterfaceMatch::name("far-too-long-a-name"), None);
        assert_eq!(
            InterfaceMatch::prefix("exactly-15-long"),
            InterfaceMatch::name("exactly-15-long")
        );
    }
}
