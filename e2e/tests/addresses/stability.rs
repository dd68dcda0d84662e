//! Nobody moves by itself: restarts, outages, other products, an old backup.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::program::Program;
use e2e::questions::external_addresses;
use e2e::wait;
use serde_json::{Value, json};

use crate::words::{Chapter, PATIENCE, Words};

pub(crate) const CHAPTERS: &[Chapter] = &[
    ("a controller that starts anew", restart),
    ("the leader dies, and another replica leads", another_leader),
    ("an API server that is away for a while", outage),
    ("an API server that refuses one write", refused_write),
    ("no pool for a moment", no_pools),
    ("deleted and made again", made_again),
    ("addresses that other products gave", adoption),
    ("two products write one status", contention),
    ("etcd is put back to an old backup", old_backup),
];

const LAN: &str = "{addresses: [192.168.1.130-192.168.1.149, 'fd12:3456:789a:1::f:0/124']}";

fn some_services(words: &Words<'_>) -> Result<Vec<(String, Vec<std::net::IpAddr>)>> {
    words.pool("lan", LAN)?;
    for (number, spec) in ["", "ipFamilyPolicy: RequireDualStack", "ipFamilies: [IPv6]"]
        .iter()
        .enumerate()
    {
        words.service(&format!("s-{number}"), "", spec)?;
    }
    words.service(
        "wish",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.139}",
        "",
    )?;
    words.has("wish", &["192.168.1.139"])?;
    words
        .lab
        .wait_for_external_addresses("default", "s-1", 2, PATIENCE)?;
    words.controller_has_seen_everything()?;
    // The first is free again: whoever is served anew would get it.
    words.kubectl("delete service s-0")?;
    words.controller_has_seen_everything()?;
    words.everybody()
}

fn restart(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    for kill in [true, false] {
        let controller = words.lab.controller_mut()?;
        if kill {
            controller.kill()?;
        } else {
            controller.terminate(PATIENCE)?;
        }
        controller.start_again()?;
        words.controller_has_seen_everything()?;
        words.nobody_moved(&before)?;
    }
    Ok(())
}

fn another_leader(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    let mut recipe = words.lab.controller_mut()?.recipe().clone().args([
        "--metrics-address=127.0.0.1:17472",
        "--health-address=127.0.0.1:17473",
        "--lease-identity=second",
    ]);
    recipe.name = "foghorn-controller-second".to_owned();
    let mut second = Program::start(recipe, &words.lab.folder.logs())?;
    let leader = |words: &Words<'_>| -> Result<Value> {
        let lease = words.lab.api.get(
            "/apis/coordination.k8s.io/v1/namespaces/foghorn-system/leases/foghorn-controller",
        )?;
        Ok(lease["spec"]["holderIdentity"].clone())
    };
    wait::until("a second replica that could lead", PATIENCE, || {
        Ok(second.log_text()?.contains("Following").then_some(()))
    })
    .with_context(|| second.log_text().unwrap_or_default())?;
    ensure!(leader(words)? != "second", "two replicas lead");
    words.lab.controller_mut()?.kill()?;
    words.controller_acts_again()?;
    ensure!(leader(words)? == "second", "{} leads", leader(words)?);
    words.nobody_moved(&before)?;
    // The first comes back and follows; the second goes in good order, and the first leads at once.
    words.lab.controller_mut()?.start_again()?;
    words.controller_has_seen_everything()?;
    ensure!(leader(words)? == "second", "{} leads", leader(words)?);
    second.terminate(PATIENCE)?;
    words.controller_has_seen_everything()?;
    ensure!(leader(words)? != "second", "who has gone leads");
    words.nobody_moved(&before)
}

/// An admission policy of somebody's refuses the status of one Service: nobody else is harmed, and it is not forgotten.
fn refused_write(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    words.lab.kubectl.apply(POLICY)?;
    wait::until("a policy in force", PATIENCE, || {
        words.service("canary", "labels: {cursed: 'true'}", "")?;
        let status = json!({"status": {"conditions": [{"type": "example.com/Canary", "status": "True", "reason": "Canary", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let path = "/api/v1/namespaces/default/services/canary/status";
        let refused = words.lab.api.patch(path, &status).is_err();
        words.kubectl("delete service canary")?;
        Ok(refused.then_some(()))
    })?;
    words.service("cursed", "labels: {cursed: 'true'}", "")?;
    words.service("other", "", "")?;
    words
        .lab
        .wait_for_external_addresses("default", "other", 1, PATIENCE)?;
    words.has("cursed", &[])?;
    words.nobody_moved(&[before, words.of("other")?].concat())?;
    let log = words.lab.controller_mut()?.log_text()?;
    ensure!(
        log.contains("cursed services keep their status"),
        "the log does not say why"
    );
    words.kubectl(
        "delete validatingadmissionpolicybinding,validatingadmissionpolicy foghorn-test",
    )?;
    words
        .lab
        .wait_for_external_addresses("default", "cursed", 1, 3 * PATIENCE)?;
    Ok(())
}

const POLICY: &str = "\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: foghorn-test}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [''], apiVersions: [v1], operations: [UPDATE], resources: [services/status]}
  validations:
  - expression: \"!has(object.metadata.labels) || !('cursed' in object.metadata.labels)\"
    message: cursed services keep their status
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: foghorn-test}
spec: {policyName: foghorn-test, validationActions: [Deny]}
";

fn outage(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    words.lab.control_plane.api_server.pause()?;
    // Longer than the lease: the controller must not lead any more, and lead again afterwards.
    std::thread::sleep(Duration::from_secs(20));
    words.lab.control_plane.api_server.resume()?;
    words.lab.control_plane.wait_for_api_server()?;
    words.controller_acts_again()?;
    words.nobody_moved(&before)?;
    words.lab.control_plane.api_server.kill()?;
    words.lab.control_plane.api_server.start_again()?;
    words.lab.control_plane.wait_for_api_server()?;
    words.controller_acts_again()?;
    words.nobody_moved(&before)
}

fn no_pools(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    words.kubectl("delete ipaddresspools --all")?;
    words.controller_has_seen_everything()?;
    words.nobody_moved(&before)?;
    words.pool("other", "{addresses: [192.168.1.200-192.168.1.209]}")?;
    words.service("new", "", "")?;
    words.has("new", &["192.168.1.200"])?;
    words.kubectl("delete service new")?;
    words.pool("lan", LAN)?;
    words.controller_has_seen_everything()?;
    words.nobody_moved(&before)
}

fn made_again(words: &mut Words<'_>) -> Result<()> {
    let before = some_services(words)?;
    words.kubectl("delete service wish")?;
    words.service(
        "wish",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.139}",
        "",
    )?;
    words.has("wish", &["192.168.1.139"])?;
    words.nobody_moved(&before)?;
    // No load balancer any more: the address is free, and the status empty.
    words.kubectl(r#"patch service wish --type=merge -p {"spec":{"type":"ClusterIP"}}"#)?;
    words.has("wish", &[])?;
    words.service(
        "heir",
        "annotations: {foghorn.dev/loadBalancerIPs: 192.168.1.139}",
        "",
    )?;
    words.has("heir", &["192.168.1.139"])
}

/// Writes a status as another product does, under its name.
fn write_as(words: &Words<'_>, manager: &str, service: &str, address: &str) -> Result<()> {
    let path =
        format!("/api/v1/namespaces/default/services/{service}/status?fieldManager={manager}");
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    words.lab.api.patch(&path, &status)?;
    Ok(())
}

fn adoption(words: &mut Words<'_>) -> Result<()> {
    words.lab.controller_mut()?.terminate(PATIENCE)?;
    words.pool("lan", LAN)?;
    for (name, manager, address, metadata) in [
        (
            "metallb",
            "controller",
            "192.168.1.141",
            "annotations: {metallb.io/ip-allocated-from-pool: old}",
        ),
        (
            "cilium",
            "cilium-operator-generic",
            "192.168.1.142",
            "annotations: {lbipam.cilium.io/ips: 192.168.1.142}",
        ),
        (
            "kube-vip",
            "kube-vip",
            "192.168.1.143",
            "annotations: {kube-vip.io/loadbalancerIPs: 192.168.1.143}, labels: {implementation: kube-vip}",
        ),
        (
            "purelb",
            "allocator",
            "192.168.1.144",
            "annotations: {purelb.io/allocated-by: PureLB}",
        ),
        ("outside", "controller", "192.168.1.99", ""),
    ] {
        words.service(name, metadata, "")?;
        write_as(words, manager, name, address)?;
    }
    let before = words.everybody()?;
    ensure!(before.len() == 5, "{before:?}");
    words.lab.controller_mut()?.start_again()?;
    words.service("new", "", "")?;
    words.has("new", &["192.168.1.130"])?;
    words.kubectl("delete service new")?;
    words.controller_has_seen_everything()?;
    words.nobody_moved(&before)?;
    for name in ["metallb", "cilium", "kube-vip", "purelb"] {
        words.says(name, "True", &["192.168.1.14", "lan"])?;
    }
    println!(
        "   outside: {}",
        words.says("outside", "True", &["192.168.1.99"])?
    );
    words.lab.expect_all_running()
}

fn contention(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", LAN)?;
    words.service("web", "", "")?;
    words.has("web", &["192.168.1.130"])?;
    let mut writes = 0;
    let condition = wait::until("a report about the other writer", PATIENCE, || {
        let service = words.object("web")?;
        let found = external_addresses(&service);
        if found
            .first()
            .is_none_or(|address| address.to_string() != "10.9.9.9")
        {
            write_as(words, "rival", "web", "10.9.9.9")?;
            writes += 1;
        }
        let conditions = service["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(conditions
            .into_iter()
            .find(|condition| condition["reason"] == "Contested"))
    })?;
    println!(
        "   after {writes} writes of the rival: {}",
        condition["message"]
    );
    ensure!(
        condition["message"]
            .as_str()
            .unwrap_or_default()
            .contains("rival"),
        "it does not say who: {condition}"
    );
    // Reported, not fought: what the other wrote last stays.
    words.controller_has_seen_everything()?;
    words.has("web", &["10.9.9.9"])?;
    // Another Service is none the worse for it.
    words.service("other", "", "")?;
    words
        .lab
        .wait_for_external_addresses("default", "other", 1, PATIENCE)?;
    Ok(())
}

fn old_backup(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", LAN)?;
    words.service("old", "", "")?;
    words.has("old", &["192.168.1.130"])?;
    words.service("freed", "", "")?;
    words.has("freed", &["192.168.1.131"])?;
    words.lab.control_plane.back_up()?;
    words.controller_acts_again()?;
    // After the backup the address of one goes to another, and somebody comes who is not in the backup.
    words.kubectl("delete service freed")?;
    words.service("late", "", "")?;
    words.has("late", &["192.168.1.131"])?;
    words.lab.control_plane.put_backup_in_place()?;
    words.controller_acts_again()?;
    words.has("old", &["192.168.1.130"])?;
    words.has("freed", &["192.168.1.131"])?;
    ensure!(
        words
            .lab
            .api
            .find("/api/v1/namespaces/default/services/late")?
            .is_none(),
        "the backup is not in place"
    );
    words.service("late", "", "")?;
    words.has("late", &["192.168.1.132"])?;
    let mut all: Vec<_> = words
        .everybody()?
        .into_iter()
        .flat_map(|(_, addresses)| addresses)
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    ensure!(
        all.len() == count,
        "an address is held twice: {:?}",
        words.everybody()?
    );
    Ok(())
}
