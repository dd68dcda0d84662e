//! The arguments of kube-proxy (Kubernetes 1.37) that do nothing here, so that a DaemonSet's can stay as they are.

use std::ffi::OsString;
use std::fmt;

use super::fields::{
    ALWAYS_STRICT, CLIENT, EVERY_CHANGE, GATES, LOGGING, MACHINE, MANIFEST, NO_LOOPBACK, NO_PAGES,
    NONE_HIDDEN, OTHERS_STAY, PROBED, WATCHED,
};

/// An argument that was given and does nothing here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlagWithoutEffect {
    /// The argument, as `--conntrack-min`.
    pub flag: String,
    /// Why.
    pub because: &'static str,
}

impl fmt::Display for FlagWithoutEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, because } = self;
        write!(formatter, "{flag} has no effect: {because}")
    }
}

/// An argument with its value apart is two words.
struct Flag {
    name: &'static str,
    /// Whether a word that follows is its value; the value of a switch stands behind `=`.
    takes_a_word: bool,
    because: &'static str,
}

const fn switch(name: &'static str, because: &'static str) -> Flag {
    Flag {
        name,
        takes_a_word: false,
        because,
    }
}

const fn value(name: &'static str, because: &'static str) -> Flag {
    Flag {
        name,
        takes_a_word: true,
        because,
    }
}

const FLAGS: &[Flag] = &[
    value(
        "bind-address",
        "write --healthz-bind-address and --metrics-bind-address",
    ),
    switch("bind-address-hard-fail", PROBED),
    value("config-sync-period", WATCHED),
    value("conntrack-max-per-core", MACHINE),
    value("conntrack-min", MACHINE),
    value("conntrack-tcp-timeout-close-wait", MACHINE),
    value("conntrack-tcp-timeout-established", MACHINE),
    value("conntrack-udp-timeout", MACHINE),
    value("conntrack-udp-timeout-stream", MACHINE),
    value("feature-gates", GATES),
    switch("iptables-localhost-nodeports", NO_LOOPBACK),
    value("iptables-min-sync-period", EVERY_CHANGE),
    value("iptables-sync-period", EVERY_CHANGE),
    value("ipvs-exclude-cidrs", OTHERS_STAY),
    value("ipvs-min-sync-period", EVERY_CHANGE),
    switch("ipvs-strict-arp", ALWAYS_STRICT),
    value("ipvs-sync-period", EVERY_CHANGE),
    value("kube-api-burst", CLIENT),
    value("kube-api-content-type", CLIENT),
    value("kube-api-qps", CLIENT),
    value("log-flush-frequency", LOGGING),
    value("logging-format", LOGGING),
    value("oom-score-adj", MANIFEST),
    switch("profiling", NO_PAGES),
    value("show-hidden-metrics-for-version", NONE_HIDDEN),
    value("v", LOGGING),
    value("vmodule", LOGGING),
];

/// Parts a command line, without the name of the program, into the words that are for us and the arguments of kube-proxy that
/// do nothing here.
pub fn part(words: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<FlagWithoutEffect>) {
    let (mut ours, mut idle) = (Vec::new(), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some((flag, has_value)) = word.to_str().and_then(find) else {
            ours.push(word);
            continue;
        };
        if flag.takes_a_word && !has_value {
            words.next();
        }
        let dashes = if flag.name.len() == 1 { "-" } else { "--" };
        idle.push(FlagWithoutEffect {
            flag: format!("{dashes}{}", flag.name),
            because: flag.because,
        });
    }
    (ours, idle)
}

/// The argument that a word is, and whether its value is in the word.
fn find(word: &str) -> Option<(&'static Flag, bool)> {
    let (name, has_value) = match word.strip_prefix("--") {
        Some(long) => {
            let name = long.split('=').next()?;
            (name, name.len() < long.len())
        }
        // The only one that has a short form: -v=2, -v2, -v 2.
        None => {
            let level = word.strip_prefix("-v")?;
            let is_level = level.strip_prefix('=').unwrap_or(level);
            let is_level = is_level.chars().all(|character| character.is_ascii_digit());
            (is_level.then_some("v")?, !level.is_empty())
        }
    };
    let flag = FLAGS.iter().find(|flag| flag.name == name)?;
    Some((flag, has_value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(line: &str) -> (String, Vec<String>) {
        let (ours, idle) = part(line.split_whitespace().map(OsString::from));
        let ours: Vec<String> = ours
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        let idle = idle.into_iter().map(|flag| flag.flag);
        (ours.join(" "), idle.collect())
    }

    #[test]
    fn what_does_nothing_is_taken_out_with_its_value() {
        for (line, ours, idle) in [
            (
                "--node-name a --cleanup",
                "--node-name a --cleanup",
                &[][..],
            ),
            ("--v=2 --node-name a", "--node-name a", &["-v"]),
            ("-v 2 --node-name a", "--node-name a", &["-v"]),
            ("-v=4 -v4", "", &["-v", "-v"]),
            ("-version --version", "-version --version", &[]),
            (
                "--conntrack-min 0 --ipvs-strict-arp --conntrack-max-per-core=0 --proxy-mode=ipvs",
                "--proxy-mode=ipvs",
                &[
                    "--conntrack-min",
                    "--ipvs-strict-arp",
                    "--conntrack-max-per-core",
                ],
            ),
            (
                "--ipvs-strict-arp=false --masquerade-all",
                "--masquerade-all",
                &["--ipvs-strict-arp"],
            ),
            ("--feature-gates", "", &["--feature-gates"]),
            ("--conntrack-minimum 1", "--conntrack-minimum 1", &[]),
        ] {
            let idle = idle.iter().map(|flag| (*flag).to_owned()).collect();
            assert_eq!(parted(line), (ours.to_owned(), idle), "{line}");
        }
    }

    #[test]
    fn the_reason_is_said() {
        let (_, idle) = part(["--ipvs-strict-arp".into()]);
        let said = idle.first().map(ToString::to_string).unwrap_or_default();
        let expected =
            "--ipvs-strict-arp has no effect: no address of a Service is told to the LAN";
        assert_eq!(said, expected);
    }
}
