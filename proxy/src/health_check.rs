//! What load balancers ask on a Service's `healthCheckNodePort`: whether this node has endpoints of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use config::name::ServiceKey;
use proxy_table::HealthCheck;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::status::Status;

/// What the health checks are told.
#[derive(Debug)]
pub enum Notice {
    /// A Service's health check came or changed, or went.
    Service(ServiceKey, Option<HealthCheck>),
    /// The addresses on which NodePorts are offered.
    Addresses(BTreeSet<IpAddr>),
}

/// Answers the health checks of all Services that have one, for ever.
pub async fn serve(mut notices: mpsc::UnboundedReceiver<Notice>, status: Arc<Status>) {
    let mut answering = Answering {
        status,
        addresses: BTreeSet::new(),
        checks: BTreeMap::new(),
        servers: HashMap::new(),
    };
    loop {
        let incomplete = answering.start_missing().await;
        let retry = async {
            if incomplete {
                tokio::time::sleep(RETRY).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) => answering.take(notice),
                None => return,
            },
            () = retry => {}
        }
    }
}

struct Answering {
    status: Arc<Status>,
    addresses: BTreeSet<IpAddr>,
    checks: BTreeMap<ServiceKey, (HealthCheck, Arc<Check>)>,
    servers: HashMap<(ServiceKey, SocketAddr), Server>,
}

/// A server that ends when it is dropped.
struct Server(JoinHandle<std::io::Result<()>>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Check {
    service: ServiceKey,
    local_endpoints: AtomicUsize,
    status: Arc<Status>,
}

impl Answering {
    fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Addresses(addresses) => {
                self.servers
                    .retain(|(_, address), _| addresses.contains(&address.ip()));
                self.addresses = addresses;
            }
            Notice::Service(service, None) => {
                self.checks.remove(&service);
                self.servers.retain(|(of, _), _| *of != service);
            }
            Notice::Service(service, Some(wanted)) => {
                let (held, check) = self.checks.entry(service.clone()).or_insert_with(|| {
                    let check = Check {
                        service: service.clone(),
                        local_endpoints: AtomicUsize::new(0),
                        status: Arc::clone(&self.status),
                    };
                    (wanted, Arc::new(check))
                });
                check
                    .local_endpoints
                    .store(wanted.local_endpoints, Ordering::Release);
                if held.port != wanted.port {
                    self.servers.retain(|(of, _), _| *of != service);
                }
                *held = wanted;
            }
        }
    }

    /// Starts the servers that are wanted and not there; whether some could not be started.
    async fn start_missing(&mut self) -> bool {
        let mut incomplete = false;
        for (service, (wanted, check)) in &self.checks {
            for address in listening(&self.addresses, wanted.port) {
                let key = (service.clone(), address);
                if self.servers.contains_key(&key) {
                    continue;
                }
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        let router = Router::new().fallback(answer).with_state(Arc::clone(check));
                        let serving = async move { axum::serve(listener, router).await };
                        self.servers.insert(key, Server(tokio::spawn(serving)));
                        tracing::debug!(%service, %address, "Answering health checks");
                    }
                    Err(error) => {
                        incomplete = true;
                        tracing::warn!(%service, %address, %error, "Health checks not answered: trying again");
                    }
                }
            }
        }
        incomplete
    }
}

/// Where to answer: not on link-local addresses, which mean something only together with an interface.
fn listening(addresses: &BTreeSet<IpAddr>, port: NonZeroU16) -> impl Iterator<Item = SocketAddr> {
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    addresses
        .iter()
        .filter(move |address| !is_link_local(address))
        .map(move |&address| SocketAddr::new(address, port.get()))
}

async fn answer(State(check): State<Arc<Check>>) -> Response {
    let local_endpoints = check.local_endpoints.load(Ordering::Acquire);
    let proxy_is_healthy = check.status.is_live(Instant::now());
    let code = if local_endpoints > 0 && proxy_is_healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local_endpoints.to_string()),
    ];
    let body = serde_json::json!({
        "service": {"namespace": check.service.namespace(), "name": check.service.name()},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": proxy_is_healthy,
    });
    (code, headers, body.to_string()).into_response()
}

/// How much of the traffic a load balancer should send here, compared with other nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr) -> String {
        // Whoever asks right after the notice may be before the server.
        let mut stream = loop {
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream
            .write_all(b"GET /any/path HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn link_local_addresses_are_not_listened_on() {
        let addresses = ["192.0.2.1", "2001:db8::1", "fe80::1"].map(|text| text.parse().unwrap());
        let found: Vec<String> = listening(&addresses.into(), NonZeroU16::MIN)
            .map(|address| address.to_string())
            .collect();
        assert_eq!(found, ["192.0.2.1:1", "[2001:db8::1]:1"]);
    }

    #[tokio::test]
    async fn answers_with_the_number_of_endpoints_until_the_service_goes() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let status = Arc::new(Status::default());
        let (sender, notices) = mpsc::unbounded_channel();
        let serving = tokio::spawn(serve(notices, Arc::clone(&status)));
        let service = ServiceKey::new("shop", "web");
        let check = |local_endpoints| HealthCheck {
            port: free.port().try_into().unwrap(),
            local_endpoints,
        };
        sender
            .send(Notice::Addresses(BTreeSet::from([free.ip()])))
            .unwrap();
        sender
            .send(Notice::Service(service.clone(), Some(check(2))))
            .unwrap();

        let answer = ask(free).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let now = Instant::now();
        status.handle_synced(now, now);
        let answer = ask(free).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for part in [
            "x-load-balancing-endpoint-weight: 2",
            "content-type: application/json",
            "x-content-type-options: nosniff",
            r#""service":{"name":"web","namespace":"shop"}"#,
            r#""localEndpoints":2"#,
            r#""serviceProxyHealthy":true"#,
        ] {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }

        sender
            .send(Notice::Service(service.clone(), Some(check(0))))
            .unwrap();
        while !ask(free).await.starts_with("HTTP/1.1 503") {}
        sender.send(Notice::Service(service, None)).unwrap();
        while tokio::net::TcpStream::connect(free).await.is_ok() {
            tokio::task::yield_now().await;
        }
        serving.abort();
    }
}
