//! What was measured of a controller, and its table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::giver::Giver;
use crate::record::Figures;
use crate::surroundings::Surroundings;

/// All of one giver.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// Seconds from the creation of all Services at once to the last address in a status.
    pub(crate) all_seconds: f64,
    /// Seconds of the controller's processor time in that.
    pub(crate) all_cpu: f64,
    /// Seconds of the API server's and etcd's processor time in that.
    pub(crate) all_api_cpu: f64,
    /// The most resident memory until then, in MiB.
    pub(crate) peak_mib: f64,
    /// Milliseconds from the API server's answer to the creation of one more Service to its status.
    pub(crate) one_more: Vec<f64>,
    /// Seconds from the start of the process, with all Services there, until a waiting Service has its address.
    pub(crate) start_seconds: f64,
    /// Seconds of processor time of such a start.
    pub(crate) start_cpu: f64,
    /// Writes of statuses after such a start, that of the waiting Service included.
    pub(crate) start_writes: u32,
}

/// The tables, in Markdown.
pub(crate) fn tables(
    surroundings: &Surroundings,
    services: u32,
    outcomes: &[(Giver, Outcome)],
) -> String {
    let mut text = surroundings.list();
    text.push_str(&format!(
        "- {services} Services of type LoadBalancer, 100 pools of a /16\n\n|"
    ));
    for (giver, _) in outcomes {
        let _ = write!(text, " | {}", giver.name());
    }
    text.push_str(" |\n|---");
    text.push_str(&"|--:".repeat(outcomes.len()));
    text.push_str("|\n");
    type Value = fn(&Outcome) -> f64;
    let rows: [(&str, Value); 10] = [
        ("all at once, until the last status, s", |outcome| {
            outcome.all_seconds
        }),
        ("… processor time of the controller, s", |outcome| {
            outcome.all_cpu
        }),
        ("… processor time of API server and etcd, s", |outcome| {
            outcome.all_api_cpu
        }),
        ("… most resident memory, MiB", |outcome| outcome.peak_mib),
        (
            "one more: from the API's answer to the status, p50, ms",
            |outcome| percentile(outcome, 50),
        ),
        ("… p99, ms", |outcome| percentile(outcome, 99)),
        ("… max, ms", |outcome| percentile(outcome, 100)),
        (
            "start with all of them there, until one that waits is served, s",
            |outcome| outcome.start_seconds,
        ),
        ("… processor time, s", |outcome| outcome.start_cpu),
        ("… statuses written", |outcome| {
            f64::from(outcome.start_writes)
        }),
    ];
    for (name, value) in rows {
        let _ = write!(text, "| {name}");
        for (_, outcome) in outcomes {
            let _ = write!(text, " | {:.3}", value(outcome));
        }
        text.push_str(" |\n");
    }
    text
}

fn percentile(outcome: &Outcome, percent: usize) -> f64 {
    Figures::of(outcome.one_more.clone()).map_or(f64::NAN, |figures| figures.percentile(percent))
}
