//! The ConfigMap of the kube-vip cloud provider: `cidr-…`, `range-…` and `interface-…` for each namespace or `global`.

use std::collections::BTreeMap;

use config::address::AddressRange;
use config::crd::{IPAddressPoolSpec, L2AdvertisementSpec, ServiceAllocationSpec};

use super::{Imported, Source, Translated, network};

/// What is not about one namespace.
const GLOBAL: &str = "global";

pub(super) fn translate(source: &Source<'_>, imported: &mut Imported) {
    let data: BTreeMap<String, String> = source.part("/data", &mut imported.notes);
    let skips_ends = data
        .get("skip-end-ips-in-cidr")
        .is_some_and(|text| text == "true");
    let mut namespaces: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut notes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut interfaces = BTreeMap::new();
    for (key, value) in &data {
        let Some((what, namespace)) = key.split_once('-') else {
            continue;
        };
        let parts = value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let noted = notes.entry(namespace).or_default();
        match what {
            "cidr" | "range" => {
                let addresses = namespaces.entry(namespace).or_default();
                for part in parts {
                    if part.starts_with("0.0.0.0") {
                        noted.push(format!(
                            "{part} stands for DHCP, which has no counterpart: write addresses"
                        ));
                    } else if skips_ends && what == "cidr" {
                        addresses.push(without_ends(part));
                    } else {
                        addresses.push(network(part, noted));
                    }
                }
            }
            "interface" => {
                interfaces.insert(namespace, value.trim().to_owned());
            }
            _ if key.starts_with("allow-share-") => {
                let namespace = key.trim_start_matches("allow-share-");
                let note = "its Services shared addresses by themselves: give those that shall the annotation foghorn.dev/allow-shared-ip with a common key";
                if value == "true" {
                    notes.entry(namespace).or_default().push(note.to_owned());
                }
            }
            _ if key == "search-order" && value == "desc" => imported.notes.push(
                "search-order: desc has no counterpart: addresses are given in the order written"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    for (namespace, addresses) in namespaces {
        let notes = notes.remove(namespace).unwrap_or_default();
        pool(source, namespace, addresses, notes, imported);
        if let Some(interface) = interfaces.remove(namespace) {
            let name = format!("kube-vip-{namespace}");
            let spec = L2AdvertisementSpec {
                ip_address_pools: vec![name.clone()],
                interfaces: vec![interface],
                ..L2AdvertisementSpec::default()
            };
            let from = format!("{}, interface-{namespace}", source.title());
            imported
                .objects
                .push(Translated::advertisement(from, &name, &spec));
        }
    }
}

fn pool(
    source: &Source<'_>,
    namespace: &str,
    addresses: Vec<String>,
    mut notes: Vec<String>,
    imported: &mut Imported,
) {
    let from = format!("{}, pool of {namespace}", source.title());
    if addresses.is_empty() {
        imported
            .notes
            .extend(notes.iter().map(|note| format!("{from}: {note}")));
        return;
    }
    let spec = IPAddressPoolSpec {
        addresses: merged(addresses, &mut notes),
        auto_assign: true,
        service_allocation: (namespace != GLOBAL).then(|| ServiceAllocationSpec {
            namespaces: vec![namespace.to_owned()],
            ..ServiceAllocationSpec::default()
        }),
        ..IPAddressPoolSpec::default()
    };
    let name = format!("kube-vip-{namespace}");
    imported
        .objects
        .push(Translated::pool(from, &name, &spec).with_notes(notes));
}

/// A prefix without its first and last address.
fn without_ends(text: &str) -> String {
    let Ok(ipnet::IpNet::V4(network)) = text.parse::<ipnet::IpNet>() else {
        return text.to_owned();
    };
    let mut hosts = network.hosts();
    match (hosts.next(), hosts.last()) {
        (Some(first), Some(last)) => format!("{first}-{last}"),
        _ => network.trunc().to_string(),
    }
}

/// The same addresses, each once: kube-vip allows ranges that overlap.
fn merged(texts: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let ranges: Result<Vec<AddressRange>, _> = texts.iter().map(|text| text.parse()).collect();
    // What cannot be read is reported when the object is checked.
    let Ok(mut ranges) = ranges else {
        return texts;
    };
    ranges.sort_unstable();
    let mut merged: Vec<AddressRange> = Vec::new();
    for range in &ranges {
        match merged.last_mut() {
            Some(last) if last.intersection(range).is_some() => {
                let end = last.last().max(range.last());
                *last = AddressRange::new(last.first(), end).unwrap_or(*last);
            }
            _ => merged.push(*range),
        }
    }
    if merged.len() == ranges.len() {
        return texts;
    }
    notes.push("ranges that overlapped are one now".to_owned());
    merged.iter().map(ToString::to_string).collect()
}
