//! The file with the keys of heartbeats.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config_runtime::chain::Chain;
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

/// The file, and what it had when it was last looked at.
pub struct KeyFile {
    path: PathBuf,
    held: Vec<u8>,
}

impl KeyFile {
    /// Reads the keys: one on each line that is not blank, the first one signs.
    ///
    /// # Errors
    /// If the file cannot be read or does not have one or two keys.
    pub fn open(path: PathBuf) -> Result<(Self, Keyring), KeyFileError> {
        let held = contents(&path)?;
        let keys = parse(&path, &held)?;
        Ok((Self { path, held }, keys))
    }

    /// Tells the machine new keys whenever the file changes, for ever. A file that cannot be used changes nothing.
    pub async fn follow(mut self, control: Control) {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            match self.look() {
                None => {}
                Some(Ok(keys)) => {
                    tracing::info!(path = %self.path.display(), "Heartbeat key changed");
                    if control.tell(Command::Keys(keys)).is_err() {
                        return;
                    }
                }
                Some(Err(error @ KeyFileError::Unreadable { .. })) => {
                    // A Secret is replaced by renaming: the next look finds it.
                    tracing::debug!(error = %Chain(&error), "Heartbeat key not read again");
                }
                Some(Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "Heartbeat key not changed");
                }
            }
        }
    }

    /// The keys in the file, or what is wrong with it, if it has changed.
    fn look(&mut self) -> Option<Result<Keyring, KeyFileError>> {
        let text = match contents(&self.path) {
            Ok(text) if self.held == text => return None,
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        let keys = parse(&self.path, &text);
        self.held = text;
        Some(keys)
    }
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

    #[test]
    fn a_change_is_told_once_and_what_is_no_key_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (old, new) = ("the old key of the cluster", "the new key of the cluster");
        std::fs::write(&path, old).unwrap();
        let (mut file, keys) = KeyFile::open(path.clone()).unwrap();
        let accepts = |keys: &Keyring, key: &str| {
            let sealed = parse(Path::new("/key"), key.as_bytes()).unwrap().seal(b"");
            keys.open(&sealed).is_ok()
        };
        assert!(accepts(&keys, old) && !accepts(&keys, new) && file.look().is_none());
        for (text, expected) in [
            (Some(format!("{old}\n{new}")), Ok((true, true))),
            (Some("short".to_owned()), Err("line 1")),
            (None, Err("failed to read the heartbeat key")),
            (Some(new.to_owned()), Ok((false, true))),
        ] {
            match &text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            match (file.look().unwrap(), expected) {
                (Ok(keys), Ok(expected)) => {
                    assert_eq!((accepts(&keys, old), accepts(&keys, new)), expected);
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (found, expected) => panic!("{expected:?}, not {found:?}"),
            }
            // What cannot be read is looked for again; nothing else is said twice.
            assert_eq!(file.look().is_none(), text.is_some());
        }
    }
}
