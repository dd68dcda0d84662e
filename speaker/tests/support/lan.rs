use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sched::{CloneFlags, setns};
use speaker::wire::packet_socket::{EtherType, PacketSocket};
use speaker_announcer::{LinkIndex, MacAddr};

/// A bridge with hosts, in the namespaces that this test program was started in.
pub(crate) struct Lan {
    bridge: String,
    number: u8,
    hosts: Vec<Host>,
}

/// A network namespace with one interface, `eth0`, on the bridge.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) mac: MacAddr,
    pub(crate) port: String,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl Lan {
    /// A LAN with this many nodes and one client, which is the last host.
    ///
    /// Host n has 192.0.2.n/24, 2001:db8::n/64 and the hardware address 02:00:00:00:lan:n.
    pub(crate) fn new(nodes: u8) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bridge = format!("br{number}");
        run(&format!("ip link add {bridge} type bridge"));
        run(&format!("ip link set {bridge} up"));
        let mut lan = Self {
            bridge,
            number,
            hosts: Vec::new(),
        };
        for host in 1..=nodes + 1 {
            lan.add_host(host);
        }
        lan
    }

    fn add_host(&mut self, host: u8) {
        let (lan, bridge) = (self.number, &self.bridge);
        let name = format!("lan{lan}-host{host}");
        let port = format!("port{lan}-{host}");
        let mac = MacAddr::new(2, 0, 0, 0, lan, host);
        run(&format!(
            "ip netns add {name} && ip link add {port} type veth peer name eth0 address {mac} netns {name} \
             && ip link set {port} master {bridge} up"
        ));
        let added = Host { name, mac, port };
        added.inside(|| {
            for scope in ["default", "all"] {
                let parameter = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                std::fs::write(parameter, "0").unwrap();
            }
        });
        run(&format!(
            "printf '%s\\n' 'link set lo up' 'address add 192.0.2.{host}/24 dev eth0' \
             'address add 2001:db8::{host}/64 dev eth0 nodad' 'link set eth0 up' | ip -n {} -batch -",
            added.name
        ));
        self.hosts.push(added);
    }

    pub(crate) fn node(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    pub(crate) fn client(&self) -> &Host {
        self.hosts.last().unwrap()
    }

    /// Pulls the plug of a host: it loses carrier.
    pub(crate) fn unplug(&self, host: &Host) {
        run(&format!("ip link set {} down", host.port));
    }

    pub(crate) fn plug(&self, host: &Host) {
        run(&format!("ip link set {} up", host.port));
    }

    /// Cuts a host off without its noticing, as a broken switch does.
    pub(crate) fn isolate(&self, host: &Host) {
        run(&format!("ip link set {} nomaster", host.port));
    }

    pub(crate) fn reconnect(&self, host: &Host) {
        run(&format!("ip link set {} master {}", host.port, self.bridge));
    }

    /// The hardware addresses that answer the client, asked several times by broadcast or multicast.
    pub(crate) fn who_answers(&self, vip: IpAddr) -> BTreeSet<String> {
        self.who_answers_on(vip, "eth0")
    }

    /// The same for an interface of the client.
    pub(crate) fn who_answers_on(&self, vip: IpAddr, interface: &str) -> BTreeSet<String> {
        let client = self.client();
        let (output, marker) = match vip {
            IpAddr::V4(vip) => (
                client.run(&format!("arping -c 3 -w 1 -W 0.05 -i {interface} {vip}")),
                "bytes from ",
            ),
            IpAddr::V6(vip) => (
                client.run(&format!("ndisc6 -m -r 1 -w 300 {vip} {interface}")),
                "link-layer address: ",
            ),
        };
        let lines = output.lines();
        lines
            .filter_map(|line| line.split_once(marker))
            .map(|(_, rest)| rest.split_whitespace().next().unwrap().to_lowercase())
            .collect()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip")
                .args(["netns", "del", &host.name])
                .status();
        }
        let _ = Command::new("ip")
            .args(["link", "del", &self.bridge])
            .status();
    }
}

impl Host {
    /// Runs a command in the host; its output, however it ended.
    pub(crate) fn run(&self, command: &str) -> String {
        let name = &self.name;
        let output = Command::new("sh")
            .args(["-c", &format!("exec ip netns exec {name} {command} 2>&1")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The hardware address of an interface.
    pub(crate) fn mac_of(&self, interface: &str) -> String {
        let address = self.run(&format!("cat /sys/class/net/{interface}/address"));
        address.trim().to_owned()
    }

    /// Does something in the host's network.
    pub(crate) fn inside<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let thread = std::thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            task()
        });
        thread.join().unwrap()
    }

    /// A packet socket of the host, to send with.
    pub(crate) fn packet_socket(&self, ether_type: EtherType) -> PacketSocket {
        self.inside(move || {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            PacketSocket::open(LinkIndex(index), ether_type).unwrap()
        })
    }
}

#[track_caller]
fn run(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}
