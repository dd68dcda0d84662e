//! `lab`: the lab by hand. Run it by `tools/in-namespaces`.

mod calm;
mod conformance;
mod demo;
mod many;
mod records;
mod show;
mod trials;

use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use e2e::failover::Fault;
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::mode::Mode;
use e2e::topology::SERVICE_NETWORK_IPV4;

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
        /// What happens to the node; several take turns.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "link-down")]
        fault: Vec<Fault>,
        /// Everything that can happen, each in its turn.
        #[arg(long, conflicts_with = "fault")]
        every_fault: bool,
        /// A document that has the marks between which the table goes.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        /// Fail if the median is longer than this, in milliseconds.
        #[arg(long, default_value_t = 500)]
        median_at_most: u64,
        /// Run the real kube-proxy instead of ours.
        #[arg(long)]
        kube_proxy: bool,
    },
    /// Lets hundreds of addresses lose their node at once, on five nodes, and fails if one is announced again too late.
    Many {
        /// How many times.
        #[arg(long, default_value_t = 10)]
        trials: u32,
        /// How many nodes, 9 at most.
        #[arg(long, default_value_t = 5)]
        nodes: u8,
        /// How many addresses.
        #[arg(long, default_value_t = 500)]
        addresses: usize,
        /// Fail if an address is announced again later than this, in milliseconds.
        #[arg(long, default_value_t = 350)]
        at_most: u64,
        /// A document that has the marks between which the result goes.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
    },
    /// Runs Kubernetes' own end-to-end tests of the network.
    Conformance {
        #[command(flatten)]
        column: conformance::Column,
        /// Only what a cluster must pass to be called conformant.
        #[arg(long)]
        only_conformance: bool,
        /// Only specs whose name contains this regular expression.
        #[arg(long)]
        focus: Option<String>,
        /// How many specs at the same time.
        #[arg(long, default_value_t = 4)]
        at_once: u32,
        /// For how long at most, in minutes; what has not run by then is not in the report.
        #[arg(long, default_value_t = 120)]
        minutes: u32,
        /// Fail if a spec does.
        #[arg(long)]
        strict: bool,
        /// Put the nodes into an emulated machine with this kernel of Debian's, as 6.12.
        #[arg(long, value_name = "VERSION")]
        kernel: Option<String>,
        /// Where the results go.
        #[arg(long, value_name = "FOLDER")]
        results: PathBuf,
    },
    /// The nodes of `conformance --kernel`, in the emulated machine.
    #[command(hide = true)]
    ConformanceNodes {
        #[command(flatten)]
        column: conformance::Column,
    },
    /// Shows the results of all runs side by side, and fails if only kube-proxy passed a spec.
    ConformanceTable {
        /// Where the results are.
        #[arg(long, value_name = "FOLDER")]
        results: PathBuf,
        /// A document that has the marks between which the table goes.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
    },
    /// Starts a control plane for a lab in an emulated machine, and runs the command that emulates it.
    ControlPlane {
        /// How many nodes there will be, 9 at most.
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// The network of ClusterIPs, IPv4.
        #[arg(long, default_value = SERVICE_NETWORK_IPV4)]
        service_network: String,
        /// Without the controllers and the scheduler of Kubernetes.
        #[arg(long)]
        without_controllers: bool,
        /// The command, such as `tools/in-kernel 6.12 PROGRAM`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Keeps the processors busy without any fault, and fails if an address moves.
    Calm {
        /// For how long, in seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// How many endless loops.
        #[arg(long, default_value_t = 6)]
        loops: usize,
        /// How many Services, each with two addresses.
        #[arg(long, default_value_t = 50)]
        services: usize,
        /// A document that has the marks between which the result goes.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
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
            every_fault,
            document,
            median_at_most,
            kube_proxy,
        } => {
            let mut options = options("failover");
            if kube_proxy {
                options.proxy = ServiceProxy::KubeProxy(Mode::Nftables);
            }
            with_lab(&options, |lab| {
                let median_at_most = Duration::from_millis(median_at_most);
                let faults = if every_fault {
                    Fault::value_variants()
                } else {
                    &fault
                };
                trials::run(lab, trials, faults, median_at_most, document.as_deref())
            })
        }
        Verb::Many {
            trials,
            nodes,
            addresses,
            at_most,
            document,
        } => {
            let mut options = options("many");
            options.nodes = nodes;
            with_lab(&options, |lab| {
                let at_most = Duration::from_millis(at_most);
                many::run(lab, trials, addresses, at_most, document.as_deref())
            })
        }
        Verb::Conformance {
            column,
            only_conformance,
            focus,
            at_once,
            minutes,
            strict,
            kernel,
            results,
        } => {
            let selection = conformance::Selection {
                only_conformance,
                focus,
                at_once,
                minutes,
                strict,
                kernel,
            };
            conformance::run(options("conformance"), column, &selection, &results)
        }
        Verb::ConformanceNodes { column } => conformance::run_nodes(options("nodes"), column),
        Verb::ConformanceTable { results, document } => {
            conformance::compare(&results, document.as_deref())
        }
        Verb::ControlPlane {
            nodes,
            service_network,
            without_controllers,
            command,
        } => {
            let options = Options {
                nodes,
                service_network,
                kubernetes_controllers: !without_controllers,
                ..options("control-plane")
            };
            serve_control_plane(&options, &command)
        }
        Verb::Calm {
            seconds,
            loops,
            services,
            document,
        } => with_lab(&options("calm"), |lab| {
            let time = Duration::from_secs(seconds);
            calm::run(lab, time, loops, services, document.as_deref())
        }),
    }
}

fn serve_control_plane(options: &Options, command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    let status = Lab::serve_control_plane(options, command.args(arguments))?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        program.display()
    );
    Ok(())
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
