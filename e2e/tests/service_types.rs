//! A Service that is no load balancer any more gives its address back at once.
//!
//! Run by `make test-e2e`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest;
use e2e::observer::who_has;
use e2e::questions::items;
use e2e::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn an_address_is_released_when_its_service_changes() -> Result<()> {
    with_lab(&Options::foghorn("service-types"), |lab| {
        // One address of each family: whoever is second waits for the first.
        let pool = manifest::pool_yaml("tiny", &["192.168.1.240/32", "fd12:3456:789a:1::f0/128"]);
        lab.kubectl.apply(&pool)?;
        lab.api.create(
            "/apis/apps/v1/namespaces/default/deployments",
            &manifest::deployment("web", 3),
        )?;
        let changes = [
            ("to ClusterIP", Some(json!({"spec": {"type": "ClusterIP"}}))),
            ("to NodePort", Some(json!({"spec": {"type": "NodePort"}}))),
            (
                "to ExternalName",
                Some(json!({"spec": {"type": "ExternalName", "externalName": "www.example.org"}})),
            ),
            ("deleted", None),
        ];
        create(lab, "holder-0")?;
        for (number, (title, patch)) in changes.into_iter().enumerate() {
            let (holder, next) = (format!("holder-{number}"), format!("holder-{}", number + 1));
            let addresses = lab.wait_for_external_addresses("default", &holder, 2, PATIENCE)?;
            wait_until_announced(lab, &addresses)?;
            create(lab, &next)?;
            wait_for_event(lab, &next)?;
            ensure!(
                lab.external_addresses("default", &next)?.is_empty(),
                "{next} has what {holder} holds"
            );

            println!("{holder} changes: {title}");
            match patch {
                Some(patch) => drop(lab.api.patch(&format!("{SERVICES}/{holder}"), &patch)?),
                None => drop(lab.api.delete(&format!("{SERVICES}/{holder}"))?),
            }
            ensure!(
                lab.wait_for_external_addresses("default", &next, 2, PATIENCE)? == addresses,
                "{next} has other addresses than {holder} released"
            );
            if let Some(service) = lab.api.find(&format!("{SERVICES}/{holder}"))? {
                wait::until("an empty status", PATIENCE, || {
                    let empty = lab.external_addresses("default", &holder)?.is_empty();
                    Ok(empty.then_some(()))
                })?;
                println!("{holder} is {} now", service["spec"]["type"]);
            }
        }
        nobody_answers_in_the_end(lab)
    })
}

fn nobody_answers_in_the_end(lab: &Lab) -> Result<()> {
    let list = lab.api.get(SERVICES)?;
    let last = items(&list)
        .filter(|service| service["spec"]["type"] == "LoadBalancer")
        .filter_map(|service| service["metadata"]["name"].as_str());
    for name in last {
        let addresses = lab.external_addresses("default", name)?;
        lab.api.delete(&format!("{SERVICES}/{name}"))?;
        for address in addresses {
            wait::until(&format!("silence about {address}"), PATIENCE, || {
                Ok(who_has(&lab.client, address)?.is_empty().then_some(()))
            })?;
        }
    }
    Ok(())
}

fn create(lab: &Lab, name: &str) -> Result<()> {
    let mut service = manifest::load_balancer(name);
    service["spec"]["selector"] = json!({"app": "web"});
    lab.api.create(SERVICES, &service)?;
    Ok(())
}

fn wait_until_announced(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    for &address in addresses {
        e2e::failover::wait_for_announcer(lab, address)?;
    }
    Ok(())
}

/// Waits until somebody has said why the Service has no address.
fn wait_for_event(lab: &Lab, service: &str) -> Result<()> {
    let path =
        format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={service}");
    let message = wait::until(&format!("an Event about {service}"), PATIENCE, || {
        let events = lab.api.get(&path)?;
        let message =
            items(&events).find_map(|event: &Value| event["message"].as_str().map(str::to_owned));
        Ok(message)
    })?;
    println!("{service}: {message}");
    Ok(())
}
