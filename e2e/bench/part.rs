//! One sitting: a cluster, and namespaces, of its own, so that nobody finds what another has left.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use e2e::lab::{Options, ServiceProxy, with_lab};

use crate::arguments::Arguments;
use crate::backend::Backend;
use crate::contender::first_node;
use crate::measure::Bench;
use crate::objects::FRONTENDS;
use crate::record::{Place, Records};
use crate::surroundings::Surroundings;

/// Runs this program again in namespaces of its own, for one sitting.
pub(crate) fn run(arguments: &Arguments, place: Place) -> Result<(Surroundings, Records)> {
    fs::create_dir_all(&arguments.results)?;
    let file = arguments.results.join("part.json");
    let contender = place.contender.to_possible_value();
    let contender = contender.context("a contender without a name")?;
    let mut command = Command::new("unshare");
    command
        .args(["-nmp", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", PREPARE, "bench"])
        .arg(std::env::current_exe()?)
        .args(["--sizes", &place.services.to_string()])
        .args(["--contenders", contender.get_name()])
        .args(["--rounds", &place.round.to_string()])
        .args(["--command", &arguments.command])
        .arg("--part-file")
        .arg(&file);
    let status = command.status().context("failed to start unshare")?;
    ensure!(status.success(), "a sitting ended with {status}");
    let outcome = serde_json::from_slice(&fs::read(&file)?)?;
    fs::remove_file(&file)?;
    Ok(outcome)
}

/// Plays what [`run`] asked for.
pub(crate) fn play(arguments: &Arguments, file: &Path) -> Result<()> {
    let first = |what: &str| format!("no {what}");
    let place = Place {
        contender: *arguments
            .contenders
            .first()
            .with_context(|| first("contender"))?,
        services: *arguments.sizes.first().with_context(|| first("size"))?,
        round: arguments.rounds,
    };
    let options = Options {
        agents: false,
        // Nobody writes but the bench.
        kubernetes_controllers: false,
        proxy: ServiceProxy::None,
        service_network: FRONTENDS.to_owned(),
        ..Options::kubernetes("bench")
    };
    with_lab(&options, |lab| {
        let _backend = Backend::start(lab.node(first_node()?)?)?;
        let surroundings = Surroundings::look(lab, &arguments.command)?;
        let mut records = Records::default();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT));
        Bench::new(lab, server, &mut records).sitting(place)?;
        fs::write(file, serde_json::to_vec(&(surroundings, records))?)?;
        Ok(())
    })
}

/// As `tools/in-namespaces` does, but inside the user namespace that it has made.
pub(crate) const PREPARE: &str =
    "mount -t tmpfs tmpfs /run && ip link set lo up && \"$@\"; exit $?";
/// Where the lab offers the API in plain HTTP.
pub(crate) const API_PORT: u16 = 8001;
