//! `status --watch`: one screen after the other, until it is ended.

/// What is printed next: the answer, or why there is none, since whoever watches waits for better times, too. On a terminal it
/// takes the place of what was there; elsewhere it follows.
pub fn screen(answer: anyhow::Result<String>, is_terminal: bool) -> String {
    let clear = if is_terminal { CLEAR_SCREEN } else { "" };
    match answer {
        Ok(text) => format!("{clear}{text}"),
        Err(error) => format!("{clear}error: {error:#}\n"),
    }
}

/// Goes to the first line of a terminal, and clears it with what scrolled out of it.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J\x1b[3J";

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_answer_takes_the_place_of_the_last_one_on_a_terminal_alone() {
        let answer = || Ok("all is well\n".to_owned());
        assert_eq!(screen(answer(), false), "all is well\n");
        assert_eq!(screen(answer(), true), "\x1b[H\x1b[2J\x1b[3Jall is well\n");
    }

    #[test]
    fn what_cannot_be_asked_is_shown_in_its_place_with_its_cause() {
        let answer = Err(anyhow!("connection refused").context("failed to list services"));
        assert_eq!(
            screen(answer, false),
            "error: failed to list services: connection refused\n"
        );
    }
}
