//! Network namespaces by name, and the `ip` program that fills them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    owned: bool,
}

impl Namespace {
    /// Makes a new one, deleted when dropped.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let mut namespace = Self::named(name);
        namespace.owned = true;
        Ok(namespace)
    }

    /// One that somebody else has made and will delete.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: Path::new("/run/netns").join(name),
            owned: false,
        }
    }

    /// The one that this program runs in: the lab's LAN, its router and the control plane.
    pub fn outer() -> Self {
        Self {
            name: "outer".to_owned(),
            path: PathBuf::from(format!("/proc/{}/ns/net", std::process::id())),
            owned: false,
        }
    }

    /// The same one once more, without the duty to delete it.
    pub fn borrowed(other: &Self) -> Self {
        Self {
            name: other.name.clone(),
            path: other.path.clone(),
            owned: false,
        }
    }

    /// The name; `outer` for the one that this program runs in.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs inside; only the network is another one.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path.display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command inside to its end and returns what it wrote.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        output(&mut command)
    }

    /// Configures addresses, links and routes inside: each line is what would follow `ip`.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        feed(&mut command, lines).with_context(|| format!("failed to configure {}", self.name))
    }

    /// Sets kernel parameters inside: each line is `net.ipv4.ip_forward=1` or the like.
    pub fn set_parameters(&self, lines: &str) -> Result<()> {
        let mut command = self.command("sysctl");
        command.args(["-q", "-p", "-"]);
        feed(&mut command, lines).with_context(|| format!("failed to configure {}", self.name))
    }

    /// Runs `work` on a thread of its own that lives inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread inside, for the rest of its life.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(&self.path)
            .with_context(|| format!("no network namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("failed to enter network namespace {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned {
            // What is left is gone with the lab's own namespaces anyway.
            let _ = ip(&["netns", "delete", &self.name]);
        }
    }
}

/// Runs `ip` in the namespace that this program runs in.
pub fn ip(arguments: &[&str]) -> Result<String> {
    output(Command::new("ip").args(arguments))
}

/// Runs a command to its end and returns what it wrote; a failure carries what it complained of.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end with `text` as its input.
pub fn feed(command: &mut Command, text: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A command that ends early says why itself.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    Ok(())
}
