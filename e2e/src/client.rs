//! Asking a Service as any machine would: plain TCP, UDP and HTTP from some network namespace.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Result;

use crate::http;
use crate::namespace::Namespace;
use crate::wait;

/// A transport protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// What the Pods of the lab can be asked, over either protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Which Pod are you?
    Hostname,
    /// Which address and port do I have in your eyes?
    ClientAddress,
}

/// A door to knock at.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// Where
    pub address: SocketAddr,
    /// How
    pub protocol: Protocol,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.protocol, self.address)
    }
}

impl Target {
    /// A TCP port.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self {
            address,
            protocol: Protocol::Tcp,
        }
    }

    /// Asks from the namespace of the calling thread, on a connection of its own.
    pub fn ask(&self, question: Question, patience: Duration) -> io::Result<String> {
        let patience = wait::patience(patience);
        match self.protocol {
            Protocol::Tcp => ask_http(self.address, question, patience),
            Protocol::Udp => ask_udp(self.address, question, patience),
        }
    }

    /// Asks from `namespace`.
    pub fn ask_from(
        &self,
        namespace: &Namespace,
        question: Question,
        patience: Duration,
    ) -> Result<String> {
        Ok(namespace.run(|| self.ask(question, patience))??)
    }
}

fn ask_http(server: SocketAddr, question: Question, patience: Duration) -> io::Result<String> {
    let path = match question {
        Question::Hostname => "/hostname",
        Question::ClientAddress => "/clientip",
    };
    let response = http::ask(server, &http::Request::get(path), patience)?;
    if response.status != 200 {
        return Err(io::Error::other(format!("HTTP status {}", response.status)));
    }
    text(response.body)
}

fn ask_udp(server: SocketAddr, question: Question, patience: Duration) -> io::Result<String> {
    let word: &[u8] = match question {
        Question::Hostname => b"hostname",
        Question::ClientAddress => b"clientip",
    };
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(word)?;
    let mut answer = vec![0; 2048];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    text(answer)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(text.trim_end().to_owned())
}
