//! Tables and durations as text.

use std::fmt::Write as _;

use jiff::Timestamp;

/// A table with a line of headings; columns are as wide as their widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table that has only headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()],
        }
    }

    /// Adds a line; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let dash = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// The text, each line after `indent` spaces.
    pub fn text(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, &width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The time from `then` to `now` in at most two units, as kubectl shows it: `42s`, `3m10s`, `5d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let two = |one: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{one}{unit}"),
        rest => format!("{one}{unit}{rest}{small}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, "m", seconds % 60, "s"),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        28_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `1 pool`, `2 pools`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "ADDRESS"]);
        table.row(["web".to_owned(), String::new()]);
        table.row(["jellyfin".to_owned(), "192.0.2.1".to_owned()]);
        assert_eq!(
            table.text(2),
            "  NAME      ADDRESS\n  web       -\n  jellyfin  192.0.2.1\n"
        );
    }

    #[test]
    fn ages_read_as_those_of_kubectl() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (90_000, "25h"),
            (864_000, "10d"),
        ] {
            let then = Timestamp::UNIX_EPOCH;
            let now = Timestamp::from_second(seconds).unwrap();
            assert_eq!(age(then, now), expected);
        }
        let later = Timestamp::from_second(9).unwrap();
        assert_eq!(age(later, Timestamp::UNIX_EPOCH), "0s");
    }
}
