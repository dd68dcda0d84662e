//! Texts that are too long, or look like something else.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::kubectl::Kubectl;
use e2e::lab::Lab;
use e2e::questions::items;
use serde_json::{Value, json};

use super::{ASK, service, start, wait_for_refusal};

/// What would fill a disk or a log, or look like a line of one.
pub(crate) fn hostile_texts_harm_nobody(lab: &mut Lab, author: &Kubectl) -> Result<()> {
    what_is_no_object_is_refused_by_the_api_server(lab, author)?;
    what_the_api_server_takes_gets_no_address(lab, author)?;
    another_one_is_served_as_quickly_as_ever(lab, author)?;
    events_and_logs_stay_short(lab)?;
    for number in 0..7 {
        let name = format!("text-{number}");
        author.run(&["delete", "service", &name, "-n", "tenant"])?;
    }
    author.run(&["delete", "service", "own", "-n", "tenant"])?;
    Ok(())
}

fn what_is_no_object_is_refused_by_the_api_server(lab: &Lab, author: &Kubectl) -> Result<()> {
    for (what, octets, expected) in [
        ("10 MB", 10 << 20, "limit"),
        ("300 KB", 300 << 10, "metadata.annotations: Too long"),
    ] {
        let mut service = service("huge", "LoadBalancer");
        service["metadata"]["annotations"] = json!({ASK: "1".repeat(octets)});
        let said = refused_by_the_api_server(lab, author, &service)?;
        ensure!(said.contains(expected), "{what}: {}", start(&said));
        println!("an annotation of {what}: {}", start(&said));
    }
    for (field, value) in [
        ("name", json!("../../etc")),
        ("name", json!("a\nb")),
        ("labels", json!({"a": "b\nc"})),
        ("labels", json!({"../x": "y"})),
        ("annotations", json!({"a b": "c"})),
    ] {
        let mut service = service("odd", "LoadBalancer");
        service["metadata"][field] = value;
        let said = refused_by_the_api_server(lab, author, &service)?;
        ensure!(said.contains("nvalid"), "{field}: {}", start(&said));
    }
    Ok(())
}

/// What the API server takes, it keeps as it is.
fn what_the_api_server_takes_gets_no_address(lab: &Lab, author: &Kubectl) -> Result<()> {
    let line =
        "x\n2026-01-01T00:00:00Z ERROR forged line of a log\n\u{1b}[31mred\u{7}\u{202e}\u{0}";
    let long = format!("192.168.1.201,{}", "9".repeat(250_000));
    let many: Vec<_> = (0..10_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.0.{high}.{low}")
        })
        .collect();
    for (number, (key, value)) in [
        (ASK, line.to_owned()),
        (ASK, long.clone()),
        (ASK, many.join(",")),
        ("foghorn.dev/address-pool", line.to_owned()),
        ("foghorn.dev/address-pool", long),
        ("foghorn.dev/preferred-node", line.to_owned()),
        (
            "metallb.io/loadBalancerIPs",
            "%s%n$(reboot)`reboot`{{.}}".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("text-{number}");
        let mut service = service(&name, "LoadBalancer");
        service["metadata"]["annotations"] = json!({key: value});
        create(lab, author, &service)?;
        if key != "foghorn.dev/preferred-node" {
            let said = wait_for_refusal(lab, &name, &[])?;
            println!("{name}: {}", start(&said));
        }
    }
    Ok(())
}

fn another_one_is_served_as_quickly_as_ever(lab: &Lab, author: &Kubectl) -> Result<()> {
    author.apply(&service("own", "LoadBalancer").to_string())?;
    lab.wait_for_external_addresses("tenant", "own", 1, Duration::from_secs(5))?;
    Ok(())
}

fn events_and_logs_stay_short(lab: &mut Lab) -> Result<()> {
    let events = lab
        .api
        .get("/apis/events.k8s.io/v1/namespaces/tenant/events")?;
    let longest = items(&events).filter_map(|event| Some(event["note"].as_str()?.len()));
    let longest = longest.max().context("no Event is there")?;
    ensure!(longest <= 1024, "an Event has {longest} octets");
    for program in lab.programs() {
        if !program.name().starts_with("foghorn-") {
            continue;
        }
        let log = program.log_text()?;
        let forged = log.lines().find(|line| line.starts_with("2026-01-01"));
        ensure!(forged.is_none(), "{}: {forged:?}", program.name());
        ensure!(!log.contains('\u{1b}'), "{}: an escape", program.name());
        let longest = log.lines().map(str::len).max();
        let longest = longest.with_context(|| format!("{} logged nothing", program.name()))?;
        ensure!(longest < 10_000, "{}: {longest} octets", program.name());
    }
    Ok(())
}

fn refused_by_the_api_server(lab: &Lab, author: &Kubectl, service: &Value) -> Result<String> {
    match create(lab, author, service) {
        Ok(said) => anyhow::bail!("the API server took it: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Not by `apply`, which would write all of it into one more annotation.
fn create(lab: &Lab, author: &Kubectl, service: &Value) -> Result<String> {
    let file = lab.folder.path().join("service.json");
    fs::write(&file, service.to_string())?;
    author.run(&["create", "-f", &file.display().to_string()])
}
