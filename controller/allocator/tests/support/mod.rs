//! Claims and pools in few words.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests use it")]

use std::net::IpAddr;
use std::sync::Arc;

use config::address::IpFamily;
use config::annotation::Requests;
use config::name::ServiceKey;
use config::pool::{OnInUse, Origin, Pool, Reservation, ServiceAllocation};
use config::service::{FamilyPolicy, Protocol};
use controller_allocator::{Allocator, Backend, Claim, Context, Outcome, SharingTerms};

pub const V4: &[IpFamily] = &[IpFamily::V4];
pub const V6: &[IpFamily] = &[IpFamily::V6];
pub const DUAL: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

pub fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        origin: Origin::Cluster,
        labels: Default::default(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        disabled: false,
        allocation: None,
        reservations: Vec::new(),
        on_in_use: OnInUse::Keep,
        quota: None,
        hold_after_deletion: None,
    }
}

pub fn for_namespace(mut pool: Pool, namespace: &str, priority: u32) -> Pool {
    pool.allocation = Some(ServiceAllocation {
        priority,
        namespaces: vec![namespace.to_owned()],
        ..ServiceAllocation::default()
    });
    pool
}

pub fn reserving(mut pool: Pool, address: &str, service: &str) -> Pool {
    pool.reservations.push(Reservation {
        address: ip(address),
        service: key(service),
    });
    pool
}

pub fn context(pools: Vec<Pool>) -> Context {
    let pools = pools
        .into_iter()
        .map(|pool| (pool.name.clone(), Arc::new(pool)));
    Context {
        pools: pools.collect(),
        ..Context::default()
    }
}

pub fn claim(service: &str, families: &[IpFamily]) -> Claim {
    let dual = families.len() > 1;
    Claim {
        service: key(service),
        uid: "1".into(),
        created_seconds: 0,
        deleting: false,
        families: families.to_vec(),
        policy: if dual {
            FamilyPolicy::PreferDualStack
        } else {
            FamilyPolicy::SingleStack
        },
        labels: Default::default(),
        requests: Requests::default(),
        terms: Arc::new(SharingTerms {
            key: None,
            ports: [(Protocol::Tcp, 80.try_into().unwrap())].into(),
            backend: Backend::Cluster,
        }),
        held: Vec::new(),
    }
}

pub fn asking(mut claim: Claim, addresses: &[&str]) -> Claim {
    claim.requests.addresses = addresses.iter().map(|text| ip(text)).collect();
    claim
}

pub fn asking_pool(mut claim: Claim, pool: &str) -> Claim {
    claim.requests.pool = Some(pool.into());
    claim
}

pub fn holding(mut claim: Claim, addresses: &[&str]) -> Claim {
    claim.held = addresses.iter().map(|text| ip(text)).collect();
    claim
}

pub fn created(mut claim: Claim, seconds: i64) -> Claim {
    claim.created_seconds = seconds;
    claim
}

pub fn requiring(mut claim: Claim) -> Claim {
    claim.policy = FamilyPolicy::RequireDualStack;
    claim
}

pub fn sharing(mut claim: Claim, key: &str, protocol: Protocol, port: u16) -> Claim {
    claim.terms = Arc::new(SharingTerms {
        key: Some(key.into()),
        ports: [(protocol, port.try_into().unwrap())].into(),
        backend: claim.terms.backend.clone(),
    });
    claim
}

pub fn local(mut claim: Claim, app: &str) -> Claim {
    claim.terms = Arc::new(SharingTerms {
        backend: Backend::Local([("app".to_owned(), app.to_owned())].into()),
        ..(*claim.terms).clone()
    });
    claim
}

/// What a Service has, as one text, and what it lacks.
pub fn answer(allocator: &Allocator, service: &str) -> (String, String) {
    let decision = allocator
        .decision(&key(service))
        .expect("the Service was decided");
    let addresses: Vec<String> = decision.addresses().map(|ip| ip.to_string()).collect();
    let lacks = decision.rejection.as_ref().map(ToString::to_string);
    (addresses.join(" "), lacks.unwrap_or_default())
}

pub fn settled(context: Context, claims: Vec<Claim>) -> Allocator {
    let mut allocator = Allocator::default();
    allocator.configure(context);
    claims.into_iter().for_each(|claim| allocator.claim(claim));
    allocator.settle();
    allocator
}

pub fn step(allocator: &mut Allocator, claim: Claim) -> Vec<Outcome> {
    allocator.claim(claim);
    allocator.settle()
}
