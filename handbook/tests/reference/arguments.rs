//! Command-line arguments of the four programs.

use clap::{Arg, ArgAction, Args as _, Command, CommandFactory as _};
use cli::arguments::Cluster;

use crate::Block;
use crate::table::{Table, code, sentence};

/// One block for what all programs have, and one for each program; of the plugin also one for what many commands have.
pub(crate) fn blocks() -> Vec<Block> {
    let programs = [
        controller::arguments::Arguments::command(),
        speaker::arguments::Arguments::command(),
        proxy::arguments::Arguments::command(),
    ];
    let common = common(&programs);
    let mut blocks = vec![("arguments of all programs".to_owned(), table(&common, None))];
    for program in &programs {
        let name = format!("arguments of {}", program.get_name());
        blocks.push((name, table(program, Some(&common))));
    }
    let plugin = cli::arguments::Arguments::command();
    let asking = Cluster::augment_args(Command::new("commands that ask the cluster"));
    blocks.push((
        "arguments of all commands of kubectl foghorn".to_owned(),
        table(&plugin, None),
    ));
    blocks.push((
        "arguments of the commands that ask the cluster".to_owned(),
        table(&asking, None),
    ));
    blocks.push((
        "arguments of the commands of kubectl foghorn".to_owned(),
        table_of_commands(&plugin, &asking),
    ));
    blocks
}

/// What all of them have, in the words of the first.
fn common([first, others @ ..]: &[Command; 3]) -> Command {
    let has = |program: &Command, argument: &Arg| {
        let mut arguments = program.get_arguments();
        arguments.any(|other| other.get_id() == argument.get_id())
    };
    let arguments = first.get_arguments();
    let arguments = arguments.filter(|one| others.iter().all(|other| has(other, one)));
    Command::new("all programs").args(arguments)
}

/// The arguments of a program, but for those that are the same in `others`.
fn table(program: &Command, others: Option<&Command>) -> String {
    let mut table = Table::new(&["Argument", "Default", "Meaning"]);
    for argument in own(program, others) {
        table.row(&row(program, argument));
    }
    table.text()
}

fn table_of_commands(program: &Command, others: &Command) -> String {
    let mut table = Table::new(&["Command", "Argument", "Default", "Meaning"]);
    for command in program.get_subcommands() {
        for argument in own(command, Some(others)) {
            let [name, default, meaning] = row(command, argument);
            table.row(&[code(command.get_name()), name, default, meaning]);
        }
    }
    table.text()
}

fn own<'a>(program: &'a Command, others: Option<&'a Command>) -> impl Iterator<Item = &'a Arg> {
    let is_same = |one: &Arg, other: &Arg| {
        one.get_id() == other.get_id() && help(one) == help(other) && default(one) == default(other)
    };
    program.get_arguments().filter(move |argument| {
        let mut others = others.into_iter().flat_map(Command::get_arguments);
        !argument.is_hide_set() && !others.any(|other| is_same(argument, other))
    })
}

fn row(program: &Command, argument: &Arg) -> [String; 3] {
    let help = help(argument);
    let (meaning, said) = split_default(&help);
    let name = name(argument);
    assert!(
        !meaning.is_empty(),
        "{} {name} has no help",
        program.get_name()
    );
    let defaults = [
        obligation(program, argument),
        said.map(str::to_owned),
        default(argument),
        argument
            .get_env()
            .map(|name| format!("environment {}", code(&name.to_string_lossy()))),
    ];
    let defaults: Vec<String> = defaults.into_iter().flatten().collect();
    let meaning = format!("{}{}", sentence(meaning), values(argument));
    [name, defaults.join("; "), meaning]
}

/// How it is written, with its other names.
fn name(argument: &Arg) -> String {
    let value = value_name(argument);
    let Some(long) = argument.get_long() else {
        let is_several = matches!(argument.get_action(), ArgAction::Append);
        return code(&format!("{value}{}", if is_several { "…" } else { "" }));
    };
    let is_optional = argument
        .get_num_args()
        .is_some_and(|count| count.min_values() == 0);
    let form = match (takes_values(argument), is_optional) {
        (false, _) => format!("--{long}"),
        (true, true) => format!("--{long}[={value}]"),
        (true, false) => format!("--{long} {value}"),
    };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    let aliases = aliases.into_iter().map(|alias| format!("--{alias}"));
    let names: Vec<String> = std::iter::once(form)
        .chain(short)
        .chain(aliases)
        .map(|name| code(&name))
        .collect();
    names.join(", ")
}

fn value_name(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.join(" ")
}

fn takes_values(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn help(argument: &Arg) -> String {
    argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Help whose end says what happens without the argument, as clap says it of a constant: `[default: …]`.
fn split_default(help: &str) -> (&str, Option<&str>) {
    match help
        .strip_suffix(']')
        .and_then(|help| help.split_once(" [default: "))
    {
        Some((meaning, default)) => (meaning, Some(default)),
        None => (help, None),
    }
}

fn default(argument: &Arg) -> Option<String> {
    let values = argument.get_default_values();
    let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
    (takes_values(argument) && !values.is_empty()).then(|| code(&values.join(",")))
}

/// Whether it must be given, or one of a group.
fn obligation(program: &Command, argument: &Arg) -> Option<String> {
    if argument.is_required_set() {
        return Some("required".to_owned());
    }
    // Who is in a group is known to a command that is built.
    let mut built = program.clone();
    built.build();
    let group = built.get_groups().find(|group| {
        group.is_required_set() && group.get_args().any(|member| member == argument.get_id())
    })?;
    let others = group.get_args().filter(|id| *id != argument.get_id());
    let others = others.filter_map(|id| built.get_arguments().find(|other| other.get_id() == id));
    let others: Vec<String> = others.map(name).collect();
    Some(format!("this or {} is required", others.join(" or ")))
}

/// The values that it takes, if they are few; what each means, if that is said.
fn values(argument: &Arg) -> String {
    let values = argument.get_possible_values();
    if !takes_values(argument) || values.iter().any(|value| value.get_name() == "true") {
        return String::new();
    }
    let words: Vec<String> = values
        .iter()
        .map(|value| {
            let name = code(value.get_name());
            match value.get_help() {
                Some(help) => format!("{name} ({})", within_sentence(&help.to_string())),
                None => name,
            }
        })
        .collect();
    match &words[..] {
        [] => String::new(),
        words => format!(": {}", words.join(", ")),
    }
}

/// A sentence that begins within another one.
fn within_sentence(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => text.to_owned(),
    }
}

#[test]
fn arguments_read_as_in_a_table() {
    let program = |help: &'static str| {
        let value = Arg::new("a").long("a").visible_alias("b").value_name("X");
        let flag = Arg::new("f")
            .short('f')
            .long("f")
            .action(ArgAction::SetTrue);
        Command::new("program")
            .arg(value.env("A").help(help).group("one of them"))
            .arg(flag.help("Flag").group("one of them"))
            .group(clap::ArgGroup::new("one of them").required(true))
    };
    let check = |help, default: &str, meaning: &str| {
        let program = program(help);
        let argument = program.get_arguments().next().unwrap();
        let default = format!("this or `--f`, `-f` is required{default}; environment `A`");
        let expected = ["`--a X`, `--b`", &default, meaning];
        assert_eq!(row(&program, argument), expected);
    };
    check("Help [default: b]", "; b", "Help");
    check("Help [x].", "", "Help [x]");
    assert_eq!(within_sentence("JSON of it"), "JSON of it");
    assert_eq!(within_sentence("For people"), "for people");
}
