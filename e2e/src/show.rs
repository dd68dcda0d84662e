//! What the user of the lab sees.

use std::io::{IsTerminal, Write, stdout};
use std::process::Command;

use anyhow::Result;
use e2e::namespace::output;

/// A sentence that says what happens.
pub(crate) fn say(sentence: &str) {
    if stdout().is_terminal() {
        print(&format!("\n\x1b[1m{sentence}\x1b[0m\n"));
    } else {
        print(&format!("\n=== {sentence}\n"));
    }
}

/// Plain output.
pub(crate) fn print(text: &str) {
    // Nobody is left to tell that nobody listens.
    let _ = stdout().write_all(text.as_bytes());
    let _ = stdout().flush();
}

/// Shows a command as it would be typed, runs `command` and shows what it wrote.
pub(crate) fn run(typed: &str, command: &mut Command) -> Result<String> {
    print(&format!("$ {typed}\n"));
    let text = output(command)?;
    print(&text);
    Ok(text)
}
