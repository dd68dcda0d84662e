//! Who announces what, as the speakers' records say it.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::lab::Lab;
use serde_json::Value;

/// Who announces an address, and since when: one that went away and came back has another time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Owner {
    /// The node.
    pub(crate) node: String,
    /// When it began to.
    since: String,
}

impl Owner {
    /// Whether nobody announces it.
    pub(crate) fn is_unowned(&self) -> bool {
        self.node.is_empty()
    }
}

/// The owner of every address that has a record.
pub(crate) fn owners(lab: &Lab) -> Result<BTreeMap<String, Owner>> {
    let list = lab.api.get(RECORDS)?;
    let items = list.get("items").and_then(Value::as_array);
    let statuses = items
        .into_iter()
        .flatten()
        .filter_map(|item| item.get("status"));
    let text = |status: &Value, field: &str| -> String {
        let found = status.get(field).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    Ok(statuses
        .map(|status| {
            let owner = Owner {
                node: text(status, "node"),
                since: text(status, "since"),
            };
            (text(status, "address"), owner)
        })
        .collect())
}

const RECORDS: &str = "/apis/foghorn.dev/v1alpha1/namespaces/default/servicel2statuses";
