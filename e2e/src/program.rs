//! The programs that the lab runs, and what a fault does to them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::wait;

/// How to start a program, again and again.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// A name for its log and for messages.
    pub name: String,
    /// The file to run.
    pub file: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// What it finds in its environment beyond the lab's own.
    pub environment: Vec<(String, OsString)>,
    /// The network namespace that it runs in, as a file.
    pub namespace: PathBuf,
    /// Whether it goes before the others when the processors are busy.
    pub urgent: bool,
}

impl Recipe {
    /// A program that runs in `namespace`.
    pub fn new(name: impl Into<String>, file: impl Into<PathBuf>, namespace: &Namespace) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            namespace: namespace.path().to_owned(),
            urgent: false,
        }
    }

    /// Lets it go before the others when the processors are busy, as a node's speaker does.
    ///
    /// In a cluster a speaker has real-time priority. A user namespace does not grant that, and the nodes of the lab
    /// share the processors of one machine with all of Kubernetes: here the others step back instead.
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn command(&self) -> Command {
        // Only the network changes: the program keeps its process ID through nsenter.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace.display()))
            .arg("--")
            .args(if self.urgent { &[][..] } else { &STEP_BACK })
            .arg(&self.file)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Runs a program with ten steps less priority; it keeps the process ID too.
const STEP_BACK: [&str; 3] = ["nice", "-n", "10"];

/// A program that runs, or ran: a child of the lab with its output in a file.
#[derive(Debug)]
pub struct Program {
    recipe: Recipe,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// Starts it; its log is `NAME.log` in the folder `logs`.
    pub fn start(recipe: Recipe, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{}.log", recipe.name));
        let mut program = Self {
            recipe,
            log,
            child: None,
        };
        program.start_again()?;
        Ok(program)
    }

    /// Starts it once more after it ended. The log goes on.
    pub fn start_again(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.recipe.name);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("failed to open {}", self.log.display()))?;
        let child = self
            .recipe
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {}", self.recipe.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// The number of its process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it is started.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// How it is started; a change counts from its next start.
    pub fn recipe_mut(&mut self) -> &mut Recipe {
        &mut self.recipe
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything that it has written so far.
    pub fn log_text(&self) -> Result<String> {
        let bytes = fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it has been started and has not ended.
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// Fails with the end of its log if it has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        bail!("{} has ended:\n{}", self.recipe.name, tail(&self.log, 20))
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(patience)
    }

    /// Asks it to end (SIGTERM) and returns at once.
    pub fn ask_to_end(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let name = self.recipe.name.clone();
        let child = self
            .child
            .as_mut()
            .with_context(|| format!("{name} does not run"))?;
        let status = wait::until(&format!("the end of {name}"), patience, || {
            Ok(child.try_wait()?)
        })?;
        self.child = None;
        Ok(status)
    }

    /// Sends SIGUSR1, at which our programs log in detail, and at the next one as before.
    pub fn signal_user(&self) -> Result<()> {
        self.signal(Signal::SIGUSR1)
    }

    /// Makes it stand still (SIGSTOP).
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self
            .child
            .as_ref()
            .with_context(|| format!("{} does not run", self.recipe.name))?;
        let pid = i32::try_from(child.id()).context("process ID")?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("failed to send {signal} to {}", self.recipe.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A child that is gone already is what we want.
        let _ = self.kill();
    }
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    const MOST_BYTES: u64 = 64 * 1024;
    let read = || -> Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            let skip = all.len().saturating_sub(lines);
            all.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}
