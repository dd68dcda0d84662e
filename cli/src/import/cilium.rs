//! Cilium: `CiliumLoadBalancerIPPool` and `CiliumL2AnnouncementPolicy`.

use config::crd::{IPAddressPoolSpec, L2AdvertisementSpec, ServiceAllocationSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::{Imported, Source, Translated, network};

/// Stands for the namespace of a Service among its labels.
const NAMESPACE: &str = "io.kubernetes.service.namespace";
/// Stands for the name of a Service among its labels.
const NAME: &str = "io.kubernetes.service.name";

pub(super) fn translate(source: &Source<'_>, kind: &str, imported: &mut Imported) {
    match kind {
        "CiliumLoadBalancerIPPool" => pool(source, imported),
        "CiliumL2AnnouncementPolicy" => policy(source, imported),
        kind if kind.starts_with("CiliumBGP") => imported.notes.push(format!(
            "{} has no counterpart: Foghorn announces by ARP and NDP only",
            source.title()
        )),
        _ => {}
    }
}

/// One of `spec.blocks`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Block {
    cidr: String,
    start: String,
    stop: String,
}

fn pool(source: &Source<'_>, imported: &mut Imported) {
    let mut notes = Vec::new();
    let mut blocks: Vec<Block> = source.part("/spec/blocks", &mut notes);
    blocks.extend(source.part::<Vec<Block>>("/spec/cidrs", &mut notes));
    let keeps_ends = source.text("/spec/allowFirstLastIPs") != "No";
    let addresses = blocks.iter().map(|block| match block {
        Block { cidr, .. } if !cidr.is_empty() && keeps_ends => network(cidr, &mut notes),
        Block { cidr, .. } if !cidr.is_empty() => without_ends(cidr),
        Block { start, stop, .. } if stop.is_empty() => start.clone(),
        Block { start, stop, .. } => format!("{start}-{stop}"),
    });
    let addresses = addresses.collect();
    let selector: LabelSelector = source.part("/spec/serviceSelector", &mut notes);
    let spec = IPAddressPoolSpec {
        addresses,
        auto_assign: true,
        disabled: source.is_true("/spec/disabled"),
        service_allocation: allocation(selector, &mut notes),
        ..IPAddressPoolSpec::default()
    };
    let pool = Translated::pool(source.title(), source.name(), &spec);
    imported.objects.push(pool.with_notes(notes));
}

fn without_ends(text: &str) -> String {
    let Ok(network) = text.trim().parse::<ipnet::IpNet>() else {
        return text.to_owned();
    };
    if network.max_prefix_len() - network.prefix_len() < 2 {
        return network.trunc().to_string();
    }
    let (first, last) = (network.network(), network.broadcast());
    let before = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() - 1).into(),
        std::net::IpAddr::V6(v6) => {
            std::net::IpAddr::from(std::net::Ipv6Addr::from_bits(v6.to_bits() - 1))
        }
    };
    let first = config::address::successor(first).unwrap_or(first);
    format!("{first}-{}", before(last))
}

/// What a selector of Services says about namespaces and labels.
fn allocation(
    mut selector: LabelSelector,
    notes: &mut Vec<String>,
) -> Option<ServiceAllocationSpec> {
    let mut namespaces = Vec::new();
    if let Some(labels) = &mut selector.match_labels {
        namespaces.extend(labels.remove(NAMESPACE));
        if let Some(name) = labels.remove(NAME) {
            notes.push(format!(
                "served only the Service named {name}: reserve an address for it (spec.reservations), and set autoAssign: false"
            ));
        }
    }
    if let Some(expressions) = &mut selector.match_expressions {
        expressions.retain(|expression| {
            match (expression.key.as_str(), expression.operator.as_str()) {
                (NAMESPACE, "In") => {
                    namespaces.extend(expression.values.iter().flatten().cloned());
                    false
                }
                (NAMESPACE | NAME, operator) => {
                    notes.push(format!(
                        "{operator} {} of {} has no counterpart",
                        expression
                            .values
                            .iter()
                            .flatten()
                            .cloned()
                            .collect::<Vec<_>>()
                            .join(", "),
                        expression.key
                    ));
                    false
                }
                _ => true,
            }
        });
    }
    let is_empty = is_empty(&selector);
    (!is_empty || !namespaces.is_empty()).then(|| ServiceAllocationSpec {
        namespaces,
        service_selectors: if is_empty {
            Vec::new()
        } else {
            vec![tidy(selector)]
        },
        ..ServiceAllocationSpec::default()
    })
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}

fn tidy(mut selector: LabelSelector) -> LabelSelector {
    selector.match_labels = selector.match_labels.filter(|labels| !labels.is_empty());
    selector.match_expressions = selector.match_expressions.filter(|found| !found.is_empty());
    selector
}

fn policy(source: &Source<'_>, imported: &mut Imported) {
    if !source.is_true("/spec/loadBalancerIPs") {
        imported.notes.push(format!(
            "{} announces no addresses of load balancers (loadBalancerIPs: false): left out",
            source.title()
        ));
        return;
    }
    let mut notes = Vec::new();
    if source.is_true("/spec/externalIPs") {
        notes.push("externalIPs are not announced".to_owned());
    }
    let services: LabelSelector = source.part("/spec/serviceSelector", &mut notes);
    let nodes: LabelSelector = source.part("/spec/nodeSelector", &mut notes);
    if let Some(allocation) =
        allocation(services.clone(), &mut notes).filter(|found| !found.namespaces.is_empty())
    {
        notes.push(format!(
            "was for Services of the namespaces {}: name the pools of those in ipAddressPools instead",
            allocation.namespaces.join(", ")
        ));
    }
    let selectors = allocation(services, &mut Vec::new()).map(|found| found.service_selectors);
    let patterns: Vec<String> = source.part("/spec/interfaces", &mut notes);
    let mut interfaces = Vec::new();
    for pattern in &patterns {
        let name = pattern.trim_start_matches('^').trim_end_matches('$');
        if name
            .chars()
            .all(|found| found.is_ascii_alphanumeric() || "-_.@".contains(found))
            && !name.contains('.')
        {
            interfaces.push(name.to_owned());
        } else {
            notes.push(format!(
                "interfaces that match {pattern}: write their names"
            ));
        }
    }
    let spec = L2AdvertisementSpec {
        service_selectors: selectors.unwrap_or_default(),
        node_selectors: if is_empty(&nodes) {
            Vec::new()
        } else {
            vec![tidy(nodes)]
        },
        interfaces,
        ..L2AdvertisementSpec::default()
    };
    let advertisement = Translated::advertisement(source.title(), source.name(), &spec);
    imported.objects.push(advertisement.with_notes(notes));
}
