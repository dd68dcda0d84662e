//! The socket on the node over which the local speaker and the proxy tell each other what only they know.
//!
//! The speaker writes a line of JSON whenever it changes its mind,
//! `{"version":1,"silent":["node-2"],"moved":{"192.0.2.240":"node-3"},"watched":["192.0.2.241"]}`. The proxy leaves out
//! endpoints on the silent nodes while others remain, and sends segments of connections to the VIPs that it does not know on
//! to the nodes that own them, or owned them before this one; it finds out whether connections go through those that are
//! watched. When the connection ends, nobody is silent, nothing has moved, and nothing is watched.
//!
//! The proxy writes a line once it knows its condition and whenever that changes,
//! `{"version":1,"healthy":true,"programmed":["192.0.2.240","192.0.2.241"],"idle":["192.0.2.241"]}`: whether the node should
//! get traffic, which VIPs of load balancers the kernel forwards, and which of those that are watched carry no connection.
//! Later lines have `added` and `removed` VIPs in place of all that are programmed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use config::name::NodeName;
use config_runtime::chain::Chain;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::programmed::{News, Programmed};

/// What the speaker says.
#[derive(Debug, Deserialize)]
struct FromSpeaker {
    version: u32,
    silent: BTreeSet<String>,
    /// An older speaker does not say it.
    #[serde(default)]
    moved: BTreeMap<IpAddr, String>,
    #[serde(default)]
    watched: BTreeSet<IpAddr>,
}

/// What the speaker has said last.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// The nodes that are silent.
    pub silent: BTreeSet<NodeName>,
    /// For each VIP the node that owns it, or owned it before this one.
    pub moved: BTreeMap<IpAddr, NodeName>,
    /// VIPs that would go to another node if no connection went through them.
    pub watched: BTreeSet<IpAddr>,
}

/// What the proxy tells, as it changes.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Whether the node should get traffic; nothing is told before that is known.
    pub healthy: watch::Receiver<Option<bool>>,
    /// Which VIPs the kernel forwards; not told before that is known.
    pub programmed: watch::Receiver<Option<Programmed>>,
    /// Which of the watched VIPs carry no connection.
    pub idle: watch::Receiver<BTreeSet<IpAddr>>,
}

/// A line that the proxy writes.
#[derive(Debug, Serialize)]
struct ToSpeaker {
    version: u32,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    programmed: Option<BTreeSet<IpAddr>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    added: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<IpAddr>,
    idle: BTreeSet<IpAddr>,
}

impl Condition {
    /// The line that says what is new since the last one, and what was told by then; none while nothing is known.
    fn line(&mut self, told: &mut Option<u64>) -> Option<String> {
        let healthy = (*self.healthy.borrow_and_update())?;
        let mut said = ToSpeaker {
            version: VERSION,
            healthy,
            programmed: None,
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
            idle: self.idle.borrow_and_update().clone(),
        };
        if let Some(programmed) = &*self.programmed.borrow_and_update() {
            let (news, position) = programmed.since(*told);
            *told = Some(position);
            match news {
                News::Whole(all) => said.programmed = Some(all),
                News::Changed { added, removed } => (said.added, said.removed) = (added, removed),
            }
        }
        let mut line = serde_json::to_string(&said).unwrap_or_default();
        line.push('\n');
        Some(line)
    }

    /// Waits until something is different; whether it can be at all.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            // All are cancel-safe.
            Ok(()) = self.healthy.changed() => true,
            Ok(()) = self.programmed.changed() => true,
            Ok(()) = self.idle.changed() => true,
            else => false,
        }
    }
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

/// Reads a line of the speaker.
///
/// # Errors
/// If the line is nothing that this version reads.
pub fn parse_line(line: &str) -> Result<Said, LineError> {
    let said: FromSpeaker = serde_json::from_str(line).map_err(LineError::NotJson)?;
    if said.version != VERSION {
        return Err(LineError::Version(said.version));
    }
    let moved = said.moved.into_iter();
    Ok(Said {
        silent: said.silent.into_iter().map(NodeName::new).collect(),
        moved: moved
            .map(|(vip, node)| (vip, NodeName::new(node)))
            .collect(),
        watched: said.watched,
    })
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

    /// Serves speakers for ever: one at most in practice, two for a moment while it restarts. `told` gets what
    /// they say together.
    pub async fn serve(self, told: watch::Sender<Said>, condition: Condition) {
        let said = watch::Sender::new(BTreeMap::<u64, Said>::new());
        let mut connections = 0;
        let mut sum = said.subscribe();
        loop {
            tokio::select! {
                // Cancel-safe: accept and changed lose nothing.
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections += 1;
                        let voice = Voice { number: connections, said: said.clone() };
                        tokio::spawn(converse(stream, voice, condition.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Speaker not accepted");
                        // Out of descriptors, most likely: whoever holds them needs a moment.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Ok(()) = sum.changed() => {
                    let all = together(sum.borrow_and_update().values());
                    told.send_if_modified(|held| {
                        if held.silent != all.silent {
                            tracing::info!(nodes = ?all.silent, "Nodes fell silent or are heard again");
                        }
                        let changed = *held != all;
                        *held = all;
                        changed
                    });
                }
            }
        }
    }
}

fn together<'a>(voices: impl Iterator<Item = &'a Said>) -> Said {
    voices.fold(Said::default(), |mut all, said| {
        all.silent.extend(said.silent.iter().cloned());
        let moved = said.moved.iter();
        all.moved
            .extend(moved.map(|(vip, node)| (*vip, node.clone())));
        all.watched.extend(&said.watched);
        all
    })
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
    said: watch::Sender<BTreeMap<u64, Said>>,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.said.send_modify(|said| {
            said.remove(&self.number);
        });
    }
}

async fn converse(stream: UnixStream, voice: Voice, mut condition: Condition) {
    let (reader, mut writer) = stream.into_split();
    let tell = async {
        let mut told = None;
        loop {
            if let Some(line) = condition.line(&mut told)
                && writer.write_all(line.as_bytes()).await.is_err()
            {
                break;
            }
            if !condition.changed().await {
                break;
            }
        }
        // The reader sees the end and ends the conversation.
        std::future::pending().await
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
        let heard = parse_line(&line)?;
        voice.said.send_modify(|said| {
            said.insert(voice.number, heard);
        });
    }
}

const VERSION: u32 = 1;
/// Room for the names of some thousand nodes, and as many VIPs.
const LONGEST_LINE_BYTES: u64 = 1 << 20;
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_speaker_says_and_nothing_else() {
        let read = |line| parse_line(line).map_err(|error| error.to_string());
        let node_2 = Said {
            silent: [NodeName::from("node-2")].into(),
            ..Said::default()
        };
        assert_eq!(read(r#"{"version":1,"silent":["node-2"]}"#), Ok(node_2));
        assert_eq!(
            read(r#"{"version":1,"silent":[],"more":1}"#),
            Ok(Said::default())
        );
        let moved = Said {
            moved: [("2001:db8::240".parse().unwrap(), NodeName::from("node-1"))].into(),
            ..Said::default()
        };
        assert_eq!(
            read(r#"{"version":1,"silent":[],"moved":{"2001:db8::240":"node-1"}}"#),
            Ok(moved)
        );
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
            (
                r#"{"version":1,"silent":[],"moved":{"somewhere":"node-2"}}"#,
                "the line is not what a speaker says",
            ),
        ] {
            assert_eq!(read(line), Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn what_a_speaker_said_is_forgotten_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/proxy.sock");
        let (told, mut seen) = watch::channel(Said::default());
        let (healthy, health) = watch::channel(None);
        let (programmed, tells_programmed) = watch::channel(None);
        let (idle, tells_idle) = watch::channel(BTreeSet::new());
        let condition = Condition {
            healthy: health,
            programmed: tells_programmed,
            idle: tells_idle,
        };
        let socket = SpeakerSocket::bind(&path).unwrap();
        let serving = tokio::spawn(socket.serve(told, condition));

        let mut speaker = BufReader::new(UnixStream::connect(&path).await.unwrap());
        let mut line = String::new();
        let vip: IpAddr = "192.0.2.240".parse().unwrap();
        let apply = |held: &mut Option<Programmed>, here| {
            held.get_or_insert_default().apply([(vip, here)]);
        };
        programmed.send_modify(|held| apply(held, true));
        healthy.send(Some(false)).unwrap();
        speaker.read_line(&mut line).await.unwrap();
        healthy.send(Some(true)).unwrap();
        speaker.read_line(&mut line).await.unwrap();
        programmed.send_modify(|held| apply(held, false));
        speaker.read_line(&mut line).await.unwrap();
        idle.send([vip].into()).unwrap();
        speaker.read_line(&mut line).await.unwrap();
        assert_eq!(
            line,
            "{\"version\":1,\"healthy\":false,\"programmed\":[\"192.0.2.240\"],\"idle\":[]}\n\
             {\"version\":1,\"healthy\":true,\"idle\":[]}\n\
             {\"version\":1,\"healthy\":true,\"removed\":[\"192.0.2.240\"],\"idle\":[]}\n\
             {\"version\":1,\"healthy\":true,\"idle\":[\"192.0.2.240\"]}\n"
        );

        speaker
            .write_all(
                b"{\"version\":1,\"silent\":[\"node-2\"],\"moved\":{\"192.0.2.240\":\"node-3\"},\"watched\":[\"192.0.2.240\"]}\n",
            )
            .await
            .unwrap();
        let said = seen
            .wait_for(|said| *said != Said::default())
            .await
            .unwrap()
            .clone();
        assert_eq!(said.silent, [NodeName::from("node-2")].into());
        let moved = [("192.0.2.240".parse().unwrap(), NodeName::from("node-3"))];
        assert_eq!(said.moved, moved.into());
        assert_eq!(said.watched, [vip].into());
        drop(speaker);
        seen.wait_for(|said| *said == Said::default())
            .await
            .unwrap();

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
