//! Starts: from nothing, and with the rules of the process before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::commit_watch::longest_wait_during;
use crate::connect::connect_once;
use crate::contender::Running;
use crate::measure::{Bench, milliseconds, until_all_are_right};
use crate::objects::Number;
use crate::record::{Measure, Place};
use e2e::connection::Connection;

impl Bench<'_> {
    /// From nothing until 100 random frontends are right.
    pub(crate) fn cold_start(&mut self, place: Place) -> Result<Running> {
        let some: Vec<Number> = (0..FRONTENDS_ASKED)
            .map(|_| self.random_service(place.services))
            .collect();
        let node = self.node()?;
        let ((running, seconds), longest) = longest_wait_during(node, || {
            let running = place.contender.start(self.lab)?;
            let seconds = until_all_are_right(node, &some, running.begin)?;
            running.wait_until_idle()?;
            Ok((running, seconds))
        })?;
        self.records.add(place, Measure::ColdStart, [seconds]);
        self.records
            .add(place, Measure::ColdStartLock, [milliseconds(longest)]);
        Ok(running)
    }

    /// From a stopped process and its rules until the 100 Services that came meanwhile are right.
    pub(crate) fn restart(&mut self, running: Running, place: Place) -> Result<Running> {
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
}

const FRONTENDS_ASKED: u32 = 100;
