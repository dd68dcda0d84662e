//! What docs/migrate-from-metallb.md says of the values of MetalLB's chart is what ours does with them.

use std::collections::BTreeMap;
use std::fs;

use handbook::root;
use serde_json::{Value, json};

use crate::{render, render_with};

#[test]
fn every_value_of_metallb_is_in_the_tables_and_no_other() {
    let rows = rows(&page());
    let values = leaves();
    let unmentioned: Vec<_> = values
        .keys()
        .filter(|path| row_of(&rows, path).is_none())
        .collect();
    assert!(
        unmentioned.is_empty(),
        "docs/migrate-from-metallb.md does not say what becomes of {unmentioned:#?}"
    );
    let is_one = |row: &str| {
        let below = format!("{row}.");
        OF_OTHER_VERSIONS.contains(&row)
            || values
                .keys()
                .any(|path| path == row || path.starts_with(&below))
    };
    let invented: Vec<_> = rows.keys().filter(|row| !is_one(row)).collect();
    assert!(
        invented.is_empty(),
        "docs/migrate-from-metallb.md has values that MetalLB has not: {invented:#?}"
    );
}

#[test]
#[ignore = "needs Helm: make check-handbook"]
fn what_is_called_the_same_is_taken() {
    let taken = sorted(true);
    assert!(taken.len() > 40, "only {taken:?}: are they found?");
    let refused = render_with("taken", &merged(taken)).err();
    let refused = refused.unwrap_or_default();
    assert!(refused.is_empty(), "{refused}");
}

/// Each value that somebody may have set with MetalLB changes what our chart makes.
#[test]
#[ignore = "needs Helm: make check-handbook"]
fn what_is_called_the_same_has_an_effect() {
    let set = set_by_somebody();
    let mut renderings = BTreeMap::new();
    for (path, _) in sorted(true) {
        let value = set.pointer(&pointer(&path));
        let value = value.unwrap_or_else(|| panic!("no example of {path}"));
        let without = beside(&path);
        let with = merged(
            collect(&without)
                .into_iter()
                .chain([(path.clone(), value.clone())]),
        );
        let with = render_with("with", &with).unwrap_or_else(|error| panic!("{path}: {error}"));
        let without = renderings
            .entry(without.to_string())
            .or_insert_with(|| render_with("without", &without).unwrap());
        assert!(with != *without, "{path} has no effect");
    }
}

/// What else is set, so that a value can have an effect and nothing is left to chance.
fn beside(path: &str) -> Value {
    let mut values = json!({"prometheus": {"enabled": true}});
    if path != "speaker.secretName" {
        values["speaker"] = json!({"secretName": "foghorn-heartbeat"});
    }
    for part in ["podMonitor", "serviceMonitor", "prometheusRule"] {
        let is_of_it = path.starts_with(&format!("prometheus.{part}."));
        if is_of_it && !path.ends_with(".enabled") {
            values["prometheus"][part] = json!({"enabled": true});
        }
    }
    values
}

#[test]
#[ignore = "needs Helm: make check-handbook"]
fn what_is_not_called_the_same_is_refused_by_name() {
    let refused = sorted(false);
    assert!(refused.len() > 80, "only {refused:?}: are they found?");
    let said = render_with("refused", &merged(refused.clone()));
    let said = said.expect_err("all of them are taken");
    for (path, _) in &refused {
        assert!(
            is_named(path, &said),
            "{path} is not refused by name:\n{said}"
        );
    }
    assert!(!is_named("controller.logLevel", &said), "{said}");
    let level = render(&["--set", "controller.logLevel=all"]).expect_err("logLevel=all is taken");
    assert!(
        level.contains("/controller/logLevel") && level.contains("'trace'"),
        "{level}"
    );
}

/// Whether a complaint says which part of a path the chart does not know:
/// `at '/controller': additional properties 'image', 'strategy' not allowed`.
fn is_named(path: &str, said: &str) -> bool {
    let mut above = String::new();
    path.split('.').any(|name| {
        let place = format!("at '{above}': additional properties ");
        above = format!("{above}/{name}");
        said.lines()
            .filter_map(|line| line.split_once(&place))
            .any(|(_, names)| names.contains(&format!("'{name}'")))
    })
}

/// The values that the tables call the same, or the others.
fn sorted(are_the_same: bool) -> Vec<(String, Value)> {
    let rows = rows(&page());
    let values = leaves().into_iter();
    values
        .filter(|(path, _)| row_of(&rows, path) == Some(are_the_same))
        .collect()
}

/// What the row that is the closest to a value says of it: whether it is the same here.
fn row_of(rows: &BTreeMap<String, bool>, path: &str) -> Option<bool> {
    let above = std::iter::successors(Some(path), |path| Some(path.rsplit_once('.')?.0));
    let mut said = above.map(|path| rows.get(path));
    said.find_map(|same| same.copied())
}

/// The values that the tables name, and whether each is the same here.
///
/// ``| `podMonitor`: `enabled`, `interval` | the same | |`` is about two values of `podMonitor`;
/// ``| `serviceMonitor`: `annotations` under `speaker` and `controller` | …`` about what stands below these.
fn rows(page: &str) -> BTreeMap<String, bool> {
    let mut rows = BTreeMap::new();
    for table in page
        .split("\n\n")
        .filter(|part| part.starts_with("| At the top") || part.starts_with("| In `"))
    {
        let part = table
            .split('`')
            .nth(1)
            .filter(|_| table.starts_with("| In "));
        for row in table.lines().skip(2) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for name in named(cells[1]) {
                let path = part.map_or(name.clone(), |part| format!("{part}.{name}"));
                rows.insert(path, cells[2] == "the same");
            }
        }
    }
    // They are the same as far as their own tables say so.
    rows.retain(|path, _| !TABLES.contains(&path.as_str()));
    rows
}

/// The values that a cell names.
fn named(cell: &str) -> Vec<String> {
    let words = |text: &str| -> Vec<String> {
        let odd = text.split('`').skip(1).step_by(2);
        odd.map(str::to_owned).collect()
    };
    let (above, rest) = cell.split_once(": ").unwrap_or(("", cell));
    let (names, below) = rest.split_once(" under ").unwrap_or((rest, ""));
    let mut paths = vec![String::new()];
    for part in [words(above), words(below)] {
        if !part.is_empty() {
            let part: Vec<_> = part.iter().map(|name| format!("{name}.")).collect();
            paths = product(&paths, &part);
        }
    }
    product(&paths, &words(names))
}

fn product(first: &[String], second: &[String]) -> Vec<String> {
    let pairs = first
        .iter()
        .flat_map(|one| second.iter().map(move |other| format!("{one}{other}")));
    pairs.collect()
}

/// MetalLB's values, by path.
fn leaves() -> BTreeMap<String, Value> {
    let text = fs::read_to_string(root("handbook/tests/data/metallb-0.15.3.yaml")).unwrap();
    collect(&serde_yaml::from_str(&text).unwrap())
}

fn collect(values: &Value) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (name, value) in values.as_object().unwrap() {
        match value.as_object() {
            Some(below) if !below.is_empty() => {
                let below = collect(value).into_iter();
                leaves.extend(below.map(|(path, value)| (format!("{name}.{path}"), value)));
            }
            _ => drop(leaves.insert(name.clone(), value.clone())),
        }
    }
    leaves
}

fn merged(values: impl IntoIterator<Item = (String, Value)>) -> Value {
    let mut whole = json!({});
    for (path, value) in values {
        let mut below = &mut whole;
        for name in path.split('.') {
            below = &mut below[name];
        }
        *below = value;
    }
    whole
}

fn pointer(path: &str) -> String {
    path.split('.')
        .filter(|name| !name.is_empty())
        .map(|name| format!("/{name}"))
        .collect()
}

fn page() -> String {
    fs::read_to_string(root("docs/migrate-from-metallb.md")).unwrap()
}

/// Values of which a table of their own tells.
const TABLES: [&str; 3] = ["controller", "speaker", "prometheus"];

/// Values that the tables name and version 0.15.3 has not: those of other versions.
const OF_OTHER_VERSIONS: [&str; 9] = [
    "configInline",
    "frr-k8s",
    "psp.create",
    "speaker.bgpDebounceTimeout",
    "tls.cipherSuites",
    "tls.controllerMetricsTLSSecret",
    "tls.curvePreferences",
    "tls.minVersion",
    "tls.speakerMetricsTLSSecret",
];

/// Values as somebody may have set them with MetalLB, each other than the default.
fn set_by_somebody() -> Value {
    let program = |extra: Value| {
        let mut values = json!({
            "logLevel": "debug",
            "serviceAccount": {"create": false, "name": "account", "annotations": {"a": "b"}},
            "resources": {"limits": {"memory": "77Mi"}},
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"a": []}},
            "priorityClassName": "important",
            "podAnnotations": {"of": "pods"},
            "labels": {"team": "lan"},
        });
        values
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        values
    };
    let monitor = json!({
        "enabled": true, "interval": "17s",
        "relabelings": [{"action": "keep"}], "metricRelabelings": [{"action": "drop"}],
    });
    let mut pod_monitor = monitor.clone();
    pod_monitor["additionalLabels"] = json!({"release": "mine"});
    pod_monitor["annotations"] = json!({"seen": "yes"});
    json!({
        "imagePullSecrets": [{"name": "pull"}],
        "nameOverride": "horn",
        "fullnameOverride": "fog",
        "loadBalancerClass": "example.com/class",
        "rbac": {"create": false},
        "controller": program(json!({})),
        "speaker": program(json!({
            "enabled": false, "tolerateMaster": false, "ignoreExcludeLB": true, "secretName": "mine",
            "updateStrategy": {"type": "OnDelete"},
        })),
        "prometheus": {
            "scrapeAnnotations": true,
            "controllerMetricsTLSSecret": "of-controller", "speakerMetricsTLSSecret": "of-speaker",
            "podMonitor": pod_monitor, "serviceMonitor": monitor,
            "prometheusRule": {"enabled": true, "additionalLabels": {"rules": "mine"}, "annotations": {"of": "rules"}},
        },
    })
}

#[test]
fn rows_are_read_as_they_are_meant() {
    let page = "x\n\n| At the top in MetalLB's chart | Here | |\n|---|---|---|\n| `a`, `b.c` | the same | |\n| `d` | `e` | f |\n\n\
        | In `p` | Here | |\n|---|---|---|\n| `m` and `n`: `a` under `s` and `t` | the same | |\n| `u`, `v` | | gone |\n\ny";
    let expected = [
        ("a", true),
        ("b.c", true),
        ("d", false),
        ("p.m.s.a", true),
        ("p.m.t.a", true),
        ("p.n.s.a", true),
        ("p.n.t.a", true),
        ("p.u", false),
        ("p.v", false),
    ];
    let rows = rows(page);
    assert_eq!(
        rows,
        expected.map(|(path, same)| (path.to_owned(), same)).into()
    );
    assert_eq!(row_of(&rows, "b.c.d"), Some(true));
    assert_eq!(row_of(&rows, "d.e"), Some(false));
    assert_eq!(row_of(&rows, "b.d"), None);
}

#[test]
fn a_refusal_names_what_is_not_known() {
    let said = "- at '/controller': additional properties 'image', 'strategy' not allowed\n- at '': additional properties 'crds' not allowed";
    for (path, expected) in [
        ("controller.image.tag", true),
        ("crds.enabled", true),
        ("controller.logLevel", false),
        ("image", false),
    ] {
        assert_eq!(is_named(path, said), expected, "{path}");
    }
}
