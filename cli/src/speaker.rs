//! What speakers answer to `/status`, `/probe` and `/doctor`.

use std::net::IpAddr;

use serde::Deserialize;

/// The status of one speaker; fields that are not known here are passed over.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SpeakerStatus {
    /// Its node.
    pub node: String,
    /// What it knows of each address.
    pub addresses: Vec<AddressStatus>,
    /// The other speakers.
    pub peers: Vec<Peer>,
    /// The interfaces that it uses.
    pub interfaces: Vec<Interface>,
}

/// What a speaker knows of an address.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// The node that announces it.
    #[serde(default)]
    pub owner: Option<String>,
    /// For how long, in seconds.
    #[serde(default)]
    pub owned_for_seconds: Option<f64>,
    /// Where this node announces it, or would.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Where every candidate stands.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
}

/// An interface of a node.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
}

/// A node that may announce an address.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Where it stands, one word.
    pub standing: String,
    /// Why.
    pub reason: String,
}

/// Another speaker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Peer {
    /// Its node.
    pub node: String,
    /// Whether it is heard.
    pub heard: bool,
}

/// What a speaker answers to `/probe/ADDRESS`: who answers on the wire, as its node hears it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Its node.
    pub node: String,
    /// The address that was asked for.
    pub address: IpAddr,
    /// Whether the node itself announces it.
    #[serde(default)]
    pub is_owner: bool,
    /// What came of it on each interface.
    #[serde(default)]
    pub interfaces: Vec<ProbedInterface>,
}

/// What came of a probe on one interface.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ProbedInterface {
    /// Its name.
    pub name: String,
    /// The hardware addresses of other machines that answered.
    #[serde(default)]
    pub answers: Vec<String>,
    /// Why it could not ask.
    #[serde(default)]
    pub error: Option<String>,
}

impl Probe {
    /// Whether the question went out on an interface at least.
    pub fn was_asked(&self) -> bool {
        self.interfaces
            .iter()
            .any(|interface| interface.error.is_none())
    }

    /// The hardware addresses of other machines that answered.
    pub fn answers(&self) -> impl Iterator<Item = &str> {
        let answers = self.interfaces.iter();
        answers.flat_map(|interface| interface.answers.iter().map(String::as_str))
    }
}

/// What a speaker answers to `/doctor`: what it finds about its node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Examination {
    /// Its node.
    #[serde(default)]
    pub node: String,
    /// What it finds.
    #[serde(default)]
    pub findings: Vec<NodeFinding>,
}

/// Something that a speaker finds about its node.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct NodeFinding {
    /// `problem` or `note`.
    pub severity: String,
    /// What it is and what to do.
    pub message: String,
}
