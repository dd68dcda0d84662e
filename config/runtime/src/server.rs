//! The HTTP servers of health and metrics.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::tls::Identity;

/// Something that can be well or not; the text says what is wrong.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What `/livez`, `/readyz` and `/healthz` ask.
///
/// `/livez` asks what only a restart mends, `/readyz` everything, `/healthz` the same as `/livez`. Each answers 200 or
/// 503, with one line for each check.
#[derive(Default)]
pub struct Health {
    live: Vec<(&'static str, Check)>,
    ready: Vec<(&'static str, Check)>,
}

impl Health {
    /// Adds a check of what only a restart mends.
    #[must_use]
    pub fn live(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.live.push((name, Box::new(check)));
        self
    }

    /// Adds a check of what must be before the program does its work.
    #[must_use]
    pub fn ready(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ready.push((name, Box::new(check)));
        self
    }

    /// Adds a check of readiness that holds once [`Flag::raise`] is called.
    #[must_use]
    pub fn ready_when(self, name: &'static str, flag: &Flag) -> Self {
        let flag = flag.clone();
        self.ready(name, move || {
            flag.is_raised().then_some(()).ok_or("not yet".to_owned())
        })
    }

    /// The routes of health.
    pub fn router(self) -> Router {
        let answer_live =
            |State(health): State<Arc<Self>>| async move { answer(&health.live, &[]) };
        let answer_ready =
            |State(health): State<Arc<Self>>| async move { answer(&health.live, &health.ready) };
        Router::new()
            .route("/livez", get(answer_live))
            .route("/healthz", get(answer_live))
            .route("/readyz", get(answer_ready))
            .with_state(Arc::new(self))
    }
}

fn answer(first: &[(&'static str, Check)], second: &[(&'static str, Check)]) -> Response {
    let mut status = StatusCode::OK;
    let mut lines = String::new();
    for (name, check) in first.iter().chain(second) {
        match check() {
            Ok(()) => lines.push_str(&format!("{name}: ok\n")),
            Err(reason) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                lines.push_str(&format!("{name}: {reason}\n"));
            }
        }
    }
    if lines.is_empty() {
        lines.push_str("ok\n");
    }
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, lines).into_response()
}

/// Something that becomes true, and may become false again; shared.
#[derive(Clone, Debug, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// It is true now.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// It is false now.
    pub fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether it is true.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The route `/metrics` of a registry, in the OpenMetrics text format.
pub fn metrics_router(registry: Registry) -> Router {
    let answer = |State(registry): State<Arc<Registry>>| async move {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], text).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    Router::new()
        .route("/metrics", get(answer))
        .with_state(Arc::new(registry))
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Listens on an address; the kernel queues clients until [`serve`] is called.
///
/// # Errors
/// If the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves routes until `stop`, with TLS if there is a certificate; then ends without waiting for clients that keep their
/// connection.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    identity: Option<Identity>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let Some(identity) = identity else {
        return tokio::select! {
            ended = axum::serve(listener, router).into_future() => ended,
            () = stop.cancelled() => Ok(()),
        };
    };
    let listener = identity.guard(listener).map_err(std::io::Error::other)?;
    tokio::select! {
        ended = axum::serve(listener, router).into_future() => ended,
        () = identity.follow() => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

/// Serves until `closing`, also where the address is another's at first, as while the program that is replaced still ends.
///
/// # Errors
/// If the server breaks.
pub async fn serve_when_free(
    what: &'static str,
    address: SocketAddr,
    router: Router,
    identity: Option<Identity>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    while !closing.is_cancelled() {
        match listen(address).await {
            Ok(listener) => {
                tracing::debug!(what, %address, "Listening");
                serve(listener, router.clone(), identity.clone(), closing.clone()).await?;
            }
            Err(error) => {
                tracing::warn!(what, error = %Chain(&error), "Not listening: trying again");
                tokio::select! {
                    () = tokio::time::sleep(LISTEN_RETRY) => {}
                    () = closing.cancelled() => {}
                }
            }
        }
    }
    Ok(())
}

const LISTEN_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The status and the body that a server of these routes answers with.
    pub(crate) async fn ask(router: &Router, path: &str) -> (u16, String) {
        send(router, "GET", path, "").await
    }

    /// The same for any method, with a body.
    pub(crate) async fn send(
        router: &Router,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String) {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router.clone(), None, stop.clone()));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        stop.cancel();
        server.await.unwrap().unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
    }

    #[tokio::test]
    async fn health_says_what_is_not_well() {
        let (synced, alive) = (Flag::default(), Flag::default());
        alive.raise();
        let well = alive.clone();
        let router = Health::default()
            .live("loop", move || {
                well.is_raised()
                    .then_some(())
                    .ok_or("stands still".to_owned())
            })
            .ready_when("synced", &synced)
            .router();
        let answers = async |expected: [(&str, u16, &str); 3]| {
            for (path, status, body) in expected {
                assert_eq!(
                    ask(&router, path).await,
                    (status, body.to_owned()),
                    "{path}"
                );
            }
        };
        answers([
            ("/livez", 200, "loop: ok\n"),
            ("/healthz", 200, "loop: ok\n"),
            ("/readyz", 503, "loop: ok\nsynced: not yet\n"),
        ])
        .await;
        synced.raise();
        alive.lower();
        answers([
            ("/livez", 503, "loop: stands still\n"),
            ("/healthz", 503, "loop: stands still\n"),
            ("/readyz", 503, "loop: stands still\nsynced: ok\n"),
        ])
        .await;
    }

    #[tokio::test]
    async fn metrics_are_in_the_format_of_prometheus() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("foghorn_assignments", "Addresses assigned", counter.clone());
        counter.inc();
        let (status, body) = ask(&metrics_router(registry), "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("foghorn_assignments_total 1\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
}
