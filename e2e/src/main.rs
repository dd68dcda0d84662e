//! `lab`: the lab by hand. Run it by `tools/in-namespaces`.

mod demo;
mod show;

use std::io::{IsTerminal, stdin};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use e2e::failover::{Fault, Summary, trial};
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::manifest;
use e2e::topology::{POOL_IPV4, POOL_IPV6};

use crate::show::{print, say};

/// The lab: a real Kubernetes with three nodes and one outside client in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Arguments {
    /// How much our programs log.
    #[arg(long, default_value = "info")]
    log_level: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what Foghorn does: a Service gets an address, a client opens it, the announcing node dies.
    Demo {
        /// Leave the lab running and say how to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Starts a lab and leaves it running.
    Up {
        /// Kubernetes alone, with the real kube-proxy instead of Foghorn.
        #[arg(long)]
        kubernetes_only: bool,
    },
    /// Lets the announcing node die many times and measures how long the client has no answer.
    Failover {
        /// How many times.
        #[arg(long, default_value_t = 20)]
        trials: u32,
        /// How the node dies.
        #[arg(long, value_enum, default_value = "link-down")]
        fault: Fault,
        /// Fail if the median is longer than this, in milliseconds.
        #[arg(long, default_value_t = 500)]
        median_at_most: u64,
        /// Run the real kube-proxy instead of ours.
        #[arg(long)]
        kube_proxy: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&format!("Error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let options = |name: &str| Options {
        log_level: arguments.log_level.clone(),
        ..Options::foghorn(name)
    };
    match arguments.command {
        Verb::Demo { keep } => with_lab(&options("demo"), |lab| {
            demo::run_demo(lab)?;
            if keep { look_around(lab) } else { Ok(()) }
        }),
        Verb::Up { kubernetes_only } => {
            let options = if kubernetes_only {
                Options::kubernetes("up")
            } else {
                options("up")
            };
            with_lab(&options, look_around)
        }
        Verb::Failover {
            trials,
            fault,
            median_at_most,
            kube_proxy,
        } => {
            let mut options = options("failover");
            if kube_proxy {
                options.proxy = ServiceProxy::KubeProxy;
            }
            with_lab(&options, |lab| {
                failover(lab, trials, fault, Duration::from_millis(median_at_most))
            })
        }
    }
}

/// Says how to look around and stays until the user has seen enough.
fn look_around(lab: &mut Lab) -> Result<()> {
    let enter = lab.folder.enter();
    let enter = enter.display();
    say(&format!(
        "The lab runs (ready after {:.1} s). From another terminal:",
        lab.start_time.as_secs_f64()
    ));
    print(&format!(
        "\
{enter}                                a shell inside, with kubectl
{enter} kubectl get nodes,svc -o wide
{enter} kubectl foghorn status
{enter} client curl http://ADDRESS/    as the outside client
{enter} client arping -i eth0 ADDRESS
{enter} node-1 nft list ruleset
Logs: {}
",
        lab.folder.logs().display()
    ));
    if stdin().is_terminal() {
        say("A shell inside the lab follows; the lab ends with it.");
        Command::new(lab.folder.shell())
            .status()
            .context("failed to start a shell")?;
    } else {
        say("It ends with Ctrl-C.");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

fn failover(lab: &mut Lab, trials: u32, fault: Fault, median_at_most: Duration) -> Result<()> {
    say(&format!(
        "Lab ready after {:.1} s.",
        lab.start_time.as_secs_f64()
    ));
    lab.kubectl
        .apply(&manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
    lab.api.create(
        "/apis/apps/v1/namespaces/default/deployments",
        &manifest::deployment("web", 3),
    )?;
    lab.api.create(
        "/api/v1/namespaces/default/services",
        &manifest::load_balancer("web"),
    )?;
    let patience = Duration::from_secs(60);
    let vips = lab.wait_for_external_addresses("default", "web", 2, patience)?;
    lab.wait_for_endpoints("default", "web", 3, patience)?;

    say(&format!(
        "{trials} trials of {fault:?} at the announcing node, a request each 5 ms, each with 250 ms to be answered:"
    ));
    let mut gaps = Vec::new();
    for number in 1..=trials {
        // The families take turns.
        let vip = vips
            .iter()
            .cycle()
            .nth(usize::try_from(number)?)
            .copied()
            .context("no address")?;
        let trial = trial(lab, vip, fault)?;
        print(&format!(
            "{number:>3}  {vip:<24} {} -> {}  no answer for {:>4} ms; single losses until {:>5} ms  ({})\n",
            trial.before,
            trial.after,
            trial.gap.as_millis(),
            trial.disturbed.as_millis(),
            trial.record
        ));
        gaps.push(trial.gap);
    }
    let summary = Summary::of(gaps);
    say(&format!("Longest time without an answer: {summary}"));
    ensure!(
        summary.median() <= median_at_most,
        "the median is {} ms: more than the {} ms that were asked for",
        summary.median().as_millis(),
        median_at_most.as_millis()
    );
    Ok(())
}
