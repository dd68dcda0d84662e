//! Who leads, as a machine with the time as an argument.
//!
//! The rules are those of client-go's leader election. What a lease says of times is for people only: a candidate
//! counts from when it *saw* the record change, on its own monotonic clock, so that clocks that disagree never make
//! two leaders.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// The times of an election.
///
/// Invariant of use: `retry < renew_deadline < duration`, each by a good margin, or two could lead at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// How long others wait after they last saw the record change.
    pub duration: Duration,
    /// How long the leader goes on leading after it last began to renew with success.
    pub renew_deadline: Duration,
    /// How long to wait between attempts.
    pub retry: Duration,
}

impl Default for Timing {
    /// 15, 10 and 2 seconds, the defaults of client-go.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a lease in the API says, without the times.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// Who leads; empty after a release.
    pub holder: String,
    /// How long others must wait after they saw a change.
    pub duration: Duration,
    /// How often the leader changed.
    pub transitions: i32,
    /// The version of the object; a write with another one is refused.
    pub version: String,
    /// Whatever changes when the holder renews.
    pub renewed: String,
}

/// What the shell must do for the machine, one thing at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Read the lease.
    Read,
    /// Create the lease with this candidate as the holder.
    Create(Claim),
    /// Replace the lease; refused if the version is no longer this one.
    Replace(Claim, String),
}

/// What is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Who leads; empty to release.
    pub holder: String,
    /// How long others must wait.
    pub duration: Duration,
    /// How often the leader changed.
    pub transitions: i32,
    /// Whether the holder is another one than before, so that its time begins now.
    pub acquired: bool,
}

/// How a request ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The lease as it is, read or just written.
    Lease(Record),
    /// There is no lease.
    Absent,
    /// It was refused, or nobody answered.
    Failed,
}

/// What became known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// This candidate leads.
    Elected,
    /// This candidate no longer leads.
    Deposed,
    /// Somebody else leads.
    Follows(String),
}

/// One candidate of an election.
#[derive(Clone, Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    /// The record as seen last, and when it was first seen like that.
    seen: Option<(Record, Instant)>,
    /// While leading: when the last renewal that succeeded began.
    leading_since_renewal: Option<Instant>,
    state: State,
    changes: std::collections::VecDeque<Change>,
    reported_holder: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// Nothing to do until then.
    Waiting(Instant),
    /// This request is due.
    Due(Request),
    /// This request was handed out then.
    Asked(Request, Instant),
    /// Takes no further part.
    Retired,
}

impl Elector {
    /// A candidate that begins at once.
    pub fn new(identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            seen: None,
            leading_since_renewal: None,
            state: State::Due(Request::Read),
            changes: std::collections::VecDeque::new(),
            reported_holder: None,
        }
    }

    /// The request that is due, once; the next one comes after its answer.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        match &self.state {
            State::Due(request) => {
                let request = request.clone();
                self.state = State::Asked(request.clone(), now);
                Some(request)
            }
            _ => None,
        }
    }

    /// What became known; call until `None`.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let wait = match self.state {
            State::Waiting(until) => Some(until),
            _ => None,
        };
        [wait, self.leads_until()].into_iter().flatten().min()
    }

    /// Until when this candidate leads without a further renewal; none if it does not lead.
    pub fn leads_until(&self) -> Option<Instant> {
        self.leading_since_renewal
            .map(|since| since + self.timing.renew_deadline)
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.leads_until().is_some_and(|until| until <= now) {
            self.depose();
        }
        if matches!(self.state, State::Waiting(until) if until <= now) {
            self.state = State::Due(self.next_request());
        }
    }

    /// The request that was handed out ended; `jitter` from 0 to 1 is chosen at random.
    pub fn handle_answer(&mut self, answer: Answer, now: Instant, jitter: f64) {
        let State::Asked(request, asked) = self.state.clone() else {
            return;
        };
        match (request, answer) {
            (_, Answer::Failed) => {
                // What is held may be another version by now: read before the next write.
                if let Some((record, _)) = &mut self.seen {
                    record.version.clear();
                }
                self.wait(now, jitter);
            }
            (Request::Read, Answer::Absent) => {
                self.seen = None;
                self.state = State::Due(Request::Create(self.claim(0, true)));
            }
            (_, Answer::Absent) => {
                self.seen = None;
                self.wait(now, jitter);
            }
            (Request::Read, Answer::Lease(record)) => {
                self.see(record, now);
                self.decide(now, jitter);
            }
            (Request::Create(_) | Request::Replace(..), Answer::Lease(record)) => {
                let holds = record.holder == self.identity;
                self.see(record, now);
                if holds {
                    // Counted from when it was sent: others may have seen it that early.
                    self.lead(asked);
                }
                self.wait(now, jitter);
            }
        }
        self.handle_timeout(now);
    }

    /// Takes no further part; the write that frees the lease at once, if this candidate leads.
    ///
    /// Call it after everything that the leader does has ended.
    pub fn handle_retirement(&mut self) -> Option<Request> {
        let led = self.leading_since_renewal.is_some();
        self.depose();
        self.state = State::Retired;
        let (record, _) = self.seen.as_ref()?;
        // Without the version, which nobody knows after a failure, a write is refused: then the lease runs out.
        if !led || record.version.is_empty() {
            return None;
        }
        let claim = Claim {
            holder: String::new(),
            duration: RELEASED,
            transitions: record.transitions,
            acquired: false,
        };
        Some(Request::Replace(claim, record.version.clone()))
    }

    fn next_request(&self) -> Request {
        match (&self.seen, self.leading_since_renewal) {
            // The leader writes without reading while it knows the version.
            (Some((record, _)), Some(_)) if !record.version.is_empty() => Request::Replace(
                self.claim(record.transitions, false),
                record.version.clone(),
            ),
            _ => Request::Read,
        }
    }

    fn claim(&self, transitions: i32, acquired: bool) -> Claim {
        Claim {
            holder: self.identity.clone(),
            duration: self.timing.duration,
            transitions,
            acquired,
        }
    }

    fn see(&mut self, record: Record, now: Instant) {
        if self.reported_holder.as_ref() != Some(&record.holder) {
            self.reported_holder = Some(record.holder.clone());
            if record.holder != self.identity && !record.holder.is_empty() {
                self.changes
                    .push_back(Change::Follows(record.holder.clone()));
            }
        }
        if record.holder != self.identity {
            self.depose();
        }
        match &mut self.seen {
            Some((seen, _)) if same_reign(seen, &record) => seen.version = record.version,
            _ => self.seen = Some((record, now)),
        }
    }

    /// The lease was read: claim it if it is free, ours, or has not changed for too long.
    fn decide(&mut self, now: Instant, jitter: f64) {
        let Some((record, since)) = &self.seen else {
            return;
        };
        let ours = record.holder == self.identity;
        let expired = *since + record.duration.max(RELEASED) <= now;
        if record.holder.is_empty() || ours || expired {
            let transitions = record.transitions.saturating_add(i32::from(!ours));
            let claim = self.claim(transitions, !ours);
            self.state = State::Due(Request::Replace(claim, record.version.clone()));
        } else {
            self.wait(now, jitter);
        }
    }

    fn lead(&mut self, since: Instant) {
        if self.leading_since_renewal.replace(since).is_none() {
            self.changes.push_back(Change::Elected);
        }
    }

    fn depose(&mut self) {
        if self.leading_since_renewal.take().is_some() {
            self.changes.push_back(Change::Deposed);
        }
    }

    fn wait(&mut self, now: Instant, jitter: f64) {
        let jitter = jitter.clamp(0.0, 1.0);
        // The leader keeps its pace; candidates spread over up to 1.2 times more, as in client-go.
        let stretch = if self.leading_since_renewal.is_some() {
            1.0
        } else {
            1.0 + 1.2 * jitter
        };
        self.state = State::Waiting(now + self.timing.retry.mul_f64(stretch));
    }
}

/// Whether nothing happened between two sights of a lease.
fn same_reign(one: &Record, other: &Record) -> bool {
    (&one.holder, &one.renewed, one.transitions)
        == (&other.holder, &other.renewed, other.transitions)
}

/// What a release leaves: the next candidate need not wait.
const RELEASED: Duration = Duration::from_secs(1);
