//! MetalLB: custom resources, and the ConfigMap of versions before 0.13.

use config::crd::{IPAddressPoolSpec, L2AdvertisementSpec};
use config::metallb;
use serde::Deserialize;

use super::{Imported, Source, Translated, network};

pub(super) fn translate(source: &Source<'_>, kind: &str, imported: &mut Imported) {
    let mut notes = Vec::new();
    let labels = source.part("/metadata/labels", &mut notes);
    let mut object = match kind {
        "IPAddressPool" => {
            let spec: metallb::IPAddressPoolSpec = source.part("/spec", &mut notes);
            let spec = IPAddressPoolSpec::from(spec);
            Translated::pool(source.title(), source.name(), &spec)
        }
        "L2Advertisement" => {
            let spec: metallb::L2AdvertisementSpec = source.part("/spec", &mut notes);
            let spec = L2AdvertisementSpec::from(spec);
            Translated::advertisement(source.title(), source.name(), &spec)
        }
        _ => {
            imported.notes.push(format!(
                "{} has no counterpart: Foghorn announces by ARP and NDP only",
                source.title()
            ));
            return;
        }
    };
    object.labels = labels;
    imported.objects.push(object.with_notes(notes));
}

/// `data.config` of the ConfigMap.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    address_pools: Vec<AddressPool>,
    #[serde(default)]
    peers: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AddressPool {
    name: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    addresses: Vec<String>,
    auto_assign: Option<bool>,
    #[serde(default)]
    avoid_buggy_ips: bool,
}

pub(super) fn translate_config_map(source: &Source<'_>, imported: &mut Imported) {
    let config: Config = match serde_yaml::from_str(source.text("/data/config")) {
        Ok(config) => config,
        Err(error) => {
            let title = source.title();
            imported.notes.push(format!(
                "{title} is not read: data.config is not YAML of MetalLB: {}",
                error.without_snippet()
            ));
            return;
        }
    };
    if !config.peers.is_empty() {
        imported.notes.push(format!(
            "peers of {} have no counterpart: Foghorn speaks no BGP",
            source.title()
        ));
    }
    for pool in config.address_pools {
        let mut notes = Vec::new();
        if pool.protocol == "bgp" {
            notes.push("was announced by BGP, is announced by ARP and NDP".to_owned());
        }
        let addresses = pool
            .addresses
            .iter()
            .map(|text| network(text, &mut notes))
            .collect();
        let spec = IPAddressPoolSpec {
            addresses,
            auto_assign: pool.auto_assign.unwrap_or(true),
            avoid_buggy_ips: pool.avoid_buggy_ips,
            ..IPAddressPoolSpec::default()
        };
        let from = format!("{}, address pool {}", source.title(), pool.name);
        imported
            .objects
            .push(Translated::pool(from, &pool.name, &spec).with_notes(notes));
    }
}
