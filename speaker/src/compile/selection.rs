//! What advertisements say about an address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::advertisement::{self, L2Advertisement, PartitionPolicy};
use config::selector::Labels;
use config::service::Service;
use config::snapshot::Snapshot;
use speaker_announcer::{Failback, Links, Partition};

/// The advertisements that apply to an address of a Service.
pub(super) enum Selection<'a> {
    /// No advertisement is about the pool: announced from every node.
    Everywhere,
    /// These apply; if there are none, the pool is advertised, but not for this Service.
    By(Vec<&'a L2Advertisement>),
}

impl<'a> Selection<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, service: &Service, address: IpAddr) -> Self {
        let pool = snapshot
            .pools()
            .values()
            .find(|pool| pool.contains(address));
        let about_the_pool: Vec<&L2Advertisement> = snapshot
            .advertisements()
            .values()
            .map(AsRef::as_ref)
            .filter(|advertisement| match pool {
                Some(pool) => advertisement.selects_pool(pool),
                // In no pool any more: only those apply that are about all pools.
                None => advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty(),
            })
            .collect();
        if about_the_pool.is_empty() {
            return Self::Everywhere;
        }
        let selects =
            |advertisement: &&L2Advertisement| advertisement.selects_service(&service.labels);
        Self::By(about_the_pool.into_iter().filter(selects).collect())
    }

    fn advertisements(&self) -> impl Iterator<Item = &'a L2Advertisement> + '_ {
        match self {
            Self::Everywhere => &[][..],
            Self::By(advertisements) => advertisements,
        }
        .iter()
        .copied()
    }

    /// Whether a node with these labels may announce.
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        matches!(self, Self::Everywhere)
            || self
                .advertisements()
                .any(|advertisement| advertisement.selects_node(labels))
    }

    /// How much a node with these labels is preferred.
    pub(super) fn preference(&self, labels: &Labels) -> u32 {
        self.advertisements()
            .filter(|advertisement| advertisement.selects_node(labels))
            .map(|advertisement| advertisement.preference(labels))
            .max()
            .unwrap_or(0)
    }

    /// On which interfaces a node with these labels announces; a node that is not known may use any that some
    /// advertisement names.
    pub(super) fn links(&self, labels: Option<&Labels>) -> Links {
        let applies = |advertisement: &&L2Advertisement| {
            labels.is_none_or(|labels| advertisement.selects_node(labels))
        };
        let mut names = BTreeSet::new();
        for advertisement in self.advertisements().filter(applies) {
            if advertisement.interfaces.is_empty() {
                return Links::InSubnet;
            }
            names.extend(advertisement.interfaces.iter().cloned());
        }
        if names.is_empty() {
            Links::InSubnet
        } else {
            Links::Named(names)
        }
    }

    pub(super) fn failback(&self) -> Failback {
        let most = self
            .advertisements()
            .map(|advertisement| advertisement.failback);
        match most.max().unwrap_or_default() {
            advertisement::Failback::Never => Failback::Never,
            advertisement::Failback::Idle => Failback::Idle,
            advertisement::Failback::Always => Failback::Always,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        let most = self
            .advertisements()
            .map(|advertisement| advertisement.partition);
        match most.max().unwrap_or_default() {
            PartitionPolicy::Available => Partition::Available,
            PartitionPolicy::Strict => Partition::Strict,
        }
    }
}
