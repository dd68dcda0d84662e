//! Endpoints that nobody is sent to any more, while their connections end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proxy_nftables::Key;
use proxy_table::Endpoint;

/// When to look how many connections are left, and which endpoints have none.
///
/// A machine without IO: the time is an argument.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Draining {
    /// When each server with such endpoints is looked at next, and how often it was.
    servers: BTreeMap<Key, (Instant, u32)>,
}

impl Draining {
    /// Takes in what the kernel holds now: which endpoints wait, and where none does any more.
    pub fn handle_drained(&mut self, drained: impl IntoIterator<Item = Key>, now: Instant) {
        let mut before = std::mem::take(&mut self.servers);
        for key in drained {
            let entry = before.remove(&key);
            let fresh = (now + FIRST_LOOK, 0);
            self.servers.entry(key).or_insert(entry.unwrap_or(fresh));
        }
    }

    /// An endpoint of this server waits since `now`.
    pub fn handle_begun(&mut self, key: Key, now: Instant) {
        self.servers.insert(key, (now + FIRST_LOOK, 0));
    }

    /// When to look next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.servers.values().map(|(when, _)| *when).min()
    }

    /// The servers to look at now, at most 200 at once.
    pub fn poll_look(&self, now: Instant) -> Vec<Key> {
        let due = self.servers.iter().filter(|(_, (when, _))| *when <= now);
        due.map(|(key, _)| *key).take(MOST_LOOKS).collect()
    }

    /// What was seen of a server: its endpoints that wait, each with its connections. Those that may go.
    pub fn handle_seen(
        &mut self,
        key: Key,
        seen: &[(Endpoint, u32)],
        now: Instant,
    ) -> Vec<Endpoint> {
        let ended = seen.iter().filter(|(_, connections)| *connections == 0);
        let ended: Vec<Endpoint> = ended.map(|(endpoint, _)| *endpoint).collect();
        if ended.len() == seen.len() {
            self.servers.remove(&key);
        } else if let Some((when, looks)) = self.servers.get_mut(&key) {
            *looks = looks.saturating_add(1);
            *when = now
                + FIRST_LOOK
                    .saturating_mul(1 << (*looks).min(10))
                    .min(LONGEST_WAIT);
        }
        ended
    }
}

/// Connections that end in an orderly way are remembered for two minutes, so nobody hurries.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How many servers are looked at together: a question costs some ten microseconds.
const MOST_LOOKS: usize = 200;

#[cfg(test)]
mod tests {
    use config::service::Protocol;

    use super::*;

    fn key(port: u16) -> Key {
        Key {
            address: "192.0.2.7".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: port.try_into().unwrap(),
        }
    }

    fn endpoint(number: u8) -> Endpoint {
        Endpoint {
            address: [10, 244, 1, number].into(),
            port: 8080.try_into().unwrap(),
        }
    }

    #[test]
    fn looks_soon_and_then_more_seldom_until_all_connections_have_ended() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut draining = Draining::default();
        assert_eq!(draining.poll_timeout(), None);
        draining.handle_begun(key(80), start);
        assert_eq!(draining.poll_timeout(), Some(after(2)));
        assert_eq!(draining.poll_look(after(1)), []);
        let mut now = 2;
        for next in [6, 14, 30, 62, 122, 182] {
            assert_eq!(draining.poll_look(after(now)), [key(80)]);
            let seen = [(endpoint(1), 1), (endpoint(2), 0)];
            let ended = draining.handle_seen(key(80), &seen, after(now));
            assert_eq!(ended, [endpoint(2)]);
            assert_eq!(draining.poll_timeout(), Some(after(next)));
            now = next;
        }
        let ended = draining.handle_seen(key(80), &[(endpoint(1), 0)], after(now));
        assert_eq!(ended, [endpoint(1)]);
        assert_eq!(draining.poll_timeout(), None);
    }

    #[test]
    fn what_the_kernel_holds_counts() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut draining = Draining::default();
        draining.handle_begun(key(80), start);
        draining.handle_begun(key(81), start);
        draining.handle_drained([key(81), key(82), key(82)], start + FIRST_LOOK);
        assert_eq!(draining.poll_timeout(), Some(start + FIRST_LOOK));
        assert_eq!(draining.poll_look(later), [key(81), key(82)]);
    }
}
