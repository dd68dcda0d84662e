//! The pages that people read, as tests read them.
//!
//! Whatever a page shows as a command or as YAML is run or parsed by a test; this package finds it. Its own tests are
//! `commands` (our own parsers), `reference` (tables that are written from the code: `make reference`) and `tools` (the real
//! kubectl, Helm and promtool: `make check-handbook`).

pub mod block;
mod command;
mod page;

pub use command::Command;
pub use page::{Page, Snippet};

use std::io;
use std::path::{Path, PathBuf};

/// A file of this repository.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Every page: the handbook, and what stands beside the sources.
///
/// # Errors
/// If one cannot be read.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut paths: Vec<String> = OUTSIDE.map(str::to_owned).to_vec();
    for entry in std::fs::read_dir(root("docs"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

/// Pages that are no part of `docs`.
const OUTSIDE: [&str; 5] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "e2e/README.md",
];
