//! What is said of each file.

use std::time::Duration;

use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn read_all(text: &str) -> Result<KubeProxyConfiguration, Vec<String>> {
    read("kube-proxy.yaml", text.as_bytes())
        .map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn refused(body: &str, expected: &[&str]) {
    let found = read_all(&format!("{HEAD}{body}")).unwrap_err();
    assert_eq!(found, expected, "{body}");
}

#[track_caller]
fn warned(body: &str, expected: &[&str]) {
    let read = read_all(&format!("{HEAD}{body}")).unwrap();
    let found: Vec<String> = read
        .without_effect
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, expected, "{body}");
}

#[test]
fn reads_what_applies() {
    let read = read_all(&format!(
        "{HEAD}clientConnection: {{kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}}
hostnameOverride: node-1
healthzBindAddress: 0.0.0.0
metricsBindAddress: '[::1]:10249'
mode: nftables
nftables: {{masqueradeAll: true}}
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
detectLocalMode: BridgeInterface
detectLocal: {{bridgeInterface: cbr0, interfaceNamePrefix: veth}}
nodePortAddresses: [192.0.2.0/24, '2001:db8::/64']
conntrack: {{tcpBeLiberal: true}}
"
    ));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        read,
        Ok(KubeProxyConfiguration {
            kubeconfig: text("/var/lib/kube-proxy/kubeconfig.conf"),
            hostname_override: text("node-1"),
            healthz_bind_address: "0.0.0.0:10256".parse().ok(),
            metrics_bind_address: "[::1]:10249".parse().ok(),
            mode: Some(Mode::Nftables),
            masquerade_all: true,
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10:244::/56".parse().unwrap()
            ],
            detect_local_mode: Some(LocalMode::BridgeInterface),
            bridge_interface: text("cbr0"),
            interface_name_prefix: text("veth"),
            node_port_addresses: vec!["192.0.2.0/24".to_owned(), "2001:db8::/64".to_owned()],
            tcp_be_liberal: true,
            ..KubeProxyConfiguration::default()
        })
    );
}

#[test]
fn what_kubeadm_writes_unasked_is_nothing_to_speak_of() {
    let text = include_str!("kubeadm.yaml");
    assert_eq!(
        read_all(text),
        Ok(KubeProxyConfiguration {
            kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".to_owned()),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            ..KubeProxyConfiguration::default()
        })
    );
}

#[test]
fn fields_that_do_nothing_are_named_with_the_reason() {
    for (body, expected) in [
        ("conntrack: {maxPerCore: 0, min: null}", &[][..]),
        (
            "conntrack:\n  maxPerCore: 32768\n  udpTimeout: 30s",
            &[
                "kube-proxy.yaml:4:15: conntrack.maxPerCore has no effect: limits of the connection tracking are set by sysctl",
                "kube-proxy.yaml:5:15: conntrack.udpTimeout has no effect: limits of the connection tracking are set by sysctl",
            ],
        ),
        (
            "mode: ipvs\nipvs: {scheduler: rr, strictARP: true}",
            &[
                "kube-proxy.yaml:4:34: ipvs.strictARP has no effect: no address of a Service is told to the LAN",
            ],
        ),
        (
            "nftables: {minSyncPeriod: 1ms}",
            &[
                "kube-proxy.yaml:3:27: nftables.minSyncPeriod has no effect: each change goes to the kernel at once",
            ],
        ),
        (
            "logging: {verbosity: 4}",
            &["kube-proxy.yaml:3:10: logging has no effect: write --log-level and --log-format"],
        ),
        (
            "mode: nftables\niptables: {masqueradeAll: true}",
            &[
                "kube-proxy.yaml:4:27: iptables.masqueradeAll has no effect: it is that of another mode",
            ],
        ),
        ("bindAddress: 0.0.0.0", &[]),
        (
            "bindAddress: 192.0.2.1",
            &[
                "kube-proxy.yaml:3:14: bindAddress has no effect: write healthzBindAddress and metricsBindAddress",
            ],
        ),
    ] {
        warned(body, expected);
    }
}

#[test]
fn what_ipvs_and_iptables_are_told_is_read() {
    let body = "iptables: {masqueradeBit: 7}
ipvs: {scheduler: wlc, tcpTimeout: 1h15m, tcpFinTimeout: 1.5s, udpTimeout: 0s}";
    let read = read_all(&format!("{HEAD}{body}")).unwrap();
    assert_eq!(read.masquerade_bit, Some(7));
    let scheduler = Some(Scheduler::WeightedLeastConnection);
    assert_eq!(read.ipvs_scheduler, scheduler);
    assert_eq!(read.ipvs_tcp_timeout, Some(Duration::from_secs(75 * 60)));
    assert_eq!(read.ipvs_tcp_fin_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(read.ipvs_udp_timeout, None);
    assert!(read.without_effect.is_empty());
    for (body, expected) in [
        (
            "iptables: {masqueradeBit: 32}",
            &[
                "kube-proxy.yaml:3:27: iptables.masqueradeBit: 32 is not the bit of a mark: write one from 0 to 31",
            ][..],
        ),
        (
            "ipvs: {scheduler: fastest, udpTimeout: -1s}",
            &[
                "kube-proxy.yaml:3:19: ipvs.scheduler: \"fastest\" is no scheduler of IPVS: write one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh",
                "kube-proxy.yaml:3:40: ipvs.udpTimeout: -1s is negative: write a duration such as 1m30s",
            ],
        ),
    ] {
        refused(body, expected);
    }
}

#[test]
fn masquerade_all_is_that_of_the_mode() {
    for (body, expected) in [
        ("iptables: {masqueradeAll: true}", true),
        ("mode: ipvs\niptables: {masqueradeAll: true}", true),
        ("mode: nftables\nnftables: {masqueradeAll: true}", true),
        ("mode: nftables\niptables: {masqueradeAll: true}", false),
        ("nftables: {masqueradeAll: true}", false),
    ] {
        let read = read_all(&format!("{HEAD}{body}")).unwrap();
        assert_eq!(read.masquerade_all, expected, "{body}");
    }
}

#[test]
fn what_is_misspelt_or_wrong_is_refused_with_its_place() {
    for (body, expected) in [
        (
            "clusterCidr: 10.244.0.0/16",
            &[
                "kube-proxy.yaml:3:1: there is no field \"clusterCidr\": did you mean \"clusterCIDR\"?",
            ][..],
        ),
        (
            "nftables:\n  masqueradAll: true",
            &[
                "kube-proxy.yaml:4:3: nftables: there is no field \"masqueradAll\": did you mean \"masqueradeAll\"?",
            ],
        ),
        (
            "mode: nft",
            &["kube-proxy.yaml:3:7: mode: \"nft\" is none of iptables, ipvs, nftables"],
        ),
        (
            "detectLocalMode: clusterCIDR",
            &[
                "kube-proxy.yaml:3:18: detectLocalMode: \"clusterCIDR\" is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix",
            ],
        ),
        (
            "clusterCIDR: 10.244.0.0/16,10.245.0.0",
            &[
                "kube-proxy.yaml:3:14: clusterCIDR: \"10.245.0.0\" is not a prefix: write one such as 192.0.2.0/24",
            ],
        ),
        (
            "nodePortAddresses: [primary, 192.0.2.0/24]",
            &[
                "kube-proxy.yaml:3:21: nodePortAddresses[0]: \"primary\" is not a prefix: write one such as 192.0.2.0/24",
            ],
        ),
        (
            "healthzBindAddress: everywhere",
            &[
                "kube-proxy.yaml:3:21: healthzBindAddress: \"everywhere\" is not an address: write one such as 0.0.0.0:10256",
            ],
        ),
        (
            "conntrack: {tcpBeLiberal: 'yes', maxPerCore: many, udpTimeout: 30}",
            &[
                "kube-proxy.yaml:3:27: conntrack.tcpBeLiberal: yes is not true or false: write true or false",
                "kube-proxy.yaml:3:46: conntrack.maxPerCore: many is not a whole number: write a whole number",
                "kube-proxy.yaml:3:64: conntrack.udpTimeout: 30 is not a duration such as 1m30s: write a duration such as 1m30s",
            ],
        ),
        (
            "iptables: true",
            &["kube-proxy.yaml:3:11: iptables: true is not a mapping: write a mapping"],
        ),
        (
            "nodePortAddresses: primary",
            &[
                "kube-proxy.yaml:3:20: nodePortAddresses: primary is not a list of texts: write a list of texts",
            ],
        ),
    ] {
        refused(body, expected);
    }
}

#[test]
fn another_document_is_refused() {
    for (text, expected) in [
        (
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
            &[
                "kube-proxy.yaml:1:13: apiVersion: \"kubelet.config.k8s.io/v1beta1\" is none of kubeproxy.config.k8s.io/v1alpha1",
                "kube-proxy.yaml:2:7: kind: \"KubeletConfiguration\" is none of KubeProxyConfiguration",
            ][..],
        ),
        (
            "mode: nftables",
            &[
                "kube-proxy.yaml:1:1: this is not an object of Kubernetes: begin it with apiVersion and kind",
            ],
        ),
        (
            "",
            &[
                "kube-proxy.yaml:1:1: this is not an object of Kubernetes: begin it with apiVersion and kind",
            ],
        ),
    ] {
        assert_eq!(read_all(text).unwrap_err(), expected, "{text}");
    }
    let twice = format!("{HEAD}mode: nftables\nmode: iptables\n");
    assert_eq!(
        read_all(&twice).unwrap_err(),
        ["kube-proxy.yaml:4:1: the key \"mode\" is written twice in this mapping: remove one"]
    );
    assert!(read("x", b"\xff\xfe").is_err());
    assert!(read_all("a: [").is_err());
}

#[test]
fn durations_are_those_of_go() {
    for text in ["0", "0s", "1h30m", "1.5h", "-3ms", "10µs"] {
        assert!(duration_of(text).is_some(), "{text}");
    }
    for text in ["", "1", "s", "1 s", "1d", "..s", "1h 3m"] {
        assert!(duration_of(text).is_none(), "{text}");
    }
}
