//! Parts of documents that commands write.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Between what a part of a document stands.
pub type Marks = (&'static str, &'static str);

/// Puts a text between the marks of a document.
pub fn write_between(document: &Path, marks: Marks, new: &str) -> Result<()> {
    let text = fs::read_to_string(document)
        .with_context(|| format!("failed to read {}", document.display()))?;
    let text = replace_between(&text, marks, new)
        .with_context(|| format!("{} lacks {} or {}", document.display(), marks.0, marks.1))?;
    fs::write(document, text).with_context(|| format!("failed to write {}", document.display()))
}

/// The same in the document that `FOGHORN_DOCUMENT` names, if it names one: for tests that measure.
pub fn write_if_asked(marks: Marks, new: &str) -> Result<()> {
    match std::env::var_os("FOGHORN_DOCUMENT") {
        Some(document) => write_between(Path::new(&document), marks, new),
        None => Ok(()),
    }
}

fn replace_between(text: &str, (begin, end): Marks, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", new.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_between_the_marks_is_replaced() {
        let marks @ (begin, end) = ("<!-- begin -->", "<!-- end -->");
        let document = format!("before\n{begin}\nold\n{end}\nafter\n");
        assert_eq!(
            replace_between(&document, marks, "new\n").unwrap(),
            format!("before\n{begin}\nnew\n{end}\nafter\n")
        );
        assert_eq!(replace_between("no marks", marks, "new"), None);
    }
}
