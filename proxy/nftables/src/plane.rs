//! The data plane as the proxy uses it.

use std::collections::BTreeMap;

use proxy_table::{ForwardingTable, TableChange};

use crate::kernel::{Early, Heard, Kernel, KernelError, Listener};
use crate::program::{Change, Forwarder, Mirror, Program};

/// What makes nf_tables forward as the table says.
///
/// After any error the next call has to be [`Self::settle`].
#[derive(Debug)]
pub struct Nftables {
    kernel: Kernel,
    /// What the kernel held when this was opened, read meanwhile; the first that settles takes it.
    early: Option<Early>,
    forwarder: Forwarder,
    mirror: Mirror,
    ears: Ears,
}

/// Whether somebody else changes our tables.
#[derive(Debug)]
enum Ears {
    /// Nobody has looked yet, or listening is not possible here.
    Deaf,
    /// All is heard that is said.
    Open(Listener),
    /// Somebody did, or may have.
    Disturbed,
}

impl Nftables {
    /// Opens the nf_tables of this network namespace; nothing is changed.
    ///
    /// What is there is read at once, on a thread of its own: the kernel takes seconds to show 100 000 Services, for it
    /// walks a set from its beginning for each 32 KiB of it, and meanwhile the API server can be asked.
    ///
    /// # Errors
    /// If the kernel has none or the process may not change it.
    pub fn open() -> Result<Self, KernelError> {
        let kernel = Kernel::open()?;
        Ok(Self {
            kernel,
            early: Early::begin(Kernel::open()?),
            forwarder: Forwarder::Rules,
            mirror: Mirror::default(),
            ears: Ears::Deaf,
        })
    }

    /// Says who sends flows to their endpoints, for when it is settled the next time.
    pub fn forward_by(&mut self, forwarder: Forwarder) {
        self.forwarder = forwarder;
    }

    /// Whether this kernel has nf_tables and the process may ask it; nothing is changed.
    ///
    /// # Errors
    /// If it has none, or refuses.
    pub fn answers() -> Result<(), KernelError> {
        Kernel::open()?.is_as_known().map(drop)
    }

    /// Whether the nf_tables of this kernel can do all that we need, and the process may have it done; nothing is changed.
    ///
    /// # Errors
    /// What it has not, or refuses.
    pub fn probe() -> Result<(), KernelError> {
        Self::answers()?;
        Kernel::open()?.rehearse()
    }

    /// Makes the kernel hold what the table says, whatever it holds now; whether anything had to be sent.
    ///
    /// # Errors
    /// If the kernel cannot be read or refuses the difference.
    pub fn settle(&mut self, table: &ForwardingTable) -> Result<bool, KernelError> {
        self.ears = Ears::Deaf;
        let mut held = self.read()?;
        let change = held.diff(&Program::compile_for(table, &self.forwarder));
        if let Some(change) = &change {
            self.kernel.apply(change)?;
            held.apply(change);
        }
        self.mirror = Mirror::new(table, &held, &self.forwarder);
        self.listen()?;
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
        let Some(change) = change else {
            return Ok(false);
        };
        if change.elements() > MOST_HEARD {
            self.hear();
            self.apply_unheard(&change)?;
        } else {
            self.kernel.apply(&change)?;
            // What was said of this change is out of the way then.
            self.hear();
        }
        Ok(true)
    }

    /// Whether somebody else has changed our tables since they were settled, or may have; only [`Self::settle`] ends it.
    pub fn is_disturbed(&mut self) -> bool {
        self.hear();
        match self.ears {
            Ears::Open(_) => false,
            Ears::Disturbed => true,
            Ears::Deaf => !self.kernel.has_known_tables(),
        }
    }

    /// What the kernel should hold for the table, in lines for people, chain by chain, and the elements.
    pub fn describe(&self, table: &ForwardingTable) -> BTreeMap<String, Vec<String>> {
        Program::compile_for(table, &self.forwarder).describe()
    }

    /// What the kernel holds: what was read early, if that is still so.
    fn read(&mut self) -> Result<Program, KernelError> {
        if let Some((kernel, program)) = self.early.take().and_then(Early::finish) {
            self.kernel = kernel;
            return Ok(program);
        }
        self.kernel.read()
    }

    /// Applies a change that is too long to be listened to.
    fn apply_unheard(&mut self, change: &Change) -> Result<(), KernelError> {
        let listened = matches!(self.ears, Ears::Open(_));
        if listened {
            self.ears = Ears::Deaf;
        }
        self.kernel.apply(change)?;
        if listened {
            self.listen()?;
        }
        Ok(())
    }

    /// Begins to listen. What somebody did between our last change and this is noticed by the generation.
    fn listen(&mut self) -> Result<(), KernelError> {
        self.ears = match Listener::open() {
            Ok(listener) if self.kernel.is_as_known()? => Ears::Open(listener),
            Ok(_) => Ears::Disturbed,
            Err(_) => Ears::Deaf,
        };
        Ok(())
    }

    fn hear(&mut self) {
        if let Ears::Open(listener) = &mut self.ears
            && listener.hear(self.kernel.port()) != Heard::Nothing
        {
            self.ears = Ears::Disturbed;
        }
    }

    /// Removes everything of ours; whether there was anything.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove() -> Result<bool, KernelError> {
        Kernel::open()?.remove()
    }
}

/// How many elements of one change may be listened to: their messages fit into a socket's buffer.
const MOST_HEARD: usize = 200;
