//! Metrics with TLS: the chart's Secrets, the programs' certificates, and `kubectl foghorn`, which asks speakers through the
//! API server.
//!
//! Run by `make test-chart`.

#![expect(clippy::print_stdout, reason = "a test")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::installation::NAMESPACE;
use e2e::lab::{Lab, Options, with_lab};
use e2e::namespace::output;
use e2e::questions::items;
use e2e::topology::{POOL_IPV4, POOL_IPV6, ROUTER_IPV4};
use rcgen::generate_simple_self_signed;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// The name in the certificate.
const NAME: &str = "foghorn-metrics";

#[test]
#[ignore = "needs the lab: make test-chart"]
fn metrics_are_served_with_the_certificate_of_the_secret_and_not_without() -> Result<()> {
    with_lab(&Options::as_pods("tls"), |lab| {
        lab.kubectl.run(&["create", "namespace", NAMESPACE])?;
        make_certificate(lab)?;
        let secrets = ["controller", "speaker", "proxy"]
            .map(|part| format!("prometheus.{part}MetricsTLSSecret=metrics"))
            .join(",");
        lab.install_by_helm(&[
            &format!("pool={{{POOL_IPV4},{POOL_IPV6}}}"),
            "prometheus.enabled=true,proxy.enabled=true",
            &format!("proxy.apiServer.host={ROUTER_IPV4}"),
            &secrets,
        ])?;
        lab.create_web("web")?;
        lab.wait_until_web_answers(PATIENCE)?;
        lab.wait_for_components(&[("controller", 2), ("speaker", 3), ("proxy", 3)], PATIENCE)?;
        every_program_speaks_tls_alone(lab)?;
        the_plugin_reads_the_speakers(lab)
    })
}

/// A Secret, as `kubectl create secret tls` makes one.
fn make_certificate(lab: &Lab) -> Result<()> {
    let made = generate_simple_self_signed([NAME.to_owned()])?;
    let file = |name: &str| lab.folder.path().join(name).display().to_string();
    fs::write(file("tls.crt"), made.cert.pem())?;
    fs::write(file("tls.key"), made.signing_key.serialize_pem())?;
    let create = ["create", "secret", "tls", "metrics", "-n", NAMESPACE];
    let certificate = format!("--cert={}", file("tls.crt"));
    let key = format!("--key={}", file("tls.key"));
    lab.kubectl
        .run(&[&create[..], &[&certificate, &key]].concat())?;
    Ok(())
}

fn every_program_speaks_tls_alone(lab: &Lab) -> Result<()> {
    let pods = lab
        .api
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
    let authority = lab.folder.path().join("tls.crt").display().to_string();
    let mut count = 0;
    for pod in items(&pods) {
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        let address = address.context("an address of a Pod")?;
        let ports = pod.pointer("/spec/containers/0/ports");
        let ports = ports.and_then(Value::as_array).into_iter().flatten();
        let metrics = ports.filter(|port| port.get("name").is_some_and(|name| name == "metrics"));
        for port in metrics.filter_map(|port| port.get("containerPort")) {
            let curl = |arguments: &[&str]| {
                let quiet = ["--silent", "--show-error", "--fail", "--max-time", "5"];
                output(lab.client.command("curl").args(quiet).args(arguments))
            };
            let url = format!("https://{NAME}:{port}/metrics");
            let resolve = format!("{NAME}:{port}:{address}");
            let text = curl(&["--cacert", &authority, "--resolve", &resolve, &url])?;
            ensure!(
                text.contains("# TYPE foghorn_") || text.contains("# TYPE kubeproxy_"),
                "{text}"
            );
            // Nobody vouches for a certificate that nobody knows, and nothing is said in clear text.
            ensure!(
                curl(&["--resolve", &resolve, &url]).is_err(),
                "{url} is believed by everybody"
            );
            let plain = format!("http://{address}:{port}/metrics");
            ensure!(curl(&[&plain]).is_err(), "{plain} answers");
            count += 1;
        }
    }
    println!("{count} Pods serve their metrics with TLS alone");
    ensure!(count == 8, "{count} Pods have a port for metrics");
    Ok(())
}

fn the_plugin_reads_the_speakers(lab: &Lab) -> Result<()> {
    let mut command = Command::new(lab.binaries.foghorn("kubectl-foghorn")?);
    command.env("KUBECONFIG", lab.control_plane.kubeconfig());
    let said = output(command.arg("doctor"))?;
    println!("{said}");
    ensure!(
        said.contains("Asked 3 speakers about 2 addresses on the wire"),
        "{said}"
    );
    Ok(())
}
