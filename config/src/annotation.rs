//! What a Service asks for in its annotations.
//!
//! Each annotation has three spellings that mean the same: ours (`foghorn.dev/`), MetalLB's (`metallb.io/`) and
//! MetalLB's older one (`metallb.universe.tf/`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::excerpt::{self, excerpt};
use crate::name::{NodeName, PoolName};
use crate::service::Service;

/// What a Service asks for beyond its spec.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requests {
    /// `address-pool`: the only pool that may serve it.
    pub pool: Option<PoolName>,
    /// `loadBalancerIPs`, or `spec.loadBalancerIP`: the addresses it wants, in the order written, each once.
    pub addresses: Vec<IpAddr>,
    /// `allow-shared-ip`: it shares addresses with the Services that have the same key.
    pub sharing_key: Option<Arc<str>>,
    /// `preferred-node`, in our spelling only: the node that is to announce its addresses whenever it can.
    pub preferred_node: Option<NodeName>,
    /// What could not be understood. What it was about is not in the other fields, so a Service with complaints
    /// must be given nothing new: it would be something else than its author wrote.
    pub complaints: Vec<RequestComplaint>,
}

/// Something in the requests of a Service that cannot be followed.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum RequestComplaint {
    #[error(
        "annotation {first} is \"{first_value}\" and annotation {second} is \"{second_value}\": remove one of them"
    )]
    Disagreement {
        first: String,
        first_value: String,
        second: String,
        second_value: String,
    },
    #[error(
        "{field} has \"{found}\", which is not an IP address: write addresses, separated by commas"
    )]
    Address { field: String, found: String },
    #[error("annotation {field} lists more than {MOST_ADDRESSES} addresses: shorten it")]
    TooMany { field: String },
    #[error(
        "annotation {field} is \"{addresses}\" and spec.loadBalancerIP is \"{load_balancer_ip}\": remove spec.loadBalancerIP"
    )]
    LoadBalancerIp {
        field: String,
        addresses: String,
        load_balancer_ip: String,
    },
}

/// The prefix of annotations, labels and conditions of ours.
pub const PREFIX: &str = "foghorn.dev/";
/// The annotation that names the pool, without its prefix.
pub const ADDRESS_POOL: &str = "address-pool";
/// The annotation that names addresses, without its prefix.
pub const LOAD_BALANCER_IPS: &str = "loadBalancerIPs";
/// The annotation that allows addresses to be shared, without its prefix.
pub const ALLOW_SHARED_IP: &str = "allow-shared-ip";
/// The annotation that names the node which is to announce the addresses whenever it can: ours alone.
pub const PREFERRED_NODE: &str = "foghorn.dev/preferred-node";
/// All prefixes of the annotations without one, ours first.
pub const PREFIXES: [&str; 3] = [PREFIX, "metallb.io/", "metallb.universe.tf/"];

/// More than this many addresses in one annotation is a mistake.
const MOST_ADDRESSES: usize = 64;

impl Requests {
    /// What a Service asks for by annotation and by `spec.loadBalancerIP`.
    pub fn of(service: &Service) -> Self {
        Self::read(&service.annotations, service.load_balancer_ip.as_deref())
    }

    /// What these annotations and this `spec.loadBalancerIP` ask for. An empty text asks for nothing.
    pub fn read(annotations: &BTreeMap<String, String>, load_balancer_ip: Option<&str>) -> Self {
        let mut complaints = Vec::new();
        let pool = spelled(annotations, ADDRESS_POOL, same_text, &mut complaints)
            .map(|(_, text)| PoolName::new(excerpt::name(text)));
        let sharing_key = spelled(annotations, ALLOW_SHARED_IP, same_text, &mut complaints)
            .map(|(_, text)| text.into());
        let listed = spelled(
            annotations,
            LOAD_BALANCER_IPS,
            same_addresses,
            &mut complaints,
        );
        let single = load_balancer_ip
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let addresses = match (listed, single) {
            (Some((field, text)), Some(single)) if !same_addresses(text, single) => {
                complaints.push(RequestComplaint::LoadBalancerIp {
                    field,
                    addresses: excerpt(text),
                    load_balancer_ip: excerpt(single),
                });
                Vec::new()
            }
            (Some((field, text)), _) => addresses(&field, text, &mut complaints),
            (None, Some(text)) => addresses("spec.loadBalancerIP", text, &mut complaints),
            (None, None) => Vec::new(),
        };
        let preferred_node = annotations.get(PREFERRED_NODE).map(|text| text.trim());
        Self {
            pool,
            addresses,
            sharing_key,
            preferred_node: preferred_node
                .filter(|text| !text.is_empty())
                .map(|text| NodeName::new(excerpt::name(text))),
            complaints,
        }
    }
}

/// The annotation in the first spelling that is used, if all that are used agree.
fn spelled<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
    same: fn(&str, &str) -> bool,
    complaints: &mut Vec<RequestComplaint>,
) -> Option<(String, &'a str)> {
    let mut used = PREFIXES.iter().filter_map(|prefix| {
        let key = format!("{prefix}{name}");
        let text = annotations.get(&key)?.trim();
        (!text.is_empty()).then_some((key, text))
    });
    let first = used.next()?;
    match used.find(|other| !same(first.1, other.1)) {
        None => Some(first),
        Some(second) => {
            complaints.push(RequestComplaint::Disagreement {
                first: first.0,
                first_value: excerpt(first.1),
                second: second.0,
                second_value: excerpt(second.1),
            });
            None
        }
    }
}

fn same_text(one: &str, other: &str) -> bool {
    one == other
}

/// Whether two lists name the same addresses, however they are written.
fn same_addresses(one: &str, other: &str) -> bool {
    let parse = |text: &str| {
        let parts = text.split(',').map(str::trim);
        parts
            .map(|part| part.parse::<IpAddr>().map_err(|_| part.to_owned()))
            .collect::<Vec<_>>()
    };
    one == other || parse(one) == parse(other)
}

/// The addresses in a list; none at all if one of them is not an address.
fn addresses(field: &str, text: &str, complaints: &mut Vec<RequestComplaint>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse() {
            Ok(address) if found.contains(&address) => {}
            Ok(_) if found.len() == MOST_ADDRESSES => {
                complaints.push(RequestComplaint::TooMany {
                    field: field.to_owned(),
                });
                return Vec::new();
            }
            Ok(address) => found.push(address),
            Err(_) => {
                complaints.push(RequestComplaint::Address {
                    field: label(field),
                    found: excerpt(part),
                });
                return Vec::new();
            }
        }
    }
    found
}

fn label(field: &str) -> String {
    if field.starts_with("spec.") {
        field.to_owned()
    } else {
        format!("annotation {field}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(annotations: &[(&str, &str)], load_balancer_ip: Option<&str>) -> Requests {
        let annotations = annotations
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Requests::read(&annotations, load_balancer_ip)
    }

    #[test]
    fn every_spelling_means_the_same() {
        for prefix in PREFIXES {
            let requests = read(
                &[
                    (&format!("{prefix}address-pool"), "lan"),
                    (
                        &format!("{prefix}loadBalancerIPs"),
                        " 192.0.2.7, 2001:db8::7,192.0.2.7 ",
                    ),
                    (&format!("{prefix}allow-shared-ip"), "dns"),
                ],
                None,
            );
            let expected = Requests {
                pool: Some("lan".into()),
                addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
                sharing_key: Some("dns".into()),
                preferred_node: None,
                complaints: vec![],
            };
            assert_eq!(requests, expected, "{prefix}");
        }
    }

    #[test]
    fn what_agrees_may_be_said_twice() {
        let requests = read(
            &[
                ("foghorn.dev/loadBalancerIPs", "2001:db8::7"),
                ("metallb.io/loadBalancerIPs", "2001:0db8:0::7"),
            ],
            Some("2001:db8::7"),
        );
        assert_eq!(requests.addresses.len(), 1);
        assert_eq!(requests.complaints, []);
    }

    #[track_caller]
    fn complains(
        annotations: &[(&str, &str)],
        load_balancer_ip: Option<&str>,
        complaints: &[&str],
    ) {
        let requests = read(annotations, load_balancer_ip);
        let found: Vec<_> = requests
            .complaints
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, complaints);
        assert_eq!(
            (requests.pool, requests.addresses.as_slice()),
            (None, &[][..])
        );
    }

    #[test]
    fn says_what_cannot_be_followed() {
        complains(
            &[("foghorn.dev/loadBalancerIPs", "192.0.2.7;192.0.2.8")],
            None,
            &[
                "annotation foghorn.dev/loadBalancerIPs has \"192.0.2.7;192.0.2.8\", which is not an IP address: write addresses, separated by commas",
            ],
        );
        complains(
            &[],
            Some("web.example"),
            &[
                "spec.loadBalancerIP has \"web.example\", which is not an IP address: write addresses, separated by commas",
            ],
        );
        complains(
            &[
                ("foghorn.dev/address-pool", "lan"),
                ("metallb.universe.tf/address-pool", "dmz"),
            ],
            None,
            &[
                "annotation foghorn.dev/address-pool is \"lan\" and annotation metallb.universe.tf/address-pool is \"dmz\": remove one of them",
            ],
        );
        complains(
            &[("metallb.io/loadBalancerIPs", "192.0.2.7")],
            Some("192.0.2.8"),
            &[
                "annotation metallb.io/loadBalancerIPs is \"192.0.2.7\" and spec.loadBalancerIP is \"192.0.2.8\": remove spec.loadBalancerIP",
            ],
        );
        complains(
            &[("foghorn.dev/loadBalancerIPs", "x\nERROR \u{1b}[31my")],
            None,
            &[
                "annotation foghorn.dev/loadBalancerIPs has \"x\\nERROR \\u{1b}[31my\", which is not an IP address: write addresses, separated by commas",
            ],
        );
        complains(&[("metallb.io/address-pool", " ")], Some(""), &[]);
    }

    proptest! {
        #[test]
        fn rubbish_gives_complaints_and_no_panic(text in ".{0,200}", single in ".{0,40}") {
            let requests = read(
                &[("foghorn.dev/loadBalancerIPs", &text), ("foghorn.dev/address-pool", &text)],
                Some(&single),
            );
            prop_assert!(requests.complaints.is_empty() || requests.addresses.is_empty());
        }
    }
}
