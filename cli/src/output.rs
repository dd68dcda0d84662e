//! Output for people and for programs.

use std::io::Write as _;

use serde::Serialize;

/// How to print an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Table,
    /// JSON, whose fields are documented
    Json,
    /// The same as YAML
    Yaml,
}

/// The text of an answer.
///
/// # Errors
/// If it cannot be serialized.
pub fn render<View: Serialize>(
    format: Format,
    view: &View,
    text: impl FnOnce(&View) -> String,
) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => text(view),
        Format::Json => serde_json::to_string_pretty(view)? + "\n",
        // Through JSON: what is written as YAML is what programs read as JSON.
        Format::Yaml => serde_yaml::to_string(&serde_json::to_value(view)?)?,
    })
}

/// Writes to standard output; whoever closes it early has read enough.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to standard error, where nobody has to read it.
pub fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
