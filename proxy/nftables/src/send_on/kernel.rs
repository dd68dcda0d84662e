//! The table in the kernel.

use std::collections::BTreeMap;

use config::address::IpFamily;

use super::{Difference, Goals, MOVED, MOVED_VIPS, TABLE, chains, element, member, shapes};
use crate::kernel::KernelError;
use crate::kernel::socket::{Socket, SocketError};
use crate::netlink::attribute::find;
use crate::netlink::message::{Batch, GET_TABLE};
use crate::program::FAMILIES;
use crate::program::schema::family_number;

/// What sends on in this network namespace: a table in each family that has VIPs to send on for, and none else.
///
/// All calls block, for as long as the kernel works on them.
#[derive(Debug)]
pub struct SendOn {
    socket: Socket,
    held: BTreeMap<IpFamily, Held>,
}

/// A table that we made.
#[derive(Debug)]
struct Held {
    /// A table made anew does not share it.
    handle: u64,
    goals: Goals,
}

impl SendOn {
    /// Opens the nf_tables of this network namespace; nothing is changed.
    ///
    /// # Errors
    /// If the kernel has none or the process may not change it.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::open()?;
        let held = BTreeMap::new();
        Ok(Self { socket, held })
    }

    /// Makes the kernel send on as wanted; whether anything had to be sent.
    ///
    /// A table that is not the one we made last, as one of an earlier process, is made anew.
    ///
    /// # Errors
    /// If the kernel refuses, for the first family for which it does.
    pub fn settle(&mut self, wanted: &Goals) -> Result<bool, KernelError> {
        let outcomes = FAMILIES.map(|family| self.settle_family(family, &wanted.of(family)));
        let mut sent = false;
        for outcome in outcomes {
            sent |= outcome?;
        }
        Ok(sent)
    }

    /// Removes the tables; whether there were any.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove() -> Result<bool, KernelError> {
        Self::open()?.settle(&Goals::default())
    }

    fn settle_family(&mut self, family: IpFamily, wanted: &Goals) -> Result<bool, SocketError> {
        // After an error nothing is known.
        let held = self.held.remove(&family);
        let found = self.handle(family)?;
        let ours = held.filter(|held| Some(held.handle) == found);
        let batch = match (&ours, found) {
            (_, None) if wanted.is_empty() => return Ok(false),
            (Some(held), _) if !wanted.is_empty() => {
                let difference = held.goals.diff(wanted);
                (!difference.is_empty()).then(|| change(family, &difference))
            }
            _ => Some(renew(family, found.is_some(), wanted)),
        };
        let sent = batch.is_some();
        if let Some(batch) = batch {
            self.socket.commit(batch)?;
        }
        if !wanted.is_empty() {
            let handle = match ours {
                Some(held) => held.handle,
                None => self.handle(family)?.unwrap_or_default(),
            };
            let goals = wanted.clone();
            self.held.insert(family, Held { handle, goals });
        }
        Ok(sent)
    }

    /// The handle of the table, if it is there.
    fn handle(&mut self, family: IpFamily) -> Result<Option<u64>, SocketError> {
        let number = family_number(family);
        let table = self
            .socket
            .get(GET_TABLE, number, |writer| writer.text(1, TABLE))?;
        let handle = |table: Vec<u8>| Some(u64::from_be_bytes(*find(&table, 4)?.first_chunk()?));
        Ok(table.map(|table| handle(table).unwrap_or_default()))
    }
}

fn change(family: IpFamily, difference: &Difference) -> Batch {
    let number = family_number(family);
    let mut batch = Batch::new(None);
    let removed = || difference.removed.iter();
    let members = removed().map(|vip| member(*vip));
    batch.delete_elements(number, TABLE, MOVED_VIPS, members);
    let elements = removed().map(|vip| element(*vip, None));
    batch.delete_elements(number, TABLE, MOVED, elements);
    add(&mut batch, number, difference);
    batch
}

fn add(batch: &mut Batch, number: u8, difference: &Difference) {
    let added = || difference.added.iter();
    let members = added().map(|(vip, _)| member(*vip));
    batch.new_elements(number, TABLE, MOVED_VIPS, members);
    let elements = added().map(|(vip, node)| element(*vip, Some(*node)));
    batch.new_elements(number, TABLE, MOVED, elements);
}

/// Removes the table if it is there, and makes it anew if anything is to be sent on.
fn renew(family: IpFamily, exists: bool, wanted: &Goals) -> Batch {
    let number = family_number(family);
    let mut batch = Batch::new(None);
    if exists {
        batch.delete_table(number, TABLE);
    }
    if wanted.is_empty() {
        return batch;
    }
    batch.new_table(number, TABLE, false);
    for (shape, remarks) in shapes(family) {
        batch.new_set(number, TABLE, &shape, remarks);
    }
    add(&mut batch, number, &Goals::default().diff(wanted));
    for (chain, hook, rules) in chains(family) {
        batch.new_chain(number, TABLE, chain, hook);
        for rule in rules {
            batch.new_rule(number, TABLE, chain, &rule);
        }
    }
    batch
}
