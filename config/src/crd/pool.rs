//! The custom resource `IPAddressPool`, and what it means.

use std::num::NonZeroU32;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube_derive::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{is_default, item, selectors, yes};
use crate::address::AddressRange;
use crate::name::PoolName;
use crate::pool::{HoldTime, OnInUse, Origin, Pool, Reservation, ServiceAllocation};
use crate::refusal::{FieldError, Reason};
use crate::selector::Labels;

/// Addresses that Services of type LoadBalancer get, and the rules by which they get them.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "foghorn.dev",
    version = "v1alpha1",
    kind = "IPAddressPool",
    doc = "Addresses that Services of type LoadBalancer get, and the rules by which they get them",
    plural = "ipaddresspools",
    singular = "ipaddresspool",
    category = "foghorn",
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Addresses",
        type_ = "string",
        json_path = ".spec.addresses",
        description = "What the pool consists of"
    ),
    printcolumn(
        name = "Auto Assign",
        type_ = "boolean",
        json_path = ".spec.autoAssign",
        description = "Whether Services that ask for no pool are served"
    ),
    printcolumn(
        name = "Assigned IPv4",
        type_ = "integer",
        json_path = ".status.assignedIPv4",
        description = "IPv4 addresses that Services hold"
    ),
    printcolumn(
        name = "Available IPv4",
        type_ = "integer",
        json_path = ".status.availableIPv4",
        description = "IPv4 addresses that are free"
    ),
    printcolumn(
        name = "Assigned IPv6",
        type_ = "integer",
        json_path = ".status.assignedIPv6",
        description = "IPv6 addresses that Services hold"
    ),
    printcolumn(
        name = "Available IPv6",
        type_ = "integer",
        json_path = ".status.availableIPv6",
        priority = 1,
        description = "IPv6 addresses that are free"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the pool is in force as written"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct IPAddressPoolSpec {
    /// Ranges (`192.0.2.10-192.0.2.20`), prefixes (`192.0.2.0/28`) and addresses of both families, given in the order written.
    /// A prefix must have no bits set after it: `192.0.2.0/28`, not `192.0.2.7/28`. All addresses of a prefix are given, the
    /// first and last too.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 81)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.contains('-') ? (a.split('-').size() == 2 && a.split('-').all(part, isIP(part.trim()))) : (a.contains('/') ? isCIDR(a.trim()) : isIP(a.trim())))")
            .message("write each as a range (192.0.2.10-192.0.2.20), a prefix (192.0.2.0/28) or one address"),
        validation = Rule::new("self.all(a, !a.contains('/') || !isCIDR(a.trim()) || (cidr(a.trim()).prefixLength() > 0 && cidr(a.trim()) == cidr(a.trim()).masked()))")
            .message("a prefix must be longer than /0 and have no bits set after it: write 192.0.2.0/28, not 192.0.2.7/28"),
        validation = Rule::new("self.all(a, a.split('-').size() != 2 || !a.split('-').all(part, isIP(part.trim())) || ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family())")
            .message("a range must not mix IPv4 and IPv6: write one range for each family")
    )]
    pub addresses: Vec<String>,

    /// Whether Services that ask for no pool may be served from this one.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Never give .0 and .255 of an IPv4 /24, which some old devices take for broadcast addresses.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Give nothing to Services that hold nothing; who holds an address keeps it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled: bool,

    /// Serve only the Services that this selects; all if it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocationSpec>,

    /// Addresses that only one Service each may have, which need not exist yet; it gets its address without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub reservations: Vec<ReservationSpec>,

    /// What happens to an address in use that an edit takes out of the pool: `Keep` leaves it to the Service and says so,
    /// `Reassign` gives the Service another one, in one step.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_in_use: OnInUse,

    /// How much one namespace may have; no limit if it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaSpec>,

    /// How long an address is held for a Service of the same namespace and name after its Service was deleted: `10m`, `1h30m`.
    /// It is not held if this is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")
    )]
    pub hold_after_deletion: Option<String>,
}

/// How much one namespace may have of a pool.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct QuotaSpec {
    /// Addresses of each family that the Services of one namespace may have of the pool; 0 means no limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub per_namespace: i64,
}

/// Which Services a pool serves, and when it is tried.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ServiceAllocationSpec {
    /// Pools with a lower number are tried first; 0 means last.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub priority: i64,

    /// Namespaces that are served, by name. One match here or in `namespaceSelectors` is enough; all are served if neither is
    /// written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 63)))]
    pub namespaces: Vec<String>,

    /// Namespaces that are served, by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub namespace_selectors: Vec<LabelSelector>,

    /// Services that are served, by their labels. One match is enough; all are served if it is not written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
}

/// An address that only one Service may have.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ReservationSpec {
    /// The address, one of the pool's.
    #[schemars(length(min = 1, max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("write one IP address"))]
    pub address: String,

    /// The Service, as `NAMESPACE/NAME`.
    #[schemars(length(min = 3, max = 127), regex(pattern = r"^[^/]+/[^/]+$"))]
    pub service: String,
}

/// How full a pool is, and whether it is in force as written.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses that Services hold.
    #[serde(default, rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses that Services hold.
    #[serde(default, rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses that are free.
    #[serde(default, rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses that are free; 9223372036854775807 stands for that many and more.
    #[serde(default, rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// Addresses of deleted Services that are held for those of the same name; the 1024 that are held the longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub held: Vec<HeldSpec>,
    /// `Accepted`: in force as written. `Conflicting`: has addresses that something else has too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// An address that is held for a Service which was deleted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct HeldSpec {
    /// The address.
    pub address: String,
    /// The Service, as `NAMESPACE/NAME`.
    pub service: String,
    /// When the hold ends, as RFC 3339.
    pub until: String,
}

impl IPAddressPoolSpec {
    /// What the spec means, or everything that is wrong with it.
    ///
    /// # Errors
    /// One for each field that cannot be followed.
    pub fn to_pool(
        &self,
        name: &str,
        labels: Labels,
        origin: Origin,
    ) -> Result<Pool, Vec<FieldError>> {
        let mut errors = Vec::new();
        let ranges = ranges(&self.addresses, &mut errors);
        let allocation = self
            .service_allocation
            .as_ref()
            .map(|allocation| allocation.read(&mut errors));
        let reservations = reservations(&self.reservations, &ranges, &mut errors);
        let quota = quota(self.quota.as_ref(), &mut errors);
        let hold = self
            .hold_after_deletion
            .as_deref()
            .map(str::parse::<HoldTime>);
        let hold_after_deletion = hold.and_then(|hold| {
            hold.map_err(|reason| errors.push(FieldError::new("spec.holdAfterDeletion", reason)))
                .ok()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pool {
            name: PoolName::new(name),
            origin,
            labels,
            ranges,
            auto_assign: self.auto_assign,
            avoid_buggy_ips: self.avoid_buggy_ips,
            disabled: self.disabled,
            allocation,
            reservations,
            on_in_use: self.on_in_use,
            quota,
            hold_after_deletion,
        })
    }
}

fn quota(spec: Option<&QuotaSpec>, errors: &mut Vec<FieldError>) -> Option<NonZeroU32> {
    let limit = spec?.per_namespace;
    match u32::try_from(limit) {
        Ok(limit) => NonZeroU32::new(limit),
        Err(_) => {
            let reason = Reason::Quota(limit);
            errors.push(FieldError::new("spec.quota.perNamespace", reason));
            None
        }
    }
}

fn ranges(texts: &[String], errors: &mut Vec<FieldError>) -> Vec<AddressRange> {
    if texts.is_empty() {
        errors.push(FieldError::new("spec.addresses", Reason::NoAddresses));
    }
    let mut ranges: Vec<(usize, AddressRange)> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<AddressRange>() {
            Ok(range) => ranges.push((index, range)),
            Err(reason) => errors.push(FieldError::new(item("spec.addresses", index), reason)),
        }
    }
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|&(index, range)| (range, index));
    let mut widest: Option<(usize, AddressRange)> = None;
    for (index, range) in sorted {
        match widest {
            Some((other_index, other)) if other.intersection(&range).is_some() => {
                let (one, two) = ((other_index, other), (index, range));
                let ((first, other), (second, found)) = if one.0 < two.0 {
                    (one, two)
                } else {
                    (two, one)
                };
                let reason = Reason::OverlapsItself {
                    found: found.to_string(),
                    other: other.to_string(),
                    field: item("spec.addresses", first),
                };
                errors.push(FieldError::new(item("spec.addresses", second), reason));
                if range.last() > other.last() {
                    widest = Some((index, range));
                }
            }
            _ => widest = Some((index, range)),
        }
    }
    ranges.into_iter().map(|(_, range)| range).collect()
}

fn reservations(
    specs: &[ReservationSpec],
    ranges: &[AddressRange],
    errors: &mut Vec<FieldError>,
) -> Vec<Reservation> {
    let mut reservations: Vec<Reservation> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = item("spec.reservations", index);
        let address = spec.address.trim().parse::<std::net::IpAddr>();
        let address = address.map_err(|_| {
            let reason = Reason::Address(crate::excerpt::excerpt(&spec.address));
            FieldError::new(format!("{field}.address"), reason)
        });
        let service = spec
            .service
            .parse()
            .map_err(|reason: crate::name::ServiceKeyError| {
                FieldError::new(format!("{field}.service"), reason)
            });
        match (address, service) {
            (Ok(address), Ok(service)) => {
                let earlier = reservations.iter().find(|other| other.address == address);
                if let Some(earlier) = earlier {
                    let other = earlier.service.to_string();
                    let reason = Reason::ReservedTwice { address, other };
                    errors.push(FieldError::new(format!("{field}.address"), reason));
                } else if !ranges.iter().any(|range| range.contains(address)) {
                    let reason = Reason::ReservedOutside(address);
                    errors.push(FieldError::new(format!("{field}.address"), reason));
                }
                reservations.push(Reservation { address, service });
            }
            (address, service) => errors.extend(address.err().into_iter().chain(service.err())),
        }
    }
    reservations
}

impl ServiceAllocationSpec {
    fn read(&self, errors: &mut Vec<FieldError>) -> ServiceAllocation {
        let field = "spec.serviceAllocation";
        let priority = u32::try_from(self.priority).unwrap_or_else(|_| {
            let reason = Reason::Priority(self.priority);
            errors.push(FieldError::new(format!("{field}.priority"), reason));
            0
        });
        ServiceAllocation {
            priority,
            namespaces: self.namespaces.clone(),
            namespace_selectors: selectors(
                &format!("{field}.namespaceSelectors"),
                &self.namespace_selectors,
                errors,
            ),
            service_selectors: selectors(
                &format!("{field}.serviceSelectors"),
                &self.service_selectors,
                errors,
            ),
        }
    }
}
