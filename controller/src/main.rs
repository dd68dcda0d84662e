//! `foghorn-controller`: the arguments, the tasks, and nothing else.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use config_runtime::lease::machine::Timing;
use config_runtime::lease::{Candidacy, Leadership};
use config_runtime::server::{Flag, Health};
use config_runtime::source::Source;
use config_runtime::supervision::Supervisor;
use config_runtime::telemetry::{self, LogLevel};
use config_runtime::{Interest, client, debug, events, lease, server};
use controller::arguments::Arguments;
use controller::leader::{Replica, SUBJECTS};
use controller::metrics::Metrics;
use prometheus_client::registry::Registry;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = telemetry::initialise(&arguments.common)
        .map_err(anyhow::Error::from)
        .and_then(|level| start(arguments, level));
    ended.unwrap_or_else(|error| {
        tracing::error!(error = %format_args!("{error:#}"), "Cannot start");
        ExitCode::FAILURE
    })
}

fn start(arguments: Arguments, level: LogLevel) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(arguments, level));
    runtime.shutdown_background();
    ended
}

async fn run(arguments: Arguments, level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut supervisor = Supervisor::new()?;
    let closing = supervisor.closing();
    supervisor.spawn_server("log level", level.clone().follow_signal(closing.clone()));
    let (debug, questions) = debug::offer(&arguments.common, &SUBJECTS, level);
    let client = client::connect(&arguments.common, "controller").await?;
    let identity = arguments.identity(&host_name());
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let ready = Flag::default();
    if let Some(address) = arguments.metrics_address() {
        let listener = server::listen(address).await?;
        let router = server::metrics_router(registry).merge(debug);
        let identity = arguments.common.identity()?;
        let serving = server::serve(listener, router, identity, closing.clone());
        supervisor.spawn_server("metrics", async { serving.await.context("metrics") });
    }
    if let Some(address) = arguments.health_address() {
        let listener = server::listen(address).await?;
        let router = Health::default()
            .ready_when("configuration", &ready)
            .router();
        let serving = server::serve(listener, router, None, closing.clone());
        supervisor.spawn_server("health", async { serving.await.context("health") });
    }
    let (events, writer) = events::run(client.clone(), "controller", &identity, closing.clone());
    supervisor.spawn_server("events", writer);
    let leadership = if arguments.leader_elect {
        let candidacy = Candidacy {
            namespace: arguments.lease_namespace.clone(),
            name: arguments.lease_name.clone(),
            identity,
            timing: Timing::default(),
        };
        let (leadership, election) = lease::run(client.clone(), candidacy, closing);
        supervisor.spawn_server("election", election);
        leadership
    } else {
        Leadership::always()
    };
    let interest = Interest {
        nodes: true,
        namespaces: true,
        pools: true,
        advertisements: true,
        service_cidrs: true,
        ..Interest::default()
    };
    let replica = Replica {
        source: Source::start(Some(client.clone()), &arguments.common.config, interest),
        client,
        classes: arguments.classes(),
        leadership,
        events,
        metrics,
        ready,
        questions,
    };
    supervisor.spawn("replica", replica.run(supervisor.stopping()));
    Ok(supervisor.run().await)
}

/// The name of this host; in a Pod that of the Pod.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "foghorn".to_owned())
}
