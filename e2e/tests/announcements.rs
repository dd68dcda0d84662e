//! What the LAN hears of an external address: one answerer, announcements from it, and nothing about other addresses.
//!
//! Run by `make test-e2e`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::capture::Capture;
use e2e::failover::{Fault, trial, wait_for_announcer};
use e2e::lab::{Lab, Options, with_lab};
use e2e::observer::who_has;
use e2e::topology::{NODES, NodeNumber};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn the_lan_hears_one_owner() -> Result<()> {
    with_lab(&Options::foghorn("announcements"), |lab| {
        let capture = Capture::start(&lab.client)?;
        let vips = lab.serve_web(PATIENCE)?;
        for &vip in &vips {
            let owner = wait_for_announcer(lab, vip)?;
            wait_for_announcement(&capture, vip, owner)?;
            one_node_answers_each_time(lab, vip, owner)?;

            let trial = trial(lab, vip, Fault::LinkDown)?;
            wait_for_announcement(&capture, vip, trial.after)?;
            one_node_answers_each_time(lab, vip, trial.after)?;
        }
        nobody_answers_for_a_free_address(lab, &vips)
    })
}

fn wait_for_announcement(capture: &Capture, vip: IpAddr, owner: NodeNumber) -> Result<()> {
    let count = wait::until(
        &format!("an announcement of {vip} by {owner}"),
        PATIENCE,
        || {
            let count = capture.announcements(vip, &owner.mac());
            Ok((count > 0).then_some(count))
        },
    )?;
    println!("{owner} announced {vip} {count} times");
    for other in NODES.into_iter().filter(|&other| other != owner) {
        println!(
            "{other} announced it {} times",
            capture.announcements(vip, &other.mac())
        );
    }
    Ok(())
}

fn one_node_answers_each_time(lab: &Lab, vip: IpAddr, owner: NodeNumber) -> Result<()> {
    for _ in 0..10 {
        let answerers = who_has(&lab.client, vip)?;
        let nodes: Vec<_> = answerers.iter().map(|answerer| answerer.node).collect();
        ensure!(
            nodes == [Some(owner)],
            "{vip} is {owner}'s, and {answerers:?} answered"
        );
    }
    Ok(())
}

fn nobody_answers_for_a_free_address(lab: &Lab, taken: &[IpAddr]) -> Result<()> {
    for free in ["192.168.1.253", "fd12:3456:789a:1::f:fd"] {
        let free: IpAddr = free.parse()?;
        ensure!(!taken.contains(&free), "{free} is taken");
        let answerers = who_has(&lab.client, free)?;
        ensure!(
            answerers.is_empty(),
            "nobody has {free}, and {answerers:?} answered"
        );
    }
    Ok(())
}
