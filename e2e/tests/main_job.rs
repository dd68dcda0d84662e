//! The main job, end to end: every frontend of 20 Services answers, from every endpoint.
//!
//! Run by `make test-main`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::environment;
use e2e::frontends::{ask_all, frontends_of};
use e2e::lab::{Options, with_lab};
use e2e::manifest;
use e2e::topology::{POOL_IPV4, POOL_IPV6};

/// How many Services, unless `FOGHORN_SERVICES` says otherwise.
const SERVICES: u32 = 20;
const ENDPOINTS: usize = 3;

#[test]
#[ignore = "needs the lab: make test-main"]
fn every_frontend_answers_from_every_endpoint() -> Result<()> {
    with_lab(&Options::foghorn("main-job"), |lab| {
        let services = environment::number("FOGHORN_SERVICES", SERVICES);
        println!("lab ready after {:.1} s", lab.start_time.as_secs_f64());
        let begin = Instant::now();
        lab.kubectl
            .apply(&manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
        let names: Vec<String> = (1..=services)
            .map(|number| format!("web-{number}"))
            .collect();
        for name in &names {
            lab.create_web(name)?;
        }
        let mut frontends = Vec::new();
        let mut addresses = BTreeSet::new();
        for name in &names {
            let patience = Duration::from_secs(120);
            let vips = lab.wait_for_external_addresses("default", name, 2, patience)?;
            for vip in vips {
                ensure!(addresses.insert(vip), "{vip} was given twice");
            }
            let pods = lab.wait_for_endpoints("default", name, ENDPOINTS, patience)?;
            let nodes: BTreeSet<&String> = pods.values().collect();
            ensure!(
                nodes.len() == ENDPOINTS,
                "the endpoints of {name} are on {nodes:?} only"
            );
            frontends.extend(frontends_of(lab, name, pods.into_keys().collect())?);
        }
        lab.wait_for_announcements(addresses.len(), Duration::from_secs(20))?;
        println!(
            "{services} Services with {ENDPOINTS} endpoints each ready after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        println!("{}", ask_all(lab, &frontends, "web-1")?);
        Ok(())
    })
}
