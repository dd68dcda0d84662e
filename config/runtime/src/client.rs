//! The client of the API server.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::arguments::CommonArguments;

/// Why there is no client.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to read the kubeconfig {}", path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("not running as a Pod: give --kubeconfig FILE")]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    #[error("failed to set up the client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// How long a connection to the API server may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client as the arguments say, that calls itself `foghorn-<program>`. Nothing is sent yet.
///
/// # Errors
/// If the kubeconfig cannot be read, or there is none and this is no Pod.
pub async fn connect(arguments: &CommonArguments, program: &str) -> Result<Client, ConnectError> {
    let mut config = match &arguments.kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig {
                path: path.clone(),
                source: Box::new(source),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(failed)?
        }
        None => kube::Config::incluster()
            .map_err(|source| ConnectError::NotInCluster(Box::new(source)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Whoever asks decides when to ask again, and for what.
    config.default_retry = false;
    let agent = format!("foghorn-{program}/{}", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = HeaderValue::try_from(agent) {
        config.headers.push((header::USER_AGENT, agent));
    }
    Client::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))
}
