//! One run of the suite.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::binaries::Binaries;
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::manifest::pool_yaml;
use e2e::program::{Program, Recipe};
use e2e::topology::{POOL_IPV4, POOL_IPV6};
use e2e::wait;

use super::report::{Report, State};
use super::skip::skips;
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
}

/// Runs the specs with one of the proxies, and leaves what came of them in a folder: `PROXY.json`, `PROXY.xml` (JUnit)
/// and `PROXY.log`.
pub(crate) fn run(options: Options, selection: &Selection, results: &Path) -> Result<()> {
    let name = name_of(options.proxy);
    let options = Options {
        images: images(&Binaries::find()?)?,
        ..options
    };
    fs::create_dir_all(results)?;
    let results = results.canonicalize()?;
    with_lab(&options, |lab| {
        prepare(lab)?;
        say(&format!(
            "Lab ready after {:.1} s; the specs begin, with {name}. All they say: {}",
            lab.start_time.as_secs_f64(),
            results.join(format!("{name}.log")).display()
        ));
        let begin = Instant::now();
        ask(lab, name, selection, &results)?;
        let report = Report::read(&results.join(format!("{name}.json")))?;
        let failed = summarize(name, &report, begin.elapsed())?;
        ensure!(
            failed == 0 || !selection.strict,
            "{failed} specs failed: see {}",
            results.join(format!("{name}.log")).display()
        );
        Ok(())
    })
}

/// The name of a run and of its files.
pub(super) fn name_of(proxy: ServiceProxy) -> &'static str {
    match proxy {
        ServiceProxy::Foghorn => "foghorn",
        ServiceProxy::KubeProxy => "kube-proxy",
        ServiceProxy::None => "none",
    }
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

/// Gives the cluster what every cluster has: DNS, zones, and a pool of addresses.
fn prepare(lab: &mut Lab) -> Result<()> {
    lab.kubectl
        .apply(&pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
    let coredns = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/coredns.yaml");
    lab.kubectl.run(&["apply", "-f", coredns])?;
    for node in &lab.nodes {
        let number = node.number;
        lab.kubectl.run(&[
            "label",
            "node",
            &number.name(),
            &format!("topology.kubernetes.io/zone=zone-of-{number}"),
        ])?;
    }
    lab.kubectl.run(&[
        "rollout",
        "status",
        "--namespace=kube-system",
        "--timeout=60s",
        "deployment/coredns",
    ])?;
    Ok(())
}

/// Runs the suite to its end, as the outside client of the lab.
fn ask(lab: &mut Lab, name: &str, selection: &Selection, results: &Path) -> Result<()> {
    let ginkgo = lab.binaries.of_lab("ginkgo", "make conformance")?;
    let suite = lab.binaries.of_lab("e2e.test", "make conformance")?;
    let kubectl = lab.folder.path().join("bin/kubectl");
    let mut recipe = Recipe::new(name, ginkgo, &lab.client)
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
    if selection.only_conformance {
        recipe = recipe.arg("--label-filter=Conformance");
    }
    for skip in skips() {
        recipe = recipe.arg(format!("--skip={}", skip.pattern));
    }
    let log = results.join(format!("{name}.log"));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    recipe = recipe
        .arg(suite)
        .args(["--", "--provider=skeleton", "--num-nodes=3"])
        .arg(format!(
            "--kubeconfig={}",
            lab.control_plane.kubeconfig().display()
        ))
        .arg(format!("--kubectl-path={}", kubectl.display()));
    let mut program = Program::start(recipe, results)?;
    // It ends with an error if a spec fails: the report says which.
    let minutes = u64::from(selection.minutes);
    let patience = Duration::from_secs(60 * minutes) + TO_END;
    wait::until("the end of the suite", patience, || {
        lab.expect_all_running()?;
        Ok((!program.is_running()).then_some(()))
    })?;
    ensure!(
        results.join(format!("{name}.json")).exists(),
        "the suite left no report: see {}",
        log.display()
    );
    Ok(())
}

/// Prints the sums and each failure; how many there were.
fn summarize(name: &str, report: &Report, took: Duration) -> Result<usize> {
    let count = |state| {
        report
            .specs
            .values()
            .filter(|spec| spec.state == state)
            .count()
    };
    let failed = count(State::Failed);
    print(&format!(
        "{name}: {} passed, {failed} failed, {} skipped themselves, in {} s\n",
        count(State::Passed),
        count(State::Skipped),
        took.as_secs()
    ));
    for (spec, outcome) in &report.specs {
        if outcome.state == State::Failed {
            print(&format!("FAILED {spec}\n       {}\n", outcome.message));
        }
    }
    ensure!(count(State::Passed) > 0, "not one spec passed");
    Ok(failed)
}

/// How long the suite may take to end once its time is over.
const TO_END: Duration = Duration::from_secs(300);
