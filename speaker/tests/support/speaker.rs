use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use config::name::{NodeName, ServiceKey};
use prometheus_client::registry::Registry;
use speaker::compile::Scope;
use speaker::engine::{Command, Control, Engine, EngineError, Report, Settings, State};
use speaker::metrics::Metrics;
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{
    Configuration, Event, Failback, Fitness, Identity, Key, Keyring, Links, Partition,
    PlacementKey, Timing, Vip,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::Host;

/// The engine of a speaker, in the network of a host.
pub(crate) struct Speaker {
    pub(crate) node: NodeName,
    pub(crate) control: Control,
    pub(crate) metrics: Metrics,
    reports: mpsc::Receiver<Report>,
    end: Option<oneshot::Receiver<Result<(), EngineError>>>,
    runtime: Runtime,
}

/// VIPs that all of these nodes may own; the first node is preferred.
pub(crate) fn configuration(nodes: &[&NodeName], vips: &[&str]) -> (Configuration, Scope) {
    let placement = PlacementKey::Service(ServiceKey::new("default", "web"));
    let contenders = nodes.iter().enumerate().map(|(at, node)| Contender {
        node: (*node).clone(),
        preference: u32::from(at == 0),
        eligibility: Ok(()),
    });
    let candidates = rank(&placement, contenders);
    let vip = Vip {
        placement,
        candidates,
        requested: None,
        failback: Failback::Never,
        partition: Partition::Available,
        links: Links::InSubnet,
    };
    let vips: BTreeMap<IpAddr, Vip> = vips
        .iter()
        .map(|text| (text.parse().unwrap(), vip.clone()))
        .collect();
    let scope = Scope::of_addresses(vips.keys().copied());
    let speakers = nodes.iter().map(|node| (*node).clone()).collect();
    (Configuration { vips, speakers }, scope)
}

impl Speaker {
    /// The keys of all speakers of the suite.
    pub(crate) fn keys() -> Keyring {
        Keyring::new(Key::new(&[7; 32]).unwrap(), None)
    }

    /// Starts a speaker that nothing is announced by yet.
    pub(crate) fn start(host: &Host, node: &str) -> Self {
        let node = NodeName::from(node);
        let metrics = Metrics::register(&mut Registry::default());
        let (told, reports) = mpsc::channel(10_000);
        let settings = Settings {
            identity: Identity {
                node: node.clone(),
                incarnation: fastrand::u64(..),
                seed: fastrand::u64(..),
            },
            keys: Self::keys(),
            timing: Timing::default(),
            fitness: Fitness::default(),
        };
        let packets = metrics.packets.clone();
        let (end, control) = host.inside(move || {
            let (engine, control) = Engine::open(settings, packets, told).unwrap();
            (engine.start(true).unwrap(), control)
        });
        Self {
            node,
            control,
            metrics,
            reports,
            end: Some(end),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    pub(crate) fn configure(&self, (configuration, scope): (Configuration, Scope)) {
        let command = Command::Configure(configuration, scope);
        self.control.tell(command).unwrap();
    }

    pub(crate) fn state(&self) -> State {
        self.runtime.block_on(self.control.state()).unwrap()
    }

    pub(crate) fn owns(&self, vip: &str) -> bool {
        let vip: IpAddr = vip.parse().unwrap();
        let state = self.state();
        state
            .vips
            .get(&vip)
            .is_some_and(|view| view.standing.owner.as_ref() == Some(&self.node))
    }

    /// Waits for an event; returns it and when it was told.
    #[track_caller]
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> (Event, Instant) {
        let mut seen = Vec::new();
        let found = self.runtime.block_on(async {
            let searching = async {
                loop {
                    match self.reports.recv().await {
                        Some(Report::Event(event, _)) if wanted(&event) => return Some(event),
                        Some(report) => seen.push(report),
                        None => return None,
                    }
                }
            };
            tokio::time::timeout(PATIENCE, searching)
                .await
                .ok()
                .flatten()
        });
        match found {
            Some(event) => (event, Instant::now()),
            None => panic!("{} did not say {what}, but {seen:#?}", self.node),
        }
    }

    /// Everything that was told and not looked at.
    pub(crate) fn heard_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Event(event, _) = report {
                events.push(event);
            }
        }
        events
    }

    /// Tells the speaker to end and waits until it has.
    pub(crate) fn shut_down(&mut self) {
        self.control.tell(Command::Shutdown).unwrap();
        let end = self.end.take().unwrap();
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, end).await });
        ended.unwrap().unwrap().unwrap();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if self.end.take().is_some() {
            let _ = self.control.tell(Command::Shutdown);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
