//! The kernel's switches without which forwarding does not work, checked and said, not silently assumed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A switch and the value that it should have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sysctl {
    /// Name with slashes, below `/proc/sys`.
    pub name: &'static str,
    /// What it should be.
    pub wanted: &'static str,
    /// What does not work otherwise.
    pub otherwise: &'static str,
}

/// Those that every node needs; without IPv6 in the kernel, the last one is absent.
pub const FORWARDING: [Sysctl; 2] = [
    Sysctl {
        name: "net/ipv4/ip_forward",
        wanted: "1",
        otherwise: "packets for Pods on other nodes are not forwarded",
    },
    Sysctl {
        name: "net/ipv6/conf/all/forwarding",
        wanted: "1",
        otherwise: "IPv6 packets for Pods on other nodes are not forwarded",
    },
];

/// Asked for by `--conntrack-tcp-be-liberal`.
pub const BE_LIBERAL: Sysctl = Sysctl {
    name: "net/netfilter/nf_conntrack_tcp_be_liberal",
    wanted: "1",
    otherwise: "segments outside the window end connections with a reset",
};

/// What was found and done.
#[derive(Debug)]
pub enum Found {
    /// It had the value.
    AsWanted,
    /// It had another value and has the wanted one now.
    Set {
        /// The former value.
        before: String,
    },
    /// It has another value, which could not be changed.
    Refused {
        /// The value.
        found: String,
        /// Why it stays.
        error: io::Error,
    },
    /// The kernel has no such switch.
    Absent,
}

/// Sets a switch if it has not the wanted value.
pub fn ensure(sysctl: Sysctl) -> Found {
    ensure_below(Path::new("/proc/sys"), sysctl)
}

fn ensure_below(root: &Path, sysctl: Sysctl) -> Found {
    let path: PathBuf = root.join(sysctl.name);
    let found = match fs::read_to_string(&path) {
        Ok(found) => found.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Absent,
        Err(error) => {
            let found = "unreadable".to_owned();
            return Found::Refused { found, error };
        }
    };
    if found == sysctl.wanted {
        return Found::AsWanted;
    }
    match fs::write(&path, sysctl.wanted) {
        Ok(()) => Found::Set { before: found },
        Err(error) => Found::Refused { found, error },
    }
}

/// Sets the switches and says in the log what was found.
pub fn ensure_all(sysctls: &[Sysctl]) {
    for sysctl in sysctls {
        match ensure(*sysctl) {
            Found::Absent => tracing::debug!(%sysctl, "Sysctl does not exist here"),
            found => say(*sysctl, found),
        }
    }
}

/// Sets a switch that somebody asked for, and so expects to be there.
pub fn ensure_asked_for(sysctl: Sysctl) {
    say(sysctl, ensure(sysctl));
}

fn say(sysctl: Sysctl, found: Found) {
    let (wanted, otherwise) = (sysctl.wanted, sysctl.otherwise);
    match found {
        Found::AsWanted => tracing::debug!(%sysctl, "Sysctl is as it should be"),
        Found::Absent => tracing::warn!(
            %sysctl, wanted, otherwise,
            "Sysctl does not exist here although it was asked for: load the module nf_conntrack and restart the proxy"
        ),
        Found::Set { before } => tracing::info!(%sysctl, before, now = wanted, "Set sysctl"),
        Found::Refused { found, error } => tracing::warn!(
            %sysctl, found, wanted, %error, otherwise,
            "Sysctl is not as it should be and could not be set"
        ),
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name.replace('/', "."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_what_differs_and_says_what_it_found() {
        let root = tempfile::tempdir().unwrap();
        let [sysctl, absent] = FORWARDING;
        let path = root.path().join(sysctl.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "0\n").unwrap();
        assert!(
            matches!(ensure_below(root.path(), sysctl), Found::Set { before } if before == "0")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
        assert!(matches!(ensure_below(root.path(), sysctl), Found::AsWanted));
        assert!(matches!(ensure_below(root.path(), absent), Found::Absent));
        assert_eq!(sysctl.to_string(), "net.ipv4.ip_forward");
    }
}
