//! The measurements. Each leaves the cluster as it found it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::lab::Lab;
use e2e::namespace::Namespace;
use e2e::random::Random;

use crate::connect::{connect_once, first_connect};
use crate::contender::{Running, first_node};
use crate::load;
use crate::objects::{ENDPOINTS, FIRST_OF_TRIALS, Number, TRIALS, for_each};
use crate::record::{Measure, Place, Records};
use e2e::connection::Connection;

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
        if place.services > MOST_BY_API {
            self.load(&running, place)?;
        } else {
            self.script(&running, place)?;
        }
        running.wait_until_idle()?;
        self.latencies(&running, place)?;
        self.connects(place)?;
        self.churn(place)?;
        self.steady(place)?;
        running.wait_until_idle()?;
        self.stale_entries(&running, place)?;
        running.wait_until_idle()?;
        if place.services > place.contender.most_services_at_once() {
            return running.stop();
        }
        let running = self.restart(running, place)?;
        running.stop()?;
        place.contender.clean_up(self.lab)?;
        self.cold_start(place)?.stop()
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

    /// All Services at once, without the API server's part.
    fn load(&mut self, running: &Running, place: Place) -> Result<()> {
        let begin = Instant::now();
        load::load(self.server, &self.lab.api, 0..place.services)?;
        let last = Number(place.services.saturating_sub(1));
        load::check(&self.lab.api, last)?;
        until_all_are_right(self.node()?, &[last], begin)?;
        running.wait_until_idle()?;
        let usage = running.usage()?;
        self.records
            .add(place, Measure::LoadCpu, [usage.cpu_seconds]);
        self.records.add(place, Measure::LoadPeak, [usage.peak_mib]);
        Ok(())
    }

    pub(crate) fn node(&self) -> Result<&'a Namespace> {
        Ok(&self.lab.node(first_node()?)?.namespace)
    }

    pub(crate) fn random_service(&mut self, services: u32) -> Number {
        random_number(&mut self.random, services)
    }

    pub(crate) fn next_trial(&mut self) -> Number {
        self.next_trial += 1;
        Number(FIRST_OF_TRIALS + self.next_trial % TRIALS)
    }
}

/// Any Service of the cluster.
pub(crate) fn random_number(random: &mut Random, services: u32) -> Number {
    let (high, low) = (random.below(u16::MAX), random.below(u16::MAX));
    Number((u32::from(high) << 16 | u32::from(low)) % services.max(1))
}

pub(crate) fn until_all_are_right(
    node: &Namespace,
    numbers: &[Number],
    begin: Instant,
) -> Result<f64> {
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

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const CONNECTS: usize = 1500;
const CHURN_TIME: Duration = Duration::from_secs(4);
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// Above that, Services are loaded into etcd.
const MOST_BY_API: u32 = 10_000;
