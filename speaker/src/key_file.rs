//! The file with the keys of heartbeats.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config_runtime::telemetry::Chain;
use speaker_announcer::heartbeat::key::KeyError;
use speaker_announcer::{Key, Keyring};

use crate::engine::{Command, Control};

/// Why there are no keys.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("failed to read the heartbeat key {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} has no key: write at least 16 random octets on one line", path.display())]
    Empty { path: PathBuf },
    #[error(
        "{} has {count} keys: write the key to sign with, and at most one more that is accepted too",
        path.display()
    )]
    TooMany { path: PathBuf, count: usize },
    #[error("{}, line {line}", path.display())]
    Key {
        path: PathBuf,
        line: usize,
        #[source]
        source: KeyError,
    },
}

/// Reads the keys: one on each line that is not blank, the first one signs.
///
/// # Errors
/// If the file cannot be read or does not have one or two keys.
pub fn read(path: &Path) -> Result<Keyring, KeyFileError> {
    let text = contents(path)?;
    parse(path, &text)
}

fn contents(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    std::fs::read(path).map_err(|source| KeyFileError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, text: &[u8]) -> Result<Keyring, KeyFileError> {
    let path = || path.to_owned();
    let lines = text.split(|&octet| octet == b'\n').map(<[u8]>::trim_ascii);
    let mut keys = Vec::new();
    for (index, line) in lines.enumerate() {
        if !line.is_empty() {
            keys.push(Key::new(line).map_err(|source| KeyFileError::Key {
                path: path(),
                line: index + 1,
                source,
            })?);
        }
    }
    let count = keys.len();
    let mut keys = keys.into_iter();
    match (keys.next(), keys.next(), keys.next()) {
        (Some(signing), also, None) => Ok(Keyring::new(signing, also)),
        (None, ..) => Err(KeyFileError::Empty { path: path() }),
        _ => Err(KeyFileError::TooMany {
            path: path(),
            count,
        }),
    }
}

/// A keyring that proves nothing, for `--insecure-heartbeats`.
///
/// # Errors
/// Never: the key is long enough.
pub fn insecure() -> Result<Keyring, KeyError> {
    Ok(Keyring::new(Key::new(b"foghorn: no secret at all")?, None))
}

/// Tells the machine new keys whenever the file changes, for ever. A file that cannot be used changes nothing.
pub async fn follow(path: PathBuf, control: Control) {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut held = contents(&path).ok();
    loop {
        ticks.tick().await;
        let now = contents(&path);
        if now.as_ref().ok() == held.as_ref() {
            continue;
        }
        let keys = now.and_then(|text| {
            let keys = parse(&path, &text);
            held = Some(text);
            keys
        });
        match keys {
            Ok(keys) => {
                tracing::info!(path = %path.display(), "Heartbeat key changed");
                if control.tell(Command::Keys(keys)).is_err() {
                    return;
                }
            }
            Err(error @ KeyFileError::Unreadable { .. }) => {
                // A Secret is replaced by renaming: the next look finds it.
                tracing::debug!(error = %Chain(&error), "Heartbeat key not read again");
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "Heartbeat key not changed");
            }
        }
    }
}

/// How often the file is compared: it is short, and a Secret reaches the node within a minute or so.
const PERIOD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_key_or_two() {
        let outcome = |text: &str| {
            let keys = parse(Path::new("/key"), text.as_bytes());
            keys.map(drop).map_err(|error| Chain(&error).to_string())
        };
        let key = "0123456789abcdef";
        for (text, expected) in [
            (format!("{key}\n"), Ok(())),
            (format!("\n{key}\n  {key}2\n\n"), Ok(())),
            (
                String::new(),
                Err("/key has no key: write at least 16 random octets on one line"),
            ),
            (
                format!("{key}\nshort\n"),
                Err("/key, line 2: the key has 5 octets: give at least 16, from a random source"),
            ),
            (
                format!("{key}\n{key}\n{key}"),
                Err(
                    "/key has 3 keys: write the key to sign with, and at most one more that is accepted too",
                ),
            ),
        ] {
            assert_eq!(outcome(&text), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn the_first_key_signs_and_both_are_accepted() {
        let (old, new) = ("the old key of the cluster", "the new key of the cluster");
        let ring = |text: String| parse(Path::new("/key"), text.as_bytes()).unwrap();
        let sealed = ring(format!("{new}\n{old}\n")).seal(b"body");
        assert!(ring(new.to_owned()).open(&sealed).is_ok());
        assert!(ring(old.to_owned()).open(&sealed).is_err());
        assert!(ring(format!("{old}\n{new}")).open(&sealed).is_ok());
    }
}
