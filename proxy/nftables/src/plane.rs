//! The data plane as the proxy uses it.

use proxy_table::{ForwardingTable, TableChange};

use crate::kernel::{Kernel, KernelError};
use crate::program::{Mirror, Program};

/// What makes nf_tables forward as the table says.
///
/// After any error the next call has to be [`Self::settle`].
#[derive(Debug)]
pub struct Nftables {
    kernel: Kernel,
    mirror: Mirror,
}

impl Nftables {
    /// Opens the nf_tables of this network namespace; nothing is changed.
    ///
    /// # Errors
    /// If the kernel has none or the process may not change it.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            kernel: Kernel::open()?,
            mirror: Mirror::default(),
        })
    }

    /// Makes the kernel hold what the table says, whatever it holds now; whether anything had to be sent.
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses the difference.
    pub fn settle(&mut self, table: &ForwardingTable) -> Result<bool, KernelError> {
        let mut held = self.kernel.read()?;
        let change = held.diff(&Program::compile(table));
        if let Some(change) = &change {
            self.kernel.apply(change)?;
            held.apply(change);
        }
        self.mirror = Mirror::new(table, &held);
        Ok(change.is_some())
    }

    /// Sends the changes that made the table what it is; whether anything had to be sent.
    ///
    /// # Errors
    /// If the kernel refuses them, or somebody else changed our tables.
    pub fn update(
        &mut self,
        table: &ForwardingTable,
        changes: &[TableChange],
    ) -> Result<bool, KernelError> {
        let change = self.mirror.update(table, changes);
        if let Some(change) = &change {
            self.kernel.apply(change)?;
        }
        Ok(change.is_some())
    }

    /// Removes everything of ours; whether there was anything.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove() -> Result<bool, KernelError> {
        Kernel::open()?.remove()
    }
}
