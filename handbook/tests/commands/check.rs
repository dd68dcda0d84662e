//! Whether a command, a value or an object is one.

use std::fs;

use clap::Parser as _;
use clap::error::ErrorKind;
use handbook::{Command, Snippet, root};
use serde_json::Value;

/// How much of a command must be there.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Strictness {
    /// All of it: it can be typed as it stands.
    Whole,
    /// In a sentence, what everybody has to fill in may be missing.
    Named,
}

pub(crate) fn check(command: &Command, strictness: Strictness) -> Result<(), String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let place = &command.place;
    let (program, rest) = words
        .split_first()
        .ok_or_else(|| format!("{place}: no command"))?;
    check_paths(place, rest)?;
    if let Some(input) = &command.input {
        check_objects(input).map_err(|error| format!("{place}: {error}"))?;
    }
    if let Some(after) = rest
        .iter()
        .position(|word| *word == "--")
        .filter(|_| *program == "kubectl")
    {
        let inner = Command {
            words: command.words[after + 2..].to_vec(),
            ..command.clone()
        };
        return check(&inner, strictness);
    }
    let outcome = match (*program, rest) {
        ("make", targets) => return check_targets(place, targets),
        ("kubectl", ["foghorn", rest @ ..]) | ("kubectl-foghorn", rest) => {
            cli::arguments::Arguments::try_parse_from(with_name("kubectl-foghorn", rest)).map(drop)
        }
        ("helm", _) => return check_values(place, &command.words),
        ("foghorn-controller" | "/foghorn-controller", rest) => {
            controller::arguments::Arguments::try_parse_from(with_name("foghorn-controller", rest))
                .map(drop)
        }
        ("foghorn-speaker" | "/foghorn-speaker", rest) => {
            speaker::arguments::Task::parse(with_name("foghorn-speaker", rest)).map(drop)
        }
        ("foghorn-proxy" | "/foghorn-proxy", rest) => {
            proxy::arguments::Arguments::try_parse_from(with_name("foghorn-proxy", rest)).map(drop)
        }
        (path, _) if path.starts_with("tools/") => {
            return root(path)
                .exists()
                .then_some(())
                .ok_or_else(|| format!("{place}: {path} is not there"));
        }
        // Of others; kubectl is asked itself in `tools`.
        (program, _) if OTHERS.contains(&program) => return Ok(()),
        _ => {
            return Err(format!(
                "{place}: who is {program}? Say so in OTHERS if it is no program of ours"
            ));
        }
    };
    outcome.or_else(|error| {
        let ends_early = rest.last().is_some_and(|last| last.starts_with("--"));
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                if strictness == Strictness::Named =>
            {
                Ok(())
            }
            ErrorKind::InvalidValue if strictness == Strictness::Named && ends_early => Ok(()),
            _ => Err(format!("{place}: {}: {error}", command.words.join(" "))),
        }
    })
}

/// Each target is one, and each variable is read.
fn check_targets(place: &str, words: &[&str]) -> Result<(), String> {
    let makefile = fs::read_to_string(root("Makefile")).unwrap();
    for word in words {
        let is_known = match word.split_once('=') {
            Some((variable, _)) => [
                format!("$({variable})"),
                format!("\n{variable} ?="),
                format!("$(or $({variable})"),
                format!("$(if $({variable})"),
            ]
            .iter()
            .any(|use_of_it| makefile.contains(use_of_it)),
            None => makefile.contains(&format!("\n{word}:")),
        };
        if !is_known {
            return Err(format!("{place}: the Makefile has no {word}"));
        }
    }
    Ok(())
}

/// What begins as a path of this repository is one.
fn check_paths(place: &str, words: &[&str]) -> Result<(), String> {
    let is_here = |word: &&&str| {
        ["deploy/", "charts/"]
            .iter()
            .any(|folder| word.starts_with(folder))
    };
    match words
        .iter()
        .filter(is_here)
        .find(|word| !root(word).exists())
    {
        Some(missing) => Err(format!("{place}: {missing} is not there")),
        None => Ok(()),
    }
}

/// Each `--set` names a value that the chart has.
pub(crate) fn check_values(place: &str, words: &[String]) -> Result<(), String> {
    let schema = schema();
    let sets = words
        .iter()
        .zip(words.iter().skip(1))
        .filter(|(set, _)| *set == "--set");
    for (_, value) in sets {
        let mut depth = 0_i32;
        let parts = value.split(|letter| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            letter == ',' && depth == 0
        });
        for part in parts {
            let (key, _) = part
                .split_once('=')
                .ok_or_else(|| format!("{place}: --set {part} says nothing"))?;
            check_value(place, &schema, key)?;
        }
    }
    Ok(())
}

pub(crate) fn check_value(place: &str, schema: &Value, key: &str) -> Result<(), String> {
    let mut below = schema;
    for name in key.split('.') {
        let name = name.split('[').next().unwrap_or_default();
        let properties = &below["properties"];
        below = match properties.get(name) {
            Some(property) => property,
            // What the chart passes on as it is has fields of its own.
            None if !properties.is_object() && is_open(below) => return Ok(()),
            None => return Err(format!("{place}: the chart has no value {key}")),
        };
    }
    Ok(())
}

/// Whether a value may have fields that the schema does not name.
fn is_open(value: &Value) -> bool {
    value["type"] == "object" || value["allOf"].is_array() || value["$ref"].is_string()
}

pub(crate) fn check_yaml(block: &Snippet) -> Result<(), String> {
    if block.text.contains("apiVersion:") {
        return check_objects(&block.text);
    }
    let value: Value = serde_yaml::from_str(&block.text).map_err(|error| error.to_string())?;
    // promtool reads these: make check-handbook.
    if value["scrape_configs"].is_array() {
        return Ok(());
    }
    let containers = value["containers"]
        .as_array()
        .ok_or("it is neither an object, nor a part of a Pod, nor of Prometheus")?;
    for container in containers {
        let name = container["name"].as_str().unwrap_or_default();
        let arguments = container["args"].as_array().into_iter().flatten();
        let words = arguments.map(|argument| argument.as_str().unwrap_or_default().to_owned());
        let command = Command {
            place: block.place.clone(),
            words: std::iter::once(name.to_owned()).chain(words).collect(),
            input: None,
        };
        check(&command, Strictness::Whole)?;
    }
    Ok(())
}

/// Pools, advertisements and Services are read as the programs read files.
fn check_objects(text: &str) -> Result<(), String> {
    let reading = config::file::read("block", text.as_bytes());
    let refusals: Vec<String> = reading.refusals.iter().map(ToString::to_string).collect();
    refusals
        .is_empty()
        .then_some(())
        .ok_or_else(|| refusals.join("\n"))
}

pub(crate) fn schema() -> Value {
    let text = fs::read_to_string(root("charts/foghorn/values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn with_name<'a>(name: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(name).chain(rest.iter().copied()).collect()
}

/// Programs of others that pages name; what is said to them is not looked at here.
const OTHERS: [&str; 23] = [
    "cargo",
    "ctr",
    "curl",
    "docker",
    "echo",
    "grep",
    "install",
    "ip",
    "iptables",
    "jq",
    "k3s",
    "kind",
    "kube-proxy",
    "kubectl",
    "microk8s",
    "nft",
    "ping",
    "sh",
    "skopeo",
    "systemctl",
    "talosctl",
    "openssl",
    "pkill",
];
