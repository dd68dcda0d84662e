//! foghorn-proxy and the real kube-proxy on the same objects: random flows meet the same verdicts at both, and those of the
//! specification.
//!
//! Run by `make differential`, and a short form by `make test-differential`. `FOGHORN_SEED` repeats a run,
//! `FOGHORN_TABLE` makes one of its tables alone; `FOGHORN_TABLES` and `FOGHORN_FLOWS` say how many tables, and flows for
//! each.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod cluster;
mod differences;
mod endpoints;
mod flows;
mod judge;
mod network;
mod objects;
mod packet;
mod round;
mod run;
mod scene;
mod twin;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use e2e::lab::{Options, ServiceProxy, with_lab};

use crate::run::{Plan, Run};

#[test]
#[ignore = "needs the lab: make test-differential"]
fn both_proxies_do_what_the_specification_says() -> Result<()> {
    let options = Options {
        agents: false,
        // Nobody writes but the test.
        kubernetes_controllers: false,
        proxy: ServiceProxy::None,
        ..Options::kubernetes("differential")
    };
    with_lab(&options, |lab| {
        let plan = Plan::from_environment()?;
        println!("FOGHORN_SEED={} repeats the choices", plan.seed);
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT));
        Run::new(plan, api)?.play(lab)
    })
}

/// Where the lab offers the API in plain HTTP.
const API_PORT: u16 = 8001;
