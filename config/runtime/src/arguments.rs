//! Command-line arguments that all programs have.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::tls::{Identity, IdentityError, IdentityFiles};

/// Arguments of every program; put into the program's own with `#[command(flatten)]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArguments {
    /// File that says how to reach the API server; without it the program runs as a Pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// File or directory with IPAddressPools and L2Advertisements as YAML; may be given several times; read again when it
    /// changes
    #[arg(long, value_name = "PATH")]
    pub config: Vec<PathBuf>,

    /// What to log: `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives as in `RUST_LOG`
    #[arg(
        long,
        value_name = "LEVEL",
        env = "FOGHORN_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,

    /// How to log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Where to serve `/metrics`: `ADDRESS:PORT`, `:PORT` for all addresses, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_address: Option<ListenAddress>,

    /// Serve `/debug` beside `/metrics`: what the program holds, as JSON, and its log level, which PUT changes
    #[arg(long)]
    pub debug_endpoints: bool,

    /// Where to serve `/healthz`, `/livez` and `/readyz`: `ADDRESS:PORT`, `:PORT` for all addresses, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub health_address: Option<ListenAddress>,

    /// File with a certificate and those that lead to its authority (PEM): `/metrics` and what is served beside it is then
    /// served with TLS 1.2 or 1.3 alone. Read again when it changes; what cannot be used then changes nothing
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// File with its private key (PEM); read again with it
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
}

impl CommonArguments {
    /// Where to serve metrics, if anywhere; `default` is what the program does unasked.
    pub fn metrics_address_or(&self, default: SocketAddr) -> Option<SocketAddr> {
        self.metrics_address
            .map_or(Some(default), |ListenAddress(address)| address)
    }

    /// The certificate for metrics, if there is to be one.
    ///
    /// # Errors
    /// If the files have none.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => Identity::read(IdentityFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            })
            .map(Some),
            _ => Ok(None),
        }
    }

    /// Where to serve health, if anywhere; `default` is what the program does unasked.
    pub fn health_address_or(&self, default: SocketAddr) -> Option<SocketAddr> {
        self.health_address
            .map_or(Some(default), |ListenAddress(address)| address)
    }
}

/// Arguments of the programs that run on every node.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NodeArguments {
    /// Name of the Node object of this machine
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object of JSON per line
    Json,
}

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenAddress(pub Option<SocketAddr>);

/// Why a text is not an address to listen on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{0}\" is not an address to listen on: write ADDRESS:PORT, :PORT or off")]
pub struct ListenAddressError(String);

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = match text.strip_prefix(':') {
            Some(port) => port
                .parse()
                .ok()
                .map(|port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
            None => text.parse().ok(),
        };
        match address {
            Some(address) => Ok(Self(Some(address))),
            None => Err(ListenAddressError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_to_listen_on() {
        for (text, expected) in [
            ("off", Ok(None)),
            (":7472", Ok(Some("[::]:7472"))),
            ("127.0.0.1:80", Ok(Some("127.0.0.1:80"))),
            (
                "7472",
                Err("\"7472\" is not an address to listen on: write ADDRESS:PORT, :PORT or off"),
            ),
        ] {
            let found = text.parse::<ListenAddress>();
            let found = found.map(|ListenAddress(address)| address.map(|found| found.to_string()));
            assert_eq!(
                found.map_err(|error| error.to_string()),
                expected
                    .map(|address| address.map(str::to_owned))
                    .map_err(str::to_owned)
            );
        }
    }
}
