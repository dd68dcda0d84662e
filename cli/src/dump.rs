//! Objects of Kubernetes in a text: JSON, YAML of one or many documents, lists within.

use serde_json::Value;

/// What `kubectl get .. -o json|yaml` printed, as one object after the other.
///
/// # Errors
/// If the text is neither JSON nor YAML; what is said names no file.
pub fn objects(content: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not text in UTF-8".to_owned())?;
    let documents = match serde_json::from_str::<Value>(text) {
        Ok(document) => vec![document],
        Err(_) if text.trim_start().starts_with('{') => {
            // Several JSON documents, one after the other.
            let documents = serde_json::Deserializer::from_str(text).into_iter();
            let documents: Result<Vec<Value>, _> = documents.collect();
            documents.map_err(|error| format!("it is not JSON: {error}"))?
        }
        Err(_) => serde_yaml::from_multiple_with_options::<Value>(text, options())
            .map_err(|error| format!("it is not YAML: {}", error.without_snippet()))?,
    };
    let mut objects = Vec::new();
    documents
        .into_iter()
        .for_each(|document| flatten(document, &mut objects));
    Ok(objects)
}

/// A dump of a large cluster is large.
fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 50_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
            max_documents: 1_000_000,
        },
        with_snippet: false,
    }
}

fn flatten(document: Value, objects: &mut Vec<Value>) {
    let kind = document.get("kind").and_then(Value::as_str);
    let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
    match document {
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, objects)),
        Value::Object(mut list) if is_list && list.contains_key("items") => {
            // Items of a typed list do not say what they are; the list does.
            let kind = list.get("kind").and_then(Value::as_str).unwrap_or_default();
            let kind = kind.trim_end_matches("List").to_owned();
            let version = list.get("apiVersion").cloned().unwrap_or_default();
            let items = list.remove("items").unwrap_or_default();
            for mut item in items.as_array().cloned().unwrap_or_default() {
                if let Some(fields) = item.as_object_mut()
                    && !kind.is_empty()
                {
                    fields.entry("kind").or_insert_with(|| kind.clone().into());
                    fields
                        .entry("apiVersion")
                        .or_insert_with(|| version.clone());
                }
                flatten(item, objects);
            }
        }
        Value::Object(_) => objects.push(document),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(text: &str, expected: &[&str]) {
        let found = objects(text.as_bytes()).unwrap();
        let found: Vec<String> = found
            .iter()
            .map(|object| {
                let field = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap();
                format!("{} {}", field("/kind"), field("/metadata/name"))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lists_and_documents_are_one_object_after_the_other() {
        names(
            "kind: Node\nmetadata: {name: a}\n---\nkind: Service\nmetadata: {name: b}\n",
            &["Node a", "Service b"],
        );
        names(
            r#"{"kind": "List", "apiVersion": "v1", "items": [{"kind": "Node", "metadata": {"name": "a"}}]}"#,
            &["Node a"],
        );
        names(
            r#"{"kind": "NodeList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}]} {"kind": "Pod", "metadata": {"name": "b"}}"#,
            &["Node a", "Pod b"],
        );
        names("---\n", &[]);
    }

    #[test]
    fn what_is_neither_is_said_to_be() {
        for (text, expected) in [("{\"a\": ", "it is not JSON"), ("a: [", "it is not YAML")] {
            let error = objects(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
