//! What clients notice when an announcer goes, planned or not.
//!
//! Run by `make test-e2e`; the figures of many node deaths come from `make failover`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::client::{Question, Target};
use e2e::failover::{Fault, trial, trial_at, wait_for_announcer};
use e2e::lab::{Lab, Options, with_lab};
use e2e::long::LongConnection;
use e2e::manifest::TCP_PORT;
use e2e::observer;
use e2e::questions::at;
use e2e::stream::{Pace, Stream};
use e2e::wait;

const PATIENCE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_millis(500);
/// Connections that are between their first segment and their answer at one moment, with some to spare.
const MOST_ACCEPTED: usize = 3;

#[test]
#[ignore = "needs the lab: make test-e2e"]
fn clients_notice_as_little_as_promised() -> Result<()> {
    with_lab(&Options::foghorn("failover"), |lab| {
        let vips = lab.serve_web(Duration::from_secs(60))?;
        let mut survived = Vec::new();
        for round in 1..=3 {
            for &vip in &vips {
                println!("round {round}, {vip}");
                survived.push(a_planned_move_loses_nothing(lab, vip)?);
            }
        }
        // On a machine so busy that a speaker is taken for silent, its proxy forgets the former owner once.
        let lost = survived.iter().filter(|&&survived| !survived).count();
        ensure!(
            lost * 3 <= survived.len(),
            "{lost} of {} long connections did not survive a planned move",
            survived.len()
        );
        for &vip in &vips {
            first_segments_to_a_dead_node_find_another(lab, vip)?;
            a_failover_needs_no_api_server(lab, vip)?;
        }
        Ok(())
    })
}

/// Whether a connection that was there before the move survived it.
fn a_planned_move_loses_nothing(lab: &mut Lab, vip: IpAddr) -> Result<bool> {
    let target = Target::tcp(at(vip, TCP_PORT));
    let before = wait_for_announcer(lab, vip)?;
    let pace = Pace::PATIENT;
    let long = LongConnection::start(
        &lab.client,
        target.address,
        Duration::from_millis(10),
        pace.patience,
    )?;
    let stream = Stream::start(&lab.client, target, Question::Hostname, pace)?;
    stream.wait_for_answer(SETTLED, PATIENCE, |_| true)?;
    let speaker = lab.node_mut(before)?.speaker_mut()?;
    let status = speaker.terminate(PATIENCE)?;
    let moved = stream.now();
    let after = wait::until("another announcer", PATIENCE, || {
        Ok(observer::announcer(&lab.client, vip)?.filter(|&node| node != before))
    })?;
    stream.wait_for_answer(moved + Duration::from_secs(1), PATIENCE, |_| true)?;
    // What the first questions meet (empty neighbour caches) is not of the move.
    let record = stream.stop()?.since(SETTLED);
    // The speaker is gone, the node lives: what began there goes on.
    long.wait_for_answers(50, PATIENCE)?;
    let answers = long.answers();
    let pod = long.stop();
    lab.node_mut(before)?.speaker_mut()?.start_again()?;
    println!(
        "  {before} -> {after}: {record}; longest gap {:?}",
        record.longest_gap().length
    );
    for lost in record.asked.iter().filter(|one| one.answer.is_err()) {
        println!("  lost: {lost:?}; the speaker ended at {moved:?}");
    }
    ensure!(status.success(), "the speaker ended with {status}");
    ensure!(
        record.lost().is_empty(),
        "a planned move from {before} to {after} lost requests: {record}"
    );
    match &pod {
        Ok(pod) => println!("  a connection to {pod} survived with {answers} answers"),
        Err(error) => println!("  a connection did not survive after {answers} answers: {error:#}"),
    }
    Ok(pod.is_ok())
}

/// A node that only runs Pods dies: who waits for TCP to send the first segment again gets an answer, since by then the
/// proxy has let go of what it had sent there. Only what a Pod there had accepted already is lost.
fn first_segments_to_a_dead_node_find_another(lab: &mut Lab, vip: IpAddr) -> Result<()> {
    let pace = Pace {
        patience: Duration::from_secs(3),
        ..Pace::DENSE
    };
    let trial = trial_at(lab, vip, Fault::PodsNodeSilent, pace)?;
    let asked = trial.record.asked.iter();
    let again = asked.filter(|one| one.answer.is_ok() && one.done - one.at > SETTLED);
    println!(
        "a node that only runs Pods: {}, {} of them at a second try",
        trial.record,
        again.count()
    );
    let lost: usize = trial.record.lost().values().sum();
    ensure!(lost <= MOST_ACCEPTED, "{lost} lost: {}", trial.record);
    Ok(())
}

fn a_failover_needs_no_api_server(lab: &mut Lab, vip: IpAddr) -> Result<()> {
    let trial = trial(lab, vip, Fault::LinkDownWithoutApi)?;
    println!(
        "without an API server: {} -> {}, no answer for {:?}",
        trial.before, trial.after, trial.gap
    );
    ensure!(
        trial.gap < Duration::from_secs(2),
        "{:?} without an answer",
        trial.gap
    );
    Ok(())
}
