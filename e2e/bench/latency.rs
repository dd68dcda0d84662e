//! From a write to the first connect, with nothing else going on and with much.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::random::Random;

use crate::connect::{connect_once, first_connect};
use crate::contender::Running;
use crate::measure::{Bench, PATIENCE, milliseconds, random_number};
use crate::objects::{ENDPOINTS, Number};
use crate::record::{Measure, Place};
use e2e::connection::Connection;

impl Bench<'_> {
    /// From a write to the first connect.
    pub(crate) fn latencies(&mut self, running: &Running, place: Place) -> Result<()> {
        let mut api = Connection::open(self.server)?;
        let (total, answered) = self.trials(|bench| bench.service_trial(running, &mut api))?;
        self.records.add(place, Measure::ServiceIdle, total);
        self.records.add(place, Measure::ApiService, answered);
        let (total, answered) = self.trials(|bench| bench.endpoints_trial(running, &mut api))?;
        self.records.add(place, Measure::EndpointsIdle, total);
        self.records.add(place, Measure::ApiEndpoints, answered);

        for (measure, writers) in [(Measure::ServiceBusy, 1), (Measure::ServiceVeryBusy, 10)] {
            let total = self.while_others_change(place, writers)?;
            self.records.add(place, measure, total);
        }
        Ok(())
    }

    /// New Services while each of `writers` changes another Service 20 times a second.
    fn while_others_change(&mut self, place: Place, writers: u32) -> Result<Vec<f64>> {
        let mut api = Connection::open(self.server)?;
        let over = AtomicBool::new(false);
        let (server, over) = (self.server, &over);
        thread::scope(|scope| {
            let background: Vec<_> = (0..writers)
                .map(|_| {
                    let mut random = self.random.clone();
                    // Each its own choices.
                    self.random.below(u16::MAX);
                    scope.spawn(move || change_others(server, place.services, &mut random, over))
                })
                .collect();
            let outcome = self.trials(|bench| bench.busy_trial(&mut api));
            over.store(true, Ordering::Relaxed);
            for writer in background {
                writer.join().ok().context("the background panicked")??;
            }
            Ok(outcome?.0)
        })
    }

    /// Tries again until the time is over, a few times at least; milliseconds.
    fn trials(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<(Duration, Duration)>,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let begin = Instant::now();
        let (mut total, mut answered) = (Vec::new(), Vec::new());
        while total.len() < FEWEST_TRIALS
            || total.len() < MOST_TRIALS && begin.elapsed() < TRIAL_TIME
        {
            let (connected, answer) = attempt(self)?;
            total.push(milliseconds(connected));
            answered.push(milliseconds(answer));
        }
        Ok((total, answered))
    }

    fn service_trial(
        &mut self,
        running: &Running,
        api: &mut Connection,
    ) -> Result<(Duration, Duration)> {
        running.wait_until_idle()?;
        let number = self.next_trial();
        let outcome = self.until_connected(number, || number.create(api));
        number.delete(api)?;
        outcome
    }

    fn endpoints_trial(
        &mut self,
        running: &Running,
        api: &mut Connection,
    ) -> Result<(Duration, Duration)> {
        let number = self.next_trial();
        number.create_empty(api)?;
        running.wait_until_idle()?;
        let outcome = self.until_connected(number, || number.change_endpoints(api, 0, ENDPOINTS));
        number.delete(api)?;
        outcome
    }

    fn busy_trial(&mut self, api: &mut Connection) -> Result<(Duration, Duration)> {
        // At no fixed place between two changes of the others.
        thread::sleep(self.random.shorter_than(Duration::from_millis(200)));
        let number = self.next_trial();
        let outcome = self.until_connected(number, || number.create(api));
        number.delete(api)?;
        outcome
    }

    /// How long after the beginning of `write` a connect works, and how long the writes took.
    pub(crate) fn until_connected(
        &self,
        number: Number,
        write: impl FnOnce() -> Result<()>,
    ) -> Result<(Duration, Duration)> {
        let node = self.node()?;
        let (ready, is_ready) = mpsc::channel();
        thread::scope(|scope| {
            let prober = scope.spawn(move || -> Result<Instant> {
                node.enter()?;
                let early = connect_once(number.frontend(), Duration::from_millis(1))?;
                ensure!(early.is_none(), "{} answers already", number.frontend());
                ready.send(())?;
                first_connect(number.frontend(), Instant::now() + PATIENCE)
            });
            // If it does not come, the prober says why.
            let _ = is_ready.recv();
            let begin = Instant::now();
            write()?;
            let answered = begin.elapsed();
            let connected = prober.join().ok().context("the prober panicked")??;
            Ok((connected.saturating_duration_since(begin), answered))
        })
    }
}

/// Changes the endpoints of a Service, now to two and now to three, 20 times a second.
fn change_others(
    server: SocketAddr,
    services: u32,
    random: &mut Random,
    over: &AtomicBool,
) -> Result<()> {
    let mut api = Connection::open(server)?;
    let mut count = 2;
    let mut next = Instant::now() + random.shorter_than(INTERVAL);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += INTERVAL;
        count = 5 - count;
        random_number(random, services).change_endpoints(&mut api, 0, count)?;
    }
    Ok(())
}

/// Between two changes of one writer.
const INTERVAL: Duration = Duration::from_millis(50);
const FEWEST_TRIALS: usize = 6;
const MOST_TRIALS: usize = 40;
const TRIAL_TIME: Duration = Duration::from_secs(6);
