//! Foghorn's image, as the lab's nodes know it: a folder with a program for each of ours, and what a container runtime
//! does before it starts one.
//!
//! A node agent starts processes as it is itself: root of a user namespace. Here a container has the capabilities that its
//! manifest says and no others, and its `/run/foghorn` is that of its node, which in the lab is one folder for all.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::path::Path;

use anyhow::Result;

use crate::binaries::existing;
use crate::topology::NODES;

/// A program of an image, and the capabilities that the chart adds for it.
pub type ProgramOfImage = (&'static str, &'static [&'static str]);

/// The programs of the image.
pub const PROGRAMS: [ProgramOfImage; 3] = [
    ("controller", &[]),
    ("speaker", &["NET_RAW", "SYS_NICE", "IPC_LOCK"]),
    ("proxy", &["NET_ADMIN"]),
];

/// The programs of the image that has those of iptables too.
pub const PROGRAMS_WITH_IPTABLES: [ProgramOfImage; 3] = [
    PROGRAMS[0],
    PROGRAMS[1],
    ("proxy", &["NET_ADMIN", "NET_RAW"]),
];

/// Writes an image with `programs`, which are in the folder `from`, into the folder `image`, and makes the folders that nodes
/// give to Pods.
pub(crate) fn write(from: &Path, programs: &[ProgramOfImage], image: &Path) -> Result<()> {
    fs::create_dir(image)?;
    // hostPath of the Pods; each container finds its node's own there.
    fs::create_dir_all("/run/foghorn")?;
    fs::write("/run/xtables.lock", "")?;
    for node in NODES {
        fs::create_dir_all(format!("/run/foghorn-{node}"))?;
    }
    for (part, capabilities) in programs {
        let name = format!("foghorn-{part}");
        let program = existing(from.join(&name), "cargo build")?;
        let added: String = capabilities
            .iter()
            .map(|capability| format!(",+{}", capability.to_lowercase()))
            .collect();
        let text = format!(
            "#!/bin/sh\nset -e\n\
             [ -z \"$NODE_NAME\" ] || mount --bind \"/run/foghorn-$NODE_NAME\" /run/foghorn\n\
             exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{added} -- {} \"$@\"\n",
            program.display()
        );
        let file = image.join(&name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
