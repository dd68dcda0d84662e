//! The program in a real kernel: read back, met by packets, ended gracefully, and gone without a trace.
//!
//! Few kernels of build machines have IPVS: these run in one of Debian's, under qemu. Each test has a network namespace of
//! its own, and threads in further ones as hosts.

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

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::scheduler::Scheduler;
use config::service::Protocol;
use network::{Answer, Connection, Family, Hosts, POD_PORT, Transport, alone, run};
use packets::{
    Plane, Scene, TALK_PORT, a_change_loses_nothing, connections_stay,
    endpoints_are_chosen_uniformly, let_pods_talk, packets,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use proxy_ipvs::{Ipvs, Kernel, KernelError, Program, Retired, Surroundings, Timeouts};
use proxy_nftables::{Key, Nftables};
use proxy_table::generate::any_scene;
use proxy_table::{
    Endpoint, EndpointSet, ForwardingTable, Frontend, FrontendKind, Masquerade, Outcome, Place,
    TableChange,
};

macro_rules! kernel_test {
    ($(fn $name:ident() $body:block)*) => {$(
        #[test]
        #[ignore = "needs a kernel with IPVS: run `make test-kernels`"]
        fn $name() {
            alone(|| $body);
        }
    )*};
}

kernel_test! {
    fn packets_meet_the_verdict() {
        let hosts = Hosts::new();
        let mut plane = open();
        for family in [Family::V4, Family::V6] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let scene = Scene { transport, ..Scene::new() };
                packets(&hosts, &scene, &mut plane, family);
            }
        }
    }

    fn requests_during_a_change_meet_an_endpoint_of_before_or_after() {
        a_change_loses_nothing(&Hosts::new(), &mut open());
    }

    fn endpoints_of_new_connections_are_chosen_uniformly() {
        endpoints_are_chosen_uniformly(&Hosts::new(), &mut open());
    }

    fn a_fresh_kernel_holds_the_program_and_nothing_else() {
        have_addresses();
        Kernel::open().unwrap();
        let before = switches();
        let mut runner = TestRunner::deterministic();
        for _ in 0..10 {
            let table = any_scene(60).new_tree(&mut runner).unwrap().current().table();
            assert!(open().settle(&table, Instant::now()).unwrap());
            assert_eq!(held(), compile(&table));
            assert_eq!(switches(), [1, 2, 1, 1, 1]);
            assert!(Ipvs::remove().unwrap());
            assert!(!Ipvs::remove().unwrap());
            assert_eq!(held(), Program::default());
            assert_eq!(switches(), before);
        }
    }

    fn hundreds_of_changes_leave_what_one_would() {
        have_addresses();
        let mut runner = TestRunner::deterministic();
        let mut plane = open();
        for _ in 0..4 {
            let scene = any_scene(150).new_tree(&mut runner).unwrap().current();
            let mut table = ForwardingTable::new(Arc::clone(&scene.context));
            plane.settle(&table, Instant::now()).unwrap();
            for step in &scene.steps {
                let change = table.update(&step.key, step.part(&scene.context));
                plane.update(&table, &[change], Instant::now()).unwrap();
            }
            // Nobody is connected: what waits goes at the first look.
            plane.let_go(Instant::now() + Duration::from_secs(3)).unwrap();
            assert_eq!(held(), compile(&table));
            assert!(!plane.is_disturbed(later()));
            assert!(!plane.settle(&table, Instant::now()).unwrap(), "a second sync sends something");
            assert!(!open().settle(&table, Instant::now()).unwrap(), "a restart sends something");
        }
    }

    fn timeouts_are_set_and_put_back() {
        Kernel::open().unwrap();
        let timeouts = || words("ipvsadm -L --timeout");
        let before = timeouts();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let wanted = Timeouts { tcp: seconds(1234), tcp_fin: seconds(56), udp: seconds(78) };
        let table = Scene::new().empty_table();
        Ipvs::open(Scheduler::default(), wanted).unwrap().settle(&table, Instant::now()).unwrap();
        assert!(timeouts().contains(": 1234 56 78"), "{}", timeouts());
        // As conntrack has it at each sync, unless something else is said.
        let unsaid = Timeouts { tcp: None, ..wanted };
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "4321").unwrap();
        Ipvs::open(Scheduler::default(), unsaid).unwrap().settle(&table, Instant::now()).unwrap();
        assert!(timeouts().contains(": 4321 56 78"), "{}", timeouts());
        let longest = Timeouts { tcp: Some(Duration::MAX), ..wanted };
        Ipvs::open(Scheduler::default(), longest).unwrap().settle(&table, Instant::now()).unwrap();
        Ipvs::remove().unwrap();
        assert_eq!(timeouts(), before);
    }

    fn what_others_need_too_is_not_put_back() {
        Kernel::open().unwrap();
        assert_eq!(switches()[2], 0);
        open().settle(&Scene::new().empty_table(), Instant::now()).unwrap();
        // As of a kube-proxy that came back, and sets the switches when it starts.
        words("ipvsadm -A -t 203.0.113.9:80 -s rr");
        Ipvs::remove().unwrap();
        assert_eq!(switches(), [1, 2, 1, 1, 1]);
    }

    fn a_scheduler_that_the_kernel_does_not_have_harms_nobody_else() {
        have_addresses();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        let mut plane = open();
        plane.settle(&table, Instant::now()).unwrap();
        {
            let _without = WithoutLoader::new();
            words("modprobe -r ip_vs_mh");
            let named = Frontend { scheduler: Some(Scheduler::MaglevHashing), ..scene.frontend(Family::V4, &[2]) };
            let change = scene.add(&mut table, 2, Family::V4, 80, named);
            plane.update(&table, &[change], Instant::now()).unwrap();
            assert_eq!(plane.missing_schedulers(), &[Scheduler::MaglevHashing].into());
            let schedulers: Vec<_> = held().servers.values().map(|server| server.scheduler).collect();
            assert_eq!(schedulers, [Scheduler::RoundRobin; 2]);
            assert!(!open().settle(&table, Instant::now()).unwrap(), "a restart sends something");
            let refused = Ipvs::open(Scheduler::MaglevHashing, Timeouts::default()).unwrap().settle(&table, Instant::now());
            let refused = refused.unwrap_err();
            assert!(matches!(refused, KernelError::NoScheduler(Scheduler::MaglevHashing)), "{refused}");
        }
        plane.settle(&table, Instant::now()).unwrap();
        assert!(plane.missing_schedulers().is_empty());
        assert_eq!(held(), compile(&table));
    }

    fn an_endpoint_that_ipvs_does_not_take_harms_nobody() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        for (family, strange) in [(Family::V4, "239.1.1.1"), (Family::V4, "255.255.255.255"), (Family::V6, "ff0e::1")] {
            let strange: Endpoint = Endpoint { address: strange.parse().unwrap(), port: POD_PORT.try_into().unwrap() };
            let beside = |pods: &[u8]| {
                let pods = pods.iter().map(|pod| Endpoint { address: family.pod(*pod), ..strange });
                let forward = Outcome::Forward(EndpointSet::new(pods.chain([strange])).unwrap());
                Frontend { inside: forward.clone(), outside: forward, ..scene.frontend(family, &[1]) }
            };
            let mut table = scene.empty_table();
            let mut plane = open();
            plane.settle(&table, Instant::now()).unwrap();
            let frontends = [beside(&[1]), beside(&[]), scene.frontend(family, &[2])];
            for (number, frontend) in (1..).zip(frontends) {
                let change = scene.add(&mut table, number, family, 80, frontend);
                plane.update(&table, &[change], Instant::now()).unwrap();
            }
            let ask = |number| network::ask(&hosts.client, Transport::Tcp, scene.vip(family, number), 80);
            let served = || {
                for _ in 0..10 {
                    assert!(matches!(ask(1), Answer::From { pod: 1, .. }), "{strange}");
                    assert!(matches!(ask(3), Answer::From { pod: 2, .. }), "{strange}");
                }
                assert_eq!(ask(2), Answer::Refused, "{strange}");
            };
            served();
            assert_eq!(plane.refused().iter().count(), 2);
            let (_, refusal) = plane.refused().iter().next().unwrap();
            assert!(refusal.to_string().contains(&format!("real server {strange} of")), "{refusal}");
            assert!(!plane.is_disturbed(later()), "what was refused is no change by others");
            assert!(!plane.settle(&table, Instant::now()).unwrap(), "a second sync sends something");
            let mut restarted = open();
            assert!(!restarted.settle(&table, Instant::now()).unwrap(), "a restart sends something");
            assert_eq!(restarted.refused(), plane.refused());
            served();
            // Corrected, and gone.
            let change = scene.add(&mut table, 1, family, 80, scene.frontend(family, &[1]));
            plane.update(&table, &[change], Instant::now()).unwrap();
            assert_eq!(plane.refused().iter().count(), 1);
            let change = table.update(&Scene::service(2), None);
            plane.update(&table, &[change], Instant::now()).unwrap();
            assert_eq!(plane.refused().iter().count(), 0);
            assert_eq!(held(), compile(&table));
            Ipvs::remove().unwrap();
        }
    }

    fn without_ipv6_everything_else_is_served() {
        let table = of_both_families();
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let mut plane = open();
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held(), compile(&table));
        assert_eq!(held().addresses.len(), 1);
        // The loopback interface alone has it.
        std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").unwrap();
        assert!(Kernel::open().unwrap().own_addresses().unwrap().contains(&"::1".parse().unwrap()));
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held(), compile(&table));
        assert_eq!(held().addresses.len(), 1);
        assert_eq!(plane.refused().iter().count(), 0);
    }

    fn a_route_that_the_kernel_refuses_harms_nobody() {
        let table = of_both_families();
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").unwrap();
        run("ip", &["addr", "add", "2001:db8:2::1/128", "dev", "lo", "nodad"]);
        let mut plane = open();
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held().addresses.len(), 1);
        assert_eq!(held().servers.len(), 2);
        let (_, refusal) = plane.refused().iter().next().unwrap();
        assert!(refusal.to_string().contains("net.ipv6.conf.foghorn0.disable_ipv6"), "{refusal}");
        assert!(!plane.is_disturbed(later()));
        // As the message says.
        std::fs::write("/proc/sys/net/ipv6/conf/foghorn0/disable_ipv6", "0").unwrap();
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held(), compile(&table));
        assert_eq!(plane.refused().iter().count(), 0);
    }

    fn where_only_new_interfaces_are_without_ipv6_ours_has_it() {
        let table = of_both_families();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        open().settle(&table, Instant::now()).unwrap();
        assert_eq!(held(), compile(&table));
        assert_eq!(held().addresses.len(), 2);
    }

    fn an_address_that_the_node_loses_is_routed_to_it() {
        have_addresses();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        let vip = scene.vip(Family::V4, 1);
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        run("ip", &["addr", "add", &format!("{vip}/32"), "dev", "lo"]);
        let mut plane = open();
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held().addresses.len(), 0);
        assert!(!plane.is_disturbed(later()));
        plane.settle(&table, Instant::now()).unwrap();
        run("ip", &["addr", "del", &format!("{vip}/32"), "dev", "lo"]);
        assert!(plane.is_disturbed(later()));
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(held().addresses.into_keys().collect::<Vec<_>>(), [vip]);
    }

    fn every_scheduler_is_taken() {
        have_addresses();
        let scene = Scene::new();
        let mut plane = open();
        for (number, scheduler) in (1..).zip(Scheduler::ALL) {
            let mut table = scene.empty_table();
            let frontend = Frontend { scheduler: Some(scheduler), ..scene.frontend(Family::V4, &[1, 2]) };
            scene.add(&mut table, number, Family::V4, 80, frontend);
            plane.settle(&table, Instant::now()).unwrap_or_else(|error| panic!("{scheduler}: {error}"));
            assert_eq!(held(), compile(&table), "{scheduler}");
        }
    }

    fn the_interface_of_the_routes_comes_back() {
        have_addresses();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        let mut plane = open();
        let before = switches();
        plane.settle(&table, Instant::now()).unwrap();
        for vandalism in ["link del foghorn0", "link set foghorn0 down"] {
            assert!(!plane.is_disturbed(Instant::now()));
            run("ip", &vandalism.split(' ').collect::<Vec<_>>());
            assert!(plane.is_disturbed(Instant::now()), "{vandalism}");
            plane.settle(&table, Instant::now()).unwrap();
            assert_eq!(held(), compile(&table), "{vandalism}");
        }
        // The note of what they were was at the interface.
        Ipvs::remove().unwrap();
        assert_eq!(switches(), before);
    }

    fn what_others_do_to_our_servers_is_mended_and_their_own_stay() {
        have_addresses();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        // A server that is routed to has the port of the frontend.
        scene.add(&mut table, 1, Family::V4, POD_PORT, scene.frontend(Family::V4, &[1, 2]));
        let mut plane = open();
        plane.settle(&table, Instant::now()).unwrap();
        let vip = SocketAddr::new(scene.vip(Family::V4, 1), POD_PORT);
        let endpoint = *held().servers.into_values().next().unwrap().endpoints.keys().next().unwrap();
        let endpoint = format!("{}:{}", endpoint.address, endpoint.port);
        words("ipvsadm -A -t 203.0.113.9:80 -s wlc");
        assert!(!plane.is_disturbed(later()), "a server of others is no change of ours");
        // Which also sets when servers are read again.
        plane.settle(&table, Instant::now()).unwrap();
        for vandalism in [
            "ipvsadm -C".to_owned(),
            format!("ipvsadm -D -t {vip}"),
            format!("ipvsadm -E -t {vip} -s wlc"),
            format!("ipvsadm -d -t {vip} -r {endpoint}"),
            format!("ipvsadm -e -t {vip} -r {endpoint} -m -w 7"),
            format!("ipvsadm -e -t {vip} -r {endpoint} -g -w 1"),
            format!("ipvsadm -a -t {vip} -r 10.244.9.9:80 -m"),
            format!("ip route del local {} table local", vip.ip()),
        ] {
            words(&vandalism);
            assert!(!plane.is_disturbed(Instant::now()), "{vandalism}: it is not always looked at");
            assert!(plane.is_disturbed(later()), "{vandalism}");
            plane.settle(&table, Instant::now()).unwrap();
            // An endpoint too many has no connections: it goes at the first look.
            plane.let_go(Instant::now() + Duration::from_secs(3)).unwrap();
            let ours = Program { servers: held().servers.into_iter().filter(|(_, server)| !server.foreign).collect(), ..held() };
            assert_eq!(ours, compile(&table), "{vandalism}");
        }
        // `-C` took it too; with it gone nothing of others was there to lose.
        words("ipvsadm -A -t 203.0.113.9:80 -s wlc");
        plane.settle(&table, Instant::now()).unwrap();
        assert_eq!(words("ipvsadm -Sn").matches("203.0.113.9:80").count(), 1);
    }

    fn a_connection_lives_on_when_its_endpoint_ends_and_no_other_begins_there() {
        connections_stay(&Hosts::new(), &mut open());
    }

    fn an_endpoint_stays_until_its_connections_have_ended_however_late_that_is() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        for family in [Family::V4, Family::V6] {
            graceful(&hosts, &scene, family);
        }
    }

    fn connections_live_on_when_other_rules_take_over() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        for family in [Family::V4, Family::V6] {
            let mut table = talking(&hosts, &scene, family);
            scene.add(&mut table, 2, family, 80, scene.frontend(family, &[1]));
            open().settle(&table, Instant::now()).unwrap();
            let vip = SocketAddr::new(scene.vip(family, 1), 80);
            let mut older = Connection::open(&hosts.client, vip);
            assert_eq!(older.ask().unwrap(), 1);
            Nftables::open().unwrap().settle(&table).unwrap();
            assert_eq!(Ipvs::retire().unwrap(), Retired::Waiting(1));
            // What nobody is connected to is not the node's any more.
            assert_eq!(held().addresses.into_keys().collect::<Vec<_>>(), [vip.ip()]);
            assert_eq!(older.ask().unwrap(), 1);
            assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 1);
            older.break_off();
            until_retired(Ipvs::retire);
            assert_eq!(held(), Program::default());
            assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 1);
            Ipvs::remove().unwrap();
        }
    }

    fn what_kube_proxy_left_goes_when_its_connections_have_ended() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        let family = Family::V4;
        let table = talking(&hosts, &scene, family);
        assert_eq!(Ipvs::retire_kube_proxy().unwrap(), Retired::Nothing);
        let vip = SocketAddr::new(scene.vip(family, 1), 80);
        let idle = scene.vip(family, 99);
        let node_port = SocketAddr::new(family.node(), 30_080);
        let of_others = SocketAddr::new(family.client_side_vip(), 80);
        let pod = SocketAddr::new(family.pod(1), TALK_PORT);
        let as_kube_proxy_does = || {
            // Which loads the module.
            Kernel::open().unwrap();
            std::fs::write("/proc/sys/net/ipv4/vs/conntrack", "1").unwrap();
            words("ip link add kube-ipvs0 type dummy");
            for address in [vip.ip(), idle] {
                words(&format!("ip address add {address}/32 dev kube-ipvs0"));
            }
            for server in [vip, node_port, of_others] {
                words(&format!("ipvsadm -A -t {server} -s rr"));
                words(&format!("ipvsadm -a -t {server} -r {pod} -m"));
            }
            words("ipset create KUBE-CLUSTER-IP hash:ip,port");
            words("ipset create KUBE-6-CLUSTER-IP hash:ip,port family inet6");
            words("ipset create OTHERS hash:ip");
        };
        let only_others_are_left = || {
            let servers: Vec<_> = held().servers.into_keys().map(|key| key.address).collect();
            assert_eq!(servers, [of_others.ip()]);
            assert_eq!(words("ipset list -n"), "OTHERS\n");
            words("ipset destroy OTHERS");
            words(&format!("ipvsadm -D -t {of_others}"));
        };
        // For such a rule the kernel tracks connections.
        words("iptables -t nat -A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE");
        // Another data plane takes over.
        as_kube_proxy_does();
        let mut older = Connection::open(&hosts.client, vip);
        assert_eq!(older.ask().unwrap(), 1);
        Nftables::open().unwrap().settle(&table).unwrap();
        assert_eq!(Ipvs::retire_kube_proxy().unwrap(), Retired::Waiting(1));
        let addresses = words("ip -o address show dev kube-ipvs0");
        assert!(addresses.contains(&vip.ip().to_string()) && !addresses.contains(&idle.to_string()), "{addresses}");
        assert_eq!(older.ask().unwrap(), 1);
        older.break_off();
        until_retired(Ipvs::retire_kube_proxy);
        only_others_are_left();
        assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 1);
        Nftables::remove().unwrap();
        // Our own IPVS does: it has a server of its own there, and the address is routed to it once kube-proxy's interface is gone.
        as_kube_proxy_does();
        let mut older = Connection::open(&hosts.client, vip);
        assert_eq!(older.ask().unwrap(), 1);
        open().settle(&table, Instant::now()).unwrap();
        until_retired(Ipvs::retire_kube_proxy);
        assert_eq!(older.ask().unwrap(), 1);
        assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 1);
        Ipvs::remove().unwrap();
        only_others_are_left();
    }

    fn nobody_on_the_lan_is_told_of_an_address() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        let mut table = scene.empty_table();
        scene.add(&mut table, 1, Family::V4, 80, scene.frontend(Family::V4, &[1]));
        open().settle(&table, Instant::now()).unwrap();
        let vip = scene.vip(Family::V4, 1);
        let asked = |address: IpAddr| {
            hosts.client.run(move || {
                let address = address.to_string();
                let asked = ["-c", "2", "-W", "0.3", "-i", "eth0", &address];
                std::process::Command::new("arping").args(asked).output().unwrap().status.success()
            })
        };
        assert!(asked(Family::V4.node()), "the node's own address");
        assert!(!asked(vip), "a VIP");
    }

    fn an_address_of_a_service_lets_nobody_in_at_ports_of_the_node() {
        let hosts = Hosts::new();
        let scene = Scene::new();
        let _door = ["0.0.0.0:81", "[::]:82"].map(|door| TcpListener::bind(door).unwrap());
        for (family, port) in [(Family::V4, 81), (Family::V6, 82)] {
            let mut table = scene.empty_table();
            let vip = family.client_side_vip();
            let frontend = Frontend { kind: FrontendKind::LoadBalancer, ..scene.frontend(family, &[1]) };
            let part = scene.part(Place::Address(vip), 80, frontend);
            table.update(&Scene::service(1), Some(part));
            let mut plane = open();
            plane.settle(&table, Instant::now()).unwrap();
            for host in [&hosts.client, &hosts.node, &hosts.pods[0]] {
                assert_eq!(network::ask(host, Transport::Tcp, vip, port), Answer::Refused, "{family:?}");
                assert!(matches!(network::ask(host, Transport::Tcp, vip, 80), Answer::From { pod: 1, .. }), "{family:?}");
            }
            let door = SocketAddr::new(family.node(), port);
            hosts.client.run(move || TcpStream::connect(door).unwrap());
        }
    }
}

trait ClientSide {
    /// An address outside of every network of the node, as a load balancer's.
    fn client_side_vip(self) -> IpAddr;
}

impl ClientSide for Family {
    fn client_side_vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([203, 0, 113, 7]),
            Self::V6 => "2001:db8:cb::7".parse().unwrap(),
        }
    }
}

/// An established connection while its endpoint leaves the list, and new ones meanwhile.
fn graceful(hosts: &Hosts, scene: &Scene, family: Family) {
    let_pods_talk(hosts, family);
    let mut table = scene.empty_table();
    let mut plane = open();
    plane.settle(&table, Instant::now()).unwrap();
    let frontend = |pods: &[u8]| Frontend {
        masquerade: Masquerade::Always,
        ..scene.talking(family, pods)
    };
    let mut serve = |plane: &mut Ipvs, frontend: Frontend| {
        let change = scene.add(&mut table, 1, family, 80, frontend);
        plane.update(&table, &[change], Instant::now()).unwrap();
    };
    let vip = SocketAddr::new(scene.vip(family, 1), 80);
    serve(&mut plane, frontend(&[1]));
    let mut older = Connection::open(&hosts.client, vip);
    assert_eq!(older.ask().unwrap(), 1);
    serve(&mut plane, frontend(&[2]));
    let weights = || {
        let server = &held().servers[&Key {
            address: vip.ip(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
        }];
        server.endpoints.values().copied().collect::<Vec<u32>>()
    };
    assert_eq!(weights(), [0, 1]);
    for _ in 0..20 {
        assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 2);
    }
    assert_eq!(older.ask().unwrap(), 1);
    // However late it is, an endpoint with a connection stays; also when no endpoint is left.
    plane
        .let_go(Instant::now() + Duration::from_secs(600))
        .unwrap();
    assert_eq!(weights(), [0, 1]);
    serve(&mut plane, scene.nowhere(family));
    assert_eq!(older.ask().unwrap(), 1);
    let refused = hosts
        .client
        .run(move || TcpStream::connect(vip).unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // One that comes back is not removed.
    serve(&mut plane, frontend(&[1]));
    plane
        .let_go(Instant::now() + Duration::from_secs(1200))
        .unwrap();
    assert_eq!(Connection::open(&hosts.client, vip).ask().unwrap(), 1);
    assert_eq!(older.ask().unwrap(), 1);
    Ipvs::remove().unwrap();
}

/// A table with one frontend, whose endpoint talks.
fn talking(hosts: &Hosts, scene: &Scene, family: Family) -> ForwardingTable {
    let_pods_talk(hosts, family);
    let mut table = scene.empty_table();
    scene.add(&mut table, 1, family, 80, scene.talking(family, &[1]));
    table
}

fn until_retired(retire: fn() -> Result<Retired, KernelError>) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while retire().unwrap() != Retired::Done {
        assert!(Instant::now() < deadline, "connections are remembered");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(retire().unwrap(), Retired::Nothing);
}

/// Runs a command; what it prints.
fn words(command: &str) -> String {
    let mut words = command.split(' ');
    let mut program = std::process::Command::new(words.next().unwrap());
    let done = program.args(words).output().unwrap();
    assert!(done.status.success(), "{command}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

impl Plane for Ipvs {
    fn settle(&mut self, table: &ForwardingTable) {
        Ipvs::settle(self, table, Instant::now()).unwrap();
    }

    fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]) {
        Ipvs::update(self, table, changes, Instant::now()).unwrap();
    }
}

fn open() -> Ipvs {
    Ipvs::open(Scheduler::default(), Timeouts::default()).unwrap()
}

/// When servers are read again.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What IPVS holds now.
fn held() -> Program {
    Kernel::open().unwrap().read().unwrap()
}

/// What it should hold.
fn compile(table: &ForwardingTable) -> Program {
    let own: BTreeSet<IpAddr> = Kernel::open().unwrap().own_addresses().unwrap();
    let surroundings = Surroundings {
        own: Arc::new(own),
        ..Surroundings::default()
    };
    Program::compile(table, &surroundings)
}

/// Gives the node an address of each family: one that has none of a family has no address of a Service of it either.
fn have_addresses() {
    for address in ["192.0.2.1/32", "2001:db8:2::1/128"] {
        run("ip", &["addr", "add", address, "dev", "lo"]);
    }
}

/// One frontend of each family; the node has an address of each.
fn of_both_families() -> ForwardingTable {
    let scene = Scene::new();
    have_addresses();
    let mut table = scene.empty_table();
    for (number, family) in [(1, Family::V4), (2, Family::V6)] {
        scene.add(&mut table, number, family, 80, scene.frontend(family, &[1]));
    }
    table
}

/// The kernel's switches that IPVS needs, ours to set and to put back.
fn switches() -> [u32; 5] {
    let names = [
        "conf/all/arp_ignore",
        "conf/all/arp_announce",
        "vs/conntrack",
        "vs/expire_nodest_conn",
        "vs/expire_quiescent_template",
    ];
    names.map(|name| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        text.unwrap().trim().parse().unwrap()
    })
}

/// While it lives, the kernel loads no module.
struct WithoutLoader(String);

impl WithoutLoader {
    const LOADER: &str = "/proc/sys/kernel/modprobe";

    fn new() -> Self {
        let before = std::fs::read_to_string(Self::LOADER).unwrap();
        std::fs::write(Self::LOADER, "/bin/false").unwrap();
        Self(before)
    }
}

impl Drop for WithoutLoader {
    fn drop(&mut self) {
        std::fs::write(Self::LOADER, &self.0).unwrap();
    }
}
