//! The seam between the shell and what in the kernel forwards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proxy_table::{ForwardingTable, TableChange};

/// What makes the kernel forward as the table says.
///
/// The shell calls it on a thread that may block. After an error it calls [`Self::settle`], which trusts nothing.
pub trait DataPlane: Send + 'static {
    /// Makes the kernel hold what the table says, whatever it holds now: reads it back and sends the difference.
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses the difference.
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError>;

    /// Sends the changes that made the table what it is, in order, all or none.
    ///
    /// # Errors
    /// If the kernel refuses them.
    fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<Sent, PlaneError>;

    /// Whether what the last sync brought forwards an address of the table: not so if the machine lacks what its family takes, or
    /// the kernel refused it alone.
    fn forwards(&self, _address: IpAddr) -> bool {
        true
    }

    /// Whether the kernel still has the rules as we left them, as far as is known: a look takes no time to speak of, or is had
    /// so seldom that it takes one part in fifty of it. Changes wait meanwhile. What cannot be looked at counts as intact.
    fn is_intact(&mut self) -> bool;

    /// What the kernel should hold for the table, for people who look into a running proxy: rules, elements, servers.
    fn describe(&self, table: &ForwardingTable) -> Description;
}

/// Lines for people, in parts that have names.
pub type Description = BTreeMap<String, Vec<String>>;

/// How much was sent to the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// Whether anything was.
    pub anything: bool,
}

/// Why the kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("failed to change the rules in the kernel")]
pub struct PlaneError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What became of a sync, for the seam.
pub fn sent<E>(anything: Result<bool, E>) -> Result<Sent, PlaneError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match anything {
        Ok(anything) => Ok(Sent { anything }),
        Err(error) => Err(PlaneError(Box::new(error))),
    }
}
