//! The programs of others that pages are about.

use std::env;
use std::path::PathBuf;
use std::process;

/// A program of the lab's folder.
pub(crate) fn tool(name: &str) -> PathBuf {
    let folder = env::var_os("FOGHORN_LAB").unwrap();
    let path = PathBuf::from(folder).join(name);
    assert!(
        path.exists(),
        "{} is not there: run `make check-handbook`",
        path.display()
    );
    path
}

/// What a program prints, or what it complains about.
pub(crate) fn said(command: &mut process::Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = |octets| String::from_utf8_lossy(octets).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
