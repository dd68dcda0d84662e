//! Tables of the handbook are what the code says: arguments, fields, metrics and values of the chart.
//!
//! `make reference` writes them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this is a test"
)]

mod arguments;
mod fields;
mod metrics;
mod table;
mod values;

use std::env;
use std::fs;

use handbook::{block, root};

/// A table, and the name of the block that it stands in.
type Block = (String, String);

#[test]
fn the_tables_of_the_handbook_are_what_the_code_says() {
    let is_to_be_written = env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for (path, tables) in pages() {
        let mut page = fs::read_to_string(root(path)).unwrap();
        wrong.extend(left_over(path, &page, &tables));
        for (name, table) in tables {
            match block::replace(&page, COMMAND, &name, &table) {
                Some(new) if new == page || is_to_be_written => page = new,
                Some(new) => wrong.push(difference(path, &name, &page, &new)),
                None => wrong.push(no_place(path, &name)),
            }
        }
        if is_to_be_written {
            fs::write(root(path), page).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The pages with such tables.
fn pages() -> [(&'static str, Vec<Block>); 3] {
    let mut reference = arguments::blocks();
    reference.extend(fields::of_reference());
    reference.push(metrics::block());
    [
        ("docs/reference.md", reference),
        ("docs/configure.md", fields::of_configuration()),
        ("docs/chart-values.md", values::blocks()),
    ]
}

/// Blocks of a page that no table is for.
fn left_over(path: &str, page: &str, tables: &[Block]) -> Vec<String> {
    block::names(page, COMMAND)
        .into_iter()
        .filter(|found| tables.iter().all(|(name, _)| name != found))
        .map(|found| format!("{path}: {COMMAND} writes no \"{found}\" any more: remove it"))
        .collect()
}

fn no_place(path: &str, name: &str) -> String {
    let (begin, end) = block::marks(COMMAND, name);
    format!("{path} has no place for \"{name}\": write {begin} and {end} where it belongs")
}

/// The first line that differs.
fn difference(path: &str, name: &str, page: &str, new: &str) -> String {
    let mut lines = page.lines().zip(new.lines());
    let (found, said) = lines.find(|(old, new)| old != new).unwrap_or_default();
    format!(
        "{path}: \"{name}\" is not what the code says; {COMMAND} writes it\n  the page has  {found}\n  the code says {said}"
    )
}

/// Who writes them.
const COMMAND: &str = "make reference";

/// What the test can fail on is seen to fail.
#[test]
fn what_is_wrong_is_seen() {
    let page = "<!-- make reference, a: begin -->\n| `--old` |\n<!-- make reference, a: end -->\n";
    let new = block::replace(page, COMMAND, "a", "| `--new` |\n").unwrap();
    assert_eq!(
        difference("a.md", "a", page, &new),
        "a.md: \"a\" is not what the code says; make reference writes it\n  the page has  | `--old` |\n  the code says | `--new` |"
    );
    assert_eq!(block::replace(page, COMMAND, "b", "x"), None);
    assert_eq!(
        left_over("a.md", page, &[]),
        ["a.md: make reference writes no \"a\" any more: remove it"]
    );
}
