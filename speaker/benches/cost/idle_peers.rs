//! Speakers that stand for nothing, all on one thread behind one socket: they hear everybody and are heard.
//!
//! A hundred engines are more than two processors can carry. What one of them costs at rest are the heartbeats of the
//! others, and those are the same whether each comes from a thread of its own or not.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::address::IpFamily;
use config::name::NodeName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use speaker::wire::heartbeat_socket::HeartbeatSocket;
use speaker_announcer::{
    Announcer, Configuration, Identity, Link, LinkIndex, MacAddr, Payload, Time, Timing,
};

use crate::support::{Host, Speaker};

/// Machines that run until this is dropped.
pub(crate) struct IdlePeers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Machines {
    announcers: Vec<Announcer>,
    socket: HeartbeatSocket,
    started: Instant,
}

impl IdlePeers {
    /// Starts a machine for each of these nodes, all at the host's interface.
    pub(crate) fn start(host: &Host, nodes: &[NodeName], configuration: &Configuration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mac) = (Arc::clone(&stop), host.mac);
        let nodes = nodes.to_vec();
        let configuration = Configuration {
            vips: [].into(),
            ..configuration.clone()
        };
        let socket = host.inside(|| {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            HeartbeatSocket::open(LinkIndex(index), "eth0", IpFamily::V6).unwrap()
        });
        let thread = std::thread::spawn(move || {
            let machines = Machines {
                announcers: Vec::new(),
                socket,
                started: Instant::now(),
            };
            machines.run(&nodes, &configuration, mac, &stopped);
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for IdlePeers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Machines {
    fn run(
        mut self,
        nodes: &[NodeName],
        configuration: &Configuration,
        mac: MacAddr,
        stop: &AtomicBool,
    ) {
        let mut absent = nodes.iter();
        let mut next = self.now();
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if self.now() >= next {
                // One after the other, so that nobody waits for all to be greeted.
                next = self.now() + BETWEEN_ARRIVALS;
                if let Some(node) = absent.next() {
                    self.announcers.push(self.machine(node, configuration, mac));
                }
            }
            self.wait();
            while let Ok(length) = self.socket.receive(&mut buffer) {
                self.deliver(&buffer[..length], None);
            }
            let now = self.now();
            for machine in &mut self.announcers {
                if machine.poll_timeout().is_some_and(|due| due <= now) {
                    machine.handle_timeout(now);
                }
            }
            self.flush();
        }
    }

    fn now(&self) -> Time {
        Time::START + self.started.elapsed()
    }

    fn machine(&self, node: &NodeName, configuration: &Configuration, mac: MacAddr) -> Announcer {
        let now = self.now();
        let identity = Identity {
            node: node.clone(),
            incarnation: fastrand::u64(..),
            seed: fastrand::u64(..),
        };
        let mut machine = Announcer::new(identity, Speaker::keys(), Timing::default(), now);
        let link = Link {
            index: LINK,
            name: "eth0".to_owned(),
            mac,
            up: true,
            addresses: vec!["198.18.255.200/16".parse().unwrap()],
        };
        machine.handle_link(link, now);
        machine.handle_configuration(configuration.clone(), now);
        machine
    }

    /// Waits for a datagram, or until a machine has something to do.
    fn wait(&self) {
        let due = self
            .announcers
            .iter()
            .filter_map(Announcer::poll_timeout)
            .min();
        let pause = due.map_or(LONGEST_WAIT, |due| due.since(self.now()));
        let pause = u16::try_from(pause.min(LONGEST_WAIT).as_millis()).unwrap();
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut sockets, PollTimeout::from(pause)).unwrap();
    }

    /// Gives a datagram to all machines but the one that sent it.
    fn deliver(&mut self, datagram: &[u8], sender: Option<usize>) {
        let now = self.now();
        for (at, machine) in self.announcers.iter_mut().enumerate() {
            if Some(at) != sender {
                // What is not heeded is repeated.
                let _ = machine.handle_heartbeat(LINK, datagram, now);
            }
        }
    }

    /// Sends what the machines have to say, to the LAN and to each other.
    fn flush(&mut self) {
        for at in 0..self.announcers.len() {
            while let Some(transmit) = self.announcers[at].poll_transmit() {
                if let Payload::Heartbeat(datagram) = transmit.payload {
                    self.socket.send(&datagram).unwrap();
                    self.deliver(&datagram, Some(at));
                }
            }
            while self.announcers[at].poll_event().is_some() {}
        }
    }
}

const LINK: LinkIndex = LinkIndex(2);
const BETWEEN_ARRIVALS: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_millis(10);
