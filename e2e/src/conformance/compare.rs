//! Two runs side by side.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use e2e::document::{Marks, write_between};
use e2e::lab::ServiceProxy;

use super::report::{Outcome, Report, State};
use super::skip::skips;
use super::suite::name_of;
use crate::show::{print, say};
use crate::trials::surroundings;

/// Prints what came of each spec with our proxy and with kube-proxy, also into a document; fails if ours failed one
/// that kube-proxy passed.
pub(crate) fn compare(results: &Path, document: Option<&Path>) -> Result<()> {
    let read = |proxy| Report::read(&results.join(format!("{}.json", name_of(proxy))));
    let (ours, theirs) = (read(ServiceProxy::Foghorn)?, read(ServiceProxy::KubeProxy)?);
    let table = table(&ours, &theirs);
    say("Spec by spec:");
    print(&table);
    if let Some(document) = document {
        write_between(document, MARKS, &format!("{}\n{table}", surroundings()?))?;
    }
    let defects = defects(&ours, &theirs);
    ensure!(
        defects.is_empty(),
        "kube-proxy passes what Foghorn does not:\n{}",
        defects.join("\n")
    );
    Ok(())
}

/// What kube-proxy passes and Foghorn does not.
fn defects<'a>(ours: &Report, theirs: &'a Report) -> Vec<&'a str> {
    let passed = |report: &Report, name: &str| {
        let outcome = report.specs.get(name);
        outcome.is_some_and(|outcome| outcome.state == State::Passed)
    };
    let names = theirs.specs.keys().map(String::as_str);
    names
        .filter(|name| passed(theirs, name) && !passed(ours, name))
        .collect()
}

fn table(ours: &Report, theirs: &Report) -> String {
    let names: BTreeSet<&String> = ours.specs.keys().chain(theirs.specs.keys()).collect();
    let mut table = String::new();
    let mut row = |cells: [&str; 3]| {
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    };
    let sums = |report: &Report| {
        let count = |state| {
            report
                .specs
                .values()
                .filter(|spec| spec.state == state)
                .count()
        };
        format!(
            "{} of {} passed",
            count(State::Passed),
            count(State::Passed) + count(State::Failed)
        )
    };
    row(["spec", "Foghorn", "kube-proxy"]);
    row(["---", "---", "---"]);
    row(["**all**", &sums(ours), &sums(theirs)]);
    for name in names {
        let cell = |report: &Report| cell(report.specs.get(name));
        row([&escaped(name), &cell(ours), &cell(theirs)]);
    }
    table.push_str("\nNot run:\n\n");
    for skip in skips() {
        let _ = writeln!(
            table,
            "- `{}`: {}",
            skip.pattern.replace('\\', ""),
            skip.reason
        );
    }
    table
}

fn cell(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "not run".to_owned(),
        Some(outcome) => match outcome.state {
            State::Passed => format!("passed, {} s", outcome.time.as_secs()),
            State::Failed => format!("**failed**: {}", escaped(&outcome.message)),
            State::Skipped => format!("does not apply: {}", escaped(&outcome.message)),
        },
    }
}

/// As a cell of a table takes it.
fn escaped(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST_CELL).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.replace('|', "\\|").replace('<', "&lt;")
}

const LONGEST_CELL: usize = 200;
const MARKS: Marks = (
    "<!-- make conformance: begin -->",
    "<!-- make conformance: end -->",
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(specs: &[(&str, State)]) -> Report {
        let outcome = |state| Outcome {
            state,
            message: "a | b".to_owned(),
            time: Duration::from_secs(3),
        };
        let specs = specs.iter();
        Report {
            specs: specs
                .map(|&(name, state)| (name.to_owned(), outcome(state)))
                .collect(),
        }
    }

    #[test]
    fn a_defect_is_what_only_kube_proxy_passes() {
        let theirs = report(&[
            ("both", State::Passed),
            ("only theirs", State::Passed),
            ("we do not run", State::Passed),
            ("we skip", State::Passed),
            ("none", State::Failed),
            ("only ours", State::Failed),
        ]);
        let ours = report(&[
            ("both", State::Passed),
            ("only theirs", State::Failed),
            ("we skip", State::Skipped),
            ("none", State::Failed),
            ("only ours", State::Passed),
        ]);
        assert_eq!(
            defects(&ours, &theirs),
            ["only theirs", "we do not run", "we skip"]
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_spec() {
        let table = table(
            &report(&[("[a] one", State::Passed), ("two", State::Failed)]),
            &report(&[("[a] one", State::Passed), ("three", State::Skipped)]),
        );
        for line in [
            "| **all** | 1 of 2 passed | 1 of 1 passed |",
            "| [a] one | passed, 3 s | passed, 3 s |",
            "| three | not run | does not apply: a \\| b |",
            "| two | **failed**: a \\| b | not run |",
        ] {
            assert!(table.lines().any(|found| found == line), "{line}:\n{table}");
        }
    }
}
