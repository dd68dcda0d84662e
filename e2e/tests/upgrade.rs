//! An older version of Foghorn, installed by its own chart, is upgraded to this one and put back, rolling and under load.
//!
//! Run by `make test-upgrade`, which builds the older versions (`OLDER='COMMIT COMMIT'`), once for each.

#![expect(clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::client::{Protocol, Question, Target};
use e2e::installation::{ComponentPod, NAMESPACE};
use e2e::lab::{Lab, Options, with_lab};
use e2e::long::LongConnection;
use e2e::manifest::{TCP_PORT, load_balancer};
use e2e::observer;
use e2e::questions::{at, items};
use e2e::stream::{Pace, Stream};
use e2e::topology::{NODES, POOL_IPV4, POOL_IPV6, ROUTER_IPV4};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(120);
/// Traffic before and after a change, without which its end would not be seen.
const SETTLED: Duration = Duration::from_millis(500);
/// As with any planned move: an answer within half a second counts.
const PACE: Pace = Pace::PATIENT;

#[test]
#[ignore = "needs the lab and an older version: make test-upgrade"]
fn an_upgrade_and_the_way_back_are_planned_moves() -> Result<()> {
    let older = Older::find()?;
    let options = Options {
        older: Some(older.programs.clone()),
        ..Options::as_pods("upgrade")
    };
    with_lab(&options, |lab| {
        let outcome = there_and_back(lab, &older);
        if outcome.is_err() {
            // The lab shows its own logs alone.
            println!("{}", lab.what_foghorn_says()?);
        }
        outcome
    })
}

fn there_and_back(lab: &mut Lab, older: &Older) -> Result<()> {
    older.install(lab)?;
    lab.create_web("web")?;
    let vips = lab.wait_until_web_answers(PATIENCE)?;
    wait_for_version(lab, OLDER, &vips)?;
    println!("the older version serves {vips:?}");

    under_load(lab, "upgrade", &vips, |lab| {
        // In the order of the handbook: definitions first.
        let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
        let apply = ["apply", "--server-side", "--force-conflicts", "-f"];
        lab.kubectl.run(&[&apply[..], &[definitions]].concat())?;
        let values = values(THIS);
        lab.upgrade_by_helm(&values.each_ref().map(String::as_str))?;
        wait_for_version(lab, THIS, &vips)
    })?;
    what_is_new_works(lab, &vips)?;
    let load = restarts(lab, "proxy", &vips)?;
    ensure!(
        load.moves == 0,
        "{} moves while proxies restarted",
        load.moves
    );
    ensure!(load.broken.is_empty(), "{:?}", load.broken);
    let load = restarts(lab, "speaker", &vips)?;
    ensure!(
        load.moves <= vips.len() * NODES.len(),
        "{} moves while speakers restarted",
        load.moves
    );
    a_new_service_gets_an_address(lab, "after-upgrade")?;

    under_load(lab, "way back", &vips, |lab| {
        lab.helm(&["rollback", "foghorn", "1", "--namespace", NAMESPACE])?;
        wait_for_version(lab, OLDER, &vips)
    })?;
    a_new_service_gets_an_address(lab, "after-way-back")?;
    lab.expect_no_restarts()
}

/// What was built of an older version.
struct Older {
    programs: PathBuf,
    chart: String,
}

impl Older {
    fn find() -> Result<Self> {
        let programs = env::var_os("FOGHORN_OLDER").context("run `make test-upgrade`")?;
        let programs = PathBuf::from(programs);
        let chart = programs.join("source/charts/foghorn").display().to_string();
        Ok(Self { programs, chart })
    }

    fn install(&self, lab: &Lab) -> Result<()> {
        let values = values(OLDER);
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let install = ["install", "foghorn", &self.chart, "--create-namespace"];
        let arguments = install.into_iter().chain(["--namespace", NAMESPACE]);
        lab.helm(&arguments.chain(sets).collect::<Vec<_>>())?;
        Ok(())
    }
}

/// What is set at every installation: everything of Foghorn, with an image of this name.
fn values(image: &str) -> [String; 4] {
    [
        format!("image.repository={image}"),
        format!("pool={{{POOL_IPV4},{POOL_IPV6}}}"),
        "prometheus.enabled=true,proxy.enabled=true".to_owned(),
        format!("proxy.apiServer.host={ROUTER_IPV4}"),
    ]
}

/// Waits until all Pods are of one version and ready; meanwhile the Service keeps its addresses.
fn wait_for_version(lab: &mut Lab, image: &str, vips: &[IpAddr]) -> Result<()> {
    let expected = BTreeMap::from([("controller", 2), ("speaker", 3), ("proxy", 3)]);
    let mut last = String::new();
    let outcome = wait::until("Pods of the other version", PATIENCE, || {
        lab.expect_all_running()?;
        let addresses = lab.external_addresses("default", "web")?;
        ensure!(addresses == vips, "the Service has {addresses:?} now");
        let pods = lab.pods_of_foghorn()?;
        last = pods.iter().map(|pod| format!("{pod:?}\n")).collect();
        let mut ready = BTreeMap::new();
        for pod in pods
            .iter()
            .filter(|pod| pod.is_ready && pod.repository() == image)
        {
            *ready.entry(pod.component.as_str()).or_default() += 1;
        }
        Ok((ready == expected && pods.len() == 8).then_some(()))
    });
    outcome.with_context(|| format!("there are\n{last}"))
}

/// One part is rolled out alone.
fn restarts(lab: &mut Lab, part: &str, vips: &[IpAddr]) -> Result<Load> {
    let before = lab.pods_of_foghorn()?;
    let load = under_load(lab, &format!("{part} alone"), vips, |lab| {
        let mut values = values(THIS).to_vec();
        values.push(format!("{part}.podAnnotations.restarted=\"1\""));
        lab.upgrade_by_helm(&values.iter().map(String::as_str).collect::<Vec<_>>())?;
        let is_old = |pod: &ComponentPod| {
            pod.component == part && before.iter().any(|old| old.name == pod.name)
        };
        wait::until("the end of the Pods that there were", PATIENCE, || {
            Ok((!lab.pods_of_foghorn()?.iter().any(is_old)).then_some(()))
        })?;
        wait_for_version(lab, THIS, vips)
    })?;
    Ok(load)
}

/// What a client noticed of a change.
struct Load {
    /// How often addresses went from one node to another.
    moves: usize,
    /// Connections that did not stay, and why.
    broken: Vec<anyhow::Error>,
}

/// Runs `change` while a client asks both addresses each 5 ms and holds a connection to each.
fn under_load(
    lab: &mut Lab,
    what: &str,
    vips: &[IpAddr],
    change: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Load> {
    let onlooker = Capture::start(&lab.client)?;
    let mut streams = Vec::new();
    let mut connections = Vec::new();
    for &vip in vips {
        let owner = wait::until("one node that answers", PATIENCE, || {
            observer::announcer(&lab.client, vip)
        })?;
        let address = at(vip, TCP_PORT);
        let protocol = Protocol::Tcp;
        let target = Target { address, protocol };
        let stream = Stream::start(&lab.client, target, Question::Hostname, PACE)?;
        stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
        streams.push((vip, owner, stream));
        let interval = Duration::from_millis(20);
        connections.push(LongConnection::start(&lab.client, address, interval, LONG)?);
    }
    change(lab)?;
    for (_, _, stream) in &streams {
        stream.wait_for_answer(stream.now() + SETTLED, PATIENCE, |_| true)?;
    }
    let mut load = Load {
        moves: 0,
        broken: Vec::new(),
    };
    for connection in connections {
        connection.wait_for_answers(10, PATIENCE)?;
        load.broken.extend(connection.stop().err());
    }
    for (vip, owner, stream) in streams {
        let record = stream.stop()?.since(SETTLED);
        let gap = record.longest_gap().length;
        // Who has an address at first need not announce it again.
        let mut owners = vec![owner.mac()];
        owners.extend(onlooker.owners(vip));
        owners.dedup();
        let moves = owners.len() - 1;
        println!(
            "{what}: {vip}: {record}, longest gap {} ms, {moves} moves",
            gap.as_millis()
        );
        let lost = record.asked.len() - record.answered();
        ensure!(
            lost * 100 <= record.asked.len() && gap < LONGEST_GAP,
            "{what}: {vip}: {record}"
        );
        // On each node speaker and proxy are restarted once, and an address leaves a node only then.
        ensure!(
            moves <= 2 * NODES.len(),
            "{what}: {vip} moved {moves} times"
        );
        load.moves += moves;
    }
    println!(
        "{what}: {} of {} connections did not stay",
        load.broken.len(),
        vips.len()
    );
    Ok(load)
}

/// Every address has its record.
fn what_is_new_works(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
    wait::until("a record of each address", PATIENCE, || {
        let records = lab
            .api
            .get("/apis/foghorn.dev/v1alpha1/servicel2statuses")?;
        let recorded =
            items(&records).filter_map(|record| record.pointer("/status/address")?.as_str());
        let recorded: Vec<&str> = recorded.collect();
        let is_there = |vip: &IpAddr| recorded.contains(&vip.to_string().as_str());
        Ok(vips.iter().all(is_there).then_some(()))
    })
}

fn a_new_service_gets_an_address(lab: &Lab, name: &str) -> Result<()> {
    lab.api
        .create("/api/v1/namespaces/default/services", &load_balancer(name))?;
    let addresses = lab.wait_for_external_addresses("default", name, 2, PATIENCE)?;
    println!("{name} has {addresses:?}");
    Ok(())
}

/// As long as a planned move may be noticed on a busy machine.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// No answer on a connection that stays may take longer.
const LONG: Duration = Duration::from_secs(3);
const OLDER: &str = "foghorn-older";
const THIS: &str = "foghorn";
