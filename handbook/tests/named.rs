//! Tests that a page names as its witnesses are there.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use handbook::{pages, root};

/// The pages whose tables name tests.
const PAGES: [&str; 4] = [
    "docs/data-planes.md",
    "docs/ipvs.md",
    "docs/laws.md",
    "docs/security.md",
];

#[test]
fn every_test_that_a_page_names_exists() {
    let mut sources = String::new();
    for package in ["config", "controller", "proxy", "speaker", "e2e"] {
        for file in rust_files(&root(package)) {
            sources.push_str(&fs::read_to_string(file).unwrap());
        }
    }
    let mut names = BTreeSet::new();
    let pages = pages().unwrap().into_iter();
    for page in pages.filter(|page| PAGES.contains(&page.path.as_str())) {
        let spans = page.spans().into_iter();
        names.extend(spans.filter_map(|span| name_of_test(&span.text)));
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "no test is called {missing:?}");
    assert!(names.len() > 20, "only {names:?}: are they found?");
}

/// `NAME` in `FILE.rs`, as the tables of docs/security.md have it.
#[test]
fn every_test_is_in_the_file_that_a_page_says() {
    let (mut count, mut wrong) = (0, Vec::new());
    let pages = pages().unwrap().into_iter();
    for page in pages.filter(|page| PAGES.contains(&page.path.as_str())) {
        let spans = page.spans();
        let names = std::iter::once(None).chain(spans.iter().map(Some));
        for (before, span) in names.zip(&spans) {
            if !span.text.contains('/') || !span.text.ends_with(".rs") {
                continue;
            }
            count += 1;
            let place = &span.place;
            let Ok(source) = fs::read_to_string(root(&span.text)) else {
                wrong.push(format!("{place}: {} is not there", span.text));
                continue;
            };
            let name = before.and_then(|before| name_of_test(&before.text));
            if let Some(name) = name.filter(|name| !source.contains(&format!("fn {name}("))) {
                wrong.push(format!("{place}: {} has no {name}", span.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 20, "only {count} files: are they found?");
}

/// Tests are called as sentences are: four words or more. Behind `::` is the case.
fn name_of_test(span: &str) -> Option<String> {
    let name = span.split("::").next()?;
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    let words: Vec<_> = name.split('_').collect();
    (words.len() >= 4 && words.into_iter().all(is_word)).then(|| name.to_owned())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
