//! What a person writes wrong harms nothing else, and the message says what to do.
//!
//! Run by `make test-e2e`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest;
use e2e::wait;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn a_bad_pool_harms_only_itself() -> Result<()> {
    let options = Options {
        configuration_files: true,
        ..Options::foghorn("configuration")
    };
    with_lab(&options, |lab| {
        a_bad_object_is_refused_by_the_api(lab)?;
        a_bad_object_says_so_in_its_condition(lab)?;
        a_bad_document_in_a_file_is_refused_with_its_place(lab)?;
        a_corrected_file_counts_without_a_restart(lab)
    })
}

/// What the schema can see is refused at once.
fn a_bad_object_is_refused_by_the_api(lab: &mut Lab) -> Result<()> {
    for (name, address) in [
        ("no-address", "the-lan"),
        ("everything", "0.0.0.0/0"),
        ("host-bits", "192.168.1.77/28"),
    ] {
        let bad = manifest::pool_yaml(name, &[address]);
        let error = match lab.kubectl.apply(&bad) {
            Ok(()) => bail!("the API server accepted {address}"),
            Err(error) => format!("{error:#}"),
        };
        println!("kubectl apply: {error}");
        for part in [name, "spec.addresses"] {
            ensure!(
                error.contains(part),
                "the message does not name {part}: {error}"
            );
        }
    }
    Ok(())
}

/// What only a comparison of addresses can see is said by the object itself.
fn a_bad_object_says_so_in_its_condition(lab: &mut Lab) -> Result<()> {
    let bad = manifest::pool_yaml("reversed", &["192.168.1.250-192.168.1.240"]);
    lab.kubectl.apply(&bad)?;
    let message = wait::until("the condition of the bad pool", PATIENCE, || {
        let pool = lab
            .kubectl
            .run(&["get", "ipaddresspool", "reversed", "-o", "json"])?;
        let pool: serde_json::Value = serde_json::from_str(&pool)?;
        let conditions = pool["status"]["conditions"].as_array().cloned();
        Ok(conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Accepted" && condition["status"] == "False")
            .map(|condition| condition["message"].to_string()))
    })?;
    println!("the pool says: {message}");
    ensure!(
        message.contains("spec.addresses[0]") && message.contains("swap the two addresses"),
        "the message does not say where and what to do: {message}"
    );
    lab.kubectl.run(&["delete", "ipaddresspool", "reversed"])?;
    Ok(())
}

fn a_bad_document_in_a_file_is_refused_with_its_place(lab: &mut Lab) -> Result<()> {
    let bad = manifest::pool_yaml("bad", &["192.168.1.250-192.168.1.240"]);
    let good = manifest::pool_yaml(
        "good",
        &["192.168.1.200-192.168.1.209", "fd12:3456:789a:1::e:0/124"],
    );
    // In one file, the bad one first: what follows it must count all the same.
    fs::write(
        lab.folder.configuration().join("pools.yaml"),
        format!("{bad}---\n{good}"),
    )?;
    create_service(lab, "first", None)?;
    let addresses = lab.wait_for_external_addresses("default", "first", 2, PATIENCE)?;
    println!("first has {addresses:?} from the good pool");

    let message = wait::until("a message about the bad pool", PATIENCE, || {
        let log = controller_log(lab)?;
        Ok(log
            .lines()
            .find(|line| line.contains("192.168.1.250-192.168.1.240"))
            .map(str::to_owned))
    })?;
    println!("the controller says: {message}");
    let log = controller_log(lab)?;
    ensure!(
        log.contains("pools.yaml:7"),
        "no message names file and line"
    );
    ensure!(
        message.contains("backwards"),
        "the message does not say what is wrong: {message}"
    );
    Ok(())
}

fn a_corrected_file_counts_without_a_restart(lab: &mut Lab) -> Result<()> {
    let before = lab.external_addresses("default", "first")?;
    create_service(lab, "second", Some("bad"))?;
    let corrected = manifest::pool_yaml(
        "bad",
        &["192.168.1.240-192.168.1.250", "fd12:3456:789a:1::f:0/124"],
    );
    fs::write(lab.folder.configuration().join("more.yaml"), "not: [yaml\n")?;
    let good = manifest::pool_yaml(
        "good",
        &["192.168.1.200-192.168.1.209", "fd12:3456:789a:1::e:0/124"],
    );
    fs::write(
        lab.folder.configuration().join("pools.yaml"),
        format!("{corrected}---\n{good}"),
    )?;
    let addresses = lab.wait_for_external_addresses("default", "second", 2, PATIENCE)?;
    ensure!(
        addresses
            .iter()
            .any(|address| address.to_string().starts_with("192.168.1.24")
                || address.to_string() == "192.168.1.250"),
        "{addresses:?} are not of the pool that was asked for"
    );
    ensure!(
        lab.external_addresses("default", "first")? == before,
        "the first Service's addresses have moved"
    );
    Ok(())
}

fn create_service(lab: &Lab, name: &str, pool: Option<&str>) -> Result<()> {
    let mut service = manifest::load_balancer(name);
    if let Some(pool) = pool {
        service["metadata"]["annotations"] = json!({"foghorn.dev/address-pool": pool});
    }
    lab.api
        .create("/api/v1/namespaces/default/services", &service)?;
    Ok(())
}

fn controller_log(lab: &Lab) -> Result<String> {
    match &lab.controller {
        Some(controller) => controller.log_text(),
        None => Ok(String::new()),
    }
}
