//! A hostile author of Services: an account with the role `edit` in one namespace, and what it asks for that is not its own.
//! What one could do who may write statuses, which that role may not, comes last.
//!
//! Run by `make test-hostile`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

mod addresses;
mod statuses;
mod texts;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::bystander::unnoticed;
use e2e::client::{Question, Target};
use e2e::kubectl::Kubectl;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{TCP_PORT, deployment};
use e2e::namespace::Namespace;
use e2e::questions::{items, items_of};
use e2e::wait;
use serde_json::{Value, json};

use addresses::{addresses_of_others_are_refused, external_ips_catch_nothing};
use statuses::{
    a_status_of_another_class_is_not_announced, a_status_of_our_class_is_corrected,
    what_the_role_does_not_give_is_forbidden,
};
use texts::hostile_texts_harm_nobody;

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for every proxy and speaker to act on what it saw.
const SEEN: Duration = Duration::from_secs(2);
/// The annotation by which a Service asks for addresses.
const ASK: &str = "foghorn.dev/loadBalancerIPs";
const TENANT: &str = "/api/v1/namespaces/tenant/services";

/// One pool for all, with an address that is kept for somebody, and one for another namespace.
const POOLS: &str = "
apiVersion: foghorn.dev/v1alpha1
kind: IPAddressPool
metadata: {name: lan}
spec:
  addresses: [192.168.1.201-192.168.1.220, 'fd12:3456:789a:1::f:0/120']
  reservations: [{address: 192.168.1.210, service: shop/later}]
---
apiVersion: foghorn.dev/v1alpha1
kind: IPAddressPool
metadata: {name: private}
spec:
  addresses: [192.168.1.230-192.168.1.231]
  serviceAllocation: {namespaces: [shop]}
";

#[test]
#[ignore = "needs the lab: make test-hostile"]
fn a_hostile_author_gets_nothing_that_is_not_its_own() -> Result<()> {
    with_lab(&Options::foghorn("hostile-author"), |lab| {
        lab.kubectl.apply(POOLS)?;
        lab.create_web("web")?;
        let vips = lab.wait_for_external_addresses("default", "web", 2, PATIENCE)?;
        lab.wait_for_endpoints("default", "web", 3, PATIENCE)?;
        let author = move_in(lab)?;
        unnoticed(lab, &vips, "external IPs", |lab| {
            external_ips_catch_nothing(lab, &author, &vips)
        })?;
        unnoticed(lab, &vips, "requests for addresses", |lab| {
            addresses_of_others_are_refused(lab, &author, &vips)
        })?;
        unnoticed(lab, &vips, "what is too long or not text", |lab| {
            hostile_texts_harm_nobody(lab, &author)
        })?;
        unnoticed(lab, &vips, "statuses", |lab| {
            what_the_role_does_not_give_is_forbidden(lab, &author)?;
            a_status_of_our_class_is_corrected(lab, &vips)?;
            a_status_of_another_class_is_not_announced(lab, &vips)
        })
    })
}

/// The author comes: a namespace, an account with the role `edit` in it, and a Pod whose name begins with `evil`.
fn move_in(lab: &Lab) -> Result<Kubectl> {
    for line in [
        "create namespace tenant",
        "create serviceaccount mallory -n tenant",
        "create rolebinding mallory -n tenant --clusterrole=edit --serviceaccount=tenant:mallory",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        lab.kubectl.run(&words)?;
    }
    let author = lab.kubectl_of("tenant", "mallory")?;
    wait::until_ok("the rights of the role edit", PATIENCE, || {
        author.run(&["auth", "can-i", "create", "deployments", "-n", "tenant"])
    })?;
    author.apply(&in_tenant(deployment("evil", 1)))?;
    Ok(author)
}

/// A Service of the author's, for the Pod `evil`.
fn service(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "tenant"},
        "spec": {
            "type": kind,
            "selector": {"app": "evil"},
            "ports": [{"port": TCP_PORT, "targetPort": 8080}],
        },
    })
}

fn in_tenant(mut object: Value) -> String {
    object["metadata"]["namespace"] = json!("tenant");
    object.to_string()
}

/// Waits until the Service's condition says that it has no address, in words with all of `parts`; what it says.
fn wait_for_refusal(lab: &Lab, name: &str, parts: &[&str]) -> Result<String> {
    let mut last = String::new();
    let outcome = wait::until(&format!("a refusal of {name}"), PATIENCE, || {
        let service = lab.api.get(&format!("{TENANT}/{name}"))?;
        let mut conditions = items_of(&service["status"]["conditions"]);
        let condition = conditions.find(|one| one["type"] == "foghorn.dev/AddressAssigned");
        let condition = condition.cloned().unwrap_or_default();
        last = condition["message"].as_str().unwrap_or_default().to_owned();
        let all = parts.iter().all(|part| last.contains(part));
        Ok((condition["status"] == "False" && all).then(|| last.clone()))
    });
    outcome.with_context(|| format!("{name} says {}", start(&last)))
}

/// Waits until a question from `namespace` is answered by a Pod whose name begins so.
fn wait_for_answer_of(namespace: &Namespace, to: SocketAddr, pod: &str) -> Result<()> {
    let target = Target::tcp(to);
    let mut last = String::new();
    let outcome = wait::until(&format!("an answer of {pod} at {to}"), PATIENCE, || {
        let answer = target.ask_from(namespace, Question::Hostname, SEEN);
        last = answer.unwrap_or_else(|error| format!("{error:#}"));
        Ok(last.starts_with(pod).then_some(()))
    });
    outcome.with_context(|| format!("{} hears {last}", namespace.name()))
}

fn cluster_ip(lab: &Lab, service: &str) -> Result<IpAddr> {
    let service = lab.api.get(service)?;
    let address = service["spec"]["clusterIP"].as_str();
    Ok(address.context("a ClusterIP")?.parse()?)
}

/// The network of a Pod.
fn a_pod(lab: &Lab) -> Result<Namespace> {
    let pods = lab
        .api
        .get("/api/v1/namespaces/default/pods?labelSelector=app=web")?;
    let mut addresses = items(&pods).filter_map(|pod| pod["status"]["podIP"].as_str());
    lab.pod_namespace(addresses.next().context("no Pod")?.parse()?)
}

/// The beginning of what may be long.
fn start(text: &str) -> String {
    let text = text.escape_debug().to_string();
    let end = text.find("failed with").unwrap_or_default();
    text.chars().skip(end).take(300).collect()
}
