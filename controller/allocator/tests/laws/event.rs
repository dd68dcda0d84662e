//! Everything that can happen to an allocator.

use std::net::IpAddr;

use config::name::ServiceKey;
use config::pool::{OnInUse, Pool};
use config::service::{FamilyPolicy, Protocol};
use controller_allocator::{Claim, Context, Stranger};
use proptest::prelude::*;

use crate::support::{self, *};

/// Everything that can happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
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

pub(crate) const ADDRESSES: [&str; 8] = [
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.3",
    "198.51.100.1",
    "203.0.113.9",
    "2001:db8::1",
    "2001:db8::2",
];

pub(crate) const SERVICES: &[&str] = &["a/1", "a/2", "a/3", "b/4", "b/5", "b/6"];

pub(crate) fn any_address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(&ADDRESSES[..]).prop_map(ip)
}

pub(crate) fn any_claim() -> impl Strategy<Value = Claim> {
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

pub(crate) fn any_pool(name: &'static str) -> impl Strategy<Value = Pool> {
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

pub(crate) fn any_context() -> impl Strategy<Value = Context> {
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

pub(crate) fn any_event() -> impl Strategy<Value = Event> {
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

pub(crate) fn a_stranger() -> Stranger {
    Stranger {
        mac: "02:bb:00:00:00:01".to_owned(),
        heard_by: "node-1".to_owned(),
    }
}
