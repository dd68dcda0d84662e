//! The tables of VIPs that speakers keep and tell each other of.
//!
//! Each speaker has one table of its own and a copy of each peer's. A heartbeat names the version and the digest of the
//! sender's table; the digest is the exclusive or of the first eight octets of the SHA-256 of each entry, so that it
//! follows a change without a look at the other entries. (Heartbeats are authenticated: nobody can aim at a collision.)

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

use crate::candidates::first_octets;
use crate::heartbeat::{Claim, Entries, Entry};

/// This speaker's own table, and what of it is still to be told.
#[derive(Debug, Default)]
pub struct OwnTable {
    claims: BTreeMap<IpAddr, Claim>,
    version: u64,
    digest: u64,
    /// Changed entries, and in how many more heartbeats they are told.
    recent: BTreeMap<IpAddr, u8>,
    /// Where to go on with telling the whole table.
    whole: Option<IpAddr>,
}

impl OwnTable {
    /// Counts the changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The digest of all entries.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// What this speaker does about `vip`.
    pub fn claim(&self, vip: IpAddr) -> Option<Claim> {
        self.claims.get(&vip).copied()
    }

    /// Sets what this speaker does about `vip`; says whether that is a change.
    pub fn set(&mut self, vip: IpAddr, claim: Option<Claim>) -> bool {
        let before = match claim {
            Some(claim) => self.claims.insert(vip, claim),
            None => self.claims.remove(&vip),
        };
        if before == claim {
            return false;
        }
        self.digest ^= octets_of(vip, before) ^ octets_of(vip, claim);
        self.version += 1;
        self.recent.insert(vip, REPEATS);
        true
    }

    /// Tells the whole table from now on, from its start.
    pub fn tell_whole(&mut self) {
        self.whole = Some(FIRST);
    }

    /// Whether there is something that no heartbeat has told yet, or the rest of the whole table.
    pub fn has_more(&self) -> bool {
        self.telling_whole() || self.recent.values().any(|&repeats| repeats == REPEATS)
    }

    /// In how many rounds the whole table is told, about: one at least.
    pub fn rounds_of_whole(&self) -> u32 {
        let rounds = self.claims.len() / ENTRIES_IN_A_ROUND;
        u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Whether the whole table is still being told.
    pub fn telling_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// The entries for one round of heartbeats, in at most `most` parts (at least one of changes and, if the whole table is
    /// being told, one of that) of at most `room` octets.
    pub fn round(&mut self, room: usize, most: usize) -> Vec<Entries> {
        let mut parts = self.changes(room, most);
        while let Some(first) = self.whole {
            parts.push(self.range(first, room));
            if parts.len() >= most {
                break;
            }
        }
        if parts.is_empty() {
            parts.push(Entries::Changes(Vec::new()));
        }
        parts
    }

    /// Changed entries in at most `most` parts, but one.
    fn changes(&mut self, room: usize, most: usize) -> Vec<Entries> {
        let mut parts = Vec::new();
        let mut changes = Vec::new();
        let mut left = room;
        for vip in self.fresh_first() {
            let entry = Entry {
                vip,
                claim: self.claims.get(&vip).copied(),
            };
            if entry.octet_count() > left {
                if parts.len() + 1 >= most {
                    break;
                }
                parts.push(Entries::Changes(std::mem::take(&mut changes)));
                left = room;
            }
            left = left.saturating_sub(entry.octet_count());
            changes.push(entry);
            match self.recent.get_mut(&vip) {
                Some(repeats) if *repeats > 1 => *repeats -= 1,
                _ => drop(self.recent.remove(&vip)),
            }
        }
        if !changes.is_empty() {
            parts.push(Entries::Changes(changes));
        }
        parts
    }

    /// The changed entries: what was told the fewest times comes first, so that nothing waits for repetitions.
    fn fresh_first(&self) -> Vec<IpAddr> {
        let mut vips: Vec<_> = self.recent.keys().copied().collect();
        vips.sort_by_key(|vip| std::cmp::Reverse(self.recent.get(vip).copied()));
        vips
    }

    /// The part of the table from `first` on that fits, and moves on to the next.
    fn range(&mut self, first: IpAddr, room: usize) -> Entries {
        let mut left = room;
        let mut entries = Vec::new();
        let mut last = LAST;
        self.whole = None;
        for (&vip, &claim) in self.claims.range(first..) {
            let entry = Entry {
                vip,
                claim: Some(claim),
            };
            if entry.octet_count() > left && !entries.is_empty() {
                last = predecessor(vip);
                self.whole = Some(vip);
                break;
            }
            left = left.saturating_sub(entry.octet_count());
            entries.push(entry);
        }
        Entries::Range {
            first,
            last,
            entries,
        }
    }
}

/// What a peer's table says of a VIP now, and said before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Changed {
    /// The VIP.
    pub vip: IpAddr,
    /// What the peer did about it.
    pub before: Option<Claim>,
    /// What it does now.
    pub after: Option<Claim>,
}

impl Changed {
    /// Whether the peer only came to stand for the VIP, or stands for it no more: nobody owned it by its word, or claimed it,
    /// or kept others from it.
    pub fn is_offer(&self) -> bool {
        let mut claims = self.before.iter().chain(&self.after);
        claims.all(|claim| *claim == Claim::Offered)
    }
}

/// What is known of a peer's table.
#[derive(Debug, Default)]
pub struct PeerTable {
    claims: BTreeMap<IpAddr, Claim>,
    version: u64,
    digest: u64,
}

impl PeerTable {
    /// What the peer does about `vip`.
    pub fn claim(&self, vip: IpAddr) -> Option<Claim> {
        self.claims.get(&vip).copied()
    }

    /// What would change if the peer were there no more.
    pub fn all_gone(&self) -> impl Iterator<Item = Changed> + '_ {
        self.claims.iter().map(|(&vip, &claim)| Changed {
            vip,
            before: Some(claim),
            after: None,
        })
    }

    /// Whether this copy equals the table that has this digest.
    pub fn is(&self, digest: u64) -> bool {
        self.digest == digest
    }

    /// Takes in a part of the peer's table as it is at `version`, and says what changed.
    ///
    /// Parts of older versions are left alone. A table that grows beyond [`MOST_ENTRIES`] is cut off there.
    pub fn apply(&mut self, version: u64, entries: &Entries) -> Vec<Changed> {
        if version < self.version {
            return Vec::new();
        }
        self.version = version;
        let mut changed = Vec::new();
        match entries {
            Entries::Changes(entries) => {
                for entry in entries {
                    self.set(entry.vip, entry.claim, &mut changed);
                }
            }
            Entries::Range {
                first,
                last,
                entries,
            } => {
                if first > last {
                    return changed;
                }
                let told: BTreeMap<_, _> = entries
                    .iter()
                    .filter(|entry| (*first..=*last).contains(&entry.vip))
                    .map(|entry| (entry.vip, entry.claim))
                    .collect();
                let gone: Vec<_> = self
                    .claims
                    .range(*first..=*last)
                    .map(|(&vip, _)| vip)
                    .filter(|vip| !told.contains_key(vip))
                    .collect();
                for vip in gone {
                    self.set(vip, None, &mut changed);
                }
                for (vip, claim) in told {
                    self.set(vip, claim, &mut changed);
                }
            }
        }
        changed
    }

    fn set(&mut self, vip: IpAddr, claim: Option<Claim>, changed: &mut Vec<Changed>) {
        let before = self.claims.get(&vip).copied();
        if before == claim || (before.is_none() && self.claims.len() >= MOST_ENTRIES) {
            return;
        }
        match claim {
            Some(claim) => self.claims.insert(vip, claim),
            None => self.claims.remove(&vip),
        };
        self.digest ^= octets_of(vip, before) ^ octets_of(vip, claim);
        changed.push(Changed {
            vip,
            before,
            after: claim,
        });
    }
}

/// What an entry adds to the digest; nothing if there is none.
fn octets_of(vip: IpAddr, claim: Option<Claim>) -> u64 {
    match claim {
        None => 0,
        Some(_) => first_octets(&Sha256::digest(Entry { vip, claim }.octets())),
    }
}

fn predecessor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().saturating_sub(1)).into(),
        IpAddr::V6(address) => match address.to_bits().checked_sub(1) {
            Some(bits) => Ipv6Addr::from_bits(bits).into(),
            None => Ipv4Addr::BROADCAST.into(),
        },
    }
}

/// The most entries of one peer's table that are remembered.
pub const MOST_ENTRIES: usize = 8192;
/// In how many heartbeats a change is told: all must be lost for a peer to have to ask.
const REPEATS: u8 = 3;
/// As many entries of both families as a few datagrams have room for.
const ENTRIES_IN_A_ROUND: usize = 128;
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LAST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vip(number: u32) -> IpAddr {
        if number.is_multiple_of(2) {
            Ipv4Addr::from_bits(0xc000_0200 + number).into()
        } else {
            Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(number)).into()
        }
    }

    fn any_claim() -> impl Strategy<Value = Option<Claim>> {
        prop_oneof![
            Just(None),
            Just(Some(Claim::Offered)),
            (0..3_u32).prop_map(|epoch| Some(Claim::Owned { epoch })),
        ]
    }

    proptest! {
        #[test]
        fn whoever_hears_every_round_knows_the_table(rounds in prop::collection::vec(prop::collection::vec((0..40_u32, any_claim()), 0..30), 1..6)) {
            let (mut own, mut copy) = (OwnTable::default(), PeerTable::default());
            for round in rounds {
                for (number, claim) in round {
                    own.set(vip(number), claim);
                }
                for part in own.round(100, 16) {
                    copy.apply(own.version(), &part);
                }
                prop_assert!(copy.is(own.digest()));
                prop_assert_eq!(&copy.claims, &own.claims);
            }
        }

        #[test]
        fn nothing_new_waits_for_repetitions(numbers in prop::collection::btree_set(0..400_u32, 1..300), most in 1..5_usize) {
            let mut own = OwnTable::default();
            for &number in &numbers {
                own.set(vip(number), Some(Claim::Offered));
            }
            let mut told = BTreeMap::new();
            while own.has_more() {
                for part in own.round(100, most) {
                    let Entries::Changes(entries) = part else { continue };
                    for entry in entries {
                        *told.entry(entry.vip).or_insert(0) += 1;
                    }
                }
                let all = told.len() == numbers.len();
                prop_assert!(all || told.values().all(|&times| times == 1), "told twice before others once: {:?}", told);
            }
            prop_assert_eq!(told.len(), numbers.len());
        }

        #[test]
        fn whoever_missed_everything_knows_the_table_after_it_was_told_whole(
            changes in prop::collection::vec((0..400_u32, any_claim()), 0..400),
            stale in prop::collection::vec((0..400_u32, any_claim()), 0..40),
            most in 1..4_usize,
        ) {
            let (mut own, mut copy) = (OwnTable::default(), PeerTable::default());
            let stale: Vec<_> = stale.iter().map(|&(number, claim)| Entry { vip: vip(number), claim }).collect();
            copy.apply(0, &Entries::Changes(stale));
            for (number, claim) in changes {
                own.set(vip(number), claim);
            }
            while !own.recent.is_empty() {
                own.round(1000, 16);
            }
            own.tell_whole();
            while own.telling_whole() {
                for part in own.round(100, most) {
                    copy.apply(own.version(), &part);
                }
            }
            prop_assert!(copy.is(own.digest()));
            prop_assert_eq!(&copy.claims, &own.claims);
        }

        #[test]
        fn no_part_is_longer_than_its_room(numbers in prop::collection::vec(0..400_u32, 0..200), most in 1..5_usize, room in 22..200_usize) {
            let mut own = OwnTable::default();
            for number in numbers {
                own.set(vip(number), Some(Claim::Offered));
            }
            own.tell_whole();
            for _ in 0..4 {
                let parts = own.round(room, most);
                prop_assert!(!parts.is_empty() && parts.len() <= most.max(1) + 1);
                for part in parts {
                    let (Entries::Changes(entries) | Entries::Range { entries, .. }) = part;
                    prop_assert!(entries.iter().map(Entry::octet_count).sum::<usize>() <= room);
                }
            }
        }
    }

    #[test]
    fn parts_of_older_versions_change_nothing() {
        let mut copy = PeerTable::default();
        let part = |claim| Entries::Changes(vec![Entry { vip: vip(0), claim }]);
        let changed = |before, after| Changed {
            vip: vip(0),
            before,
            after,
        };
        let offered = Some(Claim::Offered);
        assert_eq!(copy.apply(2, &part(offered)), [changed(None, offered)]);
        assert!(copy.apply(1, &part(None)).is_empty());
        assert!(copy.apply(2, &part(offered)).is_empty());
        assert_eq!(copy.apply(3, &part(None)), [changed(offered, None)]);
        assert!(copy.is(0));
    }

    #[test]
    fn a_table_has_an_end() {
        let mut copy = PeerTable::default();
        for number in 0..u32::try_from(MOST_ENTRIES + 100).unwrap() {
            let entry = Entry {
                vip: vip(number),
                claim: Some(Claim::Offered),
            };
            copy.apply(1, &Entries::Changes(vec![entry]));
        }
        assert_eq!(copy.claims.len(), MOST_ENTRIES);
    }
}
