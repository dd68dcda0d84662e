//! The runs side by side.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use e2e::document::{Marks, write_between};

use super::column::Column;
use super::report::{Outcome, Report, State};
use super::skip::{Kernel, skips};
use crate::show::{print, say};
use crate::trials::surroundings;

/// Prints what came of each spec in every run that there is, also into a document; fails if ours failed one that
/// kube-proxy passed in the same mode.
pub(crate) fn compare(results: &Path, document: Option<&Path>) -> Result<()> {
    let mut runs = Runs::new();
    for column in Column::all() {
        let file = results.join(format!("{}.json", column.file_stem()));
        if file.exists() {
            runs.push((column, Report::read(&file)?));
        }
    }
    ensure!(
        !runs.is_empty(),
        "{} has no report: run `make conformance` first",
        results.display()
    );
    let table = table(&runs);
    say("Spec by spec:");
    print(&table);
    if let Some(document) = document {
        write_between(document, MARKS, &format!("{}\n{table}", surroundings()?))?;
    }
    let defects = defects(&runs);
    ensure!(
        defects.is_empty(),
        "kube-proxy passes what Foghorn does not:\n{}",
        defects.join("\n")
    );
    Ok(())
}

type Runs = Vec<(Column, Report)>;

/// What kube-proxy passes and Foghorn does not, mode by mode, where both were run.
fn defects(runs: &Runs) -> Vec<String> {
    let passed = |report: &Report, name: &str| {
        let outcome = report.specs.get(name);
        outcome.is_some_and(|outcome| outcome.state == State::Passed)
    };
    let mut defects = Vec::new();
    for (column, ours) in runs.iter().filter(|(column, _)| !column.kube_proxy) {
        let theirs = runs.iter().find(|(of, _)| *of == column.of_kube_proxy());
        for name in theirs.into_iter().flat_map(|(_, theirs)| {
            let names = theirs.specs.keys();
            names.filter(|name| passed(theirs, name))
        }) {
            if !passed(ours, name) {
                defects.push(format!("{}: {name}", column.mode.name()));
            }
        }
    }
    defects
}

fn table(runs: &Runs) -> String {
    let names: BTreeSet<&String> = runs
        .iter()
        .flat_map(|(_, report)| report.specs.keys())
        .collect();
    let mut table = String::new();
    let mut row = |first: &str, cell: &dyn Fn(&(Column, Report)) -> String| {
        let cells: Vec<_> = runs.iter().map(cell).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| {first} | {} |", cells.join(" | "));
    };
    row("spec", &|(column, _)| column.title());
    row("---", &|_| "---".to_owned());
    row("**all**", &|(_, report)| sums(report));
    for name in names {
        row(&escaped(name), &|(_, report)| cell(report.specs.get(name)));
    }
    table.push_str("\nNot run:\n\n");
    for skip in skips(Kernel::OfTheMachine) {
        let _ = writeln!(
            table,
            "- `{}`: {}",
            skip.pattern.replace('\\', ""),
            skip.reason
        );
    }
    table
}

fn sums(report: &Report) -> String {
    let count = |state| {
        let specs = report.specs.values();
        specs.filter(|spec| spec.state == state).count()
    };
    let passed = count(State::Passed);
    format!("{passed} of {} passed", passed + count(State::Failed))
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

    use e2e::mode::Mode;

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

    fn column(kube_proxy: bool, mode: Mode) -> Column {
        Column { kube_proxy, mode }
    }

    #[test]
    fn a_defect_is_what_only_kube_proxy_passes_in_the_same_mode() {
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
        let runs = vec![
            (column(false, Mode::Iptables), ours),
            (column(true, Mode::Iptables), theirs),
            // Nobody to compare with.
            (
                column(false, Mode::Ipvs),
                report(&[("both", State::Failed)]),
            ),
        ];
        assert_eq!(
            defects(&runs),
            ["only theirs", "we do not run", "we skip"].map(|name| format!("iptables: {name}"))
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_spec_and_a_column_for_each_run() {
        let ours = report(&[("[a] one", State::Passed), ("two", State::Failed)]);
        let theirs = report(&[("[a] one", State::Passed), ("three", State::Skipped)]);
        let table = table(&vec![
            (column(false, Mode::Nftables), ours),
            (column(true, Mode::Nftables), theirs),
        ]);
        for line in [
            "| spec | Foghorn nftables | kube-proxy nftables |",
            "| **all** | 1 of 2 passed | 1 of 1 passed |",
            "| [a] one | passed, 3 s | passed, 3 s |",
            "| three | not run | does not apply: a \\| b |",
            "| two | **failed**: a \\| b | not run |",
        ] {
            assert!(table.lines().any(|found| found == line), "{line}:\n{table}");
        }
    }
}
