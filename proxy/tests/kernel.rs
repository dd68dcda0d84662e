//! The parts that ask the kernel, with a kernel: in a network namespace of their own.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what the tests need of the machine is there, or they fail"
)]
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use config::address::IpFamily;
use config::service::Protocol;
use proxy::conntrack::idle::find_idle;
use proxy::conntrack::{Cleaner, Expected};
use proxy::leftovers::{self, Leftovers};
use proxy_table::{Endpoint, FrontendKey, Place};

/// Runs the test of this name again inside new namespaces; whether this is the run inside.
fn is_inside(test: &str) -> bool {
    const INSIDE: &str = "FOGHORN_PROXY_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["-Urnm", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare of util-linux is installed");
    assert!(status.success(), "failed inside: {status}");
    false
}

fn run(command: &str) -> ExitStatus {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().unwrap());
    program.args(words).status().unwrap()
}

fn tracked(protocol: &str) -> String {
    let listed = Command::new("conntrack")
        .args(["-L", "-p", protocol])
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn track(protocol: &str, client: &str, frontend: (&str, u16), answers: (&str, u16)) {
    let ((address, port), (endpoint, endpoint_port)) = (frontend, answers);
    let command = format!(
        "conntrack -I -p {protocol} -t 600 -s {client} -d {address} -r {endpoint} -q {client} \
         --sport 4000 --dport {port} --reply-port-src {endpoint_port} --reply-port-dst 4000"
    );
    let tcp = if protocol == "tcp" {
        " --state ESTABLISHED"
    } else {
        ""
    };
    assert!(run(&format!("{command}{tcp}")).success());
}

#[test]
#[ignore = "needs namespaces of its own: make test-kernel"]
fn an_address_is_idle_when_no_connection_goes_through_it() {
    if !is_inside("an_address_is_idle_when_no_connection_goes_through_it") {
        return;
    }
    let vips = [
        "192.0.2.240",
        "192.0.2.241",
        "192.0.2.242",
        "2001:db8::240",
        "2001:db8::241",
    ];
    track("tcp", "198.51.100.7", (vips[0], 80), ("10.244.1.2", 8080));
    track(
        "udp",
        "2001:db8:9::7",
        (vips[3], 53),
        ("2001:db8:244::2", 53),
    );
    // Between others, and not to the address although from it.
    track("tcp", vips[2], ("198.51.100.8", 443), ("198.51.100.8", 443));
    let ended = "conntrack -I -p tcp -t 600 --state TIME_WAIT -s 198.51.100.7 -d 192.0.2.241 \
         -r 10.244.1.2 -q 198.51.100.7 --sport 4001 --dport 80 --reply-port-src 80 --reply-port-dst 4001";
    assert!(run(ended).success());
    let asked = vips.map(|vip| vip.parse().unwrap()).into();
    let expected = [vips[1], vips[2], vips[4]].map(|vip| vip.parse().unwrap());
    assert_eq!(find_idle(&asked).unwrap(), expected.into());
}

#[test]
#[ignore = "needs namespaces of its own: make test-kernel"]
fn connections_to_endpoints_that_are_gone_are_ended_and_no_others() {
    if !is_inside("connections_to_endpoints_that_are_gone_are_ended_and_no_others") {
        return;
    }
    let dns = ("10.96.0.10", 53);
    let dns6 = ("2001:db8:1::a", 53);
    track("udp", "10.244.7.1", dns, ("10.244.1.2", 5353));
    track("udp", "10.244.7.2", dns, ("10.244.9.2", 5353));
    track("udp", "10.244.7.3", dns, dns);
    track(
        "udp",
        "10.244.7.4",
        ("192.0.2.1", 30053),
        ("10.244.9.2", 5353),
    );
    track(
        "udp",
        "10.244.7.5",
        ("198.51.100.1", 53),
        ("198.51.100.1", 53),
    );
    track("tcp", "10.244.7.6", dns, ("10.244.9.2", 5353));
    track("udp", "2001:db8:f::7", dns6, ("2001:db8:f::99", 5353));

    let key = |place, port: u16| FrontendKey {
        place,
        protocol: Protocol::Udp,
        port: port.try_into().unwrap(),
    };
    let serving = |address: &str| {
        Some(Arc::new(BTreeSet::from([Endpoint {
            address: address.parse().unwrap(),
            port: 5353.try_into().unwrap(),
        }])))
    };
    let expected = Expected {
        frontends: HashMap::from([
            (
                key(Place::Address("10.96.0.10".parse().unwrap()), 53),
                serving("10.244.1.2"),
            ),
            (
                key(Place::Address("2001:db8:1::a".parse().unwrap()), 53),
                serving("2001:db8:f::2"),
            ),
            (key(Place::Node(IpFamily::V4), 30053), serving("10.244.1.2")),
        ]),
        node_port_addresses: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
    };
    let (report, reports) = mpsc::channel();
    let cleaner = Cleaner::start(move |sweep| report.send(sweep).unwrap()).unwrap();
    cleaner.ask(expected);
    let sweep = reports
        .recv_timeout(Duration::from_secs(60))
        .unwrap()
        .unwrap();
    assert!(sweep.failed.is_none(), "{sweep:?}");
    assert_eq!(sweep.deleted, 4);
    let udp = tracked("udp");
    for (client, stays) in [
        ("10.244.7.1", true),
        ("10.244.7.2", false),
        ("10.244.7.3", false),
        ("10.244.7.4", false),
        ("10.244.7.5", true),
    ] {
        assert_eq!(
            udp.contains(&format!("src={client} dst=")),
            stays,
            "{client} in\n{udp}"
        );
    }
    assert!(tracked("tcp").contains("src=10.244.7.6"));
}

#[test]
#[ignore = "needs namespaces of its own: make test-kernel"]
fn what_kube_proxy_left_is_removed_and_the_tables_of_others_stay() {
    if !is_inside("what_kube_proxy_left_is_removed_and_the_tables_of_others_stay") {
        return;
    }
    assert_eq!(leftovers::remove().unwrap(), Leftovers::default());
    for table in [
        "ip kube-proxy",
        "ip6 kube-proxy",
        "ip calico",
        "inet kube-proxy",
    ] {
        assert!(run(&format!("nft add table {table}")).success());
    }
    assert!(run("nft add chain ip kube-proxy services").success());
    let found = leftovers::remove().unwrap();
    assert_eq!(found.removed_tables, ["ip", "ip6"]);
    let listed = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let left: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(
        left,
        BTreeSet::from(["table ip calico", "table inet kube-proxy"])
    );
}

#[test]
#[ignore = "needs namespaces of its own: make test-kernel"]
fn the_chains_of_kube_proxy_go_from_both_back_ends_and_no_others() {
    if !is_inside("the_chains_of_kube_proxy_go_from_both_back_ends_and_no_others") {
        return;
    }
    let programs = [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ];
    let save = |program: &str| {
        let saved = Command::new(format!("{program}-save")).output().unwrap();
        let saved = String::from_utf8(saved.stdout).unwrap();
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        // Counters of packets change by themselves.
        let lines = lines.map(|line| line.split(" [").next().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    let mut before = Vec::new();
    for program in programs {
        restore(program, OTHERS);
        before.push(save(program));
        restore(program, OF_KUBE_PROXY);
        assert_ne!(before.last(), Some(&save(program)));
    }
    let found = leftovers::remove().unwrap();
    let removed: BTreeSet<_> = found.removed_chains.iter().map(String::as_str).collect();
    let all = [
        "ip (nf_tables)",
        "ip6 (nf_tables)",
        "ip (legacy)",
        "ip6 (legacy)",
    ];
    assert_eq!(removed, BTreeSet::from(all));
    assert_eq!(found.iptables_tables, [""; 0]);
    for (program, before) in programs.iter().zip(before) {
        assert_eq!(save(program), before, "{program}");
    }
    assert_eq!(leftovers::remove().unwrap(), Leftovers::default());
}

#[test]
#[ignore = "needs namespaces of its own: make test-kernel"]
fn what_only_iptables_could_remove_is_told_where_there_is_none() {
    if !is_inside("what_only_iptables_could_remove_is_told_where_there_is_none") {
        return;
    }
    let cleanup = |before: &str| {
        let script = format!("{before} exec \"$0\" --cleanup");
        let output = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                &script,
                env!("CARGO_BIN_EXE_foghorn-proxy"),
            ])
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    const WITHOUT_IPTABLES: &str = "mount -t tmpfs none /usr/sbin &&";
    assert!(cleanup(WITHOUT_IPTABLES).0);
    assert!(run("iptables-nft -t nat -N FOGHORN-SERVICES").success());
    let (success, said) = cleanup(WITHOUT_IPTABLES);
    assert!(
        !success && said.contains("ip nat still has chains of our iptables mode"),
        "{said}"
    );
    assert!(cleanup("").0);
    assert!(cleanup(WITHOUT_IPTABLES).0);
}

fn restore(program: &str, text: &str) {
    let mut child = Command::new(format!("{program}-restore"))
        .arg("--noflush")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{program}");
}

const OTHERS: &str = "\
*filter
:MINE - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment \"not for -j KUBE-SERVICES\" -j MINE
-A MINE -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
:MINE - [0:0]
-A POSTROUTING -j MINE
-A MINE -j RETURN
COMMIT
";
/// The shape of what kube-proxy's iptables mode writes.
const OF_KUBE_PROXY: &str = "\
*filter
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-SEP-62L5C2KEOX6ICGVJ - [0:0]
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-62L5C2KEOX6ICGVJ
-A KUBE-SEP-62L5C2KEOX6ICGVJ -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
";
