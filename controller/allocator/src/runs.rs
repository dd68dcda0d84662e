//! A set of addresses in which the next address that is *not* in it is found at once, however full it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::address::successor;

/// A set of addresses, kept as its maximal runs.
///
/// Invariant: no two runs overlap or touch, so the address after a run is in none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Runs {
    /// The last address of each run, by its first.
    last_by_first: BTreeMap<IpAddr, IpAddr>,
}

impl Runs {
    /// Puts an address in.
    pub(crate) fn insert(&mut self, address: IpAddr) {
        if self.run_of(address).is_some() {
            return;
        }
        let (mut first, mut last) = (address, address);
        if let Some((before, _)) = predecessor(address).and_then(|before| self.run_of(before)) {
            self.last_by_first.remove(&before);
            first = before;
        }
        let after = successor(address).and_then(|after| self.last_by_first.remove(&after));
        if let Some(after) = after {
            last = after;
        }
        self.last_by_first.insert(first, last);
    }

    /// Takes an address out.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        let Some((first, last)) = self.run_of(address) else {
            return;
        };
        self.last_by_first.remove(&first);
        if let Some(before) = predecessor(address).filter(|_| first < address) {
            self.last_by_first.insert(first, before);
        }
        if let Some(after) = successor(address).filter(|_| address < last) {
            self.last_by_first.insert(after, last);
        }
    }

    /// The first address that is not in the set, from `start` on; none if it is full to the end of the family.
    pub(crate) fn first_gap(&self, start: IpAddr) -> Option<IpAddr> {
        match self.run_of(start) {
            None => Some(start),
            Some((_, last)) => successor(last),
        }
    }

    fn run_of(&self, address: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (&first, &last) = self.last_by_first.range(..=address).next_back()?;
        (address <= last).then_some((first, last))
    }
}

/// The address before `address`; none before the first of its family.
fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits().checked_sub(1)?;
            Some(Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits().checked_sub(1)?;
            Some(Ipv6Addr::from_bits(bits).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Addresses at both ends of both families, where mistakes live.
    fn any_address() -> impl Strategy<Value = IpAddr> {
        (0_u8..6, any::<bool>(), any::<bool>()).prop_map(|(offset, v4, low)| match (v4, low) {
            (true, true) => Ipv4Addr::from_bits(u32::from(offset)).into(),
            (true, false) => Ipv4Addr::from_bits(u32::MAX - u32::from(offset)).into(),
            (false, true) => Ipv6Addr::from_bits(u128::from(offset)).into(),
            (false, false) => Ipv6Addr::from_bits(u128::MAX - u128::from(offset)).into(),
        })
    }

    fn gap_by_looking(set: &BTreeSet<IpAddr>, start: IpAddr) -> Option<IpAddr> {
        std::iter::successors(Some(start), |&address| successor(address))
            .find(|address| !set.contains(address))
    }

    proptest! {
        #[test]
        fn runs_are_the_set_and_its_gaps(
            steps in prop::collection::vec((any_address(), any::<bool>()), 0..60),
            start in any_address(),
        ) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (address, arrives) in steps {
                if arrives {
                    runs.insert(address);
                    set.insert(address);
                } else {
                    runs.remove(address);
                    set.remove(&address);
                }
                prop_assert_eq!(runs.first_gap(start), gap_by_looking(&set, start));
            }
            let mut fresh = Runs::default();
            set.into_iter().for_each(|address| fresh.insert(address));
            prop_assert_eq!(runs, fresh, "the runs are maximal, whatever the order");
        }
    }
}
