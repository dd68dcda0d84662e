//! Laws that hold after every event, whatever came before, checked against a model that enumerates.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "only tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::pool::{OnInUse, Pool};
use config::service::{FamilyPolicy, Protocol};
use controller_allocator::status::PoolNumbers;
use controller_allocator::{
    Allocator, Asked, Backend, Claim, Context, Decision, Obstacle, Stranger,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use support::*;

/// Everything that can happen.
#[derive(Clone, Debug)]
enum Event {
    Claim(Claim),
    Withdraw(ServiceKey),
    /// The Service is deleted: what it had may be held for one of the same name.
    Delete(ServiceKey),
    /// So many seconds pass.
    Pass(i64),
    /// Several at once, decided in one settle.
    Claims(Vec<Claim>),
    /// A Service changes its ports, and at once another one comes whose status says that it has the same addresses.
    Contest(ServiceKey),
    Configure(Context),
    /// Begins afresh from the statuses.
    Restart,
}

const ADDRESSES: [&str; 8] = [
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.3",
    "198.51.100.1",
    "203.0.113.9",
    "2001:db8::1",
    "2001:db8::2",
];

const SERVICES: &[&str] = &["a/1", "a/2", "a/3", "b/4", "b/5", "b/6"];

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(&ADDRESSES[..]).prop_map(ip)
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let who = (prop::sample::select(SERVICES), 0_i64..2);
    let families = prop::sample::select(vec![(V4, 0_u8), (V4, 0), (V6, 0), (DUAL, 1), (DUAL, 2)]);
    let requested = prop_oneof![
        6 => Just(Vec::new()),
        2 => prop::collection::vec(any_address(), 1..3),
    ];
    let pool =
        prop_oneof![4 => Just(None), 1 => prop::sample::select(vec!["p", "q", "r"]).prop_map(Some)];
    let sharing = prop::option::of((
        prop::sample::select(vec!["k", "l"]),
        any::<bool>(),
        80_u16..82,
    ));
    let held = prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec(any_address(), 1..3)];
    (
        who,
        families,
        requested,
        pool,
        sharing,
        held,
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(
                (service, uid),
                (families, policy),
                requested,
                pool,
                sharing_key,
                mut held,
                is_local,
            )| {
                let mut made = claim(service, families);
                made.uid = uid.to_string().into();
                made.created_seconds = i64::from(service.as_bytes()[2] % 3);
                made.policy = [
                    FamilyPolicy::SingleStack,
                    FamilyPolicy::PreferDualStack,
                    FamilyPolicy::RequireDualStack,
                ][usize::from(policy)];
                made.requests.addresses = requested;
                made.requests.addresses.dedup();
                made.requests.pool = pool.map(Into::into);
                if let Some((key, is_tcp, port)) = sharing_key {
                    made.requests.sharing_key = Some(key.into());
                    let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
                    made = support::sharing(made, key, protocol, port);
                }
                if is_local {
                    made = local(made, "app");
                }
                held.dedup();
                made.held = held;
                made
            },
        )
}

fn any_pool(name: &'static str) -> impl Strategy<Value = Pool> {
    let ranges = prop::sample::select(vec![
        &["192.0.2.0-192.0.2.1", "2001:db8::1"][..],
        &["192.0.2.1-192.0.2.3"],
        &["198.51.100.1", "192.0.2.2"],
        &["2001:db8::1-2001:db8::2"],
    ]);
    let flags = (
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    let limits = (
        prop::option::weighted(0.3, 0_u32..3),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.3, 1_u32..3),
        prop::option::weighted(0.4, prop::sample::select(vec!["5s", "20s"])),
    );
    let reserved = prop::option::weighted(0.2, prop::sample::select(vec!["a/1", "b/4"]));
    (ranges, flags, limits, reserved).prop_map(
        move |(
            ranges,
            (automatic, careful, disabled),
            (priority, reassign, quota, hold),
            reserved,
        )| {
            let mut made = pool(name, ranges);
            made.auto_assign = automatic;
            made.avoid_buggy_ips = careful;
            made.disabled = disabled;
            if let Some(priority) = priority {
                made = for_namespace(made, "a", priority);
            }
            made.quota = quota.and_then(std::num::NonZeroU32::new);
            made.hold_after_deletion = hold.map(|text| text.parse().unwrap());
            if reassign {
                made.on_in_use = OnInUse::Reassign;
            }
            if let Some(service) = reserved {
                let address = made.ranges[0].first().to_string();
                made = reserving(made, &address, service);
            }
            made
        },
    )
}

fn any_context() -> impl Strategy<Value = Context> {
    let pools = (
        prop::option::weighted(0.8, any_pool("p")),
        prop::option::weighted(0.6, any_pool("q")),
        prop::option::weighted(0.4, any_pool("r")),
    );
    let taken = (
        prop::option::weighted(0.3, any_address()),
        prop::option::weighted(0.3, any_address()),
        prop::option::weighted(0.4, any_address()),
    );
    (pools, taken).prop_map(|((p, q, r), (node, other, stranger))| {
        let mut made = context([p, q, r].into_iter().flatten().collect());
        made.nodes
            .extend(node.map(|address| (address, "node-1".into())));
        made.strangers
            .extend(stranger.map(|address| (address, a_stranger())));
        made.beside([(&key("c/other"), other)])
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_claim().prop_map(Event::Claim),
        2 => prop::collection::vec(any_claim(), 2..4).prop_map(Event::Claims),
        1 => prop::sample::select(SERVICES).prop_map(|service| Event::Contest(key(service))),
        1 => prop::sample::select(SERVICES).prop_map(|service| Event::Withdraw(key(service))),
        2 => prop::sample::select(SERVICES).prop_map(|service| Event::Delete(key(service))),
        1 => (1_i64..12).prop_map(Event::Pass),
        1 => (50_i64..70).prop_map(Event::Pass),
        2 => any_context().prop_map(Event::Configure),
        1 => Just(Event::Restart),
    ]
}

fn a_stranger() -> Stranger {
    Stranger {
        mac: "02:bb:00:00:00:01".to_owned(),
        heard_by: "node-1".to_owned(),
    }
}

/// What the tests know beside the allocator: the claims and the context.
#[derive(Default)]
struct Model {
    context: Context,
    claims: BTreeMap<ServiceKey, Claim>,
    /// Until when which address is held for which deleted Service.
    holds: BTreeMap<(IpAddr, ServiceKey), Timestamp>,
    now: Timestamp,
    /// When the allocator gave which address to which Service; nothing for what it found in a status.
    given: BTreeMap<(ServiceKey, IpAddr), Timestamp>,
    allocator: Allocator,
}

type Holdings = BTreeMap<ServiceKey, Vec<IpAddr>>;

impl Model {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Claim(claim) => self.claim(claim),
            Event::Claims(claims) => claims.into_iter().for_each(|claim| self.claim(claim)),
            Event::Contest(service) => {
                for claim in self.contest(&service) {
                    self.claim(claim);
                }
            }
            Event::Withdraw(service) => {
                self.claims.remove(&service);
                self.allocator.withdraw(&service);
            }
            Event::Delete(service) => {
                self.hold_what_it_has(&service);
                self.claims.remove(&service);
                self.allocator.delete(&service);
            }
            Event::Pass(seconds) => {
                self.now += SignedDuration::from_secs(seconds);
                let now = self.now;
                self.holds.retain(|_, until| *until > now);
                self.allocator.advance(now);
            }
            Event::Configure(context) => {
                self.context = context.clone();
                let pools = &self.context.pools;
                self.holds.retain(|(address, _), _| {
                    let inside = || pools.values().filter(|pool| pool.contains(*address));
                    inside().next().is_none()
                        || inside().any(|pool| pool.hold_after_deletion.is_some())
                });
                self.allocator.configure(context);
            }
            Event::Restart => {
                self.given.clear();
                self.allocator = self.restarted();
            }
        }
        for outcome in self.allocator.settle() {
            let service = outcome.service;
            for address in outcome.adopted {
                self.given.remove(&(service.clone(), address));
            }
            for address in outcome.gained {
                self.given.insert((service.clone(), address), self.now);
            }
        }
        let holdings = self.holdings();
        self.given.retain(|(service, address), _| {
            holdings
                .get(service)
                .is_some_and(|held| held.contains(address))
        });
        let (claims, allocator) = (&self.claims, &self.allocator);
        self.holds.retain(|(address, service), _| {
            claims.get(service).is_none_or(|claim| {
                let family = IpFamily::of(*address);
                let mut held = allocator.decision(service).unwrap().addresses();
                claim.families.contains(&family) && !held.any(|held| IpFamily::of(held) == family)
            })
        });
    }

    /// What a Service has now is held for it, as long as the pools say.
    fn hold_what_it_has(&mut self, service: &ServiceKey) {
        let had: Vec<IpAddr> = self
            .allocator
            .decision(service)
            .map(|decision| decision.addresses().collect())
            .unwrap_or_default();
        for address in had {
            let pools = self.context.pools.values();
            let pools = pools.filter(|pool| pool.contains(address));
            let times = pools.filter_map(|pool| pool.hold_after_deletion);
            if let Some(time) = times.max() {
                let until = self.now + SignedDuration::from_secs(time.seconds().into());
                self.holds.insert((address, service.clone()), until);
            }
        }
    }

    fn claim(&mut self, claim: Claim) {
        let known = self.claims.get(&claim.service);
        if known.is_some_and(|known| known.uid != claim.uid) {
            self.hold_what_it_has(&claim.service);
        }
        self.claims.insert(claim.service.clone(), claim.clone());
        self.allocator.claim(claim);
    }

    /// What the two Services of a contest claim.
    fn contest(&self, service: &ServiceKey) -> Vec<Claim> {
        let Some(known) = self.claims.get(service) else {
            return Vec::new();
        };
        let mut changed = known.clone();
        let mut terms = (*changed.terms).clone();
        let port = if terms
            .ports
            .contains(&(Protocol::Tcp, 90.try_into().unwrap()))
        {
            91
        } else {
            90_u16
        };
        terms.ports = [(Protocol::Tcp, port.try_into().unwrap())].into();
        changed.terms = terms.into();
        let mut newcomer = claim("c/newcomer", DUAL);
        newcomer.uid = format!("{}", self.now.as_second() + i64::from(port)).into();
        newcomer.created_seconds = -1;
        newcomer.held = self.decision(service).addresses().collect();
        vec![changed, newcomer]
    }

    /// Another allocator that knows nothing but the statuses.
    fn restarted(&self) -> Allocator {
        let mut allocator = Allocator::default();
        allocator.advance(self.now);
        allocator.configure(self.context.clone());
        self.allocator
            .holds()
            .for_each(|hold| allocator.restore(hold));
        let holdings = self.holdings();
        for (service, claim) in &self.claims {
            let mut claim = claim.clone();
            claim.held = holdings[service].clone();
            allocator.claim(claim);
        }
        allocator.settle();
        allocator
    }

    fn decision(&self, service: &ServiceKey) -> &Decision {
        self.allocator.decision(service).unwrap()
    }

    fn holdings(&self) -> Holdings {
        let services = self.claims.keys();
        services
            .map(|service| {
                (
                    service.clone(),
                    self.decision(service).addresses().collect(),
                )
            })
            .collect()
    }

    /// Whether a Service may be given an address that it does not have, by the rules alone.
    fn may_have(&self, claim: &Claim, address: IpAddr, requested: bool, kept: &[IpAddr]) -> bool {
        let pools: Vec<&Pool> = self.context.pools.values().map(AsRef::as_ref).collect();
        let reserved: Vec<&ServiceKey> = pools
            .iter()
            .filter_map(|pool| pool.reserved_for(address))
            .collect();
        let is_mine = reserved.contains(&&claim.service);
        let on_hold = !self.is_held(address)
            && self.holds.keys().any(|(held, _)| *held == address)
            && !self.holds.contains_key(&(address, claim.service.clone()));
        let wanted = claim.requests.pool.as_ref();
        let buggy = matches!(address, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]));
        let admits = |pool: &&Pool| {
            let selected = pool.allocation.as_ref().is_none_or(|allocation| {
                allocation
                    .namespaces
                    .iter()
                    .any(|name| name == claim.service.namespace())
            });
            let mine = pool.reserved_for(address) == Some(&claim.service);
            pool.contains(address)
                && !pool.disabled
                && wanted.is_none_or(|wanted| *wanted == pool.name)
                && (selected || mine && requested)
                && (mine && requested || !self.exceeds_quota(pool, claim, address, kept))
                && (requested || wanted.is_some() || pool.auto_assign)
                && (requested || !(pool.avoid_buggy_ips && buggy))
        };
        let others = self
            .claims
            .values()
            .filter(|other| other.service != claim.service);
        claim.families.contains(&IpFamily::of(address))
            && !self.context.nodes.contains_key(&address)
            && !self.context.others.contains_key(&address)
            && (requested || !self.context.strangers.contains_key(&address))
            && (reserved.is_empty() || is_mine)
            && !on_hold
            && pools.iter().any(admits)
            && others
                .filter(|other| {
                    self.decision(&other.service)
                        .addresses()
                        .any(|held| held == address)
                })
                .all(|other| may_share(claim, other))
    }

    /// Whether a Service was given this within a minute, and another machine has it.
    fn is_given_in_vain(&self, context: &Context, service: &ServiceKey, address: IpAddr) -> bool {
        let given = self.given.get(&(service.clone(), address));
        context.strangers.contains_key(&address)
            && given.is_some_and(|given| self.now.duration_since(*given).as_secs() < 60)
    }

    fn is_held(&self, address: IpAddr) -> bool {
        self.holdings()
            .into_values()
            .flatten()
            .any(|held| held == address)
    }

    /// Whether the namespace would have more of the pool than its quota, with this address beside what it keeps, in place
    /// of what the Service has.
    fn exceeds_quota(&self, pool: &Pool, claim: &Claim, address: IpAddr, kept: &[IpAddr]) -> bool {
        let Some(limit) = pool.quota else {
            return false;
        };
        let inside =
            |held: &IpAddr| pool.contains(*held) && IpFamily::of(*held) == IpFamily::of(address);
        let holdings = self.holdings();
        let same = holdings
            .iter()
            .filter(|(service, _)| service.namespace() == claim.service.namespace());
        let others = same.filter(|(service, _)| **service != claim.service);
        let mut after: BTreeSet<IpAddr> = others
            .flat_map(|(_, held)| held)
            .copied()
            .filter(inside)
            .collect();
        let own = &holdings[&claim.service];
        let mut before = after.clone();
        before.extend(own.iter().copied().filter(inside));
        if after.contains(&address) {
            return false;
        }
        after.extend(kept.iter().copied().filter(inside));
        after.insert(address);
        after.len() > before.len().max(limit.get() as usize)
    }

    fn any_can_be_had(&self, claim: &Claim, family: IpFamily, kept: &[IpAddr]) -> bool {
        let held: Vec<IpAddr> = self.decision(&claim.service).addresses().collect();
        let of_family = ADDRESSES
            .map(ip)
            .into_iter()
            .filter(|&address| IpFamily::of(address) == family);
        let reserved = |address: &IpAddr| {
            let mut pools = self.context.pools.values();
            pools.any(|pool| pool.reserved_for(*address).is_some())
        };
        of_family
            .filter(|address| !held.contains(address) && !reserved(address))
            .any(|address| self.may_have(claim, address, false, kept))
    }
}

fn may_share(one: &Claim, other: &Claim) -> bool {
    let (one, other) = (&one.terms, &other.terms);
    one.key.is_some()
        && one.key == other.key
        && one.ports.is_disjoint(&other.ports)
        && match (&one.backend, &other.backend) {
            (Backend::Cluster, Backend::Cluster) => true,
            (Backend::Local(one), Backend::Local(other)) => one == other,
            _ => false,
        }
}

/// No address is held by two that may not share it.
fn no_double_use(model: &Model) -> Result<(), TestCaseError> {
    let holdings = model.holdings();
    for (one, addresses) in &holdings {
        for (other, theirs) in holdings.range(one.clone()..).skip(1) {
            let both = addresses.iter().any(|address| theirs.contains(address));
            let allowed = may_share(&model.claims[one], &model.claims[other]);
            prop_assert!(
                !both || allowed,
                "{one} and {other} both have {addresses:?}"
            );
        }
    }
    Ok(())
}

/// The Services that may lose what they have by what they say themselves: they ask for something else, or share what they
/// have on other terms. One that changes anything else, and has its addresses alone, keeps them.
fn asking_otherwise(model: &Model, before: &Holdings, claims: &[Claim]) -> BTreeSet<ServiceKey> {
    let asks_the_same = |new: &Claim| {
        let mut same = claims.iter().filter(|claim| claim.service == new.service);
        let old = model.claims.get(&new.service);
        same.all(|new| {
            old.is_some_and(|old| {
                old.uid == new.uid
                    && old.families == new.families
                    && old.policy == new.policy
                    && old.requests.addresses == new.requests.addresses
                    && old.requests.pool == new.requests.pool
            })
        })
    };
    let is_alone = |service: &ServiceKey| {
        let mut others = before.iter().filter(|(other, _)| *other != service);
        let held = before.get(service);
        others.all(|(_, theirs)| {
            !theirs
                .iter()
                .any(|it| held.is_some_and(|held| held.contains(it)))
        })
    };
    let otherwise = claims
        .iter()
        .filter(|claim| !asks_the_same(claim) || !is_alone(&claim.service));
    otherwise.map(|claim| claim.service.clone()).collect()
}

/// Whoever has all it asked for keeps it, whatever happens to others.
fn nobody_moves(
    model: &Model,
    before: &Holdings,
    was_complete: &BTreeSet<ServiceKey>,
    touched: &BTreeSet<ServiceKey>,
) -> Result<(), TestCaseError> {
    for service in was_complete
        .iter()
        .filter(|service| !touched.contains(*service))
    {
        let now: Vec<IpAddr> = model.decision(service).addresses().collect();
        prop_assert_eq!(&now, &before[service], "{} moved", service);
    }
    Ok(())
}

/// The claims that an event makes.
fn brought(model: &Model, event: &Event) -> Vec<Claim> {
    match event {
        Event::Claim(claim) => vec![claim.clone()],
        Event::Claims(claims) => claims.clone(),
        Event::Contest(service) => model.contest(service),
        _ => Vec::new(),
    }
}

/// No gift takes a namespace over the quota of the only pool that could have made it; `before` is what all had, and what
/// they came with, which they keep, and which others of their namespace may share.
fn no_gift_exceeds_a_quota(model: &Model, before: &Holdings) -> Result<(), TestCaseError> {
    let after = model.holdings();
    for (service, addresses) in &after {
        let gifts = addresses
            .iter()
            .filter(|&&address| !is_held_within(service.namespace(), address, before));
        for &address in gifts {
            let Some(pool) = only_pool(model, address) else {
                continue;
            };
            let mut reservations = pool.reservations.iter();
            let is_reserved = reservations.any(|reserved| reserved.service == *service);
            let Some(limit) = pool.quota.filter(|_| !is_reserved) else {
                continue;
            };
            let (namespace, family) = (service.namespace(), IpFamily::of(address));
            let was = distinct(held_in(pool, family, namespace, before));
            // What the pool reserves for a Service, and what another pool may have given, counts, and is beyond the quota.
            let limited = held_in(pool, family, namespace, &after).filter(|(holder, held)| {
                only_pool(model, *held).is_some() && pool.reserved_for(*held) != Some(holder)
            });
            let is = distinct(limited);
            prop_assert!(
                is <= was.max(limit.get() as usize),
                "{service} was given {address}, by which {namespace} has {is} of {limit} of {}",
                pool.name
            );
        }
    }
    Ok(())
}

fn is_held_within(namespace: &str, address: IpAddr, holdings: &Holdings) -> bool {
    let mut same = holdings
        .iter()
        .filter(|(service, _)| service.namespace() == namespace);
    same.any(|(_, held)| held.contains(&address))
}

/// The pool that has the address, if no other has it too.
fn only_pool(model: &Model, address: IpAddr) -> Option<&Pool> {
    let pools = model.context.pools.values();
    let mut containing = pools.filter(|pool| pool.contains(address));
    let pool = containing.next()?;
    containing.next().is_none().then_some(pool)
}

fn held_in<'a>(
    pool: &'a Pool,
    family: IpFamily,
    namespace: &'a str,
    holdings: &'a Holdings,
) -> impl Iterator<Item = (&'a ServiceKey, IpAddr)> {
    let same = holdings
        .iter()
        .filter(move |(service, _)| service.namespace() == namespace);
    let held = same.flat_map(|(service, held)| held.iter().map(move |&held| (service, held)));
    held.filter(move |&(_, held)| IpFamily::of(held) == family && pool.contains(held))
}

fn distinct<'a>(held: impl Iterator<Item = (&'a ServiceKey, IpAddr)>) -> usize {
    held.map(|(_, address)| address)
        .collect::<BTreeSet<_>>()
        .len()
}

/// What is held for deleted Services is what the pools say, no longer and no less.
fn holds_are_true(model: &Model) -> Result<(), TestCaseError> {
    let found = model.allocator.holds();
    let found: BTreeMap<_, _> = found
        .map(|hold| ((hold.address, hold.service), hold.until))
        .collect();
    prop_assert_eq!(&found, &model.holds);
    prop_assert_eq!(
        model.allocator.poll_timeout(),
        model.holds.values().min().copied()
    );
    Ok(())
}

/// Whatever can be given is given, and what is refused cannot be given.
fn every_refusal_is_true(model: &Model) -> Result<(), TestCaseError> {
    for (service, claim) in &model.claims {
        let decision = model.decision(service);
        let held: Vec<IpAddr> = decision.addresses().collect();
        let Some(rejection) = &decision.rejection else {
            for family in &claim.families {
                let has = held.iter().any(|&address| IpFamily::of(address) == *family);
                prop_assert!(has, "{service} has no {family} address and no reason");
            }
            let requested = &claim.requests.addresses;
            let has_all = requested.iter().all(|address| held.contains(address));
            prop_assert!(has_all, "{service} has not what it asked for and no reason");
            continue;
        };
        for refusal in &rejection.refusals {
            let possible = match &refusal.asked {
                Asked::Address(address) | Asked::Reserved(address) => {
                    let asked = &claim.requests.addresses;
                    let earlier = asked.iter().take_while(|earlier| *earlier != address);
                    let kept = asked.iter().filter(|asked| held.contains(asked));
                    let kept: Vec<IpAddr> = earlier.chain(kept).copied().collect();
                    !held.contains(address) && model.may_have(claim, *address, true, &kept)
                }
                Asked::Any(family, _) => model.any_can_be_had(claim, *family, &[]),
                Asked::Another(address) | Asked::Free(address) => {
                    let family = IpFamily::of(*address);
                    let mut kept = held.clone();
                    kept.retain(|held| held != address && IpFamily::of(*held) == family);
                    model.any_can_be_had(claim, family, &kept)
                }
                Asked::Unreadable => false,
            };
            prop_assert!(
                !possible,
                "{service} is refused what it could have: {rejection}"
            );
        }
        if held.is_empty() && claim.policy == FamilyPolicy::RequireDualStack {
            let last = rejection.refusals[0].obstacles.last();
            let unclear = matches!(last, Some(Obstacle::WrongFamily { .. }));
            prop_assert!(unclear || last == Some(&Obstacle::OtherFamilyMissing));
        }
    }
    Ok(())
}

/// Whatever was given may be given.
fn every_gift_is_allowed(model: &Model, before: &Holdings) -> Result<(), TestCaseError> {
    for (service, claim) in &model.claims {
        let decision = model.decision(service);
        let had_nothing = before.get(service).is_none_or(Vec::is_empty) && claim.held.is_empty();
        if claim.policy == FamilyPolicy::RequireDualStack
            && had_nothing
            && decision.rejection.is_some()
        {
            prop_assert!(
                decision.granted.is_empty(),
                "{service} requires two families and was given one"
            );
        }
        for address in model.decision(service).addresses() {
            let had = before
                .get(service)
                .is_some_and(|had| had.contains(&address));
            if had || claim.held.contains(&address) {
                continue;
            }
            let mut pools = model.context.pools.values();
            let asked = claim.requests.addresses.contains(&address)
                || pools.any(|pool| pool.reserved_for(address) == Some(service));
            let allowed = model.may_have(claim, address, asked, &[]);
            prop_assert!(allowed, "{service} was given {address}");
        }
    }
    Ok(())
}

/// Nobody who is clear about what it wants sits on an address that another machine had before it was given, if there is
/// another one.
fn what_was_given_in_vain_is_exchanged(model: &Model) -> Result<(), TestCaseError> {
    let is_clear = |claim: &Claim| {
        let mut requested = claim.requests.addresses.iter();
        let possible = requested.all(|&asked| claim.families.contains(&IpFamily::of(asked)));
        possible && claim.requests.complaints.is_empty()
    };
    for (service, claim) in model.claims.iter().filter(|(_, claim)| is_clear(claim)) {
        let held: Vec<IpAddr> = model.decision(service).addresses().collect();
        for &address in &held {
            let family = IpFamily::of(address);
            let mut pools = model.context.pools.values();
            let mut requested = claim.requests.addresses.iter();
            let chose = requested.any(|&asked| IpFamily::of(asked) == family)
                || pools.any(|pool| pool.reserved_for(address) == Some(service));
            if chose || !model.is_given_in_vain(&model.context, service, address) {
                continue;
            }
            let mut kept = held.clone();
            kept.retain(|held| *held != address && IpFamily::of(*held) == family);
            prop_assert!(
                !model.any_can_be_had(claim, family, &kept),
                "{service} sits on {address}, which another machine has"
            );
        }
    }
    Ok(())
}

/// The counts are those of counting.
fn usage_is_true(model: &Model) -> Result<(), TestCaseError> {
    let held: BTreeSet<IpAddr> = model.holdings().into_values().flatten().collect();
    for (name, usage) in model.allocator.usage() {
        let pool = &model.context.pools[name];
        let inside = |family| {
            let held = held.iter().filter(|&&address| pool.contains(address));
            held.filter(|&&address| IpFamily::of(address) == family)
                .count() as i64
        };
        let free = |family: IpFamily| {
            let all = pool.ranges.iter().flat_map(|range| range.addresses());
            all.filter(|&address| {
                let buggy = matches!(address, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]));
                let mut pools = model.context.pools.values();
                let skipped = pool.avoid_buggy_ips && buggy;
                let taken = held.contains(&address)
                    || model.context.nodes.contains_key(&address)
                    || model.context.others.contains_key(&address)
                    || model.context.strangers.contains_key(&address);
                let reserved = pools.any(|pool| pool.reserved_for(address).is_some())
                    || model.holds.keys().any(|(held, _)| *held == address);
                IpFamily::of(address) == family && !taken && !skipped && !reserved
            })
            .count() as i64
        };
        let expected = PoolNumbers {
            assigned_ipv4: inside(IpFamily::V4),
            assigned_ipv6: inside(IpFamily::V6),
            available_ipv4: free(IpFamily::V4),
            available_ipv6: free(IpFamily::V6),
        };
        prop_assert_eq!(PoolNumbers::from(usage), expected, "{}", name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_laws_hold_after_every_event(events in prop::collection::vec(any_event(), 1..24)) {
        let mut model = Model::default();
        for event in events {
            let before = model.holdings();
            let complete = model.claims.keys().filter(|service| model.decision(service).is_complete());
            let complete: BTreeSet<ServiceKey> = complete.cloned().collect();
            let touched: BTreeSet<ServiceKey> = match &event {
                Event::Claim(claim) => asking_otherwise(&model, &before, std::slice::from_ref(claim)),
                Event::Claims(claims) => asking_otherwise(&model, &before, claims),
                Event::Contest(service) => asking_otherwise(&model, &before, &model.contest(service)),
                Event::Withdraw(service) | Event::Delete(service) => [service.clone()].into(),
                Event::Restart | Event::Pass(_) => BTreeSet::new(),
                // A pool may reassign, and a pool that was asked for may change: those who asked for nothing stay.
                Event::Configure(context) => {
                    let pools = &mut context.pools.values();
                    let reassigns = pools.any(|pool| pool.on_in_use == OnInUse::Reassign);
                    // Whoever was given something within a minute that another machine has may get something else.
                    let given_in_vain = |claim: &Claim| {
                        let mut held = before[&claim.service].iter();
                        held.any(|&address| model.is_given_in_vain(context, &claim.service, address))
                    };
                    let touched = model.claims.values();
                    touched
                        .filter(|claim| reassigns || claim.requests.pool.is_some() || given_in_vain(claim))
                        .map(|claim| claim.service.clone())
                        .collect()
                }
            };
            let mut before_gifts = before.clone();
            for claim in brought(&model, &event) {
                before_gifts.entry(claim.service).or_default().extend(claim.held);
            }
            model.apply(event);
            no_double_use(&model)?;
            nobody_moves(&model, &before, &complete, &touched)?;
            every_refusal_is_true(&model)?;
            every_gift_is_allowed(&model, &before)?;
            what_was_given_in_vain_is_exchanged(&model)?;
            usage_is_true(&model)?;
            holds_are_true(&model)?;
            no_gift_exceeds_a_quota(&model, &before_gifts)?;
            // A restart, or another replica, moves nobody, and finds nothing that was overlooked.
            let restarted = model.restarted();
            for service in model.claims.keys() {
                let addresses = |decision: &Decision| decision.addresses().collect::<Vec<_>>();
                prop_assert_eq!(
                    restarted.decision(service).map(addresses),
                    Some(addresses(model.decision(service))),
                    "{} after a restart", service
                );
            }
        }
    }
}
