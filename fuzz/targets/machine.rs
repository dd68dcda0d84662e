//! The speaker's machine and everything that can be told to it, as a story that the octets write.
//!
//! A second machine on the same link makes it possible to get past the keys and the echoes; the octets decide what of
//! it arrives. After each step: the machine asks for no time that has passed for ever, sends only what can be read, no
//! more than its caps, and owns only what is configured.

#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use speaker_announcer::heartbeat::{Heartbeat, LONGEST};
use speaker_announcer::packet::arp::{Arp, Operation};
use speaker_announcer::packet::ndp::Ndp;
use speaker_announcer::packet::{Body, Frame};
use speaker_announcer::{
    Announcer, Candidate, Configuration, Failback, Fitness, Identity, Ineligible, Key, Keyring,
    Link, LinkIndex, Links, MacAddr, Partition, Payload, PlacementKey, Programmed, Time, Timing, Vip,
};

const LINKS: [LinkIndex; 2] = [LinkIndex(2), LinkIndex(3)];
const NODES: [&str; 3] = ["a", "b", "c"];
const VIPS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 240)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 241)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x240)),
];

/// Octets as decisions; zero for ever at the end.
struct Dice<'octets>(&'octets [u8]);

impl Dice<'_> {
    fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, things: &[T]) -> T {
        things[usize::from(self.octet()) % things.len()]
    }

    fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    fn some(&mut self) -> &[u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }

    fn mac(&mut self) -> MacAddr {
        MacAddr::new(2, 0, 0, 0, self.octet() % 2, self.octet() % 4)
    }

    fn ipv4(&mut self) -> Ipv4Addr {
        match self.of(&VIPS) {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::new(0, 0, 0, self.octet() % 2),
        }
    }

    fn ipv6(&mut self) -> Ipv6Addr {
        match self.of(&VIPS) {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(self.octet() % 3)),
        }
    }

    fn body(&mut self) -> Body {
        if self.flag() {
            return Body::Arp(Arp {
                operation: self.of(&[Operation::Request, Operation::Reply]),
                sender_mac: self.mac(),
                sender: self.ipv4(),
                target_mac: self.mac(),
                target: self.ipv4(),
            });
        }
        let (mac, address) = (self.mac(), self.ipv6());
        Body::Ndp(match self.octet() % 3 {
            0 => Ndp::probe(address),
            1 => Ndp::announcement(mac, address),
            _ => Ndp::answer(self.ipv6(), address, mac),
        })
    }

    fn link(&mut self, machine: u8) -> Link {
        let index = self.of(&LINKS);
        let own = |subnet: u8| -> ipnet_text::Text { ipnet_text::Text(index.0, subnet, machine) };
        let addresses = (0..self.octet() % 3)
            .filter_map(|subnet| own(subnet).parse())
            .collect();
        Link {
            index,
            name: self.of(&["eth0", "eth1"]).to_owned(),
            mac: MacAddr::new(
                2,
                0,
                0,
                0,
                machine,
                u8::try_from(index.0).unwrap_or(0) + self.octet() % 2,
            ),
            up: self.flag(),
            addresses,
        }
    }

    fn configuration(&mut self) -> Configuration {
        let vips = VIPS
            .iter()
            .filter_map(|&vip| self.flag().then(|| (vip, self.vip())));
        let vips: BTreeMap<_, _> = vips.collect::<Vec<_>>().into_iter().collect();
        let speakers = NODES
            .iter()
            .filter(|_| self.flag())
            .map(|&node| node.into());
        Configuration {
            vips,
            speakers: speakers.collect::<BTreeSet<_>>(),
        }
    }

    fn vip(&mut self) -> Vip {
        let mut nodes = NODES.to_vec();
        nodes.rotate_left(usize::from(self.octet()) % NODES.len());
        let candidates = nodes.into_iter().map(|node| Candidate {
            node: node.into(),
            eligibility: self.of(&[
                Ok(()),
                Ok(()),
                Ok(()),
                Err(Ineligible::Excluded),
                Err(Ineligible::Cordoned),
            ]),
        });
        let candidates = candidates.collect();
        Vip {
            placement: PlacementKey::Sharing("key".to_owned()),
            candidates,
            requested: None,
            failback: self.of(&[Failback::Never, Failback::Idle, Failback::Always]),
            partition: self.of(&[Partition::Available, Partition::Strict]),
            links: if self.flag() {
                Links::Named(["eth0".to_owned()].into())
            } else {
                Links::InSubnet
            },
        }
    }
}

/// Subnets of the links, as text, so that this crate needs no library for them.
mod ipnet_text {
    pub struct Text(pub u32, pub u8, pub u8);

    impl Text {
        pub fn parse<T: std::str::FromStr>(&self) -> Option<T> {
            let Self(link, subnet, machine) = self;
            let text = match subnet {
                0 => format!("192.0.2.{}/24", machine + 1),
                1 => format!("2001:db8::{}/64", machine + 1),
                _ => format!("198.51.100.{}/24", u32::from(*machine) + link),
            };
            text.parse().ok()
        }
    }
}

struct Story {
    now: Time,
    a: Announcer,
    b: Announcer,
    /// What either has sent and the other has not got.
    flying: VecDeque<(bool, LinkIndex, Payload)>,
    keys: Keyring,
    /// The heartbeats and frames of `a` in the current second.
    sent: (u64, u32, u32),
    configured: BTreeSet<IpAddr>,
}

impl Story {
    fn new(keys: &Keyring) -> Self {
        let machine = |node: &str, seed| {
            let identity = Identity {
                node: node.into(),
                incarnation: seed,
                seed,
            };
            Announcer::new(identity, keys.clone(), Timing::default(), Time::START)
        };
        Self {
            now: Time::START,
            a: machine("a", 1),
            b: machine("b", 2),
            flying: VecDeque::new(),
            keys: keys.clone(),
            sent: (0, 0, 0),
            configured: BTreeSet::new(),
        }
    }

    fn step(&mut self, dice: &mut Dice<'_>) {
        let now = self.now;
        match dice.octet() % 16 {
            0..=3 => self.pass(Duration::from_millis(u64::from(dice.octet())), true),
            4 => self.pass(Duration::from_millis(u64::from(dice.octet()) * 100), false),
            5 | 6 => self.deliver(dice),
            7 => {
                let _ = self.a.handle_frame(dice.of(&LINKS), dice.some(), now);
            }
            8 => {
                let frame = Frame {
                    source: dice.mac(),
                    destination: dice.mac(),
                    body: dice.body(),
                };
                let _ = self.a.handle_frame(dice.of(&LINKS), &frame.emit(), now);
            }
            9 => {
                let _ = self.a.handle_heartbeat(dice.of(&LINKS), dice.some(), now);
            }
            10 => {
                let sealed = self.keys.seal(dice.some());
                let _ = self.a.handle_heartbeat(dice.of(&LINKS), &sealed, now);
            }
            11 => {
                let (a, b) = (dice.link(0), dice.link(1));
                self.a.handle_link(a, now);
                self.b.handle_link(b, now);
            }
            12 => {
                let configuration = dice.configuration();
                self.configured = configuration.vips.keys().copied().collect();
                if dice.flag() {
                    self.b.handle_configuration(configuration.clone(), now);
                }
                self.a.handle_configuration(configuration, now);
            }
            13 => {
                let unfit = dice.of(&[
                    None,
                    Some(Ineligible::ProxyUnhealthy),
                    Some(Ineligible::Draining),
                ]);
                self.a.handle_fitness(Fitness { unfit }, now);
            }
            14 if dice.flag() => {
                let idle = [dice.of(&VIPS)].into();
                self.a.handle_idle(&idle, now);
            }
            14 => {
                let (some, others) = ([dice.of(&VIPS)].into(), [dice.of(&VIPS)].into());
                let programmed = match dice.octet() {
                    0..64 => Programmed::Unknown,
                    64..128 => Programmed::Only(some),
                    _ => Programmed::Changed {
                        added: some,
                        removed: others,
                    },
                };
                self.a.handle_programmed(programmed, now);
            }
            _ => match dice.octet() {
                0 => self.a.handle_shutdown(now),
                1 => self.b.handle_shutdown(now),
                _ => self.a.handle_link_removed(dice.of(&LINKS), now),
            },
        }
        self.gather();
        self.check();
    }

    /// Lets time pass; `awake` says whether the machines are woken when they want to be, or only at its end.
    fn pass(&mut self, time: Duration, awake: bool) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(due) = self
            .a
            .poll_timeout()
            .into_iter()
            .chain(self.b.poll_timeout())
            .min()
            && due <= end
            && awake
        {
            self.now = self.now.max(due);
            self.a.handle_timeout(self.now);
            self.b.handle_timeout(self.now);
            self.gather();
            steps += 1;
            assert!(steps < 2000, "a machine wants to be woken without end");
        }
        self.now = end;
        self.a.handle_timeout(end);
        self.b.handle_timeout(end);
    }

    fn deliver(&mut self, dice: &mut Dice<'_>) {
        let lost = dice.octet();
        for number in 0..self.flying.len() {
            let Some((to_a, link, payload)) = self.flying.pop_front() else {
                return;
            };
            if number < 8 && lost >> number & 1 == 1 {
                continue;
            }
            let to = if to_a { &mut self.a } else { &mut self.b };
            match payload {
                Payload::Frame(octets) => {
                    let _ = to.handle_frame(link, &octets, self.now);
                }
                Payload::Heartbeat(octets) => {
                    let _ = to.handle_heartbeat(link, &octets, self.now);
                }
            }
        }
    }

    fn gather(&mut self) {
        let second = self.now.since_start().as_secs();
        while let Some(sent) = self.a.poll_transmit() {
            if self.sent.0 != second {
                self.sent = (second, 0, 0);
            }
            match &sent.payload {
                Payload::Frame(octets) => {
                    assert!(
                        Frame::parse(octets).is_ok(),
                        "a frame that nobody can read: {octets:02x?}"
                    );
                    self.sent.1 += 1;
                }
                Payload::Heartbeat(octets) => {
                    assert!(octets.len() <= LONGEST);
                    assert!(
                        Heartbeat::open(octets, &self.keys).is_ok(),
                        "a heartbeat that nobody can read"
                    );
                    self.sent.2 += 1;
                }
            }
            self.flying.push_back((false, sent.link, sent.payload));
        }
        while let Some(sent) = self.b.poll_transmit() {
            self.flying.push_back((true, sent.link, sent.payload));
        }
        while self.flying.len() > MOST_FLYING {
            self.flying.pop_front();
        }
        while let Some(event) = self.a.poll_event() {
            assert!(!event.to_string().is_empty());
        }
        while self.b.poll_event().is_some() {}
    }

    fn check(&mut self) {
        assert!(
            self.sent.2 <= MOST_HEARTBEATS,
            "{} heartbeats in a second",
            self.sent.2
        );
        assert!(
            self.a.owned().all(|vip| self.configured.contains(&vip)),
            "owns what is not configured"
        );
        for vip in VIPS {
            let standing = self.a.standing(vip);
            assert_eq!(standing.is_some(), self.configured.contains(&vip));
        }
        if let Some(due) = self.a.poll_timeout() {
            assert!(
                due <= self.now + Duration::from_secs(120),
                "sleeps too long"
            );
        }
    }
}

/// Heartbeats in one second on two links: four rounds an interval of 50 ms.
const MOST_HEARTBEATS: u32 = 2 * 4 * 21;
const MOST_FLYING: usize = 64;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let Ok(key) = Key::new(&[7; 32]) else { return };
    let mut story = Story::new(&Keyring::new(key, None));
    let mut dice = Dice(octets);
    while !dice.0.is_empty() {
        story.step(&mut dice);
    }
});
