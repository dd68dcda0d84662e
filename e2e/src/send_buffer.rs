//! Lets `nft` send large messages in a user namespace.
//!
//! As root `nft` takes whatever send buffer it needs (`SO_SNDBUFFORCE`). In a user namespace the kernel refuses that, and
//! nft 1.0.6 then fails from about 100 Services on: `Message too long`. Newer releases fall back to `SO_SNDBUF`, which is
//! allowed up to `net.core.wmem_max`. This does so for the older ones. foghorn-proxy does it by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::Lab;
use crate::namespace::output;
use anyhow::Result;

/// The library to preload, made by the C compiler of the machine.
pub fn library(lab: &Lab) -> Result<PathBuf> {
    let library = lab.folder.path().join("send_buffer.so");
    if !library.exists() {
        let source = library.with_extension("c");
        fs::write(&source, SOURCE)?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]);
        output(command.arg(&library).arg(&source))?;
    }
    Ok(library)
}

const SOURCE: &str = r"
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int socket, int level, int option, const void *value, socklen_t length)
{
    int outcome = syscall(SYS_setsockopt, socket, level, option, value, length);
    if (outcome != 0 && level == SOL_SOCKET && option == SO_SNDBUFFORCE)
        outcome = syscall(SYS_setsockopt, socket, level, SO_SNDBUF, value, length);
    return outcome;
}
";
