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
mod packets;

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use network::{Family, Hosts, POD_PORT, Transport, alone, run};
use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use packets::{
    Plane, Scene, a_change_loses_nothing, connections_stay, endpoints_are_chosen_uniformly, packets,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use proxy_nftables::{Kernel, KernelError, Nftables, Program};
use proxy_table::generate::{any_history, any_scene};
use proxy_table::{ForwardingTable, Frontend, Masquerade, TableChange};

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

    fn a_connection_survives_although_its_port_was_used_before() {
        for family in [Family::V4, Family::V6] {
            moves::a_connection_survives_although_its_port_was_used_before(family);
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
        // A random table need not have endpoints in the end.
        let fixed = Scene::new();
        let change = fixed.add(&mut table, 1, Family::V4, 80, fixed.frontend(Family::V4, &[1]));
        plane.update(&table, &[change]).unwrap();
        assert!(!plane.is_disturbed());
        run("nft", &["flush map ip foghorn endpoints"]);
        assert!(plane.is_disturbed(), "elements are gone");
        plane.settle(&table).unwrap();
        assert!(Kernel::open().unwrap().read().unwrap() == Program::compile(&table));
    }

    fn what_is_probed_is_taken_back_and_nobody_hears_of_it() {
        Nftables::probe().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), "");
        let scene = Scene::new();
        let mut table = scene.empty_table();
        let mut plane = Nftables::open().unwrap();
        plane.settle(&table).unwrap();
        let before = run("nft", &["list", "ruleset"]);
        let mut monitor = Command::new("nft").arg("monitor").stdout(Stdio::piped()).spawn().unwrap();
        let mut heard = BufReader::new(monitor.stdout.take().unwrap()).lines().map(Result::unwrap);
        // It listens once it has heard something.
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let caller = std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) {
            run("nft", &["add table ip begin; delete table ip begin"]);
        });
        assert!(heard.any(|line| line.contains("begin")));
        stop.store(true, Ordering::Relaxed);
        caller.join().unwrap();
        for _ in 0..3 {
            Nftables::probe().unwrap();
        }
        run("nft", &["add table ip end; delete table ip end"]);
        let tables = heard.take_while(|line| !line.contains("table ip end"));
        let foreign = tables.filter(|line| !line.contains("begin") && !line.starts_with('#'));
        assert_eq!(foreign.collect::<Vec<_>>(), [""; 0]);
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]), before);
        assert!(!plane.is_disturbed());
        let change = scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        plane.update(&table, &[change]).unwrap();
        assert!(!plane.is_disturbed());
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

    fn what_goes_refuses_nobody_whom_somebody_else_serves() {
        // A SYN is sent again after a second: less is a machine that is busy with something else.
        const WITHOUT_A_SEGMENT_SENT_AGAIN: Duration = Duration::from_millis(990);
        let hosts = Hosts::new();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        // The client keeps its address and port: ports that the node gives in their place would be used twice before long.
        let frontend = Frontend { masquerade: Masquerade::OnlyNode, ..scene.frontend(Family::V4, &[1]) };
        scene.add(&mut table, 1, Family::V4, 80, frontend);
        let (vip, pod) = (scene.vip(Family::V4, 1), Family::V4.pod(1));
        network::feed("nft", &["-f", "-"], &format!(
            "table ip other {{ chain prerouting {{ type nat hook prerouting priority -100; ip daddr {vip} tcp dport 80 dnat to {pod}:{POD_PORT}; }}; }}"
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        for number in 101..=110 {
            hosts.client.ip(&format!("addr add 192.0.2.{number}/24 dev eth0"));
        }
        // Hundreds of thousands of connections are more than are remembered for as long as usual.
        for state in ["close", "time_wait", "last_ack", "close_wait", "fin_wait"] {
            std::fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}"), "1").unwrap();
        }
        let IpAddr::V4(vip) = vip else { unreachable!() };
        let client = std::thread::spawn(move || hosts.client.run(move || {
            // No port twice: what a kernel remembers of a connection that has just ended delays the next one.
            let sources = (101..=110).flat_map(|host| (1024..65_000).map(move |port| SockaddrIn::new(192, 0, 2, host, port)));
            let (mut asked, mut lost) = (0_u32, 0_u32);
            for source in sources.take_while(|_| !stopped.load(Ordering::Relaxed)) {
                let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
                bind(client.as_raw_fd(), &source).unwrap();
                let begin = Instant::now();
                let outcome = connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(vip, 80)));
                // Whoever asks faster than the Pod accepts is not heard for another reason.
                let _ = nix::unistd::read(&client, &mut [0; 64]);
                asked += 1;
                lost += u32::from(outcome.is_err() || begin.elapsed() > WITHOUT_A_SEGMENT_SENT_AGAIN);
                setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
            }
            (asked, lost)
        }));
        for _ in 0..500 {
            assert!(Nftables::open().unwrap().settle(&table).unwrap());
            assert!(Nftables::remove().unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        let (asked, lost) = client.join().unwrap();
        assert!(asked > 1000 && lost == 0, "{lost} of {asked}");
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

    fn requests_during_a_change_meet_an_endpoint_of_before_or_after() {
        a_change_loses_nothing(&Hosts::new(), &mut Nftables::open().unwrap());
    }

    fn endpoints_of_new_connections_are_chosen_uniformly() {
        endpoints_are_chosen_uniformly(&Hosts::new(), &mut Nftables::open().unwrap());
    }

    fn a_connection_lives_on_when_its_endpoint_ends_and_no_other_begins_there() {
        connections_stay(&Hosts::new(), &mut Nftables::open().unwrap());
    }
}

impl Plane for Nftables {
    fn settle(&mut self, table: &ForwardingTable) {
        Nftables::settle(self, table).unwrap();
    }

    fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) {
        Nftables::update(self, table, changes).unwrap();
    }
}
