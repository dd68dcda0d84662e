//! Log lines of all programs.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{CommonArguments, LogFormat};

/// Why logging could not begin.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "--log-level \"{found}\" is not understood: write error, warn, info, debug, trace or directives"
    )]
    Level {
        found: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was begun twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Libraries that are heard only when asked for by name: what matters of theirs is said by us, once.
const QUIET: &str = "kube=off,kube_client=off,kube_runtime=off,hyper=off,hyper_util=off,rustls=off,tower=off,h2=off,netlink_proto=off,notify=off";

/// Begins logging to standard error as the arguments say, panics included.
///
/// # Errors
/// If the level cannot be understood, or logging was begun before.
pub fn initialise(arguments: &CommonArguments) -> Result<(), TelemetryError> {
    let found = &arguments.log_level;
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{found}"))
        .map_err(|source| TelemetryError::Level {
            found: found.clone(),
            source,
        })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_current_span(false))
            .try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place = place.as_deref(), reason = message, %backtrace, "Panicked");
    }));
    Ok(())
}

/// An error and its causes, each once, as one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(formatter, "{said}")?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(formatter, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        source: Option<Box<Layer>>,
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let layer = |text, source: Option<Layer>| Layer {
            text,
            source: source.map(Box::new),
        };
        let inner = layer("connection refused", None);
        let middle = layer("client error: connection refused", Some(inner));
        let outer = layer("failed to list", Some(middle));
        assert_eq!(
            Chain(&outer).to_string(),
            "failed to list: client error: connection refused"
        );
    }
}
