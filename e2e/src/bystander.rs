//! A client that asks all the time, and what it must not notice: whatever somebody else does meanwhile, it loses no answer,
//! the right Pods answer, and no address moves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::capture::Capture;
use crate::client::{Question, Target};
use crate::failover::wait_for_announcer;
use crate::lab::Lab;
use crate::manifest::TCP_PORT;
use crate::observer;
use crate::questions::at;
use crate::stream::{Pace, Record, Stream};
use crate::topology::{NODES, NodeNumber};

/// Somebody who asks each of some addresses all the time.
#[derive(Debug)]
pub struct Bystander {
    streams: BTreeMap<IpAddr, Stream>,
    owners: BTreeMap<IpAddr, NodeNumber>,
    capture: Capture,
}

impl Bystander {
    /// Begins to ask from the outside client, and remembers who announces what.
    pub fn start(lab: &Lab, vips: &[IpAddr]) -> Result<Self> {
        let mut bystander = Self {
            streams: BTreeMap::new(),
            owners: BTreeMap::new(),
            capture: Capture::start(&lab.client)?,
        };
        for &vip in vips {
            bystander.owners.insert(vip, wait_for_announcer(lab, vip)?);
            let target = Target::tcp(at(vip, TCP_PORT));
            let stream = Stream::start(&lab.client, target, Question::Hostname, PACE)?;
            bystander.streams.insert(vip, stream);
        }
        for stream in bystander.streams.values() {
            stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
        }
        Ok(bystander)
    }

    /// The time on the clock of this address's record: each counts from its own start.
    pub fn now(&self, vip: IpAddr) -> Result<Duration> {
        let stream = self.streams.get(&vip);
        Ok(stream.with_context(|| format!("nobody asks {vip}"))?.now())
    }

    /// Stops; what each address answered, if the addresses are where they were.
    pub fn stop(self, lab: &Lab) -> Result<BTreeMap<IpAddr, Record>> {
        let mut records = BTreeMap::new();
        for (vip, stream) in self.streams {
            stream.wait_for_answer(stream.now(), PATIENCE, |_| true)?;
            records.insert(vip, stream.stop()?.since(SETTLED));
        }
        for (&vip, &owner) in &self.owners {
            let found = observer::announcer(&lab.client, vip)?;
            ensure!(found == Some(owner), "{vip} was at {owner}, now {found:?}");
            // Nor was it elsewhere in between.
            for other in NODES.into_iter().filter(|&other| other != owner) {
                let count = self.capture.announcements(vip, &other.mac());
                ensure!(count == 0, "{vip} of {owner} was announced by {other}");
            }
        }
        Ok(records)
    }
}

/// Runs `work`, of which the bystander must notice nothing.
pub fn unnoticed<T>(
    lab: &mut Lab,
    vips: &[IpAddr],
    what: &str,
    work: impl FnOnce(&mut Lab) -> Result<T>,
) -> Result<T> {
    let bystander = Bystander::start(lab, vips)?;
    let done = work(lab)?;
    for (vip, record) in bystander.stop(lab)? {
        let losses: Vec<_> = record.losses().take(5).collect();
        ensure!(
            losses.is_empty(),
            "{what}: {vip} lost answers: {record}; {losses:?}"
        );
        let mut strangers = record.answers().into_keys();
        let stranger = strangers.find(|pod| !pod.starts_with("web-"));
        ensure!(
            stranger.is_none(),
            "{what}: {vip} was answered by {stranger:?}"
        );
    }
    Ok(done)
}

/// A question that waits for a segment that is sent again, which takes a second, is lost.
const PACE: Pace = Pace {
    interval: Duration::from_millis(20),
    patience: Duration::from_millis(900),
};
/// What the first questions meet (empty neighbour caches) is of no interest.
const SETTLED: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
