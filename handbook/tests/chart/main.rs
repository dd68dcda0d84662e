//! What the handbook says of the chart is what Helm makes of it.
//!
//! Run by `make check-handbook`, which builds Helm. No cluster is asked.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this is a test"
)]

mod metallb;
mod renderings;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process;

use handbook::root;
use serde_json::Value;
use support::{said, tool};

/// What Helm makes of the chart without a cluster, or why it refuses.
fn render(arguments: &[&str]) -> Result<String, String> {
    let mut helm = process::Command::new(tool("helm"));
    helm.args(["template", "foghorn", "charts/foghorn"])
        .args(["--namespace", "foghorn-system", "--kube-version", "1.37.0"])
        .args(arguments)
        .current_dir(root(""));
    said(&mut helm)
}

/// The same with a file of values; each caller has a name of its own for it.
fn render_with(name: &str, values: &Value) -> Result<String, String> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
    fs::write(&file, values.to_string()).unwrap();
    render(&["--values", file.to_str().unwrap()])
}
