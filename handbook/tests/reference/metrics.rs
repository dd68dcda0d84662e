//! Metrics of the programs, as they export them.

use cli::arguments;
use cli::cluster::Cluster;
use cli::dump;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proxy::metrics::{Code, Metrics, Rules};
use proxy::mode::Mode;
use proxy::work::WithoutLocal;

use crate::Block;
use crate::table::{Table, code, sentence};

/// One table of all programs.
pub(crate) fn block() -> Block {
    let mut table = Table::new(&["Metric", "Kind", "Labels", "Meaning"]);
    let text = exported();
    let common = metrics(&text);
    let modes = [Mode::Nftables, Mode::Iptables, Mode::Ipvs];
    let texts = modes.map(exported_by_proxy);
    let of_modes: Vec<_> = modes
        .into_iter()
        .zip(texts.iter().map(|text| metrics(text)))
        .collect();
    let mut of_proxy: Vec<(&Metric<'_>, Vec<Mode>)> = Vec::new();
    for (mode, metrics) in &of_modes {
        for metric in metrics {
            match of_proxy
                .iter_mut()
                .find(|(known, _)| known.name == metric.name)
            {
                Some((_, in_modes)) => in_modes.push(*mode),
                None => of_proxy.push((metric, vec![*mode])),
            }
        }
    }
    let found = common.len() + of_proxy.len();
    assert!(found > 35, "only {found} metrics: are they found?");
    let common = common.iter().map(|metric| (metric, modes.to_vec()));
    for (metric, in_modes) in common.chain(of_proxy) {
        let labels: Vec<String> = metric.labels.iter().map(|label| code(label)).collect();
        let mut meaning = sentence(metric.help);
        if in_modes.len() < modes.len() {
            let names: Vec<&str> = in_modes.into_iter().map(Mode::name).collect();
            meaning = format!("{meaning} (mode {})", names.join(", "));
        }
        table.row(&[
            code(&metric.name),
            metric.kind.to_owned(),
            labels.join(", "),
            meaning,
        ]);
    }
    ("metrics".to_owned(), table.text())
}

/// What the programs export once everything that has labels has a sample.
fn exported() -> String {
    let mut registry = Registry::default();
    let controller = controller::metrics::Metrics::register(&mut registry);
    let objects = dump::objects(EXAMPLE.as_bytes()).unwrap();
    let classes = arguments::Cluster::default().classes();
    controller.set_allocation(&Cluster::read(objects).decide(&classes));

    let speaker = speaker::metrics::Metrics::register(&mut registry);
    let address = "192.0.2.1".to_owned();
    let peer = speaker::metrics::Peer {
        node: "node-2".to_owned(),
    };
    drop(
        speaker
            .owned
            .get_or_create(&speaker::metrics::Address { address }),
    );
    drop(speaker.peers.get_or_create(&peer));

    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// The same of the proxy in one of its modes.
fn exported_by_proxy(mode: Mode) -> String {
    let mut registry = Registry::default();
    let proxy = Metrics::register(&mut registry, mode);
    for answers in [&proxy.healthz, &proxy.livez] {
        drop(answers.get_or_create(&Code { code: 200 }));
    }
    proxy.set_without_local(WithoutLocal::default());
    for rules in [&proxy.iptables_rules, &proxy.iptables_written] {
        drop(rules.get_or_create(&Rules {
            table: "nat",
            ip_family: "IPv4".to_owned(),
        }));
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// A pool, and a Service that does not get what it asks for.
const EXAMPLE: &str = "
apiVersion: foghorn.dev/v1alpha1
kind: IPAddressPool
metadata: {name: lan}
spec: {addresses: [192.0.2.1]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, uid: a, annotations: {foghorn.dev/address-pool: none}}
spec: {type: LoadBalancer, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80}]}
";

struct Metric<'a> {
    name: String,
    kind: &'a str,
    labels: Vec<&'a str>,
    help: &'a str,
}

/// Reads the text that Prometheus reads.
fn metrics(text: &str) -> Vec<Metric<'_>> {
    let mut metrics = Vec::new();
    for part in text.split("# HELP ").skip(1) {
        let (name, rest) = part.split_once(' ').unwrap();
        let (help, rest) = rest.split_once('\n').unwrap();
        let mut lines = rest.lines();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let sample = lines
            .find(|line| !line.starts_with('#'))
            .unwrap_or_default();
        let labels = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels).split(',');
        let labels = labels.filter_map(|label| Some(label.split_once('=')?.0));
        let ending = if kind == "counter" { "_total" } else { "" };
        metrics.push(Metric {
            name: format!("{name}{ending}"),
            kind,
            labels: labels.filter(|label| *label != "le").collect(),
            help,
        });
    }
    metrics
}
