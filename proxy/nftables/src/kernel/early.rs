//! What the kernel holds, read while something else is waited for.

use std::thread::{self, JoinHandle};

use super::{Kernel, KernelError};
use crate::program::Program;

/// A reading on a thread of its own.
#[derive(Debug)]
pub(crate) struct Early {
    reading: JoinHandle<Result<(Kernel, Program), KernelError>>,
}

impl Early {
    /// Begins to read; none if there can be no thread: whoever needs it reads later then.
    pub(crate) fn begin(mut kernel: Kernel) -> Option<Self> {
        let reading = thread::Builder::new()
            .name("nftables".to_owned())
            .spawn(move || {
                let program = kernel.read()?;
                Ok((kernel, program))
            });
        Some(Self {
            reading: reading.ok()?,
        })
    }

    /// Waits until it is read; none if it could not be read, or if nf_tables has changed since.
    pub(crate) fn finish(self) -> Option<(Kernel, Program)> {
        let (mut kernel, program) = self.reading.join().ok()?.ok()?;
        kernel.is_as_known().ok()?.then_some((kernel, program))
    }
}
