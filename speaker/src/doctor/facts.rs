//! What the kernel tells of this node: read from /proc and /sys, judged elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What is known of a node. What cannot be read is `None`, never a guess.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Its Ethernet interfaces, in the order of their names.
    pub interfaces: Vec<InterfaceFacts>,
    /// `net.ipv4.ip_forward`.
    pub forwards_ipv4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwards_ipv6: Option<bool>,
    /// Whether the interface of kube-proxy's IPVS mode is there.
    pub has_ipvs: bool,
    /// The processes that can be seen, as the kernel names them: those of the node only in its own process namespace.
    pub programs: BTreeSet<String>,
}

/// What is known of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// The bridge or bond that it is a port of.
    pub master: Option<String>,
    /// Whether it is up and the other end is there.
    pub has_carrier: bool,
    /// The `rp_filter` in force: the larger of the interface's and that of `all`.
    pub rp_filter: Option<u32>,
    /// The `arp_ignore` in force: the larger of the interface's and that of `all`.
    pub arp_ignore: Option<u32>,
}

/// What an interface is made of, as far as it matters on layer 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A radio.
    WiFi,
    /// A second MAC address on another interface.
    Macvlan,
    /// Several interfaces as one.
    Bond,
    /// Anything else: a card, a bridge, a VLAN, a veth.
    Other,
}

/// Reads what there is to read below `root`, which is `/` on a node.
pub fn gather(root: &Path) -> Facts {
    let net = root.join("sys/class/net");
    let names = entries(&net);
    let flag = |path: &str| number(&root.join("proc/sys/net").join(path)).map(|value| value != 0);
    Facts {
        interfaces: names
            .iter()
            .filter_map(|name| interface(root, &net.join(name), name))
            .collect(),
        forwards_ipv4: flag("ipv4/ip_forward"),
        forwards_ipv6: flag("ipv6/conf/all/forwarding"),
        has_ipvs: names.contains(IPVS_INTERFACE),
        programs: programs(&root.join("proc")),
    }
}

/// The interface in this folder, if it is one that could lead to a LAN: Ethernet, with a carrier that can be asked for.
fn interface(root: &Path, folder: &Path, name: &str) -> Option<InterfaceFacts> {
    let is_dummy = name == IPVS_INTERFACE;
    if is_dummy || number(&folder.join("type")) != Some(ARPHRD_ETHER) {
        return None;
    }
    let conf = root.join("proc/sys/net/ipv4/conf");
    let in_force = |setting: &str| {
        let own = number(&conf.join(name).join(setting))?;
        let all = number(&conf.join("all").join(setting))?;
        Some(own.max(all))
    };
    let master = fs::read_link(folder.join("master")).ok();
    Some(InterfaceFacts {
        name: name.to_owned(),
        kind: kind(folder),
        master: master.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
        // Reading it fails while the interface is down.
        has_carrier: number(&folder.join("carrier")) == Some(1),
        rp_filter: in_force("rp_filter"),
        arp_ignore: in_force("arp_ignore"),
    })
}

fn kind(folder: &Path) -> Kind {
    let uevent = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    let device = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="));
    match device {
        Some("wlan") => Kind::WiFi,
        Some("macvlan") => Kind::Macvlan,
        Some("bond") => Kind::Bond,
        _ => Kind::Other,
    }
}

fn programs(proc: &Path) -> BTreeSet<String> {
    let processes = entries(proc).into_iter();
    processes
        .filter(|name| name.bytes().all(|octet| octet.is_ascii_digit()))
        .filter_map(|process| fs::read_to_string(proc.join(process).join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// The names in a folder; none if it is not there.
fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn number(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The interface on which kube-proxy in IPVS mode puts the addresses of Services.
const IPVS_INTERFACE: &str = "kube-ipvs0";
/// `ARPHRD_ETHER` of linux/if_arp.h.
const ARPHRD_ETHER: u32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("sys/class/net/lo/type", "772\n"),
            ("sys/class/net/kube-ipvs0/type", "1\n"),
            ("sys/class/net/bond0/type", "1\n"),
            ("sys/class/net/bond0/carrier", "1\n"),
            (
                "sys/class/net/bond0/uevent",
                "DEVTYPE=bond\nINTERFACE=bond0\n",
            ),
            ("sys/class/net/eth0/type", "1\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
            ("proc/sys/net/ipv4/conf/bond0/rp_filter", "0\n"),
            ("proc/sys/net/ipv4/conf/all/arp_ignore", "0\n"),
            ("proc/sys/net/ipv4/conf/bond0/arp_ignore", "2\n"),
            ("proc/sys/net/ipv4/ip_forward", "0\n"),
            ("proc/7/comm", "keepalived\n"),
            ("proc/self/comm", "not-a-process\n"),
        ] {
            write(path, text);
        }
        symlink("../bond0", root.path().join("sys/class/net/eth0/master")).unwrap();
        let bond = InterfaceFacts {
            name: "bond0".to_owned(),
            kind: Kind::Bond,
            master: None,
            has_carrier: true,
            rp_filter: Some(1),
            arp_ignore: Some(2),
        };
        let port = InterfaceFacts {
            name: "eth0".to_owned(),
            kind: Kind::Other,
            master: Some("bond0".to_owned()),
            has_carrier: false,
            rp_filter: None,
            arp_ignore: None,
        };
        let expected = Facts {
            interfaces: vec![bond, port],
            forwards_ipv4: Some(false),
            forwards_ipv6: None,
            has_ipvs: true,
            programs: ["keepalived".to_owned()].into(),
        };
        assert_eq!(gather(root.path()), expected);
    }
}
