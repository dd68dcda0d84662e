//! Which fields an object may have, from the schema of its type, and which of them a wrong one resembles.

use std::sync::LazyLock;

use serde_json::Value;

use crate::declaration::Group;
use crate::located::{Key, Located, Node};
use crate::refusal::{Kind, Place, Reason};
use crate::{crd, metallb};

/// A field that does not exist, and where its name stands.
pub(crate) struct UnknownField {
    pub(crate) path: String,
    pub(crate) place: Place,
    pub(crate) reason: Reason,
}

/// Every field of the document that its kind does not have.
pub(crate) fn unknown_fields(group: Group, kind: Kind, document: &Located) -> Vec<UnknownField> {
    static POOL: LazyLock<Value> = LazyLock::new(schema::<crd::IPAddressPoolSpec>);
    static ADVERTISEMENT: LazyLock<Value> = LazyLock::new(schema::<crd::L2AdvertisementSpec>);
    static METALLB_POOL: LazyLock<Value> = LazyLock::new(schema::<metallb::IPAddressPoolSpec>);
    static METALLB_ADVERTISEMENT: LazyLock<Value> =
        LazyLock::new(schema::<metallb::L2AdvertisementSpec>);
    let root: &Value = match (group, kind) {
        (Group::Foghorn, Kind::Pool) => &POOL,
        (Group::Foghorn, Kind::Advertisement) => &ADVERTISEMENT,
        (Group::MetalLb, Kind::Pool) => &METALLB_POOL,
        (Group::MetalLb, Kind::Advertisement) => &METALLB_ADVERTISEMENT,
    };
    let mut found = Vec::new();
    check_keys(document, &OBJECT_FIELDS, "", &mut found);
    if let Some(metadata) = document.get("metadata") {
        check_keys(metadata, &METADATA_FIELDS, "metadata", &mut found);
    }
    if let Some(spec) = document.get("spec") {
        check(spec, root, root, "spec", &mut found);
    }
    found
}

/// The one of `known` that `found` was most likely meant to be.
pub(crate) fn nearest(found: &str, known: &[&str]) -> Option<String> {
    /// Below this, two names have nothing to do with each other.
    const ALIKE: f64 = 0.7;
    let lower = found.to_lowercase();
    let likeness =
        |name: &&str| strsim::normalized_damerau_levenshtein(&lower, &name.to_lowercase());
    let nearest = known
        .iter()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(nearest) >= ALIKE).then(|| (*nearest).to_owned())
}

const OBJECT_FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// `metav1.ObjectMeta`.
const METADATA_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn schema<T: schemars::JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

fn check_keys(node: &Located, known: &[&str], path: &str, found: &mut Vec<UnknownField>) {
    let Node::Map(entries) = &node.node else {
        return;
    };
    for (key, _) in entries {
        if !known.contains(&key.text.as_str()) {
            found.push(unknown(key, known, path));
        }
    }
}

/// What to say of a key that is none of these.
pub(crate) fn unknown(key: &Key, known: &[&str], path: &str) -> UnknownField {
    UnknownField {
        path: path.to_owned(),
        place: key.place,
        reason: Reason::UnknownField {
            found: crate::excerpt::excerpt(&key.text),
            nearest: nearest(&key.text, known),
            known: known.iter().map(|&name| name.to_owned()).collect(),
        },
    }
}

fn check(node: &Located, schema: &Value, root: &Value, path: &str, found: &mut Vec<UnknownField>) {
    let schema = resolve(schema, root);
    match &node.node {
        Node::Scalar(_) => {}
        Node::List(items) => {
            let Some(schema) = schema.get("items") else {
                return;
            };
            for (index, item) in items.iter().enumerate() {
                check(item, schema, root, &format!("{path}[{index}]"), found);
            }
        }
        Node::Map(entries) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            for (key, value) in entries {
                match properties.get(&key.text) {
                    Some(schema) => {
                        check(value, schema, root, &format!("{path}.{}", key.text), found);
                    }
                    None => found.push(unknown(key, &known, path)),
                }
            }
        }
    }
}

/// What a schema refers to: the definition, or the alternative that is not null.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let referred = |schema: &'a Value| {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        root.get("$defs")?.get(name)
    };
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    let alternative = alternatives
        .into_iter()
        .flatten()
        .find(|alternative| alternative.get("type").and_then(Value::as_str) != Some("null"));
    let schema = alternative.unwrap_or(schema);
    referred(schema).unwrap_or(schema)
}
