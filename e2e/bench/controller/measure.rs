//! The turn of one controller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::api::{Api, Watch};
use e2e::lab::Lab;
use e2e::program::{Program, Recipe};
use e2e::questions::{external_addresses, items};
use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::giver::Giver;
use crate::load::load_balancers;
use crate::objects::{FIRST_OF_TRIALS, Number};
use crate::usage::Usage;
use e2e::connection::Connection;

/// Measures one giver in a cluster without Services.
pub(crate) fn measure(
    lab: &mut Lab,
    server: SocketAddr,
    giver: Giver,
    services: u32,
) -> Result<Outcome> {
    let mut controller = start(lab, giver)?;
    pools(lab, giver)?;
    let mut outcome = Outcome::default();
    let mut api = Connection::open(server)?;
    // The template, and the proof that the controller serves.
    serve_one(lab, &mut api, Number(0))?;

    let mut watch = Statuses::begin(lab)?;
    watch.served.insert(Number(0).name());
    let (cpu, api_cpu) = (cpu(&controller)?, api_cpu(lab)?);
    let begin = Instant::now();
    // Whoever does not read what a watch says loses it.
    let api_of_lab = lab.api;
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| load_balancers(&api_of_lab, 1..services));
        watch.wait_for(usize::try_from(services)?)?;
        load.join().ok().context("the writer panicked")?
    })?;
    outcome.all_seconds = begin.elapsed().as_secs_f64();
    outcome.all_cpu = self::cpu(&controller)? - cpu;
    outcome.all_api_cpu = self::api_cpu(lab)? - api_cpu;
    outcome.peak_mib = usage(&controller)?.peak_mib;

    for trial in 0..ONE_MORE {
        outcome
            .one_more
            .push(serve_one(lab, &mut api, Number(FIRST_OF_TRIALS + trial))?);
    }

    controller.terminate(PATIENCE)?;
    let waiting = Number(FIRST_OF_TRIALS + ONE_MORE);
    let mut watch = Statuses::begin(lab)?;
    waiting.create_load_balancer(&mut api)?;
    let begin = Instant::now();
    controller.start_again()?;
    watch.wait_for_service(&waiting.name())?;
    outcome.start_seconds = begin.elapsed().as_secs_f64();
    // Whatever it has to say about the others, it says now.
    watch.drain(Duration::from_secs(3))?;
    outcome.start_cpu = self::cpu(&controller)?;
    outcome.start_writes = watch.modified;
    Ok(outcome)
}

fn start(lab: &mut Lab, giver: Giver) -> Result<Program> {
    match giver {
        Giver::Foghorn => lab.controller.take().context("no controller"),
        Giver::Metallb => {
            let folder = lab.binaries.lab.join("metallb");
            ensure!(
                folder.join("controller").exists(),
                "MetalLB is not built: run `make bench-controller`"
            );
            lab.kubectl
                .run(&["create", "namespace", "metallb-system"])?;
            let definitions = folder.join("definitions");
            lab.kubectl
                .run(&["apply", "-f", &definitions.display().to_string()])?;
            lab.kubectl.run(&[
                "wait",
                "--for=condition=Established",
                "crd/ipaddresspools.metallb.io",
            ])?;
            // No controller of Kubernetes runs that would make it.
            lab.kubectl.run(&[
                "create",
                "serviceaccount",
                "default",
                "-n",
                "metallb-system",
            ])?;
            lab.api.create("/api/v1/namespaces/metallb-system/pods", &json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "controller"},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "metallb", "image": "metallb"}]},
            }))?;
            let recipe = Recipe::new("metallb-controller", folder.join("controller"), &lab.outer)
                .args(["--webhook-mode=disabled", "--port=7600", "--log-level=warn"])
                .env("KUBECONFIG", lab.control_plane.kubeconfig())
                .env("METALLB_NAMESPACE", "metallb-system")
                .env("METALLB_POD_NAME", "controller");
            Program::start(recipe, &lab.folder.logs())
        }
    }
}

/// 100 pools of a /16: 11.0.0.0/16 to 11.99.0.0/16. Nothing is sent there.
fn pools(lab: &Lab, giver: Giver) -> Result<()> {
    let mut yaml = String::new();
    for number in 0..100 {
        let (version, namespace) = match giver {
            Giver::Foghorn => ("foghorn.dev/v1alpha1", ""),
            Giver::Metallb => ("metallb.io/v1beta1", ", namespace: metallb-system"),
        };
        yaml.push_str(&format!(
            "---\napiVersion: {version}\nkind: IPAddressPool\nmetadata: {{name: pool-{number}{namespace}}}\nspec: {{addresses: [11.{number}.0.0/16]}}\n"
        ));
    }
    lab.kubectl.apply(&yaml)
}

/// Makes a Service; milliseconds from the answer to its status.
fn serve_one(lab: &Lab, api: &mut Connection, number: Number) -> Result<f64> {
    let mut watch = Statuses::begin(lab)?;
    number.create_load_balancer(api)?;
    let answered = Instant::now();
    let served = watch.wait_for_service(&number.name())?;
    Ok(served.saturating_duration_since(answered).as_secs_f64() * 1e3)
}

/// The Services whose status has an address, as a watch tells.
struct Statuses {
    api: Api,
    watch: Watch,
    served: BTreeSet<String>,
    modified: u32,
}

impl Statuses {
    fn begin(lab: &Lab) -> Result<Self> {
        let now = lab.api.get(&format!("{COLLECTION}?limit=1"))?;
        Ok(Self {
            api: lab.api,
            watch: watch_from(&lab.api, &now)?,
            served: BTreeSet::new(),
            modified: 0,
        })
    }

    /// Begins anew after the API server has ended the watch: it does so with whoever reads too slowly.
    fn begin_anew(&mut self) -> Result<()> {
        let now = self.api.get(&format!("{COLLECTION}?resourceVersion=0"))?;
        for service in items(&now).filter(|service| !external_addresses(service).is_empty()) {
            let name = service.pointer("/metadata/name").and_then(Value::as_str);
            self.served.insert(name.unwrap_or_default().to_owned());
        }
        self.watch = watch_from(&self.api, &now)?;
        Ok(())
    }

    /// Takes the next event in; the moment when it came, if it says that a Service is served.
    fn next(&mut self, patience: Duration) -> Result<Option<(String, Instant)>> {
        let Some((kind, service)) = self.watch.next(patience)? else {
            return Ok(None);
        };
        self.modified += u32::from(kind == "MODIFIED");
        let name = service.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        if !external_addresses(&service).is_empty() {
            self.served.insert(name.clone());
            return Ok(Some((name, Instant::now())));
        }
        Ok(Some((String::new(), Instant::now())))
    }

    /// Waits until so many Services are served that were there before the watch or came after it began.
    fn wait_for(&mut self, count: usize) -> Result<()> {
        while self.served.len() < count {
            if self.next(PATIENCE)?.is_some() {
                continue;
            }
            if !self.watch.has_ended() {
                let now = self.api.get(COLLECTION)?;
                let lacking = items(&now).find(|service| external_addresses(service).is_empty());
                bail!(
                    "{} of {count} Services have an address; {} exist; one that has none: {lacking:?}",
                    self.served.len(),
                    items(&now).count()
                );
            }
            self.begin_anew()?;
        }
        Ok(())
    }

    fn wait_for_service(&mut self, name: &str) -> Result<Instant> {
        loop {
            match self.next(PATIENCE)? {
                Some((found, at)) if found == name => return Ok(at),
                Some(_) => {}
                None => bail!("{name} has no address"),
            }
        }
    }

    /// Takes in what comes until nothing has come for `quiet`.
    fn drain(&mut self, quiet: Duration) -> Result<()> {
        while self.next(quiet)?.is_some() {}
        Ok(())
    }
}

fn watch_from(api: &Api, list: &Value) -> Result<Watch> {
    let version = list
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str);
    api.watch(
        COLLECTION,
        version.context("a list without a version")?,
        PATIENCE,
    )
}

fn usage(program: &Program) -> Result<Usage> {
    Usage::of(program.process_id().context("it does not run")?)
}

fn cpu(program: &Program) -> Result<f64> {
    Ok(usage(program)?.cpu_seconds)
}

fn api_cpu(lab: &Lab) -> Result<f64> {
    Ok(cpu(&lab.control_plane.api_server)? + cpu(lab.control_plane.etcd()?)?)
}

const COLLECTION: &str = "/api/v1/namespaces/default/services";
const ONE_MORE: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(60);
