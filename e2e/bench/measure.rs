//! The measurements. Each leaves the cluster as it found it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::Lab;
use e2e::namespace::Namespace;
use e2e::random::Random;

use crate::connect::{connect_once, first_connect};
use crate::connection::Connection;
use crate::contender::{Running, first_node};
use crate::objects::{ENDPOINTS, FIRST_OF_TRIALS, Number, TRIALS, for_each};
use crate::record::{Measure, Place, Records};

/// A lab with Services in it, and what the measurements share.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) server: SocketAddr,
    pub(crate) random: Random,
    pub(crate) records: &'a mut Records,
    next_trial: u32,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(lab: &'a Lab, server: SocketAddr, records: &'a mut Records) -> Self {
        Self {
            lab,
            server,
            random: Random::from_environment(),
            records,
            next_trial: 0,
        }
    }

    /// Everything, for one contender at one size, in a cluster without Services.
    pub(crate) fn sitting(&mut self, place: Place) -> Result<()> {
        let running = place.contender.start(self.lab)?;
        running.wait_until_idle()?;
        self.script(&running, place)?;
        running.wait_until_idle()?;
        self.latencies(&running, place)?;
        self.connects(place)?;
        self.churn(place)?;
        running.wait_until_idle()?;
        if place.services > place.contender.most_services_at_once() {
            return running.stop();
        }
        let running = self.restart(running, place)?;
        running.stop()?;
        place.contender.clean_up(self.lab)?;
        self.cold_start(place)?.stop()
    }

    /// From nothing until 100 random frontends are right.
    fn cold_start(&mut self, place: Place) -> Result<Running> {
        let some: Vec<Number> = (0..FRONTENDS_ASKED)
            .map(|_| self.random_service(place.services))
            .collect();
        let running = place.contender.start(self.lab)?;
        let seconds = until_all_are_right(self.node()?, &some, running.begin)?;
        self.records.add(place, Measure::ColdStart, [seconds]);
        running.wait_until_idle()?;
        Ok(running)
    }

    /// From a stopped process and its rules until the 100 Services that came meanwhile are right.
    fn restart(&mut self, running: Running, place: Place) -> Result<Running> {
        let contender = running.contender;
        running.stop()?;
        let new: Vec<Number> = (0..FRONTENDS_ASKED).map(|_| self.next_trial()).collect();
        let mut api = Connection::open(self.server)?;
        for number in &new {
            number.create(&mut api)?;
        }
        let old = self.random_service(place.services);
        let node = self.node()?;
        let over = AtomicBool::new(false);
        let (running, seconds, lost) = thread::scope(|scope| -> Result<_> {
            let watch = scope.spawn(|| -> Result<u32> {
                node.enter()?;
                let mut lost = 0;
                while !over.load(Ordering::Relaxed) {
                    let connect = connect_once(old.frontend(), Duration::from_millis(200))?;
                    lost += u32::from(connect.is_none());
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(lost)
            });
            let outcome = contender.start(self.lab).and_then(|running| {
                let seconds = until_all_are_right(node, &new, running.begin)?;
                Ok((running, seconds))
            });
            over.store(true, Ordering::Relaxed);
            let lost = watch.join().ok().context("the watcher panicked")??;
            let (running, seconds) = outcome?;
            Ok((running, seconds, lost))
        })?;
        self.records.add(place, Measure::Restart, [seconds]);
        self.records
            .add(place, Measure::RestartLost, [f64::from(lost)]);
        for number in &new {
            number.delete(&mut api)?;
        }
        Ok(running)
    }

    /// From a write to the first connect.
    fn latencies(&mut self, running: &Running, place: Place) -> Result<()> {
        let mut api = Connection::open(self.server)?;
        let (total, answered) = self.trials(|bench| bench.service_trial(running, &mut api))?;
        self.records.add(place, Measure::ServiceIdle, total);
        self.records.add(place, Measure::ApiService, answered);
        let (total, answered) = self.trials(|bench| bench.endpoints_trial(running, &mut api))?;
        self.records.add(place, Measure::EndpointsIdle, total);
        self.records.add(place, Measure::ApiEndpoints, answered);

        let server = self.server;
        let mut random = self.random.clone();
        let over = AtomicBool::new(false);
        let (total, _) = thread::scope(|scope| {
            let background = scope.spawn(|| -> Result<()> {
                let mut api = Connection::open(server)?;
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    let number = Number(u32::from(random.below(u16::MAX)) % place.services);
                    count = 5 - count.max(2);
                    number.change_endpoints(&mut api, 0, count)?;
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
            let outcome = self.trials(|bench| bench.busy_trial(&mut api));
            over.store(true, Ordering::Relaxed);
            background
                .join()
                .ok()
                .context("the background panicked")??;
            outcome
        })?;
        self.records.add(place, Measure::ServiceBusy, total);
        Ok(())
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
    fn until_connected(
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

    /// How long connects take through the first, a middle and the last Service, and without any.
    fn connects(&mut self, place: Place) -> Result<()> {
        let last = place.services.saturating_sub(1);
        let targets = [
            (Measure::ConnectDirect, Number(0).endpoint(0)),
            (Measure::ConnectFirst, Number(0).frontend()),
            (Measure::ConnectMiddle, Number(last / 2).frontend()),
            (Measure::ConnectLast, Number(last).frontend()),
        ];
        let mut values = targets.map(|_| Vec::with_capacity(CONNECTS));
        self.node()?.run(|| -> Result<()> {
            for _ in 0..CONNECTS {
                for ((_, target), values) in targets.iter().zip(&mut values) {
                    let took = connect_once(*target, Duration::from_secs(1))?
                        .with_context(|| format!("{target} did not answer"))?;
                    values.push(took.as_secs_f64() * 1e6);
                }
            }
            Ok(())
        })??;
        for ((measure, _), values) in targets.into_iter().zip(values) {
            self.records.add(place, measure, values);
        }
        Ok(())
    }

    /// How many connects are lost while the endpoints of their Service change all the time.
    fn churn(&mut self, place: Place) -> Result<()> {
        let number = self.next_trial();
        let mut api = Connection::open(self.server)?;
        self.until_connected(number, || number.create(&mut api))?;
        let node = self.node()?;
        let over = AtomicBool::new(false);
        let (made, lost) = thread::scope(|scope| -> Result<(u32, u32)> {
            let client = scope.spawn(|| -> Result<(u32, u32)> {
                node.enter()?;
                let (mut made, mut lost) = (0, 0);
                while !over.load(Ordering::Relaxed) {
                    // A SYN that is lost comes again after a second.
                    let connect = connect_once(number.frontend(), Duration::from_millis(950))?;
                    made += 1;
                    lost += u32::from(connect.is_none());
                }
                Ok((made, lost))
            });
            let begin = Instant::now();
            let mut outcome = Ok(());
            let mut first = 0;
            while outcome.is_ok() && begin.elapsed() < CHURN_TIME {
                first += 1;
                outcome = number.change_endpoints(&mut api, first % ENDPOINTS, 1 + first % 2);
                thread::sleep(Duration::from_millis(5));
            }
            over.store(true, Ordering::Relaxed);
            outcome?;
            client.join().ok().context("the client panicked")?
        })?;
        number.delete(&mut api)?;
        let per_100_000 = f64::from(lost) / f64::from(made.max(1)) * 1e5;
        self.records.add(place, Measure::ChurnLost, [per_100_000]);
        self.records
            .add(place, Measure::ChurnConnects, [f64::from(made)]);
        Ok(())
    }

    /// The script: all Services are created, a tenth of them changed, a tenth deleted. Then the last tenth comes back.
    fn script(&mut self, running: &Running, place: Place) -> Result<()> {
        let (services, tenth) = (place.services, place.services / 10);
        let rest = services - tenth;
        let begin = Instant::now();
        for_each(self.server, 0..services, |number, api| number.create(api))?;
        for_each(self.server, 0..tenth, |number, api| {
            number.change_endpoints(api, 0, 2)
        })?;
        for_each(self.server, rest..services, |number, api| {
            number.delete(api)
        })?;
        let writes = begin.elapsed().as_secs_f64();
        until_all_are_right(self.node()?, &[Number(rest.saturating_sub(1))], begin)?;
        running.wait_until_idle()?;
        let usage = running.usage()?;
        self.records.add(place, Measure::ScriptWrites, [writes]);
        self.records
            .add(place, Measure::ScriptCpu, [usage.cpu_seconds]);
        self.records
            .add(place, Measure::ScriptPeak, [usage.peak_mib]);
        for_each(self.server, rest..services, |number, api| {
            number.create(api)
        })?;
        let last = Number(services.saturating_sub(1));
        until_all_are_right(self.node()?, &[last], begin)?;
        Ok(())
    }

    fn node(&self) -> Result<&'a Namespace> {
        Ok(&self.lab.node(first_node()?)?.namespace)
    }

    fn random_service(&mut self, services: u32) -> Number {
        Number(u32::from(self.random.below(u16::MAX)) % services.max(1))
    }

    fn next_trial(&mut self) -> Number {
        self.next_trial += 1;
        Number(FIRST_OF_TRIALS + self.next_trial % TRIALS)
    }
}

fn until_all_are_right(node: &Namespace, numbers: &[Number], begin: Instant) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    let last = node.run(|| -> Result<Instant> {
        let mut last = begin;
        for number in numbers {
            last = first_connect(number.frontend(), deadline)?;
        }
        Ok(last)
    })??;
    Ok(last.saturating_duration_since(begin).as_secs_f64())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const FRONTENDS_ASKED: u32 = 100;
const FEWEST_TRIALS: usize = 6;
const MOST_TRIALS: usize = 40;
const TRIAL_TIME: Duration = Duration::from_secs(6);
const CONNECTS: usize = 1500;
const CHURN_TIME: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(180);
