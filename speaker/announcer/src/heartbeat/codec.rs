//! The octets of a heartbeat's body: big endian, fields in the order of [`Heartbeat`], lists after their length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use config::name::NodeName;

use super::key::{Keyring, OVERHEAD};
use super::rejection::Rejection;
use super::{
    Claim, Echo, Entries, Entry, Heartbeat, LONGEST, MOST_ECHOES, MOST_WANTED, NodeId, Unfit,
};
use crate::packet::MacAddr;

impl Heartbeat {
    /// The datagram to send.
    pub fn seal(&self, keys: &Keyring) -> Vec<u8> {
        keys.seal(&self.emit())
    }

    /// Reads a datagram of a holder of one of the keys.
    ///
    /// # Errors
    /// The reason why it is not heeded.
    pub fn open(octets: &[u8], keys: &Keyring) -> Result<Self, Rejection> {
        Self::parse(keys.open(octets)?).ok_or(Rejection::Malformed)
    }

    /// How many octets of entries the datagram has room for, whichever kind they are.
    pub fn room(&self) -> usize {
        LONGEST
            .saturating_sub(OVERHEAD)
            .saturating_sub(BOUNDS)
            .saturating_sub(self.emit().len())
    }

    fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.text(self.node.as_str());
        writer.u32(self.link);
        writer.0.extend(self.mac.octets());
        writer.u64(self.incarnation);
        writer.u64(self.sequence);
        writer.u16(u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX));
        writer.u8(unfit_to_octet(self.unfit));
        writer.u64(self.version);
        writer.u64(self.digest);
        writer.u8(u8::from(self.echoes_complete));
        writer.list(&self.echoes, |writer, echo| {
            writer.u32(echo.node.0);
            writer.u32(echo.sequence);
            writer.u8(u8::from(echo.heard));
        });
        writer.list(&self.wanted, |writer, node| writer.u32(node.0));
        let entries = match &self.entries {
            Entries::Changes(entries) => {
                writer.u8(CHANGES);
                entries
            }
            Entries::Range {
                first,
                last,
                entries,
            } => {
                writer.u8(RANGE);
                writer.address(*first);
                writer.address(*last);
                entries
            }
        };
        writer.list(entries, |writer, entry| writer.entry(entry));
        writer.0
    }

    fn parse(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let heartbeat = Self {
            node: NodeName::new(reader.text()?),
            link: reader.u32()?,
            mac: MacAddr::from(reader.array::<6>()?),
            incarnation: reader.u64()?,
            sequence: reader.u64()?,
            interval: Duration::from_millis(reader.u16().filter(|&interval| interval > 0)?.into()),
            unfit: octet_to_unfit(reader.u8()?)?,
            version: reader.u64()?,
            digest: reader.u64()?,
            echoes_complete: reader.flag()?,
            echoes: reader.list(MOST_ECHOES, |reader| {
                Some(Echo {
                    node: NodeId(reader.u32()?),
                    sequence: reader.u32()?,
                    heard: reader.flag()?,
                })
            })?,
            wanted: reader.list(MOST_WANTED, |reader| reader.u32().map(NodeId))?,
            entries: match reader.u8()? {
                CHANGES => Entries::Changes(reader.list(LONGEST, Reader::entry)?),
                RANGE => Entries::Range {
                    first: reader.address()?,
                    last: reader.address()?,
                    entries: reader.list(LONGEST, Reader::entry)?,
                },
                _ => return None,
            },
        };
        reader.0.is_empty().then_some(heartbeat)
    }
}

impl Entry {
    /// How many octets it takes in a datagram.
    pub fn octet_count(&self) -> usize {
        let address = match self.vip {
            IpAddr::V4(_) => 1 + 4,
            IpAddr::V6(_) => 1 + 16,
        };
        address
            + 1
            + if self.claim.and_then(Claim::epoch).is_some() {
                4
            } else {
                0
            }
    }

    /// Its octets in a datagram, which also make up the digest of a table.
    pub fn octets(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.entry(self);
        writer.0
    }
}

fn unfit_to_octet(unfit: Option<Unfit>) -> u8 {
    match unfit {
        None => 0,
        Some(Unfit::Starting) => 1,
        Some(Unfit::ProxyUnhealthy) => 2,
        Some(Unfit::Draining) => 3,
        Some(Unfit::ShuttingDown) => 4,
    }
}

fn octet_to_unfit(octet: u8) -> Option<Option<Unfit>> {
    Some(match octet {
        0 => None,
        1 => Some(Unfit::Starting),
        2 => Some(Unfit::ProxyUnhealthy),
        3 => Some(Unfit::Draining),
        4 => Some(Unfit::ShuttingDown),
        _ => return None,
    })
}

/// The first and the last address of a range, which changes do not have.
const BOUNDS: usize = 2 * (1 + 16);

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A text of at most 253 octets, which is the longest name of a Node.
    fn text(&mut self, text: &str) {
        let text = text.as_bytes();
        let text = text.get(..LONGEST_NAME).unwrap_or(text);
        self.u8(u8::try_from(text.len()).unwrap_or_default());
        self.0.extend(text);
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.u8(4);
                self.0.extend(address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.0.extend(address.octets());
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.address(entry.vip);
        self.u8(match entry.claim {
            None => 0,
            Some(Claim::Offered) => 1,
            Some(Claim::Claiming) => 2,
            Some(Claim::Owned { .. }) => 3,
            Some(Claim::Leaving { .. }) => 4,
            Some(Claim::Quarantined) => 5,
        });
        if let Some(epoch) = entry.claim.and_then(Claim::epoch) {
            self.u32(epoch);
        }
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.u16(u16::try_from(items.len()).unwrap_or_default());
        for item in items {
            write(self, item);
        }
    }
}

struct Reader<'octets>(&'octets [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[value]| value)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&str> {
        let length = usize::from(self.u8()?);
        if length == 0 || length > LONGEST_NAME {
            return None;
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.u8()? {
            4 => self
                .array::<4>()
                .map(|octets| Ipv4Addr::from(octets).into()),
            6 => self
                .array::<16>()
                .map(|octets| Ipv6Addr::from(octets).into()),
            _ => None,
        }
    }

    fn entry(&mut self) -> Option<Entry> {
        let vip = self.address()?;
        let claim = match self.u8()? {
            0 => None,
            1 => Some(Claim::Offered),
            2 => Some(Claim::Claiming),
            3 => Some(Claim::Owned { epoch: self.u32()? }),
            4 => Some(Claim::Leaving { epoch: self.u32()? }),
            5 => Some(Claim::Quarantined),
            _ => return None,
        };
        Some(Entry { vip, claim })
    }

    fn list<T>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = usize::from(self.u16()?);
        if length > most {
            return None;
        }
        (0..length).map(|_| read(self)).collect()
    }
}

const CHANGES: u8 = 0;
const RANGE: u8 = 1;
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::Key;
    use super::*;
    use crate::table::OwnTable;

    fn keys() -> Keyring {
        Keyring::new(Key::new(&[7; 32]).unwrap(), None)
    }

    fn example() -> Heartbeat {
        Heartbeat {
            node: "a".into(),
            link: 2,
            mac: MacAddr::new(2, 0, 0, 0, 0, 1),
            incarnation: 3,
            sequence: 4,
            interval: Duration::from_millis(50),
            unfit: Some(Unfit::Draining),
            version: 5,
            digest: 6,
            echoes: vec![Echo {
                node: NodeId(7),
                sequence: 8,
                heard: true,
            }],
            echoes_complete: true,
            wanted: vec![NodeId(9)],
            entries: Entries::Changes(vec![Entry {
                vip: "192.0.2.1".parse().unwrap(),
                claim: Some(Claim::Leaving { epoch: 10 }),
            }]),
        }
    }

    #[test]
    fn the_octets_are_those_of_version_1() {
        let octets = b"\x01a\0\0\0\x02\x02\0\0\0\0\x01\
            \0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\x32\x03\
            \0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\
            \x01\0\x01\0\0\0\x07\0\0\0\x08\x01\
            \0\x01\0\0\0\x09\
            \0\0\x01\x04\xc0\0\x02\x01\x04\0\0\0\x0a";
        assert_eq!(example().emit(), octets);
        assert_eq!(Heartbeat::parse(octets), Some(example()));
    }

    #[test]
    fn every_shorter_or_longer_body_is_malformed() {
        let octets = example().emit();
        for length in 0..octets.len() {
            assert_eq!(Heartbeat::parse(&octets[..length]), None, "{length} octets");
        }
        assert_eq!(Heartbeat::parse(&[&octets[..], &[0]].concat()), None);
        let sealed = keys().seal(&octets[..9]);
        assert_eq!(Heartbeat::open(&sealed, &keys()), Err(Rejection::Malformed));
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let claim = prop_oneof![
            Just(None),
            Just(Some(Claim::Offered)),
            Just(Some(Claim::Claiming)),
            Just(Some(Claim::Quarantined)),
            any::<u32>().prop_map(|epoch| Some(Claim::Owned { epoch })),
            any::<u32>().prop_map(|epoch| Some(Claim::Leaving { epoch })),
        ];
        (any::<IpAddr>(), claim).prop_map(|(vip, claim)| Entry { vip, claim })
    }

    fn any_entries() -> impl Strategy<Value = Entries> {
        let list = || prop::collection::vec(any_entry(), 0..12);
        prop_oneof![
            list().prop_map(Entries::Changes),
            (any::<IpAddr>(), any::<IpAddr>(), list()).prop_map(|(first, last, entries)| {
                Entries::Range {
                    first,
                    last,
                    entries,
                }
            }),
        ]
    }

    prop_compose! {
        fn any_heartbeat()(node in "[a-z0-9.-]{1,253}", link in any::<u32>(), mac in any::<[u8; 6]>(),
            numbers in any::<[u64; 4]>(), interval in 1..=u16::MAX, unfit in 0..=4_u8,
            echoes in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..=MOST_ECHOES),
            wanted in prop::collection::vec(any::<u32>(), 0..=MOST_WANTED), entries in any_entries()) -> Heartbeat {
            let [incarnation, sequence, version, digest] = numbers;
            Heartbeat {
                node: NodeName::new(node),
                link,
                mac: MacAddr::from(mac),
                incarnation,
                sequence,
                interval: Duration::from_millis(interval.into()),
                unfit: octet_to_unfit(unfit).unwrap(),
                version,
                digest,
                echoes_complete: echoes.len() % 2 == 0,
                echoes: echoes.into_iter().map(|(node, sequence, heard)| Echo { node: NodeId(node), sequence, heard }).collect(),
                wanted: wanted.into_iter().map(NodeId).collect(),
                entries,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(heartbeat in any_heartbeat()) {
            let sealed = heartbeat.seal(&keys());
            if sealed.len() <= LONGEST {
                prop_assert_eq!(Heartbeat::open(&sealed, &keys()), Ok(heartbeat));
            } else {
                prop_assert_eq!(Heartbeat::open(&sealed, &keys()), Err(Rejection::Length));
            }
        }

        #[test]
        fn entries_have_the_length_they_say(entry in any_entry()) {
            prop_assert_eq!(entry.octets().len(), entry.octet_count());
        }

        #[test]
        fn the_longest_name_with_all_echoes_leaves_room_for_entries(mut heartbeat in any_heartbeat()) {
            heartbeat.entries = Entries::Changes(vec![]);
            prop_assert!(heartbeat.room() >= 4 * 22, "{}", heartbeat.room());
        }

        #[test]
        fn whatever_a_round_has_fits(
            mut template in any_heartbeat(),
            claims in prop::collection::vec((any::<[u8; 2]>(), any::<bool>(), any::<bool>()), 0..400),
        ) {
            let mut own = OwnTable::default();
            for ([high, low], v6, owned) in claims {
                let vip: IpAddr = if v6 {
                    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, high.into(), low.into()).into()
                } else {
                    Ipv4Addr::new(192, 0, high, low).into()
                };
                own.set(vip, Some(if owned { Claim::Owned { epoch: 1 } } else { Claim::Offered }));
            }
            own.tell_whole();
            template.entries = Entries::Changes(vec![]);
            while own.has_more() {
                for entries in own.round(template.room(), 8) {
                    template.entries = entries;
                    prop_assert!(template.seal(&keys()).len() <= LONGEST, "{:?}", template.entries);
                }
                template.entries = Entries::Changes(vec![]);
            }
        }

        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Heartbeat::parse(&octets);
            let _ = Heartbeat::open(&octets, &keys());
            let _ = Heartbeat::open(&keys().seal(&octets), &keys());
        }

        #[test]
        fn no_damage_makes_it_panic(heartbeat in any_heartbeat(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
            let mut octets = heartbeat.emit();
            let at = at.index(octets.len());
            octets[at] = octet;
            let _ = Heartbeat::parse(&octets);
        }
    }
}
