//! Each suite of the lab is run by the targets of the Makefile that it names.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::path::PathBuf;

use handbook::root;

#[test]
fn every_suite_is_run_by_the_targets_that_it_names() {
    let makefile = fs::read_to_string(root("Makefile")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for (suite, file) in suites() {
        let text = fs::read_to_string(&file).unwrap();
        let targets = targets(&text);
        if targets.is_empty() {
            wrong.push(format!("{} does not say who runs it", file.display()));
        }
        for target in targets {
            count += 1;
            if !runs(&makefile, target, &suite) {
                wrong.push(format!("make {target} has no --test {suite}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} targets: are they found?");
}

/// The suites by name, each with the file where it begins.
fn suites() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root("e2e/tests")).unwrap();
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => (name, path.join("main.rs")),
            false => (name, path),
        }
    });
    files.collect()
}

/// "Run by `make TARGET`, and by `make TARGET`" at the head of a file, and "needs …: make TARGET" at its tests.
fn targets(text: &str) -> Vec<&str> {
    let head = text.split("\n\n").next().unwrap_or_default();
    let head = head.split("by `make ").skip(1);
    let named = head.filter_map(|rest| rest.split('`').next());
    let ignored = text.split("#[ignore = \"").skip(1);
    let ignored = ignored.filter_map(|rest| rest.split_once(": make ")?.1.split('"').next());
    named.chain(ignored).collect()
}

/// Whether the recipe of a target, or of its pattern, starts a suite.
fn runs(makefile: &str, target: &str, suite: &str) -> bool {
    let argument = format!("--test {suite} ");
    [format!("\n{target}:"), format!("\n{target}-%:")]
        .iter()
        .filter_map(|rule| makefile.split_once(rule))
        .any(|(_, after)| {
            let recipe = after.split("\n\n").next().unwrap_or_default();
            recipe.contains(&argument)
        })
}

#[test]
fn what_nobody_runs_is_seen() {
    let text =
        "//! A suite.\n//! Run by `make a`, and by `make b`.\n\n#[ignore = \"needs x: make c\"]";
    assert_eq!(targets(text), ["a", "b", "c"]);
    let makefile = "\na: b\n\t--test one --test two -- x\n\nb: \n\t--test two_more -- x\n\nc-%: x\n\t--test two --\n";
    for (target, suite, expected) in [
        ("a", "one", true),
        ("a", "two", true),
        ("b", "two", false),
        ("c", "two", true),
        ("d", "one", false),
    ] {
        assert_eq!(runs(makefile, target, suite), expected, "{target} {suite}");
    }
}
