//! A hostile author of Services: an account with the role `edit` in one namespace, and what it asks for that is not its own.
//! What one could do who may write statuses, which that role may not, comes last.
//!
//! Run by `make test-hostile`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bystander::unnoticed;
use e2e::client::{Question, Target};
use e2e::kubectl::Kubectl;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{TCP_PORT, deployment};
use e2e::namespace::Namespace;
use e2e::observer::announcer;
use e2e::questions::{at, external_addresses, items, items_of};
use e2e::topology::NODES;
use e2e::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for every proxy and speaker to act on what it saw.
const SEEN: Duration = Duration::from_secs(2);
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

fn external_ips_catch_nothing(lab: &Lab, author: &Kubectl, vips: &[IpAddr]) -> Result<()> {
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

fn addresses_of_others_are_refused(lab: &Lab, author: &Kubectl, vips: &[IpAddr]) -> Result<()> {
    let vip = vips.iter().find(|vip| vip.is_ipv4()).context("IPv4")?;
    let [node, ..] = NODES;
    let [vip, node] = [vip.to_string(), node.ipv4().to_string()];
    let ask = "foghorn.dev/loadBalancerIPs";
    let taken = format!("{vip} is in use by default/web");
    let no_pool = format!("{node} is in no pool");
    let reserved = "192.168.1.210 is reserved for shop/later in pool lan";
    let private = "pool private does not serve the namespace tenant";
    for (number, (annotations, field, expected)) in [
        (json!({ask: vip}), None, taken.as_str()),
        (
            json!({ask: vip, "foghorn.dev/allow-shared-ip": "guess"}),
            None,
            &taken,
        ),
        (json!({"metallb.io/loadBalancerIPs": vip}), None, &taken),
        (json!({}), Some(vip.as_str()), &taken),
        (json!({ask: node}), None, &no_pool),
        (json!({ask: "192.168.1.210"}), None, reserved),
        (json!({}), Some("192.168.1.210"), reserved),
        (json!({ask: "192.168.1.230"}), None, private),
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

/// What would fill a disk or a log, or look like a line of one.
fn hostile_texts_harm_nobody(lab: &mut Lab, author: &Kubectl) -> Result<()> {
    let ask = "foghorn.dev/loadBalancerIPs";
    for (what, octets, expected) in [
        ("10 MB", 10 << 20, "limit"),
        ("300 KB", 300 << 10, "metadata.annotations: Too long"),
    ] {
        let mut service = service("huge", "LoadBalancer");
        service["metadata"]["annotations"] = json!({ask: "1".repeat(octets)});
        let said = refused_by_the_api_server(lab, author, &service)?;
        ensure!(said.contains(expected), "{what}: {}", start(&said));
        println!("an annotation of {what}: {}", start(&said));
    }
    for (field, value) in [
        ("name", json!("../../etc")),
        ("name", json!("a\nb")),
        ("labels", json!({"a": "b\nc"})),
        ("labels", json!({"../x": "y"})),
        ("annotations", json!({"a b": "c"})),
    ] {
        let mut service = service("odd", "LoadBalancer");
        service["metadata"][field] = value;
        let said = refused_by_the_api_server(lab, author, &service)?;
        ensure!(said.contains("nvalid"), "{field}: {}", start(&said));
    }
    // What the API server takes, it keeps as it is.
    let line =
        "x\n2026-01-01T00:00:00Z ERROR forged line of a log\n\u{1b}[31mred\u{7}\u{202e}\u{0}";
    let long = format!("192.168.1.201,{}", "9".repeat(250_000));
    let many: Vec<_> = (0..10_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.0.{high}.{low}")
        })
        .collect();
    for (number, (key, value)) in [
        (ask, line.to_owned()),
        (ask, long.clone()),
        (ask, many.join(",")),
        ("foghorn.dev/address-pool", line.to_owned()),
        ("foghorn.dev/address-pool", long),
        ("foghorn.dev/preferred-node", line.to_owned()),
        (
            "metallb.io/loadBalancerIPs",
            "%s%n$(reboot)`reboot`{{.}}".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("text-{number}");
        let mut service = service(&name, "LoadBalancer");
        service["metadata"]["annotations"] = json!({key: value});
        create(lab, author, &service)?;
        if key != "foghorn.dev/preferred-node" {
            let said = wait_for_refusal(lab, &name, &[])?;
            println!("{name}: {}", start(&said));
        }
    }
    // Another one is served as quickly as ever.
    author.apply(&service("own", "LoadBalancer").to_string())?;
    lab.wait_for_external_addresses("tenant", "own", 1, Duration::from_secs(5))?;
    let events = lab
        .api
        .get("/apis/events.k8s.io/v1/namespaces/tenant/events")?;
    let longest = items(&events).filter_map(|event| Some(event["note"].as_str()?.len()));
    let longest = longest.max().context("no Event is there")?;
    ensure!(longest <= 1024, "an Event has {longest} octets");
    for program in lab.programs() {
        if !program.name().starts_with("foghorn-") {
            continue;
        }
        let log = program.log_text()?;
        let forged = log.lines().find(|line| line.starts_with("2026-01-01"));
        ensure!(forged.is_none(), "{}: {forged:?}", program.name());
        ensure!(!log.contains('\u{1b}'), "{}: an escape", program.name());
        let longest = log.lines().map(str::len).max();
        let longest = longest.with_context(|| format!("{} logged nothing", program.name()))?;
        ensure!(longest < 10_000, "{}: {longest} octets", program.name());
    }
    for number in 0..7 {
        let name = format!("text-{number}");
        author.run(&["delete", "service", &name, "-n", "tenant"])?;
    }
    author.run(&["delete", "service", "own", "-n", "tenant"])?;
    Ok(())
}

fn what_the_role_does_not_give_is_forbidden(lab: &Lab, author: &Kubectl) -> Result<()> {
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
fn a_status_of_our_class_is_corrected(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
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
fn a_status_of_another_class_is_not_announced(lab: &Lab, vips: &[IpAddr]) -> Result<()> {
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

fn refused_by_the_api_server(lab: &Lab, author: &Kubectl, service: &Value) -> Result<String> {
    match create(lab, author, service) {
        Ok(said) => anyhow::bail!("the API server took it: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Not by `apply`, which would write all of it into one more annotation.
fn create(lab: &Lab, author: &Kubectl, service: &Value) -> Result<String> {
    let file = lab.folder.path().join("service.json");
    fs::write(&file, service.to_string())?;
    author.run(&["create", "-f", &file.display().to_string()])
}

/// Waits until a question from `namespace` is answered by a Pod whose name begins so.
fn wait_for_answer_of(namespace: &Namespace, to: std::net::SocketAddr, pod: &str) -> Result<()> {
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
