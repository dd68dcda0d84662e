//! Recognises that somebody else keeps writing the status that we write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use config::name::ServiceKey;

/// How often our statuses were overwritten, with the time as an argument.
#[derive(Clone, Debug, Default)]
pub struct Contention {
    contests: BTreeMap<ServiceKey, Contest>,
}

#[derive(Clone, Debug)]
struct Contest {
    overwrites: u32,
    last: Instant,
    yields_until: Option<Instant>,
}

/// What to do about an overwritten status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Write it again.
    WriteAgain,
    /// Leave it as it is until then; this is the first time that it was decided.
    YieldFirst(Instant),
    /// Leave it as it is until then.
    Yield(Instant),
}

/// After so many overwrites in a row it is a contest.
const MOST_OVERWRITES: u32 = 5;
/// Overwrites further apart than this have nothing to do with each other.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// How long a contested status is left as it is.
const TRUCE: Duration = Duration::from_secs(10 * 60);

impl Contention {
    /// Somebody overwrote the status of a Service that said what we decided.
    pub fn handle_overwritten(&mut self, service: &ServiceKey, now: Instant) -> Verdict {
        let contest = self.contests.entry(service.clone()).or_insert(Contest {
            overwrites: 0,
            last: now,
            yields_until: None,
        });
        if let Some(until) = contest.yields_until.filter(|&until| now < until) {
            return Verdict::Yield(until);
        }
        if contest.yields_until.take().is_some() || now > contest.last + MEMORY {
            contest.overwrites = 0;
        }
        contest.last = now;
        contest.overwrites += 1;
        if contest.overwrites < MOST_OVERWRITES {
            return Verdict::WriteAgain;
        }
        let until = now + TRUCE;
        contest.yields_until = Some(until);
        Verdict::YieldFirst(until)
    }

    /// Until when the status of a Service is left as it is, if it is.
    pub fn yields_until(&self, service: &ServiceKey, now: Instant) -> Option<Instant> {
        let until = self.contests.get(service)?.yields_until;
        until.filter(|&until| now < until)
    }

    /// The Service is gone.
    pub fn forget(&mut self, service: &ServiceKey) {
        self.contests.remove(service);
    }

    /// How many statuses are left as they are.
    pub fn count(&self, now: Instant) -> usize {
        let contests = self.contests.values();
        contests
            .filter(|contest| contest.yields_until.is_some_and(|until| now < until))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_after_five_overwrites_and_tries_again_after_a_truce() {
        let (mut contention, start) = (Contention::default(), Instant::now());
        let service = ServiceKey::new("shop", "web");
        let mut now = start;
        for _ in 0..4 {
            assert_eq!(
                contention.handle_overwritten(&service, now),
                Verdict::WriteAgain
            );
            now += Duration::from_secs(1);
        }
        let until = now + TRUCE;
        assert_eq!(
            contention.handle_overwritten(&service, now),
            Verdict::YieldFirst(until)
        );
        now += Duration::from_secs(1);
        assert_eq!(
            contention.handle_overwritten(&service, now),
            Verdict::Yield(until)
        );
        assert_eq!(contention.yields_until(&service, now), Some(until));
        assert_eq!(
            contention.handle_overwritten(&service, until),
            Verdict::WriteAgain
        );
        assert_eq!(contention.yields_until(&service, until), None);
    }

    #[test]
    fn rare_overwrites_are_no_contest() {
        let (mut contention, mut now) = (Contention::default(), Instant::now());
        let service = ServiceKey::new("shop", "web");
        for _ in 0..50 {
            assert_eq!(
                contention.handle_overwritten(&service, now),
                Verdict::WriteAgain
            );
            now += MEMORY + Duration::from_secs(1);
        }
    }
}
