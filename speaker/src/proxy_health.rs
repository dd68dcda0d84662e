//! Whether this node's service proxy forwards.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use speaker_announcer::{Fitness, Ineligible};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What a question to the proxy came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It forwards.
    Good,
    /// It says itself that it does not, or not as it should.
    Bad,
    /// Nobody answered.
    None,
}

/// What is believed of the proxy after several answers.
///
/// A proxy that is gone has left its rules in the kernel, which goes on forwarding: an address must not move because a proxy
/// is restarted or updated. So one that says that it is unwell is believed after [`FAILURES`] answers, and one that
/// does not answer, or not well yet after a while without an answer, is waited for as long as [`ABSENCE`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Belief {
    healthy: bool,
    failures: u32,
    absent_since: Option<Instant>,
}

impl Belief {
    /// The proxy was asked; whether anything is believed differently now.
    ///
    /// One good answer is enough. Before the first one nothing good is believed.
    pub fn handle_answer(&mut self, answer: Answer, now: Instant) -> bool {
        let before = self.healthy;
        match answer {
            Answer::Good => {
                *self = Self {
                    healthy: true,
                    ..Self::default()
                };
            }
            Answer::Bad if self.absent_since.is_none() => {
                self.failures = self.failures.saturating_add(1);
                self.healthy &= self.failures < FAILURES;
            }
            Answer::Bad | Answer::None => {
                let since = *self.absent_since.get_or_insert(now);
                self.healthy &= now.duration_since(since) < ABSENCE;
            }
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
        let answer = match tokio::time::timeout(PATIENCE, ask(address, &path)).await {
            Ok(Ok(true)) => Answer::Good,
            Ok(Ok(false)) => Answer::Bad,
            Ok(Err(_)) | Err(_) => Answer::None,
        };
        if belief.handle_answer(answer, Instant::now()) {
            let good = belief.is_healthy();
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
///
/// # Errors
/// If nobody listens, or nothing is answered.
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
    match line.get(..length) {
        Some(answer) if length > 0 => Ok(is_success(answer)),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether an answer begins as one of success does: `HTTP/1.1 200`.
fn is_success(answer: &[u8]) -> bool {
    let mut words = answer.split(|&octet| octet == b' ');
    let version = words.next().unwrap_or_default();
    version.starts_with(b"HTTP/1.") && words.next().is_some_and(|code| code.starts_with(b"2"))
}

/// Bad answers in a row until a healthy proxy counts as not healthy.
const FAILURES: u32 = 2;
/// For how long a proxy that does not answer may be about to come back, with an image to be pulled.
const ABSENCE: Duration = Duration::from_secs(30);
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
    fn who_says_so_is_believed_and_who_is_gone_is_waited_for() {
        use Answer::{Bad, Good, None};
        let start = Instant::now();
        let mut belief = Belief::default();
        for (seconds, answer, healthy) in [
            (0, None, false),
            (1, Bad, false),
            // One good answer is enough, two bad ones in a row too.
            (2, Good, true),
            (3, Bad, true),
            (4, Good, true),
            (5, Bad, true),
            (6, Bad, false),
            (7, Bad, false),
            (8, Good, true),
            // It is restarted, and says so for a while.
            (100, None, true),
            (101, None, true),
            (110, Bad, true),
            (111, Bad, true),
            (129, Bad, true),
            (130, Bad, false),
            (131, Good, true),
            (200, None, true),
            (229, None, true),
            (230, None, false),
            (231, Good, true),
            (232, Bad, true),
            (233, Bad, false),
        ] {
            belief.handle_answer(answer, start + Duration::from_secs(seconds));
            assert_eq!(belief.is_healthy(), healthy, "{seconds}");
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
