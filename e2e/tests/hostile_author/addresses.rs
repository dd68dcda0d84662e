//! Addresses of others: asked for, or caught.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::client::{Question, Target};
use e2e::kubectl::Kubectl;
use e2e::lab::Lab;
use e2e::manifest::TCP_PORT;
use e2e::questions::{at, external_addresses};
use e2e::topology::NODES;
use serde_json::json;

use super::{ASK, SEEN, TENANT, a_pod, cluster_ip, service, wait_for_answer_of, wait_for_refusal};

pub(crate) fn external_ips_catch_nothing(
    lab: &Lab,
    author: &Kubectl,
    vips: &[IpAddr],
) -> Result<()> {
    let [node, ..] = NODES;
    let mut wanted = vips.to_vec();
    wanted.push(node.ipv4().into());
    wanted.push(cluster_ip(lab, "/api/v1/namespaces/default/services/web")?);
    let mut service = service("catcher", "ClusterIP");
    service["spec"]["externalIPs"] = json!(wanted);
    author.apply(&service.to_string())?;
    // Every proxy serves the Service itself by then.
    let own = at(cluster_ip(lab, &format!("{TENANT}/catcher"))?, TCP_PORT);
    for node in &lab.nodes {
        wait_for_answer_of(&node.namespace, own, "evil-")?;
    }
    for address in &wanted {
        let target = at(*address, TCP_PORT);
        let is_node = *address == IpAddr::V4(node.ipv4());
        for from in [&lab.client, &lab.nodes[1].namespace, &a_pod(lab)?] {
            let answer = Target::tcp(target).ask_from(from, Question::Hostname, SEEN);
            let is_cluster_ip = !is_node && !vips.contains(address);
            let as_it_should = match &answer {
                Ok(name) => name.starts_with("web-"),
                // The client outside of the cluster has no way to a ClusterIP, and nobody serves at a node's port 80.
                Err(_) => is_node || is_cluster_ip && from.name() == "client",
            };
            ensure!(as_it_should, "{address} from {}: {answer:?}", from.name());
        }
    }
    println!("spec.externalIPs with {wanted:?} catch nothing");
    author.run(&["delete", "service", "catcher", "-n", "tenant"])?;
    Ok(())
}

pub(crate) fn addresses_of_others_are_refused(
    lab: &Lab,
    author: &Kubectl,
    vips: &[IpAddr],
) -> Result<()> {
    let vip = vips.iter().find(|vip| vip.is_ipv4()).context("IPv4")?;
    let [node, ..] = NODES;
    let [vip, node] = [vip.to_string(), node.ipv4().to_string()];
    let taken = format!("{vip} is in use by default/web");
    let no_pool = format!("{node} is in no pool");
    let reserved = "192.168.1.210 is reserved for shop/later in pool lan";
    let private = "pool private does not serve the namespace tenant";
    for (number, (annotations, field, expected)) in [
        (json!({ASK: vip}), None, taken.as_str()),
        (
            json!({ASK: vip, "foghorn.dev/allow-shared-ip": "guess"}),
            None,
            &taken,
        ),
        (json!({"metallb.io/loadBalancerIPs": vip}), None, &taken),
        (json!({}), Some(vip.as_str()), &taken),
        (json!({ASK: node}), None, &no_pool),
        (json!({ASK: "192.168.1.210"}), None, reserved),
        (json!({}), Some("192.168.1.210"), reserved),
        (json!({ASK: "192.168.1.230"}), None, private),
        (
            json!({"foghorn.dev/address-pool": "private"}),
            None,
            private,
        ),
        (json!({}), Some("192.168.1.231"), private),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("wish-{number}");
        let mut service = service(&name, "LoadBalancer");
        service["metadata"]["annotations"] = annotations;
        service["spec"]["loadBalancerIP"] = json!(field);
        author.apply(&service.to_string())?;
        let said = wait_for_refusal(lab, &name, &[expected])?;
        println!("{name}: {said}");
        let service = lab.api.get(&format!("{TENANT}/{name}"))?;
        ensure!(external_addresses(&service).is_empty(), "{name} was served");
        author.run(&["delete", "service", &name, "-n", "tenant"])?;
    }
    Ok(())
}
