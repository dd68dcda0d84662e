//! What the API server was asked by Foghorn's accounts, as it wrote down itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::folder::RunFolder;
use crate::program::Recipe;

/// A verb on a resource, as RBAC counts them.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, with the subresource behind a slash.
    pub resource: String,
    /// `list`, `watch`, ...
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            resource,
            verb,
        } = self;
        match group.as_str() {
            "" => write!(formatter, "{verb} {resource}"),
            group => write!(formatter, "{verb} {resource}.{group}"),
        }
    }
}

/// What an account asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What it was let do.
    pub allowed: BTreeSet<Right>,
    /// What it was refused for want of a right.
    pub forbidden: BTreeSet<Right>,
}

/// What each account of the namespace asked for so far, by the account's name.
pub fn asked(folder: &RunFolder) -> Result<BTreeMap<String, Asked>> {
    let text = fs::read_to_string(folder.audit()).context("the API server's audit log")?;
    let mut accounts = BTreeMap::<String, Asked>::new();
    // The last line may not be whole yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let entry: Value = serde_json::from_str(line).context("a line of the audit log")?;
        let text = |pointer: &str| {
            let value = entry.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let resource = text("/objectRef/resource");
        if resource.is_empty() {
            continue; // Questions of discovery, which everybody may ask.
        }
        let subresource = text("/objectRef/subresource");
        let right = Right {
            group: text("/objectRef/apiGroup"),
            resource: match subresource.as_str() {
                "" => resource,
                subresource => format!("{resource}/{subresource}"),
            },
            verb: text("/verb"),
        };
        let user = text("/user/username");
        let account = user.rsplit(':').next().unwrap_or_default().to_owned();
        let asked = accounts.entry(account).or_default();
        if text("/annotations/authorization.k8s.io~1decision") == "forbid" {
            asked.forbidden.insert(right);
            continue;
        }
        // An object that an apply makes needs the right to create it too, which the API server asks for by itself.
        let created = entry.pointer("/responseStatus/code") == Some(&Value::from(201));
        if created && right.verb == "patch" {
            asked.allowed.insert(Right {
                verb: "create".to_owned(),
                ..right.clone()
            });
        }
        asked.allowed.insert(right);
    }
    Ok(accounts)
}

/// An API server that writes down what accounts of Foghorn's namespace ask.
pub(crate) fn record(recipe: Recipe, folder: &RunFolder) -> Result<Recipe> {
    let policy = folder.path().join("audit-policy.json");
    fs::write(&policy, POLICY)?;
    Ok(recipe
        .arg("--audit-policy-file")
        .arg(policy)
        .arg("--audit-log-path")
        .arg(folder.audit()))
}

const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [
    {"level": "Metadata", "userGroups": ["system:serviceaccounts:foghorn-system"]},
    {"level": "None"}
  ]
}
"#;
