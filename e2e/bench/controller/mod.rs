//! `make bench-controller`: what it takes to give 10 000 Services their addresses, beside the real MetalLB.

mod measure;
mod outcome;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use e2e::lab::{Options, ServiceProxy, with_lab};

use crate::again;
use crate::arguments::Arguments;
use crate::giver::Giver;
use crate::surroundings::Surroundings;
use outcome::{Outcome, tables};

/// Lets each giver have its turn, in namespaces of its own, and writes the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<String> {
    let mut outcomes = Vec::new();
    let mut surroundings = Surroundings::default();
    for giver in &arguments.givers {
        let line = [
            "--givers",
            &again::word(giver)?,
            "--command",
            &arguments.command,
            "--services",
            &arguments.services.to_string(),
        ];
        let (around, outcome): (Surroundings, Outcome) =
            again::run(&line, &arguments.results, &[]).with_context(|| giver.name())?;
        surroundings = around;
        outcomes.push((*giver, outcome));
    }
    fs::write(
        arguments.results.join("controller.json"),
        serde_json::to_vec(&outcomes)?,
    )?;
    Ok(tables(&surroundings, arguments.services, &outcomes))
}

/// One turn.
pub(crate) fn play(arguments: &Arguments, giver: Giver, file: &Path) -> Result<()> {
    let options = Options {
        agents: false,
        // What is written down of one would slow the API server down for it alone.
        audited: false,
        kubernetes_controllers: false,
        controller: giver == Giver::Foghorn,
        speakers: false,
        proxy: ServiceProxy::None,
        service_network: crate::objects::FRONTENDS.to_owned(),
        ..Options::foghorn("bench-controller")
    };
    with_lab(&options, |lab| {
        let surroundings = Surroundings::look(lab, &arguments.command)?;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, again::API_PORT));
        let outcome = measure::measure(lab, server, giver, arguments.services)?;
        fs::write(file, serde_json::to_vec(&(surroundings, outcome))?)?;
        Ok(())
    })
}
