//! The program in a real kernel: read back, met by packets, printed and reloaded by `nft`.
//!
//! Each test has a network namespace of its own, and threads in further ones as hosts.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

mod moves;
mod network;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use network::{Answer, Family, Hosts, Transport, alone, run};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use proxy_nftables::{Kernel, KernelError, Nftables, Program};
use proxy_table::generate::{any_history, any_scene};
use proxy_table::{
    EndpointSet, ForwardingTable, Frontend, FrontendKey, FrontendKind, Masquerade, NodeContext,
    Outcome, Place, PodDetection, ServiceTable, UndefinedPort,
};

macro_rules! kernel_test {
    ($(fn $name:ident() $body:block)*) => {$(
        #[test]
        #[ignore = "needs namespaces of its own: run `make test-kernel`"]
        fn $name() {
            alone(|| $body);
        }
    )*};
}

kernel_test! {
    fn a_connection_survives_the_move_of_its_vip() {
        for family in [Family::V4, Family::V6] {
            moves::a_connection_survives_the_move_of_its_vip(family);
        }
    }

    fn without_a_goal_a_moved_connection_is_reset() {
        moves::without_a_goal_a_moved_connection_is_reset(Family::V4);
    }

    fn nodes_that_name_each_other_send_nothing_twice() {
        for family in [Family::V4, Family::V6] {
            moves::nodes_that_name_each_other_send_nothing_twice(family);
        }
    }

    fn what_sends_on_survives_nft_and_goes_without_a_trace() {
        moves::what_sends_on_survives_nft_and_goes_without_a_trace();
    }

    fn what_others_do_to_our_tables_is_heard() {
        let mut runner = TestRunner::deterministic();
        let mut plane = Nftables::open().unwrap();
        let scene = any_scene(60).new_tree(&mut runner).unwrap().current();
        let mut table = ForwardingTable::new(Arc::clone(&scene.context));
        plane.settle(&table).unwrap();
        for step in &scene.steps {
            let change = table.update(&step.key, step.part(&scene.context));
            plane.update(&table, &[change]).unwrap();
            assert!(!plane.is_disturbed(), "by what we did ourselves: {step:?}");
        }
        let chain = "add chain ip foghorn foreign";
        for (what, command, expected) in [
            ("another table", "add table ip other; add chain ip other some", false),
            ("a chain more", chain, true),
            ("all gone", "flush ruleset", true),
        ] {
            run("nft", &[command]);
            assert_eq!(plane.is_disturbed(), expected, "{what}");
            plane.settle(&table).unwrap();
            assert!(!plane.is_disturbed(), "after it was mended: {what}");
        }
        let endpoints = ["ip", "foghorn", "endpoints"].join(" ");
        assert!(run("nft", &[&format!("list map {endpoints}")]).contains("elements"));
        run("nft", &[&format!("flush map {endpoints}")]);
        assert!(plane.is_disturbed(), "elements are gone");
        plane.settle(&table).unwrap();
        assert!(Kernel::open().unwrap().read().unwrap() == Program::compile(&table));
    }

    fn a_thousand_changes_leave_what_one_would() {
        let mut runner = TestRunner::deterministic();
        let mut plane = Nftables::open().unwrap();
        let mut changes = 0;
        while changes < 1000 {
            let scene = any_scene(200).new_tree(&mut runner).unwrap().current();
            let mut table = ForwardingTable::new(Arc::clone(&scene.context));
            plane.settle(&table).unwrap();
            for step in &scene.steps {
                let change = table.update(&step.key, step.part(&scene.context));
                plane.update(&table, &[change]).unwrap();
                changes += 1;
            }
            let fresh = Program::compile(&table);
            assert_eq!(Kernel::open().unwrap().read().unwrap().diff(&fresh), None);
            assert!(!plane.settle(&table).unwrap(), "a second sync sends something");
        }
    }

    fn ten_thousand_changes_of_one_table_leave_what_one_would() {
        let mut runner = TestRunner::deterministic();
        let scene = any_scene(1).new_tree(&mut runner).unwrap().current();
        let mut table = ForwardingTable::new(Arc::clone(&scene.context));
        let mut plane = Nftables::open().unwrap();
        plane.settle(&table).unwrap();
        let mut changes = 0;
        while changes < 10_000 {
            for step in any_history(400).new_tree(&mut runner).unwrap().current() {
                let change = table.update(&step.key, step.part(&scene.context));
                plane.update(&table, &[change]).unwrap();
                changes += 1;
            }
            let fresh = Program::compile(&table);
            assert_eq!(Kernel::open().unwrap().read().unwrap().diff(&fresh), None, "after {changes}");
        }
        assert!(!plane.is_disturbed());
        assert!(!plane.settle(&table).unwrap(), "a second sync sends something");
    }

    fn a_fresh_kernel_holds_the_program_and_nothing_else() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..20 {
            let scene = any_scene(60).new_tree(&mut runner).unwrap().current();
            let table = scene.table();
            assert!(Nftables::open().unwrap().settle(&table).unwrap());
            assert_eq!(Kernel::open().unwrap().read().unwrap(), Program::compile(&table));
            assert!(Nftables::remove().unwrap());
            assert!(!Nftables::remove().unwrap());
            assert_eq!(Kernel::open().unwrap().read().unwrap(), Program::default());
        }
    }

    fn the_rules_survive_nft() {
        let scene = Scene::new();
        // nft 1.0.6 prints clients' maps with keys of IPv6 and aborts when it reads them again: without affinity there.
        for (affinity_seconds, families) in [(None, &[Family::V4, Family::V6][..]), (Some(60), &[Family::V4])] {
            let mut table = scene.empty_table();
            for (number, family) in (1..).zip(families) {
                let mut frontend = scene.frontend(*family, &[1, 2]);
                frontend.affinity_seconds = affinity_seconds.and_then(std::num::NonZeroU32::new);
                frontend.outside = scene.forward(*family, &[2]);
                frontend.masquerade = Masquerade::OnlyNode;
                frontend.sources = Some(["0.0.0.0/1", "128.0.0.0/2", "2001:db8::/32", "2001:db9::1/128"]
                    .iter().map(|net| net.parse().unwrap()).collect());
                scene.add(&mut table, number, *family, 80, frontend);
            }
            let mut plane = Nftables::open().unwrap();
            plane.settle(&table).unwrap();
            let printed = run("nft", &["list", "ruleset"]);
            run("nft", &["flush", "ruleset"]);
            network::feed("nft", &["-f", "-"], &printed);
            assert_eq!(run("nft", &["list", "ruleset"]), printed);
            assert_eq!(Kernel::open().unwrap().read().unwrap(), Program::compile(&table));
            Nftables::remove().unwrap();
        }
    }

    fn nft_prints_what_it_cannot_read_again() {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        let mut frontend = scene.frontend(Family::V6, &[1, 2]);
        frontend.affinity_seconds = std::num::NonZeroU32::new(60);
        scene.add(&mut table, 1, Family::V6, 80, frontend);
        Nftables::open().unwrap().settle(&table).unwrap();
        let printed = run("nft", &["list", "ruleset"]);
        assert!(printed.contains("update @affinity { ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1m : meta priority }"), "{printed}");
    }

    fn what_others_change_is_noticed_and_mended() {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        let mut plane = Nftables::open().unwrap();
        plane.settle(&table).unwrap();
        // What is not ours is none of our business.
        run("nft", &["add", "table", "ip", "elsewhere"]);
        let change = scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        assert!(plane.update(&table, &[change]).unwrap());
        assert_eq!(Kernel::open().unwrap().read().unwrap().diff(&Program::compile(&table)), None);
        for vandalism in ["flush ruleset", "delete table ip6 foghorn", "add chain ip foghorn mine"] {
            Command::new("nft").args(vandalism.split(' ')).status().unwrap();
            let change = scene.add(&mut table, 2, Family::V6, 80, scene.frontend(Family::V6, &[1]));
            let refused = plane.update(&table, &[change]);
            assert!(matches!(refused, Err(KernelError::Foreign)), "{vandalism}: {refused:?}");
            assert!(plane.settle(&table).unwrap());
            assert_eq!(Kernel::open().unwrap().read().unwrap(), Program::compile(&table), "{vandalism}");
            let change = table.update(&Scene::service(2), None);
            plane.update(&table, &[change]).unwrap();
        }
        for vandalism in ["flush chain ip foghorn services", "flush set ip foghorn hairpins", "delete map ip foghorn affinity-slots"] {
            Command::new("nft").args(vandalism.split(' ')).status().unwrap();
            plane.settle(&table).unwrap();
            assert_eq!(Kernel::open().unwrap().read().unwrap().diff(&Program::compile(&table)), None, "{vandalism}");
        }
    }

    fn a_long_change_comes_in_parts_and_whole() {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        for number in 0..20_000 {
            scene.add(&mut table, number, Family::V4, 80, scene.frontend(Family::V4, &[1, 2, 3]));
        }
        let mut plane = Nftables::open().unwrap();
        assert!(plane.settle(&table).unwrap());
        assert_eq!(Kernel::open().unwrap().read().unwrap(), Program::compile(&table));
        let mut other = scene.empty_table();
        for number in 0..20_000 {
            scene.add(&mut other, number, Family::V4, 80, scene.frontend(Family::V4, &[2]));
        }
        assert!(plane.settle(&other).unwrap());
        assert_eq!(Kernel::open().unwrap().read().unwrap().diff(&Program::compile(&other)), None);
    }

    fn packets_meet_the_verdict() {
        let hosts = Hosts::new();
        let mut plane = Nftables::open().unwrap();
        for family in [Family::V4, Family::V6] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let scene = Scene { transport, ..Scene::new() };
                packets(&hosts, &scene, &mut plane, family);
            }
        }
    }
}

/// Everything that packets of one family and protocol can meet.
fn packets(hosts: &Hosts, scene: &Scene, plane: &mut Nftables, family: Family) {
    let transport = scene.transport;
    let mut table = scene.empty_table();
    let forward = |pods: &[u8]| scene.forward(family, pods);
    let frontend = |pods: &[u8]| scene.frontend(family, pods);
    let cases: [(u32, Frontend); 8] = [
        (1, frontend(&[1, 2])),
        (2, frontend(&[1])),
        (
            3,
            Frontend {
                masquerade: Masquerade::Always,
                ..frontend(&[1, 2])
            },
        ),
        (
            4,
            Frontend {
                outside: forward(&[2]),
                inside: forward(&[1]),
                masquerade: Masquerade::OnlyNode,
                ..frontend(&[1])
            },
        ),
        (
            5,
            Frontend {
                outside: Outcome::Drop,
                inside: forward(&[1]),
                masquerade: Masquerade::OnlyNode,
                ..frontend(&[1])
            },
        ),
        (
            6,
            Frontend {
                outside: Outcome::Reject,
                inside: Outcome::Reject,
                ..frontend(&[1])
            },
        ),
        (
            7,
            Frontend {
                sources: Some(
                    ["198.51.100.0/24", "2001:db8:394::/48"]
                        .iter()
                        .map(|net| net.parse().unwrap())
                        .collect(),
                ),
                ..frontend(&[1])
            },
        ),
        (
            8,
            Frontend {
                affinity_seconds: std::num::NonZeroU32::new(60),
                ..frontend(&[1, 2])
            },
        ),
    ];
    for (number, frontend) in cases {
        scene.add(&mut table, number, family, 80, frontend);
    }
    scene.add_node_port(
        &mut table,
        9,
        family,
        30_080,
        Frontend {
            masquerade: Masquerade::Always,
            ..frontend(&[1, 2])
        },
    );
    plane.settle(&table).unwrap();

    let vip = |number| scene.vip(family, number);
    let ask = |host: &network::Host, number| network::ask(host, transport, vip(number), 80);
    let several = |host: &network::Host, number| -> BTreeSet<Answer> {
        (0..40).map(|_| ask(host, number)).collect()
    };
    let pod = |number: u8| family.pod(number);
    let seen = |pod: u8, source: IpAddr| Answer::From { pod, source };
    let client = family.client();
    let (node, bridge) = (family.node(), family.bridge());

    // A frontend like a ClusterIP: Pods keep their address, others are masqueraded.
    assert_eq!(
        several(&hosts.client, 1),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.node, 1),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.pods[0], 1),
        [seen(1, bridge), seen(2, pod(1))].into()
    );
    // Hairpin.
    assert_eq!(several(&hosts.pods[0], 2), [seen(1, bridge)].into());
    assert_eq!(several(&hosts.pods[1], 2), [seen(1, pod(2))].into());
    // `externalTrafficPolicy: Cluster`.
    assert_eq!(
        several(&hosts.client, 3),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.pods[1], 3),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    // `externalTrafficPolicy: Local`: from outside only the local endpoint, and the client keeps its address.
    assert_eq!(several(&hosts.client, 4), [seen(2, client)].into());
    assert_eq!(several(&hosts.pods[1], 4), [seen(1, pod(2))].into());
    assert_eq!(several(&hosts.node, 4), [seen(1, bridge)].into());
    assert_eq!(ask(&hosts.client, 5), Answer::Silence);
    assert_eq!(ask(&hosts.pods[1], 5), seen(1, pod(2)));
    assert_eq!(ask(&hosts.node, 5), seen(1, bridge));
    // No endpoint.
    for host in [&hosts.client, &hosts.node, &hosts.pods[0]] {
        assert_eq!(
            ask(host, 6),
            Answer::Refused,
            "{family:?} {transport:?} {host:?}"
        );
    }
    // Source ranges.
    for host in [&hosts.client, &hosts.pods[0]] {
        assert_eq!(ask(host, 7), Answer::Silence);
    }
    // Affinity: one endpoint for each client, also when the other one goes and comes.
    let kept = several(&hosts.client, 8);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let Some(Answer::From { pod: kept, .. }) = kept.first().copied() else {
        panic!("{kept:?}");
    };
    for (pods, expected) in [
        (&[kept][..], kept),
        (&[1, 2], kept),
        (&[3 - kept], 3 - kept),
        (&[1, 2], 3 - kept),
    ] {
        let frontend = Frontend {
            affinity_seconds: std::num::NonZeroU32::new(60),
            ..frontend(pods)
        };
        let change = scene.add(&mut table, 8, family, 80, frontend);
        plane.update(&table, &[change]).unwrap();
        assert_eq!(several(&hosts.client, 8), [seen(expected, bridge)].into());
    }
    // NodePorts, also on the node itself.
    for host in [&hosts.client, &hosts.node, &hosts.pods[0]] {
        let answers: BTreeSet<_> = (0..40)
            .map(|_| network::ask(host, transport, node, 30_080))
            .collect();
        assert_eq!(answers, [seen(1, bridge), seen(2, bridge)].into());
    }
    // Other ports of a ClusterIP, and addresses of no Service.
    assert_eq!(
        network::ask(&hosts.client, transport, vip(1), 81),
        Answer::Refused
    );
    assert_eq!(
        network::ask(&hosts.node, transport, vip(1), 81),
        Answer::Refused
    );
    assert_eq!(
        network::ask(&hosts.client, transport, vip(200), 80),
        Answer::Silence
    );
    // What is not ours.
    assert_eq!(
        network::ask(&hosts.client, transport, pod(1), network::POD_PORT),
        seen(1, client)
    );
}

/// The node whose table the tests make.
struct Scene {
    context: Arc<NodeContext>,
    transport: Transport,
}

impl Scene {
    fn new() -> Self {
        let mut context = NodeContext::new("node-1".into());
        context.pods = PodDetection::Networks(vec![
            "10.244.0.0/16".parse().unwrap(),
            "2001:db8:f4::/48".parse().unwrap(),
        ]);
        context.service_cidrs = ["10.96.0.0/12", "2001:db8:96::/112"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        context.node_port_addresses = [Family::V4.node(), Family::V6.node()].into();
        Self {
            context: Arc::new(context),
            transport: Transport::Tcp,
        }
    }

    fn empty_table(&self) -> ForwardingTable {
        ForwardingTable::new(Arc::clone(&self.context))
    }

    fn service(number: u32) -> config::name::ServiceKey {
        config::name::ServiceKey::new("shop", format!("web-{number}"))
    }

    fn vip(&self, family: Family, number: u32) -> IpAddr {
        let [_, _, high, low] = number.to_be_bytes();
        match family {
            Family::V4 => IpAddr::from([10, 96, high, low]),
            Family::V6 => format!("2001:db8:96::{number:x}").parse().unwrap(),
        }
    }

    fn forward(&self, family: Family, pods: &[u8]) -> Outcome {
        let endpoints = pods.iter().map(|pod| proxy_table::Endpoint {
            address: family.pod(*pod),
            port: network::POD_PORT.try_into().unwrap(),
        });
        Outcome::Forward(EndpointSet::new(endpoints).unwrap())
    }

    fn frontend(&self, family: Family, pods: &[u8]) -> Frontend {
        Frontend {
            kind: FrontendKind::ClusterIp,
            port: "http".into(),
            policy: config::service::TrafficPolicy::Cluster,
            inside: self.forward(family, pods),
            outside: self.forward(family, pods),
            masquerade: Masquerade::UnlessPod,
            affinity_seconds: None,
            scheduler: None,
            sources: None,
        }
    }

    fn add(
        &self,
        table: &mut ForwardingTable,
        number: u32,
        family: Family,
        port: u16,
        frontend: Frontend,
    ) -> proxy_table::TableChange {
        let address = self.vip(family, number);
        let mut part = self.part(Place::Address(address), port, frontend);
        part.cluster_ips.insert(address, UndefinedPort::Reject);
        table.update(&Self::service(number), Some(part))
    }

    fn add_node_port(
        &self,
        table: &mut ForwardingTable,
        number: u32,
        family: Family,
        port: u16,
        frontend: Frontend,
    ) {
        let place = Place::Node(config::address::IpFamily::of(family.node()));
        table.update(
            &Self::service(number),
            Some(self.part(place, port, frontend)),
        );
    }

    fn part(&self, place: Place, port: u16, frontend: Frontend) -> ServiceTable {
        let protocol = match self.transport {
            Transport::Tcp => config::service::Protocol::Tcp,
            Transport::Udp => config::service::Protocol::Udp,
        };
        let key = FrontendKey {
            place,
            protocol,
            port: port.try_into().unwrap(),
        };
        let mut part = ServiceTable::default();
        part.frontends.insert(key, Arc::new(frontend));
        part
    }
}
