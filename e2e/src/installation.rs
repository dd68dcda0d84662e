//! Foghorn installed as users install it, and run as Pods.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::manifest::TCP_PORT;
use crate::namespace::output;
use crate::questions::{at, items};
use crate::wait;

/// The namespace that the handbook installs into.
pub const NAMESPACE: &str = "foghorn-system";

impl Lab {
    /// Runs Helm on the chart of this repository: `arguments` begin with the verb, and name the chart as `CHART`.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.binaries.helm()?);
        let home = self.folder.path().join("helm");
        command
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            // Nothing of whoever runs the tests counts.
            .env("HELM_CACHE_HOME", &home)
            .env("HELM_CONFIG_HOME", &home)
            .env("HELM_DATA_HOME", &home)
            .args(arguments.iter().map(|argument| match *argument {
                "CHART" => CHART,
                argument => argument,
            }));
        output(&mut command)
    }

    /// Installs the chart as the handbook says, each of `values` given to `--set`; the notes that it shows.
    pub fn install_by_helm(&self, values: &[&str]) -> Result<String> {
        self.helm(
            &[
                &["install", "foghorn", "CHART", "--create-namespace"],
                &in_namespace(values)[..],
            ]
            .concat(),
        )
    }

    /// Upgrades what [`Self::install_by_helm`] installed.
    pub fn upgrade_by_helm(&self, values: &[&str]) -> Result<String> {
        self.helm(&[&["upgrade", "foghorn", "CHART"], &in_namespace(values)[..]].concat())
    }

    /// Waits until all Pods of Foghorn's namespace are ready, `expected` of them by the label of their component.
    pub fn wait_for_components(
        &mut self,
        expected: &[(&str, usize)],
        patience: Duration,
    ) -> Result<()> {
        let expected: BTreeMap<&str, usize> = expected.iter().copied().collect();
        let mut last = String::new();
        let outcome = wait::until("the Pods of Foghorn", patience, || {
            self.expect_all_running()?;
            let pods = self.pods_of_foghorn()?;
            let mut ready = BTreeMap::<&str, usize>::new();
            for pod in pods.iter().filter(|pod| pod.is_ready) {
                *ready.entry(&pod.component).or_default() += 1;
            }
            last = format!("{ready:?} of {} Pods", pods.len());
            Ok((ready == expected && pods.len() == expected.values().sum::<usize>()).then_some(()))
        });
        outcome.with_context(|| format!("ready are {last}, {expected:?} should be"))
    }

    /// The Pods in Foghorn's namespace, those that end included.
    pub fn pods_of_foghorn(&self) -> Result<Vec<ComponentPod>> {
        let pods = self
            .api
            .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
        Ok(items(&pods).map(ComponentPod::of).collect())
    }

    /// Waits until the client has an answer from both addresses of the Service `web`; the addresses.
    pub fn wait_until_web_answers(&self, patience: Duration) -> Result<Vec<IpAddr>> {
        let vips = self.wait_for_external_addresses("default", "web", 2, patience)?;
        for &vip in &vips {
            let url = format!("http://{}/hostname", at(vip, TCP_PORT));
            let arguments = ["--silent", "--fail", "--globoff", "--max-time", "1", &url];
            wait::until_ok(&format!("an answer from {vip}"), patience, || {
                self.client.output("curl", &arguments)
            })?;
        }
        Ok(vips)
    }

    /// Fails unless what was applied is still what would be applied: Argo CD and Flux would see nothing to do.
    pub fn expect_no_drift(&self, manifest: &str) -> Result<()> {
        let said = self.kubectl_with(&["diff", "-f", "-"], manifest)?;
        ensure!(said.success, "what was applied has changed:\n{}", said.text);
        Ok(())
    }

    /// Runs `kubectl` with `input`.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let file = self.folder.path().join("input.yaml");
        fs::write(&file, input)?;
        let mut command = self.kubectl.command();
        let output = command
            .args(arguments)
            .stdin(fs::File::open(&file)?)
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Said {
            success: output.status.success(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// Who announces what and why, and the logs of all Pods: for whoever looks for the reason of a failure.
    pub fn what_foghorn_says(&self) -> Result<String> {
        let mut said = self
            .kubectl
            .run(&["get", "servicel2statuses", "-A", "-o", "yaml"])?;
        for pod in self.pods_of_foghorn()? {
            let log = self.kubectl.run(&["-n", NAMESPACE, "logs", &pod.name])?;
            said.push_str(&format!("──── {}\n{log}", pod.name));
        }
        Ok(said)
    }

    /// Fails if containers of Foghorn's Pods were started again.
    pub fn expect_no_restarts(&self) -> Result<()> {
        for pod in self.pods_of_foghorn()? {
            ensure!(pod.restarts == Some(0), "restarts: {pod:?}");
        }
        Ok(())
    }
}

/// A Pod of one of Foghorn's programs.
#[derive(Clone, Debug)]
pub struct ComponentPod {
    /// Its name.
    pub name: String,
    /// The program, by the label of its component.
    pub component: String,
    /// What its container runs.
    pub image: String,
    /// Whether it is ready and does not end.
    pub is_ready: bool,
    /// How often its container was started again.
    pub restarts: Option<u64>,
}

impl ComponentPod {
    fn of(pod: &Value) -> Self {
        let text = |pointer| {
            let text = pod.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
        Self {
            name: text("/metadata/name"),
            component: text("/metadata/labels/app.kubernetes.io~1component"),
            image: text("/spec/containers/0/image"),
            is_ready: is_ready(pod),
            restarts: restarts.and_then(Value::as_u64),
        }
    }

    /// The image without its tag.
    pub fn repository(&self) -> &str {
        self.image
            .rsplit_once(':')
            .map_or(&self.image, |(repository, _)| repository)
    }
}

fn in_namespace<'a>(values: &[&'a str]) -> Vec<&'a str> {
    let sets = values.iter().flat_map(|value| ["--set", value]);
    ["--namespace", NAMESPACE].into_iter().chain(sets).collect()
}

/// What a command said, and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it succeeded.
    pub success: bool,
    /// What it wrote, errors last.
    pub text: String,
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").is_some_and(|kind| kind == "Ready")
            && condition
                .get("status")
                .is_some_and(|status| status == "True")
    }) && pod.pointer("/metadata/deletionTimestamp").is_none()
}

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/foghorn");
