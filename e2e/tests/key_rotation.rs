//! The key of heartbeats is changed while clients ask, as the handbook says: no speaker is restarted, no address moves, and in
//! the end the old key opens nothing.
//!
//! Run by `make test-hostile`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::bystander::unnoticed;
use e2e::heartbeats;
use e2e::lab::{HEARTBEAT_KEY, Lab, Options, with_lab};
use e2e::metrics::{Metrics, SPEAKER};
use e2e::topology::{NODES, NodeNumber};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(60);
const NEW: &str = "another key of the lab, 32 octets or more\n";
const CHANGED: &str = "Heartbeat key changed";
const KEPT: &str = "Heartbeat key not changed";
/// Two looks of a speaker at its file.
const TWO_LOOKS: Duration = Duration::from_secs(4);
const RECORDED: usize = 20;

#[test]
#[ignore = "needs the lab: make test-hostile"]
fn a_key_is_changed_under_load_and_the_old_one_opens_nothing() -> Result<()> {
    with_lab(&Options::foghorn("key-rotation"), |lab| {
        let vips = lab.serve_web(Duration::from_secs(60))?;
        let [first, ..] = NODES;
        let recorded = heartbeats::record(&lab.client, first, RECORDED, PATIENCE)?;
        let both = [HEARTBEAT_KEY, NEW].concat();
        let swapped = [NEW, HEARTBEAT_KEY].concat();
        unnoticed(lab, &vips, "a change of the key", |lab| {
            what_is_no_key_changes_nothing(lab)?;
            for (number, (what, keys)) in [
                ("both, the old one signs", both.as_str()),
                ("both, the new one signs", &swapped),
                ("the new one alone", NEW),
            ]
            .into_iter()
            .enumerate()
            {
                // One node after the other, as kubelets bring a Secret: meanwhile they differ.
                for node in NODES {
                    write_keys(lab, node, keys)?;
                    wait_for_log(lab, node, CHANGED, number + 1)?;
                }
                println!("{what}");
            }
            nobody_was_unheard(lab)
        })?;
        unnoticed(lab, &vips, "the old key", |lab| {
            heartbeats::send(&lab.client, &recorded, &[])?;
            for node in NODES {
                let what = format!("refusals of the old key by {node}");
                wait::until(&what, PATIENCE, || {
                    let speaker = &lab.node(node)?.namespace;
                    let refused = heartbeats::refused(speaker, Some("unknown_key"))?;
                    Ok((refused >= RECORDED as u64).then_some(()))
                })?;
            }
            println!("what the old key signed is refused by all");
            Ok(())
        })
    })
}

/// A file with a typing error or with nothing in it, or none: the old key counts. Of the first two the log says why.
fn what_is_no_key_changes_nothing(lab: &Lab) -> Result<()> {
    let [first, second, third] = NODES;
    write_keys(lab, first, "short\n")?;
    write_keys(lab, second, "")?;
    fs::remove_file(lab.folder.heartbeat_key(third))?;
    wait_for_log(lab, first, "the key has 5 octets", 1)?;
    wait_for_log(lab, second, "has no key", 1)?;
    std::thread::sleep(TWO_LOOKS);
    for node in [first, second] {
        wait_for_log(lab, node, KEPT, 1)?;
    }
    println!("a short key, an empty file and no file change nothing");
    nobody_was_unheard(lab)
}

/// No speaker refused another one for its key, and each hears the others.
fn nobody_was_unheard(lab: &Lab) -> Result<()> {
    for node in NODES {
        for reason in ["unknown_key", "forged"] {
            let count = heartbeats::refused(&lab.node(node)?.namespace, Some(reason))?;
            ensure!(count == 0, "{node} refused {count} heartbeats: {reason}");
        }
        let metrics = Metrics::read(&lab.node(node)?.namespace, SPEAKER)?;
        let heard = metrics.sum("foghorn_speaker_peer_heard", &[])?;
        ensure!(heard == 2, "{node} hears {heard} of 2 others");
    }
    Ok(())
}

/// As a Secret is replaced: by renaming.
fn write_keys(lab: &Lab, node: NodeNumber, keys: &str) -> Result<()> {
    let file = lab.folder.heartbeat_key(node);
    let new = file.with_extension("new");
    fs::write(&new, keys)?;
    fs::rename(new, file)?;
    Ok(())
}

fn wait_for_log(lab: &Lab, node: NodeNumber, words: &str, count: usize) -> Result<()> {
    let what = format!("\"{words}\" {count} times in the log of {node}");
    wait::until(&what, PATIENCE, || {
        let speaker = lab.node(node)?.speaker.as_ref();
        let log = speaker.map(|speaker| speaker.log_text()).transpose()?;
        let found = log.map_or(0, |log| log.matches(words).count());
        Ok((found == count).then_some(()))
    })
}
