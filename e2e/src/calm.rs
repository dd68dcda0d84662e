//! Much work and no fault: nothing may move.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::document::{Marks, write_between};
use e2e::lab::Lab;
use e2e::manifest::load_balancer;
use e2e::wait;
use serde_json::json;

use crate::records::owners;
use crate::show::{print, say};
use crate::trials::surroundings;

/// Keeps the processors busy with so many endless loops for so long, and fails if an address moved.
pub(crate) fn run(
    lab: &mut Lab,
    time: Duration,
    loops: usize,
    services: usize,
    document: Option<&Path>,
) -> Result<()> {
    lab.serve_web(PATIENCE)?;
    for number in 1..services {
        let mut service = load_balancer(&format!("web-{number}"));
        if let Some(spec) = service.get_mut("spec") {
            *spec.get_mut("selector").context("no selector")? = json!({"app": "web"});
        }
        lab.api
            .create("/api/v1/namespaces/default/services", &service)?;
    }
    let before = wait::until("every address to be announced", PATIENCE, || {
        let found = owners(lab)?;
        let all = found.len() == services * 2 && found.values().all(|owner| !owner.is_unowned());
        Ok(all.then_some(found))
    })?;
    say(&format!(
        "{} addresses are announced; {loops} busy loops begin, for {} s.",
        before.len(),
        time.as_secs()
    ));
    let busy = Busy::start(loops)?;
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        lab.expect_all_running()?;
        std::thread::sleep(left.min(Duration::from_secs(1)));
    }
    // With the load still there: what a busy machine does is what is looked at.
    let load = surroundings()?;
    drop(busy);
    let after = owners(lab)?;
    let moved: Vec<_> = before
        .iter()
        .filter(|(address, owner)| after.get(*address) != Some(owner))
        .collect();
    let sentence = format!(
        "{} addresses, {loops} busy loops on the processors of all nodes, {} s without a fault: {} moved.\n{load}",
        before.len(),
        time.as_secs(),
        moved.len()
    );
    print(&sentence);
    if let Some(document) = document {
        write_between(document, MARKS, &sentence)?;
    }
    for (address, owner) in &moved {
        print(&format!(
            "{address}: {owner:?} -> {:?}\n",
            after.get(*address)
        ));
    }
    ensure!(moved.is_empty(), "addresses moved without any fault");
    Ok(())
}

/// Endless loops with the priority of everything but the speakers; they end with this.
struct Busy(Vec<Child>);

impl Busy {
    fn start(count: usize) -> Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in 0..count {
            let child = Command::new("nice")
                .args(["-n", "10", "sh", "-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .context("failed to start a busy loop")?;
            busy.0.push(child);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It cannot have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
const MARKS: Marks = ("<!-- make calm: begin -->", "<!-- make calm: end -->");
