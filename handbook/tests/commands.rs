//! Whatever a page tells its reader to type is what our programs, the Makefile and the chart know.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this is a test"
)]

use std::collections::BTreeSet;
use std::fs;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use handbook::{Command, Page, Snippet, pages, root};
use serde_json::Value;

#[test]
fn every_command_is_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    for block in every(Page::blocks) {
        if block.language != "console" {
            continue;
        }
        match Command::of_block(&block) {
            Ok(commands) => {
                for command in commands {
                    count += 1;
                    wrong.extend(check(&command, Strictness::Whole).err());
                }
            }
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} commands: are they found?");
}

#[test]
fn every_command_in_a_sentence_is_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    for span in every(Page::spans) {
        let first = span.text.split_whitespace().next().unwrap_or_default();
        if first == span.text && !first.starts_with("tools/")
            || !is_ours(first)
            || span.text.contains('…')
        {
            continue;
        }
        count += 1;
        let commands = Command::of_line(&span.place, &span.text).unwrap();
        wrong.extend(
            commands
                .iter()
                .filter_map(|command| check(command, Strictness::Named).err()),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "only {count} commands: are they found?");
}

#[test]
fn every_argument_in_a_sentence_is_one_of_a_program() {
    let known = arguments();
    let (mut count, mut wrong) = (0, Vec::new());
    for span in every(Page::spans) {
        let Some(name) = span.text.strip_prefix("--") else {
            continue;
        };
        let end = name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        let name = &name[..end.unwrap_or(name.len())];
        count += 1;
        if name == "set" {
            wrong.extend(check_values(&span.place, &words(&span)).err());
        } else if !known.contains(name) && !OF_OTHERS.contains(&name) {
            wrong.push(format!(
                "{}: no program has the argument --{name}",
                span.place
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "only {count} arguments: are they found?");
}

#[test]
fn every_value_of_the_chart_in_a_sentence_is_one() {
    let schema = schema();
    let (mut count, mut wrong) = (0, Vec::new());
    for span in every(Page::spans) {
        let key = span.text.split('=').next().unwrap_or_default();
        let first = key.split('.').next().unwrap_or_default();
        let is_key = key.contains('.')
            && key
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '.');
        let is_of_chart = schema["properties"][first]["properties"].is_object();
        if is_key && is_of_chart && !key.ends_with(".rs") && !key.ends_with(".sock") {
            count += 1;
            wrong.extend(check_value(&span.place, &schema, key).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 15, "only {count} values: are they found?");
}

#[test]
fn every_block_of_yaml_is_of_a_kind_that_a_test_reads() {
    let (mut count, mut wrong) = (0, Vec::new());
    for block in every(Page::blocks) {
        if block.language != "yaml" {
            continue;
        }
        count += 1;
        if let Err(error) = check_yaml(&block) {
            wrong.push(format!("{}: {error}", block.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 8, "only {count} blocks: are they found?");
}

#[test]
fn every_link_leads_to_a_file() {
    let (mut count, mut wrong) = (0, Vec::new());
    for page in pages().unwrap() {
        let folder = root(&page.path).parent().unwrap().to_owned();
        for link in page.links() {
            let path = link.text.split('#').next().unwrap_or_default();
            if !link.text.contains("://") && !path.is_empty() {
                count += 1;
                if !folder.join(path).exists() {
                    wrong.push(format!("{}: {} leads nowhere", link.place, link.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} links: are they found?");
}

/// What a test can fail on is seen to fail.
#[test]
fn what_is_wrong_is_seen() {
    for line in [
        "make there-is-no-such-target",
        "make demo KEPT=1",
        "kubectl foghorn statuus",
        "kubectl foghorn status --wach",
        "kubectl apply -f deploy/none.yaml",
        "kubectl -n foghorn-system exec POD -- /foghorn-speaker docter",
        "helm install foghorn charts/foghorn --set prometheus.enabeld=true",
        "foghorn-proxy --dataplane=nftables --cluster-cidr=10.244.0.0/16/8",
        "frobnicate",
    ] {
        let commands = Command::of_line("here", line).unwrap();
        let wrong = commands
            .iter()
            .all(|command| check(command, Strictness::Whole).is_err());
        assert!(wrong, "{line} passed");
    }
    for text in [
        "a: b",
        "scrape_configs: [",
        "containers: [{name: foghorn-proxy, args: [--confgi=a]}]",
    ] {
        let block = Snippet {
            place: "here".to_owned(),
            language: "yaml".to_owned(),
            text: text.to_owned(),
        };
        assert!(check_yaml(&block).is_err(), "{text} passed");
    }
}

/// How much of a command must be there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Strictness {
    /// All of it: it can be typed as it stands.
    Whole,
    /// In a sentence, what everybody has to fill in may be missing.
    Named,
}

fn check(command: &Command, strictness: Strictness) -> Result<(), String> {
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
fn check_values(place: &str, words: &[String]) -> Result<(), String> {
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

fn check_value(place: &str, schema: &Value, key: &str) -> Result<(), String> {
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

fn check_yaml(block: &Snippet) -> Result<(), String> {
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

fn arguments() -> BTreeSet<String> {
    let mut commands = vec![
        controller::arguments::Arguments::command(),
        speaker::arguments::Arguments::command(),
        proxy::arguments::Arguments::command(),
        cli::arguments::Arguments::command(),
    ];
    let mut names = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    while let Some(command) = commands.pop() {
        for argument in command.get_arguments() {
            names.extend(argument.get_long().map(str::to_owned));
            names.extend(
                argument
                    .get_all_aliases()
                    .into_iter()
                    .flatten()
                    .map(str::to_owned),
            );
        }
        commands.extend(command.get_subcommands().cloned());
    }
    names
}

fn schema() -> Value {
    let text = fs::read_to_string(root("charts/foghorn/values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn every(find: impl Fn(&Page) -> Vec<Snippet>) -> Vec<Snippet> {
    pages().unwrap().iter().flat_map(find).collect()
}

fn words(span: &Snippet) -> Vec<String> {
    Command::of_line(&span.place, &span.text)
        .unwrap()
        .remove(0)
        .words
}

fn with_name<'a>(name: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(name).chain(rest.iter().copied()).collect()
}

fn is_ours(program: &str) -> bool {
    ["make", "kubectl", "helm"].contains(&program)
        || ["foghorn-", "kubectl-foghorn", "tools/"]
            .iter()
            .any(|prefix| program.starts_with(prefix))
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
/// Arguments of those, and of the bench.
const OF_OTHERS: [&str; 4] = ["contenders", "disable", "force-conflicts", "others-up-to"];
