//! A question each few milliseconds, and how long there was no answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, sync::Arc};

use anyhow::{Result, anyhow, bail};

use crate::client::{Question, Target};
use crate::namespace::Namespace;
use crate::wait;

/// How often to ask, and how long to wait for each answer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From one question to the next.
    pub interval: Duration,
    /// What a person would call broken.
    pub patience: Duration,
}

impl Pace {
    /// A question each 5 ms; one that has no answer within 250 ms is lost.
    pub const DENSE: Self = Self {
        interval: Duration::from_millis(5),
        patience: Duration::from_millis(250),
    };
    /// A question each 5 ms; one that waits for a segment that is sent again, which takes a second, is lost.
    pub const PATIENT: Self = Self {
        patience: Duration::from_millis(500),
        ..Self::DENSE
    };
}

/// One question and what became of it. Times are counted from the start of the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// When it was asked.
    pub at: Duration,
    /// When the answer, or the failure, was there.
    pub done: Duration,
    /// The answer, or why there was none.
    pub answer: Result<String, Silence>,
}

/// Why a question had no answer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Silence {
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
    /// Somebody refused the connection.
    #[error("refused")]
    Refused,
    /// The connection was there and was cut.
    #[error("cut off")]
    Reset,
    /// The network said that there is no way.
    #[error("unreachable")]
    Unreachable,
    /// Something else.
    #[error("failed otherwise")]
    Other,
}

impl From<&io::Error> for Silence {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Questions that are being asked.
#[derive(Debug)]
pub struct Stream {
    started: Instant,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    /// Starts to ask from `namespace`. Each question has a connection of its own and waits for no other.
    pub fn start(
        namespace: &Namespace,
        target: Target,
        question: Question,
        pace: Pace,
    ) -> Result<Self> {
        let count =
            u32::try_from(pace.patience.as_micros() / pace.interval.as_micros().max(1))? + 2;
        let started = Instant::now() + Duration::from_millis(20);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut workers = Vec::new();
        for number in 0..count {
            let namespace = Namespace::borrowed(namespace);
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            workers.push(
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn(move || {
                        namespace.enter()?;
                        let turn = pace.interval * count;
                        let mut due = started + pace.interval * number;
                        while !stop.load(Ordering::Relaxed) {
                            wait_for(due);
                            let outcome = ask(target, question, pace.patience, started);
                            if let Ok(mut asked) = asked.lock() {
                                asked.push(outcome);
                            }
                            due += turn;
                            while due < Instant::now() {
                                due += turn;
                            }
                        }
                        Ok(())
                    })?,
            );
        }
        Ok(Self {
            started,
            stop,
            asked,
            workers,
        })
    }

    /// The time on the stream's own clock.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until a question that was asked after `since` has an answer for which `fits` holds.
    pub fn wait_for_answer(
        &self,
        since: Duration,
        patience: Duration,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Duration> {
        wait::until("an answer", patience, || {
            let asked = self
                .asked
                .lock()
                .map_err(|_| anyhow!("a worker panicked"))?;
            Ok(asked
                .iter()
                .rev()
                .filter(|one| one.at >= since)
                .find(|one| one.answer.as_deref().is_ok_and(&fits))
                .map(|one| one.done))
        })
    }

    /// Stops to ask, waits for the last answers and returns what there was, in the order of asking.
    pub fn stop(self) -> Result<Record> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            match worker.join() {
                Ok(outcome) => outcome?,
                Err(_) => bail!("a worker of the stream panicked"),
            }
        }
        let mut asked = match self.asked.lock() {
            Ok(mut asked) => std::mem::take(&mut *asked),
            Err(_) => bail!("a worker of the stream panicked"),
        };
        asked.sort_by_key(|one| one.at);
        Ok(Record { asked })
    }
}

fn ask(target: Target, question: Question, patience: Duration, started: Instant) -> Asked {
    let at = started.elapsed();
    let answer = target
        .ask(question, patience)
        .map_err(|error| Silence::from(&error));
    Asked {
        at,
        done: started.elapsed(),
        answer,
    }
}

fn wait_for(due: Instant) {
    if let Some(pause) = due.checked_duration_since(Instant::now()) {
        thread::sleep(pause);
    }
}

/// Everything that was asked, in the order of asking.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// The questions.
    pub asked: Vec<Asked>,
}

impl Record {
    /// The longest time in which no answer arrived, and when it began; the time before the first answer and after
    /// the last one does not count.
    pub fn longest_gap(&self) -> Gap {
        let mut arrivals: Vec<Duration> = self
            .asked
            .iter()
            .filter(|one| one.answer.is_ok())
            .map(|one| one.done)
            .collect();
        arrivals.sort();
        arrivals
            .iter()
            .zip(arrivals.iter().skip(1))
            .map(|(&from, &to)| Gap {
                from,
                length: to - from,
            })
            .max_by_key(|gap| gap.length)
            .unwrap_or_default()
    }

    /// How many questions had an answer.
    pub fn answered(&self) -> usize {
        self.asked.iter().filter(|one| one.answer.is_ok()).count()
    }

    /// The questions without an answer, by reason.
    pub fn lost(&self) -> BTreeMap<Silence, usize> {
        let mut lost = BTreeMap::new();
        for one in self.losses() {
            if let Err(silence) = one.answer {
                *lost.entry(silence).or_insert(0) += 1;
            }
        }
        lost
    }

    /// The questions without an answer.
    pub fn losses(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|one| one.answer.is_err())
    }

    /// Who answered how often.
    pub fn answers(&self) -> BTreeMap<&str, usize> {
        let mut answers = BTreeMap::new();
        for answer in self
            .asked
            .iter()
            .filter_map(|one| one.answer.as_deref().ok())
        {
            *answers.entry(answer).or_insert(0) += 1;
        }
        answers
    }

    /// The part that was asked from `from` on.
    pub fn since(&self, from: Duration) -> Self {
        Self {
            asked: self
                .asked
                .iter()
                .filter(|one| one.at >= from)
                .cloned()
                .collect(),
        }
    }

    /// The last moment at which a question was asked that had no answer.
    pub fn last_loss(&self) -> Option<Duration> {
        self.losses().last().map(|one| one.at)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} asked, {} answered",
            self.asked.len(),
            self.answered()
        )?;
        for (silence, count) in self.lost() {
            write!(formatter, ", {count} {silence}")?;
        }
        Ok(())
    }
}

/// A time without an answer.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Gap {
    /// When the last answer before it arrived.
    pub from: Duration,
    /// How long it lasted.
    pub length: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn record(times: &[(u64, u64, Result<&str, Silence>)]) -> Record {
        Record {
            asked: times
                .iter()
                .map(|&(at, done, answer)| Asked {
                    at: ms(at),
                    done: ms(done),
                    answer: answer.map(str::to_owned),
                })
                .collect(),
        }
    }

    #[test]
    fn the_gap_is_between_the_answers_around_it() {
        let record = record(&[
            (0, 1, Ok("a")),
            (5, 6, Ok("b")),
            (10, 260, Err(Silence::Timeout)),
            (15, 16, Err(Silence::Refused)),
            (400, 401, Ok("a")),
            (405, 407, Ok("b")),
        ]);
        assert_eq!(
            record.longest_gap(),
            Gap {
                from: ms(6),
                length: ms(395)
            }
        );
        assert_eq!(record.last_loss(), Some(ms(15)));
        assert_eq!(
            record.to_string(),
            "6 asked, 4 answered, 1 no answer in time, 1 refused"
        );
        assert_eq!(record.answers(), BTreeMap::from([("a", 2), ("b", 2)]));
    }

    #[test]
    fn a_late_answer_counts_when_it_arrives() {
        // Asked before the fault, answered after it: nobody was served in between.
        let record = record(&[(0, 1, Ok("a")), (2, 200, Ok("a")), (190, 201, Ok("a"))]);
        assert_eq!(record.longest_gap().length, ms(199));
    }

    #[test]
    fn without_answers_there_is_no_gap_to_measure() {
        assert_eq!(
            record(&[(0, 9, Err(Silence::Timeout))]).longest_gap(),
            Gap::default()
        );
    }

    #[test]
    fn what_was_asked_later_stands_alone() {
        let record = record(&[(0, 1, Err(Silence::Other)), (5, 6, Ok("a"))]);
        assert!(record.since(ms(5)).lost().is_empty());
    }
}
