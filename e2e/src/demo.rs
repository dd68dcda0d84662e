//! What a user wants to see before believing.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::client::{Question, Target};
use e2e::failover::{Fault, trial, wait_for_announcer};
use e2e::lab::Lab;
use e2e::manifest::{self, TCP_PORT};
use e2e::observer;
use e2e::questions::at;
use e2e::topology::CLIENT_IPV4;
use e2e::wait;

use crate::show::{print, run, say};

/// From a pool to a page, and through the death of a node.
pub(crate) fn run_demo(lab: &mut Lab) -> Result<()> {
    say(&format!(
        "A cluster of three nodes and one outside client on a LAN: ready after {:.1} s",
        lab.start_time.as_secs_f64()
    ));
    kubectl(lab, &["get", "nodes", "-o", "wide"])?;

    say("A pool of addresses of this LAN. This one object is enough.");
    let pool = manifest::pool_yaml(
        "lan",
        &["192.168.1.240-192.168.1.250", "fd12:3456:789a:1::f0/124"],
    );
    print(&format!("$ kubectl apply -f - <<EOF\n{pool}EOF\n"));
    lab.kubectl.apply(&pool)?;

    say("Three web servers and a Service of type LoadBalancer");
    lab.api
        .create(DEPLOYMENTS, &manifest::deployment("web", 3))?;
    lab.api.create(SERVICES, &manifest::load_balancer("web"))?;
    let vips = lab.wait_for_external_addresses("default", "web", 2, PATIENCE)?;
    lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
    kubectl(lab, &["get", "pods", "-o", "wide"])?;
    kubectl(lab, &["get", "svc", "web"])?;
    kubectl(lab, &["describe", "svc", "web"])?;
    let vip = vips
        .into_iter()
        .find(IpAddr::is_ipv4)
        .context("the Service has no IPv4 address")?;

    say("Who announces it? The client asks the LAN.");
    let announcer = wait_for_announcer(lab, vip)?;
    print(&format!("$ arping -i eth0 {vip}\n"));
    for answerer in observer::who_has(&lab.client, vip)? {
        print(&format!("{vip} is at {answerer}\n"));
    }

    if lab.binaries.foghorn("kubectl-foghorn").is_ok() {
        foghorn(lab, &["status"])?;
    }

    say(&format!(
        "The client ({CLIENT_IPV4}) knows nothing of Kubernetes. It opens the page."
    ));
    let server = at(vip, TCP_PORT);
    fetch(lab, server, "/hostname", Question::Hostname)?;
    fetch(lab, server, "/clientip", Question::ClientAddress)?;

    say(
        "The Pod saw the node's address. With externalTrafficPolicy: Local it sees the client's own.",
    );
    kubectl(
        lab,
        &[
            "patch",
            "svc",
            "web",
            "-p",
            r#"{"spec":{"externalTrafficPolicy":"Local"}}"#,
        ],
    )?;
    wait_until_client_is_seen(lab, server)?;
    fetch(lab, server, "/clientip", Question::ClientAddress)?;

    say(&format!(
        "{announcer} dies: its cable is pulled, while the client asks each 5 ms."
    ));
    print(&format!("$ ip link set {} down\n", announcer.port()));
    let trial = trial(lab, vip, Fault::LinkDown)?;
    print(&format!(
        "{vip} was announced by {}, now by {}\nThe client was without an answer for {} ms ({})\n",
        trial.before,
        trial.after,
        trial.gap.as_millis(),
        trial.record
    ));

    say("And it still answers.");
    fetch(lab, server, "/hostname", Question::Hostname)?;
    Ok(())
}

fn kubectl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let typed: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    run(
        &format!("kubectl {}", typed.join(" ")),
        lab.kubectl.command().args(arguments),
    )
}

/// A word as one types it into a shell.
fn quoted(word: &str) -> String {
    if word.contains(['{', '"', ' ']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

/// Waits until the proxies have heard of the change.
fn wait_until_client_is_seen(lab: &Lab, server: SocketAddr) -> Result<()> {
    let target = Target::tcp(server);
    wait::until("the client's own address at the Pod", PATIENCE, || {
        let seen = target.ask_from(&lab.client, Question::ClientAddress, Duration::from_secs(2))?;
        Ok(seen.starts_with(&CLIENT_IPV4.to_string()).then_some(()))
    })
}

/// `kubectl foghorn`, as kubectl finds it: on the path.
fn foghorn(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(lab.binaries.foghorn("kubectl-foghorn")?);
    command
        .args(arguments)
        .env("KUBECONFIG", lab.control_plane.kubeconfig());
    run(
        &format!("kubectl foghorn {}", arguments.join(" ")),
        &mut command,
    )
}

fn fetch(lab: &Lab, server: SocketAddr, path: &str, question: Question) -> Result<()> {
    print(&format!("client$ curl http://{server}{path}\n"));
    let target = Target::tcp(server);
    let answer = target.ask_from(&lab.client, question, Duration::from_secs(2))?;
    print(&format!("{answer}\n"));
    Ok(())
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PATIENCE: Duration = Duration::from_secs(60);
