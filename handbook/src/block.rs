//! Parts of a page that a command writes, between marks that say so:
//!
//! ```text
//! <!-- make reference, metrics: begin -->
//! <!-- make reference, metrics: end -->
//! ```

/// Between what a block stands.
pub fn marks(command: &str, name: &str) -> (String, String) {
    let mark = |which| format!("<!-- {command}, {name}: {which} -->");
    (mark("begin"), mark("end"))
}

/// The page with another text in a block; none if it has no such block.
pub fn replace(page: &str, command: &str, name: &str, new: &str) -> Option<String> {
    let (begin, end) = marks(command, name);
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", new.trim_end()))
}

/// The names of the blocks that a command writes.
pub fn names<'a>(page: &'a str, command: &str) -> Vec<&'a str> {
    let parts = page.split("<!-- ");
    let mut names = Vec::new();
    for part in parts {
        let name = part.strip_prefix(command);
        let name = name.and_then(|rest| rest.strip_prefix(", "));
        names.extend(name.and_then(|rest| Some(rest.split_once(": begin -->")?.0)));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_in_a_block_is_replaced() {
        let page = "before\n<!-- make a, b: begin -->\nold\n<!-- make a, b: end -->\nafter\n";
        assert_eq!(names(page, "make a"), ["b"]);
        assert_eq!(names(page, "make c"), [""; 0]);
        let new = page.replace("old", "new");
        assert_eq!(replace(page, "make a", "b", "new\n"), Some(new));
        assert_eq!(replace(page, "make a", "c", "new"), None);
    }
}
