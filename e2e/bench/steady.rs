//! Connections that are established: how quickly a question is answered, and how much goes through.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::connect::first_connect;
use crate::measure::Bench;
use crate::objects::{ECHO_PORT, SINK_PORT};
use crate::record::{Measure, Place};
use e2e::connection::Connection;

impl Bench<'_> {
    /// Request and response, and a stream, through a Service and straight to its endpoint, in turn.
    pub(crate) fn steady(&mut self, place: Place) -> Result<()> {
        let number = self.next_trial();
        let mut api = Connection::open(self.server)?;
        number.create_steady(&mut api)?;
        let sides = [*number.frontend().ip(), *number.endpoint(0).ip()];
        let outcome = self.node()?.run(|| -> Result<_> {
            let echo = SocketAddrV4::new(*number.frontend().ip(), ECHO_PORT);
            first_connect(echo, Instant::now() + PATIENCE)?;
            let mut answers = [Vec::new(), Vec::new()];
            let mut rates = [Vec::new(), Vec::new()];
            for _ in 0..TURNS {
                for (address, (answers, rates)) in
                    sides.into_iter().zip(answers.iter_mut().zip(&mut rates))
                {
                    answers.extend(ask(SocketAddrV4::new(address, ECHO_PORT))?);
                    rates.push(stream(SocketAddrV4::new(address, SINK_PORT))?);
                }
            }
            Ok((answers, rates))
        });
        number.delete(&mut api)?;
        let ([through, direct], [rate_through, rate_direct]) = outcome??;
        for (measure, values) in [
            (Measure::AnswerThrough, through),
            (Measure::AnswerDirect, direct),
            (Measure::RateThrough, rate_through),
            (Measure::RateDirect, rate_direct),
        ] {
            self.records.add(place, measure, values);
        }
        Ok(())
    }
}

/// Asks with one octet and waits for it to come back, again and again; microseconds.
fn ask(server: SocketAddrV4) -> Result<Vec<f64>> {
    let mut stream = open(server)?;
    let mut octet = [0];
    let mut answers = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let begin = Instant::now();
        stream.write_all(&octet)?;
        stream.read_exact(&mut octet)?;
        answers.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(answers)
}

/// Sends as much as goes; gigabits per second.
fn stream(server: SocketAddrV4) -> Result<f64> {
    let mut stream = open(server)?;
    let piece = vec![0; PIECE];
    let mut pieces = 0_u32;
    let begin = Instant::now();
    while begin.elapsed() < STREAM_TIME {
        stream.write_all(&piece)?;
        pieces += 1;
    }
    let bits = f64::from(pieces) * f64::from(u32::try_from(PIECE)?) * 8.0;
    Ok(bits / begin.elapsed().as_secs_f64() / 1e9)
}

fn open(server: SocketAddrV4) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(server), Duration::from_secs(1))
        .with_context(|| format!("{server} did not answer"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

const TURNS: u32 = 3;
const QUESTIONS: usize = 3000;
const PIECE: usize = 1 << 17;
const STREAM_TIME: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);
