//! Connections that last: what is asked on them tells who is at the other end.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::Host;

/// Answers each line with its number, until the client closes; then it says good-bye.
pub(crate) fn talk(door: SocketAddr, number: u8) {
    let listener = TcpListener::bind(door).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            std::thread::spawn(move || {
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
                    let _ = writeln!(stream.get_mut(), "{number}");
                }
                let _ = writeln!(stream.get_mut(), "good-bye from {number}");
            });
        }
    });
}

/// A connection to where somebody talks.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    #[track_caller]
    pub(crate) fn open(client: &Host, door: SocketAddr) -> Self {
        let stream = client.run(move || TcpStream::connect_timeout(&door, PATIENCE));
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Says something and hears which one answers.
    pub(crate) fn ask(&mut self) -> std::io::Result<u8> {
        self.0.get_mut().write_all(b"?\n")?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        line.trim().parse().map_err(std::io::Error::other)
    }

    /// Ends it; what the other end says to that.
    pub(crate) fn close(mut self) -> std::io::Result<String> {
        self.0.get_ref().shutdown(Shutdown::Write)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    /// Ends it with a reset: the port is free at once, and IPVS forgets it after ten seconds and not two minutes.
    pub(crate) fn break_off(self) {
        let stream = self.0.into_inner();
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
