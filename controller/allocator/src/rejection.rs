//! Why a Service does not get what it asked for, in words that its author can act on.

use std::fmt;
use std::net::IpAddr;

use config::address::IpFamily;
use config::annotation::RequestComplaint;
use config::name::{NodeName, PoolName, ServiceKey};
use config::service::Protocol;

/// Everything that a Service asked for and does not have.
///
/// Displayed as one line: what was asked, what stands in the way pool by pool, what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// One refusal for each thing asked for; never empty.
    pub refusals: Vec<Refusal>,
}

/// One thing that a Service asked for, and what stands in the way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What was asked.
    pub asked: Asked,
    /// What stands in the way, pool by pool where pools matter; never empty.
    pub obstacles: Vec<Obstacle>,
}

/// What a Service asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asked {
    /// One certain address.
    Address(IpAddr),
    /// The address that a pool reserves for this Service.
    Reserved(IpAddr),
    /// Any address of a family, from any pool or a certain one.
    Any(IpFamily, Option<PoolName>),
    /// Another address, in place of one that its pool reassigns.
    Another(IpAddr),
    /// Another address, in place of one that was just given and that a machine on the LAN has.
    Free(IpAddr),
    /// Something that cannot be read.
    Unreadable,
}

/// One thing that stands in the way.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Obstacle {
    #[error("there is no pool")]
    NoPools,
    #[error("there is no pool {pool}")]
    UnknownPool { pool: PoolName },
    #[error("pool {pool} has no {family} addresses")]
    NoFamily { pool: PoolName, family: IpFamily },
    #[error(
        "pool {pool} has no free {family} address: {in_use} of {total} in use{}",
        also(*.set_aside, *.on_hold)
    )]
    Full {
        pool: PoolName,
        family: IpFamily,
        in_use: u128,
        total: u128,
        /// Free ones that are reserved for other Services, or that nodes or Services of other classes have.
        set_aside: u128,
        /// Free ones that are held for deleted Services.
        on_hold: u128,
    },
    #[error(
        "pool {pool} gives a namespace at most {limit} {family} addresses (quota), and {namespace} has {in_use}"
    )]
    Quota {
        pool: PoolName,
        namespace: String,
        family: IpFamily,
        limit: u32,
        in_use: u32,
    },
    #[error("{address} is held for {service}, which was deleted, until {until}")]
    OnHold {
        address: IpAddr,
        service: ServiceKey,
        until: jiff::Timestamp,
    },
    #[error("pool {pool} is disabled")]
    Disabled { pool: PoolName },
    #[error("pool {pool} serves only Services that ask for it (autoAssign: false)")]
    NotAutomatic { pool: PoolName },
    #[error("pool {pool} does not serve the namespace {namespace}")]
    Namespace { pool: PoolName, namespace: String },
    #[error("pool {pool} does not select the labels of the Service")]
    Labels { pool: PoolName },
    #[error("{address} is in no pool")]
    OutsidePools { address: IpAddr },
    #[error("{address} is not in the pool {pool}, which the Service asks for")]
    OutsidePool { address: IpAddr, pool: PoolName },
    #[error("{address} is {}, and the Service has no {} address", IpFamily::of(*.address), IpFamily::of(*.address))]
    WrongFamily { address: IpAddr },
    #[error("{address} is the address of node {node}")]
    NodeAddress { address: IpAddr, node: NodeName },
    #[error("{address} is in use by {by}, whose spec.loadBalancerClass is another")]
    OtherClass { address: IpAddr, by: ServiceKey },
    #[error(
        "{address} is in use by a machine on the LAN with the hardware address {mac}, as node {heard_by} hears"
    )]
    Stranger {
        address: IpAddr,
        mac: String,
        heard_by: String,
    },
    #[error("{address} is reserved for {service} in pool {pool}")]
    Reserved {
        address: IpAddr,
        pool: PoolName,
        service: ServiceKey,
    },
    #[error("{address} is in use by {by}{sharing}")]
    InUse {
        address: IpAddr,
        by: ServiceKey,
        sharing: SharingObstacle,
    },
    #[error("ipFamilyPolicy RequireDualStack takes both families or none")]
    OtherFamilyMissing,
    #[error("{0}")]
    Request(RequestComplaint),
    #[error("the Service has no IP family yet")]
    NoFamilies,
    #[error("the Service is being deleted")]
    Deleting,
}

fn also(set_aside: u128, on_hold: u128) -> String {
    let mut text = String::new();
    if set_aside > 0 {
        text.push_str(&format!(", {set_aside} reserved or of others"));
    }
    if on_hold > 0 {
        text.push_str(&format!(", {on_hold} held for deleted Services"));
    }
    text
}

/// Why two Services may not have one address, although others may share one.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SharingObstacle {
    #[error("")]
    NotAsked,
    #[error(", and only one of the two has the annotation allow-shared-ip")]
    OneSided,
    #[error(", and their annotations allow-shared-ip differ")]
    OtherKey,
    #[error(", and both listen on {protocol} port {port}")]
    SamePort { protocol: Protocol, port: u16 },
    #[error(", and their externalTrafficPolicy differs")]
    OtherPolicy,
    #[error(", and with externalTrafficPolicy Local their selectors must be equal")]
    OtherPods,
}

impl Rejection {
    /// The obstacle that the whole is named after: the one closest to what the author of the Service can change.
    fn main_obstacle(&self) -> Option<&Obstacle> {
        let obstacles = self.refusals.iter().flat_map(|refusal| &refusal.obstacles);
        obstacles.max_by_key(|obstacle| obstacle.weight())
    }

    /// The name of the reason, for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        self.main_obstacle().map_or("Refused", Obstacle::reason)
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.main_obstacle().map_or("", Obstacle::remedy)
    }
}

impl Obstacle {
    /// The name of the reason, for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPools => "NoPools",
            Self::UnknownPool { .. } => "UnknownPool",
            Self::NoFamily { .. } => "NoPoolOfFamily",
            Self::Full { .. } => "PoolFull",
            Self::Quota { .. } => "QuotaExceeded",
            Self::OnHold { .. } => "OnHold",
            Self::Disabled { .. } => "PoolDisabled",
            Self::NotAutomatic { .. } | Self::Namespace { .. } | Self::Labels { .. } => {
                "NoPoolAdmits"
            }
            Self::OutsidePools { .. } => "OutsidePools",
            Self::OutsidePool { .. } => "OutsidePool",
            Self::WrongFamily { .. } => "WrongFamily",
            Self::NodeAddress { .. } => "NodeAddress",
            Self::Stranger { .. } => "AddressConflict",
            Self::Reserved { .. } => "Reserved",
            Self::InUse { .. } | Self::OtherClass { .. } => "InUse",
            Self::OtherFamilyMissing => "OtherFamilyMissing",
            Self::Request(_) => "RequestUnreadable",
            Self::NoFamilies => "NoFamilies",
            Self::Deleting => "Deleting",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoPools => "create an IPAddressPool",
            Self::UnknownPool { .. } => "create it, or change the annotation address-pool",
            Self::NoFamily { .. } => "add a range of that family to a pool that serves the Service",
            Self::Full { .. } => "add a range to a pool, or delete a Service that needs no address",
            Self::Quota { .. } => {
                "delete a Service of the namespace that needs no address, share one (annotation allow-shared-ip), or raise the pool's quota"
            }
            Self::OnHold { .. } => "choose another one, or wait until then",
            Self::Disabled { .. } => "enable the pool, or add another one",
            Self::NotAutomatic { .. } => "ask for a pool with the annotation address-pool",
            Self::Namespace { .. } | Self::Labels { .. } => {
                "change the pool's serviceAllocation, or add a pool for the Service"
            }
            Self::OutsidePools { .. } => "ask for an address of a pool, or add it to one",
            Self::OutsidePool { .. } => "ask for an address of that pool, or for another pool",
            Self::WrongFamily { .. } => "change the address, or the Service's ipFamilies",
            Self::NodeAddress { .. } | Self::OtherClass { .. } => {
                "choose another one, and take it out of the pool"
            }
            Self::Stranger { .. } => {
                "give that machine another address, or take this one out of the pool"
            }
            Self::Reserved { .. } => "choose another one, or change the reservation",
            Self::InUse { .. } => {
                "choose another one, or let both share it (annotation allow-shared-ip)"
            }
            Self::Request(_) => "change the Service",
            Self::OtherFamilyMissing | Self::NoFamilies | Self::Deleting => "",
        }
    }

    fn weight(&self) -> u8 {
        match self {
            Self::OtherFamilyMissing | Self::Deleting => 0,
            Self::NoFamily { .. } | Self::NotAutomatic { .. } => 1,
            Self::Namespace { .. } | Self::Labels { .. } => 2,
            Self::Disabled { .. } => 3,
            Self::Full { .. } | Self::Quota { .. } => 4,
            Self::NoPools | Self::UnknownPool { .. } | Self::NoFamilies => 5,
            Self::OutsidePools { .. } | Self::OutsidePool { .. } => 6,
            Self::Reserved { .. }
            | Self::OnHold { .. }
            | Self::InUse { .. }
            | Self::OtherClass { .. }
            | Self::Stranger { .. }
            | Self::NodeAddress { .. } => 7,
            Self::WrongFamily { .. } | Self::Request(_) => 8,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "asked for {address}"),
            Self::Reserved(address) => write!(formatter, "{address} is reserved for it"),
            Self::Any(family, None) => write!(formatter, "asked for an {family} address"),
            Self::Any(family, Some(pool)) => {
                write!(formatter, "asked for an {family} address of pool {pool}")
            }
            Self::Another(address) => {
                write!(
                    formatter,
                    "{address} should be reassigned (onInUse: Reassign)"
                )
            }
            Self::Free(address) => write!(
                formatter,
                "another address is wanted in place of {address}, which another machine has"
            ),
            Self::Unreadable => formatter.write_str("what it asks for cannot be read"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.asked)?;
        for (index, obstacle) in self.obstacles.iter().take(MOST_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{obstacle}")?;
        }
        match self.obstacles.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more pools"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.refusals.iter().enumerate() {
            let separator = if index == 0 { "" } else { ". " };
            write!(formatter, "{separator}{refusal}")?;
        }
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(formatter, ". To do: {remedy}"),
        }
    }
}

/// More obstacles than this are counted, not listed: an Event holds 1024 characters.
const MOST_SHOWN: usize = 6;
