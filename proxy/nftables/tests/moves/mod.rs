//! A VIP that moves from one node to another while a client is connected.
//!
//! Both nodes have the VIP themselves, as if each had the only endpoint; the client decides by its neighbour table which
//! one it talks to.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};

use proxy_nftables::{Goals, SendOn};

use crate::network::{Connection, Family, Host, run, talk};

/// Two nodes and a client on one LAN.
struct Lan {
    family: Family,
    client: Host,
    /// Those who may own the VIP.
    nodes: [Host; 2],
    _switch: Host,
}

/// What sends on at a node.
type AtNode = Arc<Mutex<SendOn>>;

impl Lan {
    fn new(family: Family) -> Self {
        let lan = Self {
            family,
            client: Host::new(true),
            nodes: [Host::new(true), Host::new(true)],
            _switch: Host::new(true),
        };
        lan._switch.ip("link add lan type bridge mcast_snooping 0
             link set lan up");
        for (number, host) in (1..).zip(lan.nodes.iter().chain([&lan.client])) {
            lan._switch.ip(&format!(
                "link add port{number} type veth peer name eth0 address {} netns {}
                 link set port{number} master lan
                 link set port{number} up",
                mac(number),
                host.thread_id
            ));
            host.run(|| {
                // The VIP is on both nodes: neither answers for it.
                std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
            });
            let (address, prefix) = (lan.address(number), lan.prefix());
            let nodad = if family == Family::V6 { "nodad" } else { "" };
            host.ip(&format!(
                "addr add {address}/{prefix} dev eth0 {nodad}
                 link set eth0 up"
            ));
            let is_node = number < 3;
            if is_node {
                let (vip, length) = (lan.vip(), if prefix == 24 { 32 } else { 128 });
                host.ip(&format!("addr add {vip}/{length} dev lo {nodad}"));
                let door = SocketAddr::new(vip, PORT);
                host.run(move || talk(door, number));
            }
        }
        lan
    }

    fn vip(&self) -> IpAddr {
        self.address(240)
    }

    fn address(&self, last: u8) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::from([192, 0, 2, last]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(last)]),
        }
    }

    fn prefix(&self) -> u8 {
        match self.family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// The client hears that the VIP is at this node.
    fn announce(&self, node: u8) {
        let (vip, mac) = (self.vip().to_string(), mac(node));
        self.client.run(move || {
            let there = ["neigh", "replace", &vip, "lladdr", &mac, "dev", "eth0"];
            run("ip", &there);
        });
    }

    /// Lets a node send on to the other one.
    fn send_on(&self, node: u8) -> AtNode {
        let goals: Goals = [(self.vip(), self.address(3 - node))].into_iter().collect();
        self.nodes[usize::from(node) - 1].run(move || {
            let mut send_on = SendOn::open().unwrap();
            assert!(send_on.settle(&goals).unwrap());
            assert!(!send_on.settle(&goals).unwrap(), "sends again");
            Arc::new(Mutex::new(send_on))
        })
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.client, SocketAddr::new(self.vip(), PORT))
    }
}

/// Conntrack works where a rule asks for it: as on a node that forwards.
fn track(node: &Host) {
    node.run(|| {
        let rules = "table inet t { chain c { type filter hook prerouting priority 0; ct state new counter; }; }";
        run("nft", &[rules]);
    });
}

pub(crate) fn a_connection_survives_the_move_of_its_vip(family: Family) {
    let lan = Lan::new(family);
    lan.nodes.iter().for_each(track);
    let _sends = lan.send_on(2);
    lan.announce(1);
    let mut older = lan.connect();
    let closed = lan.connect();
    assert_eq!(older.ask().unwrap(), 1);
    lan.announce(2);
    assert_eq!(older.ask().unwrap(), 1);
    let mut younger = lan.connect();
    assert_eq!(younger.ask().unwrap(), 2);
    assert_eq!(older.ask().unwrap(), 1);
    // The end of a connection reaches the older owner, also as the first thing after the move.
    for connection in [closed, older] {
        assert_eq!(connection.close().unwrap(), "good-bye from 1\n");
    }
}

/// The client used its port before: the next owner remembers that connection, and the segments are out of its window.
pub(crate) fn a_connection_survives_although_its_port_was_used_before(family: Family) {
    let lan = Lan::new(family);
    lan.nodes.iter().for_each(track);
    lan.client.run(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000").unwrap();
    });
    let _sends = [lan.send_on(1), lan.send_on(2)];
    lan.announce(2);
    let mut earlier = lan.connect();
    assert_eq!(earlier.ask().unwrap(), 2);
    earlier.break_off();
    lan.announce(1);
    let mut later = lan.connect();
    assert_eq!(later.ask().unwrap(), 1);
    lan.announce(2);
    assert_eq!(later.ask().unwrap(), 1);
    lan.announce(1);
    assert_eq!(later.ask().unwrap(), 1);
}

pub(crate) fn without_a_goal_a_moved_connection_is_reset(family: Family) {
    let lan = Lan::new(family);
    lan.nodes.iter().for_each(track);
    lan.announce(1);
    let mut older = lan.connect();
    assert_eq!(older.ask().unwrap(), 1);
    lan.announce(2);
    assert!(older.ask().is_err());
}

/// Conntrack of neither knows the connection: it began before conntrack did.
pub(crate) fn nodes_that_name_each_other_send_nothing_twice(family: Family) {
    let lan = Lan::new(family);
    lan.announce(1);
    let mut older = lan.connect();
    let _sends = [lan.send_on(1), lan.send_on(2)];
    lan.announce(2);
    assert_eq!(older.ask().unwrap(), 1);
}

pub(crate) fn what_sends_on_survives_nft_and_goes_without_a_trace() {
    let pairs = |pairs: &[(&str, &str)]| -> Goals {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        pairs
            .iter()
            .map(|(vip, node)| (parse(vip), parse(node)))
            .collect()
    };
    let one = pairs(&[
        ("192.0.2.240", "192.0.2.1"),
        ("192.0.2.241", "192.0.2.1"),
        ("2001:db8::240", "2001:db8::1"),
    ]);
    let other = pairs(&[
        ("192.0.2.240", "192.0.2.2"),
        ("2001:db8::240", "2001:db8::2"),
    ]);
    let mut send_on = SendOn::open().unwrap();
    assert!(!send_on.settle(&Goals::default()).unwrap());
    assert!(send_on.settle(&one).unwrap());
    assert!(send_on.settle(&other).unwrap());
    let listed = list();
    for line in [
        "elements = { 192.0.2.240 : 192.0.2.2 }",
        "elements = { 2001:db8::240 : 2001:db8::2 }",
        "ct state new tcp flags != syn / fin,syn,rst,ack goto send-on",
        "ct state invalid tcp flags != syn / fin,syn,rst,ack goto send-invalid-on",
        "ip daddr @moved-vips ip ttl > 16 ip ttl set 16 dup to ip daddr map @moved drop",
        "ip daddr @moved-vips ip ttl > 16 ip ttl set 8 dup to ip daddr map @moved drop",
        "ip daddr @moved-vips ip ttl > 8 return",
        "ip daddr @moved-vips drop",
        "ip6 daddr @moved-vips ip6 hoplimit > 16 ip6 hoplimit set 16 dup to ip6 daddr map @moved drop",
    ] {
        assert!(listed.contains(line), "{line} is not in\n{listed}");
    }
    // A later process makes the same anew, and so does one whose table somebody else removed.
    assert!(SendOn::open().unwrap().settle(&other).unwrap());
    assert_eq!(list(), listed);
    run("nft", &["flush", "ruleset"]);
    assert!(send_on.settle(&other).unwrap());
    assert_eq!(list(), listed);
    let path = std::env::temp_dir().join("foghorn-moved-listed.nft");
    std::fs::write(&path, format!("flush ruleset\n{listed}")).unwrap();
    run("nft", &["-f", path.to_str().unwrap()]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(list(), listed);
    assert!(SendOn::remove().unwrap());
    assert!(!SendOn::remove().unwrap());
    assert_eq!(list(), "");
}

fn list() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:0{number}")
}

const PORT: u16 = 80;
