//! Who answers for an address on the LAN, as the client hears it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::topology::{self, MOST_NODES, NodeNumber};

/// A MAC address that answered, and whose it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Answerer {
    /// The MAC address, lower case.
    pub mac: String,
    /// The node that has it, if it is a node's.
    pub node: Option<NodeNumber>,
}

impl fmt::Display for Answerer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(formatter, "{} ({node})", self.mac),
            None => formatter.write_str(&self.mac),
        }
    }
}

/// Asks for an address with one ARP request or neighbour solicitation and returns everybody who answers it.
pub fn who_has(client: &Namespace, address: IpAddr) -> Result<BTreeSet<Answerer>> {
    // Both programs fail when nobody answers, and what they wrote says so: no line with a MAC address.
    let output = match address {
        IpAddr::V4(address) => client
            .command("arping")
            // Two requests: the program ends at the first answer to a single one, and would miss a second answerer.
            .args([
                "-r",
                "-c",
                "2",
                "-W",
                "0.1",
                "-w",
                "1",
                "-i",
                topology::INTERFACE,
            ])
            .arg(address.to_string())
            .output()?,
        IpAddr::V6(address) => client
            .command("ndisc6")
            .args(["-q", "-n", "-m", "-r", "1", "-w", "200"])
            .arg(address.to_string())
            .arg(topology::INTERFACE)
            .output()?,
    };
    Ok(answerers(&String::from_utf8_lossy(&output.stdout)))
}

/// The only node that answers for an address; `None` if nobody does, or more than one, or a stranger.
pub fn announcer(client: &Namespace, address: IpAddr) -> Result<Option<NodeNumber>> {
    let answerers = who_has(client, address)?;
    let mut nodes = answerers.iter().map(|answerer| answerer.node);
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok(node),
        _ => Ok(None),
    }
}

fn answerers(text: &str) -> BTreeSet<Answerer> {
    text.split_whitespace()
        .filter(|word| word.len() == 17 && word.matches(':').count() == 5)
        .map(|mac| {
            let mac = mac.to_ascii_lowercase();
            Answerer {
                node: topology::nodes(MOST_NODES).find(|node| node.mac() == mac),
                mac,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nodes_by_their_macs() {
        let found = answerers("02:00:00:00:00:11\n02:00:00:00:00:11\n7E:0D:2F:66:02:3D\n");
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["02:00:00:00:00:11 (node-1)", "7e:0d:2f:66:02:3d"]);
        assert!(answerers("Timed out.\n").is_empty());
    }
}
