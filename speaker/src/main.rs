//! `foghorn-speaker`: the arguments, the tasks, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};

use config_runtime::server::{self, Flag, Health};
use config_runtime::source::Source;
use config_runtime::supervision::Supervisor;
use config_runtime::telemetry::{self, LogLevel};
use config_runtime::{Interest, client, debug, events};
use prometheus_client::registry::Registry;
use speaker::arguments::{Arguments, ProxyHealthUrl, Task, Verb};
use speaker::compile::Compiler;
use speaker::engine::{self, Command, Control, Engine, EngineError};
use speaker::feed::{Feed, SUBJECTS};
use speaker::judge::Judge;
use speaker::key_file::{self, KeyFile};
use speaker::metrics::Metrics;
use speaker::proxy_socket::{News, Said};
use speaker::record::recorder::Recorder;
use speaker::record::write;
use speaker::status::{self, Sources};
use speaker::tell::Teller;
use speaker::{doctor, proxy_health, proxy_socket};
use speaker_announcer::{Identity, Keyring, Timing};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let task = Task::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let arguments = match task {
        Task::Announce(arguments) => *arguments,
        Task::Verb(Verb::Doctor) => return examine(),
    };
    let ended = telemetry::initialise(&arguments.common)
        .map_err(anyhow::Error::from)
        .and_then(|level| start(arguments, level));
    ended.unwrap_or_else(|error| {
        tracing::error!(error = %format_args!("{error:#}"), "Cannot start");
        ExitCode::FAILURE
    })
}

/// Prints what the doctor finds on this node.
fn examine() -> ExitCode {
    let findings = doctor::diagnose(&doctor::facts::gather(Path::new("/")));
    let mut text: String = findings
        .iter()
        .map(|finding| format!("{}: {finding}\n", finding.severity()))
        .collect();
    if text.is_empty() {
        text.push_str("nothing stops layer 2 on this node, as far as can be seen from here\n");
    }
    // Nobody is left to tell that nobody listens.
    let _ = stdout().write_all(text.as_bytes());
    let is_problem = |finding: &doctor::Finding| finding.severity() == doctor::Severity::Problem;
    if findings.iter().any(is_problem) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn start(arguments: Arguments, level: LogLevel) -> anyhow::Result<ExitCode> {
    if arguments.node.node_name.is_empty() {
        anyhow::bail!("the name of this node is not known: give --node-name or set NODE_NAME");
    }
    let (file, keys) = keys(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(arguments, file, keys, level));
    runtime.shutdown_background();
    ended
}

fn keys(arguments: &Arguments) -> anyhow::Result<(Option<KeyFile>, Keyring)> {
    match &arguments.heartbeat_key_file {
        Some(path) => {
            let (file, keys) = KeyFile::open(path.clone())?;
            Ok((Some(file), keys))
        }
        None => {
            tracing::warn!(
                "Heartbeats are not authenticated: anybody on the LAN can take addresses from nodes"
            );
            Ok((None, key_file::insecure()?))
        }
    }
}

async fn run(
    arguments: Arguments,
    key_file: Option<KeyFile>,
    keys: Keyring,
    level: LogLevel,
) -> anyhow::Result<ExitCode> {
    let mut supervisor = Supervisor::new()?;
    let closing = supervisor.closing();
    supervisor.spawn_server("log level", level.clone().follow_signal(closing.clone()));
    let (debug, questions) = debug::offer(&arguments.common, &SUBJECTS, level);
    let settings = arguments.settings();
    let node = settings.node.clone();
    let client = client::connect(&arguments.common, "speaker").await?;

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let nobody_is_asked = arguments.proxy_health_url == ProxyHealthUrl::None;
    let (told, reports) = mpsc::channel(REPORTS);
    let (engine, control) = Engine::open(
        engine::Settings {
            identity: Identity {
                node: node.clone(),
                incarnation: fastrand::u64(..),
                seed: fastrand::u64(..),
            },
            keys,
            timing: Timing {
                interval: arguments.heartbeat_interval(),
                ..Timing::default()
            },
            fitness: proxy_health::fitness(nobody_is_asked),
        },
        metrics.packets.clone(),
        told,
    )?;
    let pulse = engine.pulse();
    let end = engine.start(true)?;
    supervisor.spawn(
        "machine",
        look_after(end, control.clone(), supervisor.stopping()),
    );

    let (events, writing) = events::run(client.clone(), "speaker", node.as_str(), closing.clone());
    supervisor.spawn_server("Events", writing);
    let interest = Interest {
        services: true,
        endpoint_slices: true,
        nodes: true,
        pools: true,
        advertisements: true,
        ..Interest::default()
    };
    let source = Source::start(Some(client.clone()), &arguments.common.config, interest);
    let compiler = Arc::new(RwLock::new(Compiler::new(settings)));
    let configured = Flag::default();
    let (news, hears_news) = watch::channel(News::default());

    if let Some(address) = arguments.health_address() {
        let router = Health::default()
            .live("machine", move || pulse.check())
            .ready_when("configuration", &configured)
            .router();
        let serving = server::serve_when_free("health", address, router, None, closing.clone());
        supervisor.spawn_server("health", serving);
    }
    let sources = Sources {
        node: node.clone(),
        control: control.clone(),
        compiler: Arc::clone(&compiler),
    };
    if let Some(address) = arguments.metrics_address() {
        let identity = arguments.common.identity()?;
        let router = server::metrics_router(registry)
            .merge(status::router(sources.clone()))
            .merge(debug);
        let serving =
            server::serve_when_free("metrics", address, router, identity, closing.clone());
        supervisor.spawn_server("metrics", serving);
    }
    if let Some(file) = key_file {
        let following = file.follow(control.clone());
        supervisor.spawn_server("heartbeat key", until(closing.clone(), following));
    }
    let (hears, heard) = mpsc::channel(LINES);
    let telling = proxy_socket::follow(arguments.proxy_socket.clone(), hears_news, hears);
    supervisor.spawn_server("proxy socket", until(closing.clone(), telling));
    let (asks, asked) = watch::channel(nobody_is_asked);
    match arguments.proxy_health_url.clone() {
        ProxyHealthUrl::Http { address, path } => {
            let asking = proxy_health::follow(address, path, asks);
            supervisor.spawn_server("proxy health", until(closing.clone(), asking));
        }
        // The node announces however its proxy does.
        ProxyHealthUrl::None => {}
    }
    let judge = Judge::new(!nobody_is_asked);
    let judging = follow_proxy(judge, asked, heard, control.clone(), metrics.clone());
    supervisor.spawn_server("fitness", until(closing, judging));
    let (tells_duties, duties) = watch::channel(BTreeMap::new());
    let writing = write::follow(client.clone(), node.clone(), duties);
    supervisor.spawn_server("records", until(supervisor.closing(), writing));
    let feed = Feed {
        source,
        compiler,
        recorder: Recorder::new(node.clone(), control.clone(), tells_duties),
        control,
        reports,
        teller: Teller {
            node,
            events,
            metrics: metrics.clone(),
            news,
        },
        configured,
        metrics,
        speakers: BTreeSet::new(),
        sources,
        questions,
    };
    supervisor.spawn("feed", feed.run());
    Ok(supervisor.run().await)
}

/// Waits for the machine to end; when the program is stopped, lets it hand over first.
async fn look_after(
    end: oneshot::Receiver<Result<(), EngineError>>,
    control: Control,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut end = end;
    let ended = tokio::select! {
        ended = &mut end => ended,
        () = stopping.cancelled() => {
            // If the machine has ended already, that is said next.
            let _ = control.tell(Command::Shutdown);
            end.await
        }
    };
    match ended {
        Ok(outcome) => Ok(outcome?),
        Err(_) => anyhow::bail!("the thread of the machine panicked"),
    }
}

/// Tells the machine what is heard of the proxy.
async fn follow_proxy(
    mut judge: Judge,
    mut asked: watch::Receiver<bool>,
    mut heard: mpsc::Receiver<Option<Said>>,
    control: Control,
    metrics: Metrics,
) {
    let mut commands = judge.handle_answers(*asked.borrow_and_update());
    loop {
        metrics.proxy_healthy.set(i64::from(judge.is_healthy()));
        for command in commands {
            if control.tell(command).is_err() {
                return;
            }
        }
        commands = tokio::select! {
            // Both are cancel-safe.
            Ok(()) = asked.changed() => judge.handle_answers(*asked.borrow_and_update()),
            Some(said) = heard.recv() => judge.handle_said(said),
            else => return,
        };
    }
}

async fn until(closing: CancellationToken, task: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = task => {}
        () = closing.cancelled() => return Ok(()),
    }
    // It ended because the machine did, which says so itself.
    closing.cancelled().await;
    Ok(())
}

const WORKER_THREADS: usize = 2;
/// Lines of the proxy that wait for the machine.
const LINES: usize = 16;
/// What the machine has said and nobody has taken yet; more is lost.
const REPORTS: usize = 16_384;
