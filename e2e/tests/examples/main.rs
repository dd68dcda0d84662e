//! The layer 2 examples of MetalLB's own documentation, each applied as it stands but for names and addresses of this LAN, to
//! addresses that answer.
//!
//! They come from MetalLB's module, as its programs do (`e2e/workloads/metallb`). Run by `make test-migration`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod cases;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::binaries::Binaries;
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest::{self, TCP_PORT};
use e2e::observer;
use e2e::questions::{at, external_addresses, items_of};
use e2e::topology::NODES;
use e2e::wait;
use handbook::Page;
use serde_json::{Value, json};

use cases::{EXAMPLES, Example, Expected, HERE, NAMESPACES, Pool, Source};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs the lab and MetalLB: make test-migration"]
fn every_example_of_metallb_leads_to_an_address_that_answers() -> Result<()> {
    let agnhost = Binaries::find()?.agnhost()?;
    let options = Options {
        images: vec![format!(
            "nginx={} netexec --http-port=80",
            agnhost.display()
        )],
        ..Options::foghorn("examples")
    };
    with_lab(&options, |lab| {
        prepare(lab)?;
        for example in EXAMPLES {
            let outcome = run(lab, example);
            outcome.with_context(|| format!("the example of {}", example.about))?;
        }
        println!("{} examples", EXAMPLES.len());
        Ok(())
    })
}

/// MetalLB's definitions, and everything that its examples take for granted: namespaces, and Pods to send traffic to.
fn prepare(lab: &Lab) -> Result<()> {
    for entry in fs::read_dir(folder(lab)?.join("definitions"))? {
        lab.kubectl.apply(&fs::read_to_string(entry?.path())?)?;
    }
    for plural in ["ipaddresspools", "l2advertisements"] {
        let definition = format!("crd/{plural}.metallb.io");
        lab.kubectl
            .run(&["wait", "--for=condition=Established", &definition])?;
    }
    for (namespace, labels) in NAMESPACES {
        if *namespace != "default" {
            lab.kubectl.run(&["create", "namespace", namespace])?;
        }
        for label in *labels {
            lab.kubectl.run(&["label", "namespace", namespace, label])?;
        }
    }
    for namespace in ["default", "namespace-a", "labelled"] {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        lab.api.create(&path, &manifest::deployment("web", 3))?;
    }
    let nginx = ["create", "deployment", "nginx", "--image=nginx:1"];
    lab.kubectl.run(&nginx)?;
    Ok(())
}

fn run(lab: &Lab, example: &Example) -> Result<()> {
    let mut objects: String = example.besides.iter().map(pool).collect();
    for source in example.sources {
        let text = read(lab, source).with_context(|| format!("failed to read {source:?}"))?;
        objects.push_str(&format!("\n---\n{}", adapted(&text)));
    }
    lab.kubectl.apply(&objects)?;
    let services = example.services.iter();
    for service in services.clone().filter(|service| service.is_ours) {
        let path = format!("/api/v1/namespaces/{}/services", service.namespace);
        lab.api.create(&path, &our_service(service))?;
    }
    for service in services.clone() {
        let vips = check(lab, service).with_context(|| format!("the Service {}", service.name))?;
        println!("{}: {} has {vips:?}", example.about, service.name);
    }
    for service in services.filter(|service| service.is_ours) {
        let arguments = ["delete", "service", service.name, "-n", service.namespace];
        lab.kubectl.run(&arguments)?;
    }
    let said = lab.kubectl_with(&["delete", "-f", "-"], &objects)?;
    ensure!(said.success, "{}", said.text);
    Ok(())
}

/// Waits until a Service has what it should have; its addresses.
fn check(lab: &Lab, expected: &Expected) -> Result<Vec<IpAddr>> {
    let path = format!(
        "/api/v1/namespaces/{}/services/{}",
        expected.namespace, expected.name
    );
    let mut last = String::new();
    let outcome = wait::until("what the controller says of it", PATIENCE, || {
        let service = lab.api.get(&path)?;
        let condition = items_of(&service["status"]["conditions"])
            .find(|condition| condition["type"] == "foghorn.dev/AddressAssigned");
        let Some(condition) = condition else {
            return Ok(None);
        };
        last = condition.to_string();
        let addresses = external_addresses(&service);
        let message = condition["message"].as_str().unwrap_or_default();
        let is_right = match expected.pool {
            Some(pool) => {
                condition["status"] == "True"
                    && addresses.len() == expected.addresses
                    && message.contains(&format!("from pool {pool}"))
            }
            None => condition["status"] == "False" && addresses.is_empty(),
        };
        Ok(is_right.then_some(addresses))
    });
    let vips = outcome.with_context(|| format!("it says {last}"))?;
    for &vip in &vips {
        if let Some(wish) = expected.wish {
            ensure!(vip.to_string() == wish, "it has {vip} instead of {wish}");
        }
        if !expected.nodes.is_empty() {
            answers(lab, expected, vip)?;
        }
    }
    Ok(vips)
}

/// Waits until one of the nodes that should announces an address, and the client has an answer.
fn answers(lab: &Lab, expected: &Expected, vip: IpAddr) -> Result<()> {
    let node = wait::until(
        &format!("one node that answers for {vip}"),
        PATIENCE,
        || observer::announcer(&lab.client, vip),
    )?;
    let allowed = expected.nodes.iter().map(|&index| NODES[index - 1]);
    ensure!(
        allowed.clone().any(|allowed| allowed == node),
        "{node} announces {vip}: it should be one of {:?}",
        allowed.map(|node| node.name()).collect::<Vec<_>>()
    );
    let url = format!("http://{}/hostname", at(vip, TCP_PORT));
    let arguments = ["-s", "--fail", "--globoff", "--max-time", "1", &url];
    wait::until_ok(&format!("an answer from {vip}"), PATIENCE, || {
        lab.client.output("curl", &arguments)
    })?;
    Ok(())
}

fn pool((name, spec): &Pool) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
         metadata: {{name: {name}, namespace: metallb-system}}\nspec: {{{spec}}}\n"
    )
}

fn our_service(expected: &Expected) -> Value {
    let mut service = manifest::load_balancer("web");
    service["metadata"]["name"] = json!(expected.name);
    for (labels, pairs) in [
        ("labels", expected.labels),
        ("annotations", expected.annotations),
    ] {
        for (key, value) in pairs {
            service["metadata"][labels][key] = json!(value);
        }
    }
    if expected.addresses == 1 {
        service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    service
}

fn read(lab: &Lab, source: &Source) -> Result<String> {
    let folder = folder(lab)?;
    match *source {
        Source::Sample(name) => Ok(fs::read_to_string(folder.join("examples").join(name))?),
        Source::Page(name, words) => {
            let text = fs::read_to_string(folder.join("pages").join(name))?;
            let blocks = Page::of(name.to_owned(), text).blocks();
            let has_all = |text: &str| words.iter().all(|word| text.contains(word));
            let block = blocks.into_iter().find(|block| has_all(&block.text));
            Ok(block.context("no block of the page has these words")?.text)
        }
    }
}

/// The example with addresses, nodes and interfaces that are here, and in a namespace that is.
fn adapted(text: &str) -> String {
    let replace = |text: String, (theirs, ours): &(&str, &str)| text.replace(theirs, ours);
    HERE.iter().fold(text.to_owned(), replace)
}

fn folder(lab: &Lab) -> Result<std::path::PathBuf> {
    lab.binaries.of_lab("metallb", "make test-migration")
}
