//! A tour of everything that a Service can be, and of Ingress: from a Pod, from a node, from outside.
//!
//! Run by `make test-tour`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::binaries::Binaries;
use e2e::client::{Question, Target};
use e2e::http::{self, Request};
use e2e::lab::{Lab, Options, with_lab};
use e2e::manifest;
use e2e::namespace::{Namespace, output};
use e2e::questions::{at, external_addresses, items, items_of};
use e2e::topology::{CLIENT_IPV4, CLIENT_IPV6, Family, NODES, POOL_IPV4, POOL_IPV6};
use e2e::wait;
use serde_json::{Value, json};

#[test]
#[ignore = "needs the lab: make test-tour"]
fn every_type_of_service_and_ingress() -> Result<()> {
    let binaries = Binaries::find()?;
    let image = |name: &str| -> Result<String> {
        let program = binaries.of_lab(name, "make test-tour")?;
        Ok(format!("{name}={}", program.display()))
    };
    let options = Options {
        images: vec![image("coredns")?, image("traefik")?],
        ..Options::foghorn("tour")
    };
    with_lab(&options, |lab| {
        lab.kubectl
            .apply(&manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
        lab.kubectl.run(&["apply", "-f", &workload("coredns")])?;
        lab.kubectl.run(&["apply", "-f", &workload("traefik")])?;
        lab.api
            .create(DEPLOYMENTS, &manifest::deployment("web", 3))?;
        let tour = Tour::begin(lab)?;

        tour.the_api_server_is_a_service()?;
        tour.cluster_ip()?;
        tour.headless()?;
        tour.node_port()?;
        tour.load_balancer()?;
        tour.external_name()?;
        tour.ingress()
    })
}

/// A cluster with DNS and three web servers.
struct Tour<'a> {
    lab: &'a Lab,
    /// The names of the web servers.
    web: BTreeSet<String>,
    /// Where one of them is told what to do.
    pod: SocketAddr,
    /// The network of that one.
    pod_network: Namespace,
    begin: Instant,
}

impl<'a> Tour<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        let begin = Instant::now();
        wait_until_rolled_out(lab, "kube-system", "coredns")?;
        wait_until_rolled_out(lab, "default", "web")?;
        let pods = lab.api.get(PODS_OF_WEB)?;
        let web = items(&pods)
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let address: IpAddr = items(&pods)
            .find_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok())
            .context("no Pod has an address")?;
        let tour = Self {
            lab,
            web,
            pod: at(address, 8080),
            pod_network: lab.pod_namespace(address)?,
            begin,
        };
        tour.say("Ready: DNS and three web servers");
        Ok(tour)
    }

    fn the_api_server_is_a_service(&self) -> Result<()> {
        let ask = "cd /var/run/secrets/kubernetes.io/serviceaccount && curl -sS --cacert ca.crt \
                   -H \"Authorization: Bearer $(cat token)\" https://kubernetes.default/version";
        let version = self.in_pod_until(ask, |answer| answer.contains("gitVersion"))?;
        ensure!(version.contains("v1."), "{version}");
        self.say("The API server: its Service, by name, with the Pod's own account");
        Ok(())
    }

    fn cluster_ip(&self) -> Result<()> {
        let service = self.create("inside", &json!({"type": "ClusterIP"}))?;
        for address in cluster_addresses(&service) {
            for node in &self.lab.nodes {
                self.all_answer(&node.namespace, at(address, 80))?;
            }
            self.all_answer(&self.pod_network, at(address, 80))?;
        }
        for name in [
            "inside",
            "inside.default",
            "inside.default.svc.cluster.local",
        ] {
            let answer = self.in_pod(&format!("curl -sS http://{name}/hostname"))?;
            ensure!(self.web.contains(&answer), "{name} answered {answer:?}");
        }
        let first = cluster_addresses(&service).next().context("no ClusterIP")?;
        let over_tcp = self.in_pod("RES_OPTIONS=use-vc getent ahostsv4 inside")?;
        ensure!(over_tcp.contains(&first.to_string()), "{over_tcp:?}");
        self.say("ClusterIP: from each node, and from a Pod by each of its names");
        Ok(())
    }

    fn headless(&self) -> Result<()> {
        self.create("each", &json!({"type": "ClusterIP", "clusterIP": "None"}))?;
        let pods = self.lab.api.get(PODS_OF_WEB)?;
        let addresses: BTreeSet<&str> = items(&pods)
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .collect();
        let answer = self.in_pod_until("getent ahostsv4 each", |answer| {
            addresses.iter().all(|address| answer.contains(address))
        })?;
        let named: BTreeSet<&str> = answer
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        ensure!(
            named == addresses,
            "{answer} names others than {addresses:?}"
        );
        self.say("Headless: the name leads to each Pod itself");
        Ok(())
    }

    fn node_port(&self) -> Result<()> {
        let service = self.create("on-nodes", &json!({"type": "NodePort"}))?;
        let port = service["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("no NodePort")?;
        let port = u16::try_from(port)?;
        for family in Family::BOTH {
            for node in NODES {
                let server = at(node.address(family), port);
                self.all_answer(&self.lab.client, server)?;
                self.all_answer(&self.pod_network, server)?;
            }
        }
        self.say("NodePort: from outside and from a Pod, at each node");
        Ok(())
    }

    fn load_balancer(&self) -> Result<()> {
        self.create("outside", &json!({"type": "LoadBalancer"}))?;
        let addresses = self
            .lab
            .wait_for_external_addresses("default", "outside", 2, PATIENCE)?;
        for &address in &addresses {
            let node = &self.lab.nodes[0].namespace;
            for place in [&self.lab.client, node, &self.pod_network] {
                self.all_answer(place, at(address, 80))?;
            }
        }
        self.say(&format!(
            "LoadBalancer: {addresses:?} from outside, from a node and from a Pod"
        ));
        Ok(())
    }

    fn external_name(&self) -> Result<()> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "elsewhere"},
            "spec": {"type": "ExternalName", "externalName": "www.example.org"},
        });
        self.lab.api.create(SERVICES, &service)?;
        // The third word is the canonical name: where the CNAME leads.
        let wanted = format!("{CLIENT_IPV4} STREAM www.example.org");
        let answer = self.in_pod_until("getent ahostsv4 elsewhere | tr -s ' '", |answer| {
            answer.contains(&wanted)
        })?;
        self.say(&format!(
            "ExternalName: {}",
            answer.lines().next().unwrap_or_default()
        ));
        Ok(())
    }

    fn ingress(&self) -> Result<()> {
        wait_until_rolled_out(self.lab, "traefik", "traefik")?;
        let authority = self.make_certificate()?;
        self.lab.api.create(INGRESSES, &ingress())?;
        let addresses = self
            .lab
            .wait_for_external_addresses("traefik", "traefik", 2, PATIENCE)?;
        wait::until("the address in the Ingress's status", PATIENCE, || {
            let found = self.lab.api.get(&format!("{INGRESSES}/shop"))?;
            Ok((external_addresses(&found) == addresses).then_some(()))
        })?;
        for &address in &addresses {
            let client = match Family::of(address) {
                Family::Ipv4 => IpAddr::from(CLIENT_IPV4),
                Family::Ipv6 => IpAddr::from(CLIENT_IPV6),
            };
            for (scheme, port) in [("http", 80), ("https", 443)] {
                let shop = |path: &str| {
                    let place = resolve(SHOP, port, address);
                    let url = format!("{scheme}://{SHOP}{path}");
                    let arguments = ["-sS", "-m", "5", "--cacert", &authority, "--resolve"];
                    let code = ["-w", "\n%{http_code}"];
                    self.lab.client.output(
                        "curl",
                        &[&arguments[..], &[&place, &url], &code[..]].concat(),
                    )
                };
                wait::until_ok("an answer by host and path", PATIENCE, || {
                    let answer = shop("/hostname")?;
                    let (pod, code) = answer.rsplit_once('\n').context("no status")?;
                    ensure!(
                        code == "200" && self.web.contains(pod.trim()),
                        "{scheme} {address}: {answer:?}"
                    );
                    Ok(())
                })?;
                let seen = shop("/header?key=X-Forwarded-For")?;
                ensure!(
                    seen == format!("{client}\n200"),
                    "{client} was seen as {seen:?}"
                );
                let other_path = shop("/clientip")?;
                ensure!(
                    other_path.ends_with("\n404"),
                    "no rule has this path: {other_path:?}"
                );
            }
        }
        let stranger = self.lab.client.output(
            "curl",
            &[
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--resolve",
                &resolve("other.example.org", 80, addresses[0]),
                "http://other.example.org/hostname",
            ],
        )?;
        ensure!(stranger == "404", "no rule has this host: {stranger}");
        self.say(&format!(
            "Ingress: HTTP and HTTPS by host and path at {addresses:?}, from {CLIENT_IPV4} and {CLIENT_IPV6} as they are"
        ));
        Ok(())
    }

    /// Makes a certificate for the shop as a Secret; returns the file of who signed it.
    fn make_certificate(&self) -> Result<String> {
        let folder = self.lab.folder.path().join("shop");
        let folder = folder.to_str().context("a folder that is no text")?;
        let pki = [
            "pki",
            "--server-name",
            SHOP,
            "--server-address",
            "192.0.2.1",
        ];
        let kubernetes = self.lab.binaries.kubernetes()?;
        output(
            std::process::Command::new(kubernetes)
                .args(pki)
                .args(["--directory", folder]),
        )?;
        let (certificate, key) = (
            format!("--cert={folder}/apiserver.crt"),
            format!("--key={folder}/apiserver.key"),
        );
        self.lab
            .kubectl
            .run(&["create", "secret", "tls", "shop", &certificate, &key])?;
        Ok(format!("{folder}/ca.crt"))
    }

    /// Makes a Service before the web servers.
    fn create(&self, name: &str, more: &Value) -> Result<Value> {
        let mut service = manifest::load_balancer(name);
        service["spec"]["selector"] = json!({"app": "web"});
        for (field, value) in more.as_object().into_iter().flatten() {
            service["spec"][field] = value.clone();
        }
        self.lab.api.create(SERVICES, &service)
    }

    /// Waits until there is an answer, then asks until each of the web servers has answered, without a failure.
    fn all_answer(&self, place: &Namespace, server: SocketAddr) -> Result<()> {
        let target = Target::tcp(server);
        let what = format!("an answer of {server} to {}", place.name());
        let ask = || target.ask_from(place, Question::Hostname, Duration::from_secs(2));
        let mut seen = BTreeSet::from([wait::until_ok(&what, PATIENCE, ask)?]);
        for _ in 0..MOST_QUESTIONS {
            if seen == self.web {
                return Ok(());
            }
            seen.insert(ask().with_context(|| what.clone())?);
        }
        bail!(
            "{server}, asked from {}: {seen:?} answered, not {:?}",
            place.name(),
            self.web
        )
    }

    /// Runs a shell command in a Pod until its output is as it must be.
    fn in_pod_until(&self, command: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait::until_ok(command, PATIENCE, || {
            let answer = self.in_pod(command)?;
            ensure!(wanted(&answer), "{answer:?}");
            Ok(answer)
        })
    }

    /// Runs a shell command in a Pod and returns its output.
    fn in_pod(&self, command: &str) -> Result<String> {
        let path = format!("/shell?cmd={}", in_url(command));
        let response = http::ask(self.pod, &Request::get(&path), PATIENCE)?;
        let answer: Value = serde_json::from_slice(&response.body)?;
        let text = answer["output"].as_str().unwrap_or_default().trim();
        ensure!(
            answer["error"].is_null(),
            "{command}: {} {text}",
            answer["error"]
        );
        Ok(text.to_owned())
    }

    fn say(&self, text: &str) {
        println!("{:5.1} s  {text}", self.begin.elapsed().as_secs_f64());
    }
}

fn wait_until_rolled_out(lab: &Lab, namespace: &str, name: &str) -> Result<()> {
    let deployment = format!("deployment/{name}");
    let patience = format!("--timeout={}s", PATIENCE.as_secs());
    let rollout = ["-n", namespace, "rollout", "status", &deployment, &patience];
    lab.kubectl.run(&rollout)?;
    Ok(())
}

fn ingress() -> Value {
    let backend = json!({"service": {"name": "inside", "port": {"name": "tcp"}}});
    let paths: Vec<Value> = ["/hostname", "/header"]
        .iter()
        .map(|path| json!({"path": path, "pathType": "Prefix", "backend": backend}))
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "shop"},
        "spec": {
            "ingressClassName": "traefik",
            "tls": [{"hosts": [SHOP], "secretName": "shop"}],
            "rules": [{"host": SHOP, "http": {"paths": paths}}],
        },
    })
}

fn cluster_addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    items_of(&service["spec"]["clusterIPs"]).filter_map(|address| address.as_str()?.parse().ok())
}

/// How curl is told where a host is.
fn resolve(host: &str, port: u16, address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{host}:{port}:{address}"),
        IpAddr::V6(address) => format!("{host}:{port}:[{address}]"),
    }
}

/// A text as part of a URL.
fn in_url(text: &str) -> String {
    text.bytes().map(|octet| format!("%{octet:02x}")).collect()
}

fn workload(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    folder.join(format!("{name}.yaml")).display().to_string()
}

const SHOP: &str = "shop.example.org";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const PODS_OF_WEB: &str = "/api/v1/namespaces/default/pods?labelSelector=app=web";
const PATIENCE: Duration = Duration::from_secs(60);
/// Of three equally likely ones, one is missing after 100 answers once in 10^17 times.
const MOST_QUESTIONS: usize = 100;
