//! Nodes whose kernel has IPv6, and whose iptables has not: see `make test-kernel`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, and what it is made of"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use config::address::IpFamily;
use config::name::NodeName;
use nix::sched::{CloneFlags, unshare};
use proxy_iptables::{Backend, Found, Iptables, Kernel, LacksIpv6, Mark, Program};
use proxy_table::{ForwardingTable, NodeContext};

#[test]
#[ignore = "needs namespaces of its own: run `make test-kernel`"]
fn where_iptables_has_no_ipv6_ipv4_is_served_alone_until_it_has() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for (backend, infix) in [(Backend::Nft, "nft"), (Backend::Legacy, "legacy")] {
        let folder = Programs::new(infix);
        let context = NodeContext::new(NodeName::from("node-1"));
        let table = ForwardingTable::new(context.into());
        let mut plane = folder.open(backend);
        plane.settle(&table).unwrap();
        assert!(matches!(
            plane.lacks_ipv6(),
            Some(LacksIpv6::NotInstalled { .. })
        ));
        assert_eq!(
            families(&folder.kernel(backend).read().unwrap()),
            [IpFamily::V4]
        );
        assert!(plane.is_as_left().unwrap());

        folder.refuse_ipv6();
        let mut plane = folder.open(backend);
        plane.settle(&table).unwrap();
        assert!(!plane.forwards("2001:db8::1".parse().unwrap()));
        assert!(plane.forwards("192.0.2.1".parse().unwrap()));
        let lacks = plane.lacks_ipv6().unwrap();
        assert!(matches!(lacks, LacksIpv6::Refused(_)), "{lacks}");
        assert!(plane.is_as_left().unwrap());

        folder.have_ipv6();
        assert!(!plane.is_as_left().unwrap(), "IPv6 can be had now");
        plane.settle(&table).unwrap();
        assert!(plane.lacks_ipv6().is_none() && plane.forwards("2001:db8::1".parse().unwrap()));
        let held = folder.kernel(backend).read().unwrap();
        assert_eq!(families(&held), [IpFamily::V4, IpFamily::V6]);
        assert!(Iptables::remove(Some(backend.other())).unwrap());
    }
}

/// The families that have something of ours.
fn families(program: &Program) -> Vec<IpFamily> {
    let families = program.families.iter();
    let families = families.filter(|(_, rules)| !rules.chains.is_empty());
    families.map(|(family, _)| *family).collect()
}

/// A folder with the programs of one back end, at first those of IPv4 alone.
struct Programs {
    folder: PathBuf,
    infix: &'static str,
}

impl Programs {
    fn new(infix: &'static str) -> Self {
        let folder = std::env::temp_dir().join(format!("lacking-{infix}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let programs = Self { folder, infix };
        for ending in ENDINGS {
            programs.link("iptables", ending);
        }
        programs
    }

    fn open(&self, backend: Backend) -> Iptables {
        let mark = Mark(0x4000.try_into().unwrap());
        Iptables::new(self.kernel(backend), mark)
    }

    fn kernel(&self, backend: Backend) -> Kernel {
        let folders = [self.folder.clone()];
        Kernel::new(Found::find_in(&folders, Some(backend)).unwrap())
    }

    /// As the legacy programs do where the kernel's module is not there.
    fn refuse_ipv6(&self) {
        for ending in ["-save", "-restore"] {
            let file = self.file("ip6tables", ending);
            let script = "#!/bin/sh\necho \"unable to initialize table 'nat'\" >&2\nexit 3\n";
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn have_ipv6(&self) {
        for ending in ["-save", "-restore"] {
            fs::remove_file(self.file("ip6tables", ending)).unwrap();
        }
        for ending in ENDINGS {
            self.link("ip6tables", ending);
        }
    }

    fn link(&self, family: &str, ending: &str) {
        let name = format!("{family}-{}{ending}", self.infix);
        symlink(Path::new("/usr/sbin").join(name), self.file(family, ending)).unwrap();
    }

    fn file(&self, family: &str, ending: &str) -> PathBuf {
        let infix = self.infix;
        self.folder.join(format!("{family}-{infix}{ending}"))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const ENDINGS: [&str; 3] = ["", "-save", "-restore"];
