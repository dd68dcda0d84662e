//! Machines, the wire between them, and the faults of both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use speaker_announcer::{
    Announcer, Configuration, Event, Fitness, Identity, Ineligible, Key, Keyring, Link, LinkIndex,
    MacAddr, Payload, Programmed, Rejection, Standing, Time, Timing,
};

use super::random::Dice;

pub const LINK: LinkIndex = LinkIndex(2);

/// How the wire treats packets.
#[derive(Clone, Debug)]
pub struct Wire {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    /// Shortest and longest delay in microseconds; a wide span reorders.
    pub delay: (u64, u64),
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            loss_percent: 0,
            duplicate_percent: 0,
            delay: (50, 300),
        }
    }
}

/// What does not get from one machine to another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Cut {
    Heartbeats,
    Everything,
}

pub struct Machine {
    pub name: String,
    pub link_up: bool,
    pub announcer: Option<Announcer>,
    pub paused: Option<VecDeque<(usize, Payload)>>,
    pub configuration: Configuration,
    pub unfit: Option<Ineligible>,
    /// What its proxy forwards, if that says so.
    pub programmed: Option<BTreeSet<IpAddr>>,
    /// What of that the announcer has been told: a stopped one is told later.
    pub told_programmed: Option<BTreeSet<IpAddr>>,
    pub shutting_down: bool,
    starts: u64,
    /// The heartbeats and frames that it sent in the current second.
    pub sent: (u64, u32, u32),
}

impl Machine {
    /// Whether it runs and can be reached.
    pub fn is_up(&self) -> bool {
        self.announcer.is_some() && self.paused.is_none() && self.link_up
    }

    pub fn owns(&self, vip: IpAddr) -> bool {
        self.announcer
            .as_ref()
            .is_some_and(|announcer| announcer.owned().any(|owned| owned == vip))
    }
}

pub struct Segment {
    pub now: Time,
    pub machines: Vec<Machine>,
    pub wire: Wire,
    pub cuts: BTreeMap<(usize, usize), Cut>,
    pub dice: Dice,
    pub timing: Timing,
    pub log: Vec<String>,
    /// Every event, by machine.
    pub events: Vec<(Time, usize, Event)>,
    /// A machine that is no speaker and answers for these addresses.
    pub stranger: BTreeSet<IpAddr>,
    /// Where somebody took an address that its proxy says it does not forward: nobody may.
    pub taken_unforwarded: Vec<String>,
    flying: BTreeMap<(Time, u64), (usize, usize, Payload)>,
    count: u64,
    /// Steps without any time passing.
    still: u32,
}

/// The sender number of the stranger.
const STRANGER: usize = usize::MAX;
pub const STRANGER_MAC: MacAddr = MacAddr(2, 0xbb, 0, 0, 0, 1);

impl Segment {
    pub fn new(seed: u64, names: &[&str], configuration: &Configuration) -> Self {
        let machines = names.iter().map(|name| Machine {
            name: (*name).to_owned(),
            link_up: true,
            announcer: None,
            paused: None,
            configuration: configuration.clone(),
            unfit: None,
            programmed: None,
            told_programmed: None,
            shutting_down: false,
            starts: 0,
            sent: (0, 0, 0),
        });
        Self {
            now: Time::from_millis(1000),
            machines: machines.collect(),
            wire: Wire::default(),
            cuts: BTreeMap::new(),
            dice: Dice::new(seed),
            timing: Timing::default(),
            log: Vec::new(),
            events: Vec::new(),
            stranger: BTreeSet::new(),
            taken_unforwarded: Vec::new(),
            flying: BTreeMap::new(),
            count: 0,
            still: 0,
        }
    }

    pub fn note(&mut self, text: impl AsRef<str>) {
        self.log.push(format!("{} {}", self.now, text.as_ref()));
    }

    pub fn start(&mut self, number: usize) {
        let seed = self.dice.next();
        let machine = &mut self.machines[number];
        machine.starts += 1;
        let identity = Identity {
            node: machine.name.as_str().into(),
            incarnation: seed,
            seed,
        };
        let keys = Keyring::new(Key::new(&[7; 32]).unwrap(), None);
        let mut announcer = Announcer::new(identity, keys, self.timing.clone(), self.now);
        announcer.handle_link(link(number, machine.link_up), self.now);
        announcer.handle_fitness(
            Fitness {
                unfit: machine.unfit,
            },
            self.now,
        );
        announcer.handle_programmed(
            machine
                .programmed
                .clone()
                .map_or(Programmed::Unknown, Programmed::Only),
            self.now,
        );
        machine.told_programmed.clone_from(&machine.programmed);
        announcer.handle_configuration(machine.configuration.clone(), self.now);
        machine.announcer = Some(announcer);
        machine.paused = None;
        machine.shutting_down = false;
        self.flush(number);
    }

    pub fn start_all(&mut self) {
        for number in 0..self.machines.len() {
            self.start(number);
        }
    }

    pub fn kill(&mut self, number: usize) {
        self.machines[number].announcer = None;
        self.machines[number].paused = None;
    }

    pub fn pause(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if machine.announcer.is_some() {
            machine.paused.get_or_insert_default();
        }
    }

    pub fn resume(&mut self, number: usize) {
        let waiting = self.machines[number].paused.take();
        for (_, payload) in waiting.into_iter().flatten() {
            self.hand_over(number, payload);
        }
        self.with(number, Announcer::handle_timeout);
        // What changed in the meantime waits in the sockets of the shell too.
        self.set_link(number, self.machines[number].link_up);
        self.set_unfit(number, self.machines[number].unfit);
        self.set_programmed(number, self.machines[number].programmed.clone());
        self.configure(number, &self.machines[number].configuration.clone());
    }

    pub fn set_link(&mut self, number: usize, up: bool) {
        self.machines[number].link_up = up;
        self.with(number, |announcer, now| {
            announcer.handle_link(link(number, up), now)
        });
    }

    pub fn set_unfit(&mut self, number: usize, unfit: Option<Ineligible>) {
        self.machines[number].unfit = unfit;
        self.with(number, |announcer, now| {
            announcer.handle_fitness(Fitness { unfit }, now)
        });
    }

    /// The proxy says it as it does: whole when there was nothing before, afterwards what changed.
    pub fn set_programmed(&mut self, number: usize, programmed: Option<BTreeSet<IpAddr>>) {
        let machine = &mut self.machines[number];
        machine.programmed = programmed;
        if machine.paused.is_some() || machine.announcer.is_none() {
            return;
        }
        let before = std::mem::replace(&mut machine.told_programmed, machine.programmed.clone());
        let said = match (before, machine.programmed.clone()) {
            (_, None) => Programmed::Unknown,
            (None, Some(now)) => Programmed::Only(now),
            (Some(before), Some(now)) => Programmed::Changed {
                added: &now - &before,
                removed: &before - &now,
            },
        };
        self.with(number, |announcer, now| {
            announcer.handle_programmed(said, now)
        });
    }

    pub fn configure(&mut self, number: usize, configuration: &Configuration) {
        self.machines[number].configuration = configuration.clone();
        self.with(number, |announcer, now| {
            announcer.handle_configuration(configuration.clone(), now)
        });
    }

    pub fn shut_down(&mut self, number: usize) {
        self.with(number, Announcer::handle_shutdown);
        self.machines[number].shutting_down = true;
    }

    /// Whether each hears everything of the other.
    pub fn hear_each_other(&self, a: usize, b: usize) -> bool {
        self.machines[a].is_up()
            && self.machines[b].is_up()
            && !self.cuts.contains_key(&(a, b))
            && !self.cuts.contains_key(&(b, a))
    }

    /// Whether a machine that runs keeps the address in quarantine: it met a peer whose heartbeats it never heard.
    pub fn suspects_a_stranger(&self, number: usize, vip: IpAddr) -> bool {
        self.machines[number]
            .announcer
            .as_ref()
            .and_then(|announcer| announcer.standing(vip))
            .is_some_and(|standing| matches!(standing.own, Standing::Quarantined { .. }))
    }

    /// Whether frames of `a` get to `b`, if both are up.
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        self.cuts.get(&(a, b)) != Some(&Cut::Everything)
    }

    /// Whether each gets at least the frames of the other.
    pub fn reach_each_other(&self, a: usize, b: usize) -> bool {
        self.machines[a].is_up()
            && self.machines[b].is_up()
            && self.reaches(a, b)
            && self.reaches(b, a)
    }

    pub fn owners(&self, vip: IpAddr) -> Vec<usize> {
        (0..self.machines.len())
            .filter(|&number| self.machines[number].is_up() && self.machines[number].owns(vip))
            .collect()
    }

    /// Calls the machine, unless it is stopped, and sends what it wants sent.
    pub fn with(&mut self, number: usize, call: impl FnOnce(&mut Announcer, Time)) {
        let now = self.now;
        let machine = &mut self.machines[number];
        if machine.paused.is_some() {
            return;
        }
        if let Some(announcer) = &mut machine.announcer {
            call(announcer, now);
            self.flush(number);
        }
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Time> {
        let timers = self
            .machines
            .iter()
            .filter(|machine| machine.paused.is_none())
            .filter_map(|machine| machine.announcer.as_ref()?.poll_timeout());
        timers
            .chain(self.flying.keys().next().map(|(time, _)| *time))
            .min()
    }

    /// Lets the next thing happen; no later than `end`. Says whether something did.
    pub fn step(&mut self, end: Time) -> bool {
        let Some(next) = self.next().filter(|&next| next <= end) else {
            self.now = end;
            return false;
        };
        let next = next.max(self.now);
        self.still = if next > self.now { 0 } else { self.still + 1 };
        assert!(
            self.still < 1000,
            "a machine spins\n{}",
            self.log.join("\n")
        );
        self.now = next;
        while let Some((&key, _)) = self
            .flying
            .iter()
            .next()
            .filter(|((time, _), _)| *time <= next)
        {
            let (from, to, payload) = self.flying.remove(&key).unwrap();
            self.deliver(from, to, payload);
        }
        for number in 0..self.machines.len() {
            let due = |machine: &Machine| machine.announcer.as_ref()?.poll_timeout();
            if due(&self.machines[number]).is_some_and(|due| due <= next) {
                self.with(number, Announcer::handle_timeout);
            }
        }
        true
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    fn deliver(&mut self, from: usize, to: usize, payload: Payload) {
        let machine = &mut self.machines[to];
        let stopped_by = match &payload {
            Payload::Heartbeat(_) => Cut::Heartbeats,
            Payload::Frame(_) => Cut::Everything,
        };
        let cut = self
            .cuts
            .get(&(from, to))
            .is_some_and(|cut| *cut >= stopped_by);
        if cut || !machine.link_up {
            return;
        }
        match &mut machine.paused {
            Some(waiting) if waiting.len() < 400 => waiting.push_back((from, payload)),
            Some(_) => {}
            None => self.hand_over(to, payload),
        }
    }

    fn hand_over(&mut self, to: usize, payload: Payload) {
        self.with(to, |announcer, now| match payload {
            Payload::Heartbeat(octets) => {
                let outcome = announcer.handle_heartbeat(LINK, &octets, now);
                // Whatever a speaker sends is a heartbeat; of another time perhaps.
                assert!(!matches!(
                    outcome,
                    Err(Rejection::Length | Rejection::Malformed)
                ));
            }
            Payload::Frame(octets) => {
                let _ = announcer.handle_frame(LINK, &octets, now);
            }
        });
    }

    fn flush(&mut self, number: usize) {
        let now = self.now;
        let second = now.since_start().as_secs();
        let mut payloads = Vec::new();
        let machine = &mut self.machines[number];
        let Some(announcer) = &mut machine.announcer else {
            return;
        };
        while let Some(event) = announcer.poll_event() {
            let line = format!("{now} {}: {event}", machine.name);
            let is_forwarded = |vip| {
                let programmed = machine.told_programmed.as_ref();
                programmed.is_none_or(|programmed| programmed.contains(&vip))
            };
            if event.owns() == Some(true) && !event.vip().is_some_and(is_forwarded) {
                self.taken_unforwarded
                    .push(format!("{line}, but its proxy does not forward it"));
            }
            self.log.push(line);
            self.events.push((now, number, event));
        }
        while let Some(transmit) = announcer.poll_transmit() {
            if machine.sent.0 != second {
                machine.sent = (second, 0, 0);
            }
            match transmit.payload {
                Payload::Heartbeat(_) => machine.sent.1 += 1,
                Payload::Frame(_) => machine.sent.2 += 1,
            }
            payloads.push(transmit.payload);
        }
        if machine.link_up {
            for payload in payloads {
                self.stranger_hears(&payload);
                self.send(number, payload);
            }
        }
    }

    fn send(&mut self, from: usize, payload: Payload) {
        for to in (0..self.machines.len()).filter(|&to| to != from) {
            let copies = if self.dice.chance(self.wire.duplicate_percent) {
                2
            } else {
                1
            };
            for _ in 0..copies {
                if !self.dice.chance(self.wire.loss_percent) {
                    let (shortest, longest) = self.wire.delay;
                    let arrival = self.now + self.dice.micros(shortest, longest);
                    self.count += 1;
                    self.flying
                        .insert((arrival, self.count), (from, to, payload.clone()));
                }
            }
        }
    }

    fn stranger_hears(&mut self, payload: &Payload) {
        use speaker_announcer::packet::ndp::{Message, Ndp};
        use speaker_announcer::packet::{Body, Frame};
        let Payload::Frame(octets) = payload else {
            return;
        };
        let frame = Frame::parse(octets).unwrap();
        let body = match &frame.body {
            Body::Arp(arp)
                if self.stranger.contains(&arp.target.into()) && arp.sender != arp.target =>
            {
                Body::Arp(arp.answer(STRANGER_MAC))
            }
            Body::Ndp(ndp)
                if self.stranger.contains(&ndp.target().into())
                    && matches!(ndp.message, Message::Solicitation(_)) =>
            {
                Body::Ndp(Ndp::answer(ndp.source, ndp.target(), STRANGER_MAC))
            }
            _ => return,
        };
        let answer = Frame {
            source: STRANGER_MAC,
            destination: frame.source,
            body,
        };
        self.send(STRANGER, Payload::Frame(answer.emit()));
    }
}

fn link(number: usize, up: bool) -> Link {
    Link {
        index: LINK,
        name: "eth0".to_owned(),
        mac: MacAddr(2, 0, 0, 0, 0, u8::try_from(number + 1).unwrap()),
        up,
        addresses: vec![
            format!("192.0.2.{}/24", number + 1).parse().unwrap(),
            format!("2001:db8::{}/64", number + 1).parse().unwrap(),
        ],
    }
}
