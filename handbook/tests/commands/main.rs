//! Whatever a page tells its reader to type is what our programs, the Makefile and the chart know.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this is a test"
)]

mod check;

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use config::kube_proxy::flags;
use handbook::{Command, Page, Snippet, pages, root};

use check::{Strictness, check, check_value, check_values, check_yaml, schema};

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
        } else if !known.contains(name) && !is_of_kube_proxy(name) && !OF_OTHERS.contains(&name) {
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

/// Whether the proxy takes an argument because kube-proxy has it.
fn is_of_kube_proxy(name: &str) -> bool {
    let (_, without_effect) = flags::part([format!("--{name}").into()]);
    !without_effect.is_empty()
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

fn is_ours(program: &str) -> bool {
    ["make", "kubectl", "helm"].contains(&program)
        || ["foghorn-", "kubectl-foghorn", "tools/"]
            .iter()
            .any(|prefix| program.starts_with(prefix))
}

/// Arguments of those, and of the bench.
const OF_OTHERS: [&str; 4] = ["contenders", "disable", "force-conflicts", "others-up-to"];
