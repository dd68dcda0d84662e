//! The program in a real kernel, through both back ends of iptables: read back, met by packets, among the rules of others.
//!
//! Each test has a network namespace of its own, and threads in further ones as hosts.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

#[path = "../../nftables/tests/network/mod.rs"]
mod network;
#[path = "../../nftables/tests/packets/mod.rs"]
mod packets;

use std::num::NonZeroU32;
use std::process::Command;
use std::sync::Arc;

use config::address::IpFamily;
use network::{Family, Hosts, Transport, alone, run};
use packets::{
    Plane, Scene, a_change_loses_nothing, connections_stay, endpoints_are_chosen_uniformly, packets,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use proxy_iptables::{
    Backend, Block, Change, Found, Iptables, Kernel, KernelError, Mark, Program, Rule, Step, Style,
    Table, Target, Why, kube_proxy,
};
use proxy_table::generate::any_scene;
use proxy_table::{ForwardingTable, TableChange};

macro_rules! kernel_test {
    ($(fn $name:ident($backend:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            fn test($backend: Backend) $body

            #[test]
            #[ignore = "needs namespaces of its own: run `make test-kernel`"]
            fn legacy() {
                alone(|| test(Backend::Legacy));
            }

            #[test]
            #[ignore = "needs namespaces of its own: run `make test-kernel`"]
            fn nft() {
                alone(|| test(Backend::Nft));
            }
        }
    )*};
}

kernel_test! {
    fn packets_meet_the_verdict(backend) {
        let hosts = Hosts::new();
        let mut plane = open(backend);
        for family in [Family::V4, Family::V6] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let scene = Scene { transport, ..Scene::new() };
                packets(&hosts, &scene, &mut plane, family);
            }
        }
    }

    fn requests_during_a_change_meet_an_endpoint_of_before_or_after(backend) {
        a_change_loses_nothing(&Hosts::new(), &mut open(backend));
    }

    fn endpoints_of_new_connections_are_chosen_uniformly(backend) {
        endpoints_are_chosen_uniformly(&Hosts::new(), &mut open(backend));
    }

    fn a_connection_lives_on_when_its_endpoint_ends_and_no_other_begins_there(backend) {
        connections_stay(&Hosts::new(), &mut open(backend));
    }

    fn a_fresh_kernel_holds_the_program_and_nothing_else(backend) {
        let mut runner = TestRunner::deterministic();
        for _ in 0..20 {
            let scene = any_scene(60).new_tree(&mut runner).unwrap().current();
            let table = scene.table();
            assert!(open(backend).settle(&table).unwrap());
            assert!(read(backend) == compile(&table));
            assert!(Iptables::remove(None).unwrap());
            assert!(!Iptables::remove(None).unwrap());
            assert!(read(backend).is_empty());
        }
    }

    fn hundreds_of_changes_leave_what_one_would(backend) {
        let mut runner = TestRunner::deterministic();
        let mut plane = open(backend);
        let mut changes = 0;
        while changes < 300 {
            let scene = any_scene(100).new_tree(&mut runner).unwrap().current();
            let mut table = ForwardingTable::new(Arc::clone(&scene.context));
            plane.settle(&table).unwrap();
            for step in &scene.steps {
                let change = table.update(&step.key, step.part(&scene.context));
                plane.update(&table, &[change]).unwrap();
                changes += 1;
            }
            assert!(plane.is_as_left().unwrap(), "by what we did ourselves");
            assert!(read(backend) == compile(&table));
            assert!(!plane.settle(&table).unwrap(), "a second sync sends something");
        }
    }

    fn what_others_do_to_our_rules_is_mended_and_their_own_stay(backend) {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1, 2]));
        scene.add(&mut table, 2, Family::V6, 80, scene.frontend(Family::V6, &[1]));
        let iptables = |family: &str, arguments: &str| {
            let program = format!("{family}tables-{}", infix(backend));
            let arguments: Vec<&str> = arguments.split(' ').collect();
            run(&program, &arguments)
        };
        for foreign in [
            "-t nat -A PREROUTING -p tcp --dport 7 -j REDIRECT",
            "-t nat -N KUBE-SERVICES",
            "-t filter -N ELSEWHERE",
            "-t filter -A FORWARD -s 203.0.113.9 -j ELSEWHERE",
            "-t filter -A ELSEWHERE -j DROP",
            "-t filter -P FORWARD DROP",
        ] {
            iptables("ip", foreign);
        }
        let foreign = others(backend);
        let mut plane = open(backend);
        plane.settle(&table).unwrap();
        assert_eq!(others(backend), foreign);
        for (family, vandalism) in [
            ("ip", "-t nat -F FOGHORN-SERVICES"),
            ("ip6", "-t nat -F"),
            ("ip6", "-t filter -F"),
            ("ip", "-t nat -D FOGHORN-OUTPUT 1"),
            ("ip", "-t nat -I FOGHORN-SERVICES -j RETURN"),
            ("ip", "-t nat -I FOGHORN-POSTROUTING -m limit --limit 1/sec -j ACCEPT"),
            ("ip", "-t nat -A PREROUTING -j FOGHORN-SERVICES"),
            ("ip", "-t filter -A INPUT -p udp -j FOGHORN-SERVICES"),
            ("ip", "-t nat -N FOGHORN-STRANGE"),
        ] {
            iptables(family, vandalism);
            assert!(!plane.is_as_left().unwrap(), "{vandalism} is not noticed");
            assert!(plane.settle(&table).unwrap());
            assert!(plane.is_as_left().unwrap());
            assert!(read(backend) == compile(&table), "{vandalism} is not mended");
            assert_eq!(others(backend), foreign, "{vandalism}");
        }

        // A chain of others that leads to one of ours stays, and stops nothing.
        let chain_of = |number| {
            let mut table = scene.empty_table();
            scene.add(&mut table, number, Family::V4, 80, scene.frontend(Family::V4, &[1]));
            let program = compile(&table);
            let mut chains = program.families[&IpFamily::V4].chains.keys();
            chains.find(|(_, name)| name.starts_with("FOGHORN-SVC-")).unwrap().1.clone()
        };
        let rules_in = |chain: &str| iptables("ip", &format!("-t nat -S {chain}")).lines().count() - 1;
        let holds = |table: &ForwardingTable| read(backend).diff(&compile(table)).is_none();
        let lead_to = |chain: &str| iptables("ip", &format!("-t nat -A KUBE-SERVICES -j {chain}"));
        let chain = chain_of(1);
        lead_to(&chain);
        assert!(plane.is_as_left().unwrap(), "what others have in chains of their own is theirs");
        for _ in 0..2 {
            let change = table.update(&Scene::service(1), None);
            plane.update(&table, &[change]).unwrap();
            assert!(holds(&table) && plane.is_as_left().unwrap());
            assert_eq!(rules_in(&chain), 0, "what goes is emptied");
            let change = scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1, 2]));
            plane.update(&table, &[change]).unwrap();
            assert!(holds(&table) && plane.is_as_left().unwrap());
            assert_eq!(rules_in(&chain), 2, "what comes again is filled");
        }
        // Nobody had looked when this one came: the kernel refuses, and then somebody looks.
        scene.add(&mut table, 3, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        plane.settle(&table).unwrap();
        lead_to(&chain_of(3));
        let change = table.update(&Scene::service(3), None);
        let refused = plane.update(&table, &[change]).unwrap_err();
        assert!(matches!(refused, KernelError::Line { .. }), "{refused}");
        plane.settle(&table).unwrap();
        assert!(holds(&table) && plane.is_as_left().unwrap());

        assert!(Iptables::remove(Some(backend.other())).unwrap());
        assert_eq!(others(backend), foreign);
        let mut left = read(backend).families.remove(&IpFamily::V4).unwrap();
        for chain in [chain, chain_of(3)] {
            let key = (Table::Nat, chain);
            assert!(left.led_to.remove(&key), "the rule of others is gone");
            assert_eq!(left.chains.remove(&key).as_deref(), Some(&[][..]), "it is not emptied");
        }
        assert!(left.is_empty());
        assert!(!Iptables::remove(Some(backend.other())).unwrap(), "there is nothing more to remove");
    }

    fn rules_that_stay_keep_their_counters(backend) {
        let hosts = Hosts::new();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        let mut plane = open(backend);
        plane.settle(&table).unwrap();
        for _ in 0..3 {
            network::ask(&hosts.client, Transport::Tcp, scene.vip(Family::V4, 1), 80);
        }
        let counted = || {
            let program = format!("iptables-{}-save", infix(backend));
            let text = run(&program, &["-c", "-t", "nat"]);
            let lines = text.lines().filter(|line| line.contains("-j FOGHORN-SVC-"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(counted()[0].starts_with("[3:"), "{:?}", counted());
        // In the same chain, before and behind it, and among the endpoints.
        for (number, pods) in [(0, &[1][..]), (2, &[1]), (1, &[1, 2])] {
            let change = scene.add(&mut table, number, Family::V4, 80, scene.frontend(Family::V4, pods));
            plane.update(&table, &[change]).unwrap();
        }
        let counted = counted();
        assert_eq!(counted.len(), 3);
        assert!(counted[1].starts_with("[3:"), "{counted:?}");
    }

    fn a_line_that_is_refused_is_named(backend) {
        let kernel = Kernel::open(Some(backend)).unwrap();
        let chain: Arc<str> = "FOGHORN-SERVICES".into();
        let steps = vec![
            Step::Create(Arc::clone(&chain)),
            Step::Append(chain, Rule::to(Target::Foreign("--nonsense -j RETURN".into()))),
        ];
        let mut change = Change::default();
        change.families.insert(IpFamily::V4, vec![Block { table: Table::Nat, steps }]);
        let refused = kernel.apply(&change).unwrap_err();
        let KernelError::Line { line, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(line, "-A FOGHORN-SERVICES --nonsense -j RETURN", "{refused}");
        assert!(read(backend).is_empty(), "a part of what was refused is there");
    }

    fn what_the_kernel_refuses_is_not_blamed_on_the_lock(backend) {
        open(backend).settle(&Scene::new().empty_table()).unwrap();
        let mut change = Change::default();
        let steps = vec![Step::Remove("FOGHORN-SERVICES".into())];
        change.families.insert(IpFamily::V4, vec![Block { table: Table::Nat, steps }]);
        let refused = Kernel::open(Some(backend)).unwrap().apply(&change).unwrap_err();
        let KernelError::Line { line, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(line, "-X FOGHORN-SERVICES", "{refused}");
    }

    fn what_one_family_refuses_comes_in_the_other(backend) {
        let kernel = Kernel::open(Some(backend)).unwrap();
        let chain: Arc<str> = "FOGHORN-STRANGE".into();
        let steps = [Step::Remove(Arc::clone(&chain)), Step::Create(chain)];
        let blocks = steps.map(|step| vec![Block { table: Table::Nat, steps: vec![step] }]);
        let mut change = Change::default();
        change.families.extend([IpFamily::V4, IpFamily::V6].into_iter().zip(blocks));
        let refused = kernel.apply(&change).unwrap_err();
        assert!(matches!(refused, KernelError::Line { .. } | KernelError::Failed { .. }), "{refused}");
        let held = read(backend).families;
        let chains = held.values().map(|rules| rules.chains.len());
        assert_eq!(chains.collect::<Vec<_>>(), [0, 1]);
    }

    fn the_back_end_is_where_the_rules_of_others_are(backend) {
        let other = format!("iptables-{}", infix(backend.other()));
        let this = format!("iptables-{}", infix(backend));
        run(&this, &["-A", "INPUT", "-j", "ACCEPT"]);
        let found = Found::find(None).unwrap();
        assert_eq!((found.backend(), found.why()), (backend, Why::MostRules { rules: 1, all: 1 }));
        run(&other, &["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]);
        run(&other, &["-A", "INPUT", "-j", "ACCEPT"]);
        let found = Found::find(None).unwrap();
        assert_eq!((found.backend(), found.why()), (backend.other(), Why::Kubelet));
    }

    fn moving_to_the_other_back_end_leaves_nothing(backend) {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1, 2]));
        open(backend).settle(&table).unwrap();
        open(backend.other()).settle(&table).unwrap();
        assert!(Iptables::remove(Some(backend.other())).unwrap());
        assert!(read(backend).is_empty());
        assert!(read(backend.other()) == compile(&table));
    }

    fn a_thousand_services_come_whole(backend) {
        let scene = Scene::new();
        let mut table = scene.empty_table();
        for number in 0..1000 {
            scene.add(&mut table, number, Family::V4, 80, scene.frontend(Family::V4, &[1, 2, 3]));
        }
        let mut plane = open(backend);
        plane.settle(&table).unwrap();
        assert!(read(backend) == compile(&table));
        let change = scene.add(&mut table, 500, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        plane.update(&table, &[change]).unwrap();
        assert!(read(backend) == compile(&table));
        assert!(Iptables::remove(None).unwrap());
        assert!(read(backend).is_empty());
    }
}

#[test]
#[ignore = "needs namespaces of its own: run `make test-kernel`"]
fn a_table_that_cannot_be_read_is_told_and_keeps_nobody_from_the_rest() {
    alone(|| {
        let scene = Scene::new();
        let table = scene.empty_table();
        let mut plane = open(Backend::Nft);
        plane.settle(&table).unwrap();
        let make_unreadable = || run("nft", &["add rule ip6 nat POSTROUTING masquerade"]);
        let rules = |family: &str| {
            let text = run("nft", &[&format!("list table {family} nat")]);
            text.matches("FOGHORN-").count()
        };
        make_unreadable();
        run("iptables-nft", &["-t", "nat", "-F"]);
        assert!(!plane.is_as_left().unwrap(), "IPv4 waits for IPv6");
        let refused = plane.settle(&table).unwrap_err().to_string();
        let expected = "ip6tables-save cannot read table nat, for it has rules that iptables did not make: \
                        look for them with \"nft list table ip6 nat\", and have them in a table of another name";
        assert_eq!(refused.replace("-nft", ""), expected);
        assert!(rules("ip") > 0, "IPv4 waits for IPv6");
        assert!(plane.is_as_left().is_err());

        let refused = Iptables::remove(None);
        assert!(
            matches!(refused, Err(KernelError::Unreadable { .. })),
            "{refused:?}"
        );
        assert_eq!(rules("ip"), 0, "IPv4 waits for IPv6");
        assert!(rules("ip6") > 0);

        run("nft", &["flush chain ip6 nat POSTROUTING"]);
        assert!(Iptables::remove(None).unwrap());
        make_unreadable();
        assert!(
            !Iptables::remove(None).unwrap(),
            "where nothing of ours is, others may have what they like"
        );
    });
}

#[test]
#[ignore = "needs namespaces of its own: run `make test-kernel`"]
fn what_kube_proxy_has_in_a_table_that_cannot_be_read_is_told() {
    alone(|| {
        run(
            "iptables-nft",
            &["-t", "nat", "-P", "POSTROUTING", "ACCEPT"],
        );
        run("nft", &["add rule ip nat POSTROUTING masquerade"]);
        run("ip6tables-nft", &["-t", "nat", "-N", "KUBE-SERVICES"]);
        let places = ["ip6 (nf_tables)".to_owned()];
        assert_eq!(
            kube_proxy::remove().unwrap(),
            places,
            "where kube-proxy has nothing, others may have what they like"
        );
        for program in ["iptables-nft", "ip6tables-nft"] {
            run(program, &["-t", "nat", "-N", "KUBE-SERVICES"]);
        }
        let refused = kube_proxy::remove();
        assert!(
            matches!(refused, Err(KernelError::Unreadable { .. })),
            "{refused:?}"
        );
        let left = run("ip6tables-nft-save", &["-t", "nat"]);
        assert!(!left.contains("KUBE-"), "IPv6 waits for IPv4: {left}");
    });
}

#[test]
#[ignore = "needs namespaces of its own: run `make test-kernel`"]
fn who_holds_the_lock_for_too_long_is_blamed() {
    alone(|| {
        let scene = Scene::new();
        let table = scene.empty_table();
        for backend in [Backend::Nft, Backend::Legacy] {
            open(backend).settle(&table).unwrap();
        }
        // What it runs has no part in the lock.
        let mut holder = Command::new("flock")
            .args(["-o", "/run/xtables.lock", "sleep", "60"])
            .spawn()
            .unwrap();
        let is_held = || {
            let probe = Command::new("flock")
                .args(["-n", "/run/xtables.lock", "true"])
                .status();
            !probe.unwrap().success()
        };
        while !is_held() {
            std::thread::yield_now();
        }
        let refused = Iptables::remove(None);
        assert!(
            matches!(refused, Err(KernelError::Locked { .. })),
            "{refused:?}"
        );
        assert!(
            read(Backend::Nft).is_empty(),
            "the other back end was not looked at"
        );
        holder.kill().unwrap();
        holder.wait().unwrap();
        // Who waits while the lock is held for a moment gets it.
        while is_held() {
            std::thread::yield_now();
        }
        let mut brief = Command::new("flock")
            .args(["/run/xtables.lock", "sleep", "1"])
            .spawn()
            .unwrap();
        while !is_held() {
            std::thread::yield_now();
        }
        assert!(Iptables::remove(None).unwrap());
        assert!(read(Backend::Legacy).is_empty());
        brief.wait().unwrap();
    });
}

const STYLE: Style = Style {
    mark: Mark(NonZeroU32::new(0x4000).unwrap()),
    random_fully: true,
};

impl Plane for Iptables {
    fn settle(&mut self, table: &ForwardingTable) {
        Iptables::settle(self, table).unwrap();
    }

    fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) {
        Iptables::update(self, table, changes).unwrap();
    }
}

fn open(backend: Backend) -> Iptables {
    Iptables::open(Some(backend), STYLE.mark).unwrap()
}

fn read(backend: Backend) -> Program {
    Kernel::open(Some(backend)).unwrap().read().unwrap()
}

fn compile(table: &ForwardingTable) -> Program {
    Program::compile(table, STYLE, [IpFamily::V4, IpFamily::V6])
}

fn infix(backend: Backend) -> &'static str {
    match backend {
        Backend::Legacy => "legacy",
        Backend::Nft => "nft",
    }
}

/// The rules and chains that are not ours, and the policies.
fn others(backend: Backend) -> Vec<String> {
    let mut lines = Vec::new();
    for table in ["nat", "filter"] {
        let program = format!("iptables-{}-save", infix(backend));
        let text = run(&program, &["-t", table]);
        let foreign = text.lines().filter(|line| {
            !line.contains("FOGHORN-") && !line.starts_with('#') && *line != "COMMIT"
        });
        // Counters of policies stand behind them.
        lines.extend(foreign.map(|line| line.split(" [").next().unwrap().to_owned()));
    }
    lines
}
