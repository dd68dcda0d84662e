//! Many failovers, fault by fault, in a table.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::document::{Marks, write_between};
use e2e::failover::{Fault, Summary, Trial, trial};
use e2e::lab::Lab;

use crate::show::{print, say};

/// Lets each fault happen so many times, and prints what a client noticed, also into a document.
pub(crate) fn run(
    lab: &mut Lab,
    trials: u32,
    faults: &[Fault],
    median_at_most: Duration,
    document: Option<&Path>,
) -> Result<()> {
    say(&format!(
        "Lab ready after {:.1} s.",
        lab.start_time.as_secs_f64()
    ));
    let vips = lab.serve_web(Duration::from_secs(60))?;
    let mut rows = Vec::new();
    for &fault in faults {
        rows.push(Row::measure(lab, &vips, fault, trials)?);
    }
    let table = table(&rows);
    say("What a client noticed:");
    print(&table);
    if let Some(document) = document {
        write_between(document, MARKS, &format!("{}\n{table}", surroundings()?))?;
    }
    for row in &rows {
        let median = row.gaps.median();
        ensure!(
            median <= median_at_most,
            "{}: the median is {} ms: more than the {} ms that were asked for",
            row.fault,
            median.as_millis(),
            median_at_most.as_millis()
        );
        ensure!(
            row.lost == 0 || !row.fault.is_planned(),
            "{}: {} requests were lost in planned moves",
            row.fault,
            row.lost
        );
    }
    Ok(())
}

/// All trials of one fault.
struct Row {
    fault: Fault,
    gaps: Summary,
    /// From the fault until the last question was asked that had no answer.
    disturbed: Summary,
    asked: usize,
    lost: usize,
    moved: usize,
}

impl Row {
    fn measure(lab: &mut Lab, vips: &[IpAddr], fault: Fault, count: u32) -> Result<Self> {
        say(&format!(
            "{count} trials, a request each 5 ms, each with 250 ms to be answered: {fault}"
        ));
        let mut trials = Vec::new();
        // The families take turns.
        for (&vip, number) in vips.iter().cycle().zip(1..=count) {
            let trial = trial(lab, vip, fault)?;
            print(&format!(
                "{number:>3}  {vip:<24} {} -> {}  no answer for {:>4} ms; single losses until {:>5} ms  ({})\n",
                trial.before,
                trial.after,
                trial.gap.as_millis(),
                trial.disturbed.as_millis(),
                trial.record
            ));
            trials.push(trial);
        }
        Ok(Self::of(fault, &trials))
    }

    fn of(fault: Fault, trials: &[Trial]) -> Self {
        let lost = |trial: &Trial| trial.record.lost().into_values().sum::<usize>();
        Self {
            fault,
            gaps: Summary::of(trials.iter().map(|trial| trial.gap)),
            disturbed: Summary::of(trials.iter().map(|trial| trial.disturbed)),
            asked: trials.iter().map(|trial| trial.record.asked.len()).sum(),
            lost: trials.iter().map(lost).sum(),
            moved: trials
                .iter()
                .filter(|trial| trial.before != trial.after)
                .count(),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what happens | n | moved | no answer for: p50 ms | p99 ms | max ms | single losses until: max ms | requests lost |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} of {} |\n",
            row.fault,
            row.gaps.count(),
            row.moved,
            row.gaps.median().as_millis(),
            row.gaps.percentile(99).as_millis(),
            row.gaps.longest().as_millis(),
            row.disturbed.longest().as_millis(),
            row.lost,
            row.asked
        ));
    }
    text
}

/// The machine, and how busy it is.
pub(crate) fn surroundings() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("failed to read the load")?;
    let load: Vec<_> = load.split_ascii_whitespace().take(3).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism()?;
    Ok(format!(
        "Linux {}, {processors} processors for all nodes, the control plane and the client; load average at the end {}.\n",
        kernel.trim(),
        load.join(" ")
    ))
}

const MARKS: Marks = (
    "<!-- make failover: begin -->",
    "<!-- make failover: end -->",
);
