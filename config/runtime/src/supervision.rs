//! The tasks of a program: the first one that fails, or a signal, ends all of them in order.

use std::collections::HashMap;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end; a Pod has 30 seconds before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the tasks of a program.
///
/// There are two ranks. *Tasks* do the program's work and end in good order when [`Self::stopping`] is cancelled: they
/// hand over, release, write what must be written. *Servers* (health, metrics, the lease) go on until every task has
/// ended, and are stopped by [`Self::closing`].
#[derive(Debug)]
pub struct Supervisor {
    stopping: CancellationToken,
    closing: CancellationToken,
    tasks: Rank,
    servers: Rank,
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Debug, Default)]
struct Rank {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

/// How the program came to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{task} failed: {error:#}")]
    Failed {
        task: &'static str,
        error: anyhow::Error,
    },
    #[error("{task} panicked: {message}")]
    Panicked { task: &'static str, message: String },
    #[error("{task} ended before it was asked to")]
    Ended { task: &'static str },
    #[error("tasks did not end within {} seconds", GRACE.as_secs())]
    Stuck,
    #[error("a second signal came")]
    SecondSignal,
}

impl Supervisor {
    /// Begins to listen for SIGTERM and SIGINT.
    ///
    /// # Errors
    /// If the signals cannot be listened for.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            tasks: Rank::default(),
            servers: Rank::default(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancelled when tasks must end.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Cancelled when servers must end, which is after all tasks have.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Runs a task, which must end only after [`Self::stopping`] is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(name, task);
    }

    /// Runs a server, which must end only after [`Self::closing`] is cancelled.
    pub fn spawn_server<F>(&mut self, name: &'static str, server: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.servers.spawn(name, server);
    }

    /// Waits for a signal or a failure, ends everything in order, and says how it went: 0 after a signal, 1 after a
    /// failure.
    pub async fn run(mut self) -> ExitCode {
        let first = tokio::select! {
            failure = self.tasks.first_end() => Some(failure),
            failure = self.servers.first_end() => Some(failure),
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
        };
        match &first {
            Some(failure) => tracing::error!(reason = %failure, "Stopping after a failure"),
            None => tracing::info!("Stopping as asked by a signal"),
        }
        let rest = self.end().await;
        for failure in &rest {
            tracing::error!(reason = %failure, "Did not stop in order");
        }
        if first.is_none() && rest.is_empty() {
            tracing::info!("Stopped");
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    async fn end(&mut self) -> Vec<Failure> {
        let (tasks, servers) = (&mut self.tasks, &mut self.servers);
        let (stopping, closing) = (&self.stopping, &self.closing);
        let in_order = async {
            stopping.cancel();
            let mut failures = tasks.all_end().await;
            closing.cancel();
            failures.extend(servers.all_end().await);
            failures
        };
        tokio::select! {
            failures = in_order => failures,
            () = tokio::time::sleep(GRACE) => vec![Failure::Stuck],
            _ = self.terminate.recv() => vec![Failure::SecondSignal],
            _ = self.interrupt.recv() => vec![Failure::SecondSignal],
        }
    }
}

impl Rank {
    fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until one of them ends, which none should; for ever if there are none.
    async fn first_end(&mut self) -> Failure {
        match self.running.join_next_with_id().await {
            None => std::future::pending().await,
            Some(ended) => {
                let task = self.name_of(&ended);
                self.failure(ended).unwrap_or(Failure::Ended { task })
            }
        }
    }

    async fn all_end(&mut self) -> Vec<Failure> {
        let mut failures = Vec::new();
        while let Some(ended) = self.running.join_next_with_id().await {
            failures.extend(self.failure(ended));
        }
        failures
    }

    fn name_of(&self, ended: &Result<(Id, anyhow::Result<()>), JoinError>) -> &'static str {
        let id = match ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.names.get(&id).copied().unwrap_or("a task")
    }

    fn failure(&self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> Option<Failure> {
        let task = self.name_of(&ended);
        match ended {
            Ok((_, Ok(()))) => None,
            Ok((_, Err(error))) => Some(Failure::Failed { task, error }),
            Err(error) => {
                let message = match error.try_into_panic() {
                    Ok(payload) => payload
                        .downcast_ref::<&str>()
                        .map(|&text| text.to_owned())
                        .or_else(|| payload.downcast_ref::<String>().cloned())
                        .unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                Some(Failure::Panicked { task, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Story = Arc<Mutex<Vec<&'static str>>>;

    /// A signal reaches every supervisor of the process: one test at a time.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// A supervisor with a task and a server that say when they end.
    fn supervisor(story: &Story) -> Supervisor {
        let mut supervisor = Supervisor::new().unwrap();
        let (stopping, closing) = (supervisor.stopping(), supervisor.closing());
        let (one, two) = (Arc::clone(story), Arc::clone(story));
        supervisor.spawn("task", async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            one.lock().unwrap().push("task ended");
            Ok(())
        });
        supervisor.spawn_server("server", async move {
            closing.cancelled().await;
            two.lock().unwrap().push("server ended");
            Ok(())
        });
        supervisor
    }

    async fn ends_in_order_with(code: ExitCode, story: Story, supervisor: Supervisor) {
        let found = supervisor.run().await;
        assert_eq!(format!("{found:?}"), format!("{code:?}"));
        assert_eq!(*story.lock().unwrap(), ["task ended", "server ended"]);
    }

    #[tokio::test]
    async fn the_first_failure_ends_everything_in_order() {
        let _alone = ALONE.lock().await;
        let story = Story::default();
        let mut supervisor = supervisor(&story);
        supervisor.spawn("loop", async { anyhow::bail!("no socket") });
        ends_in_order_with(ExitCode::FAILURE, story, supervisor).await;
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let _alone = ALONE.lock().await;
        let story = Story::default();
        let mut supervisor = supervisor(&story);
        supervisor.spawn_server("metrics", async { panic!("planted") });
        ends_in_order_with(ExitCode::FAILURE, story, supervisor).await;
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_a_failure() {
        let _alone = ALONE.lock().await;
        let story = Story::default();
        let mut supervisor = supervisor(&story);
        supervisor.spawn("loop", async { Ok(()) });
        ends_in_order_with(ExitCode::FAILURE, story, supervisor).await;
    }

    #[tokio::test]
    async fn a_signal_is_no_failure() {
        let _alone = ALONE.lock().await;
        let story = Story::default();
        let supervisor = supervisor(&story);
        let process = std::process::id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-TERM", &process])
            .status();
        assert!(status.unwrap().success());
        ends_in_order_with(ExitCode::SUCCESS, story, supervisor).await;
    }
}
