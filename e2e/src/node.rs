//! A node: a network namespace on the LAN with the programs that run there.

use anyhow::{Context, Result};

use crate::machine::{FORWARDING, plug_in};
use crate::namespace::Namespace;
use crate::program::Program;
use crate::topology::NodeNumber;

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    /// Which one.
    pub number: NodeNumber,
    /// Runs the Pods that are bound to the node.
    pub agent: Option<Program>,
    /// Foghorn's speaker.
    pub speaker: Option<Program>,
    /// The service proxy, ours or kube-proxy.
    pub proxy: Option<Program>,
    /// Its network.
    pub namespace: Namespace,
}

impl Node {
    /// Plugs a new, empty node into the LAN.
    pub fn plug_in(number: NodeNumber) -> Result<Self> {
        let namespace = plug_in(
            &number.name(),
            &number.port(),
            &number.mac(),
            &format!("{}/24", number.ipv4()),
            &format!("{}/64", number.ipv6()),
        )?;
        namespace.set_parameters(FORWARDING)?;
        Ok(Self {
            number,
            agent: None,
            speaker: None,
            proxy: None,
            namespace,
        })
    }

    /// Foghorn's speaker, to do something to it.
    pub fn speaker_mut(&mut self) -> Result<&mut Program> {
        let number = self.number;
        let speaker = self.speaker.as_mut();
        speaker.with_context(|| format!("no speaker runs on {number}"))
    }

    /// The service proxy, to do something to it.
    pub fn proxy_mut(&mut self) -> Result<&mut Program> {
        let number = self.number;
        let proxy = self.proxy.as_mut();
        proxy.with_context(|| format!("no proxy runs on {number}"))
    }
}
