//! A node with two Pods and a client on its LAN, as network namespaces.

mod talk;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

pub(crate) use talk::{Connection, talk};

/// The port that Pods answer on.
pub(crate) const POD_PORT: u16 = 8080;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// What a client hears.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Answer {
    /// From this Pod, which saw the request come from this address.
    From {
        pod: u8,
        source: IpAddr,
    },
    /// At once, that nobody is there.
    Refused,
    Silence,
}

impl Family {
    pub(crate) fn client(self) -> IpAddr {
        self.address("192.0.2.100", "2001:db8:2::100")
    }

    pub(crate) fn node(self) -> IpAddr {
        self.address("192.0.2.1", "2001:db8:2::1")
    }

    /// The node's address towards its Pods.
    pub(crate) fn bridge(self) -> IpAddr {
        self.address("10.244.1.1", "2001:db8:f4::1")
    }

    pub(crate) fn pod(self, number: u8) -> IpAddr {
        let number = number + 1;
        self.address(
            &format!("10.244.1.{number}"),
            &format!("2001:db8:f4::{number}"),
        )
    }

    fn address(self, v4: &str, v6: &str) -> IpAddr {
        match self {
            Self::V4 => v4.parse().unwrap(),
            Self::V6 => v6.parse().unwrap(),
        }
    }
}

/// A network namespace with a thread in it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) thread_id: i32,
    tasks: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

/// The node is where the test itself runs.
pub(crate) struct Hosts {
    pub(crate) node: Host,
    pub(crate) client: Host,
    pub(crate) pods: [Host; 2],
}

/// Runs a test in a network namespace of its own.
pub(crate) fn alone(test: impl FnOnce()) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    test();
}

impl Host {
    pub(crate) fn new(own_network: bool) -> Self {
        let (tasks, inbox) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (started, begin) = mpsc::channel();
        std::thread::spawn(move || {
            if own_network {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                run("ip", &["link", "set", "lo", "up"]);
            }
            started.send(nix::unistd::gettid().as_raw()).unwrap();
            for task in inbox {
                task();
            }
        });
        Self {
            thread_id: begin.recv().unwrap(),
            tasks,
        }
    }

    /// Does something there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        self.tasks
            .send(Box::new(move || sender.send(task()).unwrap()))
            .unwrap();
        result.recv().unwrap()
    }

    pub(crate) fn ip(&self, commands: &str) {
        let commands = commands.to_owned();
        self.run(move || ip(&commands));
    }
}

impl Hosts {
    /// The node has `lan` towards the client and the bridge `pods` towards its Pods.
    pub(crate) fn new() -> Self {
        let hosts = Self {
            node: Host::new(false),
            client: Host::new(true),
            pods: [Host::new(true), Host::new(true)],
        };
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        // A test asks for more refusals than a node gives one host.
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
        ip(&format!(
            "link add lan type veth peer name eth0 netns {}
             addr add 192.0.2.1/24 dev lan
             addr add 2001:db8:2::1/64 dev lan nodad
             link set lan up
             link add pods type bridge
             addr add 10.244.1.1/24 dev pods
             addr add 2001:db8:f4::1/64 dev pods nodad
             link set pods up
             route add default via 192.0.2.100
             route add default via 2001:db8:2::100",
            hosts.client.thread_id
        ));
        hosts.client.ip("addr add 192.0.2.100/24 dev eth0
             addr add 2001:db8:2::100/64 dev eth0 nodad
             link set eth0 up
             route add default via 192.0.2.1
             route add default via 2001:db8:2::1");
        for (number, host) in (1..).zip(&hosts.pods) {
            ip(&format!(
                "link add pod{number} type veth peer name eth0 netns {}
                 link set pod{number} master pods
                 link set pod{number} type bridge_slave hairpin on
                 link set pod{number} up",
                host.thread_id
            ));
            let [v4, v6] = [Family::V4, Family::V6].map(|family| family.pod(number));
            host.ip(&format!(
                "addr add {v4}/24 dev eth0
                 addr add {v6}/64 dev eth0 nodad
                 link set eth0 up
                 route add default via 10.244.1.1
                 route add default via 2001:db8:f4::1"
            ));
            host.run(move || answer(number));
        }
        hosts
    }
}

/// Answers requests for ever, by TCP and UDP: which Pod it is and whom it saw.
fn answer(pod: u8) {
    let listener = TcpListener::bind(("::", POD_PORT)).unwrap();
    let socket = UdpSocket::bind(("::", POD_PORT)).unwrap();
    let words = move |peer: SocketAddr| format!("{pod} {}", peer.ip().to_canonical());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Ok(peer) = stream.peer_addr() {
                let _ = stream.write_all(words(peer).as_bytes());
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(words(peer).as_bytes(), peer);
        }
    });
}

/// What a host hears when it asks there.
pub(crate) fn ask(host: &Host, transport: Transport, address: IpAddr, port: u16) -> Answer {
    let target = SocketAddr::new(address, port);
    host.run(move || {
        let mut words = String::new();
        let heard = match transport {
            Transport::Tcp => {
                TcpStream::connect_timeout(&target, PATIENCE).and_then(|mut stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.read_to_string(&mut words)
                })
            }
            Transport::Udp => ask_by_udp(target, &mut words),
        };
        match heard {
            Ok(_) => {
                let (pod, source) = words.split_once(' ').unwrap();
                Answer::From {
                    pod: pod.parse().unwrap(),
                    source: source.parse().unwrap(),
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Answer::Silence
            }
            Err(error) => panic!("{target}: {error}"),
        }
    })
}

fn ask_by_udp(target: SocketAddr, words: &mut String) -> std::io::Result<usize> {
    let any: IpAddr = if target.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    // Each request is a connection of its own, whatever connections the kernel still remembers.
    let socket = UdpSocket::bind((any, next_port()))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    match socket.send(b"?") {
        // Rejected on its way out of this very host: the answer of ICMP is what counts.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => 0,
        sent => sent?,
    };
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    words.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    Ok(length)
}

/// One command of `ip` on each line.
fn ip(commands: &str) {
    for command in commands.lines() {
        let mut arguments: Vec<_> = command.split_whitespace().collect();
        if command.contains(':') {
            arguments.insert(0, "-6");
        }
        run("ip", &arguments);
    }
}

/// Runs a program that has to succeed; what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    feed(program, arguments, "")
}

/// Runs a program with this input.
pub(crate) fn feed(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A port of this host that nothing was asked from for the longest time.
///
/// Those below 1024 are left out: masquerading keeps them below 1024, so a few hundred requests have them all, and the kernel
/// drops the next one.
fn next_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..65_000;
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    PORTS.start + u16::try_from(asked % PORTS.len()).unwrap()
}

/// More than the second after which a SYN is sent again: a refusal that comes before `connect` sleeps is only noted,
/// and the next one ends it.
const PATIENCE: Duration = Duration::from_millis(1500);
