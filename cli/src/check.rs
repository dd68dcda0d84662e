//! `check`: what in files is refused, and what in them is perhaps not meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use config::address::AddressRange;
use config::catalogue::Catalogue;
use config::conflict::conflicts;
use config::file;
use config::pool::Origin;
use config::refusal::Kind;
use config::snapshot::{Dirty, Snapshot};
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Severity, split_text};
use crate::files::File;
use crate::table::count;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Mistakes and warnings, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// Documents that are about something else.
    pub ignored: Vec<String>,
    /// Pools that are in force.
    pub pools: usize,
    /// Advertisements that are in force.
    pub advertisements: usize,
    /// What the files hold, for snippets.
    #[serde(skip)]
    pub sources: BTreeMap<Arc<str>, String>,
    /// What the files say, as far as it can be followed.
    #[serde(skip)]
    pub snapshot: Snapshot,
}

/// Checks files together, as a program does that is started with them.
pub fn check(files: &[File]) -> Report {
    let mut report = Report::default();
    let mut catalogue = Catalogue::default();
    let mut dirty = Dirty::default();
    for file in files {
        let reading = match &file.content {
            Ok(content) => {
                let text = String::from_utf8_lossy(content).into_owned();
                report.sources.insert(Arc::clone(&file.path), text);
                file::read(&file.path, content)
            }
            Err(error) => file::unreadable(&file.path, error),
        };
        report
            .ignored
            .extend(reading.ignored.iter().map(ToString::to_string));
        for change in catalogue.read_file(&file.path, reading) {
            report.snapshot.apply(change, &mut dirty);
        }
    }
    let refusals = catalogue.refusals();
    report
        .diagnostics
        .extend(refusals.iter().map(Diagnostic::of_refusal));
    let warnings = conflict_warnings(&report)
        .into_iter()
        .chain(reference_warnings(&report));
    let warnings: Vec<_> = warnings.collect();
    report.diagnostics.extend(warnings);
    let place = |found: &Diagnostic| (Arc::clone(&found.path), found.line, found.column);
    report.diagnostics.sort_by_key(place);
    report.pools = report.snapshot.pools().len();
    report.advertisements = report.snapshot.advertisements().len();
    report
}

impl Report {
    /// How many objects or documents are refused.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let found = self.diagnostics.iter();
        found.filter(|found| found.severity == severity).count()
    }

    /// Everything on one line.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}, {}: ",
            count(self.pools, "pool", "pools"),
            count(self.advertisements, "advertisement", "advertisements")
        );
        match (self.errors(), self.warnings()) {
            (0, 0) if self.pools + self.advertisements == 0 => text.push_str("nothing to check"),
            (0, 0) => text.push_str("all good"),
            (0, warnings) => text.push_str(&count(warnings, "warning", "warnings")),
            (errors, warnings) => {
                text.push_str(&count(errors, "mistake", "mistakes"));
                if warnings > 0 {
                    let _ = write!(text, ", {}", count(warnings, "warning", "warnings"));
                }
            }
        }
        text + "\n"
    }
}

/// Addresses that two pools have.
fn conflict_warnings(report: &Report) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for (name, list) in conflicts(&report.snapshot) {
        for conflict in list {
            let text = conflict.to_string();
            // The place is said already.
            let text = text.replacen(&format!(" ({})", conflict.origin), "", 1);
            let (problem, remedy) = split_text(&text, false);
            let range = |token: &str| token.parse::<AddressRange>() == Ok(conflict.range);
            let what = (Kind::Pool, name.as_str(), "spec.addresses");
            warnings.extend(warning(
                report,
                &conflict.origin,
                what,
                range,
                (problem, remedy),
            ));
        }
    }
    warnings
}

/// Pools that an advertisement names and that are not there: perhaps they are in the cluster.
fn reference_warnings(report: &Report) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let pools: BTreeSet<&str> = report
        .snapshot
        .pools()
        .keys()
        .map(|name| name.as_str())
        .collect();
    for (name, advertisement) in report.snapshot.advertisements() {
        for missing in advertisement
            .pools
            .iter()
            .filter(|pool| !pools.contains(pool.as_str()))
        {
            let problem = format!("there is no pool {missing} in these files");
            let remedy = "correct the name, unless the pool is elsewhere".to_owned();
            let what = (Kind::Advertisement, name.as_str(), "spec.ipAddressPools");
            let is_name = |token: &str| token == missing.as_str();
            warnings.extend(warning(
                report,
                &advertisement.origin,
                what,
                is_name,
                (problem, remedy),
            ));
        }
    }
    warnings
}

fn warning(
    report: &Report,
    origin: &Origin,
    (kind, name, field): (Kind, &str, &str),
    is_meant: impl Fn(&str) -> bool,
    (problem, remedy): (String, String),
) -> Option<Diagnostic> {
    let Origin::File { path, line } = origin else {
        return None;
    };
    let source = report.sources.get(path).map_or("", String::as_str);
    let found = find(source, *line, is_meant);
    let (line, column, span) = found.unwrap_or((*line, 1, start_of(source, *line)));
    Some(Diagnostic {
        severity: Severity::Warning,
        path: Arc::clone(path),
        line,
        column,
        kind: Some(kind.to_string()),
        name: Some(name.to_owned()),
        field: field.to_owned(),
        problem,
        remedy,
        span,
    })
}

fn start_of(source: &str, line: u32) -> Range<usize> {
    let before = usize::try_from(line.saturating_sub(1)).unwrap_or_default();
    let bytes: usize = source
        .split_inclusive('\n')
        .take(before)
        .map(str::len)
        .sum();
    bytes..bytes
}

/// The first value in the document from `line` on that is meant, with its line, column and bytes.
fn find(
    source: &str,
    line: u32,
    is_meant: impl Fn(&str) -> bool,
) -> Option<(u32, u32, Range<usize>)> {
    let mut start = start_of(source, line).start;
    let text = source.get(start..)?;
    for (number, text) in (line..).zip(text.split_inclusive('\n')) {
        if number > line && text.starts_with("---") {
            return None;
        }
        let content = text.split(" #").next().unwrap_or_default();
        let mut offset = 0;
        for part in content.split_inclusive(['[', ']', ',', '{', '}']) {
            let token = part.trim_end_matches(['[', ']', ',', '{', '}']);
            let trimmed = token.trim_start().trim_start_matches("- ");
            let trimmed =
                trimmed.trim_matches(|found: char| found.is_whitespace() || "\"'".contains(found));
            if !trimmed.is_empty() && is_meant(trimmed) {
                let at = offset + token.find(trimmed)?;
                let column = text.get(..at)?.chars().count();
                let column = u32::try_from(column).ok()?.saturating_add(1);
                return Some((number, column, start + at..start + at + trimmed.len()));
            }
            offset += part.len();
        }
        start += text.len();
    }
    None
}
