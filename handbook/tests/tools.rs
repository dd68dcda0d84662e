//! What a page tells its reader to say to kubectl, Helm and Prometheus is understood by the real ones.
//!
//! Run by `make check-handbook`, which builds them. No cluster is asked.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process;

use handbook::{Command, Page, Snippet, pages, root};
use support::{said, tool};

#[test]
#[ignore = "needs the lab's kubectl: make check-handbook"]
fn kubectl_knows_every_verb_and_argument() {
    let commands = commands_of("kubectl");
    let (mut count, mut wrong) = (0, Vec::new());
    for command in &commands {
        // The plugin is asked in `commands`; krew is a plugin of others.
        let Some(verb) = verb(command).filter(|verb| !["foghorn", "krew"].contains(verb)) else {
            continue;
        };
        count += 1;
        if let Err(error) = help_of_kubectl(command, verb) {
            wrong.push(format!(
                "{}: {}: {error}",
                command.place,
                command.words.join(" ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 25, "only {count} commands: are they found?");
    let no_verb = Command::of_line("here", "kubectl rollback x")
        .unwrap()
        .remove(0);
    assert!(help_of_kubectl(&no_verb, "rollback").is_err());
    let no_argument = Command::of_line("here", "kubectl get x --selektor=a")
        .unwrap()
        .remove(0);
    assert!(help_of_kubectl(&no_argument, "get").is_err());
}

#[test]
#[ignore = "needs Helm: make check-handbook"]
fn the_chart_renders_with_every_value_of_the_handbook() {
    let mut rendered = 0;
    for command in commands_of("helm") {
        // A verb alone, in a sentence, names no chart.
        if !command.words.iter().any(|word| word == "charts/foghorn") {
            continue;
        }
        // Without a cluster there is nothing that was installed before.
        let arguments = command
            .words
            .iter()
            .skip(2)
            .filter(|word| !word.ends_with("reuse-values"))
            // A file of the reader: any will do.
            .map(|word| word.replace("=metallb.yaml", "=deploy/examples/metallb.yaml"));
        let mut helm = process::Command::new(tool("helm"));
        helm.arg("template").args(arguments).current_dir(root(""));
        let output = said(&mut helm);
        assert!(output.is_ok(), "{}: {:?}", command.place, output);
        rendered += 1;
    }
    assert!(rendered > 3, "only {rendered} commands: are they found?");
}

#[test]
#[ignore = "needs promtool: make check-handbook"]
fn prometheus_reads_what_it_is_to_scrape() {
    let blocks = pages()
        .unwrap()
        .iter()
        .flat_map(Page::blocks)
        .collect::<Vec<_>>();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut count = 0;
    for block in blocks
        .iter()
        .filter(|block| block.text.contains("scrape_configs:"))
    {
        assert_eq!(promtool(&folder, block), Ok(()), "{}", block.place);
        let misspelt = Snippet {
            text: block.text.replace("role: pod", "role: pots"),
            ..block.clone()
        };
        assert!(promtool(&folder, &misspelt).is_err(), "{}", block.place);
        count += 1;
    }
    assert!(count > 0, "no scrape_configs: are they found?");
}

/// Real kubectl reads the arguments before it shows how a verb is used; nobody is asked.
fn help_of_kubectl(command: &Command, verb: &str) -> Result<(), String> {
    let words = command.words.iter().skip(1);
    let before_others = words.take_while(|word| *word != "--");
    let mut kubectl = process::Command::new(tool("kubernetes"));
    kubectl.arg("kubectl").args(before_others).arg("--help");
    let help = said(&mut kubectl)?;
    help.contains(&format!("kubectl {verb}"))
        .then_some(())
        .ok_or_else(|| format!("kubectl has no verb {verb}"))
}

fn promtool(folder: &std::path::Path, block: &Snippet) -> Result<(), String> {
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, &block.text).unwrap();
    let mut promtool = process::Command::new(tool("promtool"));
    said(
        promtool
            .args(["check", "config", "--syntax-only"])
            .arg(file),
    )
    .map(drop)
}

/// The verb: the first word that is neither an option nor its value.
fn verb(command: &Command) -> Option<&str> {
    let mut words = command.words.iter().skip(1).map(String::as_str);
    loop {
        match words.next()? {
            "-n" | "--namespace" => drop(words.next()),
            word => return Some(word),
        }
    }
}

/// All commands of a program, those within sentences included.
fn commands_of(program: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for page in pages().unwrap() {
        let blocks = page.blocks();
        for block in blocks.iter().filter(|block| block.language == "console") {
            commands.extend(Command::of_block(block).unwrap());
        }
        for span in page.spans() {
            if span.text.contains(' ') && !span.text.contains('…') && span.text.starts_with(program)
            {
                commands.extend(Command::of_line(&span.place, &span.text).unwrap());
            }
        }
    }
    let mut seen = BTreeSet::new();
    commands.retain(|command| {
        command.words.first().is_some_and(|word| word == program)
            && seen.insert(command.words.clone())
    });
    commands
}
