//! The real MetalLB in the lab: its controller beside the control plane, a speaker on each node.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::Lab;
use e2e::program::{Program, Recipe};
use e2e::topology::{NODES, NodeNumber};
use serde_json::json;

/// MetalLB, installed: its definitions, its example, a pool of the lab's LAN.
#[derive(Debug)]
pub(crate) struct MetalLb {
    folder: PathBuf,
    logs: PathBuf,
    kubeconfig: PathBuf,
    controller: Program,
    speakers: BTreeMap<NodeNumber, Program>,
}

impl MetalLb {
    /// Applies what MetalLB's manifests have, without its Pods; nothing of it runs then.
    pub(crate) fn install(lab: &Lab) -> Result<Self> {
        let folder = lab.binaries.lab.join("metallb");
        ensure!(
            folder.join("speaker").exists(),
            "{} is not there: run `make test-migration`",
            folder.display()
        );
        lab.kubectl.run(&["create", "namespace", NAMESPACE])?;
        for entry in fs::read_dir(folder.join("definitions"))? {
            lab.kubectl.apply(&fs::read_to_string(entry?.path())?)?;
        }
        let definitions: Vec<String> = ["ipaddresspools", "l2advertisements"]
            .iter()
            .map(|plural| format!("crd/{plural}.metallb.io"))
            .collect();
        for definition in &definitions {
            lab.kubectl
                .run(&["wait", "--for=condition=Established", definition])?;
        }
        lab.kubectl.apply(&fs::read_to_string(
            folder.join("examples/simple_pool_adv_l2.yaml"),
        )?)?;
        lab.kubectl.apply(LAN)?;
        // MetalLB looks its own Pods up; nobody runs these.
        let names = NODES.map(|node| format!("speaker-{node}"));
        for name in names.iter().map(String::as_str).chain(["controller"]) {
            lab.api.create(
                &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
                &json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "labels": {"app": "metallb"}},
                    "spec": {"schedulerName": "nobody", "containers": [{"name": "metallb", "image": "metallb"}]},
                }),
            )?;
        }
        let logs = lab.folder.logs();
        let kubeconfig = lab.control_plane.kubeconfig();
        let recipe = Recipe::new("metallb-controller", folder.join("controller"), &lab.outer)
            .args(["--webhook-mode=disabled", "--port=7600"])
            .env("KUBECONFIG", &kubeconfig)
            .env("METALLB_NAMESPACE", NAMESPACE)
            .env("METALLB_POD_NAME", "controller");
        let mut controller = Program::start(recipe, &logs)?;
        controller.terminate(PATIENCE)?;
        Ok(Self {
            folder,
            logs,
            kubeconfig,
            controller,
            speakers: BTreeMap::new(),
        })
    }

    pub(crate) fn start_controller(&mut self) -> Result<()> {
        self.controller.start_again()
    }

    pub(crate) fn stop_controller(&mut self) -> Result<()> {
        self.controller.expect_running()?;
        self.controller.terminate(PATIENCE)?;
        Ok(())
    }

    pub(crate) fn start_speakers(&mut self, lab: &Lab) -> Result<()> {
        NODES
            .into_iter()
            .try_for_each(|node| self.start_speaker(lab, node))
    }

    pub(crate) fn start_speaker(&mut self, lab: &Lab, node: NodeNumber) -> Result<()> {
        let name = node.name();
        let namespace = &lab.node(node)?.namespace;
        let recipe = Recipe::new(
            format!("metallb-speaker-{name}"),
            self.folder.join("speaker"),
            namespace,
        )
        .args(["--port=7700"])
        .env("KUBECONFIG", &self.kubeconfig)
        .env("METALLB_NAMESPACE", NAMESPACE)
        .env("METALLB_NODE_NAME", &name)
        .env("METALLB_BGP_TYPE", "native")
        .env("METALLB_POD_NAME", format!("speaker-{name}"));
        self.speakers
            .insert(node, Program::start(recipe, &self.logs)?);
        Ok(())
    }

    pub(crate) fn stop_speaker(&mut self, node: NodeNumber) -> Result<()> {
        let mut speaker = self.speakers.remove(&node).context("no speaker")?;
        speaker.expect_running()?;
        speaker.terminate(PATIENCE)?;
        Ok(())
    }
}

const NAMESPACE: &str = "metallb-system";
const PATIENCE: Duration = Duration::from_secs(20);
/// As MetalLB's documentation writes them.
const LAN: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: metallb-system}
spec:
  addresses:
  - 192.168.1.200-192.168.1.210
  - fd12:3456:789a:1::f:0/124
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
spec: {ipAddressPools: [lan]}
";
