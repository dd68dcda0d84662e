//! As much of HTTP as asking a server takes: one request, one connection, one deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET` and the like.
    pub method: &'a str,
    /// The path, with the query.
    pub path: &'a str,
    /// The type of the body.
    pub content_type: &'a str,
    /// The body; none if empty.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Asks for a page.
    pub fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            content_type: "",
            body: &[],
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks, and reads the whole answer; all of it must happen within `patience`.
pub fn ask(server: SocketAddr, request: &Request<'_>, patience: Duration) -> io::Result<Response> {
    let deadline = Instant::now() + patience;
    let (status, mut reader) = open(server, request, deadline)?;
    let mut body = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        reader.get_ref().set_read_timeout(Some(left(deadline)?))?;
        match reader.read(&mut chunk)? {
            0 => return Ok(Response { status, body }),
            length => body.extend_from_slice(chunk.get(..length).unwrap_or_default()),
        }
    }
}

/// Asks, and leaves the body to be read line by line as it comes (a watch).
pub fn open(
    server: SocketAddr,
    request: &Request<'_>,
    deadline: Instant,
) -> io::Result<(u16, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    // HTTP/1.0: the server neither chunks the body nor keeps the connection, so the end of the stream is its end.
    let mut text = format!(
        "{} {} HTTP/1.0\r\nHost: {server}\r\n",
        request.method, request.path
    );
    if !request.body.is_empty() {
        text.push_str(&format!(
            "Content-Type: {}\r\nContent-Length: {}\r\n",
            request.content_type,
            request.body.len()
        ));
    }
    text.push_str("\r\n");
    let mut octets = text.into_bytes();
    octets.extend_from_slice(request.body);
    stream.write_all(&octets)?;

    let mut reader = BufReader::new(stream);
    let status = read_line(&mut reader, deadline)?;
    let status = status
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| not_http(&status))?;
    while !read_line(&mut reader, deadline)?.is_empty() {}
    Ok((status, reader))
}

fn read_line(reader: &mut BufReader<TcpStream>, deadline: Instant) -> io::Result<String> {
    reader.get_ref().set_read_timeout(Some(left(deadline)?))?;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

fn not_http(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an answer of HTTP: {line:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn answer_with(text: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8(asked[..length].to_vec()).unwrap()
        });
        (server, thread)
    }

    #[test]
    fn reads_the_whole_body() {
        let (server, thread) = answer_with("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nweb-1\nmore");
        let response = ask(server, &Request::get("/hostname"), Duration::from_secs(5)).unwrap();
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, &b"web-1\nmore"[..])
        );
        assert!(
            thread
                .join()
                .unwrap()
                .starts_with("GET /hostname HTTP/1.0\r\nHost: 127.0.0.1:")
        );
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error() {
        let (server, _thread) = answer_with("nonsense\r\n\r\n");
        let error = ask(server, &Request::get("/"), Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "not an answer of HTTP: \"nonsense\"");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let started = Instant::now();
        let server = listener.local_addr().unwrap();
        assert!(ask(server, &Request::get("/"), Duration::from_millis(50)).is_err());
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
