//! Fields of the custom resources, from their definitions, which a test of `config` compares with the types.

use std::fs;

use config::advertisement::{Failback, PartitionPolicy};
use config::pool::OnInUse;
use handbook::root;
use serde_json::{Value, json};

use crate::Block;
use crate::table::{Table, code, sentence};

/// What operators write.
pub(crate) fn of_configuration() -> Vec<Block> {
    ["IPAddressPool", "L2Advertisement"]
        .map(|kind| {
            let headings = ["Field", "Form", "Default", "Meaning"];
            (format!("spec of {kind}"), table(kind, "spec", &headings))
        })
        .to_vec()
}

/// What programs write.
pub(crate) fn of_reference() -> Vec<Block> {
    ["IPAddressPool", "L2Advertisement", "ServiceL2Status"]
        .map(|kind| {
            let headings = ["Field", "Form", "Meaning"];
            (
                format!("status of {kind}"),
                table(kind, "status", &headings),
            )
        })
        .to_vec()
}

fn table(kind: &str, part: &str, headings: &[&str]) -> String {
    let schema = definition(kind);
    let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part];
    let mut rows = Vec::new();
    collect("", schema, &mut rows);
    assert!(!rows.is_empty(), "{kind} has no {part}: is it found?");
    let mut table = Table::new(headings);
    for row in rows {
        let meaning = row.schema["description"].as_str().unwrap_or_default();
        let name = &row.name;
        assert!(
            !meaning.is_empty(),
            "{kind}: {part}.{name} has no description"
        );
        let mut cells = vec![code(name), form(row.schema)];
        if headings.contains(&"Default") {
            cells.push(default(&row));
        }
        cells.push(sentence(meaning));
        table.row(&cells);
    }
    table.text()
}

struct Row<'a> {
    name: String,
    schema: &'a Value,
    is_required: bool,
}

/// The fields below a schema, each object before its own.
fn collect<'a>(path: &str, schema: &'a Value, rows: &mut Vec<Row<'a>>) {
    let required = schema["required"].as_array();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{path}{name}");
        let last = name.rsplit('.').next();
        rows.push(Row {
            is_required: required.is_some_and(|all| all.iter().any(|one| one.as_str() == last)),
            name: name.clone(),
            schema,
        });
        let (below, items) = (format!("{name}."), format!("{name}[]."));
        match foreign(schema).or(foreign(&schema["items"])) {
            Some(_) => {}
            None if schema["type"] == "array" => collect(&items, &schema["items"], rows),
            None => collect(&below, schema, rows),
        }
    }
}

/// Kubernetes' own types, whose fields its documentation has.
fn foreign(schema: &Value) -> Option<&'static str> {
    let has = |field: &str| schema["properties"][field].is_object();
    match (has("matchLabels"), has("lastTransitionTime")) {
        (true, _) => Some("label selector"),
        (_, true) => Some("condition"),
        _ => None,
    }
}

/// What may be written.
fn form(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(code).collect();
        return values.join(", ");
    }
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => "`true`, `false`".to_owned(),
        "integer" => match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "number".to_owned(),
        },
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "array" => {
            let most = schema["maxItems"].as_u64();
            let most = most
                .map(|most| format!("at most {most} "))
                .unwrap_or_default();
            format!("{most}{}s", form(&schema["items"]))
        }
        other => foreign(schema).unwrap_or(other).to_owned(),
    }
}

/// What holds if it is not written.
fn default(row: &Row<'_>) -> String {
    if row.is_required {
        return "required".to_owned();
    }
    let schema = row.schema;
    let of_type = match row.name.as_str() {
        "onInUse" => json!(OnInUse::default()),
        "failback" => json!(Failback::default()),
        "partition" => json!(PartitionPolicy::default()),
        name => {
            assert!(
                schema["enum"].is_null(),
                "which value of {name} is its default?"
            );
            // An object whose parent may be missing has no default of its own.
            if schema["type"] == "boolean" {
                json!(false)
            } else {
                Value::Null
            }
        }
    };
    let default = schema.get("default").unwrap_or(&of_type);
    match default {
        Value::Null => String::new(),
        Value::String(text) => code(text),
        other => code(&other.to_string()),
    }
}

fn definition(kind: &str) -> Value {
    let path = root(&format!("deploy/crds/foghorn.dev_{}.yaml", plural(kind)));
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    let ending = if kind.ends_with('s') { "es" } else { "s" };
    format!("{kind}{ending}")
}

#[test]
fn fields_read_as_in_a_table() {
    let list = json!({"type": "array", "maxItems": 3, "items": {"type": "string"}});
    assert_eq!(form(&list), "at most 3 strings");
    assert_eq!(
        form(&json!({"type": "string", "enum": ["A", "B"]})),
        "`A`, `B`"
    );
    assert_eq!(
        form(&json!({"type": "integer", "minimum": 1.0, "maximum": 100.0})),
        "1 to 100"
    );
    let selectors = json!({"type": "array", "items": {"properties": {"matchLabels": {}}}});
    assert_eq!(form(&selectors), "label selectors");
    let schema = json!({"required": ["a"], "properties": {
        "a": {"type": "array", "items": {"properties": {"b": {"type": "boolean"}}}},
        "c": {"properties": {"a": {"type": "integer", "default": 7}}},
    }});
    let mut rows = Vec::new();
    collect("", &schema, &mut rows);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), default(row)))
        .collect();
    let expected = [
        ("a", "required"),
        ("a[].b", "`false`"),
        ("c", ""),
        ("c.a", "`7`"),
    ];
    assert_eq!(
        rows,
        expected.map(|(name, default)| (name, default.to_owned()))
    );
}
