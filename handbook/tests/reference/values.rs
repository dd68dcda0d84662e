//! Values of the chart: what they mean, from its schema, and their defaults.

use std::collections::BTreeMap;
use std::fs;

use handbook::root;
use serde_json::Value;

use crate::Block;
use crate::table::{Table, code, sentence};

/// One block for each part of the values, and one for what stands at the top.
pub(crate) fn blocks() -> Vec<Block> {
    let schema: Value = read("charts/foghorn/values.schema.json");
    let values: Value = read("charts/foghorn/values.yaml");
    let mut tables = BTreeMap::new();
    for (name, schema) in schema["properties"].as_object().unwrap() {
        let part = if PARTS.contains(&name.as_str()) {
            name
        } else {
            "the whole"
        };
        let table = tables
            .entry(part.to_owned())
            .or_insert_with(|| Table::new(&["Value", "Default", "Meaning"]));
        rows(name, schema, values.get(name), table);
    }
    let blocks = tables.into_iter();
    blocks
        .map(|(part, table)| (format!("values of {part}"), table.text()))
        .collect()
}

/// Adds a value and what is below it.
fn rows(name: &str, schema: &Value, value: Option<&Value>, table: &mut Table) {
    let below = schema["properties"].as_object().into_iter().flatten();
    let below: Vec<_> = below
        .filter(|(_, schema)| schema["description"].is_string())
        .collect();
    let meaning = sentence(schema["description"].as_str().unwrap_or_default());
    if below.is_empty() {
        let default = value.map(default).unwrap_or_default();
        table.row(&[code(name), default, meaning + &choices(schema)]);
    } else if !PARTS.contains(&name) {
        table.row(&[code(name), String::new(), meaning]);
    }
    for (field, schema) in below {
        let value = value.and_then(|value| value.get(field));
        rows(&format!("{name}.{field}"), schema, value, table);
    }
}

fn default(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => code(text),
        value => code(&value.to_string()),
    }
}

/// What may be chosen from.
fn choices(schema: &Value) -> String {
    let words = schema["enum"].as_array().into_iter().flatten();
    let words: Vec<String> = words.filter_map(Value::as_str).map(code).collect();
    let least_and_most = (schema["minimum"].as_u64(), schema["maximum"].as_u64());
    match (&words[..], least_and_most) {
        ([], (Some(least), Some(most))) => format!(", {least} to {most}"),
        ([], _) => String::new(),
        (words, _) => format!(": {}", words.join(", ")),
    }
}

/// YAML, of which JSON is a part.
fn read(path: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(root(path)).unwrap()).unwrap()
}

#[test]
fn values_read_as_in_a_table() {
    let schema = serde_json::json!({"description": "Whole.", "properties": {
        "level": {"description": "How much", "enum": ["a", "b"]},
        "port": {"description": "Its port", "minimum": 1, "maximum": 9},
        "unspoken": {},
    }});
    let values = serde_json::json!({"level": "a", "port": 7});
    let mut table = Table::new(&["Value", "Default", "Meaning"]);
    rows("log", &schema, Some(&values), &mut table);
    let expected = "| Value | Default | Meaning |\n|---|---|---|\n| `log` | | Whole |\n\
        | `log.level` | `a` | How much: `a`, `b` |\n| `log.port` | `7` | Its port, 1 to 9 |\n";
    assert_eq!(table.text(), expected);
}

/// What has a table of its own.
const PARTS: [&str; 5] = [
    "controller",
    "networkPolicy",
    "prometheus",
    "proxy",
    "speaker",
];
