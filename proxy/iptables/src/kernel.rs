//! The only IO: the programs of iptables, which read and change what the kernel holds.

mod backend;
mod lacking;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use config::address::IpFamily;

use crate::program::{Block, Change, Program, Ruleset, SERVICES, Table};
pub use backend::{Backend, BackendError, Found, Why, is_installed};
pub use lacking::LacksIpv6;

/// The iptables of this network namespace, in one of the back ends.
///
/// All calls block, for as long as iptables works.
#[derive(Clone, Debug)]
pub struct Kernel {
    found: Found,
}

/// Why the kernel does not hold what it should. After any of these it has to be read again.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("failed to run {program}: install iptables, or put it on the PATH")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} refused \"{line}\": {said}")]
    Line {
        program: String,
        line: String,
        said: String,
    },
    #[error(
        "{program} waited {LOCK_SECONDS} s for the lock of iptables, which another program holds: {said}"
    )]
    Locked { program: String, said: String },
    #[error("{program} could not send so many rules at once: {said}")]
    TooLong { program: String, said: String },
    #[error(
        "{program} cannot read table {table}, for it has rules that iptables did not make: look for them with \"nft list table \
         {family} {table}\", and have them in a table of another name"
    )]
    Unreadable {
        program: String,
        family: &'static str,
        table: String,
    },
    #[error("{program} failed with {status}: {said}")]
    Failed {
        program: String,
        status: String,
        said: String,
    },
}

impl Kernel {
    /// The iptables in this back end; nothing is changed.
    ///
    /// # Errors
    /// If there is no such iptables.
    pub fn open(backend: Option<Backend>) -> Result<Self, KernelError> {
        Ok(Self::new(Found::find(backend)?))
    }

    /// The iptables that was found.
    pub fn new(found: Found) -> Self {
        Self { found }
    }

    /// The back end, and how it was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Reads back what the kernel holds of ours.
    ///
    /// # Errors
    /// If a family cannot be read.
    pub fn read(&self) -> Result<Program, KernelError> {
        let families = self.read_each(self.found.families()).into_iter();
        let families = families.map(|(family, rules)| Ok((family, rules?)));
        let families = families.collect::<Result<_, KernelError>>()?;
        Ok(Program { families })
    }

    /// Reads back what each family holds of ours; one that cannot be read keeps nobody from the other.
    pub(crate) fn read_each(
        &self,
        families: impl IntoIterator<Item = IpFamily>,
    ) -> BTreeMap<IpFamily, Result<Ruleset, KernelError>> {
        let families = families.into_iter();
        let families = families.map(|family| (family, self.read_family(family)));
        families.collect()
    }

    fn read_family(&self, family: IpFamily) -> Result<Ruleset, KernelError> {
        let mut rules = Ruleset::default();
        for table in Table::ALL {
            rules.extend(self.read_table(family, table)?);
        }
        Ok(rules)
    }

    fn read_table(&self, family: IpFamily, table: Table) -> Result<Ruleset, KernelError> {
        if !self.found.has_table(family, table) {
            return Ok(Ruleset::default());
        }
        let text = save(&self.found, family, &["-t", table.name()])?;
        if is_unreadable(&text, table.name()) {
            return Err(unreadable(&self.found, family, table.name()));
        }
        Ok(Ruleset::parse(&text, family))
    }

    /// Applies a change: one process for each family, and none keeps the other from it. Each block is all or none, and in no
    /// packet's eyes partly.
    ///
    /// # Errors
    /// If iptables refuses a line, or another program holds its lock for too long: the first that went wrong. Blocks before it
    /// are done then.
    pub fn apply(&self, change: &Change) -> Result<(), KernelError> {
        let families = change.families.iter();
        all(families.map(|(family, blocks)| self.restore(*family, blocks)))
    }

    /// As [`Self::apply`], of a change that leads to what is wanted: what is too long to be sent at once goes in parts.
    pub(crate) fn lead_to(&self, wanted: &Program, change: &Change) -> Result<(), KernelError> {
        let nothing = Ruleset::default();
        let families = change.families.iter();
        all(families.map(|(family, blocks)| {
            let wanted = wanted.family(*family).unwrap_or(&nothing);
            self.lead_family_to(wanted, *family, blocks)
        }))
    }

    /// One transaction of nf_tables may not fit into a socket's buffer: iptables may exceed the system's limit
    /// (`net.core.wmem_max`) only as root of the machine. No packet sees a difference between the parts.
    fn lead_family_to(
        &self,
        wanted: &Ruleset,
        family: IpFamily,
        blocks: &[Block],
    ) -> Result<(), KernelError> {
        match self.restore(family, blocks) {
            Err(KernelError::TooLong { .. }) => {
                // What came before it was applied.
                let rest = self.read_family(family)?.diff(wanted);
                let parts = rest.iter().flat_map(|block| block.parts(PART));
                self.restore(family, &parts.collect::<Vec<_>>())
            }
            done => done,
        }
    }

    /// Removes everything of ours; whether there was anything. What cannot be read or changed keeps nobody from the rest.
    ///
    /// # Errors
    /// If a program of iptables fails, or cannot read a table in which ours are: the first that went wrong.
    pub fn remove(&self) -> Result<bool, KernelError> {
        any(self
            .found
            .families()
            .map(|family| self.remove_family(family)))
    }

    fn remove_family(&self, family: IpFamily) -> Result<bool, KernelError> {
        let (mut held, nothing) = (Ruleset::default(), Ruleset::default());
        let read = all(Table::ALL.into_iter().map(|table| {
            match self.read_table(family, table) {
                Ok(rules) => held.extend(rules),
                // Others may fill it with whatever they like.
                Err(KernelError::Unreadable { .. })
                    if !has_chain(&self.found, family, table.name(), SERVICES)? => {}
                Err(error) => return Err(error),
            }
            Ok(())
        }));
        let blocks = held.diff(&nothing);
        if !blocks.is_empty() {
            read.and(self.lead_family_to(&nothing, family, &blocks))?;
            return Ok(true);
        }
        read.map(|()| false)
    }

    fn restore(&self, family: IpFamily, blocks: &[Block]) -> Result<(), KernelError> {
        let text: String = blocks.iter().map(|block| block.render(family)).collect();
        restore_text(&self.found, family, &text)
    }
}

/// Does all of it, and says then what went wrong first.
pub(crate) fn all(
    outcomes: impl Iterator<Item = Result<(), KernelError>>,
) -> Result<(), KernelError> {
    let outcomes: Vec<_> = outcomes.collect();
    outcomes.into_iter().collect()
}

/// Does all of it, and says then whether any was so, or what went wrong first.
pub(crate) fn any(
    outcomes: impl Iterator<Item = Result<bool, KernelError>>,
) -> Result<bool, KernelError> {
    let outcomes: Vec<_> = outcomes.collect();
    let mut outcomes = outcomes.into_iter();
    outcomes.try_fold(false, |before, outcome| Ok(before | outcome?))
}

/// What `iptables-save` prints of all tables.
pub(crate) fn save_all(found: &Found, family: IpFamily) -> Result<String, KernelError> {
    save(found, family, &[])
}

fn save(found: &Found, family: IpFamily, arguments: &[&str]) -> Result<String, KernelError> {
    let program = found.program(family, "-save");
    let output = run(&program, Command::new(&program).args(arguments), "")?;
    if !output.status.success() {
        return Err(failed(&program, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `iptables-save` left a table out: that of nf_tables says so in a remark, and ends as if all was well.
pub(crate) fn is_unreadable(saved: &str, table: &str) -> bool {
    let remark = format!("# Table `{table}' is incompatible");
    saved.lines().any(|line| line.starts_with(&remark))
}

pub(crate) fn unreadable(found: &Found, family: IpFamily, table: &str) -> KernelError {
    KernelError::Unreadable {
        program: file_name(&found.program(family, "-save")),
        family: family_name(family),
        table: table.to_owned(),
    }
}

/// Whether there is a chain of this name, also in a table that cannot be read. Its counters begin anew: nothing else that can
/// be asked about it there has an answer that tells one that is missing from one that cannot be read.
pub(crate) fn has_chain(
    found: &Found,
    family: IpFamily,
    table: &str,
    chain: &str,
) -> Result<bool, KernelError> {
    let program = found.program(family, "");
    let mut command = Command::new(&program);
    let output = run(&program, command.args(["-t", table, "-Z", chain]), "")?;
    Ok(!said(&output).contains("No chain/target/match by that name"))
}

/// The name of a family's tables in nf_tables.
pub(crate) fn family_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

/// Feeds `iptables-restore --noflush`.
pub(crate) fn restore_text(found: &Found, family: IpFamily, text: &str) -> Result<(), KernelError> {
    restore_text_with(found, family, &[], text)
}

fn restore_text_with(
    found: &Found,
    family: IpFamily,
    arguments: &[&str],
    text: &str,
) -> Result<(), KernelError> {
    let program = found.program(family, "-restore");
    let mut command = Command::new(&program);
    command.args(["--noflush", "-w", LOCK_SECONDS]);
    command.args(arguments);
    let output = run(&program, &mut command, text)?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output);
    let name = file_name(&program);
    if said.contains(IS_LOCKED) {
        return Err(KernelError::Locked {
            program: name,
            said,
        });
    }
    if said.contains("Message too long") {
        return Err(KernelError::TooLong {
            program: name,
            said,
        });
    }
    let line = line_number(&said).and_then(|number| text.lines().nth(number.checked_sub(1)?));
    Err(match line {
        Some(line) => KernelError::Line {
            program: name,
            line: line.to_owned(),
            said,
        },
        None => failed(&program, &output),
    })
}

/// Runs a program with a text as its input.
fn run(program: &Path, command: &mut Command, input: &str) -> Result<Output, KernelError> {
    let start = |source| KernelError::Start {
        program: file_name(program),
        source,
    };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(start)
}

fn failed(program: &Path, output: &Output) -> KernelError {
    KernelError::Failed {
        program: file_name(program),
        status: output.status.to_string(),
        said: said(output),
    }
}

/// What a program said about its failure, in one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    let lines: Vec<&str> = lines.take(5).collect();
    lines.join("; ")
}

/// The number of the line that was refused: `line 5`, or `at line: 5`.
fn line_number(said: &str) -> Option<usize> {
    said.split("line").skip(1).find_map(|text| {
        let text = text.trim_start_matches([':', ' ']);
        let end = text.find(|character: char| !character.is_ascii_digit());
        text.get(..end.unwrap_or(text.len()))?.parse().ok()
    })
}

fn file_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or(program.as_os_str());
    PathBuf::from(name).display().to_string()
}

/// How long another program may hold the lock, in seconds.
const LOCK_SECONDS: &str = "5";
/// Steps of a piece: with the longest rules they stay below 200 KiB.
const PART: usize = 250;
/// What iptables says when it did not get the lock. It ends with status 4 then (`RESOURCE_PROBLEM`), but with nf_tables that
/// is so whatever the kernel refused.
const IS_LOCKED: &str = "holding the xtables lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_left_out_is_noticed() {
        let remark = "# Table `nat' is incompatible, use 'nft' tool.\n";
        let others =
            "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n";
        for (saved, expected) in [
            (remark.to_owned(), true),
            (format!("{others}*filter\nCOMMIT\n{remark}"), true),
            (format!("{others}*nat\nCOMMIT\n"), false),
            (
                format!("*nat\n-A MINE -m comment --comment \"{remark}\""),
                false,
            ),
            (String::new(), false),
        ] {
            assert_eq!(is_unreadable(&saved, "nat"), expected, "{saved}");
            assert!(!is_unreadable(&saved, "filter"), "{saved}");
        }
    }

    #[test]
    fn the_line_that_was_refused_is_found() {
        for (said, expected) in [
            ("iptables-restore: line 12 failed", Some(12)),
            ("Error occurred at line: 3", Some(3)),
            (
                "iptables-nft-restore v1.8.9 (nf_tables): ; line 5: RULE_APPEND failed (No such file or directory)",
                Some(5),
            ),
            (
                "iptables-restore v1.8.9 (legacy): unknown option \"--x\"; Error occurred at line: 4",
                Some(4),
            ),
            ("iptables-restore: unable to initialize table 'nat'", None),
        ] {
            assert_eq!(line_number(said), expected, "{said}");
        }
    }
}
