//! VIPs that moved: segments of connections that this node does not know are sent on to the node that does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use config::snapshot::Snapshot;
use config_runtime::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

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

/// For each VIP of which the speaker knows where it came from, the address of that node in the family of the VIP.
///
/// What is sent to a silent node is lost, where a reset lets the client begin anew: nothing is sent to those.
pub fn goals(said: &Said, snapshot: &Snapshot) -> BTreeMap<IpAddr, IpAddr> {
    let heard = said
        .moved
        .iter()
        .filter(|(_, node)| !said.silent.contains(*node));
    heard
        .filter_map(|(vip, name)| {
            let node = snapshot.node(name)?;
            let reachable = |address: &&IpAddr| address.is_ipv4() == vip.is_ipv4();
            Some((*vip, *node.internal_ips.iter().find(reachable)?))
        })
        .collect()
}

/// Brings the kernel along for ever, also where somebody else removed what was there.
pub async fn follow(mut goals: watch::Receiver<BTreeMap<IpAddr, IpAddr>>, mut kernel: impl SendOn) {
    let mut failed = false;
    loop {
        let wanted = goals.borrow_and_update().clone();
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
        let look = Instant::now() + LOOK_INTERVAL;
        tokio::select! {
            changed = goals.changed() => if changed.is_err() {
                // The proxy is ending, and the rules stay.
                return std::future::pending().await;
            },
            () = tokio::time::sleep_until(look) => {}
        }
    }
}

/// How often the kernel is asked whether the rules are there.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use config::name::NodeName;
    use config::node::Node;
    use config::snapshot::{Change, Dirty};

    use super::*;

    #[test]
    fn a_goal_is_an_address_of_a_node_that_is_known_and_not_silent() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
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
            ("192.0.2.240", "both", Some("192.0.2.1")),
            ("2001:db8::240", "both", Some("2001:db8::1")),
            ("2001:db8::240", "v4", None),
            ("192.0.2.240", "silent", None),
            ("192.0.2.240", "unknown", None),
        ] {
            let said = Said {
                silent: [NodeName::from("silent")].into(),
                moved: [(parse(vip), NodeName::from(node))].into(),
            };
            let found = goals(&said, &snapshot);
            let expected = expected.map(|address| (parse(vip), parse(address)));
            assert_eq!(found, expected.into_iter().collect(), "{vip} of {node}");
        }
    }
}
