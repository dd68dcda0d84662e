//! TLS for what is served beyond the node: a certificate and its key from files, read again when they change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::serve::Listener;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::chain::Chain;

/// Where a certificate and its key are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdentityFiles {
    /// The certificate, and those that lead to its authority, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// Why there is no certificate to serve with.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("failed to read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is no PEM file of what is expected: a certificate, or its private key", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{} has no certificate: write it as PEM, its own first", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} does not go with the key {}", certificate.display(), key.display())]
    Mismatch {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("failed to set TLS up")]
    Unsupported(#[source] rustls::Error),
}

/// The certificate that is served; what holds it sees the next one as soon as that was read.
#[derive(Clone, Debug)]
pub struct Identity {
    files: IdentityFiles,
    current: Arc<RwLock<Arc<CertifiedKey>>>,
}

/// What stands in the two files.
type Contents = (Vec<u8>, Vec<u8>);

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// If they are no certificate with its key.
    pub fn read(files: IdentityFiles) -> Result<Self, IdentityError> {
        let key = parse(&files, &contents(&files)?)?;
        Ok(Self {
            files,
            current: Arc::new(RwLock::new(Arc::new(key))),
        })
    }

    /// Reads the files again whenever they change, for ever. Files that cannot be used change nothing.
    pub async fn follow(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        let mut held = contents(&self.files).ok();
        loop {
            ticks.tick().await;
            held = self.read_again(held);
        }
    }

    /// What the files have now; serves it if it is something else than `held`.
    fn read_again(&self, held: Option<Contents>) -> Option<Contents> {
        let now = match contents(&self.files) {
            Ok(now) if Some(&now) != held.as_ref() => now,
            Ok(_) => return held,
            Err(error) => {
                // A Secret is replaced by renaming: the next look finds it.
                tracing::debug!(error = %Chain(&error), "Certificate not read again");
                return held;
            }
        };
        match parse(&self.files, &now) {
            Ok(key) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!(path = %self.files.certificate.display(), "Certificate changed");
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "Certificate not changed"),
        }
        Some(now)
    }

    /// Accepts connections of `listener` that speak TLS.
    ///
    /// # Errors
    /// If TLS cannot be set up, which is a fault of the build.
    pub fn guard(&self, listener: TcpListener) -> Result<TlsListener, IdentityError> {
        let served = Served(Arc::clone(&self.current));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(IdentityError::Unsupported)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(served));
        Ok(TlsListener {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: JoinSet::new(),
        })
    }
}

#[derive(Debug)]
struct Served(Arc<RwLock<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn contents(files: &IdentityFiles) -> Result<Contents, IdentityError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| IdentityError::Unreadable {
            path: path.to_owned(),
            source,
        })
    };
    Ok((read(&files.certificate)?, read(&files.key)?))
}

fn parse(files: &IdentityFiles, (chain, key): &Contents) -> Result<CertifiedKey, IdentityError> {
    let malformed = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Malformed { path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(malformed(&files.certificate))?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate {
            path: files.certificate.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(malformed(&files.key))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| {
        IdentityError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        }
    })
}

/// Accepts connections and hands on those that have shaken hands; slow ones keep nobody waiting.
pub struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Both branches lose nothing when the other one wins.
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = ended {
                        return accepted;
                    }
                }
                (stream, peer) = Listener::accept(&mut self.listener), if self.handshakes.len() < MOST_HANDSHAKES => {
                    let shaking = self.acceptor.accept(stream);
                    self.handshakes.spawn(async move {
                        let shaken = tokio::time::timeout(LONGEST_HANDSHAKE, shaking).await;
                        Some((shaken.ok()?.ok()?, peer))
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// How often the files are compared: they are short, and a Secret reaches the node within a minute or so.
const PERIOD: Duration = Duration::from_secs(5);
/// More connections than these wait in the kernel.
const MOST_HANDSHAKES: usize = 64;
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::server;

    const NAME: &str = "foghorn.example";

    /// A certificate in a folder, as a Secret is one; the certificate itself.
    fn write(folder: &Path) -> CertificateDer<'static> {
        let Made { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    fn files(folder: &Path) -> IdentityFiles {
        IdentityFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }

    /// What a server answers to a client that believes `authority`.
    async fn ask(
        address: SocketAddr,
        authority: &CertificateDer<'static>,
    ) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer
            .split("\r\n\r\n")
            .nth(1)
            .unwrap_or_default()
            .to_owned())
    }

    #[tokio::test]
    async fn a_new_certificate_is_served_without_a_restart_and_an_unusable_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path());
        let identity = Identity::read(files(folder.path())).unwrap();
        let listener = server::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "hello"));
        let stop = CancellationToken::new();
        let server = tokio::spawn(server::serve(
            listener,
            router,
            Some(identity.clone()),
            stop.clone(),
        ));
        // One that never shakes hands keeps nobody waiting.
        let _silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(address, &first).await.unwrap(), "hello");

        let held = contents(&files(folder.path())).ok();
        let second = write(folder.path());
        let held = identity.read_again(held);
        assert_eq!(ask(address, &second).await.unwrap(), "hello");
        assert!(ask(address, &first).await.is_err());

        // The key of another certificate, as between two renamings.
        let key = std::fs::read(folder.path().join("tls.key")).unwrap();
        write(folder.path());
        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        let held = identity.read_again(held);
        assert_eq!(ask(address, &second).await.unwrap(), "hello");

        let last = write(folder.path());
        identity.read_again(held);
        assert_eq!(ask(address, &last).await.unwrap(), "hello");
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_gets_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let identity = Identity::read(files(folder.path())).unwrap();
        let listener = server::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "hello"));
        let stop = CancellationToken::new();
        let server = tokio::spawn(server::serve(
            listener,
            router,
            Some(identity),
            stop.clone(),
        ));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn says_what_is_wrong_with_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let error = Identity::read(files(folder.path())).unwrap_err();
            assert_eq!(
                error
                    .to_string()
                    .replace(&folder.path().display().to_string(), ""),
                expected
            );
        };
        check("failed to read /tls.crt");
        write(folder.path());
        let key = std::fs::read(folder.path().join("tls.key")).unwrap();
        std::fs::write(folder.path().join("tls.crt"), "").unwrap();
        check("/tls.crt has no certificate: write it as PEM, its own first");
        write(folder.path());
        std::fs::write(folder.path().join("tls.key"), "nothing").unwrap();
        check("/tls.key is no PEM file of what is expected: a certificate, or its private key");
        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        check("/tls.crt does not go with the key /tls.key");
    }
}
