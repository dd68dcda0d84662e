//! The forwarding table: the parts of all Services, and who has which frontend.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use config::name::ServiceKey;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::context::NodeContext;
use crate::frontend::{Frontend, FrontendKey, FrontendKind, ServiceTable, UndefinedPort};

/// What the node does with all traffic to Services.
///
/// Of two Services that claim one frontend, the one with the better [`FrontendKind`], then the older one, then the one
/// whose key comes first has it; the other comes in when the first goes. The cost of [`Self::update`] follows the
/// Service that changes and not the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardingTable {
    context: Arc<NodeContext>,
    services: HashMap<ServiceKey, Arc<ServiceTable>>,
    frontends: HashMap<FrontendKey, Claims<Arc<Frontend>>>,
    cluster_ips: HashMap<IpAddr, Claims<UndefinedPort>>,
}

/// What an update made different, as a data plane has to know it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TableChange {
    /// Frontends that came, changed or went, each at most once.
    pub frontends: Vec<FrontendChange>,
    /// ClusterIPs that came, changed or went, each at most once.
    pub cluster_ips: Vec<AddressChange>,
    /// Frontends that another Service has now, and that mean what they meant.
    pub handed_over: Vec<FrontendKey>,
}

/// A frontend that came (`before` is none), changed, or went (`after` is none).
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrontendChange {
    pub key: FrontendKey,
    pub before: Option<Arc<Frontend>>,
    pub after: Option<Arc<Frontend>>,
}

/// A ClusterIP that came (`before` is none), changed, or went (`after` is none).
#[expect(missing_docs, reason = "the type says it")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressChange {
    pub address: IpAddr,
    pub before: Option<UndefinedPort>,
    pub after: Option<UndefinedPort>,
}

impl TableChange {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.cluster_ips.is_empty() && self.handed_over.is_empty()
    }
}

/// As JSON, for people who look into a running proxy: what is in force, sorted.
impl Serialize for ForwardingTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Held<'a> {
            service: &'a ServiceKey,
            #[serde(flatten)]
            frontend: &'a Frontend,
        }
        let frontends = self.frontends().map(|(key, service, frontend)| {
            let frontend = frontend.as_ref();
            (key, (key.to_string(), Held { service, frontend }))
        });
        let frontends: BTreeMap<_, _> = frontends.collect();
        let cluster_ips: BTreeMap<_, _> = self.cluster_ips().collect();
        let mut all = serializer.serialize_struct("ForwardingTable", 3)?;
        all.serialize_field("node", &*self.context)?;
        all.serialize_field("frontends", &InOrder(frontends.into_values().collect()))?;
        all.serialize_field("clusterIps", &cluster_ips)?;
        all.end()
    }
}

/// A map whose order is that of the pairs.
struct InOrder<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for InOrder<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl ForwardingTable {
    /// A table without Services.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self {
            context,
            services: HashMap::new(),
            frontends: HashMap::new(),
            cluster_ips: HashMap::new(),
        }
    }

    /// What the table knows of the node. Another context means another table, of Services compiled anew.
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.context
    }

    /// Takes the part of a Service in, or out (`None`), and says what is different now.
    pub fn update(&mut self, key: &ServiceKey, part: Option<ServiceTable>) -> TableChange {
        let before = self.services.remove(key).unwrap_or_default();
        let after = part.map(Arc::new);
        if let Some(after) = &after {
            self.services.insert(key.clone(), Arc::clone(after));
        }
        let after = after.unwrap_or_default();
        let same_age = before.created_seconds == after.created_seconds;
        let mut change = TableChange::default();

        let old_and_new = before.frontends.keys().chain(after.frontends.keys());
        for frontend_key in old_and_new.copied().collect::<BTreeSet<_>>() {
            let new = after.frontends.get(&frontend_key);
            if same_age && before.frontends.get(&frontend_key) == new {
                continue;
            }
            let claim = new.map(|frontend| {
                let rank = Rank::new(frontend.kind, after.created_seconds, key);
                (rank, Arc::clone(frontend))
            });
            let holder = |table: &Self| table.frontend(&frontend_key).map(|(key, _)| key.clone());
            let old_holder = holder(self);
            let (before, after) = claim_anew(&mut self.frontends, frontend_key, key, claim);
            if before == after && old_holder != holder(self) {
                change.handed_over.push(frontend_key);
            }
            if before != after {
                change.frontends.push(FrontendChange {
                    key: frontend_key,
                    before,
                    after,
                });
            }
        }

        let old_and_new = before.cluster_ips.keys().chain(after.cluster_ips.keys());
        for address in old_and_new.copied().collect::<BTreeSet<_>>() {
            let new = after.cluster_ips.get(&address);
            if same_age && before.cluster_ips.get(&address) == new {
                continue;
            }
            let claim = new.map(|&undefined| {
                let rank = Rank::new(FrontendKind::ClusterIp, after.created_seconds, key);
                (rank, undefined)
            });
            let (before, after) = claim_anew(&mut self.cluster_ips, address, key, claim);
            if before != after {
                change.cluster_ips.push(AddressChange {
                    address,
                    before,
                    after,
                });
            }
        }
        change
    }

    /// The parts of all Services, in no particular order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = (&ServiceKey, &Arc<ServiceTable>)> {
        self.services.iter()
    }

    /// The part of a Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<ServiceTable>> {
        self.services.get(key)
    }

    /// All frontends that are in force, in no particular order.
    pub fn frontends(
        &self,
    ) -> impl ExactSizeIterator<Item = (&FrontendKey, &ServiceKey, &Arc<Frontend>)> {
        self.frontends
            .iter()
            .map(|(key, claims)| (key, &claims.holder.0.service, &claims.holder.1))
    }

    /// The frontend in force at a place, and the Service that has it.
    pub fn frontend(&self, key: &FrontendKey) -> Option<(&ServiceKey, &Arc<Frontend>)> {
        let claims = self.frontends.get(key)?;
        Some((&claims.holder.0.service, &claims.holder.1))
    }

    /// All ClusterIPs, in no particular order, and what becomes of their undefined ports.
    pub fn cluster_ips(&self) -> impl ExactSizeIterator<Item = (IpAddr, UndefinedPort)> {
        self.cluster_ips
            .iter()
            .map(|(address, claims)| (*address, claims.holder.1))
    }

    /// The Service that has a ClusterIP, and what becomes of its undefined ports.
    pub fn cluster_ip(&self, address: IpAddr) -> Option<(&ServiceKey, UndefinedPort)> {
        let claims = self.cluster_ips.get(&address)?;
        Some((&claims.holder.0.service, claims.holder.1))
    }

    /// The frontends that a Service claims and another one has, with the key of that one.
    pub fn conflicts<'a>(
        &'a self,
        key: &'a ServiceKey,
    ) -> impl Iterator<Item = (FrontendKey, &'a ServiceKey)> {
        let part = self.services.get(key);
        let claimed = part.into_iter().flat_map(|part| part.frontends.keys());
        claimed.filter_map(move |frontend_key| {
            let (holder, _) = self.frontend(frontend_key)?;
            (holder != key).then_some((*frontend_key, holder))
        })
    }
}

/// Those who claim one thing: the first has it, the others wait in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Claims<T> {
    holder: (Rank, T),
    waiting: Vec<(Rank, T)>,
}

/// The order of claims; the smallest has the thing.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    kind: FrontendKind,
    created_seconds: i64,
    service: ServiceKey,
}

impl Rank {
    fn new(kind: FrontendKind, created_seconds: i64, service: &ServiceKey) -> Self {
        Self {
            kind,
            created_seconds,
            service: service.clone(),
        }
    }
}

/// Replaces the claim of a Service on `key`; what was in force there before, and what is after.
fn claim_anew<K: Eq + Hash, T: Clone>(
    claims: &mut HashMap<K, Claims<T>>,
    key: K,
    service: &ServiceKey,
    claim: Option<(Rank, T)>,
) -> (Option<T>, Option<T>) {
    let mut all = Vec::new();
    let mut before = None;
    if let Some(Claims { holder, waiting }) = claims.remove(&key) {
        before = Some(holder.1.clone());
        all.push(holder);
        all.extend(waiting);
    }
    all.retain(|(rank, _)| rank.service != *service);
    all.extend(claim);
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut all = all.into_iter();
    let Some(holder) = all.next() else {
        return (before, None);
    };
    let after = Some(holder.1.clone());
    let waiting = all.collect();
    claims.insert(key, Claims { holder, waiting });
    (before, after)
}
