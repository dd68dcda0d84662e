//! Texts of others, as our messages quote them.

/// At most the first 64 characters, and what is no plain text as an escape: a message must not carry a file, end a line of a
/// log, or speak to a terminal.
pub(crate) fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(LONGEST).flat_map(escaped).collect();
    if text.chars().nth(LONGEST).is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// The name of an object, as it is; what can be no name is quoted as [`excerpt`] does, and names nothing.
pub(crate) fn name(text: &str) -> String {
    let is_plain = |letter: char| escaped(letter).eq([letter]);
    if text.len() <= LONGEST_NAME && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        excerpt(text)
    }
}

fn escaped(letter: char) -> impl Iterator<Item = char> {
    let is_quote = matches!(letter, '"' | '\'' | '\\');
    let quote = is_quote.then_some(letter);
    let other = (!is_quote).then(|| letter.escape_debug());
    quote.into_iter().chain(other.into_iter().flatten())
}

const LONGEST: usize = 64;
/// The longest name that Kubernetes gives an object.
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_and_on_one_line() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("it's \"här\" C:\\", "it's \"här\" C:\\"),
            ("a\nERROR b\r\t", "a\\nERROR b\\r\\t"),
            ("\u{1b}[31m\u{7}\u{0}", "\\u{1b}[31m\\u{7}\\0"),
            // Would be shown backwards.
            ("\u{202e}txt", "\\u{202e}txt"),
        ] {
            assert_eq!(excerpt(text), expected);
        }
        assert_eq!(excerpt(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
    }

    #[test]
    fn a_name_stays_and_what_is_none_is_quoted() {
        let long = "n".repeat(253);
        for (text, expected) in [
            ("lan", "lan"),
            (&long, &long),
            ("lan\n", "lan\\n"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(name(text), expected);
        }
        assert_eq!(name(&format!("{long}n")), format!("{}…", &long[..64]));
    }
}
