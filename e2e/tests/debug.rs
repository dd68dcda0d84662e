//! `/debug` of the running programs tells what they hold, and how much they log changes while they run.
//!
//! Run by `make test-e2e`.

#![expect(clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::http::{Request, Response, ask};
use e2e::lab::{Lab, Options, with_lab};
use e2e::namespace::Namespace;
use e2e::program::Program;
use e2e::wait;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const CONTROLLER: u16 = 7472;
const SPEAKER: u16 = 7474;
const PROXY: u16 = 10249;

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn programs_tell_what_they_hold() -> Result<()> {
    with_lab(&Options::foghorn("debug"), |lab| {
        let vip = lab.serve_web(PATIENCE)?[0].to_string();
        what_the_controller_holds(lab, &vip)?;
        what_a_node_holds(lab, &vip)?;
        levels_change(lab)
    })
}

fn what_the_controller_holds(lab: &Lab, vip: &str) -> Result<()> {
    let of = |subject| told(&lab.outer, CONTROLLER, subject);
    ensure!(of("snapshot")?["pools"]["lan"]["ranges"].is_array());
    let services = &of("assignment")?["services"];
    let pool = &services["default/web"]["addresses"][vip];
    ensure!(pool == "lan", "assigned: {services}");
    let unknown = get(&lab.outer, CONTROLLER, "/debug/assignments")?;
    ensure!(unknown.status == 404);
    let said = String::from_utf8_lossy(&unknown.body);
    ensure!(
        said.contains("ask for one of snapshot, assignment"),
        "{said}"
    );
    Ok(())
}

fn what_a_node_holds(lab: &Lab, vip: &str) -> Result<()> {
    let node = &lab.nodes[0].namespace;
    wait::until("an owner in /debug/assignment", PATIENCE, || {
        let announced = told(node, SPEAKER, "assignment")?;
        let mut addresses = announced["addresses"].as_array().into_iter().flatten();
        let is_owned = |address: &Value| address["address"] == vip && address["owner"].is_string();
        Ok(addresses.any(is_owned).then_some(()))
    })?;
    ensure!(told(node, SPEAKER, "snapshot")?["nodes"]["node-2"].is_object());

    let snapshot = told(node, PROXY, "snapshot")?;
    ensure!(snapshot["services"]["default/web"]["kind"] == "LoadBalancer");
    let table = told(node, PROXY, "table")?;
    let frontend = &table["frontends"][format!("{vip}:80 TCP")];
    ensure!(frontend["service"] == "default/web", "table: {table}");
    let endpoints = frontend["inside"]["Forward"].as_array();
    ensure!(endpoints.is_some_and(|endpoints| !endpoints.is_empty()));
    let program = told(node, PROXY, "program")?;
    ensure!(program.to_string().contains(vip), "program: {program}");
    Ok(())
}

fn levels_change(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    let level = |body: &[u8]| {
        let request = Request {
            method: if body.is_empty() { "GET" } else { "PUT" },
            path: "/debug/log-level",
            content_type: "text/plain",
            body,
        };
        ask_in(&node.namespace, PROXY, &request)
    };
    ensure!(level(b"")?.body == b"info\n");
    let refused = level(b"loud")?;
    ensure!(refused.status == 400, "\"loud\" was taken: {refused:?}");
    ensure!(level(b"debug")?.status == 200);
    let proxy = node.proxy.as_ref().context("no proxy")?;
    wait_for(proxy, "Log level changed")?;

    let speaker = node.speaker.as_ref().context("no speaker")?;
    for expected in ["level=\"debug\"", "level=\"info\""] {
        speaker.signal_user()?;
        wait_for(speaker, expected)?;
    }
    Ok(())
}

fn wait_for(program: &Program, line: &str) -> Result<()> {
    let what = format!("{line} in the log of {}", program.name());
    wait::until(&what, PATIENCE, || {
        Ok(program.log_text()?.contains(line).then_some(()))
    })
}

fn told(namespace: &Namespace, port: u16, subject: &str) -> Result<Value> {
    let path = format!("/debug/{subject}");
    let response = get(namespace, port, &path)?;
    ensure!(response.status == 200, "{path} at {port}: {response:?}");
    Ok(serde_json::from_slice(&response.body)?)
}

fn get(namespace: &Namespace, port: u16, path: &str) -> Result<Response> {
    ask_in(namespace, port, &Request::get(path))
}

fn ask_in(namespace: &Namespace, port: u16, request: &Request<'_>) -> Result<Response> {
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    Ok(namespace.run(|| ask(server, request, PATIENCE))??)
}
