//! What must hold at every moment, whatever happens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use speaker_announcer::{Event, Time};

use super::segment::Segment;

/// How long things may take on the wire of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// An address without an owner, while somebody could own it and nothing else goes wrong.
    pub unserved: Duration,
    /// Two owners that hear each other.
    pub doubled: Duration,
    /// After the last fault, time until nothing may move any more.
    pub calm: Duration,
}

/// Watches a segment.
pub struct Watch {
    bounds: Bounds,
    vips: Vec<IpAddr>,
    unserved_since: BTreeMap<(IpAddr, usize), Time>,
    doubled_since: BTreeMap<(IpAddr, usize, usize), Time>,
    pub last_fault: Time,
    /// Set while the only thing that happens is a planned move, during which no address may be without an owner.
    pub planned: bool,
    pub lossy: bool,
    seen: usize,
    pub longest_unserved: Duration,
    pub longest_doubled: Duration,
}

impl Watch {
    pub fn new(bounds: Bounds, vips: impl IntoIterator<Item = IpAddr>, now: Time) -> Self {
        Self {
            bounds,
            vips: vips.into_iter().collect(),
            unserved_since: BTreeMap::new(),
            doubled_since: BTreeMap::new(),
            last_fault: now,
            planned: false,
            lossy: false,
            seen: 0,
            longest_unserved: Duration::ZERO,
            longest_doubled: Duration::ZERO,
        }
    }

    /// Runs the segment for a while, with a look at every law after every step.
    pub fn run(&mut self, segment: &mut Segment, duration: Duration) -> Result<(), String> {
        let end = segment.now + duration;
        loop {
            let more = segment.step(end);
            self.look(segment)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn look(&mut self, segment: &Segment) -> Result<(), String> {
        for vip in self.vips.clone() {
            self.served(segment, vip)?;
            self.not_doubled(segment, vip)?;
        }
        if let Some(broken) = segment.taken_unforwarded.first() {
            return Err(broken.clone());
        }
        self.no_move_without_a_cause(segment)?;
        for machine in &segment.machines {
            let (second, heartbeats, frames) = machine.sent;
            let rest = self.last_fault + self.bounds.calm + Duration::from_secs(1);
            if !self.lossy && Duration::from_secs(second) > rest.since_start() && heartbeats > 21 {
                return Err(format!(
                    "{} sent {heartbeats} heartbeats in a second of rest",
                    machine.name
                ));
            }
            if heartbeats > 200 || frames > 400 {
                return Err(format!(
                    "{} sent {heartbeats} heartbeats and {frames} frames in a second",
                    machine.name
                ));
            }
        }
        Ok(())
    }

    /// Every set of machines whose frames reach each other, and nobody else, serves its clients.
    fn served(&mut self, segment: &Segment, vip: IpAddr) -> Result<(), String> {
        let count = segment.machines.len();
        for first in 0..count {
            let side: Vec<_> = (0..count)
                .filter(|&other| other == first || segment.reach_each_other(first, other))
                .collect();
            let whole = side.iter().all(|&a| {
                (0..count)
                    .filter(|&b| a != b && segment.machines[b].is_up())
                    .all(|b| {
                        let one_way = segment.reaches(a, b) != segment.reaches(b, a);
                        !one_way && side.contains(&b) == segment.reaches(a, b)
                    })
            });
            let able =
                |&number: &usize| {
                    let machine = &segment.machines[number];
                    machine.is_up()
                        && machine.unfit.is_none()
                        && machine
                            .programmed
                            .as_ref()
                            .is_none_or(|vips| vips.contains(&vip))
                        && !machine.shutting_down
                        && machine.configuration.vips.get(&vip).is_some_and(|vip| {
                            vip.eligibility(&machine.name.as_str().into()).is_ok()
                        })
                };
            let owned = side.iter().any(|&number| {
                segment.machines[number].is_up() && segment.machines[number].owns(vip)
            });
            let key = (vip, first);
            if side[0] != first
                || !whole
                || owned
                || !side.iter().any(able)
                || segment.stranger.contains(&vip)
                || side
                    .iter()
                    .any(|&number| segment.suspects_a_stranger(number, vip))
            {
                self.unserved_since.remove(&key);
                continue;
            }
            let since = *self.unserved_since.entry(key).or_insert(segment.now);
            if self.planned {
                return Err(format!("{vip} has no owner during a planned move"));
            }
            let gap = segment.now.since(since.max(self.last_fault));
            let half_deaf = side
                .iter()
                .any(|&a| side.iter().any(|&b| segment.cuts.contains_key(&(a, b))));
            // Who does not hear an owner that others hear believes them for a while, also when it has just let go.
            let patience = if half_deaf {
                segment.timing.witness_patience
            } else {
                Duration::ZERO
            };
            self.longest_unserved = self.longest_unserved.max(gap.saturating_sub(patience));
            if gap > self.bounds.unserved + patience {
                return Err(format!("{vip} has had no owner for {gap:?} among {side:?}"));
            }
        }
        Ok(())
    }

    fn not_doubled(&mut self, segment: &Segment, vip: IpAddr) -> Result<(), String> {
        let owners = segment.owners(vip);
        let mut doubled = BTreeMap::new();
        for (index, &a) in owners.iter().enumerate() {
            for &b in owners.iter().skip(index + 1) {
                if segment.hear_each_other(a, b) {
                    let key = (vip, a, b);
                    doubled.insert(
                        key,
                        self.doubled_since.get(&key).copied().unwrap_or(segment.now),
                    );
                }
            }
        }
        self.doubled_since.retain(|(of, _, _), _| *of != vip);
        self.doubled_since.extend(doubled);
        for ((of, a, b), since) in &self.doubled_since {
            let time = segment.now.since(*since);
            self.longest_doubled = self.longest_doubled.max(time);
            if time > self.bounds.doubled {
                return Err(format!(
                    "{of} has had two owners that hear each other, {a} and {b}, for {time:?}"
                ));
            }
        }
        Ok(())
    }

    fn no_move_without_a_cause(&mut self, segment: &Segment) -> Result<(), String> {
        let news = segment.events.get(self.seen..).unwrap_or_default();
        self.seen = segment.events.len();
        for (time, machine, event) in news {
            let calm = !self.lossy && *time > self.last_fault + self.bounds.calm;
            let is_fault = event.owns().is_some()
                || matches!(event, Event::PeerSilent { .. } | Event::Stalled { .. });
            if calm && is_fault {
                let name = &segment.machines[*machine].name;
                return Err(format!("without any cause at {time}, {name}: {event}"));
            }
        }
        Ok(())
    }
}
