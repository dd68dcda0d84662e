//! Tests that a page names as its witnesses are there.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use handbook::{pages, root};

/// The pages whose tables name tests.
const PAGES: [&str; 2] = ["docs/data-planes.md", "docs/ipvs.md"];

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
