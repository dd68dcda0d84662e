//! The custom resources of the group `foghorn.dev/v1alpha1`, and what they mean.
//!
//! The schema and its CEL rules refuse in the API server what one object alone shows to be wrong. What passed an
//! older schema, or comes from a file, meets the same rules in [`IPAddressPoolSpec::to_pool`] and
//! [`L2AdvertisementSpec::to_advertisement`], which name the field.

mod advertisement;
mod l2_status;
mod pool;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub use self::advertisement::{
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferenceSpec,
};
pub use self::l2_status::{
    CandidateSpec, ConflictSpec, InterfaceSpec, ServiceL2Status, ServiceL2StatusSpec,
    ServiceL2StatusStatus,
};
pub use self::pool::{
    HeldSpec, IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, QuotaSpec, ReservationSpec,
    ServiceAllocationSpec,
};
use crate::refusal::FieldError;
use crate::selector::LabelSelector as Selector;

/// The group of the custom resources.
pub const GROUP: &str = "foghorn.dev";
/// The version of the custom resources.
pub const VERSION: &str = "v1alpha1";
/// The condition of a pool or advertisement that is in force as written.
pub const ACCEPTED: &str = "Accepted";
/// The condition of an advertisement that selects pools and nodes.
pub const EFFECTIVE: &str = "Effective";
/// The condition of a pool that has addresses which something else has too.
pub const CONFLICTING: &str = "Conflicting";

fn selectors(field: &str, list: &[LabelSelector], errors: &mut Vec<FieldError>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (index, selector) in list.iter().enumerate() {
        match Selector::from_api(selector) {
            Ok(selector) => selectors.push(selector),
            Err(reason) => errors.push(FieldError::new(item(field, index), reason)),
        }
    }
    selectors
}

fn item(field: &str, index: usize) -> String {
    format!("{field}[{index}]")
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
