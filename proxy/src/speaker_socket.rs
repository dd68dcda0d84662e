//! The socket on the node over which the local speaker and the proxy tell each other what only they know.
//!
//! The speaker writes a line of JSON whenever it changes its mind, `{"version":1,"silent":["node-2"]}`, and the proxy leaves
//! out endpoints on those nodes while others remain. The proxy writes a line at once and whenever its health changes,
//! `{"version":1,"healthy":true}`. When the connection ends, nobody is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use config::name::NodeName;
use config_runtime::telemetry::Chain;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What the speaker says.
#[derive(Debug, Deserialize)]
struct FromSpeaker {
    version: u32,
    silent: BTreeSet<String>,
}

/// What the proxy says.
#[derive(Debug, Serialize)]
struct ToSpeaker {
    version: u32,
    healthy: bool,
}

/// Why a line of the speaker was refused; the connection ends with it, and nobody is silent any more.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("the line is not what a speaker says")]
    NotJson(#[source] serde_json::Error),
    #[error(
        "the speaker says it in version {0}, and this proxy reads version {VERSION}: update both together"
    )]
    Version(u32),
    #[error("the line is longer than {LONGEST_LINE_BYTES} bytes")]
    TooLong,
}

/// Reads a line of the speaker: the nodes that fell silent.
///
/// # Errors
/// If the line is nothing that this version reads.
pub fn parse_line(line: &str) -> Result<BTreeSet<NodeName>, LineError> {
    let said: FromSpeaker = serde_json::from_str(line).map_err(LineError::NotJson)?;
    if said.version != VERSION {
        return Err(LineError::Version(said.version));
    }
    Ok(said.silent.into_iter().map(NodeName::new).collect())
}

/// A socket that listens at a path; the path goes with it.
#[derive(Debug)]
pub struct SpeakerSocket {
    path: PathBuf,
    inode: u64,
    listener: UnixListener,
}

impl SpeakerSocket {
    /// Listens at `path`, also where a proxy that ended without a word left its socket.
    ///
    /// # Errors
    /// If the folder cannot be made, the socket not be bound, or another proxy listens there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another proxy listens there",
            ));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let inode = fs::metadata(path)?.ino();
        Ok(Self {
            path: path.to_owned(),
            inode,
            listener,
        })
    }

    /// Serves speakers for ever: one at most in practice, two for a moment while it restarts. `silent` gets the nodes that
    /// any of them holds for silent.
    pub async fn serve(
        self,
        silent: watch::Sender<BTreeSet<NodeName>>,
        healthy: watch::Receiver<bool>,
    ) {
        let said = watch::Sender::new(BTreeMap::<u64, BTreeSet<NodeName>>::new());
        let mut connections = 0;
        let mut sum = said.subscribe();
        loop {
            tokio::select! {
                // Cancel-safe: accept and changed lose nothing.
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections += 1;
                        let voice = Voice { number: connections, said: said.clone() };
                        tokio::spawn(converse(stream, voice, healthy.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Speaker not accepted");
                        // Out of descriptors, most likely: whoever holds them needs a moment.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Ok(()) = sum.changed() => {
                    let all: BTreeSet<NodeName> = sum.borrow_and_update().values().flatten().cloned().collect();
                    silent.send_if_modified(|held| {
                        let changed = *held != all;
                        if changed {
                            tracing::info!(nodes = ?all, "Nodes fell silent or are heard again");
                            held.clone_from(&all);
                        }
                        changed
                    });
                }
            }
        }
    }
}

impl Drop for SpeakerSocket {
    fn drop(&mut self) {
        // Not the socket of a proxy that came in the meantime.
        let is_ours = fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "Socket not removed");
        }
    }
}

/// What one connection says; it falls silent itself when the connection ends.
struct Voice {
    number: u64,
    said: watch::Sender<BTreeMap<u64, BTreeSet<NodeName>>>,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.said.send_modify(|said| {
            said.remove(&self.number);
        });
    }
}

async fn converse(stream: UnixStream, voice: Voice, mut healthy: watch::Receiver<bool>) {
    let (reader, mut writer) = stream.into_split();
    let tell = async {
        loop {
            let said = ToSpeaker {
                version: VERSION,
                healthy: *healthy.borrow_and_update(),
            };
            let mut line = serde_json::to_string(&said).unwrap_or_default();
            line.push('\n');
            if writer.write_all(line.as_bytes()).await.is_err() || healthy.changed().await.is_err()
            {
                // The reader sees the end and ends the conversation.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = tell => {}
        ended = listen(reader, &voice) => if let Err(error) = ended {
            tracing::warn!(error = %Chain(&error), "Speaker not understood");
        }
    }
}

async fn listen(reader: impl tokio::io::AsyncRead + Unpin, voice: &Voice) -> Result<(), LineError> {
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut reader).take(LONGEST_LINE_BYTES);
        match bounded.read_line(&mut line).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) if !line.ends_with('\n') && bounded.limit() == 0 => {
                return Err(LineError::TooLong);
            }
            Ok(_) => {}
        }
        let silent = parse_line(&line)?;
        voice.said.send_modify(|said| {
            said.insert(voice.number, silent);
        });
    }
}

const VERSION: u32 = 1;
/// Room for the names of some thousand nodes.
const LONGEST_LINE_BYTES: u64 = 1 << 20;
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_silent_nodes_and_nothing_else() {
        let read = |line| parse_line(line).map_err(|error| error.to_string());
        let node_2 = BTreeSet::from([NodeName::from("node-2")]);
        assert_eq!(read(r#"{"version":1,"silent":["node-2"]}"#), Ok(node_2));
        assert_eq!(read(r#"{"version":1,"silent":[]}"#), Ok(BTreeSet::new()));
        for (line, expected) in [
            (
                r#"{"version":2,"silent":[]}"#,
                "the speaker says it in version 2, and this proxy reads version 1: update both together",
            ),
            ("", "the line is not what a speaker says"),
            (
                r#"{"version":1,"silent":"node-2"}"#,
                "the line is not what a speaker says",
            ),
        ] {
            assert_eq!(read(line), Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn whoever_a_speaker_calls_silent_is_heard_again_when_the_speaker_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/proxy.sock");
        let (silent, mut seen) = watch::channel(BTreeSet::new());
        let (healthy, health) = watch::channel(false);
        let socket = SpeakerSocket::bind(&path).unwrap();
        let serving = tokio::spawn(socket.serve(silent, health));

        let mut speaker = BufReader::new(UnixStream::connect(&path).await.unwrap());
        let mut line = String::new();
        speaker.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"version\":1,\"healthy\":false}\n");
        healthy.send(true).unwrap();
        line.clear();
        speaker.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"version\":1,\"healthy\":true}\n");

        speaker
            .write_all(b"{\"version\":1,\"silent\":[\"node-2\"]}\n")
            .await
            .unwrap();
        let names = seen
            .wait_for(|silent| !silent.is_empty())
            .await
            .unwrap()
            .clone();
        assert_eq!(names, BTreeSet::from([NodeName::from("node-2")]));
        drop(speaker);
        seen.wait_for(BTreeSet::is_empty).await.unwrap();

        // Rubbish ends the conversation; a second speaker is served all the same, on the same path.
        let mut rubbish = BufReader::new(UnixStream::connect(&path).await.unwrap());
        rubbish.write_all(b"\xff\xfe\n").await.unwrap();
        let mut rest = Vec::new();
        rubbish.read_to_end(&mut rest).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        let second = SpeakerSocket::bind(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
    }
}
