//! `foghorn-proxy`: the arguments, the tasks, and nothing else.

mod iptables;
mod ipvs;
mod others;
mod planes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config_runtime::arguments::CommonArguments;
use config_runtime::chain::Chain;
use config_runtime::source::Source;
use config_runtime::supervision::Supervisor;
use config_runtime::telemetry::{self, LogLevel};
use config_runtime::{Interest, client, debug, server};
use prometheus_client::registry::Registry;
use proxy::arguments::{Arguments, HEALTH_PORT};
use proxy::configuration::{CommandLine, follow_file};
use proxy::conntrack::{Cleaner, Sweep, idle};
use proxy::health::{health_router, mode_router};
use proxy::metrics::Metrics;
use proxy::speaker_socket::{Condition, Said, SpeakerSocket};
use proxy::status::Status;
use proxy::surroundings::Settings;
use proxy::sync::{SUBJECTS, Sync};
use proxy::work::Worker;
use proxy::{health_check, machine, moved, sysctl};
use proxy_table::NodeContext;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::others::Others;
use crate::planes::{MovedVips, Plane, remove_all};

fn main() -> ExitCode {
    let line = CommandLine::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let CommandLine {
        mut arguments,
        matches,
        mut unheeded,
    } = line;
    let ended = telemetry::initialise(&arguments.common)
        .map_err(anyhow::Error::from)
        .and_then(|level| {
            unheeded.extend(follow_file(&mut arguments, &matches)?);
            for unheeded in unheeded {
                tracing::warn!(reason = %unheeded, "Configuration not followed");
            }
            start(arguments, level)
        });
    ended.unwrap_or_else(|error| {
        tracing::error!(error = %format_args!("{error:#}"), "Cannot start");
        ExitCode::FAILURE
    })
}

fn start(arguments: Arguments, level: LogLevel) -> anyhow::Result<ExitCode> {
    if arguments.cleanup {
        let found = remove_all()?;
        let said = if found {
            "Removed everything of ours from the kernel"
        } else {
            "Nothing of ours in the kernel"
        };
        tracing::info!("{said}");
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::try_from(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(arguments, settings, level));
    runtime.shutdown_background();
    ended
}

async fn run(
    arguments: Arguments,
    settings: Settings,
    level: LogLevel,
) -> anyhow::Result<ExitCode> {
    let mut supervisor = Supervisor::new()?;
    sysctl::ensure_all(&sysctl::FORWARDING);
    let mut plane = Plane::open(settings.mode, &arguments)?;
    let mode = plane.mode();
    let status = Arc::new(Status::default());
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, mode);
    plane.count_in(&metrics);

    let closing = supervisor.closing();
    supervisor.spawn_server("log level", level.clone().follow_signal(closing.clone()));
    let (debug, questions) = debug::offer(&arguments.common, &SUBJECTS, level);
    if let Some(address) = arguments.health_address() {
        let router = health_router(Arc::clone(&status), metrics.clone());
        let serving = server::serve_when_free("health", address, router, None, closing.clone());
        supervisor.spawn_server("health", serving);
    }
    if let Some(address) = arguments.metrics_address() {
        let identity = arguments.common.identity()?;
        let router = server::metrics_router(registry)
            .merge(mode_router(mode.name()))
            .merge(debug);
        let serving =
            server::serve_when_free("metrics", address, router, identity, closing.clone());
        supervisor.spawn_server("metrics", serving);
    }
    let (told_addresses, addresses) = watch::channel(BTreeSet::<IpAddr>::new());
    let watching = machine::watch_addresses(told_addresses);
    supervisor.spawn_server("addresses", until(closing.clone(), watching));
    let (told_said, said) = watch::channel(Said::default());
    let (programmed, tells_programmed) = watch::channel(None);
    let (told_idle, tells_idle) = watch::channel(BTreeSet::new());
    let looking = idle::follow(said.clone(), told_idle);
    supervisor.spawn_server("idle addresses", until(closing.clone(), looking));
    let condition = Condition {
        healthy: status.healthy(),
        programmed: tells_programmed,
        idle: tells_idle,
    };
    let hearing = hear_speaker(arguments.speaker_socket.clone(), told_said, condition);
    supervisor.spawn_server("speaker socket", until(closing.clone(), hearing));
    let (checks, notices) = mpsc::unbounded_channel();
    let answering = health_check::serve(notices, Arc::clone(&status));
    supervisor.spawn_server("health checks", until(closing.clone(), answering));
    let be_liberal = arguments.conntrack_tcp_be_liberal;
    let looking_after = look_after(Arc::clone(&status), plane.others(), be_liberal);
    supervisor.spawn_server("status", until(closing.clone(), looking_after));
    let (told_goals, goals) = watch::channel(BTreeMap::new());
    match MovedVips::open() {
        Ok(kernel) => {
            let sending_on = moved::follow(goals, kernel, HEALTH_PORT);
            supervisor.spawn_server("moved addresses", until(closing, sending_on));
        }
        Err(error) => {
            let error = Chain(&error);
            tracing::warn!(%error, "Connections do not survive the move of their VIP to this node");
        }
    }

    let context = Arc::new(NodeContext::new(settings.node_name.clone()));
    let sync = Sync {
        settings,
        addresses,
        said,
        goals: told_goals,
        worker: Worker::new(plane, context),
        programmed,
        cleaner: cleaner(&metrics),
        health_checks: checks,
        status,
        metrics,
        questions,
    };
    let stopping = supervisor.stopping();
    let syncing = move || watch_and_sync(arguments.common, sync, stopping);
    supervisor.spawn("sync", on_own_thread(syncing));
    Ok(supervisor.run().await)
}

/// From the octets of the API server to the batch for the kernel.
async fn watch_and_sync(
    arguments: CommonArguments,
    sync: Sync<Plane>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let client = client::connect(&arguments, "proxy").await?;
    let interest = Interest {
        services: true,
        endpoint_slices: true,
        nodes: true,
        service_cidrs: true,
        ..Interest::default()
    };
    let source = Source::start(Some(client), &[], interest);
    sync.run(source, stopping).await
}

/// Runs a task and whatever it spawns on one thread that is nobody else's. From the event of a watch to the batch for the
/// kernel no thread has to wake another, which would cost more than the work does; and who answers probes need not wait
/// for the kernel.
async fn on_own_thread<F>(begin: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::spawn_blocking(move || runtime.block_on(begin())).await?
}

/// Listens to the speaker, also where another proxy does so at first, as one that is about to be replaced.
async fn hear_speaker(path: PathBuf, told: watch::Sender<Said>, condition: Condition) {
    let mut said = false;
    let socket = loop {
        match SpeakerSocket::bind(&path) {
            Ok(socket) => break socket,
            Err(error) if said => tracing::debug!(%error, "Speaker still cannot be heard"),
            Err(error) => {
                said = true;
                let path = path.display();
                tracing::warn!(%path, %error, "Speaker cannot be heard: trying again");
            }
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    };
    socket.serve(told, condition).await;
}

fn cleaner(metrics: &Metrics) -> Option<Cleaner> {
    let deleted = metrics.conntrack_deleted.clone();
    let started = Cleaner::start(move |sweep| match sweep {
        Ok(Sweep {
            deleted: count,
            failed,
        }) => {
            deleted.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
            tracing::debug!(count, "Ended stale connections");
            if let Some(error) = failed {
                tracing::warn!(%error, "Stale connection not ended");
            }
        }
        Err(error) => tracing::warn!(%error, "Stale connections not looked for"),
    });
    started
        .inspect_err(|error| tracing::warn!(%error, "Stale connections are not looked for"))
        .ok()
}

/// Tells who listens when the proxy becomes healthy or stale, and once it is healthy removes what kube-proxy and other data
/// planes of ours left: not earlier, so that somebody forwards at every moment. Conntrack is told to be liberal then too: with
/// the rules the kernel loads it, and has no such switch before.
async fn look_after(status: Arc<Status>, left: Others, be_liberal: bool) {
    let mut healthy = status.healthy();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => status.refresh(Instant::now()),
            Ok(()) = healthy.changed() => {}
        }
        if *healthy.borrow_and_update() == Some(true) {
            break;
        }
    }
    if be_liberal {
        sysctl::ensure_asked_for(sysctl::BE_LIBERAL);
    }
    tokio::spawn(others::remove(left));
    loop {
        ticks.tick().await;
        status.refresh(Instant::now());
    }
}

async fn until(closing: CancellationToken, task: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = task => {}
        () = closing.cancelled() => {}
    }
    Ok(())
}

/// For everything but the way from the API server to the kernel.
const WORKER_THREADS: usize = 1;
const TICK: Duration = Duration::from_secs(1);
const LISTEN_RETRY: Duration = Duration::from_secs(5);
