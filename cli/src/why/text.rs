//! The answer for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Announced, Held, Why};
use crate::cluster::Source;
use crate::describe::list;
use crate::table::age;

impl Why {
    /// The whole as text.
    pub fn text(&self, now: Timestamp) -> String {
        let mut text = format!("{}.\n", self.answer);
        section(&mut text, "What it asks for", self.asks.iter().cloned());
        let lacks = self.lacks.iter().cloned();
        let remedy = Some(&self.remedy).filter(|remedy| !remedy.is_empty());
        section(
            &mut text,
            "What it lacks",
            lacks.chain(remedy.map(|remedy| format!("to do: {remedy}"))),
        );
        section(
            &mut text,
            "What it has",
            self.has.iter().map(|held| held_sentence(held, now)),
        );
        let pools = self.pools.iter().map(|found| {
            let mark = if found.gives { "+" } else { "-" };
            format!("{mark} {} ({}): {}", found.pool, found.family, found.reason)
        });
        section(&mut text, "What each pool says", pools);
        let announced = self
            .announced
            .iter()
            .flat_map(|found| announced_sentences(found, now));
        section(
            &mut text,
            "Who announces it",
            announced.chain(self.notes.iter().cloned()),
        );
        let endpoints = self.endpoints.iter().map(|found| {
            let node = if found.node.is_empty() {
                "no node"
            } else {
                &found.node
            };
            match found.unready {
                0 => format!("{node}: {} ready", found.ready),
                unready => format!("{node}: {} ready, {unready} not ready", found.ready),
            }
        });
        section(&mut text, "Endpoints", endpoints);
        let events = self.events.iter();
        let events = events.map(|event| {
            format!(
                "{} ago  {}: {}",
                age(event.last, now),
                event.reason,
                event.message
            )
        });
        section(&mut text, "What happened lately", events);
        section(&mut text, "Not known", self.gaps.iter().cloned());
        text
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    for (index, line) in lines.enumerate() {
        if index == 0 {
            let _ = write!(text, "\n{title}\n");
        }
        let _ = writeln!(text, "  {line}");
    }
}

fn held_sentence(held: &Held, now: Timestamp) -> String {
    let mut sentence = held.address.to_string();
    match &held.pool {
        Some(pool) => {
            let _ = write!(sentence, " of pool {pool}");
        }
        None => sentence.push_str(", which is in no pool"),
    }
    if let Some(since) = held.since {
        let _ = write!(sentence, ", for {}", age(since, now));
    } else if !held.is_written {
        sentence.push_str(", not written to the status yet");
    }
    if !held.shared_with.is_empty() {
        let _ = write!(sentence, ", shared with {}", list(&held.shared_with));
    }
    if let Some(although) = &held.although {
        let _ = write!(sentence, "; it stays although {although}");
    }
    sentence
}

fn announced_sentences(found: &Announced, now: Timestamp) -> Vec<String> {
    let address = found.address;
    let since = found.since.map(|since| age(since, now));
    let inside = [found.interfaces.clone(), since.clone().unwrap_or_default()];
    let inside: Vec<String> = inside.into_iter().filter(|part| !part.is_empty()).collect();
    let inside = if inside.is_empty() {
        String::new()
    } else {
        format!(" ({})", inside.join(", for "))
    };
    let mut sentences = vec![match (&found.node, found.source) {
        (Some(node), Some(Source::Speaker | Source::Record)) => {
            format!("{address}: {node}{inside}")
        }
        (Some(node), _) => format!(
            "{address}: {node} ({}), as the last Event about it says, {} ago",
            found.interfaces,
            since.unwrap_or_default()
        ),
        (None, _) => format!("{address}: nobody says that it does (Events last for an hour)"),
    }];
    sentences.extend(found.candidates.iter().map(|candidate| {
        format!(
            "  {}: {}, {}",
            candidate.node, candidate.standing, candidate.reason
        )
    }));
    sentences
}
