//! The command line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use config::name::NodeName;
use config_runtime::arguments::{CommonArguments, NodeArguments};

use crate::compile::Settings;

/// Announces the addresses of Services on the LAN.
#[derive(Clone, Debug, Parser)]
#[command(name = "foghorn-speaker", version, about)]
#[command(group(ArgGroup::new("heartbeats").required(true)))]
pub struct Arguments {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "documented there; a comment here would become its help"
    )]
    pub common: CommonArguments,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the same")]
    pub node: NodeArguments,

    /// File with the key of heartbeats, the same for all speakers: one key, or two lines, of which the first signs and both
    /// are accepted, while keys are changed. Read again when it changes
    #[arg(long, value_name = "FILE", group = "heartbeats")]
    pub heartbeat_key_file: Option<PathBuf>,

    /// Believe whatever calls itself a speaker: anybody on the LAN can then take addresses from nodes
    #[arg(long, group = "heartbeats")]
    pub insecure_heartbeats: bool,

    /// Milliseconds between two heartbeats, 10 to 5000; a node counts as dead after three that are missing. Grows by itself
    /// beyond 50 speakers on a link, to at most 5 s
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(10..=5000))]
    pub heartbeat_interval_ms: u16,

    /// Where this node's service proxy says whether it is healthy, by plain HTTP at an address with a port, or `none`: only
    /// while it is does the node announce
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:10256/healthz"
    )]
    pub proxy_health_url: ProxyHealthUrl,

    /// Socket of Foghorn's proxy on this node, to tell it which nodes fell silent; nothing happens if it does not listen
    #[arg(long, value_name = "PATH", default_value = "/run/foghorn/proxy.sock")]
    pub proxy_socket: PathBuf,

    /// Value of `spec.loadBalancerClass` to announce; may be given several times, as the controller's. If given, Services
    /// without a class are left to others unless `--serve-classless` is given too [default: `foghorn.dev/foghorn`, and Services
    /// without a class]
    #[arg(
        long = "load-balancer-class",
        visible_alias = "lb-class",
        value_name = "CLASS"
    )]
    pub load_balancer_class: Vec<String>,

    /// Whether to announce Services without `spec.loadBalancerClass` [default: `true` without `--load-balancer-class`, else `false`]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub serve_classless: Option<bool>,

    /// Announce also from nodes labelled `node.kubernetes.io/exclude-from-external-load-balancers`
    #[arg(long)]
    pub ignore_exclude_lb: bool,

    /// Move addresses away from cordoned nodes
    #[arg(long)]
    pub leave_cordoned_nodes: bool,
}

/// What the speaker is to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// Announce, as these arguments say.
    Announce(Box<Arguments>),
    /// The verb that was given instead.
    Verb(Verb),
}

impl Task {
    /// Reads a command line, the program's name first. Required arguments are those of announcing.
    ///
    /// # Errors
    /// With what to print, also for `--help`.
    pub fn parse<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let announce = Arguments::command();
        // The verbs would put their own description in its place.
        let about = announce.get_about().cloned().unwrap_or_default();
        let command = Verb::augment_subcommands(announce)
            .about(about)
            .subcommand_required(false)
            .arg_required_else_help(false)
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
        let matches = command.try_get_matches_from(words)?;
        if matches.subcommand_name().is_some() {
            return Ok(Self::Verb(Verb::from_arg_matches(&matches)?));
        }
        let arguments = Arguments::from_arg_matches(&matches)?;
        Ok(Self::Announce(Box::new(arguments)))
    }
}

/// What a speaker can do besides announcing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Subcommand)]
pub enum Verb {
    /// Say what on this node stops layer 2 in practice; changes nothing, asks no API server, fails if there is a problem
    Doctor,
}

/// Where the service proxy says whether it is healthy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProxyHealthUrl {
    /// Nobody is asked: the node counts as able to forward.
    None,
    /// Plain HTTP at an address of this node.
    Http {
        /// Where to connect.
        address: SocketAddr,
        /// What to ask for.
        path: String,
    },
}

/// Why a text is not the URL of a proxy's health.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{0}\" is not where a proxy can be asked: write http://ADDRESS:PORT/PATH, or none")]
pub struct ProxyHealthUrlError(String);

impl FromStr for ProxyHealthUrl {
    type Err = ProxyHealthUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::None);
        }
        let parts = || {
            let rest = text.strip_prefix("http://")?;
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let is_printable = path.bytes().all(|octet| octet.is_ascii_graphic());
            let local = authority
                .strip_prefix("localhost:")
                .and_then(|port| port.parse().ok())
                .map(|port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
            let address = local.or_else(|| authority.parse().ok())?;
            is_printable.then(|| Self::Http {
                address,
                path: format!("/{path}"),
            })
        };
        parts().ok_or_else(|| ProxyHealthUrlError(text.to_owned()))
    }
}

impl Arguments {
    /// Where metrics and status are served, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.common.metrics_address_or(local(METRICS_PORT))
    }

    /// Where health is served, if anywhere.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.common.health_address_or(local(HEALTH_PORT))
    }

    /// Time between two heartbeats.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms.into())
    }

    /// What decides about candidates.
    pub fn settings(&self) -> Settings {
        let default = self.load_balancer_class.is_empty();
        let classes: BTreeSet<_> = if default {
            [DEFAULT_CLASS.to_owned()].into()
        } else {
            self.load_balancer_class.iter().cloned().collect()
        };
        Settings {
            node: NodeName::new(self.node.node_name.as_str()),
            classes,
            unnamed_class: self.serve_classless.unwrap_or(default),
            ignore_exclude_label: self.ignore_exclude_lb,
            leave_cordoned: self.leave_cordoned_nodes,
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The class that is announced if the operator names none.
const DEFAULT_CLASS: &str = "foghorn.dev/foghorn";
/// Port of `/metrics` and `/status` by default.
pub const METRICS_PORT: u16 = 7474;
/// Port of `/healthz`, `/livez` and `/readyz` by default.
pub const HEALTH_PORT: u16 = 7475;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_is_named_is_the_only_one() {
        let classes = |arguments: &[&str]| {
            let name = ["foghorn-speaker", "--node-name=a", "--insecure-heartbeats"];
            let arguments = Arguments::try_parse_from(name.iter().chain(arguments)).unwrap();
            let Settings {
                classes,
                unnamed_class,
                ..
            } = arguments.settings();
            (
                classes.into_iter().collect::<Vec<_>>().join(" "),
                unnamed_class,
            )
        };
        for (arguments, names, unnamed) in [
            (&[][..], "foghorn.dev/foghorn", true),
            (&["--serve-classless=false"], "foghorn.dev/foghorn", false),
            (&["--lb-class=a", "--load-balancer-class=b"], "a b", false),
            (&["--lb-class=a", "--serve-classless"], "a", true),
        ] {
            assert_eq!(classes(arguments), (names.to_owned(), unnamed));
        }
    }

    #[test]
    fn reads_where_a_proxy_can_be_asked() {
        let http = |address: &str, path: &str| {
            Ok(ProxyHealthUrl::Http {
                address: address.parse().unwrap(),
                path: path.to_owned(),
            })
        };
        for (text, expected) in [
            ("none", Ok(ProxyHealthUrl::None)),
            ("http://127.0.0.1:10256/healthz", http("127.0.0.1:10256", "/healthz")),
            ("http://localhost:80", http("127.0.0.1:80", "/")),
            ("http://[::1]:80/a/b", http("[::1]:80", "/a/b")),
            ("https://127.0.0.1:1/", Err("\"https://127.0.0.1:1/\" is not where a proxy can be asked: write http://ADDRESS:PORT/PATH, or none".to_owned())),
            ("http://127.0.0.1/", Err("\"http://127.0.0.1/\" is not where a proxy can be asked: write http://ADDRESS:PORT/PATH, or none".to_owned())),
        ] {
            assert_eq!(text.parse().map_err(|error: ProxyHealthUrlError| error.to_string()), expected);
        }
    }

    #[test]
    fn a_speaker_says_how_its_heartbeats_are_believed_or_does_not_start() {
        let parse = |arguments: &[&str]| {
            let name = ["foghorn-speaker", "--node-name", "node-1"];
            Arguments::try_parse_from(name.iter().chain(arguments))
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["--heartbeat-key-file", "/key"]).is_ok());
        assert!(parse(&["--insecure-heartbeats"]).is_ok());
        assert!(parse(&["--insecure-heartbeats", "--heartbeat-key-file", "/key"]).is_err());
    }

    #[test]
    fn only_announcing_needs_a_node_and_a_key() {
        let parse = |arguments: &[&'static str]| {
            let task = Task::parse(["foghorn-speaker"].iter().chain(arguments));
            match task {
                Ok(Task::Announce(_)) => "announce",
                Ok(Task::Verb(Verb::Doctor)) => "doctor",
                Err(_) => "refused",
            }
        };
        for (arguments, expected) in [
            (&["doctor"][..], "doctor"),
            (&["--node-name=a", "--insecure-heartbeats"], "announce"),
            (
                &["--node-name=a", "--insecure-heartbeats", "doctor"],
                "refused",
            ),
            (&["--node-name=a"], "refused"),
            (&["--insecure-heartbeats"], "refused"),
            (&["nurse"], "refused"),
            (&[], "refused"),
        ] {
            assert_eq!(parse(arguments), expected, "{arguments:?}");
        }
        let help = Task::parse(["foghorn-speaker", "--help"]).unwrap_err();
        assert!(help.to_string().starts_with("Announces the addresses"));
    }
}
