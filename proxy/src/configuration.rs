//! The command line, and a `KubeProxyConfiguration` file beside it: an argument that is given goes before what the file says.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use config::kube_proxy::flags::{self, FlagWithoutEffect};
use config::kube_proxy::{self, KubeProxyConfiguration, LocalMode, Mode, WithoutEffect};
use config::refusal::Refusal;
use config_runtime::arguments::ListenAddress;

use crate::arguments::{Arguments, DetectLocalMode};

/// Why the file that `--config` names cannot be followed.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("--config names {0} files: write one, as kube-proxy has it")]
    SeveralFiles(usize),
    #[error("failed to read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
}

/// Something that a file or an argument asks for and does not get.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unheeded {
    #[error("{0}")]
    Field(WithoutEffect),
    #[error("{0}")]
    Flag(FlagWithoutEffect),
}

/// What the command line says.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The arguments, with defaults for what was not given.
    pub arguments: Arguments,
    /// What was given.
    pub matches: ArgMatches,
    /// Arguments of kube-proxy that do nothing here.
    pub unheeded: Vec<Unheeded>,
}

impl CommandLine {
    /// Reads words, the first of which is the name of the program.
    ///
    /// # Errors
    /// If they are wrong, or ask for help.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut words = words.into_iter();
        let program = words.next();
        let (ours, idle) = flags::part(words);
        let words = program.into_iter().chain(ours);
        let matches = Arguments::command().try_get_matches_from(words)?;
        Ok(Self {
            arguments: Arguments::from_arg_matches(&matches)?,
            matches,
            unheeded: idle.into_iter().map(Unheeded::Flag).collect(),
        })
    }
}

/// Reads the file that `--config` names, if it names one, and fills in what was not given as an argument; what was asked
/// for in vain.
///
/// # Errors
/// If the file cannot be read, or something in it is wrong.
pub fn follow_file(
    arguments: &mut Arguments,
    matches: &ArgMatches,
) -> Result<Vec<Unheeded>, ConfigurationError> {
    let path = match &arguments.common.config[..] {
        [] => return Ok(Vec::new()),
        [path] => path.clone(),
        several => return Err(ConfigurationError::SeveralFiles(several.len())),
    };
    let file = read(&path)?;
    let given = |name: &str| {
        let source = matches.value_source(name);
        matches!(
            source,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        )
    };
    Ok(fill(arguments, file, given))
}

fn read(path: &Path) -> Result<KubeProxyConfiguration, ConfigurationError> {
    let content = std::fs::read(path).map_err(|source| ConfigurationError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    kube_proxy::read(&path.display().to_string(), &content).map_err(ConfigurationError::Refused)
}

fn fill(
    arguments: &mut Arguments,
    file: KubeProxyConfiguration,
    given: impl Fn(&str) -> bool,
) -> Vec<Unheeded> {
    let without_effect = file.without_effect.into_iter();
    let unheeded = without_effect.map(Unheeded::Field).collect();
    if !given("dataplane")
        && let Some(mode) = file.mode
    {
        dataplane(mode).clone_into(&mut arguments.dataplane);
    }
    if !given("iptables_masquerade_bit") {
        let bit = &mut arguments.iptables_masquerade_bit;
        *bit = file.masquerade_bit.unwrap_or(*bit);
    }
    if !given("ipvs_scheduler") {
        let scheduler = &mut arguments.ipvs_scheduler;
        *scheduler = file.ipvs_scheduler.unwrap_or(*scheduler);
    }
    for (timeout, of_file) in [
        (&mut arguments.ipvs_tcp_timeout, file.ipvs_tcp_timeout),
        (
            &mut arguments.ipvs_tcpfin_timeout,
            file.ipvs_tcp_fin_timeout,
        ),
        (&mut arguments.ipvs_udp_timeout, file.ipvs_udp_timeout),
    ] {
        *timeout = timeout.or(of_file);
    }
    let listen = |address| Some(ListenAddress(Some(address)));
    let common = &mut arguments.common;
    common.kubeconfig = common
        .kubeconfig
        .take()
        .or(file.kubeconfig.map(PathBuf::from));
    arguments.node_name = arguments.node_name.take().or(file.hostname_override);
    if !given("healthz_bind_address") && !given("health_address") {
        arguments.healthz_bind_address = file.healthz_bind_address.and_then(listen);
    }
    if !given("metrics_bind_address") && !given("metrics_address") {
        arguments.metrics_bind_address = file.metrics_bind_address.and_then(listen);
    }
    if !given("nodeport_addresses") && !file.node_port_addresses.is_empty() {
        arguments.nodeport_addresses = file.node_port_addresses;
    }
    if !given("cluster_cidr") {
        arguments.cluster_cidr = file.cluster_cidrs;
    }
    let detect_local_mode = file.detect_local_mode.map(DetectLocalMode::from);
    arguments.detect_local_mode = arguments.detect_local_mode.or(detect_local_mode);
    let bridge = arguments.pod_bridge_interface.take();
    arguments.pod_bridge_interface = bridge.or(file.bridge_interface);
    let prefix = arguments.pod_interface_name_prefix.take();
    arguments.pod_interface_name_prefix = prefix.or(file.interface_name_prefix);
    arguments.masquerade_all |= file.masquerade_all;
    arguments.conntrack_tcp_be_liberal |= file.tcp_be_liberal;
    unheeded
}

/// The data plane of a mode.
const fn dataplane(mode: Mode) -> &'static str {
    match mode {
        Mode::Nftables => "nftables",
        Mode::Iptables => "iptables",
        Mode::Ipvs => "ipvs",
    }
}

impl From<LocalMode> for DetectLocalMode {
    fn from(mode: LocalMode) -> Self {
        match mode {
            LocalMode::ClusterCidr => Self::ClusterCidr,
            LocalMode::NodeCidr => Self::NodeCidr,
            LocalMode::BridgeInterface => Self::BridgeInterface,
            LocalMode::InterfaceNamePrefix => Self::InterfaceNamePrefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn command_line(line: &str) -> CommandLine {
        CommandLine::read(line.split_whitespace().map(OsString::from)).unwrap()
    }

    /// The arguments after a command line and a file with this body, and what was asked for in vain.
    fn after(words: &str, body: &str) -> (Arguments, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.conf");
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        std::fs::write(&path, format!("{head}{body}")).unwrap();
        let line = format!("foghorn-proxy --config {} {words}", path.display());
        let CommandLine {
            mut arguments,
            matches,
            mut unheeded,
        } = command_line(&line);
        unheeded.extend(follow_file(&mut arguments, &matches).unwrap());
        (
            arguments,
            unheeded.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn the_file_says_what_no_argument_says() {
        let body = "clientConnection: {kubeconfig: /etc/kube}
hostnameOverride: node-1
mode: nftables
healthzBindAddress: 127.0.0.1
clusterCIDR: 10.244.0.0/16
nodePortAddresses: [192.0.2.0/24]
iptables: {masqueradeAll: false}
nftables: {masqueradeAll: true}
conntrack: {tcpBeLiberal: true}
";
        let (filled, unheeded) = after("", body);
        assert_eq!(unheeded, Vec::<String>::new());
        assert_eq!(filled.common.kubeconfig, Some("/etc/kube".into()));
        assert_eq!(filled.node_name.as_deref(), Some("node-1"));
        assert_eq!(
            filled.health_address().unwrap().to_string(),
            "127.0.0.1:10256"
        );
        assert_eq!(
            filled.metrics_address().unwrap().to_string(),
            "127.0.0.1:10249"
        );
        assert_eq!(filled.cluster_cidr, ["10.244.0.0/16".parse().unwrap()]);
        assert_eq!(filled.nodeport_addresses, ["192.0.2.0/24"]);
        assert!(filled.masquerade_all && filled.conntrack_tcp_be_liberal);

        let words = "--hostname-override node-2 --cluster-cidr 10.0.0.0/8 --nodeport-addresses primary \
                     --health-address :1 --kubeconfig /other";
        let (filled, _) = after(words, body);
        assert_eq!(filled.common.kubeconfig, Some("/other".into()));
        assert_eq!(filled.node_name.as_deref(), Some("node-2"));
        assert_eq!(filled.health_address().unwrap().port(), 1);
        assert_eq!(filled.cluster_cidr, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(filled.nodeport_addresses, ["primary"]);
    }

    #[test]
    fn what_is_asked_for_in_vain_is_said() {
        let (arguments, unheeded) = after("--node-name a", "mode: ipvs\nipvs: {strictARP: true}");
        let [field] = &unheeded[..] else {
            panic!("{unheeded:?}");
        };
        assert_eq!(arguments.dataplane, "ipvs");
        assert!(field.ends_with(
            ":4:19: ipvs.strictARP has no effect: no address of a Service is told to the LAN"
        ));
        let ipvs = "mode: ipvs
ipvs: {scheduler: sh, tcpTimeout: 1h, udpTimeout: 10s}
iptables: {masqueradeBit: 9}";
        let (arguments, unheeded) = after("--ipvs-udp-timeout 20s", ipvs);
        assert_eq!(unheeded, [""; 0]);
        assert_eq!(arguments.ipvs_scheduler.name(), "sh");
        let seconds = |timeout: Option<Duration>| timeout.map(|timeout| timeout.as_secs());
        assert_eq!(seconds(arguments.ipvs_tcp_timeout), Some(3600));
        assert_eq!(seconds(arguments.ipvs_udp_timeout), Some(20));
        assert_eq!(arguments.iptables_masquerade_bit, 9);
        let (arguments, _) = after("--ipvs-scheduler rr --iptables-masquerade-bit 14", ipvs);
        assert_eq!(arguments.ipvs_scheduler.name(), "rr");
        assert_eq!(arguments.iptables_masquerade_bit, 14);
        let words = "--ipvs-strict-arp --conntrack-min 0 --ipvs-scheduler rr --v=2";
        let (arguments, unheeded) = after(words, ipvs);
        assert_eq!(arguments.ipvs_scheduler.name(), "rr");
        assert_eq!(unheeded.len(), 3, "{unheeded:?}");
        for mode in ["nftables", "iptables"] {
            let (arguments, unheeded) = after("", &format!("mode: {mode}"));
            assert_eq!((arguments.dataplane.as_str(), unheeded), (mode, Vec::new()));
        }
    }

    #[test]
    fn what_cannot_be_followed_ends_the_program() {
        let said = |words: &str| {
            let line = format!("foghorn-proxy {words}");
            let mut line = command_line(&line);
            follow_file(&mut line.arguments, &line.matches)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said("--config a --config b"),
            "--config names 2 files: write one, as kube-proxy has it"
        );
        assert_eq!(
            said("--config /does/not/exist"),
            "failed to read /does/not/exist"
        );
    }
}
