//! What speakers answer to `/status`.

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
