//! What a page tells its reader to type.

use crate::page::Snippet;

/// A command, as a shell would start it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// The page and the line of its block.
    pub place: String,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// What it is given to read (`<<EOF`).
    pub input: Option<String>,
}

impl Command {
    /// The commands of a block of the language `console`: lines after a prompt (`$ `, `# `, `client$ `); the others are
    /// what the commands print.
    ///
    /// # Errors
    /// With the place and the line, if that is not what a shell would read.
    pub fn of_block(block: &Snippet) -> Result<Vec<Self>, String> {
        let mut commands = Vec::new();
        let mut lines = block.text.lines();
        while let Some(line) = lines.next() {
            let Some(typed) = after_prompt(line) else {
                continue;
            };
            let mut typed = typed.to_owned();
            while let Some(begun) = typed.strip_suffix('\\') {
                let next = lines.next().unwrap_or_default();
                typed = format!("{begun}{}", next.trim_start());
            }
            let input = typed.contains("<<EOF").then(|| {
                let input = lines.by_ref().take_while(|line| line.trim() != "EOF");
                input.map(|line| format!("{line}\n")).collect::<String>()
            });
            let mut parts = Self::of_line(&block.place, &typed)?;
            if let (Some(first), Some(input)) = (parts.first_mut(), input) {
                first.input = Some(input);
            }
            commands.extend(parts);
        }
        Ok(commands)
    }

    /// The commands of one line: those of a pipe and of `&&` one by one, without their redirections.
    ///
    /// # Errors
    /// With the place and the line, if that is not what a shell would read.
    pub fn of_line(place: &str, line: &str) -> Result<Vec<Self>, String> {
        let words = shlex::split(line).ok_or_else(|| format!("{place}: no shell reads {line}"))?;
        let mut commands = Vec::new();
        for part in words.split(|word| ["|", "&&", ";"].contains(&word.as_str())) {
            let mut kept = Vec::new();
            let mut part = part.iter();
            while let Some(word) = part.next() {
                match word.as_str() {
                    ">" | ">>" | "<" => drop(part.next()),
                    "<<EOF" => {}
                    _ => kept.push(word.clone()),
                }
            }
            commands.push(Self {
                place: place.to_owned(),
                words: kept,
                input: None,
            });
        }
        Ok(commands)
    }
}

fn after_prompt(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (prompt, typed) = line.split_once(' ')?;
    let host = prompt.strip_suffix(['$', '#'])?;
    let is_host = host
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    is_host.then(|| typed.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&[&str]]) {
        let block = Snippet {
            place: "a.md:1".to_owned(),
            language: "console".to_owned(),
            text: text.to_owned(),
        };
        let found = Command::of_block(&block).expect("commands");
        let words: Vec<Vec<&str>> = found
            .iter()
            .map(|command| command.words.iter().map(String::as_str).collect())
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn commands_stand_after_a_prompt_and_end_at_their_comment() {
        check(
            "$ make demo    # all of it\n# nft list tables\nclient$ curl 'a b'\nwhat it prints\n",
            &[
                &["make", "demo"],
                &["nft", "list", "tables"],
                &["curl", "a b"],
            ],
        );
    }

    #[test]
    fn lines_go_on_and_pipes_are_taken_apart() {
        check(
            "  $ a \\\n      --b\n$ c | d - > file && e\n",
            &[&["a", "--b"], &["c"], &["d", "-"], &["e"]],
        );
    }

    #[test]
    fn what_is_read_from_the_page_is_kept() {
        let block = Snippet {
            place: "a.md:1".to_owned(),
            language: "console".to_owned(),
            text: "$ apply -f - <<EOF\nkind: Pool\nEOF\n$ b\n".to_owned(),
        };
        let found = Command::of_block(&block).expect("commands");
        assert_eq!(found[0].words, ["apply", "-f", "-"]);
        assert_eq!(found[0].input.as_deref(), Some("kind: Pool\n"));
        assert_eq!(found[1].words, ["b"]);
    }
}
