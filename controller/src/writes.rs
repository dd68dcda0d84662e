//! Which Service is written next, as a machine with the time as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use config::name::ServiceKey;

/// Orders writes: each Service has at most one on its way, a bounded number are on their way in all, and one that
/// failed waits longer and longer without holding up the others.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    queue: BTreeSet<(Instant, ServiceKey)>,
    due: BTreeMap<ServiceKey, Instant>,
    /// Those on their way, and whether they must be looked at again afterwards.
    in_flight: BTreeMap<ServiceKey, bool>,
    failures: BTreeMap<ServiceKey, u32>,
}

/// How many writes may be on their way.
pub const MOST_IN_FLIGHT: usize = 32;
/// How long a Service waits after its first failure.
const SHORTEST_DELAY: Duration = Duration::from_millis(200);
/// How long a Service waits at most.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

impl Writes {
    /// What a Service should say may be different from what it says: look at it at once.
    pub fn request(&mut self, service: &ServiceKey, now: Instant) {
        if let Some(again) = self.in_flight.get_mut(service) {
            *again = true;
        } else {
            self.schedule(service, now);
        }
    }

    /// Look at a Service later.
    pub fn request_at(&mut self, service: &ServiceKey, at: Instant) {
        if !self.in_flight.contains_key(service) && !self.due.contains_key(service) {
            self.schedule(service, at);
        }
    }

    /// The next Service to write, if one is due and there is room; answer with [`Self::handle_done`] or
    /// [`Self::handle_failed`].
    pub fn poll_write(&mut self, now: Instant) -> Option<ServiceKey> {
        if self.in_flight.len() >= MOST_IN_FLIGHT {
            return None;
        }
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }
        let (_, service) = self.queue.pop_first()?;
        self.due.remove(&service);
        self.in_flight.insert(service.clone(), false);
        Some(service)
    }

    /// When to call [`Self::poll_write`] next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_room = self.in_flight.len() < MOST_IN_FLIGHT;
        self.queue.first().filter(|_| has_room).map(|&(at, _)| at)
    }

    /// The write is done, or there was nothing to write.
    pub fn handle_done(&mut self, service: &ServiceKey, now: Instant) {
        self.failures.remove(service);
        if self.in_flight.remove(service) == Some(true) {
            self.schedule(service, now);
        }
    }

    /// The write failed; `jitter` from 0 to 1 is chosen at random. Returns how often in a row.
    pub fn handle_failed(&mut self, service: &ServiceKey, now: Instant, jitter: f64) -> u32 {
        let failures = self.failures.entry(service.clone()).or_default();
        *failures = failures.saturating_add(1);
        let doubled = SHORTEST_DELAY.saturating_mul(1 << (*failures - 1).min(16));
        let delay = doubled
            .min(LONGEST_DELAY)
            .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let failures = *failures;
        self.in_flight.remove(service);
        self.schedule(service, now + delay);
        failures
    }

    /// The Service is gone.
    pub fn forget(&mut self, service: &ServiceKey) {
        if let Some(at) = self.due.remove(service) {
            self.queue.remove(&(at, service.clone()));
        }
        self.failures.remove(service);
        if let Some(again) = self.in_flight.get_mut(service) {
            *again = false;
        }
    }

    /// How many Services wait to be written or are being written.
    pub fn pending(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn schedule(&mut self, service: &ServiceKey, at: Instant) {
        if let Some(before) = self.due.insert(service.clone(), at) {
            self.queue.remove(&(before, service.clone()));
        }
        self.queue.insert((at, service.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("shop", name)
    }

    #[test]
    fn one_write_for_each_service_and_news_meanwhile_is_written_after() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.request(&key("a"), now);
        writes.request(&key("a"), now);
        assert_eq!(writes.poll_write(now), Some(key("a")));
        assert_eq!(writes.poll_write(now), None);
        writes.request(&key("a"), now);
        assert_eq!(writes.poll_write(now), None, "still on its way");
        writes.handle_done(&key("a"), now);
        assert_eq!(writes.poll_write(now), Some(key("a")));
        writes.handle_done(&key("a"), now);
        assert_eq!((writes.poll_write(now), writes.pending()), (None, 0));
    }

    #[test]
    fn a_failure_waits_and_holds_up_nobody() {
        let (mut writes, mut now) = (Writes::default(), Instant::now());
        writes.request(&key("bad"), now);
        let mut delays = Vec::new();
        for _ in 0..12 {
            assert_eq!(writes.poll_write(now), Some(key("bad")));
            writes.handle_failed(&key("bad"), now, 1.0);
            writes.request(&key("good"), now);
            assert_eq!(writes.poll_write(now), Some(key("good")));
            writes.handle_done(&key("good"), now);
            let next = writes.poll_timeout().unwrap();
            assert_eq!(writes.poll_write(now), None);
            delays.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(delays[..4], [200, 400, 800, 1600]);
        assert_eq!(delays[11], 60_000);
    }

    #[test]
    fn a_bounded_number_are_on_their_way() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        for number in 0..100 {
            writes.request(&key(&number.to_string()), now);
        }
        let polled = std::iter::from_fn(|| writes.poll_write(now)).count();
        assert_eq!((polled, writes.poll_timeout()), (MOST_IN_FLIGHT, None));
        assert_eq!(writes.pending(), 100);
    }

    #[test]
    fn what_is_gone_is_not_written() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.request(&key("a"), now);
        writes.forget(&key("a"));
        assert_eq!(writes.poll_write(now), None);
    }
}
