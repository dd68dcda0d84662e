//! One run of the suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::binaries::Binaries;
use e2e::emulated::with_emulated;
use e2e::folder::RunFolder;
use e2e::kubectl::Kubectl;
use e2e::lab::{Options, with_lab};
use e2e::lan::plug_in_beyond_the_router;
use e2e::manifest::pool_yaml;
use e2e::namespace::Namespace;
use e2e::program::{Program, Recipe};
use e2e::topology::{POOL_IPV4, POOL_IPV6, nodes};
use e2e::wait;

use super::column::Column;
use super::report::{Report, State};
use super::skip::{Kernel, skips};
use crate::show::{print, say};

/// Which specs are run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Only those that a cluster must pass to be called conformant.
    pub only_conformance: bool,
    /// Only those whose name contains this regular expression.
    pub focus: Option<String>,
    /// How many at the same time.
    pub at_once: u32,
    /// How long the run may take, in minutes.
    pub minutes: u32,
    /// Whether a spec that fails is an error.
    pub strict: bool,
    /// The kernel of the nodes, where it is not this machine's.
    pub kernel: Option<String>,
}

/// Runs the specs with one of the proxies, and leaves what came of them in a folder: `PROXY-MODE.json`, `PROXY-MODE.xml`
/// (JUnit) and `PROXY-MODE.log`.
pub(crate) fn run(
    options: Options,
    column: Column,
    selection: &Selection,
    results: &Path,
) -> Result<()> {
    fs::create_dir_all(results)?;
    let results = results.canonicalize()?;
    let node_count = match selection.kernel {
        Some(_) => EMULATED_NODES,
        None => NODES,
    };
    let options = options_for(options, column, node_count)?;
    let Some(kernel) = &selection.kernel else {
        return with_lab(&options, |lab| {
            let machine = plug_in_beyond_the_router()?;
            let cluster = Cluster {
                machine: &machine,
                kubectl: &lab.kubectl,
                binaries: &lab.binaries,
                folder: &lab.folder,
                kubeconfig: lab.control_plane.kubeconfig(),
                node_count,
            };
            let mut program = begin(&cluster, column, selection, &results)?;
            wait_for_end(&mut program, selection, || lab.expect_all_running())?;
            conclude(column, selection, &results)
        });
    };
    with_emulated(&options, kernel, &column.arguments_of_nodes(), |emulated| {
        let cluster = Cluster {
            machine: &Namespace::outer(),
            kubectl: &emulated.kubectl,
            binaries: &emulated.binaries,
            folder: &emulated.folder,
            kubeconfig: emulated.control_plane.kubeconfig(),
            node_count,
        };
        let mut program = begin(&cluster, column, selection, &results)?;
        wait_for_end(&mut program, selection, || emulated.expect_running())?;
        conclude(column, selection, &results)
    })
}

/// Runs the nodes, the LAN and Foghorn in an emulated machine whose control plane is outside, until the machine ends.
pub(crate) fn run_nodes(options: Options, column: Column) -> Result<()> {
    with_lab(&options_for(options, column, EMULATED_NODES)?, |lab| {
        wait::until("the end", FOREVER, || {
            lab.expect_all_running()?;
            Ok(None)
        })
    })
}

fn options_for(options: Options, column: Column, node_count: u8) -> Result<Options> {
    Ok(Options {
        images: images(&Binaries::find()?)?,
        nodes: node_count,
        ..column.lab(options)
    })
}

/// What the specs are run in.
struct Cluster<'a> {
    /// The network of whoever asks: not that of the nodes, since some specs take who is in it for a node.
    machine: &'a Namespace,
    kubectl: &'a Kubectl,
    binaries: &'a Binaries,
    folder: &'a RunFolder,
    kubeconfig: PathBuf,
    node_count: u8,
}

/// What stands for the images of the suite, by the last part of their names.
fn images(binaries: &Binaries) -> Result<Vec<String>> {
    let agnhost = binaries.agnhost()?;
    let agnhost = agnhost.display();
    let coredns = binaries.of_lab("coredns", "make conformance")?;
    let boom_server = binaries.of_lab("regression-issue-74839", "make conformance")?;
    Ok(vec![
        format!("coredns={}", coredns.display()),
        format!("regression-issue-74839={}", boom_server.display()),
        format!("pause={agnhost} pause"),
        format!("nginx={agnhost} test-webserver"),
        // What these are asked to run is a script.
        "busybox=/bin/sh".to_owned(),
        "glibc-dns-testing=/bin/sh".to_owned(),
    ])
}

/// Gives the cluster what every cluster has (DNS, zones, and a pool of addresses) and starts the suite.
fn begin(
    cluster: &Cluster<'_>,
    column: Column,
    selection: &Selection,
    results: &Path,
) -> Result<Program> {
    let kubectl = cluster.kubectl;
    kubectl.apply(&pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
    let coredns = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/coredns.yaml");
    kubectl.run(&["apply", "-f", coredns])?;
    for (number, zone) in nodes(cluster.node_count).zip(ZONES.into_iter().cycle()) {
        let label = format!("topology.kubernetes.io/zone={zone}");
        kubectl.run(&["label", "node", &number.name(), &label])?;
    }
    kubectl.run(&[
        "rollout",
        "status",
        "--namespace=kube-system",
        &format!("--timeout={}s", wait::patience(COREDNS_PATIENCE).as_secs()),
        "deployment/coredns",
    ])?;
    let recipe = recipe(cluster, column, selection, results)?;
    let log = results.join(format!("{}.log", recipe.name));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    say(&format!(
        "The specs begin, with {}. All they say: {}",
        column.title(),
        log.display()
    ));
    Program::start(recipe, results)
}

fn recipe(
    cluster: &Cluster<'_>,
    column: Column,
    selection: &Selection,
    results: &Path,
) -> Result<Recipe> {
    let made_by = "make conformance";
    let ginkgo = cluster.binaries.of_lab("ginkgo", made_by)?;
    let suite = cluster.binaries.of_lab("e2e.test", made_by)?;
    let kubectl = cluster.folder.path().join("bin/kubectl");
    let name = column.file_stem();
    let mut recipe = Recipe::new(&name, ginkgo, cluster.machine)
        .args(["--no-color", "--silence-skips"])
        .arg(format!("--timeout={}m", selection.minutes))
        .arg(format!("--procs={}", selection.at_once))
        .arg(format!(
            "--focus=\\[sig-network\\].*{}",
            selection.focus.as_deref().unwrap_or_default()
        ))
        .arg(format!("--output-dir={}", results.display()))
        .arg(format!("--json-report={name}.json"))
        .arg(format!("--junit-report={name}.xml"));
    let kernel = match selection.kernel {
        Some(_) => Kernel::OfDebian,
        None => Kernel::OfTheMachine,
    };
    if selection.only_conformance {
        // Where the kernel has SCTP, what is about it is run too: nowhere else here it can be.
        recipe = recipe.arg(match kernel {
            Kernel::OfTheMachine => "--label-filter=Conformance",
            Kernel::OfDebian => "--label-filter=Conformance || /SCTPConnectivity/",
        });
    }
    for skip in skips(kernel) {
        recipe = recipe.arg(format!("--skip={}", skip.pattern));
    }
    Ok(recipe
        .arg(suite)
        .args(["--", "--provider=skeleton"])
        .arg(format!("--num-nodes={}", cluster.node_count))
        .arg(format!("--kubeconfig={}", cluster.kubeconfig.display()))
        .arg(format!("--kubectl-path={}", kubectl.display())))
}

/// Waits while everything else runs; an error of the suite is no error here, since the report says which specs failed.
fn wait_for_end(
    program: &mut Program,
    selection: &Selection,
    mut expect_running: impl FnMut() -> Result<()>,
) -> Result<()> {
    let minutes = u64::from(selection.minutes);
    let patience = Duration::from_secs(60 * minutes) + TO_END;
    wait::until("the end of the suite", patience, || {
        expect_running()?;
        Ok((!program.is_running()).then_some(()))
    })
}

/// Reads what came of the specs.
fn conclude(column: Column, selection: &Selection, results: &Path) -> Result<()> {
    let report = Report::read(&results.join(format!("{}.json", column.file_stem())))?;
    let failed = summarize(&column.title(), &report)?;
    ensure!(
        failed == 0 || !selection.strict,
        "{failed} specs failed: see {}",
        results
            .join(format!("{}.log", column.file_stem()))
            .display()
    );
    Ok(())
}

/// Prints the sums and each failure; how many there were.
fn summarize(name: &str, report: &Report) -> Result<usize> {
    let count = |state| {
        report
            .specs
            .values()
            .filter(|spec| spec.state == state)
            .count()
    };
    let failed = count(State::Failed);
    print(&format!(
        "{name}: {} passed, {failed} failed, {} skipped themselves\n",
        count(State::Passed),
        count(State::Skipped),
    ));
    for (spec, outcome) in &report.specs {
        if outcome.state == State::Failed {
            print(&format!("FAILED {spec}\n       {}\n", outcome.message));
        }
    }
    ensure!(count(State::Passed) > 0, "not one spec passed");
    Ok(failed)
}

/// Two in each zone: some specs want a neighbour.
const NODES: u8 = 6;
/// What an emulated processor can carry, and enough for the specs that a cluster must pass.
const EMULATED_NODES: u8 = 3;
const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
const COREDNS_PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(1_000_000);
/// How long the suite may take to end once its time is over.
const TO_END: Duration = Duration::from_secs(300);
