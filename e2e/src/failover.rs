//! One failover as the client sees it, and many of them in a table.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::{Question, Target};
use crate::faults::Direction;
use crate::lab::Lab;
use crate::manifest::TCP_PORT;
use crate::namespace::Namespace;
use crate::observer;
use crate::questions::at;
use crate::stream::{Pace, Record, Stream};
use crate::topology::NodeNumber;
use crate::wait;

/// How the announcing node goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Fault {
    /// Its cable is pulled: it sees the carrier go.
    LinkDown,
    /// It is cut off without seeing it, as behind a switch that dies.
    Silence,
    /// Its speaker is killed (SIGKILL); the rest of the node lives.
    SpeakerKilled,
    /// Its speaker stands still (SIGSTOP); the rest of the node lives.
    SpeakerPaused,
    /// Its speaker is asked to end (SIGTERM), as when it is upgraded.
    SpeakerEnded,
    /// It is excluded from load balancing by the label that Kubernetes has for that.
    Excluded,
    /// It is drained by its annotation, as `kubectl foghorn drain` does.
    Drained,
    /// Its proxy is killed (SIGKILL); the rules stay in the kernel.
    ProxyKilled,
    /// Its cable is pulled while the API server is away.
    LinkDownWithoutApi,
    /// Another node, which has a Pod of the Service and does not announce it, is cut off.
    PodsNodeSilent,
}

impl Fault {
    /// Whether the address must go to another node.
    fn moves(self) -> bool {
        !matches!(self, Self::ProxyKilled | Self::PodsNodeSilent)
    }

    /// Whether clients must notice nothing.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::SpeakerEnded | Self::Excluded | Self::Drained)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LinkDown => "link down at the announcing node",
            Self::Silence => "power-off: cut off, and it does not see it",
            Self::SpeakerKilled => "speaker killed (SIGKILL)",
            Self::SpeakerPaused => "speaker stopped (SIGSTOP)",
            Self::SpeakerEnded => "speaker ended (SIGTERM): planned",
            Self::Excluded => "node excluded by its label: planned",
            Self::Drained => "node drained: planned",
            Self::ProxyKilled => "proxy killed (SIGKILL)",
            Self::LinkDownWithoutApi => "link down, and no API server",
            Self::PodsNodeSilent => "a node that only runs Pods is cut off",
        })
    }
}

/// What happened in one trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Who announced the address before.
    pub before: NodeNumber,
    /// Who announces it after.
    pub after: NodeNumber,
    /// The longest time without any answer.
    pub gap: Duration,
    /// From the fault until the last question was asked that had no answer: endpoints on the dead node count here.
    pub disturbed: Duration,
    /// Everything that the client asked.
    pub record: Record,
}

/// Lets the node that announces `vip` die, measures, and repairs it.
pub fn trial(lab: &mut Lab, vip: IpAddr, fault: Fault) -> Result<Trial> {
    trial_at(lab, vip, fault, Pace::DENSE)
}

/// The same with a client that is more or less patient.
pub fn trial_at(lab: &mut Lab, vip: IpAddr, fault: Fault, pace: Pace) -> Result<Trial> {
    let target = Target::tcp(at(vip, TCP_PORT));
    let before = wait_for_announcer(lab, vip)?;
    let victim = match fault {
        Fault::PodsNodeSilent => other_node(lab, before)?,
        _ => before,
    };
    // What an earlier trial has sent to dead endpoints is remembered for two minutes, and a source port comes again.
    for node in &lab.nodes {
        forget_unanswered(&node.namespace)?;
    }
    let stream = Stream::start(&lab.client, target, Question::Hostname, pace)?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    let broken = stream.now();
    break_node(lab, victim, fault)?;
    let recovered = wait::until("the announcer after that", PATIENCE, || {
        let found = observer::announcer(&lab.client, vip)?;
        Ok(found.filter(|&node| !fault.moves() || node != before))
    });
    // What comes after the takeover belongs to the picture too, and if there is none, the time that one would take.
    let further = Duration::from_millis(if fault.moves() { 500 } else { 1500 });
    let after_takeover = stream.now() + further;
    let answered = stream.wait_for_answer(after_takeover, PATIENCE, |_| true);
    let record = stream.stop()?;
    repair_node(lab, victim, fault)?;
    let after = recovered.with_context(|| record.to_string())?;
    answered.with_context(|| record.to_string())?;
    // From a question that still had its answer: the gap begins with that.
    let record = record.since(SETTLED);
    Ok(Trial {
        before,
        after,
        gap: record.longest_gap().length,
        disturbed: record
            .last_loss()
            .map_or(Duration::ZERO, |last| last.saturating_sub(broken)),
        record,
    })
}

/// Lets the connection tracking forget the connections that were never answered, and no others: Pods remember for a minute
/// the connections that they closed, and a node that has forgotten them would give their ports to new ones.
fn forget_unanswered(node: &Namespace) -> Result<()> {
    let mut command = node.command("conntrack");
    let output = command
        .args(["-D", "-p", "tcp", "--state", "SYN_SENT"])
        .output()?;
    // It fails if there are none.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("flow entries have been deleted"), "{said}");
    Ok(())
}

/// Waits until exactly one node answers for an address.
pub fn wait_for_announcer(lab: &Lab, vip: IpAddr) -> Result<NodeNumber> {
    wait::until(
        &format!("one node that answers for {vip}"),
        PATIENCE,
        || observer::announcer(&lab.client, vip),
    )
}

fn break_node(lab: &mut Lab, node: NodeNumber, fault: Fault) -> Result<()> {
    match fault {
        Fault::LinkDown => lab.faults.link_down(node),
        Fault::Silence => cut_off(lab, node),
        Fault::SpeakerKilled => lab.node_mut(node)?.speaker_mut()?.kill(),
        Fault::SpeakerPaused => lab.node_mut(node)?.speaker_mut()?.pause(),
        Fault::SpeakerEnded => lab
            .node_mut(node)?
            .speaker_mut()?
            .terminate(PATIENCE)
            .map(drop),
        Fault::Excluded => label(lab, node, &format!("{EXCLUDED}=true")),
        Fault::Drained => annotate(lab, node, &format!("{DRAIN}=true")),
        Fault::ProxyKilled => lab.node_mut(node)?.proxy_mut()?.kill(),
        Fault::LinkDownWithoutApi => {
            lab.control_plane.api_server.pause()?;
            lab.faults.link_down(node)
        }
        Fault::PodsNodeSilent => cut_off(lab, node),
    }
}

fn cut_off(lab: &Lab, node: NodeNumber) -> Result<()> {
    lab.faults.lose(node, Direction::FromNode)?;
    lab.faults.lose(node, Direction::ToNode)
}

fn label(lab: &Lab, node: NodeNumber, label: &str) -> Result<()> {
    lab.kubectl
        .run(&["label", "node", &node.name(), "--overwrite", label])?;
    Ok(())
}

fn annotate(lab: &Lab, node: NodeNumber, annotation: &str) -> Result<()> {
    lab.kubectl
        .run(&["annotate", "node", &node.name(), "--overwrite", annotation])?;
    Ok(())
}

fn other_node(lab: &Lab, than: NodeNumber) -> Result<NodeNumber> {
    let mut others = lab.nodes.iter().map(|node| node.number);
    others
        .find(|&node| node != than)
        .context("there is one node only")
}

fn repair_node(lab: &mut Lab, node: NodeNumber, fault: Fault) -> Result<()> {
    match fault {
        Fault::LinkDown => lab.faults.link_up(node),
        Fault::Silence | Fault::PodsNodeSilent => lab.faults.lose_nothing(),
        Fault::SpeakerKilled | Fault::SpeakerEnded => {
            lab.node_mut(node)?.speaker_mut()?.start_again()
        }
        Fault::SpeakerPaused => lab.node_mut(node)?.speaker_mut()?.resume(),
        Fault::Excluded => label(lab, node, &format!("{EXCLUDED}-")),
        Fault::Drained => annotate(lab, node, &format!("{DRAIN}-")),
        Fault::ProxyKilled => lab.node_mut(node)?.proxy_mut()?.start_again(),
        Fault::LinkDownWithoutApi => {
            lab.control_plane.api_server.resume()?;
            lab.control_plane.wait_for_api_server()?;
            lab.faults.link_up(node)
        }
    }
}

/// The annotation that `kubectl foghorn drain` sets.
const DRAIN: &str = "foghorn.dev/drain";
/// `node.kubernetes.io/exclude-from-external-load-balancers` (KEP-1143).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The gaps of some trials in numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// All of them, the shortest first.
    sorted: Vec<Duration>,
}

impl Summary {
    /// The summary of these.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort();
        Self { sorted }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The smallest duration that at least half of them do not exceed.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The smallest duration that at least this share of them, in percent, do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100);
        let index = rank.saturating_sub(1);
        self.sorted.get(index).copied().unwrap_or_default()
    }

    /// The longest one.
    pub fn longest(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "p50 {:>4} ms, p99 {:>4} ms, max {:>4} ms, n = {}",
            self.median().as_millis(),
            self.percentile(99).as_millis(),
            self.longest().as_millis(),
            self.sorted.len()
        )
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
/// What the first questions of a stream meet (an empty neighbour cache) is not what is measured.
const SETTLED: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_middle_and_the_end() {
        let summary = Summary::of([40, 10, 30, 20].map(Duration::from_millis));
        assert_eq!(
            summary.to_string(),
            "p50   20 ms, p99   40 ms, max   40 ms, n = 4"
        );
        assert_eq!(
            Summary::of([]).to_string(),
            "p50    0 ms, p99    0 ms, max    0 ms, n = 0"
        );
        let many = Summary::of((1..=200).map(Duration::from_millis));
        assert_eq!(
            many.to_string(),
            "p50  100 ms, p99  198 ms, max  200 ms, n = 200"
        );
    }
}
