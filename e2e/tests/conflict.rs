//! Another machine on the LAN that has an address of a pool.
//!
//! Run by `make test-neighbours`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::client::{Question, Target};
use e2e::failover::wait_for_announcer;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{TCP_PORT, deployment, load_balancer, pool_yaml};
use e2e::namespace::Namespace;
use e2e::observer::who_has;
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// The first of the pool that the machine does not have.
const FREE: &str = "192.168.1.203";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
#[ignore = "needs the lab: make test-neighbours"]
fn an_address_that_another_machine_has_is_not_announced() -> Result<()> {
    with_lab(&Options::foghorn("conflict"), |lab| {
        let printer =
            lab.plug_in_host("printer", 0x51, &["192.168.1.201/24", "192.168.1.202/24"])?;
        lab.kubectl
            .apply(&pool_yaml("lan", &["192.168.1.201-192.168.1.210"]))?;
        lab.api.create(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("web", 3),
        )?;
        lab.wait_for_ready_pods("web", 3, PATIENCE)?;
        who_did_not_choose_gets_an_address_that_nobody_has(lab)?;
        who_asked_for_the_address_waits_until_the_machine_is_gone(lab, &printer)?;
        one_that_everybody_knows_stays_and_is_defended(lab, &printer)
    })
}

fn who_did_not_choose_gets_an_address_that_nobody_has(lab: &Lab) -> Result<()> {
    println!(
        "-- a Service that did not choose gets another address, and another one if that is taken too"
    );
    lab.api.create(SERVICES, &single_stack("web", None))?;
    let free: IpAddr = FREE.parse()?;
    wait::until("an address that nobody has", PATIENCE, || {
        Ok((lab.external_addresses("default", "web")? == [free]).then_some(()))
    })?;
    wait_for_announcer(lab, free)?;
    answers(lab, free)?;
    let said = events(lab, "web")?;
    for words in [
        "192.168.1.201 is in use by another machine with the hardware address 02:00:00:00:01:51",
        "192.168.1.202 is in use by another machine with the hardware address 02:00:00:00:01:51",
        "192.168.1.201 is in use by a machine on the LAN with the hardware address 02:00:00:00:01:51, as node node-",
    ] {
        ensure!(said.contains(words), "no Event says \"{words}\":\n{said}");
    }
    Ok(())
}

fn who_asked_for_the_address_waits_until_the_machine_is_gone(
    lab: &Lab,
    printer: &Namespace,
) -> Result<()> {
    println!("-- one that asked for the address keeps it and waits until the machine is gone");
    let wanted: IpAddr = "192.168.1.201".parse()?;
    lab.api
        .create(SERVICES, &single_stack("wish", Some("192.168.1.201")))?;
    let record =
        "/apis/foghorn.dev/v1alpha1/namespaces/default/servicel2statuses/wish.192.168.1.201";
    wait::until("a record that names the machine", PATIENCE, || {
        let found = lab.api.get(record).unwrap_or_default();
        Ok((found["status"]["conflict"]["mac"] == "02:00:00:00:01:51").then_some(()))
    })?;
    let pending = lab.external_addresses("default", "wish")?;
    ensure!(
        pending.is_empty() || pending == [wanted],
        "it asked for {wanted} and has {pending:?}"
    );
    let answerers = who_has(&lab.client, wanted)?;
    ensure!(
        answerers.iter().all(|one| one.node.is_none()) && answerers.len() == 1,
        "the machine alone answers, not {answerers:?}"
    );
    printer.configure("addr del 192.168.1.201/24 dev eth0")?;
    let owner = wait_for_announcer(lab, wanted)?;
    println!("{owner} announces {wanted}");
    wait::until("an EXTERNAL-IP", PATIENCE, || {
        Ok((lab.external_addresses("default", "wish")? == [wanted]).then_some(()))
    })?;
    Ok(())
}

fn one_that_everybody_knows_stays_and_is_defended(lab: &Lab, printer: &Namespace) -> Result<()> {
    println!("-- one that everybody knows stays, and is defended");
    printer.configure("addr add 192.168.1.203/24 dev eth0")?;
    printer
        .output(
            "arping",
            &["-U", "-c", "3", "-w", "3", "-i", "eth0", "-S", FREE, FREE],
        )
        .or_else(|_| {
            printer.output(
                "arping",
                &[
                    "-P", "-U", "-c", "3", "-w", "3", "-i", "eth0", "-S", FREE, FREE,
                ],
            )
        })
        .or_else(|error| Ok::<_, anyhow::Error>(format!("{error:#}")))?;
    wait::until("an Event about the defence", PATIENCE, || {
        Ok(events(lab, "web")?
            .contains("claims 192.168.1.203: defended")
            .then_some(()))
    })?;
    ensure!(
        lab.external_addresses("default", "web")? == [FREE.parse::<IpAddr>()?],
        "it moved"
    );
    Ok(())
}

fn single_stack(name: &str, address: Option<&str>) -> Value {
    let mut service = load_balancer(name);
    service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    service["spec"]["ipFamilies"] = json!(["IPv4"]);
    service["spec"]["selector"] = json!({"app": "web"});
    if let Some(address) = address {
        service["metadata"]["annotations"] = json!({"foghorn.dev/loadBalancerIPs": address});
    }
    service
}

/// What the Events about a Service say.
fn events(lab: &Lab, service: &str) -> Result<String> {
    let list = lab
        .api
        .get("/apis/events.k8s.io/v1/namespaces/default/events")?;
    let items = list["items"].as_array().into_iter().flatten();
    let about = items.filter(|event| event["regarding"]["name"] == service);
    Ok(about
        .filter_map(|event| event["note"].as_str())
        .collect::<Vec<_>>()
        .join("\n"))
}

fn answers(lab: &Lab, address: IpAddr) -> Result<()> {
    let target = Target::tcp(at(address, TCP_PORT));
    let stream = Stream::start(&lab.client, target, Question::Hostname, Pace::DENSE)?;
    stream.wait_for_answer(Duration::ZERO, PATIENCE, |_| true)?;
    stream.stop().map(drop)
}
