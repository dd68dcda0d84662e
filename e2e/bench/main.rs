//! `bench`: foghorn-proxy beside the real kube-proxy, on the same API server and the same objects, one at a time.
//!
//! Run by `make bench`.

mod again;
mod arguments;
mod backend;
mod chart;
mod commit_watch;
mod connect;
mod contender;
mod controller;
mod giver;
mod latency;
mod load;
mod measure;
mod objects;
mod part;
mod record;
mod report;
mod stale;
mod starts;
mod steady;
mod surroundings;
mod usage;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use clap::Parser;

use crate::arguments::Arguments;
use crate::contender::Contender;
use crate::objects::check_size;
use crate::record::{Place, Records};
use crate::report::Report;
use crate::surroundings::Surroundings;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.part_file, arguments.givers.first()) {
        (None, None) => run(&arguments),
        (None, Some(_)) => run_givers(&arguments),
        (Some(file), None) => part::play(&arguments, file),
        (Some(file), Some(giver)) => controller::play(&arguments, *giver, file),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.from {
        return publish(&Report::load(file)?, arguments);
    }
    arguments.sizes.iter().copied().try_for_each(check_size)?;
    let contenders = arguments.contenders();
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let file = arguments.results.join(format!("{seconds}.json"));
    let mut report = Report {
        surroundings: Surroundings::default(),
        records: Records::default(),
    };
    for services in arguments.sizes.iter().copied() {
        for round in 1..=arguments.rounds {
            let takes_part =
                |contender: &Contender| contender.is_ours() || services <= arguments.others_up_to;
            for contender in in_turn(&contenders, round).filter(takes_part) {
                let place = Place {
                    contender,
                    services,
                    round,
                };
                let begin = Instant::now();
                let (surroundings, records) = part::run(arguments, place)?;
                report.surroundings = surroundings;
                report.records.append(records);
                // Nothing is lost if somebody ends the bench early.
                report.save(&file)?;
                if let Some(document) = &arguments.document {
                    report.write_into(document, arguments.mode)?;
                }
                say(&format!(
                    "{services} Services, round {round}, {}: {:.0} s",
                    contender.name(),
                    begin.elapsed().as_secs_f64()
                ));
            }
        }
    }
    say(&format!("All values: {}", file.display()));
    publish(&report, arguments)
}

fn run_givers(arguments: &Arguments) -> Result<()> {
    let tables = controller::run(arguments)?;
    say(&tables);
    match &arguments.document {
        Some(document) => e2e::document::write_between(document, report::CONTROLLER, &tables),
        None => Ok(()),
    }
}

fn publish(report: &Report, arguments: &Arguments) -> Result<()> {
    say(&report.tables());
    match &arguments.document {
        Some(document) => report.write_into(document, arguments.mode),
        None => Ok(()),
    }
}

/// Each round begins with another one.
fn in_turn(contenders: &[Contender], round: u32) -> impl Iterator<Item = Contender> {
    let skip = usize::try_from(round.saturating_sub(1)).unwrap_or(0) % contenders.len().max(1);
    contenders
        .iter()
        .copied()
        .cycle()
        .skip(skip)
        .take(contenders.len())
}

/// A line for the person who waits.
fn say(text: &str) {
    // Nobody is left to tell that nobody listens.
    let _ = writeln!(stdout(), "{text}");
}
