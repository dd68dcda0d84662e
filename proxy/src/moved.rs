//! VIPs that moved: segments of connections that this node does not know are sent on to the node that does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use config::snapshot::Snapshot;
use config_runtime::chain::Chain;
use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::data_plane::{PlaneError, Sent};
use crate::speaker_socket::Said;

/// What makes the kernel send segments on.
pub trait SendOn: Send + 'static {
    /// Makes it send segments to the VIPs that begin no connection and belong to none that it knows to these addresses,
    /// whatever it does now.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn settle(&mut self, goals: &BTreeMap<IpAddr, IpAddr>) -> Result<Sent, PlaneError>;
}

/// The node that knows the connections to a VIP that there are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Goal {
    /// Its address, in the family of the VIP.
    pub address: IpAddr,
    /// Whether its speaker is silent: then the whole node may be dead.
    pub silent: bool,
}

/// For each VIP of which the speaker knows where it came from, that node.
pub fn goals(said: &Said, snapshot: &Snapshot) -> BTreeMap<IpAddr, Goal> {
    let moved = said.moved.iter();
    moved
        .filter_map(|(vip, name)| {
            let node = snapshot.node(name)?;
            let reachable = |address: &&IpAddr| address.is_ipv4() == vip.is_ipv4();
            let goal = Goal {
                address: *node.internal_ips.iter().find(reachable)?,
                silent: said.silent.contains(name),
            };
            Some((*vip, goal))
        })
        .collect()
}

/// Where segments are sent, if the nodes with these addresses answer.
///
/// What is sent to a dead node is lost, where a reset lets the client begin anew. A silent node that answers lost its
/// speaker only: its kernel goes on with the connections that it has.
fn destinations(
    goals: &BTreeMap<IpAddr, Goal>,
    answering: &BTreeSet<IpAddr>,
) -> BTreeMap<IpAddr, IpAddr> {
    let alive = |goal: &&Goal| !goal.silent || answering.contains(&goal.address);
    let sent_on = goals.iter().filter(|(_, goal)| alive(goal));
    sent_on.map(|(vip, goal)| (*vip, goal.address)).collect()
}

/// Brings the kernel along for ever, also where somebody else removed what was there.
///
/// Nodes that are silent are asked whether they live by a connection to `port`: any answer will do.
pub async fn follow(
    mut goals: watch::Receiver<BTreeMap<IpAddr, Goal>>,
    mut kernel: impl SendOn,
    port: u16,
) {
    let mut failed = false;
    loop {
        let goals_now = goals.borrow_and_update().clone();
        let silent: BTreeSet<_> = goals_now
            .values()
            .filter(|goal| goal.silent)
            .map(|goal| goal.address)
            .collect();
        let answering = answering(&silent, port).await;
        let wanted = destinations(&goals_now, &answering);
        let outcome = tokio::task::block_in_place(|| kernel.settle(&wanted));
        match outcome {
            Ok(sent) => {
                failed = false;
                tracing::debug!(vips = wanted.len(), changed = sent.anything, "Sends on");
            }
            Err(error) if failed => {
                tracing::debug!(error = %Chain(&error), "Segments are still not sent on");
            }
            Err(error) => {
                failed = true;
                tracing::warn!(
                    error = %Chain(&error),
                    "Segments are not sent on: connections end when their address moves to this node"
                );
            }
        }
        let look = if answering.is_empty() {
            LOOK_INTERVAL
        } else {
            LOOK_INTERVAL_WHILE_SILENT
        };
        let look = Instant::now() + look;
        tokio::select! {
            changed = goals.changed() => if changed.is_err() {
                // The proxy is ending, and the rules stay.
                return std::future::pending().await;
            },
            () = tokio::time::sleep_until(look) => {}
        }
    }
}

/// Which of these addresses answer at once: a connection is as good as a refusal.
async fn answering(addresses: &BTreeSet<IpAddr>, port: u16) -> BTreeSet<IpAddr> {
    let asked = addresses.iter().map(|&address| async move {
        let connected = timeout(LONGEST_ANSWER, TcpStream::connect((address, port))).await;
        let answers = match connected {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
            Err(_) => false,
        };
        answers.then_some(address)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// How long a silent node is waited for: on a LAN, a kernel answers within a few milliseconds. Connections of a dead node are
/// sent on for this much longer.
const LONGEST_ANSWER: Duration = Duration::from_millis(50);
/// How often silent nodes that answer are asked again.
const LOOK_INTERVAL_WHILE_SILENT: Duration = Duration::from_secs(1);
/// How often the kernel is asked whether the rules are there.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use config::name::NodeName;
    use config::node::Node;
    use config::snapshot::{Change, Dirty};

    use super::*;

    fn parse(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_goal_is_an_address_of_a_node_that_is_known() {
        let mut snapshot = Snapshot::default();
        for (name, addresses) in [
            ("both", &["192.0.2.1", "2001:db8::1"][..]),
            ("v4", &["192.0.2.2"]),
            ("silent", &["192.0.2.3"]),
        ] {
            let node = Node {
                internal_ips: addresses.iter().map(|text| parse(text)).collect(),
                ..Node::default()
            };
            let change = Change::Node(name.into(), Some(node.into()));
            snapshot.apply(change, &mut Dirty::default());
        }
        for (vip, node, expected) in [
            ("192.0.2.240", "both", Some(("192.0.2.1", false))),
            ("2001:db8::240", "both", Some(("2001:db8::1", false))),
            ("2001:db8::240", "v4", None),
            ("192.0.2.240", "silent", Some(("192.0.2.3", true))),
            ("192.0.2.240", "unknown", None),
        ] {
            let said = Said {
                silent: [NodeName::from("silent")].into(),
                moved: [(parse(vip), NodeName::from(node))].into(),
                ..Said::default()
            };
            let found = goals(&said, &snapshot);
            let expected = expected.map(|(address, silent)| {
                let address = parse(address);
                (parse(vip), Goal { address, silent })
            });
            assert_eq!(found, expected.into_iter().collect(), "{vip} of {node}");
        }
    }

    #[test]
    fn a_silent_node_is_sent_to_only_while_it_answers() {
        let node = parse("192.0.2.1");
        let vip = parse("192.0.2.240");
        for (silent, answers, sent_on) in [
            (false, false, true),
            (false, true, true),
            (true, false, false),
            (true, true, true),
        ] {
            let goal = Goal {
                address: node,
                silent,
            };
            let answering = answers.then_some(node).into_iter().collect();
            let found = destinations(&[(vip, goal)].into(), &answering);
            assert_eq!(found.contains_key(&vip), sent_on, "{silent} {answers}");
        }
    }

    #[tokio::test]
    async fn who_accepts_or_refuses_a_connection_lives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let local = BTreeSet::from([parse("127.0.0.1")]);
        assert_eq!(answering(&local, port).await, local);
        drop(listener);
        assert_eq!(answering(&local, port).await, local);
        // The kernel knows no way for a connection there.
        let nobody = BTreeSet::from([parse("255.255.255.255")]);
        assert_eq!(answering(&nobody, port).await, BTreeSet::new());
    }
}
