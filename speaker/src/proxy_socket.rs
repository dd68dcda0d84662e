//! Tells Foghorn's proxy on this node which nodes fell silent and where VIPs come from, and hears from it whether it is
//! healthy.
//!
//! The same lines as the proxy documents: `{"version":1,"silent":["node-2"],"moved":{"192.0.2.240":"node-3"}}` to it
//! whenever that changes, and `{"version":1,"healthy":true}` from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::name::NodeName;
use config_runtime::backoff::Backoff;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// What the proxy has to know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// The nodes that are silent.
    pub silent: BTreeSet<NodeName>,
    /// For each VIP the node that owns it, or owned it before this one: it knows the connections that there are.
    pub moved: BTreeMap<IpAddr, NodeName>,
}

#[derive(Debug, Serialize)]
struct ToProxy<'a> {
    version: u32,
    silent: Vec<&'a str>,
    moved: BTreeMap<IpAddr, &'a str>,
}

#[derive(Debug, Deserialize)]
struct FromProxy {
    version: u32,
    healthy: bool,
}

/// Tells the proxy for ever, also one that comes later or again.
///
/// `healthy` has what the proxy said last, or nothing while there is no connection.
pub async fn follow(
    path: PathBuf,
    mut news: watch::Receiver<News>,
    healthy: watch::Sender<Option<bool>>,
) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        if let Ok(stream) = UnixStream::connect(&path).await {
            backoff.reset();
            tracing::info!(path = %path.display(), "Proxy listens to this speaker");
            if let Err(error) = converse(stream, &mut news, &healthy).await {
                tracing::info!(path = %path.display(), %error, "Proxy does not listen any more");
            }
            healthy.send_replace(None);
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn converse(
    stream: UnixStream,
    news: &mut watch::Receiver<News>,
    healthy: &watch::Sender<Option<bool>>,
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
                Some(said) => {
                    healthy.send_replace(Some(said));
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
    };
    let mut line = serde_json::to_string(&said).unwrap_or_default();
    line.push('\n');
    line
}

fn parse(line: &str) -> Option<bool> {
    let said: FromProxy = serde_json::from_str(line).ok()?;
    (said.version == VERSION).then_some(said.healthy)
}

const VERSION: u32 = 1;
const LONGEST_LINE_BYTES: u64 = 4096;
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn says_what_the_proxy_reads() {
        let news = News {
            silent: ["node-2", "node-3"].map(NodeName::from).into(),
            moved: [("192.0.2.240".parse().unwrap(), NodeName::from("node-1"))].into(),
        };
        assert_eq!(
            line(&news),
            "{\"version\":1,\"silent\":[\"node-2\",\"node-3\"],\"moved\":{\"192.0.2.240\":\"node-1\"}}\n"
        );
        for (line, expected) in [
            ("{\"version\":1,\"healthy\":true}\n", Some(true)),
            ("{\"version\":1,\"healthy\":false,\"more\":1}", Some(false)),
            ("{\"version\":2,\"healthy\":true}", None),
            ("", None),
        ] {
            assert_eq!(parse(line), expected);
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
        let (healthy, mut said) = watch::channel(None);
        let telling = tokio::spawn(follow(path.clone(), hears, healthy));
        for _ in 0..2 {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(
                line,
                "{\"version\":1,\"silent\":[\"node-2\"],\"moved\":{}}\n"
            );
            stream
                .write_all(b"{\"version\":1,\"healthy\":true}\n")
                .await
                .unwrap();
            assert_eq!(*said.wait_for(Option::is_some).await.unwrap(), Some(true));
            drop(stream);
            said.wait_for(Option::is_none).await.unwrap();
        }
        drop(news);
        telling.abort();
    }
}
