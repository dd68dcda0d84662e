//! The worker with a kernel that now and then refuses, and the pending work around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::name::NodeName;
use config::node::Node;
use config::service::Protocol;
use config::snapshot::{Change, Dirty, Snapshot};
use proptest::prelude::*;
use proxy::conntrack::Expected;
use proxy::data_plane::{DataPlane, Description, PlaneError, Sent};
use proxy::pending::Pending;
use proxy::surroundings::{NodePorts, Pods, Settings};
use proxy::work::{Job, Worker, Workload};
use proxy_table::generate::{Scene, Step, any_context, any_scene};
use proxy_table::{
    ForwardingTable, Frontend, FrontendKey, FrontendKind, NodeContext, Place, PodDetection,
    TableChange, is_served,
};

type Held = BTreeMap<FrontendKey, Arc<Frontend>>;

/// A kernel that holds frontends, and refuses when it was told to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Kernel>>);

#[derive(Default)]
struct Kernel {
    held: Held,
    refuse: bool,
    settled: usize,
    gone: bool,
    unforwarded: BTreeSet<IpAddr>,
}

impl Fake {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataPlane for Fake {
    fn settle(&mut self, table: &ForwardingTable) -> Result<Sent, PlaneError> {
        let mut kernel = self.kernel();
        kernel.settled += 1;
        if kernel.refuse {
            return Err(PlaneError("refused".into()));
        }
        let wanted = held(table);
        let anything = kernel.held != wanted;
        kernel.held = wanted;
        Ok(Sent { anything })
    }

    fn update(&mut self, _: &ForwardingTable, changes: &[TableChange]) -> Result<Sent, PlaneError> {
        let mut kernel = self.kernel();
        if kernel.refuse {
            return Err(PlaneError("refused".into()));
        }
        for change in changes.iter().flat_map(|change| &change.frontends) {
            let before = match change.after.clone() {
                Some(after) => kernel.held.insert(change.key, after),
                None => kernel.held.remove(&change.key),
            };
            assert_eq!(
                before, change.before,
                "a change that does not fit what is held"
            );
        }
        Ok(Sent { anything: true })
    }

    fn forwards(&self, address: IpAddr) -> bool {
        !self.kernel().unforwarded.contains(&address)
    }

    fn is_intact(&mut self) -> bool {
        !self.kernel().gone
    }

    fn describe(&self, _: &ForwardingTable) -> Description {
        let held = self.kernel().held.keys().map(ToString::to_string).collect();
        Description::from([("held".to_owned(), held)])
    }
}

fn held(table: &ForwardingTable) -> Held {
    table
        .frontends()
        .map(|(key, _, frontend)| (*key, Arc::clone(frontend)))
        .collect()
}

fn job(steps: &[Step]) -> Job {
    let suspects = steps.iter().filter_map(|step| step.workload.as_ref());
    let suspects: BTreeSet<NodeName> = suspects
        .flat_map(|workload| workload.suspects.clone())
        .collect();
    let services = steps.iter().map(|step| {
        let workload = step.workload.as_ref().map(|workload| Workload {
            service: Arc::new(workload.service.clone()),
            slices: workload.slices.clone(),
        });
        (step.key.clone(), workload)
    });
    Job {
        suspects,
        services: services.collect(),
        ..Job::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_is_right_after_every_job_that_it_did_not_refuse(
        scene in any_scene(12), refusals in proptest::collection::vec(any::<bool>(), 12)
    ) {
        let Scene { context, mut steps, .. } = scene;
        // Which nodes are silent is known of the whole cluster here.
        for step in &mut steps {
            step.workload.iter_mut().for_each(|workload| workload.suspects.clear());
        }
        let fake = Fake::default();
        let mut worker = Worker::new(fake.clone(), Arc::clone(&context));
        let mut table = ForwardingTable::new(Arc::clone(&context));
        let mut announceable = BTreeSet::new();
        let mut others = BTreeMap::new();
        for (step, refuse) in steps.iter().zip(refusals) {
            fake.kernel().refuse = refuse;
            let done = worker.run(job(std::slice::from_ref(step)));
            prop_assert!(refuse || done.sent.is_ok());
            table.update(&step.key, step.part(&context));
            prop_assert!(!done.drifted);
            if done.sent.is_ok() {
                prop_assert_eq!(&fake.kernel().held, &held(&table));
            }
            let elsewhere = step.workload.iter().filter(|workload| !is_served(&workload.service, &context));
            others.insert(&step.key, elsewhere.flat_map(|workload| workload.service.vips()).collect::<BTreeSet<_>>());
            for (address, here) in done.announceable {
                prop_assert!(done.sent.is_ok());
                if here { announceable.insert(address) } else { announceable.remove(&address) };
            }
            if done.sent.is_ok() {
                let kernel = fake.kernel();
                let places: BTreeSet<_> = kernel.held.keys().map(|key| key.place).collect();
                let forwarded = kernel.held.iter().filter(|(_, frontend)| frontend.kind == FrontendKind::LoadBalancer);
                for (key, _) in forwarded {
                    prop_assert!(announceable.iter().any(|&address| key.place == Place::Address(address)));
                }
                for &address in &announceable {
                    let is_others = others.values().any(|vips| vips.contains(&address));
                    prop_assert!(is_others || places.contains(&Place::Address(address)), "{} is not forwarded", address);
                }
            }
            prop_assert_eq!(done.size, (table.services().len(), table.frontends().len()));
        }
        fake.kernel().refuse = false;
        let last = worker.run(Job { settle: true, ..Job::default() });
        prop_assert!(last.sent.is_ok());
        prop_assert_eq!(&fake.kernel().held, &held(&table));
    }

    #[test]
    fn a_worker_that_went_through_it_all_knows_what_a_fresh_one_knows(
        scene in any_scene(12), moved in any_context()
    ) {
        let Scene { context, mut steps, .. } = scene;
        for step in &mut steps {
            step.workload.iter_mut().for_each(|workload| workload.suspects.clear());
        }
        let fake = Fake::default();
        let mut worker = Worker::new(fake.clone(), context);
        let mut health_checks = BTreeMap::new();
        for step in &steps {
            health_checks.extend(worker.run(job(std::slice::from_ref(step))).health_checks);
        }
        let latest: BTreeMap<_, _> = steps.into_iter().map(|step| (step.key.clone(), step)).collect();
        let latest: Vec<Step> = latest.into_values().collect();
        let moved = Arc::new(moved);
        let done = worker.run(Job { context: Some(Arc::clone(&moved)), ..job(&latest) });
        health_checks.extend(done.health_checks);
        health_checks.retain(|_, check| check.is_some());

        let fresh_fake = Fake::default();
        let fresh = Worker::new(fresh_fake.clone(), moved).run(job(&latest));
        prop_assert_eq!(done.without_local, fresh.without_local);
        prop_assert_eq!(health_checks, fresh.health_checks.into_iter().collect());
        prop_assert_eq!(&fake.kernel().held, &fresh_fake.kernel().held);
    }

}

proptest! {
    // Many, since few tables have UDP endpoints on silent nodes alone.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn connections_may_stay_wherever_new_ones_go(scene in any_scene(1)) {
        let Scene { context, steps, .. } = scene;
        let fake = Fake::default();
        let mut worker = Worker::new(fake.clone(), context);
        let mut expected = Expected::default();
        let mut known = BTreeSet::new();
        // Only when a node falls silent TCP needs help too.
        let mut of_tcp = BTreeSet::new();
        for step in &steps {
            let job = job(std::slice::from_ref(step));
            let some_fell_silent = !job.suspects.is_subset(&known);
            known.clone_from(&job.suspects);
            let told = worker.run(job).expected;
            for key in told.frontends.keys().filter(|key| key.protocol == Protocol::Tcp) {
                prop_assert!(some_fell_silent);
                of_tcp.insert(*key);
            }
            expected.merge(told);
        }
        let kernel = fake.kernel();
        for (key, frontend) in &kernel.held {
            if key.protocol == Protocol::Tcp && !of_tcp.contains(key) {
                continue;
            }
            let goals = expected.frontends[key].as_ref().unwrap();
            let chosen = frontend.inside.endpoints().iter().chain(frontend.outside.endpoints());
            prop_assert!(chosen.clone().all(|endpoint| goals.contains(endpoint)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_refusal_forgets_no_connection_that_has_to_go(
        scene in any_scene(8), refusals in proptest::collection::vec(any::<bool>(), 8)
    ) {
        let Scene { context, steps, .. } = scene;
        let (fake, lucky_fake) = (Fake::default(), Fake::default());
        let mut worker = Worker::new(fake.clone(), Arc::clone(&context));
        let mut lucky = Worker::new(lucky_fake, context);
        let (mut told, mut wanted) = (Expected::default(), Expected::default());
        for (step, refuse) in steps.iter().zip(refusals) {
            fake.kernel().refuse = refuse;
            told.merge(worker.run(job(std::slice::from_ref(step))).expected);
            wanted.merge(lucky.run(job(std::slice::from_ref(step))).expected);
            if !refuse {
                prop_assert_eq!(&told.frontends, &wanted.frontends);
            }
        }
    }
}

fn settings() -> Settings {
    Settings {
        mode: proxy::mode::Mode::Auto,
        node_name: NodeName::from("node-1"),
        node_ports: NodePorts::Primary,
        pods: Pods::Fixed(PodDetection::None),
        masquerade_all: false,
        allow_external_ips: false,
        service_proxy_name: None,
    }
}

fn apply(snapshot: &mut Snapshot, pending: &mut Pending, change: Change) {
    let mut dirty = Dirty::default();
    snapshot.apply(change, &mut dirty);
    pending.handle_change(dirty);
}

#[test]
fn a_job_holds_what_changed_and_everything_only_where_the_node_changed() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut snapshot = Snapshot::default();
    let mut pending = Pending::new(settings());
    for name in ["a", "b"] {
        let key = config::name::ServiceKey::new("shop", name);
        let any = proxy_table::generate::any_workload(key.clone());
        let service = any.new_tree(&mut runner).unwrap().current().service;
        apply(
            &mut snapshot,
            &mut pending,
            Change::Service(key, Some(Arc::new(service))),
        );
    }
    let names = |job: &Job| {
        job.services
            .iter()
            .map(|(key, _)| key.name().to_owned())
            .collect::<Vec<_>>()
    };

    let first = pending.take(&snapshot).unwrap();
    assert_eq!(
        (names(&first), first.context.is_some()),
        (vec!["a".to_owned(), "b".to_owned()], true)
    );
    assert!(pending.take(&snapshot).is_none(), "nothing waits any more");

    let gone = config::name::ServiceKey::new("shop", "a");
    apply(&mut snapshot, &mut pending, Change::Service(gone, None));
    let second = pending.take(&snapshot).unwrap();
    assert_eq!(
        (names(&second), second.context.is_some()),
        (vec!["a".to_owned()], false)
    );
    assert!(second.services[0].1.is_none());

    // A node that says nothing new of itself costs nothing, as heartbeats do.
    apply(
        &mut snapshot,
        &mut pending,
        Change::Node("node-1".into(), Some(Arc::new(Node::default()))),
    );
    assert!(pending.take(&snapshot).is_none());
    let moved = Node {
        internal_ips: vec!["192.0.2.1".parse().unwrap()],
        ..Node::default()
    };
    apply(
        &mut snapshot,
        &mut pending,
        Change::Node("node-1".into(), Some(Arc::new(moved))),
    );
    let third = pending.take(&snapshot).unwrap();
    assert_eq!(
        (names(&third), third.context.is_some()),
        (vec!["b".to_owned()], true)
    );

    pending.handle_failure();
    let repair = pending.take(&snapshot).unwrap();
    assert!(repair.settle && repair.services.is_empty());
}

#[test]
fn only_services_with_endpoints_on_a_node_that_fell_silent_are_compiled_again() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut snapshot = Snapshot::default();
    let mut pending = Pending::new(settings());
    let mut on_node_2 = BTreeSet::new();
    for number in 0..20 {
        let key = config::name::ServiceKey::new("shop", format!("s{number}"));
        let any = proxy_table::generate::any_workload(key.clone());
        let workload = any.new_tree(&mut runner).unwrap().current();
        apply(
            &mut snapshot,
            &mut pending,
            Change::Service(key.clone(), Some(Arc::new(workload.service))),
        );
        for slice in workload.slices {
            apply(
                &mut snapshot,
                &mut pending,
                Change::Slice(key.clone(), slice.name.clone(), Some(slice)),
            );
        }
        let endpoints = snapshot.slices(&key).flat_map(|slice| &slice.endpoints);
        let nodes: BTreeSet<_> = endpoints
            .filter_map(|endpoint| endpoint.node.clone())
            .collect();
        if nodes.contains(&"node-2".into()) {
            on_node_2.insert(key);
        }
    }
    assert!(
        !on_node_2.is_empty() && on_node_2.len() < 20,
        "{}",
        on_node_2.len()
    );
    pending.take(&snapshot).unwrap();
    for silent in [&["node-2"][..], &[]] {
        let silent: BTreeSet<NodeName> = silent.iter().copied().map(NodeName::from).collect();
        pending.handle_silent(silent.clone(), &snapshot);
        let job = pending.take(&snapshot).unwrap();
        assert_eq!(job.suspects, silent);
        let compiled: BTreeSet<_> = job.services.into_iter().map(|(key, _)| key).collect();
        assert_eq!(compiled, on_node_2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nobody_announces_what_the_kernel_does_not_forward(
        scene in any_scene(8), lacking in proptest::collection::vec((any::<bool>(), any::<bool>()), 8)
    ) {
        let Scene { context, steps, .. } = scene;
        let (fake, other) = (Fake::default(), Fake::default());
        let mut worker = Worker::new(fake.clone(), Arc::clone(&context));
        let mut complete = Worker::new(other, context);
        let (mut told, mut all) = (BTreeSet::new(), BTreeSet::new());
        let learn = |held: &mut BTreeSet<IpAddr>, news: Vec<(IpAddr, bool)>| {
            for (address, here) in news {
                if here { held.insert(address) } else { held.remove(&address) };
            }
        };
        for (step, (lacks_ipv6, settle)) in steps.iter().zip(lacking) {
            let job = || Job { settle, ..job(std::slice::from_ref(step)) };
            learn(&mut all, complete.run(job()).announceable);
            // What can be had changes when everything is compared.
            if settle {
                let ipv6 = all.iter().filter(|address| lacks_ipv6 && address.is_ipv6());
                fake.kernel().unforwarded = ipv6.copied().collect();
            }
            learn(&mut told, worker.run(job()).announceable);
            let forwarded: BTreeSet<_> = all.difference(&fake.kernel().unforwarded).copied().collect();
            prop_assert_eq!(&told, &forwarded);
        }
    }
}

#[test]
fn the_kernel_is_read_back_at_the_start_and_after_a_refusal_only() {
    let fake = Fake::default();
    let context = Arc::new(NodeContext::new(NodeName::from("node-1")));
    let mut worker = Worker::new(fake.clone(), context);
    let mut settled = |job: Job, refuse: bool| {
        fake.kernel().refuse = refuse;
        worker.run(job);
        fake.kernel().settled
    };
    assert_eq!(settled(Job::default(), true), 1);
    assert_eq!(settled(Job::default(), false), 2);
    assert_eq!(settled(Job::default(), false), 2);
    assert_eq!(
        settled(
            Job {
                settle: true,
                ..Job::default()
            },
            false
        ),
        3
    );
}
