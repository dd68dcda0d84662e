//! What was decided for a Service.

use std::net::IpAddr;

use config::name::{PoolName, ServiceKey};

use crate::rejection::{Obstacle, Rejection};

/// What a Service has, and what it lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// The addresses it has: the primary family first, then in the order in which they were given.
    pub granted: Vec<Granted>,
    /// What it asked for and does not have, with every obstacle.
    pub rejection: Option<Rejection>,
}

/// An address that a Service has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The address.
    pub address: IpAddr,
    /// The pool that it counts for; none if it is in no pool.
    pub pool: Option<PoolName>,
    /// Why the Service would not get it today; it keeps it all the same.
    pub although: Option<Obstacle>,
}

/// Why an address was taken from a Service.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Released {
    #[error("the Service has no {0} any more", config::address::IpFamily::of(*.address))]
    FamilyGone { address: IpAddr },
    #[error("{0}")]
    InUse(Obstacle),
    #[error("the Service asked for something else and has it now")]
    Replaced,
}

impl Decision {
    /// The addresses, in the order in which the status has them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.granted.iter().map(|granted| granted.address)
    }

    /// Whether it has everything it asked for.
    pub fn is_complete(&self) -> bool {
        self.rejection.is_none()
    }
}

/// A place in the queue: older Services go first, then by namespace and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Turn {
    pub(crate) created_seconds: i64,
    pub(crate) service: ServiceKey,
}
