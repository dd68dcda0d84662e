//! The accounts of Foghorn's programs: each program runs with the rights that the manifests give it, and with no others.
//! And those of others, who ask the API server for something.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::audit::{self, Asked};
use crate::control_plane::server;
use crate::folder::RunFolder;
use crate::installation::NAMESPACE;
use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::wait;

impl Lab {
    /// The kubeconfig of a program's account, as `foghorn-speaker`; its rights are given first if nobody has them yet.
    pub fn kubeconfig_of(&self, program: &str) -> Result<PathBuf> {
        let file = kubeconfig(&self.folder, program);
        if !file.exists() {
            let rights = write_rights(&self.folder)?;
            self.kubectl
                .run(&["apply", "-f", &rights.display().to_string()])?;
            write_kubeconfig(&self.api, &self.folder, program)?;
        }
        Ok(file)
    }

    /// `kubectl` of a ServiceAccount, with the rights that it has by then.
    pub fn kubectl_of(&self, namespace: &str, account: &str) -> Result<Kubectl> {
        let file = self.folder.path().join(format!("{account}.kubeconfig"));
        let token = token(&self.api, namespace, account)?;
        fs::write(&file, text_of_kubeconfig(&self.folder, account, &token))?;
        Ok(Kubectl::new(&self.binaries.kubernetes()?, &file))
    }

    /// Fails if an account was refused what it never got: the chart must give it.
    pub fn expect_rights_to_suffice(&self) -> Result<()> {
        // Where the lab gave no rights the chart was installed, and perhaps uninstalled under Pods that still ran.
        if !self.folder.accounts().exists() || !self.folder.audit().exists() {
            return Ok(());
        }
        expect_enough(&audit::asked(&self.folder)?)
    }
}

/// Fails if an account was refused what it never got, or if the API server wrote down nothing to tell that by.
fn expect_enough(accounts: &BTreeMap<String, Asked>) -> Result<()> {
    ensure!(
        !accounts.is_empty(),
        "the API server wrote down nothing that an account asked for"
    );
    for (account, asked) in accounts {
        // An API server that has just started refuses for a moment what it has not read yet.
        let mut lacks = asked.forbidden.difference(&asked.allowed).peekable();
        if lacks.peek().is_some() {
            let lacks: Vec<String> = lacks.map(ToString::to_string).collect();
            bail!(
                "the account {account} lacks the right to {}",
                lacks.join(", ")
            );
        }
    }
    Ok(())
}

/// Writes what the manifests have of accounts and rights into one file, to be applied.
pub(crate) fn write_rights(folder: &RunFolder) -> Result<PathBuf> {
    let mut rights = String::new();
    for manifest in ["foghorn.yaml", "foghorn-proxy.yaml"] {
        let file = Path::new(DEPLOY).join(manifest);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        rights.push_str(&rights_in(&text));
    }
    fs::create_dir_all(folder.accounts())?;
    let file = folder.accounts().join("rights.yaml");
    fs::write(&file, rights)?;
    Ok(file)
}

/// Writes the kubeconfig of a program's account.
pub(crate) fn write_kubeconfig(api: &Api, folder: &RunFolder, program: &str) -> Result<()> {
    let token = token(api, NAMESPACE, program)?;
    wait_until_allowed(api, program)?;
    let text = text_of_kubeconfig(folder, program, &token);
    fs::write(kubeconfig(folder, program), text)?;
    Ok(())
}

/// Asks the API server for a token of an account, as kubelets do for Pods.
fn token(api: &Api, namespace: &str, account: &str) -> Result<String> {
    let asked = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let answer = api.create(&path, &asked)?;
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    let token = token.with_context(|| format!("no token of {account}: {answer}"))?;
    Ok(token.to_owned())
}

fn text_of_kubeconfig(folder: &RunFolder, account: &str, token: &str) -> String {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {
            "server": server(),
            "certificate-authority": folder.pki().join("ca.crt"),
        }}],
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": account}}],
        "current-context": "lab",
    });
    kubeconfig.to_string()
}

/// The API server learns of roles by a watch of its own, a moment after they were written.
fn wait_until_allowed(api: &Api, program: &str) -> Result<()> {
    let mut asked = vec![json!({"verb": "list", "resource": "services"})];
    if program == "foghorn-controller" {
        asked.push(json!({
            "verb": "create", "group": "coordination.k8s.io", "resource": "leases", "namespace": NAMESPACE,
        }));
    }
    for attributes in asked {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:{program}"),
                "resourceAttributes": attributes,
            },
        });
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let what = format!("the right of {program} to {attributes}");
        wait::until(&what, PATIENCE, || {
            let answer = api.create(reviews, &review)?;
            let is_allowed = answer.pointer("/status/allowed") == Some(&true.into());
            Ok(is_allowed.then_some(()))
        })?;
    }
    Ok(())
}

/// The kubeconfig of a program's account, once it is written.
pub(crate) fn kubeconfig(folder: &RunFolder, program: &str) -> PathBuf {
    folder.accounts().join(format!("{program}.kubeconfig"))
}

/// The documents of a manifest that are about accounts and rights.
fn rights_in(manifest: &str) -> String {
    let is_wanted = |document: &&str| {
        let mut lines = document.lines();
        let kind = lines.find_map(|line| line.strip_prefix("kind: "));
        kind.is_some_and(|kind| KINDS.contains(&kind))
    };
    let documents = manifest.split("\n---\n").filter(is_wanted);
    documents
        .map(|document| format!("---\n{document}\n"))
        .collect()
}

const KINDS: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any lab.
const TOKEN_SECONDS: u32 = 7 * 24 * 3600;

#[cfg(test)]
mod tests {
    use crate::audit::Right;

    use super::*;

    #[test]
    fn an_account_has_enough_if_it_got_what_it_was_refused_and_something_was_written_down() {
        let right = |verb: &str| Right {
            group: String::new(),
            resource: "services".to_owned(),
            verb: verb.to_owned(),
        };
        let asked = |allowed: &[&str], forbidden: &[&str]| {
            let rights = |verbs: &[&str]| verbs.iter().map(|verb| right(verb)).collect();
            let asked = Asked {
                allowed: rights(allowed),
                forbidden: rights(forbidden),
            };
            BTreeMap::from([("foghorn-proxy".to_owned(), asked)])
        };
        for (accounts, expected) in [
            (asked(&["list"], &[]), "enough"),
            (asked(&["list", "watch"], &["list"]), "enough"),
            (
                asked(&["list"], &["watch", "patch"]),
                "the account foghorn-proxy lacks the right to patch services, watch services",
            ),
            (
                BTreeMap::new(),
                "the API server wrote down nothing that an account asked for",
            ),
        ] {
            let outcome = expect_enough(&accounts).map(|()| "enough".to_owned());
            let outcome = outcome.unwrap_or_else(|error| error.to_string());
            assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn accounts_and_rights_are_told_from_the_rest() {
        let count = |manifest: &str, kind: &str| {
            let text = fs::read_to_string(Path::new(DEPLOY).join(manifest)).unwrap();
            let kind = format!("\nkind: {kind}\n");
            rights_in(&text).matches(&kind).count()
        };
        for (manifest, kind, expected) in [
            ("foghorn.yaml", "Namespace", 1),
            ("foghorn.yaml", "ServiceAccount", 2),
            ("foghorn.yaml", "ClusterRole", 2),
            ("foghorn.yaml", "ClusterRoleBinding", 2),
            ("foghorn.yaml", "Role", 1),
            ("foghorn.yaml", "RoleBinding", 1),
            ("foghorn.yaml", "DaemonSet", 0),
            ("foghorn.yaml", "CustomResourceDefinition", 0),
            ("foghorn-proxy.yaml", "ServiceAccount", 1),
            ("foghorn-proxy.yaml", "ClusterRole", 1),
            ("foghorn-proxy.yaml", "ClusterRoleBinding", 1),
            ("foghorn-proxy.yaml", "DaemonSet", 0),
        ] {
            assert_eq!(count(manifest, kind), expected, "{kind} in {manifest}");
        }
    }
}
