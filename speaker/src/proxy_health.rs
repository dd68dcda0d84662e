//! Whether this node's service proxy forwards.

use std::net::SocketAddr;
use std::time::Duration;

use speaker_announcer::{Fitness, Ineligible};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What is believed of the proxy after several answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Belief {
    healthy: bool,
    failures: u32,
}

impl Belief {
    /// The proxy was asked; whether anything is believed differently now.
    ///
    /// One good answer is enough. A healthy proxy must fail [`FAILURES`] times in a row: a move costs more than a lost
    /// answer. Before the first answer nothing good is believed.
    pub fn handle_answer(&mut self, good: bool) -> bool {
        let before = self.healthy;
        if good {
            *self = Self {
                healthy: true,
                failures: 0,
            };
        } else {
            self.failures = self.failures.saturating_add(1);
            self.healthy &= self.failures < FAILURES;
        }
        self.healthy != before
    }

    /// Whether the proxy forwards, as far as is known.
    pub fn is_healthy(self) -> bool {
        self.healthy
    }
}

/// What the machine is told of a proxy.
pub fn fitness(proxy_is_healthy: bool) -> Fitness {
    Fitness {
        unfit: (!proxy_is_healthy).then_some(Ineligible::ProxyUnhealthy),
    }
}

/// Asks the proxy again and again, for ever.
pub async fn follow(address: SocketAddr, path: String, healthy: watch::Sender<bool>) {
    let mut belief = Belief::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = 0_u32;
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout(PATIENCE, ask(address, &path)).await;
        let good = matches!(answer, Ok(Ok(true)));
        if belief.handle_answer(good) {
            if good {
                tracing::info!(%address, "Service proxy is healthy");
            } else {
                tracing::warn!(%address, "Service proxy is not healthy: this node hands its addresses over");
            }
            // Nobody listens any more while the program ends.
            let _ = healthy.send(good);
        }
        asked = asked.saturating_add(1);
        if asked == REMIND_AFTER && !belief.is_healthy() {
            tracing::warn!(
                %address,
                "Service proxy does not answer: this node announces nothing until it does; start the speaker with --proxy-health-url none if the proxy has no health to ask for"
            );
        }
    }
}

/// Whether the answer is a status of success.
async fn ask(address: SocketAddr, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: foghorn-speaker\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS_LINE];
    let mut length = 0;
    while let Some(room) = line.get_mut(length..).filter(|room| !room.is_empty()) {
        match stream.read(room).await? {
            0 => break,
            count => length += count,
        }
    }
    Ok(is_success(line.get(..length).unwrap_or_default()))
}

/// Whether an answer begins as one of success does: `HTTP/1.1 200`.
fn is_success(answer: &[u8]) -> bool {
    let mut words = answer.split(|&octet| octet == b' ');
    let version = words.next().unwrap_or_default();
    version.starts_with(b"HTTP/1.") && words.next().is_some_and(|code| code.starts_with(b"2"))
}

/// Bad answers in a row until a healthy proxy counts as not healthy.
const FAILURES: u32 = 2;
const PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(500);
/// Questions without a good answer before the log says what to do.
const REMIND_AFTER: u32 = 50;
/// Octets of an answer that are looked at: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_answer_is_enough_and_one_bad_one_is_not() {
        let mut belief = Belief::default();
        for (good, healthy) in [
            (false, false),
            (true, true),
            (false, true),
            (true, true),
            (false, true),
            (false, false),
            (false, false),
            (true, true),
        ] {
            belief.handle_answer(good);
            assert_eq!(belief.is_healthy(), healthy);
        }
    }

    #[test]
    fn success_is_a_status_of_two_hundred_and_something() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], true),
            (b"HTTP/1.0 204", true),
            (b"HTTP/1.1 503", false),
            (b"HTTP/1.1", false),
            (b"SSH-2.0", false),
            (b"", false),
        ] {
            assert_eq!(is_success(answer), expected, "{answer:?}");
        }
    }
}
