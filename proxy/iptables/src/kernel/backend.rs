//! Which iptables: there are two back ends, and rules in one are not seen by the programs of the other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::address::IpFamily;

use crate::program::Table;

/// What iptables keeps its rules in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Backend {
    /// The tables that iptables always had.
    Legacy,
    /// Tables of nf_tables.
    Nft,
}

impl Backend {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Nft,
            Self::Nft => Self::Legacy,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Legacy => "legacy",
            Self::Nft => "nf_tables",
        })
    }
}

/// Whether programs of iptables are here, of either back end.
pub fn is_installed() -> bool {
    !Found::all().is_empty()
}

/// Why a back end was chosen.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Why {
    #[error("it was asked for")]
    Asked,
    #[error("the kubelet's chains are there")]
    Kubelet,
    #[error("most rules are there: {rules} of {all}")]
    MostRules { rules: usize, all: usize },
    #[error("it is what iptables on this machine uses, and there are no rules yet")]
    Default,
    #[error("it is the only one that is installed")]
    Only,
}

/// Why there is no iptables to use.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackendError {
    #[error(
        "iptables is not installed: neither iptables nor iptables-nft nor iptables-legacy is on the PATH"
    )]
    Missing,
    #[error("iptables with the back end {0} is not installed")]
    MissingBackend(Backend),
}

/// The programs of a back end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    backend: Backend,
    why: Why,
    version: Version,
    /// The folder with the programs, and what stands between `iptables` and `-save`.
    folder: PathBuf,
    infix: &'static str,
    /// Without IPv6 in the kernel there is one family.
    kernel_has_ipv6: bool,
}

/// A version of iptables: the three numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version([u16; 3]);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

impl Found {
    /// Looks for the back end that was asked for, or else for the one that this machine uses: where the kubelet has its
    /// chains, else where most rules are, else what the plain `iptables` is.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn find(asked: Option<Backend>) -> Result<Self, BackendError> {
        Self::find_in(&folders(), asked)
    }

    /// As [`Self::find`], in these folders alone.
    ///
    /// # Errors
    /// If it is not installed there.
    pub fn find_in(folders: &[PathBuf], asked: Option<Backend>) -> Result<Self, BackendError> {
        let all = installed(folders);
        if let Some(backend) = asked {
            let found = all.into_iter().find(|found| found.backend == backend);
            return found
                .map(|found| found.because(Why::Asked))
                .ok_or(BackendError::MissingBackend(backend));
        }
        let mut all = all.into_iter();
        let first = all.next().ok_or(BackendError::Missing)?;
        let Some(second) = all.next() else {
            return Ok(first.because(Why::Only));
        };
        Ok(Self::used(first, second))
    }

    /// Which of two the machine uses; the first is the one of the plain `iptables`.
    fn used(first: Self, second: Self) -> Self {
        let [one, other] = [&first, &second].map(Self::census);
        match (one.has_kubelet, other.has_kubelet) {
            (true, false) => return first.because(Why::Kubelet),
            (false, true) => return second.because(Why::Kubelet),
            _ => {}
        }
        let all = one.rules + other.rules;
        let why = |rules| Why::MostRules { rules, all };
        match one.rules.cmp(&other.rules) {
            std::cmp::Ordering::Less => second.because(why(other.rules)),
            std::cmp::Ordering::Greater => first.because(why(one.rules)),
            std::cmp::Ordering::Equal => first.because(Why::Default),
        }
    }

    /// Every back end whose programs are installed.
    pub(crate) fn all() -> Vec<Self> {
        installed(&folders())
    }

    /// Whether there may be rules of a family: to ask the legacy programs about tables makes them.
    pub(crate) fn may_have_rules(&self, family: IpFamily) -> bool {
        self.legacy_tables(family)
            .is_none_or(|tables| !tables.is_empty())
    }

    fn because(self, why: Why) -> Self {
        Self { why, ..self }
    }

    /// The back end.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why it was chosen.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The version of its programs.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether `MASQUERADE --random-fully` is known.
    pub fn knows_random_fully(&self) -> bool {
        self.version >= Version([1, 6, 2])
    }

    /// The families that the kernel has, and for which the programs are installed.
    pub fn families(&self) -> impl Iterator<Item = IpFamily> + use<> {
        let has_ipv6 = self.kernel_has_ipv6 && self.missing_ipv6_program().is_none();
        let v6 = has_ipv6.then_some(IpFamily::V6);
        [IpFamily::V4].into_iter().chain(v6)
    }

    /// The program whose absence keeps IPv6 from being served where the kernel has it.
    pub(crate) fn missing_ipv6_program(&self) -> Option<PathBuf> {
        let programs = ["-save", "-restore"].map(|ending| self.program(IpFamily::V6, ending));
        let mut programs = programs.into_iter();
        programs.find(|program| self.kernel_has_ipv6 && !program.exists())
    }

    /// One of the programs: `-save`, `-restore`, or without an ending the one that is typed.
    pub(crate) fn program(&self, family: IpFamily, ending: &str) -> PathBuf {
        let family = match family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        self.folder.join(format!("{family}{}{ending}", self.infix))
    }

    /// Whether the kernel has a table already: to ask the legacy programs about one makes it.
    pub(crate) fn has_table(&self, family: IpFamily, table: Table) -> bool {
        let listed = self.legacy_tables(family);
        listed.is_none_or(|listed| listed.lines().any(|name| name == table.name()))
    }

    /// The names of the tables that the kernel has, if it says.
    fn legacy_tables(&self, family: IpFamily) -> Option<String> {
        let names = match (self.backend, family) {
            (Backend::Nft, _) => return None,
            (Backend::Legacy, IpFamily::V4) => "/proc/thread-self/net/ip_tables_names",
            (Backend::Legacy, IpFamily::V6) => "/proc/thread-self/net/ip6_tables_names",
        };
        tables_listed(std::fs::read_to_string(names))
    }

    /// The rules of everybody there.
    fn census(&self) -> Census {
        let mut census = Census::default();
        for family in self.families() {
            if !self.may_have_rules(family) {
                continue;
            }
            let text = output(&mut Command::new(self.program(family, "-save")));
            let text = text.unwrap_or_default();
            census.rules += text.lines().filter(|line| line.starts_with("-A ")).count();
            census.has_kubelet |= text
                .lines()
                .any(|line| KUBELET_CHAINS.iter().any(|chain| line.starts_with(chain)));
        }
        census
    }
}

/// What the kernel says of its tables, if it does: without the file it has none, and one that may not be read says nothing.
fn tables_listed(read: io::Result<String>) -> Option<String> {
    match read {
        Ok(names) => Some(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(String::new()),
        Err(_) => None,
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Census {
    rules: usize,
    has_kubelet: bool,
}

/// The back ends that are installed, each once; that of the plain `iptables` first.
fn installed(folders: &[PathBuf]) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    let kernel_has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    for (infix, known) in [
        ("", None),
        ("-nft", Some(Backend::Nft)),
        ("-legacy", Some(Backend::Legacy)),
    ] {
        let name = format!("iptables{infix}-restore");
        let Some(folder) = folders.iter().find(|folder| folder.join(&name).exists()) else {
            continue;
        };
        let said = output(Command::new(folder.join(&name)).arg("--version"));
        let Some((version, said)) = said.as_deref().and_then(read_version) else {
            continue;
        };
        let backend = known.unwrap_or(said);
        if all.iter().all(|found| found.backend != backend) {
            all.push(Found {
                backend,
                why: Why::Default,
                version,
                folder: folder.clone(),
                infix,
                kernel_has_ipv6,
            });
        }
    }
    all
}

/// Where programs may be: those of the administrator are not on every user's path.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let further = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(further).collect()
}

/// What a program printed, if it succeeded.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// `iptables-restore v1.8.9 (nf_tables)`; before 1.8 there was one back end, which was not named.
fn read_version(text: &str) -> Option<(Version, Backend)> {
    let mut words = text.split_whitespace();
    let numbers = words.find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = numbers.split('.').map(|number| number.parse().unwrap_or(0));
    let version = Version(std::array::from_fn(|_| numbers.next().unwrap_or(0)));
    let backend = match words.next() {
        Some("(nf_tables)") => Backend::Nft,
        _ => Backend::Legacy,
    };
    Some((version, backend))
}

/// How the lines begin that declare the kubelet's chains.
const KUBELET_CHAINS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_may_not_be_listed_may_be_there() {
        for (read, expected) in [
            (Ok("nat\n"), Some("nat\n")),
            (Err(io::ErrorKind::NotFound), Some("")),
            (Err(io::ErrorKind::PermissionDenied), None),
        ] {
            let listed = tables_listed(read.map(str::to_owned).map_err(io::Error::from));
            assert_eq!(listed.as_deref(), expected, "{read:?}");
        }
    }

    #[test]
    fn versions_and_back_ends_are_read() {
        for (text, expected) in [
            (
                "iptables-restore v1.8.9 (nf_tables)\n",
                Some((Version([1, 8, 9]), Backend::Nft)),
            ),
            (
                "iptables-restore v1.8.11 (legacy)\n",
                Some((Version([1, 8, 11]), Backend::Legacy)),
            ),
            (
                "iptables-restore v1.6.1\n",
                Some((Version([1, 6, 1]), Backend::Legacy)),
            ),
            ("BusyBox\n", None),
        ] {
            assert_eq!(read_version(text), expected, "{text}");
        }
        assert!(Version([1, 8, 11]) > Version([1, 8, 9]));
    }
}
