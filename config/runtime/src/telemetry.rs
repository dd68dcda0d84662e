//! Log lines of all programs.

use std::io::IsTerminal;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::arguments::{CommonArguments, LogFormat};

/// Why logging could not begin.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "the log level \"{found}\" is not understood: write error, warn, info, debug, trace or directives"
    )]
    Level {
        found: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// What is understood as a target alone would be logged in full, and nothing else at all: nobody means that.
    #[error(
        "the log level \"{word}\" is none: write off, error, warn, info, debug, trace or TARGET=LEVEL"
    )]
    Word { word: String },
    #[error("logging has ended")]
    Gone(#[source] reload::Error),
    #[error("logging was begun twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Libraries that are heard only when asked for by name: what matters of theirs is said by us, once.
const QUIET: &str = "kube=off,kube_client=off,kube_runtime=off,hyper=off,hyper_util=off,rustls=off,tower=off,h2=off,netlink_proto=off,notify=off";

/// How much is logged, which can change while the program runs; clones are one.
#[derive(Clone, Debug)]
pub struct LogLevel {
    filter: reload::Handle<EnvFilter, Registry>,
    text: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The level that nobody listens to yet.
    fn new(text: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Self), TelemetryError> {
        let (layer, filter) = reload::Layer::new(parse(text)?);
        let text = Arc::new(Mutex::new(text.to_owned()));
        Ok((layer, Self { filter, text }))
    }

    /// The level or the directives in force.
    pub fn current(&self) -> String {
        self.text().clone()
    }

    /// Logs as much as a level or directives say from now on.
    ///
    /// # Errors
    /// If they cannot be understood; then nothing changes.
    pub fn set(&self, text: &str) -> Result<(), TelemetryError> {
        self.filter
            .reload(parse(text)?)
            .map_err(TelemetryError::Gone)?;
        let before = std::mem::replace(&mut *self.text(), text.to_owned());
        tracing::info!(level = text, before, "Log level changed");
        Ok(())
    }

    /// Changes to `debug` at SIGUSR1, and back at the next one, until `closing`.
    ///
    /// # Errors
    /// If the signal cannot be had.
    pub async fn follow_signal(self, closing: CancellationToken) -> anyhow::Result<()> {
        let mut signals = signal(SignalKind::user_defined1())?;
        let mut before = None;
        loop {
            tokio::select! {
                Some(()) = signals.recv() => {}
                () = closing.cancelled() => return Ok(()),
            }
            let next = before.take().unwrap_or_else(|| {
                before = Some(self.current());
                "debug".to_owned()
            });
            self.set(&next)?;
        }
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let (layer, level) = Self::new("info").unwrap();
        // The handle holds as long as the layer does.
        std::mem::forget(layer);
        level
    }
}

fn parse(found: &str) -> Result<EnvFilter, TelemetryError> {
    let is_level = |word: &str| word.contains('=') || LevelFilter::from_str(word).is_ok();
    if let Some(word) = found.split(',').find(|word| !is_level(word.trim())) {
        return Err(TelemetryError::Word {
            word: word.to_owned(),
        });
    }
    EnvFilter::builder()
        .parse(format!("{QUIET},{found}"))
        .map_err(|source| TelemetryError::Level {
            found: found.to_owned(),
            source,
        })
}

/// Begins logging to standard error as the arguments say, panics included.
///
/// # Errors
/// If the level cannot be understood, or logging was begun before.
pub fn initialise(arguments: &CommonArguments) -> Result<LogLevel, TelemetryError> {
    let (filter, level) = LogLevel::new(&arguments.log_level)?;
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
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_what_people_mean_by_them() {
        for (text, expected) in [
            ("debug", Ok(())),
            ("warn,proxy=trace", Ok(())),
            ("off", Ok(())),
            (
                "verbose",
                Err(
                    "the log level \"verbose\" is none: write off, error, warn, info, debug, trace or TARGET=LEVEL",
                ),
            ),
            (
                "proxy=loud",
                Err(
                    "the log level \"proxy=loud\" is not understood: write error, warn, info, debug, trace or directives",
                ),
            ),
        ] {
            let found = parse(text).map(drop).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
