//! Planned moves by command, and what is written down about them.
//!
//! Run by `make test-e2e`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::failover::wait_for_announcer;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::TCP_PORT;
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::topology::{NODES, NodeNumber};
use e2e::wait;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_millis(500);

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn addresses_move_by_command_and_lose_nothing() -> Result<()> {
    with_lab(&Options::foghorn("planned"), |lab| {
        let vips = lab.serve_web(Duration::from_secs(60))?;
        for &vip in &vips {
            let owner = wait_for_announcer(lab, vip)?;
            wait_for_record(lab, vip, |status| status["node"] == owner.name())?;
        }
        for node in NODES {
            println!("every address moves to {node}");
            let said = without_loss(lab, vips[0], |lab| {
                foghorn(lab, &format!("move default/web {}", node.name()))
            })?;
            said.succeeds(&format!("{} announces it", node.name()))?;
            everything_is_at(lab, &vips, node)?;
        }
        for &vip in &vips {
            wait_for_record(lab, vip, |status| status["reason"] == "AddressReceived")?;
        }
        ensure!(
            annotation(lab, "service/web", "foghorn.dev/preferred-node")?.is_empty(),
            "the wish was left behind"
        );
        a_drained_node_is_left(lab, &vips)?;
        what_cannot_be_is_said(lab)?;
        records_go_with_their_service(lab)
    })
}

fn a_drained_node_is_left(lab: &mut Lab, vips: &[IpAddr]) -> Result<()> {
    let owner = wait_for_announcer(lab, vips[0])?;
    let said = without_loss(lab, vips[0], |lab| {
        foghorn(lab, &format!("drain {}", owner.name()))
    })?;
    said.succeeds("announces no address")?;
    for &vip in vips {
        let after = wait_for_announcer(lab, vip)?;
        ensure!(after != owner, "{vip} is still at {owner}");
        wait_for_record(lab, vip, |status| {
            status["node"] == after.name() && standing(status, owner) == "Draining"
        })?;
    }
    let refused = foghorn(lab, &format!("move default/web {}", owner.name()))?;
    refused.fails("the node is being drained; nothing was changed")?;
    foghorn(lab, &format!("undrain {}", owner.name()))?.succeeds("may announce")?;
    for &vip in vips {
        wait_for_record(lab, vip, |status| standing(status, owner) == "Outranked")?;
    }
    foghorn(lab, "why default/web")?.succeeds("Outranked")
}

fn what_cannot_be_is_said(lab: &Lab) -> Result<()> {
    for (line, expected) in [
        ("move default/web node-9", "there is no node node-9"),
        (
            "move default/none node-1",
            "Service default/none has no address",
        ),
        ("drain node-9", "there is no node node-9"),
    ] {
        foghorn(lab, line)?.fails(expected)?;
    }
    Ok(())
}

fn records_go_with_their_service(lab: &Lab) -> Result<()> {
    lab.kubectl.run(&["delete", "service", "web"])?;
    wait::until("records that go with their Service", PATIENCE, || {
        let left = lab.kubectl.run(&["get", "l2", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })
}

fn everything_is_at(lab: &Lab, vips: &[IpAddr], node: NodeNumber) -> Result<()> {
    for &vip in vips {
        let found = wait_for_announcer(lab, vip)?;
        ensure!(found == node, "{vip} is at {found}");
        let status = wait_for_record(lab, vip, |status| status["node"] == node.name())?;
        ensure!(status["interfaces"][0]["mac"] == node.mac(), "{status}");
    }
    let shown = lab.kubectl.run(&["get", "servicel2statuses"])?;
    println!("{shown}");
    ensure!(shown.contains(&node.name()), "{node} is not in it");
    Ok(())
}

/// What a command said while a client asked each 5 ms, of whose questions none was lost.
fn without_loss(
    lab: &mut Lab,
    vip: IpAddr,
    act: impl FnOnce(&Lab) -> Result<Said>,
) -> Result<Said> {
    let target = Target::tcp(at(vip, TCP_PORT));
    let stream = Stream::start(&lab.client, target, Question::Hostname, Pace::PATIENT)?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    let said = act(lab)?;
    let done = stream.now();
    stream.wait_for_answer(done + SETTLED, PATIENCE, |_| true)?;
    let record = stream.stop()?.since(SETTLED);
    println!("  {record}; longest gap {:?}", record.longest_gap().length);
    ensure!(record.lost().is_empty(), "requests were lost: {record}");
    Ok(said)
}

/// The status of the record of an address of the Service `web`, once it is so.
fn wait_for_record(lab: &Lab, vip: IpAddr, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until(&format!("the record of {vip}"), PATIENCE, || {
        let list = lab
            .kubectl
            .run(&["get", "servicel2statuses", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mut statuses = items.into_iter().map(|mut item| item["status"].take());
        let found = statuses.find(|status| status["address"] == vip.to_string());
        Ok(found.filter(|status| is_so(status)))
    })
}

fn standing(status: &Value, node: NodeNumber) -> String {
    let candidates = status["candidates"].as_array().cloned().unwrap_or_default();
    let found = candidates
        .iter()
        .find(|candidate| candidate["node"] == node.name());
    found
        .and_then(|candidate| candidate["standing"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn annotation(lab: &Lab, object: &str, name: &str) -> Result<String> {
    let path = format!(
        "jsonpath={{.metadata.annotations.{}}}",
        name.replace('.', "\\.")
    );
    lab.kubectl.run(&["get", object, "-o", &path])
}

/// What a command said, and whether it succeeded.
struct Said {
    success: bool,
    text: String,
}

impl Said {
    fn succeeds(&self, part: &str) -> Result<()> {
        ensure!(self.success && self.text.contains(part), "{}", self.text);
        Ok(())
    }

    fn fails(&self, part: &str) -> Result<()> {
        ensure!(!self.success && self.text.contains(part), "{}", self.text);
        Ok(())
    }
}

fn foghorn(lab: &Lab, line: &str) -> Result<Said> {
    println!("$ kubectl foghorn {line}");
    let output = Command::new(lab.binaries.foghorn("kubectl-foghorn")?)
        .args(line.split_ascii_whitespace())
        .env("KUBECONFIG", lab.control_plane.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("kubectl foghorn {line}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    print!("{text}");
    Ok(Said {
        success: output.status.success(),
        text,
    })
}
