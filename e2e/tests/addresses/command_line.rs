//! `kubectl foghorn`, about a real cluster: what it says is what is so, and what it foretells comes true.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::wait;
use serde_json::Value;

use crate::words::{Chapter, PATIENCE, Words};

pub(crate) const CHAPTERS: &[Chapter] = &[
    ("kubectl foghorn: status, pools, why", views),
    ("kubectl foghorn: status --watch", watch),
    ("kubectl foghorn: plan, and it comes true", plan),
    ("kubectl foghorn: check", check),
    ("kubectl foghorn: import from the cluster", import),
];

/// What a command said, and how it ended.
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Said {
    #[track_caller]
    fn has(&self, code: i32, parts: &[&str]) -> Result<()> {
        let both = format!("{}{}", self.output, self.errors);
        for part in parts {
            ensure!(both.contains(part), "{part:?} is not in:\n{both}");
        }
        ensure!(
            self.code == Some(code),
            "it ended with {:?}:\n{both}",
            self.code
        );
        Ok(())
    }
}

fn foghorn(words: &Words<'_>, line: &str) -> Result<Said> {
    let output = Command::new(words.lab.binaries.foghorn("kubectl-foghorn")?)
        .args(line.split_ascii_whitespace())
        .env("KUBECONFIG", words.lab.control_plane.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("kubectl foghorn {line}"))?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let said = Said {
        code: output.status.code(),
        output: text(&output.stdout),
        errors: text(&output.stderr),
    };
    println!("   $ kubectl foghorn {line}");
    for line in said.output.lines().chain(said.errors.lines()).take(12) {
        println!("   {line}");
    }
    Ok(said)
}

fn views(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.133]}")?;
    words.pool("lab", "{addresses: [192.168.1.140], autoAssign: false}")?;
    words.service("one", "", "")?;
    words.has("one", &["192.168.1.130"])?;
    words.service("asks", "annotations: {foghorn.dev/address-pool: nope}", "")?;
    let refused = words.is_refused("asks", &["there is no pool nope"])?;

    foghorn(words, "pools")?.has(0, &["lan", "192.168.1.130-192.168.1.133", "default/one"])?;
    let pools: Value = serde_json::from_str(&foghorn(words, "pools -o json")?.output)?;
    ensure!(pools.to_string().contains("192.168.1.130"), "{pools}");
    foghorn(words, "why default/one")?.has(
        0,
        &[
            "default/one has 192.168.1.130",
            "192.168.1.130 of pool lan",
            "lab (IPv4): serves only Services that ask for it",
        ],
    )?;
    // The words of the condition and of the Event are the words of the command.
    let reason = "there is no pool nope";
    ensure!(refused.contains(reason), "{refused}");
    foghorn(words, "why asks -n default")?.has(0, &[reason])?;
    foghorn(words, "status")?.has(
        0,
        &["default/asks: no address", reason, "leads", "192.168.1.130"],
    )?;
    foghorn(words, "why default/nobody")?.has(1, &["default/nobody"])
}

/// Ends when the chapter does.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What changes in the cluster changes on the screen.
fn watch(words: &mut Words<'_>) -> Result<()> {
    words.pool("lan", "{addresses: [192.168.1.130-192.168.1.133]}")?;
    words.service("first", "", "")?;
    words.has("first", &["192.168.1.130"])?;
    let file = words.lab.folder.path().join("screen");
    let mut command = Command::new(words.lab.binaries.foghorn("kubectl-foghorn")?);
    command
        .args(["status", "--watch", "--interval-seconds=1"])
        .env("KUBECONFIG", words.lab.control_plane.kubeconfig())
        .stdin(Stdio::null())
        .stdout(File::create(&file)?);
    let _watching = Watching(command.spawn()?);
    // The last screen that is complete: each begins with what is wrong, and then names the controller.
    let shows = |what: &str, is_there: bool| {
        wait::until(
            &format!("a screen with {what:?}: {is_there}"),
            PATIENCE,
            || {
                let text = fs::read_to_string(&file)?;
                let last = text.rsplit("\nController  ").nth(1).unwrap_or_default();
                Ok((!last.is_empty() && last.contains(what) == is_there).then_some(()))
            },
        )
    };
    shows("first", true)?;
    shows("second", false)?;
    words.service("second", "", "")?;
    shows("second", true)?;
    shows("192.168.1.131", true)?;
    words.kubectl("delete service first")?;
    shows("first", false)
}

fn plan(words: &mut Words<'_>) -> Result<()> {
    words.pool(
        "lan",
        "{addresses: [192.168.1.130-192.168.1.133], onInUse: Reassign}",
    )?;
    words.service("one", "", "")?;
    words.has("one", &["192.168.1.130"])?;
    words.service("six", "", "ipFamilies: [IPv6]")?;
    words.is_refused("six", &["pool lan has no IPv6 addresses"])?;
    let file = words.lab.folder.path().join("plan.yaml");
    let pool = "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: lan}\nspec: \
                {addresses: [192.168.1.150-192.168.1.151, 'fd12:3456:789a:1::f:0/124'], onInUse: Reassign}\n";
    fs::write(&file, pool)?;
    let said = foghorn(words, &format!("plan {}", file.display()))?;
    said.has(
        2,
        &[
            "default/one",
            "changes",
            "192.168.1.130",
            "192.168.1.150",
            "default/six",
            "gains",
        ],
    )?;
    words.has("one", &["192.168.1.130"])?;
    words.kubectl(&format!("apply -f {}", file.display()))?;
    words.has("one", &["192.168.1.150"])?;
    words
        .lab
        .wait_for_external_addresses("default", "six", 1, PATIENCE)?;
    foghorn(words, &format!("plan {}", file.display()))?.has(0, &[])
}

fn check(words: &mut Words<'_>) -> Result<()> {
    let file = words.lab.folder.path().join("check.yaml");
    let pool = |addresses: &str| {
        format!(
            "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata:\n  name: lan\nspec:\n  addresses:\n  - {addresses}\n"
        )
    };
    fs::write(&file, pool("192.168.1.130-192.168.1.133"))?;
    foghorn(words, &format!("check {}", file.display()))?.has(0, &[])?;
    fs::write(&file, pool("192.168.1.133-192.168.1.130"))?;
    foghorn(words, &format!("check {}", file.display()))?.has(
        1,
        &["192.168.1.133-192.168.1.130 runs backwards", "check.yaml:7"],
    )
}

/// What kube-vip had comes to serve, address for address.
fn import(words: &mut Words<'_>) -> Result<()> {
    words.lab.kubectl.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip, namespace: kube-system}\ndata: {range-global: 192.168.1.160-192.168.1.161}\n",
    )?;
    let said = foghorn(words, "import")?;
    said.has(0, &["kind: IPAddressPool", "192.168.1.160-192.168.1.161"])?;
    words.lab.kubectl.apply(&said.output)?;
    words.service("heir", "", "")?;
    words.has("heir", &["192.168.1.160"])?;
    words.kubectl("delete configmap kubevip -n kube-system")?;
    Ok(())
}
