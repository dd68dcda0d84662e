//! Mistakes in files, as a compiler shows them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use config::refusal::{Place, Reason, Refusal};
use serde::Serialize;

/// Something to say about a place in a file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub path: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The kind of the object, if that could be read.
    pub kind: Option<String>,
    /// The name of the object, if that could be read.
    pub name: Option<String>,
    /// The field; empty if it is about the object as a whole.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; empty if the problem says it.
    pub remedy: String,
    /// Bytes of the file that are meant.
    #[serde(skip)]
    pub span: Range<usize>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The object is refused.
    Error,
    /// The object is in force, and perhaps not what was meant.
    Warning,
}

impl Diagnostic {
    /// A refusal in a file.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        let place = refusal.place.unwrap_or(Place {
            line: 1,
            column: 1,
            start: 0,
            end: 0,
        });
        let (path, line) = match &refusal.origin {
            config::pool::Origin::File { path, line } => (Arc::clone(path), *line),
            other => (other.to_string().into(), 1),
        };
        let (problem, remedy) = split(&refusal.reason);
        Self {
            severity: Severity::Error,
            path,
            line: refusal.place.map_or(line, |place| place.line),
            column: place.column,
            kind: refusal.kind.map(|kind| kind.to_string()),
            name: refusal.name.clone(),
            field: refusal.field.clone(),
            problem,
            remedy,
            span: place.start..place.end,
        }
    }

    /// The place and everything else on one line.
    pub fn line(&self) -> String {
        let remedy = if self.remedy.is_empty() {
            String::new()
        } else {
            format!(": {}", self.remedy)
        };
        format!(
            "{}:{}:{}: {}{remedy}",
            self.path,
            self.line,
            self.column,
            self.title()
        )
    }

    fn title(&self) -> String {
        let mut title = String::new();
        if let Some(kind) = &self.kind {
            title.push_str(kind);
            if let Some(name) = &self.name {
                title.push(' ');
                title.push_str(name);
            }
            title.push_str(": ");
        }
        if !self.field.is_empty() {
            title.push_str(&self.field);
            title.push_str(": ");
        }
        title + &self.problem
    }
}

/// What is wrong, and what to do: messages have them in this order.
pub fn split(reason: &Reason) -> (String, String) {
    let text = reason.to_string();
    // What a library says is one sentence.
    let is_whole = matches!(reason, Reason::Unreadable(_))
        || text.starts_with("invalid ")
        || text.starts_with("the document is not YAML");
    split_text(&text, is_whole)
}

/// As [`split`], for a text; a whole one is not split.
pub fn split_text(text: &str, is_whole: bool) -> (String, String) {
    match text.split_once(": ").filter(|_| !is_whole) {
        Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
        None => (text.to_owned(), String::new()),
    }
}

/// Shows diagnostics with the lines that they are about.
pub fn render(
    diagnostics: &[Diagnostic],
    sources: &BTreeMap<Arc<str>, String>,
    is_coloured: bool,
) -> String {
    let renderer = if is_coloured {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.title());
        let source = sources.get(&diagnostic.path).map_or("", String::as_str);
        let span = shown(source, &diagnostic.span);
        let snippet = Snippet::source(source).path(&*diagnostic.path);
        let annotation = AnnotationKind::Primary.span(span);
        let mut group = if source.is_empty() {
            let line = usize::try_from(diagnostic.line).unwrap_or(1);
            title.element(Origin::path(&*diagnostic.path).line(line))
        } else {
            title.element(snippet.annotation(annotation))
        };
        if !diagnostic.remedy.is_empty() {
            group = group.element(Level::HELP.message(&diagnostic.remedy));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}

/// What to underline: the first line of what is meant, within the text and between characters.
fn shown(source: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut index: usize| {
        index = index.min(source.len());
        while !source.is_char_boundary(index) {
            index -= 1;
        }
        index
    };
    let start = floor(span.start);
    let rest = source
        .get(start..floor(span.end.max(start)))
        .unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default().trim_end();
    if line.is_empty() {
        // The rest of the line, so that there is something to see.
        let rest = source.get(start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        return start..start + line.len();
    }
    start..start + line.len()
}
