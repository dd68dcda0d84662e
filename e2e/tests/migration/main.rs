//! From the real MetalLB to Foghorn and back, as the handbook says: no address moves, and the client hardly notices.
//!
//! Run by `make test-migration`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod metallb;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{self, TCP_PORT};
use e2e::observer;
use e2e::questions::{at, external_addresses, items};
use e2e::stream::{Pace, Stream};
use e2e::topology::NODES;
use e2e::wait;
use serde_json::{Value, json};

use metallb::MetalLb;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs the lab and MetalLB: make test-migration"]
fn from_metallb_and_back() -> Result<()> {
    with_lab(&Options::foghorn("migration"), |lab| {
        // The lab starts all of Foghorn; here it comes later.
        stop_foghorn(lab)?;
        let mut metallb = MetalLb::install(lab)?;
        metallb.start_controller()?;
        metallb.start_speakers(lab)?;
        let addresses = some_services(lab)?;
        let vip = *addresses.first().context("no address")?;
        metallb_announces(lab, &mut metallb, vip)?;
        let before = everybody(lab)?;
        println!("MetalLB gave {before:?}");

        let target = Target::tcp(at(vip, TCP_PORT));
        let stream = Stream::start(&lab.client, target, Question::Hostname, Pace::DENSE)?;
        stream.wait_for_answer(Duration::from_millis(200), PATIENCE, |_| true)?;
        let begin = stream.now();
        to_foghorn(lab, &mut metallb, &before)?;
        wait_for_announcement(lab, vip)?;
        println!(
            "there: {}",
            stream.now().saturating_sub(begin).as_secs_f32()
        );
        new_service_from_the_old_pool(lab, "after")?;
        let before = everybody(lab)?;
        back_to_metallb(lab, &mut metallb, &before)?;
        wait_for_announcement(lab, vip)?;
        let end = stream.now();
        stream.wait_for_answer(end, PATIENCE, |_| true)?;
        let record = stream.stop()?.since(begin);
        println!(
            "{} requests, {} without an answer, longest gap {} ms",
            record.asked.len(),
            record.asked.len() - record.answered(),
            record.longest_gap().length.as_millis()
        );
        ensure!(
            record.longest_gap().length < LONGEST_GAP,
            "the client had no answer for {:?}",
            record.longest_gap().length
        );
        // Foghorn has ended as it should: nobody is to wonder that it does not run.
        lab.controller = None;
        for node in NODES {
            lab.node_mut(node)?.speaker = None;
        }
        Ok(())
    })
}

/// The steps of the handbook: one program gives addresses at a time, then node by node.
fn to_foghorn(lab: &mut Lab, metallb: &mut MetalLb, before: &[Held]) -> Result<()> {
    metallb.stop_controller()?;
    lab.controller_mut()?.start_again()?;
    wait::until("the adoption of all addresses", PATIENCE, || {
        let services = lab.api.get("/api/v1/namespaces/default/services")?;
        let adopted = items(&services)
            .filter(|service| is_assigned(service))
            .count();
        Ok((adopted == before.len()).then_some(()))
    })?;
    nobody_moved(lab, before)?;
    for node in NODES {
        metallb.stop_speaker(node)?;
        lab.node_mut(node)?.speaker_mut()?.start_again()?;
    }
    nobody_moved(lab, before)
}

fn back_to_metallb(lab: &mut Lab, metallb: &mut MetalLb, before: &[Held]) -> Result<()> {
    for node in NODES {
        lab.node_mut(node)?.speaker_mut()?.terminate(PATIENCE)?;
        metallb.start_speaker(lab, node)?;
    }
    lab.controller_mut()?.terminate(PATIENCE)?;
    metallb.start_controller()?;
    new_service_from_the_old_pool(lab, "back")?;
    nobody_moved(lab, before)
}

fn stop_foghorn(lab: &mut Lab) -> Result<()> {
    lab.controller_mut()?.terminate(PATIENCE)?;
    for node in NODES {
        lab.node_mut(node)?.speaker_mut()?.terminate(PATIENCE)?;
    }
    Ok(())
}

/// Services as MetalLB's users write them; the addresses of the one that the client asks.
fn some_services(lab: &Lab) -> Result<Vec<IpAddr>> {
    lab.api.create(
        "/apis/apps/v1/namespaces/default/deployments",
        &manifest::deployment("web", 3),
    )?;
    let mut web = manifest::load_balancer("web");
    // The other pool is MetalLB's example, and no network of this LAN.
    web["metadata"]["annotations"] = json!({"metallb.io/address-pool": "lan"});
    lab.api
        .create("/api/v1/namespaces/default/services", &web)?;
    lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
    for (name, annotations, ports) in [
        (
            "wish",
            json!({"metallb.io/loadBalancerIPs": "192.168.1.209"}),
            json!([{"port": 80}]),
        ),
        (
            "old-wish",
            json!({"metallb.universe.tf/loadBalancerIPs": "192.168.1.208"}),
            json!([{"port": 80}]),
        ),
        (
            "tcp",
            json!({"metallb.io/allow-shared-ip": "dns", "metallb.io/loadBalancerIPs": "192.168.1.207"}),
            json!([{"port": 53, "protocol": "TCP"}]),
        ),
        (
            "udp",
            json!({"metallb.io/allow-shared-ip": "dns", "metallb.io/loadBalancerIPs": "192.168.1.207"}),
            json!([{"port": 53, "protocol": "UDP"}]),
        ),
        (
            "pool",
            json!({"metallb.io/address-pool": "example"}),
            json!([{"port": 80}]),
        ),
    ] {
        let mut service = manifest::load_balancer(name);
        service["metadata"]["annotations"] = annotations;
        service["spec"]["ports"] = ports;
        service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
        lab.api
            .create("/api/v1/namespaces/default/services", &service)?;
        lab.wait_for_external_addresses("default", name, 1, PATIENCE)?;
    }
    lab.wait_for_external_addresses("default", "web", 2, PATIENCE)
}

/// MetalLB's pools are read from the cluster as they are.
fn new_service_from_the_old_pool(lab: &Lab, name: &str) -> Result<()> {
    let mut service = manifest::load_balancer(name);
    service["metadata"]["annotations"] = json!({"metallb.io/address-pool": "lan"});
    lab.api
        .create("/api/v1/namespaces/default/services", &service)?;
    let addresses = lab.wait_for_external_addresses("default", name, 2, PATIENCE)?;
    println!("{name} has {addresses:?}");
    Ok(())
}

type Held = (String, Vec<IpAddr>);

fn everybody(lab: &Lab) -> Result<Vec<Held>> {
    let services = lab.api.get("/api/v1/namespaces/default/services")?;
    Ok(items(&services)
        .map(|service| {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), external_addresses(service))
        })
        .filter(|(_, addresses)| !addresses.is_empty())
        .collect())
}

fn nobody_moved(lab: &Lab, before: &[Held]) -> Result<()> {
    let now = everybody(lab)?;
    for held in before {
        ensure!(now.contains(held), "{held:?} moved: {now:?}");
    }
    Ok(())
}

fn is_assigned(service: &Value) -> bool {
    e2e::questions::items_of(&service["status"]["conditions"]).any(|condition| {
        condition["type"] == "foghorn.dev/AddressAssigned" && condition["status"] == "True"
    })
}

/// Waits until MetalLB announces an address. Its speakers look at Services before their configuration is there, and now and
/// then (seen once) not again after that: they are started anew then, as its users do.
fn metallb_announces(lab: &Lab, metallb: &mut MetalLb, vip: IpAddr) -> Result<()> {
    for _ in 0..2 {
        let announced = wait::until("MetalLB to announce", QUICK, || {
            observer::announcer(&lab.client, vip)
        });
        if announced.is_ok() {
            return Ok(());
        }
        println!("MetalLB announces nothing: its speakers are started again");
        for node in NODES {
            metallb.stop_speaker(node)?;
            metallb.start_speaker(lab, node)?;
        }
    }
    wait_for_announcement(lab, vip)
}

fn wait_for_announcement(lab: &Lab, vip: IpAddr) -> Result<()> {
    wait::until("exactly one node that announces", PATIENCE, || {
        observer::announcer(&lab.client, vip)
    })?;
    Ok(())
}

/// MetalLB's speakers announce within a second or two of their start, or not at all.
const QUICK: Duration = Duration::from_secs(15);
/// Speakers of MetalLB that are gone leave an address to others of theirs, which ours take for strangers at first.
const LONGEST_GAP: Duration = Duration::from_secs(3);
