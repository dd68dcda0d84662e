//! One connection that stays, with a question on it each few milliseconds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::namespace::Namespace;
use crate::wait;

/// A connection on which is being asked.
#[derive(Debug)]
pub struct LongConnection {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
    worker: JoinHandle<Result<String>>,
}

impl LongConnection {
    /// Connects from `namespace` and asks by HTTP each `interval` which Pod answers. No answer may take longer than
    /// `patience`.
    pub fn start(
        namespace: &Namespace,
        server: SocketAddr,
        interval: Duration,
        patience: Duration,
    ) -> Result<Self> {
        let namespace = Namespace::borrowed(namespace);
        let (stop, answers) = (Arc::default(), Arc::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers));
        let worker = thread::Builder::new().spawn(move || {
            namespace.enter()?;
            ask_until(&stopped, &counted, server, interval, patience)
        })?;
        let connection = Self {
            stop,
            answers,
            worker,
        };
        connection.wait_for_answers(1, FIRST_ANSWER)?;
        Ok(connection)
    }

    /// How many answers came.
    pub fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until so many more answers came, or the connection is over.
    pub fn wait_for_answers(&self, more: u32, patience: Duration) -> Result<()> {
        let wanted = self.answers() + more;
        wait::until("answers on a long connection", patience, || {
            let enough = self.answers() >= wanted || self.worker.is_finished();
            Ok(enough.then_some(()))
        })
    }

    /// Closes it: the Pod that answered everything. The last answer had to come after the end of the stream was sent, too.
    pub fn stop(self) -> Result<String> {
        let answers = self.answers();
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self
            .worker
            .join()
            .map_err(|_| anyhow!("the worker of a long connection panicked"))?;
        outcome.with_context(|| format!("a long connection ended after {answers} answers"))
    }
}

fn ask_until(
    stop: &AtomicBool,
    answers: &AtomicU32,
    server: SocketAddr,
    interval: Duration,
    patience: Duration,
) -> Result<String> {
    let stream = TcpStream::connect_timeout(&server, FIRST_ANSWER)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut stream = BufReader::new(stream);
    let first = ask(&mut stream, server, "keep-alive")?;
    let mut due = Instant::now();
    loop {
        let last = stop.load(Ordering::Relaxed);
        let answer = ask(
            &mut stream,
            server,
            if last { "close" } else { "keep-alive" },
        )?;
        ensure!(
            answer == first,
            "{answer} answers on the connection of {first}"
        );
        answers.fetch_add(1, Ordering::Relaxed);
        if last {
            ensure!(
                stream.read(&mut [0])? == 0,
                "there is more than was asked for"
            );
            return Ok(first);
        }
        due += interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn ask(stream: &mut BufReader<TcpStream>, server: SocketAddr, then: &str) -> io::Result<String> {
    let question =
        format!("GET /hostname HTTP/1.1\r\nHost: {server}\r\nConnection: {then}\r\n\r\n");
    stream.get_mut().write_all(question.as_bytes())?;
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().ok();
        }
    }
    let length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    String::from_utf8(body).map_err(io::Error::other)
}

const FIRST_ANSWER: Duration = Duration::from_secs(5);
