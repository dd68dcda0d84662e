//! Tells Foghorn's proxy on this node which nodes fell silent and where VIPs come from, and hears from it whether it is
//! healthy, which VIPs it forwards, and which carry no connection.
//!
//! The same lines as the proxy documents:
//! `{"version":1,"silent":["node-2"],"moved":{"192.0.2.240":"node-3"},"watched":["192.0.2.241"]}` to it whenever that changes,
//! and from it `{"version":1,"healthy":true,"programmed":["192.0.2.240"],"idle":[]}`, later with `added` and `removed`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::name::NodeName;
use config_runtime::backoff::Backoff;
use serde::{Deserialize, Serialize};
use speaker_announcer::Programmed;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// What the proxy has to know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// The nodes that are silent.
    pub silent: BTreeSet<NodeName>,
    /// For each VIP the node that owns it, or owned it before this one: it knows the connections that there are.
    pub moved: BTreeMap<IpAddr, NodeName>,
    /// VIPs that would go to another node if no connection went through them.
    pub watched: BTreeSet<IpAddr>,
}

#[derive(Debug, Serialize)]
struct ToProxy<'a> {
    version: u32,
    silent: Vec<&'a str>,
    moved: BTreeMap<IpAddr, &'a str>,
    watched: &'a BTreeSet<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct FromProxy {
    version: u32,
    healthy: bool,
    programmed: Option<BTreeSet<IpAddr>>,
    #[serde(default)]
    added: BTreeSet<IpAddr>,
    #[serde(default)]
    removed: BTreeSet<IpAddr>,
    #[serde(default)]
    idle: BTreeSet<IpAddr>,
}

/// What the proxy says in one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// Whether the node should get traffic.
    pub healthy: bool,
    /// Which VIPs the kernel forwards, if the line says so.
    pub programmed: Option<Programmed>,
    /// Of the VIPs that it watches for us, those that carry no connection.
    pub idle: BTreeSet<IpAddr>,
}

/// Tells the proxy for ever, also one that comes later or again.
///
/// `said` gets what the proxy says, and nothing when the connection ends.
pub async fn follow(
    path: PathBuf,
    mut news: watch::Receiver<News>,
    said: mpsc::Sender<Option<Said>>,
) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        if let Ok(stream) = UnixStream::connect(&path).await {
            backoff.reset();
            tracing::info!(path = %path.display(), "Proxy listens to this speaker");
            if let Err(error) = converse(stream, &mut news, &said).await {
                tracing::info!(path = %path.display(), %error, "Proxy does not listen any more");
            }
            if said.send(None).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn converse(
    stream: UnixStream,
    news: &mut watch::Receiver<News>,
    said: &mpsc::Sender<Option<Said>>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let tell = async {
        loop {
            let line = line(&news.borrow_and_update());
            writer.write_all(line.as_bytes()).await?;
            if news.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    let hear = async {
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = String::new();
            let mut bounded = (&mut reader).take(LONGEST_LINE_BYTES);
            if bounded.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match parse(&line) {
                Some(line) => {
                    // If nobody listens any more, the program ends.
                    let _ = said.send(Some(line)).await;
                }
                // A newer proxy may say more.
                None => tracing::debug!("Proxy said something in another version"),
            }
        }
    };
    tokio::select! {
        ended = tell => ended,
        ended = hear => ended,
    }
}

fn line(news: &News) -> String {
    let said = ToProxy {
        version: VERSION,
        silent: news.silent.iter().map(NodeName::as_str).collect(),
        moved: news
            .moved
            .iter()
            .map(|(vip, node)| (*vip, node.as_str()))
            .collect(),
        watched: &news.watched,
    };
    let mut line = serde_json::to_string(&said).unwrap_or_default();
    line.push('\n');
    line
}

fn parse(line: &str) -> Option<Said> {
    let said: FromProxy = serde_json::from_str(line).ok()?;
    let programmed = match (said.programmed, said.added, said.removed) {
        (Some(all), _, _) => Some(Programmed::Only(all)),
        (None, added, removed) if added.is_empty() && removed.is_empty() => None,
        (None, added, removed) => Some(Programmed::Changed { added, removed }),
    };
    (said.version == VERSION).then_some(Said {
        healthy: said.healthy,
        programmed,
        idle: said.idle,
    })
}

const VERSION: u32 = 1;
/// Room for some hundred thousand VIPs.
const LONGEST_LINE_BYTES: u64 = 8 << 20;
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn says_what_the_proxy_reads() {
        let news = News {
            silent: ["node-2", "node-3"].map(NodeName::from).into(),
            moved: [(address("192.0.2.240"), NodeName::from("node-1"))].into(),
            watched: [address("192.0.2.241")].into(),
        };
        assert_eq!(
            line(&news),
            r#"{"version":1,"silent":["node-2","node-3"],"moved":{"192.0.2.240":"node-1"},"watched":["192.0.2.241"]}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn reads_what_the_proxy_says() {
        let vips = |texts: &[&str]| texts.iter().map(|text| address(text)).collect();
        let said = |healthy, programmed| {
            Some(Said {
                healthy,
                programmed,
                idle: BTreeSet::new(),
            })
        };
        for (line, expected) in [
            ("{\"version\":1,\"healthy\":true}\n", said(true, None)),
            (
                r#"{"version":1,"healthy":false,"more":1}"#,
                said(false, None),
            ),
            (
                r#"{"version":1,"healthy":true,"programmed":["192.0.2.1"],"idle":[]}"#,
                said(true, Some(Programmed::Only(vips(&["192.0.2.1"])))),
            ),
            (
                r#"{"version":1,"healthy":true,"programmed":[]}"#,
                said(true, Some(Programmed::Only(vips(&[])))),
            ),
            (
                r#"{"version":1,"healthy":true,"added":["2001:db8::1"]}"#,
                said(
                    true,
                    Some(Programmed::Changed {
                        added: vips(&["2001:db8::1"]),
                        removed: vips(&[]),
                    }),
                ),
            ),
            (
                r#"{"version":1,"healthy":true,"idle":["192.0.2.1"]}"#,
                Some(Said {
                    healthy: true,
                    programmed: None,
                    idle: vips(&["192.0.2.1"]),
                }),
            ),
            (
                r#"{"version":1,"healthy":true,"added":["somewhere"]}"#,
                None,
            ),
            (r#"{"version":2,"healthy":true}"#, None),
            ("", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_comes_again_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let (news, hears) = watch::channel(News {
            silent: [NodeName::from("node-2")].into(),
            ..News::default()
        });
        let (tells, mut said) = mpsc::channel(4);
        let telling = tokio::spawn(follow(path.clone(), hears, tells));
        for _ in 0..2 {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(
                line,
                "{\"version\":1,\"silent\":[\"node-2\"],\"moved\":{},\"watched\":[]}\n"
            );
            stream
                .write_all(b"{\"version\":1,\"healthy\":true}\n")
                .await
                .unwrap();
            let heard = said.recv().await.unwrap();
            assert!(heard.is_some_and(|said| said.healthy));
            drop(stream);
            assert_eq!(said.recv().await.unwrap(), None);
        }
        drop(news);
        telling.abort();
    }
}
