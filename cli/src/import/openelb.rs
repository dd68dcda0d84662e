//! OpenELB: `Eip`.

use std::collections::BTreeMap;

use config::crd::{IPAddressPoolSpec, L2AdvertisementSpec, ServiceAllocationSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Imported, Source, Translated, network};

/// The annotation of the Eip from which Services are served that ask for none.
const DEFAULT: &str = "/metadata/annotations/eip.openelb.kubesphere.io~1is-default-eip";

pub(super) fn translate(source: &Source<'_>, imported: &mut Imported) {
    let mut notes = Vec::new();
    let addresses = vec![network(source.text("/spec/address"), &mut notes)];
    let namespaces: Vec<String> = source.part("/spec/namespaces", &mut notes);
    let labels: BTreeMap<String, String> = source.part("/spec/namespaceSelector", &mut notes);
    let is_for_all = namespaces.is_empty() && labels.is_empty();
    if source.at("/spec/priority").is_some() {
        notes.push(
            "its priority is left out: set serviceAllocation.priority, lower is tried first"
                .to_owned(),
        );
    }
    if source.text("/spec/protocol") == "bgp" || source.text("/spec/protocol").is_empty() {
        notes.push("was announced by BGP, is announced by ARP and NDP".to_owned());
    }
    let spec = IPAddressPoolSpec {
        addresses,
        auto_assign: source.text(DEFAULT) == "true" || !is_for_all,
        disabled: source.is_true("/spec/disable"),
        service_allocation: (!is_for_all).then(|| ServiceAllocationSpec {
            namespaces,
            namespace_selectors: if labels.is_empty() {
                Vec::new()
            } else {
                vec![LabelSelector {
                    match_labels: Some(labels),
                    match_expressions: None,
                }]
            },
            ..ServiceAllocationSpec::default()
        }),
        ..IPAddressPoolSpec::default()
    };
    let name = source.name();
    let interface = source.text("/spec/interface");
    let is_name = !interface.is_empty() && !interface.contains(':');
    if !interface.is_empty() && !is_name {
        notes.push(format!("interface {interface} has no counterpart: every interface with the subnet of an address announces it"));
    }
    let pool = Translated::pool(source.title(), name, &spec);
    imported.objects.push(pool.with_notes(notes));
    if is_name {
        let spec = L2AdvertisementSpec {
            ip_address_pools: vec![name.to_owned()],
            interfaces: vec![interface.to_owned()],
            ..L2AdvertisementSpec::default()
        };
        let from = format!("{}, interface", source.title());
        imported
            .objects
            .push(Translated::advertisement(from, name, &spec));
    }
}
