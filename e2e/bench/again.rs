//! This program once more, in namespaces of its own: nobody finds there what another has left.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::de::DeserializeOwned;

/// Runs it with these arguments and `--part-file`, and reads what it has written there. `emulator` is the command that runs it
/// where this kernel cannot.
pub(crate) fn run<T: DeserializeOwned>(
    arguments: &[&str],
    results: &Path,
    emulator: &[OsString],
) -> Result<T> {
    fs::create_dir_all(results)?;
    let results = results.canonicalize()?;
    let file = results.join("part.json");
    let status = Command::new("unshare")
        .args(["-nmp", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", PREPARE, "bench"])
        .args(emulator)
        .arg(std::env::current_exe()?)
        .args(arguments)
        .arg("--part-file")
        .arg(&file)
        .env("IN_KERNEL_FOLDER", &results)
        .env("IN_KERNEL_UPLINK", "1")
        .env("IN_KERNEL_MEMORY", "4G")
        .status()
        .context("failed to start unshare")?;
    ensure!(status.success(), "a sitting ended with {status}");
    let outcome = serde_json::from_slice(&fs::read(&file)?)?;
    fs::remove_file(&file)?;
    Ok(outcome)
}

/// A value as it is written on the command line.
pub(crate) fn word<T: ValueEnum>(value: &T) -> Result<String> {
    let value = value.to_possible_value();
    Ok(value
        .context("a value without a name")?
        .get_name()
        .to_owned())
}

/// As `tools/in-namespaces` does, but inside the user namespace that it has made.
const PREPARE: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && \"$@\"; exit $?";
/// Where the lab offers the API in plain HTTP.
pub(crate) const API_PORT: u16 = 8001;
