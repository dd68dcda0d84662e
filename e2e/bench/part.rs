//! One sitting: a cluster, and namespaces, of its own, so that nobody finds what another has left.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use e2e::lab::{Options, ServiceProxy, with_lab};
use e2e::mode::Mode;

use crate::again::{self, API_PORT};
use crate::arguments::Arguments;
use crate::backend::Backend;
use crate::contender::{Contender, first_node};
use crate::measure::Bench;
use crate::objects::FRONTENDS;
use crate::record::{Place, Records};
use crate::surroundings::Surroundings;

/// Runs this program again in namespaces of its own, for one sitting.
pub(crate) fn run(arguments: &Arguments, place: Place) -> Result<(Surroundings, Records)> {
    let line = [
        "--sizes",
        &place.services.to_string(),
        "--contenders",
        &again::word(&place.contender)?,
        "--rounds",
        &place.round.to_string(),
        "--command",
        &arguments.command,
    ];
    again::run(&line, &arguments.results, &emulator(place.contender)?)
}

/// Few kernels of build machines have IPVS: one of Debian's does, under qemu, with the control plane outside.
fn emulator(contender: Contender) -> Result<Vec<OsString>> {
    if contender.mode() != Mode::Ipvs || Path::new("/proc/net/ip_vs").exists() {
        return Ok(Vec::new());
    }
    let lab = std::env::current_exe()?.with_file_name("lab");
    let in_kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/in-kernel");
    let mut command = vec![lab.into_os_string()];
    command.extend(
        [
            "control-plane",
            "--without-controllers",
            "--service-network",
            FRONTENDS,
            in_kernel,
            KERNEL,
        ]
        .map(OsString::from),
    );
    Ok(command)
}

const KERNEL: &str = "6.12";

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
        // What is written down of one would slow the API server down for it alone.
        audited: false,
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
