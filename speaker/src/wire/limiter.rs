//! A measure for what each machine on the LAN may ask.
//!
//! The filter in the kernel passes what is about our VIPs. Somebody who asks for them without end would keep the machine
//! from everything else; each hardware address has a measure of its own, so that nobody loses an answer to another one, and
//! all together have one, so that made-up addresses help nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use speaker_announcer::Time;

/// Admits frames while there is a measure for them.
#[derive(Clone, Debug)]
pub struct Limiter {
    all: Bucket,
    sources: BTreeMap<[u8; 6], Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    filled: Time,
}

impl Limiter {
    /// Full measures.
    pub fn new(now: Time) -> Self {
        Self {
            all: Bucket::new(ALL, now),
            sources: BTreeMap::new(),
        }
    }

    /// Whether a frame is to be looked at; one too short to have a source is not.
    pub fn admits(&mut self, frame: &[u8], now: Time) -> bool {
        let Some(source) = frame.get(6..).and_then(<[u8]>::first_chunk::<6>) else {
            return false;
        };
        if !self.sources.contains_key(source) && self.sources.len() >= MOST_SOURCES {
            // Whoever has been quiet for long enough to have a full measure again needs no memory.
            self.sources.retain(|_, bucket| !bucket.is_full(EACH, now));
            if self.sources.len() >= MOST_SOURCES {
                self.sources.clear();
            }
        }
        let bucket = self.sources.entry(*source);
        let bucket = bucket.or_insert_with(|| Bucket::new(EACH, now));
        bucket.take(EACH, now) && self.all.take(ALL, now)
    }
}

impl Bucket {
    fn new(measure: Measure, now: Time) -> Self {
        Self {
            left: measure.burst,
            filled: now,
        }
    }

    fn gained(&self, measure: Measure, now: Time) -> u32 {
        let milliseconds = now.since(self.filled).as_millis();
        u32::try_from(milliseconds)
            .unwrap_or(u32::MAX)
            .saturating_mul(measure.per_millisecond)
    }

    fn is_full(&self, measure: Measure, now: Time) -> bool {
        self.left.saturating_add(self.gained(measure, now)) >= measure.burst
    }

    fn take(&mut self, measure: Measure, now: Time) -> bool {
        let gained = self.gained(measure, now);
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(measure.burst);
            self.filled += Duration::from_millis(u64::from(gained / measure.per_millisecond));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Measure {
    burst: u32,
    per_millisecond: u32,
}

/// One machine: a router that lost its tables asks for every address at once.
const EACH: Measure = Measure {
    burst: 4096,
    per_millisecond: 1,
};
/// All together: some ten microseconds each, which is a fifth of a core at the worst.
const ALL: Measure = Measure {
    burst: 16_384,
    per_millisecond: 16,
};
/// Hardware addresses that are remembered.
const MOST_SOURCES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: u32) -> Vec<u8> {
        let [a, b, c, d] = source.to_be_bytes();
        [&[0xff; 6][..], &[2, 0, a, b, c, d], &[8, 6]].concat()
    }

    fn admitted(limiter: &mut Limiter, source: u32, count: u32, now: Time) -> u32 {
        let admits = |_: &u32| limiter.admits(&frame(source), now);
        u32::try_from((0..count).filter(admits).count()).unwrap()
    }

    #[test]
    fn whoever_asks_without_end_takes_nothing_from_others() {
        let mut limiter = Limiter::new(Time::START);
        let mut now = Time::START;
        let mut flood = 0;
        for _ in 0..10_000 {
            flood += admitted(&mut limiter, 1, 100, now);
            assert_eq!(admitted(&mut limiter, 2, 1, now), 1, "at {now}");
            now += Duration::from_millis(1);
        }
        assert!((14_000..14_200).contains(&flood), "{flood} of 1 000 000");
    }

    #[test]
    fn made_up_sources_help_nobody_and_are_forgotten() {
        let mut limiter = Limiter::new(Time::START);
        let mut now = Time::START;
        let mut flood = 0;
        for number in 0..1_000_000 {
            flood += admitted(&mut limiter, number, 1, now);
            assert!(limiter.sources.len() <= MOST_SOURCES);
            if number % 1000 == 999 {
                now += Duration::from_millis(1);
            }
        }
        assert!((32_000..33_000).contains(&flood), "{flood} in a second");
    }

    #[test]
    fn measures_fill_again_and_fractions_of_time_are_not_lost() {
        let mut limiter = Limiter::new(Time::START);
        assert_eq!(admitted(&mut limiter, 1, 5000, Time::START), 4096);
        let mut more = 0;
        for step in 1..=2000_u32 {
            let now = Time::START + Duration::from_micros(500) * step;
            more += admitted(&mut limiter, 1, 2, now);
        }
        assert_eq!(more, 1000);
        assert!(!limiter.admits(&[0; 8], Time::START));
    }
}
