//! Addresses, their families, and ranges of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// One of the two families of the Internet Protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An inclusive range of addresses of one family.
///
/// Invariant: `first <= last`, and both are IPv4 or both are IPv6.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is not an address range, and what to write instead.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum RangeError {
    #[error("{first}-{last} runs backwards: swap the two addresses")]
    Reversed { first: IpAddr, last: IpAddr },
    #[error("{first}-{last} mixes IPv4 and IPv6: write one range for each family")]
    MixedFamilies { first: IpAddr, last: IpAddr },
    #[error(
        "\"{0}\" is not a range of addresses: write a range (192.0.2.10-192.0.2.20), a prefix (192.0.2.0/28) or one address"
    )]
    NotARange(String),
    #[error("{0} is every address there is: write the part of your network that Services may use")]
    Everything(IpNet),
    #[error(
        "{found} is inside the prefix {network}: write {network} for all of it, or {address} for the one address"
    )]
    HostBits {
        found: IpNet,
        network: IpNet,
        address: IpAddr,
    },
}

impl AddressRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// If the range runs backwards or its ends are of different families.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        if IpFamily::of(first) != IpFamily::of(last) {
            Err(RangeError::MixedFamilies { first, last })
        } else if first > last {
            Err(RangeError::Reversed { first, last })
        } else {
            Ok(Self { first, last })
        }
    }

    /// The range of one address.
    pub fn single(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address, which belongs to the range.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of all its addresses.
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        IpFamily::of(address) == self.family() && self.first <= address && address <= self.last
    }

    /// The addresses that both ranges have, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.family() != other.family() {
            return None;
        }
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// How many addresses there are; saturates for the whole IPv6 space.
    pub fn count(&self) -> u128 {
        (to_bits(self.last) - to_bits(self.first)).saturating_add(1)
    }

    /// The addresses in order, computed as they are asked for.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let last = self.last;
        std::iter::successors(Some(self.first), move |&address| {
            (address < last).then(|| successor(address)).flatten()
        })
    }
}

/// The address after `address`; none after the last of its family.
pub fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl From<IpNet> for AddressRange {
    fn from(network: IpNet) -> Self {
        let last = match network {
            IpNet::V4(network) => IpAddr::V4(network.broadcast()),
            IpNet::V6(network) => IpAddr::V6(network.broadcast()),
        };
        Self {
            first: network.network(),
            last,
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_a_range = || RangeError::NotARange(crate::excerpt::excerpt(text));
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| not_a_range());
        if let Some((first, last)) = text.split_once('-') {
            return Self::new(address(first)?, address(last)?);
        }
        if !text.contains('/') {
            return address(text).map(Self::single);
        }
        let network: IpNet = text.trim().parse().map_err(|_| not_a_range())?;
        if network.prefix_len() == 0 {
            return Err(RangeError::Everything(network));
        }
        if network.addr() != network.network() {
            return Err(RangeError::HostBits {
                found: network,
                network: network.trunc(),
                address: network.addr(),
            });
        }
        Ok(network.into())
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, &str), &str>) {
        let found = text
            .parse::<AddressRange>()
            .map(|range| (range.first().to_string(), range.last().to_string()))
            .map_err(|error| error.to_string());
        let expected = expected
            .map(|(first, last)| (first.to_owned(), last.to_owned()))
            .map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[test]
    fn reads_ranges_prefixes_and_single_addresses() {
        check("192.0.2.7-192.0.2.9", Ok(("192.0.2.7", "192.0.2.9")));
        check("192.0.2.7 - 192.0.2.9", Ok(("192.0.2.7", "192.0.2.9")));
        check("192.0.2.0/28", Ok(("192.0.2.0", "192.0.2.15")));
        check("192.0.2.1/32", Ok(("192.0.2.1", "192.0.2.1")));
        check("192.0.2.4", Ok(("192.0.2.4", "192.0.2.4")));
        check("2001:db8::/127", Ok(("2001:db8::", "2001:db8::1")));
    }

    #[test]
    fn says_what_to_write_instead() {
        check(
            "192.0.2.9-192.0.2.7",
            Err("192.0.2.9-192.0.2.7 runs backwards: swap the two addresses"),
        );
        check(
            "192.0.2.9-2001:db8::1",
            Err("192.0.2.9-2001:db8::1 mixes IPv4 and IPv6: write one range for each family"),
        );
        check(
            "192.0.2.5/28",
            Err(
                "192.0.2.5/28 is inside the prefix 192.0.2.0/28: write 192.0.2.0/28 for all of it, or 192.0.2.5 for the one address",
            ),
        );
        check(
            "0.0.0.0/0",
            Err(
                "0.0.0.0/0 is every address there is: write the part of your network that Services may use",
            ),
        );
        check(
            "lan",
            Err(
                "\"lan\" is not a range of addresses: write a range (192.0.2.10-192.0.2.20), a prefix (192.0.2.0/28) or one address",
            ),
        );
    }

    #[test]
    fn counts_without_enumerating() {
        let count = |text: &str| text.parse::<AddressRange>().unwrap().count();
        assert_eq!(count("192.0.2.1"), 1);
        assert_eq!(count("10.0.0.0/8"), 1 << 24);
        assert_eq!(count("2001:db8::/64"), 1 << 64);
    }

    #[test]
    fn lists_up_to_the_very_last_address() {
        let range: AddressRange = "255.255.255.254-255.255.255.255".parse().unwrap();
        let listed: Vec<_> = range.addresses().map(|ip| ip.to_string()).collect();
        assert_eq!(listed, ["255.255.255.254", "255.255.255.255"]);
    }

    #[test]
    fn intersects_only_within_a_family() {
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        for (a, b, expected) in [
            (
                "192.0.2.0/24",
                "192.0.2.200-192.0.3.5",
                Some("192.0.2.200-192.0.2.255"),
            ),
            ("192.0.2.0/24", "192.0.3.0/24", None),
            ("192.0.2.0/24", "2001:db8::/64", None),
        ] {
            assert_eq!(
                range(a).intersection(&range(b)).map(|r| r.to_string()),
                expected.map(str::to_owned)
            );
        }
    }
}
