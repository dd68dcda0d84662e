//! Which data plane it is to be.

use std::str::FromStr;

/// What in the kernel forwards, by kube-proxy's names where it has one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// nftables if the kernel has it, else iptables.
    Auto,
    /// Elements of sets in nf_tables, over netlink.
    Nftables,
    /// Chains of rules, through the programs of iptables.
    Iptables,
    /// Virtual servers of IPVS, behind rules of nf_tables.
    Ipvs,
}

impl Mode {
    /// Its name on the command line, and at `/proxyMode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// A text that names no data plane of ours.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("--dataplane {0} is not built in: write auto, nftables, iptables or ipvs")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let all = [Self::Auto, Self::Nftables, Self::Iptables, Self::Ipvs];
        let found = all.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// Why it is this data plane.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    #[error("--dataplane asks for it")]
    Asked,
    #[error("the kernel has nftables")]
    HasNftables,
    #[error("the kernel refuses nftables: {0}")]
    NftablesRefuses(String),
}

/// What `auto` comes to. Only for that it is asked why nftables cannot be used here, if it cannot: the answer takes the kernel
/// some time.
pub fn choose(mode: Mode, refusal: impl FnOnce() -> Option<String>) -> (Mode, Reason) {
    if mode != Mode::Auto {
        return (mode, Reason::Asked);
    }
    match refusal() {
        None => (Mode::Nftables, Reason::HasNftables),
        Some(refusal) => (Mode::Iptables, Reason::NftablesRefuses(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_nftables_where_the_kernel_has_it() {
        let refusal = || Some("no such thing".to_owned());
        for (asked, refusal, expected, why) in [
            ("auto", None, Mode::Nftables, "the kernel has nftables"),
            (
                "auto",
                refusal(),
                Mode::Iptables,
                "the kernel refuses nftables: no such thing",
            ),
            (
                "nftables",
                refusal(),
                Mode::Nftables,
                "--dataplane asks for it",
            ),
            ("iptables", None, Mode::Iptables, "--dataplane asks for it"),
        ] {
            let (mode, reason) = choose(asked.parse().unwrap(), || refusal);
            assert_eq!(
                (mode, reason.to_string().as_str()),
                (expected, why),
                "{asked}"
            );
        }
        assert_eq!(
            "ebpf".parse::<Mode>().unwrap_err().to_string(),
            "--dataplane ebpf is not built in: write auto, nftables, iptables or ipvs"
        );
    }
}
