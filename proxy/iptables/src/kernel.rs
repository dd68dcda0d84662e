//! The only IO: the programs of iptables, which read and change what the kernel holds.

mod backend;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use config::address::IpFamily;

use crate::program::{Block, Change, Program, Ruleset, Table};
pub use backend::{Backend, BackendError, Found, Why};

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
        Ok(Self {
            found: Found::find(backend)?,
        })
    }

    /// The back end, and how it was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Reads back what the kernel holds of ours.
    ///
    /// # Errors
    /// If a program of iptables fails.
    pub fn read(&self) -> Result<Program, KernelError> {
        let mut program = Program::default();
        for family in self.found.families() {
            let mut rules = Ruleset::default();
            for table in Table::ALL {
                if self.found.has_table(family, table) {
                    let text = self.save(family, table)?;
                    rules.extend(Ruleset::parse(&text, family));
                }
            }
            program.families.insert(family, rules);
        }
        Ok(program)
    }

    /// Applies a change in pieces, where one transaction of nf_tables does not fit into a socket's buffer: iptables may exceed
    /// the system's limit (`net.core.wmem_max`) only as root of the machine. No packet sees a difference between the pieces.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_in_parts(&self, change: &Change) -> Result<(), KernelError> {
        for (family, blocks) in &change.families {
            let parts = blocks.iter().flat_map(|block| block.parts(PART));
            self.restore(*family, &parts.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Applies a change: one process for each family. Each block is all or none, and in no packet's eyes partly.
    ///
    /// # Errors
    /// If iptables refuses a line, or another program holds its lock for too long. Blocks before it are done then.
    pub fn apply(&self, change: &Change) -> Result<(), KernelError> {
        for (family, blocks) in &change.families {
            self.restore(*family, blocks)?;
        }
        Ok(())
    }

    /// Removes everything of ours; whether there was anything.
    ///
    /// # Errors
    /// If a program of iptables fails.
    pub fn remove(&self) -> Result<bool, KernelError> {
        let held = self.read()?;
        let Some(change) = held.diff(&Program::default()) else {
            return Ok(false);
        };
        match self.apply(&change) {
            Err(KernelError::TooLong { .. }) => {
                let rest = self.read()?.diff(&Program::default());
                rest.map_or(Ok(()), |rest| self.apply_in_parts(&rest))?;
            }
            done => done?,
        }
        Ok(true)
    }

    fn save(&self, family: IpFamily, table: Table) -> Result<String, KernelError> {
        save(&self.found, family, &["-t", table.name()])
    }

    fn restore(&self, family: IpFamily, blocks: &[Block]) -> Result<(), KernelError> {
        let text: String = blocks.iter().map(|block| block.render(family)).collect();
        restore_text(&self.found, family, &text)
    }
}

/// What `iptables-save` prints of all tables.
pub(crate) fn save_all(found: &Found, family: IpFamily) -> Result<String, KernelError> {
    save(found, family, &[])
}

fn save(found: &Found, family: IpFamily, arguments: &[&str]) -> Result<String, KernelError> {
    let program = found.program(family, "save");
    let output = run(&program, Command::new(&program).args(arguments), "")?;
    if !output.status.success() {
        return Err(failed(&program, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Feeds `iptables-restore --noflush`.
pub(crate) fn restore_text(found: &Found, family: IpFamily, text: &str) -> Result<(), KernelError> {
    let program = found.program(family, "restore");
    let mut command = Command::new(&program);
    command.args(["--noflush", "-w", LOCK_SECONDS]);
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
