//! The lab alone, with the real kube-proxy: what the other tests see is not the lab's own doing.
//!
//! Run by `make test-main`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::frontends::{ask_all, frontends_of};
use e2e::lab::{Lab, Options, with_lab};
use e2e::topology::NODES;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const VIPS: [&str; 2] = ["192.168.1.240", "fd12:3456:789a:1::f0"];

#[test]
#[ignore = "needs the lab: make test-main"]
fn the_real_kube_proxy_serves_every_frontend_of_the_lab() -> Result<()> {
    with_lab(&Options::kubernetes("kubernetes"), |lab| {
        println!("lab ready after {:.1} s", lab.start_time.as_secs_f64());
        let begin = Instant::now();
        lab.create_web("web")?;
        let pods = lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
        println!(
            "three Pods ready after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        stand_in_for_foghorn(lab)?;
        // kube-proxy syncs once a second: the external address comes later than the rest.
        let frontends = frontends_of(lab, "web", pods.into_keys().collect())?;
        let told = e2e::wait::until_ok("answers everywhere", PATIENCE, || {
            ask_all(lab, &frontends, "web")
        })?;
        println!("{told}");
        scaling_changes_the_endpoints(lab)
    })
}

/// Gives the Service an address, and the client the MAC address of the node that would announce it.
fn stand_in_for_foghorn(lab: &Lab) -> Result<()> {
    let ingress = VIPS.map(|ip| json!({"ip": ip}));
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    lab.api
        .patch("/api/v1/namespaces/default/services/web/status", &status)?;
    for vip in VIPS {
        let mac = NODES[0].mac();
        lab.client
            .configure(&format!("neigh replace {vip} lladdr {mac} dev eth0"))?;
    }
    Ok(())
}

fn scaling_changes_the_endpoints(lab: &Lab) -> Result<()> {
    for replicas in [1, 4] {
        let begin = Instant::now();
        lab.api.patch(
            "/apis/apps/v1/namespaces/default/deployments/web",
            &json!({"spec": {"replicas": replicas}}),
        )?;
        let pods = lab.wait_for_endpoints("default", "web", replicas, PATIENCE)?;
        println!(
            "{replicas} endpoints after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        ensure!(pods.len() == replicas, "{pods:?}");
    }
    Ok(())
}
