//! Nodes whose kernel has IPv6, and whose iptables cannot write rules for it: IPv4 is served alone there.

use config::address::IpFamily;

use super::{Kernel, KernelError, restore_text_with};

/// Why IPv6 is left out.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum LacksIpv6 {
    #[error("{program} is not installed: install it beside the iptables of IPv4")]
    NotInstalled { program: String },
    #[error(
        "the kernel takes no rules of ip6tables: load ip6table_nat and ip6table_filter, or nf_tables"
    )]
    Refused(#[source] KernelError),
}

impl Kernel {
    /// What keeps IPv6 from being served for as long as the machine is as it is; none if nothing does, or if the kernel has no
    /// IPv6. Nothing is changed.
    pub(crate) fn lacks_ipv6(&self) -> Option<LacksIpv6> {
        if let Some(program) = self.found.missing_ipv6_program() {
            let program = program.display().to_string();
            return Some(LacksIpv6::NotInstalled { program });
        }
        self.found
            .families()
            .find(|family| *family == IpFamily::V6)?;
        let rehearsal = restore_text_with(&self.found, IpFamily::V6, &["--test"], REHEARSAL);
        rehearsal
            .err()
            .filter(is_of_the_machine)
            .map(LacksIpv6::Refused)
    }
}

/// Whether a refusal is the machine's, and not one that ends with what others do: they hold the lock, or have made rules in the
/// table by other means.
fn is_of_the_machine(refusal: &KernelError) -> bool {
    match refusal {
        KernelError::Start { .. } => true,
        KernelError::Line { said, .. } | KernelError::Failed { said, .. } => {
            !said.contains("incompatible")
        }
        KernelError::Backend(_)
        | KernelError::Locked { .. }
        | KernelError::TooLong { .. }
        | KernelError::Unreadable { .. } => false,
    }
}

/// What any table takes.
const REHEARSAL: &str = "*nat
:FOGHORN-REHEARSAL - [0:0]
-A FOGHORN-REHEARSAL -j RETURN
COMMIT
*filter
:FOGHORN-REHEARSAL - [0:0]
-A FOGHORN-REHEARSAL -j RETURN
COMMIT
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_machine_lacks_leaves_ipv6_out() {
        let failed = |said: &str| KernelError::Failed {
            program: "ip6tables-restore".to_owned(),
            status: "exit status: 1".to_owned(),
            said: said.to_owned(),
        };
        let locked = KernelError::Locked {
            program: "ip6tables-restore".to_owned(),
            said: "Another app is currently holding the xtables lock".to_owned(),
        };
        let start = KernelError::Start {
            program: "ip6tables-restore".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        for (refusal, expected) in [
            (start, true),
            (
                failed("ip6tables-legacy-restore: unable to initialize table 'nat'"),
                true,
            ),
            (
                failed(
                    "ip6tables-nft-restore: Could not fetch rule set generation id: Invalid argument",
                ),
                true,
            ),
            (
                failed("ip6tables-nft-restore: table `nat' is incompatible, use 'nft' tool."),
                false,
            ),
            (locked, false),
        ] {
            assert_eq!(is_of_the_machine(&refusal), expected, "{refusal}");
        }
    }
}
