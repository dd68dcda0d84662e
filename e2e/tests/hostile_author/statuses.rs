//! Statuses, which the role `edit` may not write: that it may not, and what one could do who may.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::client::Target;
use e2e::kubectl::Kubectl;
use e2e::lab::Lab;
use e2e::manifest::TCP_PORT;
use e2e::observer::announcer;
use e2e::questions::{at, items};
use e2e::topology::NODES;
use e2e::wait;
use serde_json::json;

use super::{PATIENCE, TENANT, a_pod, service, wait_for_answer_of};

pub(crate) fn what_the_role_does_not_give_is_forbidden(lab: &Lab, author: &Kubectl) -> Result<()> {
    author.apply(&service("liar", "LoadBalancer").to_string())?;
    lab.wait_for_external_addresses("tenant", "liar", 1, PATIENCE)?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.168.1.250"}]}}});
    let status = status.to_string();
    let pool = "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: mine}\nspec: {addresses: [192.168.1.250]}\n";
    let file = lab.folder.path().join("pool.yaml");
    fs::write(&file, pool)?;
    let file = file.display().to_string();
    for words in [
        &[
            "patch",
            "service",
            "liar",
            "-n",
            "tenant",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ][..],
        &["apply", "-f", &file],
        &["delete", "ipaddresspool", "lan"],
        &["annotate", "service", "web", "-n", "default", "a=b"],
        &["annotate", "node", "node-1", "foghorn.dev/drain=true"],
        &["get", "secrets", "-n", "foghorn-system"],
        &["get", "servicel2statuses", "-n", "default"],
    ] {
        let said = author.run(words);
        let said = said.map_or_else(|error| format!("{error:#}"), |said| format!("done: {said}"));
        ensure!(said.contains("forbidden"), "{words:?}: {said}");
    }
    println!("statuses, pools, nodes, Secrets and other namespaces are forbidden");
    Ok(())
}

/// Somebody who may write statuses writes one of a Service that the controller answers for.
pub(crate) fn a_status_of_our_class_is_corrected(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
    let own = lab.external_addresses("tenant", "liar")?;
    let [_, node, ..] = NODES;
    for stolen in [vips[0], node.ipv4().into(), "192.168.1.210".parse()?] {
        write_status(lab, "liar", stolen)?;
        wait::until("a status that is put right", PATIENCE, || {
            let found = lab.external_addresses("tenant", "liar")?;
            Ok((!found.contains(&stolen)).then_some(()))
        })
        .with_context(|| format!("{stolen} stays"))?;
        println!("a status with {stolen} is put right");
        wait::until("its own address again", PATIENCE, || {
            Ok((lab.external_addresses("tenant", "liar")? == own).then_some(()))
        })?;
    }
    let found = announcer(&lab.client, node.ipv4().into())?;
    ensure!(found == Some(node), "{found:?} answers for {node}");
    Ok(())
}

/// The same with a Service that is another controller's: nobody of ours may correct it, and nobody announces it.
pub(crate) fn a_status_of_another_class_is_not_announced(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
    let [first, node, ..] = NODES;
    let mut other = service("other", "LoadBalancer");
    other["spec"]["loadBalancerClass"] = json!("example.com/other");
    lab.api.create(TENANT, &other)?;
    let free: IpAddr = "192.168.1.219".parse()?;
    let nobody: IpAddr = "192.168.1.99".parse()?;
    let stolen = [vips[0], vips[1], node.ipv4().into(), free, nobody];
    write_statuses(lab, "other", &stolen)?;
    // The proxies forward what the status says, from Pods and from the node itself.
    let pod = a_pod(lab)?;
    for from in [&pod, &lab.nodes[0].namespace] {
        wait_for_answer_of(from, at(free, TCP_PORT), "evil-")?;
        wait_for_answer_of(from, at(nobody, TCP_PORT), "evil-")?;
        wait_for_answer_of(from, at(node.ipv4().into(), TCP_PORT), "evil-")?;
        // Of two Services the older has an address.
        for &vip in vips {
            wait_for_answer_of(from, at(vip, TCP_PORT), "web-")?;
        }
    }
    // At a node's own address it catches who comes from outside, too.
    wait_for_answer_of(&lab.client, at(node.ipv4().into(), TCP_PORT), "evil-")?;
    for address in [free, nobody] {
        let found = e2e::observer::who_has(&lab.client, address)?;
        ensure!(found.is_empty(), "{address} is announced by {found:?}");
    }
    let found = announcer(&lab.client, node.ipv4().into())?;
    ensure!(found == Some(node), "{found:?} answers for {node}");
    let records = lab
        .api
        .get("/apis/foghorn.dev/v1alpha1/namespaces/tenant/servicel2statuses")?;
    let mut records = items(&records);
    let record = records.find(|record| {
        record["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("other"))
    });
    ensure!(record.is_none(), "a record of another class: {record:?}");
    // A port that the Service does not have stays the node's own.
    let agent = Target::tcp(at(node.ipv4().into(), 10250));
    let asked = lab.nodes[0]
        .namespace
        .run(|| std::net::TcpStream::connect(agent.address))?;
    ensure!(
        asked.is_ok(),
        "{first} does not reach the node agent of {node}: {asked:?}"
    );
    println!("a status of another class is forwarded inside, and announced by nobody");
    lab.api.delete(&format!("{TENANT}/other")).map(drop)
}

fn write_status(lab: &Lab, service: &str, address: IpAddr) -> Result<()> {
    write_statuses(lab, service, &[address])
}

fn write_statuses(lab: &Lab, service: &str, addresses: &[IpAddr]) -> Result<()> {
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    lab.api
        .patch(&format!("{TENANT}/{service}/status"), &status)?;
    Ok(())
}
