//! Random stories, with every law at every step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use speaker_announcer::Ineligible;

use crate::setup::*;
use crate::support::law::Watch;
use crate::support::random::Dice;
use crate::support::segment::{Cut, Segment};

#[test]
fn the_laws_hold_in_every_story() {
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match variable("FOGHORN_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("FOGHORN_SIMULATION_SEEDS").unwrap_or(200),
    };
    let alone = seeds.end - seeds.start == 1;
    // Each processor takes the next seed: a story is a function of its seed alone.
    let next = AtomicU64::new(seeds.start);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let sums = thread::scope(|scope| {
        let work = || {
            let mut sum = Sum::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !seeds.contains(&seed) {
                    return sum;
                }
                sum.tell(seed, alone);
            }
        };
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let sums = workers.into_iter().map(|worker| worker.join().unwrap());
        sums.reduce(Sum::and).unwrap()
    });
    println!(
        "seeds {seeds:?}, {:.2} hours simulated, longest without an owner {:?}, longest with two {:?}, {} laws broken",
        sums.simulated.as_secs_f64() / 3600.0,
        sums.unserved,
        sums.doubled,
        sums.failures.len()
    );
    assert!(
        sums.failures.is_empty(),
        "{} of {} stories broke a law; replay one with FOGHORN_SIMULATION_SEED=N:\n{}",
        sums.failures.len(),
        seeds.end - seeds.start,
        sums.failures.join("\n")
    );
}

/// What many stories come to.
#[derive(Default)]
struct Sum {
    simulated: Duration,
    unserved: Duration,
    doubled: Duration,
    failures: Vec<String>,
}

impl Sum {
    fn tell(&mut self, seed: u64, aloud: bool) {
        let (segment, outcome) = story(seed);
        self.simulated += segment.now.since_start();
        #[expect(clippy::print_stdout, reason = "the log of one story, asked for")]
        if aloud {
            println!("{}", segment.log.join("\n"));
        }
        match outcome {
            Ok(watch) => {
                self.unserved = self.unserved.max(watch.longest_unserved);
                self.doubled = self.doubled.max(watch.longest_doubled);
            }
            Err(error) => self
                .failures
                .push(format!("seed {seed} at {}: {error}", segment.now)),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            simulated: self.simulated + other.simulated,
            unserved: self.unserved.max(other.unserved),
            doubled: self.doubled.max(other.doubled),
            failures: [self.failures, other.failures].concat(),
        }
    }
}

/// One random story.
fn story(seed: u64) -> (Segment, Result<Watch, String>) {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let machines = 2 + dice.index(4);
    let vips = 1 + dice.index(5);
    let names = &NAMES[..machines];
    let mut segment = Segment::new(seed, names, &configuration(names, vips, &[]));
    let lossy = dice.chance(40);
    if lossy {
        segment.wire.loss_percent = 1 + dice.below(12);
        segment.wire.duplicate_percent = dice.below(10);
        segment.wire.delay = (50, 1000 + dice.below(15_000));
    }
    let bounds = if lossy { LOSSY } else { STEADY };
    for number in 0..machines {
        segment.start(number);
        let pause = dice.micros(0, 300_000);
        segment.run(pause);
    }
    segment.run(Duration::from_secs(2));
    let mut watch = Watch::new(bounds, (0..vips).map(address), segment.now);
    watch.lossy = lossy;
    let outcome = (0..5 + dice.below(8))
        .try_for_each(|_| act(&mut segment, &mut watch, &mut dice))
        .and_then(|()| heal(&mut segment, &mut watch, vips));
    let outcome = outcome.map(|()| watch);
    (segment, outcome)
}

/// Something goes wrong.
fn act(segment: &mut Segment, watch: &mut Watch, dice: &mut Dice) -> Result<(), String> {
    let machines = segment.machines.len();
    let number = dice.index(machines);
    let other = (number + 1 + dice.index(machines - 1)) % machines;
    let name = segment.machines[number].name.clone();
    let cut = if dice.chance(30) {
        Cut::Heartbeats
    } else {
        Cut::Everything
    };
    let fault = match dice.below(18) {
        0 => {
            segment.kill(number);
            "is killed".to_owned()
        }
        1 | 2 => {
            segment.start(number);
            "is started afresh".to_owned()
        }
        3 => {
            segment.pause(number);
            "is stopped".to_owned()
        }
        4 => {
            segment.resume(number);
            "goes on".to_owned()
        }
        5 => {
            segment.set_link(number, false);
            "loses its link".to_owned()
        }
        6 => {
            segment.set_link(number, true);
            "has its link".to_owned()
        }
        7 => {
            segment.cuts.insert((number, other), cut);
            format!("is not heard by {other}: {cut:?}")
        }
        8 => {
            for peer in (0..machines).filter(|&peer| peer != number) {
                segment.cuts.insert((number, peer), cut);
                segment.cuts.insert((peer, number), cut);
            }
            format!("is cut off: {cut:?}")
        }
        9 => {
            let side: Vec<_> = (0..machines).map(|_| dice.chance(50)).collect();
            for (a, b) in (0..machines).flat_map(|a| (0..machines).map(move |b| (a, b))) {
                if side[a] != side[b] {
                    segment.cuts.insert((a, b), cut);
                }
            }
            format!("{side:?} are two sides: {cut:?}")
        }
        10 => {
            segment.cuts.clear();
            "and all others hear each other".to_owned()
        }
        11 => {
            let unfit = [
                None,
                Some(Ineligible::Draining),
                Some(Ineligible::ProxyUnhealthy),
            ][dice.index(3)];
            segment.set_unfit(number, unfit);
            format!("is unfit: {unfit:?}")
        }
        16 | 17 => {
            let vips = segment.machines[number].configuration.vips.keys().copied();
            let programmed = dice
                .chance(80)
                .then(|| vips.filter(|_| dice.chance(60)).collect());
            let text = format!("forwards {programmed:?}");
            segment.set_programmed(number, programmed);
            text
        }
        12 => {
            segment.shut_down(number);
            "is shut down".to_owned()
        }
        13 | 14 => {
            let vips = segment.machines[number].configuration.vips.len();
            let plain = configuration(&NAMES[..machines], vips, &[]);
            let asked_for = dice.chance(50);
            let next = if asked_for {
                requested(plain, &name)
            } else {
                drained(plain, &name)
            };
            for machine in (0..machines).filter(|_| dice.chance(80)) {
                segment.configure(machine, &next);
            }
            let word = if asked_for { "asked for" } else { "drained" };
            format!("is {word}, as most others learn")
        }
        _ => {
            let names: Vec<_> = NAMES[..machines].to_vec();
            let refused: Vec<_> = names.iter().filter(|_| dice.chance(25)).copied().collect();
            let vips = segment.machines[number].configuration.vips.len();
            let next = configuration(&names, vips, &refused);
            for machine in 0..machines {
                match dice.below(10) {
                    0..5 => segment.configure(machine, &next),
                    5..7 => segment.configure(machine, &reversed(&next)),
                    _ => {}
                }
            }
            format!(
                "and some others learn that {refused:?} have no endpoint, some in another order"
            )
        }
    };
    segment.note(format!("{name} {fault}"));
    watch.last_fault = segment.now;
    let pause = dice.micros(1000, 3_000_000);
    watch.run(segment, pause)
}

/// All faults end; then every address has exactly one owner, and nothing moves any more.
fn heal(segment: &mut Segment, watch: &mut Watch, vips: usize) -> Result<(), String> {
    segment.note("everything heals");
    segment.cuts.clear();
    let configuration = configuration(&NAMES[..segment.machines.len()], vips, &[]);
    for number in 0..segment.machines.len() {
        let shut_down = segment.machines[number]
            .announcer
            .as_ref()
            .is_none_or(|announcer| announcer.is_done());
        if shut_down {
            segment.start(number);
        }
        segment.resume(number);
        segment.set_link(number, true);
        segment.set_unfit(number, None);
        let all = configuration.vips.keys().copied().collect();
        segment.set_programmed(number, Some(all));
        segment.configure(number, &configuration);
    }
    watch.last_fault = segment.now;
    watch.run(segment, Duration::from_secs(10))?;
    for vip in (0..vips).map(address) {
        let owners = segment.owners(vip);
        if owners.len() != 1 && !watch.lossy {
            return Err(format!("{vip} has the owners {owners:?} in the end"));
        }
    }
    Ok(())
}
