//! Machines on the LAN that have addresses of pools, as the records of speakers say.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use config::crd::ServiceL2Status;
use controller_allocator::Stranger;

/// What records say, and what they said a while ago: when a Service gets another address, the record of the first one
/// goes, and with it the only word about the machine that has it.
#[derive(Debug, Default)]
pub struct Strangers {
    /// What each record says now, by namespace and name.
    said: BTreeMap<(String, String), IpAddr>,
    /// Until when an address counts as taken; nothing while a record says so.
    known: BTreeMap<IpAddr, (Stranger, Option<Instant>)>,
}

impl Strangers {
    /// Takes in a record as it is now; whether that changes anything.
    pub fn observe(&mut self, record: &ServiceL2Status, now: Instant) -> bool {
        let Some(key) = key(record) else { return false };
        let said = record.status.as_ref().and_then(|status| {
            let address: IpAddr = status.address.parse().ok()?;
            let conflict = status.conflict.as_ref()?;
            let stranger = Stranger {
                mac: conflict.mac.clone(),
                heard_by: conflict.heard_by.clone(),
            };
            Some((address, stranger))
        });
        let Some((address, stranger)) = said else {
            // The speaker says that the machine is gone, or that it announces the address.
            return self.forget(&key).is_some_and(|address| {
                let end = self.known.remove(&address);
                end.is_some()
            });
        };
        let moved = self
            .said
            .insert(key, address)
            .filter(|before| *before != address);
        if let Some(before) = moved {
            self.remember(before, now);
        }
        let before = self
            .known
            .insert(address, (stranger.clone(), None))
            .map(|(stranger, _)| stranger);
        before != Some(stranger)
    }

    /// A record is gone: what it said last counts for a while.
    pub fn remove(&mut self, record: &ServiceL2Status, now: Instant) {
        if let Some(address) = key(record).and_then(|key| self.forget(&key)) {
            self.remember(address, now);
        }
    }

    /// The list of all records was read: those not in it are gone.
    pub fn keep_only(&mut self, listed: &HashSet<(String, String)>, now: Instant) {
        let gone: Vec<_> = self
            .said
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(address) = self.forget(&key) {
                self.remember(address, now);
            }
        }
    }

    /// Time has come to `now`; whether an address is free again.
    pub fn advance(&mut self, now: Instant) -> bool {
        let before = self.known.len();
        self.known
            .retain(|_, (_, until)| until.is_none_or(|until| until > now));
        self.known.len() < before
    }

    /// When to call [`Self::advance`] next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.known.values().filter_map(|(_, until)| *until).min()
    }

    /// Who has which address.
    pub fn known(&self) -> BTreeMap<IpAddr, Stranger> {
        let known = self.known.iter();
        known
            .map(|(&address, (stranger, _))| (address, stranger.clone()))
            .collect()
    }

    /// The address about which the record said something, unless another record does.
    fn forget(&mut self, key: &(String, String)) -> Option<IpAddr> {
        let address = self.said.remove(key)?;
        let by_others = self.said.values().any(|said| *said == address);
        (!by_others).then_some(address)
    }

    fn remember(&mut self, address: IpAddr, now: Instant) {
        if let Some((_, until)) = self.known.get_mut(&address) {
            *until = Some(now + REMEMBERED);
        }
    }
}

/// The namespace and the name of a record.
pub fn key(record: &ServiceL2Status) -> Option<(String, String)> {
    let metadata = &record.metadata;
    Some((metadata.namespace.clone()?, metadata.name.clone()?))
}

/// How long an address counts as taken after the last word about it: nobody looks whether the machine is still there.
const REMEMBERED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use config::crd::{ConflictSpec, ServiceL2StatusSpec, ServiceL2StatusStatus};

    fn record(name: &str, address: &str, mac: Option<&str>) -> ServiceL2Status {
        let mut record = ServiceL2Status::new(name, ServiceL2StatusSpec {});
        record.metadata.namespace = Some("default".to_owned());
        record.status = Some(ServiceL2StatusStatus {
            address: address.to_owned(),
            conflict: mac.map(|mac| ConflictSpec {
                mac: mac.to_owned(),
                heard_by: "node-1".to_owned(),
            }),
            ..ServiceL2StatusStatus::default()
        });
        record
    }

    fn taken(strangers: &Strangers) -> Vec<String> {
        let known = strangers.known().into_iter();
        known
            .map(|(address, stranger)| format!("{address} {}", stranger.mac))
            .collect()
    }

    #[test]
    fn an_address_is_taken_while_a_record_says_so_and_ten_minutes_more() {
        let mut strangers = Strangers::default();
        let begin = Instant::now();
        let web = |mac| record("web.192.0.2.1", "192.0.2.1", mac);
        assert!(!strangers.observe(&web(None), begin));
        assert!(strangers.observe(&web(Some("02:bb")), begin));
        assert!(!strangers.observe(&web(Some("02:bb")), begin), "no news");
        assert_eq!(taken(&strangers), ["192.0.2.1 02:bb"]);
        assert_eq!(strangers.poll_timeout(), None, "as long as it is said");
        strangers.keep_only(&[key(&web(None)).unwrap()].into(), begin);
        assert_eq!(strangers.poll_timeout(), None, "it is listed");
        strangers.remove(&web(None), begin);
        assert!(!strangers.advance(begin + REMEMBERED / 2));
        assert_eq!(taken(&strangers), ["192.0.2.1 02:bb"]);
        assert_eq!(strangers.poll_timeout(), Some(begin + REMEMBERED));
        assert!(strangers.advance(begin + REMEMBERED));
        assert!(taken(&strangers).is_empty());
    }

    #[test]
    fn a_speaker_that_announces_it_has_seen_the_machine_go() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        strangers.observe(&record("a", "192.0.2.1", Some("02:bb")), now);
        strangers.observe(&record("b", "192.0.2.1", Some("02:bb")), now);
        assert!(!strangers.observe(&record("a", "192.0.2.1", None), now));
        assert_eq!(
            taken(&strangers),
            ["192.0.2.1 02:bb"],
            "the other one says so still"
        );
        assert!(strangers.observe(&record("b", "192.0.2.1", None), now));
        assert!(taken(&strangers).is_empty());
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        assert!(!strangers.observe(&record("a", "nonsense", Some("02:bb")), now));
        assert!(!strangers.observe(
            &ServiceL2Status::new("cluster-wide", ServiceL2StatusSpec {}),
            now
        ));
        assert!(taken(&strangers).is_empty());
    }
}
