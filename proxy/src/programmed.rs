//! Which addresses of load balancers the kernel forwards, for speakers: whole at first, then what changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use config::name::ServiceKey;
use config::service::Service;
use proxy_table::{FrontendKind, NodeContext, Place, ServiceTable, is_served};

/// The addresses of a Service that no node need hesitate to announce once `part` is in the kernel: those that have a
/// frontend there, and all of a Service that another proxy serves.
pub fn announceable(
    service: &Service,
    part: &ServiceTable,
    context: &NodeContext,
) -> BTreeSet<IpAddr> {
    if !is_served(service, context) {
        return service.vips().collect();
    }
    let frontends = part.frontends.iter();
    frontends
        .filter(|(_, frontend)| frontend.kind == FrontendKind::LoadBalancer)
        .filter_map(|(key, _)| match key.place {
            Place::Address(address) => Some(address),
            Place::Node(_) => None,
        })
        .collect()
}

/// Counts which addresses Services have, and gathers what became different until the kernel has it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    services: HashMap<ServiceKey, BTreeSet<IpAddr>>,
    count: BTreeMap<IpAddr, usize>,
    touched: BTreeSet<IpAddr>,
}

impl Tally {
    /// A Service has these addresses from now on.
    pub fn update(&mut self, key: &ServiceKey, addresses: BTreeSet<IpAddr>) {
        let before = self.services.remove(key).unwrap_or_default();
        for address in before.difference(&addresses) {
            self.touched.insert(*address);
            if let Some(count) = self.count.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.count.remove(address);
                }
            }
        }
        for address in addresses.difference(&before) {
            self.touched.insert(*address);
            *self.count.entry(*address).or_default() += 1;
        }
        if !addresses.is_empty() {
            self.services.insert(key.clone(), addresses);
        }
    }

    /// All Services are told anew: those that are not told again are gone.
    pub fn restart(&mut self) {
        self.touched.extend(self.count.keys());
        self.services.clear();
        self.count.clear();
    }

    /// These are told again.
    pub fn touch(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.touched.extend(addresses);
    }

    /// All that Services have are told again.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.count.keys());
    }

    /// What was touched since this was asked last, and whether some Service has it now.
    pub fn take_touched(&mut self) -> Vec<(IpAddr, bool)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .map(|address| (address, self.count.contains_key(&address)))
            .collect()
    }
}

/// The addresses that the kernel forwards, and their last changes.
///
/// Law: who takes the [`News`] since the last time, as often or rarely as they like, holds the same addresses.
#[derive(Clone, Debug, Default)]
pub struct Programmed {
    addresses: BTreeSet<IpAddr>,
    /// Each with whether it came; the last one has the number `position`.
    log: VecDeque<(IpAddr, bool)>,
    position: u64,
}

/// What somebody does not know yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// These are all.
    Whole(BTreeSet<IpAddr>),
    /// These came and those went since the last time.
    Changed {
        /// Forwarded now.
        added: BTreeSet<IpAddr>,
        /// Not forwarded any more.
        removed: BTreeSet<IpAddr>,
    },
}

impl Programmed {
    /// Each of these is forwarded now, or not; whether that is news.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = (IpAddr, bool)>) -> bool {
        let before = self.position;
        for (address, here) in changes {
            let is_news = if here {
                self.addresses.insert(address)
            } else {
                self.addresses.remove(&address)
            };
            if is_news {
                self.position += 1;
                self.log.push_back((address, here));
                if self.log.len() > LONGEST_LOG {
                    self.log.pop_front();
                }
            }
        }
        self.position != before
    }

    /// What somebody has to hear who knows what was at a position, or nothing yet; and the position then.
    pub fn since(&self, position: Option<u64>) -> (News, u64) {
        let missed = position
            .and_then(|position| self.position.checked_sub(position))
            .and_then(|missed| usize::try_from(missed).ok())
            .filter(|&missed| missed <= self.log.len());
        let news = match missed {
            None => News::Whole(self.addresses.clone()),
            Some(missed) => {
                let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
                for &(address, here) in self.log.range(self.log.len() - missed..) {
                    let (to, from) = if here {
                        (&mut added, &mut removed)
                    } else {
                        (&mut removed, &mut added)
                    };
                    from.remove(&address);
                    to.insert(address);
                }
                News::Changed { added, removed }
            }
        };
        (news, self.position)
    }
}

/// Changes that are remembered; who missed more is told everything.
const LONGEST_LOG: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn addresses(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().copied().map(address).collect()
    }

    #[test]
    fn an_address_is_there_as_long_as_one_service_has_it() {
        let mut tally = Tally::default();
        let (web, dns) = (
            ServiceKey::new("default", "web"),
            ServiceKey::new("default", "dns"),
        );
        tally.update(&web, addresses(&[1, 2]));
        tally.update(&dns, addresses(&[2]));
        assert_eq!(
            tally.take_touched(),
            [(address(1), true), (address(2), true)]
        );
        tally.update(&web, addresses(&[]));
        assert_eq!(
            tally.take_touched(),
            [(address(1), false), (address(2), true)]
        );
        assert_eq!(tally.take_touched(), []);
        tally.restart();
        tally.update(&web, addresses(&[1]));
        assert_eq!(
            tally.take_touched(),
            [(address(1), true), (address(2), false)]
        );
    }

    #[test]
    fn who_missed_too_much_is_told_everything() {
        let mut programmed = Programmed::default();
        programmed.apply([(address(1), true)]);
        let (_, position) = programmed.since(None);
        for _ in 0..LONGEST_LOG / 2 {
            programmed.apply([(address(2), true), (address(2), false)]);
        }
        assert!(matches!(
            programmed.since(Some(position)).0,
            News::Changed { .. }
        ));
        programmed.apply([(address(3), true)]);
        assert_eq!(
            programmed.since(Some(position)).0,
            News::Whole(addresses(&[1, 3]))
        );
    }

    proptest! {
        #[test]
        fn who_listens_now_and_then_holds_the_same_addresses(
            rounds in prop::collection::vec((prop::collection::vec((0..6_u8, any::<bool>()), 0..5), any::<bool>()), 0..30),
        ) {
            let mut programmed = Programmed::default();
            let (mut held, mut position) = (BTreeSet::new(), None);
            for (changes, listens) in rounds {
                programmed.apply(changes.into_iter().map(|(number, here)| (address(number), here)));
                if !listens {
                    continue;
                }
                let (news, now) = programmed.since(position);
                match news {
                    News::Whole(all) => {
                        prop_assert_eq!(position, None);
                        held = all;
                    }
                    News::Changed { added, removed } => {
                        held.retain(|address| !removed.contains(address));
                        held.extend(added);
                    }
                }
                position = Some(now);
                prop_assert_eq!(&held, &programmed.addresses);
            }
        }
    }
}
