//! A connection to the API that stays open: HTTP/1.1, one request after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A connection to the API in plain HTTP.
#[derive(Debug)]
pub struct Connection {
    server: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Opens it.
    pub fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            server,
            reader: BufReader::new(stream),
        })
    }

    /// Makes an object; one that is there already stays as it is.
    pub fn create(&mut self, collection: &str, object: &Value) -> Result<()> {
        self.write("POST", collection, "application/json", Some(object), 409)
    }

    /// Asks for something that is not an object of the API.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<()> {
        self.write("POST", path, "application/json", Some(body), 200)
    }

    /// Puts an object in the place of the one that is there.
    pub fn replace(&mut self, path: &str, object: &Value) -> Result<()> {
        self.write("PUT", path, "application/json", Some(object), 200)
    }

    /// Changes an object by a merge patch.
    pub fn patch(&mut self, path: &str, patch: &Value) -> Result<()> {
        let content_type = "application/merge-patch+json";
        self.write("PATCH", path, content_type, Some(patch), 200)
    }

    /// Deletes an object, if it is there.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        self.write("DELETE", path, "", None, 404)
    }

    fn write(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        object: Option<&Value>,
        also_good: u16,
    ) -> Result<()> {
        let body = object.map(serde_json::to_vec).transpose()?;
        let (status, answer) = self
            .ask(method, path, content_type, &body.unwrap_or_default())
            .with_context(|| format!("{method} {path} had no answer"))?;
        if (200..300).contains(&status) || status == also_good {
            return Ok(());
        }
        bail!(
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&answer)
        )
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let mut octets = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n",
            self.server,
            body.len()
        );
        if !content_type.is_empty() {
            octets.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        octets.push_str("\r\n");
        let mut octets = octets.into_bytes();
        octets.extend_from_slice(body);
        self.reader.get_mut().write_all(&octets)?;

        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not an answer of HTTP: {status_line:?}"))?;
        let mut length = 0;
        let mut is_chunked = false;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", "chunked")) => is_chunked = true,
                None if line.is_empty() => break,
                _ => {}
            }
        }
        if is_chunked {
            return Ok((status, self.chunks()?));
        }
        let mut answer = vec![0; length];
        self.reader.read_exact(&mut answer)?;
        Ok((status, answer))
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line()?, 16)?;
            let begin = answer.len();
            answer.resize(begin + length, 0);
            self.reader
                .read_exact(answer.get_mut(begin..).unwrap_or_default())?;
            ensure!(self.line()?.is_empty(), "a chunk of HTTP without an end");
            if length == 0 {
                return Ok(answer);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.reader.read_line(&mut line)? > 0,
            "the connection was closed"
        );
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn reads_answers_of_both_kinds_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let answers = [
                "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
            ];
            for answer in answers {
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut connection = Connection::open(server).unwrap();
        connection
            .create("/things", &serde_json::json!({}))
            .unwrap();
        connection.delete("/things/one").unwrap();
        let error = connection.delete("/things/two").unwrap_err();
        assert_eq!(error.to_string(), "DELETE /things/two: 403 no!");
        thread.join().unwrap();
    }
}
