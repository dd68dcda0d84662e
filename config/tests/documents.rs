//! What the handbook, the examples and the manifests say is what the programs read.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this is a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use config::file::read;
use serde_json::Value;

#[test]
fn every_object_of_the_handbook_and_the_examples_is_read() {
    let mut objects = 0;
    let mut wrong = Vec::new();
    let mut check = |place: &str, text: &str| {
        let reading = read(place, text.as_bytes());
        objects += reading.objects.len();
        let refusals = reading.refusals.iter();
        wrong.extend(refusals.map(ToString::to_string));
    };
    for path in files("docs", "md") {
        let text = fs::read_to_string(&path).unwrap();
        for (line, block) in yaml_blocks(&text) {
            // Blocks without it are values of the chart, or a part of something.
            if block.contains("apiVersion:") {
                check(&format!("{}, block of line {line}", path.display()), &block);
            }
        }
    }
    for path in files("deploy/examples", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        check(&path.display().to_string(), &text);
    }
    assert!(wrong.is_empty(), "refused:\n{}", wrong.join("\n"));
    assert!(objects > 10, "only {objects} objects: are they found?");
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let summary = fs::read_to_string(root("docs/SUMMARY.md")).unwrap();
    let mut wrong = Vec::new();
    for path in files("docs", "md") {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            wrong.push(format!("{name} is not in SUMMARY.md"));
        }
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match page {
                "" => path.clone(),
                page if page.contains("://") => continue,
                page => path.parent().unwrap().join(page),
            };
            if !target.exists() {
                wrong.push(format!("{name}: {link} leads nowhere"));
            } else if !anchor.is_empty() && !has_heading(&target, anchor) {
                wrong.push(format!("{name}: {link} names no heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_claim_about_security_names_a_test_that_exists() {
    let page = fs::read_to_string(root("docs/security.md")).unwrap();
    let mut claims = 0;
    for table in page.split("| It cannot | Test |\n|---|---|\n").skip(1) {
        for row in table.lines().take_while(|line| line.starts_with('|')) {
            let words: Vec<&str> = row.rsplit(" | ").next().unwrap().split('`').collect();
            let [_, test, " in ", file, ..] = words[..] else {
                panic!("no `test` in `file`: {row}");
            };
            let text = fs::read_to_string(root(file)).unwrap_or_else(|_| panic!("no file: {row}"));
            let attribute = text
                .split(&format!("fn {test}("))
                .next()
                .filter(|before| before.len() < text.len())
                .unwrap_or_else(|| panic!("{file} has no test {test}"));
            let last = attribute.rsplit("\n\n").next().unwrap();
            assert!(
                last.contains("test]") || last.contains("proptest!"),
                "{test} in {file} is no test"
            );
            claims += 1;
        }
    }
    assert!(claims > 20, "only {claims} claims: are they found?");
}

#[test]
fn the_manifests_ship_no_key() {
    for path in files("deploy", "yaml") {
        for document in documents(&path) {
            assert_ne!(document["kind"], "Secret", "{}", path.display());
        }
    }
}

#[test]
fn the_manifests_have_the_rights_and_the_definitions_that_are_written_elsewhere() {
    let mut manifests = BTreeMap::new();
    for path in files("deploy", "yaml") {
        for document in documents(&path) {
            manifests.insert(identity(&document), document);
        }
    }
    let written = ["deploy/rbac", "deploy/crds"]
        .into_iter()
        .flat_map(|folder| files(folder, "yaml"))
        .flat_map(|path| documents(&path));
    let mut compared = 0;
    for document in written {
        let identity = identity(&document);
        let Some(found) = manifests.get(&identity) else {
            panic!("{identity} is not in deploy/*.yaml: run tools/manifests");
        };
        for field in ["rules", "roleRef", "subjects", "spec"] {
            assert_eq!(
                found.get(field),
                document.get(field),
                "{field} of {identity}: run tools/manifests"
            );
        }
        compared += 1;
    }
    assert!(compared >= 12, "only {compared} objects: are they found?");
}

#[test]
fn the_schema_of_the_chart_has_every_value_and_a_sentence_for_each() {
    let values = fs::read_to_string(root("charts/foghorn/values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&values).unwrap();
    let schema = fs::read_to_string(root("charts/foghorn/values.schema.json")).unwrap();
    let schema: Value = serde_yaml::from_str(&schema).unwrap();
    let mut compared = 0;
    let mut wrong = Vec::new();
    compare_values("", &values, &schema, &mut compared, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 100, "only {compared} values: are they found?");
}

/// Compares the values below `path` with their schema, where that lists them.
fn compare_values(
    path: &str,
    values: &Value,
    schema: &Value,
    compared: &mut usize,
    wrong: &mut Vec<String>,
) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    if schema["additionalProperties"] != false {
        wrong.push(format!("{path}: the schema lets pass what is misspelt"));
    }
    for (name, property) in properties {
        *compared += 1;
        let place = format!("{path}.{name}");
        let is_optional = [".global", ".affinity.", ".resources.", ".updateStrategy."];
        let Some(value) = values.get(name) else {
            if !is_optional.iter().any(|part| place.contains(part)) {
                wrong.push(format!("{place} is in the schema and not in values.yaml"));
            }
            continue;
        };
        if property["description"].as_str().is_none_or(str::is_empty)
            && !place.contains("updateStrategy.")
        {
            wrong.push(format!("{place} has no description"));
        }
        compare_values(&place, value, property, compared, wrong);
    }
    for name in values
        .as_object()
        .into_iter()
        .flat_map(|values| values.keys())
    {
        if !properties.contains_key(name) {
            wrong.push(format!(
                "{path}.{name} is in values.yaml and not in the schema"
            ));
        }
    }
}

/// The blocks of YAML in a page, each with the line that it begins at.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim() {
            "```" => is_inside = false,
            "```yaml" => {
                is_inside = true;
                blocks.push((number + 2, String::new()));
            }
            _ if is_inside => {
                let (_, block) = blocks.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().replace(' ', "-") == anchor
    })
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let is_empty = |text: &str| {
        text.lines()
            .all(|line| line.trim().is_empty() || line.starts_with('#'))
    };
    format!("\n{text}")
        .split("\n---")
        .filter(|text| !is_empty(text))
        .map(|text| serde_yaml::from_str(text).unwrap())
        .collect()
}

fn identity(document: &Value) -> String {
    let kind = document["kind"].as_str().unwrap_or_default();
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    format!("{kind} {name}")
}

/// The files of a folder with this extension, in order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
