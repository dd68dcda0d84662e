//! The Kubernetes API in plain HTTP, as `kubectl proxy` offers it: quick enough to ask many times a second.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http::{self, Request};
use crate::wait;

/// The API behind a `kubectl proxy`.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    server: SocketAddr,
}

impl Api {
    /// The API that the proxy on this address offers.
    pub fn new(server: SocketAddr) -> Self {
        Self { server }
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.find(path)?
            .with_context(|| format!("{path} is not there"))
    }

    /// Reads an object; `None` if it is not there.
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = self.ask(&Request::get(path))?;
        match status {
            200 => Ok(Some(serde_json::from_slice(&body)?)),
            404 => Ok(None),
            _ => bail!("GET {path}: {status} {}", String::from_utf8_lossy(&body)),
        }
    }

    /// The text of a page such as `/readyz`.
    pub fn text(&self, path: &str) -> Result<String> {
        let (status, body) = self.ask(&Request::get(path))?;
        let body = String::from_utf8_lossy(&body).into_owned();
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(body)
    }

    /// How many nodes are ready.
    pub fn ready_nodes(&self) -> Result<usize> {
        let nodes = self.get("/api/v1/nodes")?;
        let list = |value: &Value, pointer: &str| {
            let found = value.pointer(pointer).and_then(Value::as_array);
            found.cloned().unwrap_or_default()
        };
        let is_ready = |node: &&Value| {
            let conditions = list(node, "/status/conditions");
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        Ok(list(&nodes, "/items").iter().filter(is_ready).count())
    }

    /// Makes an object in a collection.
    pub fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        self.write("POST", collection, "application/json", object)
    }

    /// Makes or changes an object so that it has what is written here (server-side apply).
    pub fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager=lab&force=true");
        self.write("PATCH", &path, "application/apply-patch+yaml", object)
    }

    /// Changes an object by a merge patch.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        self.write("PATCH", path, "application/merge-patch+json", patch)
    }

    /// Deletes an object; whether there was one.
    pub fn delete(&self, path: &str) -> Result<bool> {
        let request = Request {
            method: "DELETE",
            ..Request::get(path)
        };
        let (status, body) = self.ask(&request)?;
        match status {
            200 | 202 => Ok(true),
            404 => Ok(false),
            _ => bail!("DELETE {path}: {status} {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Follows the changes of a collection from a resource version on.
    pub fn watch(
        &self,
        collection: &str,
        resource_version: &str,
        patience: Duration,
    ) -> Result<Watch> {
        let path = format!("{collection}?watch=true&resourceVersion={resource_version}");
        let (status, reader) =
            http::open(self.server, &Request::get(&path), Instant::now() + patience)?;
        ensure!(status == 200, "watch of {collection}: {status}");
        Ok(Watch {
            reader,
            line: Vec::new(),
            ended: false,
        })
    }

    fn write(&self, method: &str, path: &str, content_type: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        let (status, answer) = self.ask(&Request {
            method,
            path,
            content_type,
            body: &body,
        })?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(serde_json::from_slice(&answer)?)
    }

    fn ask(&self, request: &Request<'_>) -> Result<(u16, Vec<u8>)> {
        let response = http::ask(self.server, request, wait::patience(PATIENCE))
            .with_context(|| format!("{} {} had no answer", request.method, request.path))?;
        Ok((response.status, response.body))
    }
}

/// Changes of a collection as they come.
#[derive(Debug)]
pub struct Watch {
    reader: BufReader<TcpStream>,
    /// What of a line has come so far.
    line: Vec<u8>,
    ended: bool,
}

impl Watch {
    /// The next change: its type (`ADDED`, ..) and the object. `None` if there is none within `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Option<(String, Value)>> {
        self.reader.get_ref().set_read_timeout(Some(patience))?;
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let mut event: Value = serde_json::from_slice(&self.line)?;
                self.line.clear();
                let kind = event
                    .get("type")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                let object = event.get_mut("object").map(Value::take).unwrap_or_default();
                Ok(Some((kind, object)))
            }
            Ok(_) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the server has ended it: watch again from the last resource version.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
