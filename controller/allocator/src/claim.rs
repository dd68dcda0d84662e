//! What a Service asks of the allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use config::address::IpFamily;
use config::annotation::Requests;
use config::name::ServiceKey;
use config::selector::Labels;
use config::service::{FamilyPolicy, Protocol, Service, ServiceKind, TrafficPolicy};

/// What a Service of type LoadBalancer asks for, and what its status says it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Whose claim it is.
    pub service: ServiceKey,
    /// Identity of the object; another one after delete and create.
    pub uid: Arc<str>,
    /// Seconds since 1970 at which the Service was created: the older is served first.
    pub created_seconds: i64,
    /// The Service is on its way out: it keeps what it holds and gets nothing new.
    pub deleting: bool,
    /// The families it has, the primary one first.
    pub families: Vec<IpFamily>,
    /// Whether it needs all of them.
    pub policy: FamilyPolicy,
    /// Labels, by which pools select.
    pub labels: Labels,
    /// What it asks for by annotation and `spec.loadBalancerIP`.
    pub requests: Requests,
    /// On which terms it shares an address.
    pub terms: Arc<SharingTerms>,
    /// The addresses in its status.
    pub held: Vec<IpAddr>,
}

/// On which terms a Service shares an address with others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharingTerms {
    /// The key that all must have (`allow-shared-ip`); none shares with nobody.
    pub key: Option<Arc<str>>,
    /// Where it listens; no two may listen at the same place.
    pub ports: BTreeSet<(Protocol, NonZeroU16)>,
    /// Where its traffic goes, which decides who announces the address.
    pub backend: Backend,
}

/// Where the traffic of a Service goes, as far as the announcement of its addresses depends on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Backend {
    /// `externalTrafficPolicy: Cluster`: any node can forward it.
    Cluster,
    /// `externalTrafficPolicy: Local`: only the nodes that run the Pods with these labels.
    Local(BTreeMap<String, String>),
}

/// The values of `spec.loadBalancerClass` that are served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Classes {
    /// The classes.
    pub names: BTreeSet<String>,
    /// Services that name no class are served too.
    pub unnamed: bool,
}

impl Classes {
    /// The class that is served if the operator names none.
    pub const DEFAULT: &'static str = "foghorn.dev/foghorn";

    /// Whether a Service of this class is served.
    pub fn serve(&self, class: Option<&str>) -> bool {
        match class {
            None => self.unnamed,
            Some(class) => self.names.contains(class),
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            names: [Self::DEFAULT.to_owned()].into(),
            unnamed: true,
        }
    }
}

impl Claim {
    /// The claim of a Service; none if it is not a load balancer, or of a class that is not served.
    pub fn of(service: &Service, classes: &Classes) -> Option<Self> {
        let served = classes.serve(service.load_balancer_class.as_deref());
        (service.kind == ServiceKind::LoadBalancer && served).then(|| {
            let requests = Requests::of(service);
            let ports = service.ports.iter().map(|port| (port.protocol, port.port));
            let terms = SharingTerms {
                key: requests.sharing_key.clone(),
                ports: ports.collect(),
                backend: match service.external_policy {
                    TrafficPolicy::Cluster => Backend::Cluster,
                    TrafficPolicy::Local => Backend::Local(service.selector.clone()),
                },
            };
            Self {
                service: service.key.clone(),
                uid: Arc::clone(&service.uid),
                created_seconds: service.created_seconds,
                deleting: service.deleting,
                families: service.families.clone(),
                policy: service.family_policy,
                labels: service.labels.clone(),
                requests,
                terms: Arc::new(terms),
                held: held(service),
            }
        })
    }

    /// The addresses of a Service of type LoadBalancer that is of another class, as its status says: nobody else gets them.
    pub fn of_other(service: &Service, classes: &Classes) -> Vec<IpAddr> {
        let is_balancer = service.kind == ServiceKind::LoadBalancer;
        if is_balancer && !classes.serve(service.load_balancer_class.as_deref()) {
            held(service)
        } else {
            Vec::new()
        }
    }

    /// Whether the other claim asks for the same, whatever its status says.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        let Self {
            service,
            uid,
            created_seconds,
            deleting,
            families,
            policy,
            labels,
            requests,
            terms,
            held: _,
        } = self;
        *service == other.service
            && *uid == other.uid
            && *created_seconds == other.created_seconds
            && *deleting == other.deleting
            && *families == other.families
            && *policy == other.policy
            && *labels == other.labels
            && *requests == other.requests
            && *terms == other.terms
    }

    /// The addresses of one family that it asks for.
    pub(crate) fn requested(&self, family: IpFamily) -> impl Iterator<Item = IpAddr> + '_ {
        let requested = self.requests.addresses.iter().copied();
        requested.filter(move |&address| IpFamily::of(address) == family)
    }
}

/// The addresses in a status, each once. Those of a proxy in front (`ipMode: Proxy`) count: somebody gave them.
fn held(service: &Service) -> Vec<IpAddr> {
    let mut held = Vec::new();
    for ingress in &service.ingress {
        if !held.contains(&ingress.address) {
            held.push(ingress.address);
        }
    }
    held
}
