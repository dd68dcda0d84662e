//! A table of Markdown.

/// A table that is being written.
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let text = format!(
            "| {} |\n|{}\n",
            headings.join(" | "),
            "---|".repeat(headings.len())
        );
        Self { text }
    }

    /// Adds a row; a bar within a cell is none between cells.
    pub(crate) fn row(&mut self, cells: &[String]) {
        for cell in cells {
            let cell = cell.replace('|', "\\|");
            let is_empty = cell.is_empty();
            self.text.push_str(if is_empty { "|" } else { "| " });
            self.text.push_str(&cell);
            self.text.push(' ');
        }
        self.text.push_str("|\n");
    }

    /// The whole.
    pub(crate) fn text(self) -> String {
        self.text
    }
}

/// A word as code.
pub(crate) fn code(word: &str) -> String {
    format!("`{word}`")
}

/// A sentence in a cell: without its full stop.
pub(crate) fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[test]
fn cells_are_kept_apart() {
    let mut table = Table::new(&["a", "b"]);
    table.row(&[code("x|y"), String::new()]);
    assert_eq!(table.text(), "| a | b |\n|---|---|\n| `x\\|y` | |\n");
    assert_eq!(sentence("One.\nTwo."), "One. Two");
}
