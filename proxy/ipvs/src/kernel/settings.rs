//! The kernel's switches that IPVS needs, and what they were before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// A switch, and what it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Setting {
    name: &'static str,
    path: &'static str,
    wanted: u32,
    /// Whether a greater value will do.
    or_more: bool,
}

/// Those of every node.
///
/// What is routed to the node must not be told to the LAN: ARP is answered only for addresses of the interface that is
/// asked (`arp_ignore`), and no question of ours has another source (`arp_announce`). Connections of IPVS are known to
/// conntrack, or nothing could be masqueraded. Connections to a real server that is gone end with their next packet, and
/// clients do not stay with one that ends.
pub(crate) const SETTINGS: [Setting; 5] = [
    setting("arp_ignore", "net/ipv4/conf/all/arp_ignore", 1, true),
    setting("arp_announce", "net/ipv4/conf/all/arp_announce", 2, true),
    setting("conntrack", "net/ipv4/vs/conntrack", 1, true),
    setting("nodest", "net/ipv4/vs/expire_nodest_conn", 1, true),
    setting(
        "quiescent",
        "net/ipv4/vs/expire_quiescent_template",
        1,
        true,
    ),
];

const fn setting(name: &'static str, path: &'static str, wanted: u32, or_more: bool) -> Setting {
    Setting {
        name,
        path,
        wanted,
        or_more,
    }
}

/// A switch that could not be read or set.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
#[error("sysctl {name} is {found} and has to be {wanted}: it could not be set")]
pub struct SettingError {
    pub name: String,
    pub found: String,
    pub wanted: u32,
    #[source]
    pub source: io::Error,
}

/// What every switch is.
pub(crate) fn read(root: &Path) -> Result<Before, SettingError> {
    let mut before = Before::default();
    for setting in SETTINGS {
        let found = fs::read_to_string(root.join(setting.path));
        let found = found.map_err(|error| setting.failed("unreadable", error))?;
        let number = found.trim().parse::<u32>().unwrap_or(0);
        before.0.insert(setting.name.to_owned(), number);
    }
    Ok(before)
}

/// Makes every switch what it should be, given what they are.
pub(crate) fn ensure(root: &Path, found: &Before) -> Result<(), SettingError> {
    for setting in SETTINGS {
        let number = found.0.get(setting.name).copied().unwrap_or(0);
        let good = number == setting.wanted || (setting.or_more && number > setting.wanted);
        if !good {
            let written = fs::write(root.join(setting.path), setting.wanted.to_string());
            written.map_err(|error| setting.failed(&number.to_string(), error))?;
        }
    }
    Ok(())
}

/// Puts switches back to what they were, but those that somebody has set to something else since.
pub(crate) fn put_back(root: &Path, before: &Before) {
    let is_ours = |found: &Before, setting: &Setting| {
        found.0.get(setting.name).copied() == Some(setting.wanted)
    };
    // Without IPVS in the kernel there are none of its.
    let found = read(root).unwrap_or_default();
    for setting in SETTINGS {
        if let Some(value) = before.0.get(setting.name)
            && is_ours(&found, &setting)
        {
            let _ = fs::write(root.join(setting.path), value.to_string());
        }
    }
}

impl Setting {
    fn failed(&self, found: &str, source: io::Error) -> SettingError {
        SettingError {
            name: self.path.replace('/', "."),
            found: found.to_owned(),
            wanted: self.wanted,
            source,
        }
    }
}

/// What was set before we came, by name: kept as the alias of our interface, which lives as long as they are changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Before(pub(crate) BTreeMap<String, u32>);

impl Before {
    /// The alias.
    pub(crate) fn to_alias(&self) -> String {
        let mut text = PREFIX.to_owned();
        for (name, value) in &self.0 {
            let _ = write!(text, " {name}={value}");
        }
        text
    }

    /// What an alias says, if it is one of ours.
    pub(crate) fn from_alias(text: &str) -> Option<Self> {
        let words = text.strip_prefix(PREFIX)?.split_whitespace();
        let pairs = words.map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        pairs.collect::<Option<_>>().map(Self)
    }
}

const PREFIX: &str = "foghorn-proxy, before it:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_set_and_put_back_and_stricter_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for setting in SETTINGS {
            fs::create_dir_all(path(setting.path).parent().unwrap()).unwrap();
            fs::write(path(setting.path), "0\n").unwrap();
        }
        fs::write(path(SETTINGS[0].path), "2\n").unwrap();
        let read = || SETTINGS.map(|setting| fs::read_to_string(path(setting.path)).unwrap());
        let before = super::read(root.path()).unwrap();
        ensure(root.path(), &before).unwrap();
        assert_eq!(read(), ["2\n", "2", "1", "1", "1"]);
        fs::write(path(SETTINGS[1].path), "1").unwrap();
        put_back(root.path(), &before);
        assert_eq!(read(), ["2\n", "1", "0", "0", "0"]);
        fs::remove_file(path(SETTINGS[2].path)).unwrap();
        let refused = super::read(root.path()).unwrap_err().to_string();
        let expected =
            "sysctl net.ipv4.vs.conntrack is unreadable and has to be 1: it could not be set";
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_was_before_is_noted_and_read_again() {
        let values = [("arp_ignore".to_owned(), 0), ("tcp".to_owned(), 900)];
        let before = Before(values.into());
        let alias = "foghorn-proxy, before it: arp_ignore=0 tcp=900";
        assert_eq!(before.to_alias(), alias);
        assert_eq!(Before::from_alias(alias), Some(before));
        for foreign in ["", "eth0", "foghorn-proxy, before it: arp_ignore"] {
            assert_eq!(Before::from_alias(foreign), None, "{foreign}");
        }
    }
}
