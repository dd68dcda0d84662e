//! Everything that packets can meet at a node, for every data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proxy_table::{
    EndpointSet, ForwardingTable, Frontend, FrontendKey, FrontendKind, Masquerade, NodeContext,
    Outcome, Place, PodDetection, ServiceTable, TableChange, UndefinedPort,
};

use crate::network::{self, Answer, Connection, Family, Hosts, POD_PORT, Transport, talk};

/// A data plane whose kernel takes everything.
pub(crate) trait Plane {
    fn settle(&mut self, table: &ForwardingTable);
    fn update(&mut self, table: &ForwardingTable, changes: &[TableChange]);
}

/// Everything that packets of one family and protocol can meet.
pub(crate) fn packets(hosts: &Hosts, scene: &Scene, plane: &mut impl Plane, family: Family) {
    let transport = scene.transport;
    let mut table = scene.empty_table();
    let forward = |pods: &[u8]| scene.forward(family, pods);
    let frontend = |pods: &[u8]| scene.frontend(family, pods);
    let cases: [(u32, Frontend); 8] = [
        (1, frontend(&[1, 2])),
        (2, frontend(&[1])),
        (
            3,
            Frontend {
                masquerade: Masquerade::Always,
                ..frontend(&[1, 2])
            },
        ),
        (
            4,
            Frontend {
                outside: forward(&[2]),
                inside: forward(&[1]),
                masquerade: Masquerade::OnlyNode,
                ..frontend(&[1])
            },
        ),
        (
            5,
            Frontend {
                outside: Outcome::Drop,
                inside: forward(&[1]),
                masquerade: Masquerade::OnlyNode,
                ..frontend(&[1])
            },
        ),
        (6, scene.nowhere(family)),
        (
            7,
            Frontend {
                sources: Some(
                    ["192.0.2.0/24", "2001:db8:2::/64"]
                        .iter()
                        .map(|net| net.parse().unwrap())
                        .collect(),
                ),
                ..frontend(&[1])
            },
        ),
        (
            8,
            Frontend {
                affinity_seconds: std::num::NonZeroU32::new(60),
                ..frontend(&[1, 2])
            },
        ),
    ];
    for (number, frontend) in cases {
        scene.add(&mut table, number, family, 80, frontend);
    }
    scene.add_node_port(
        &mut table,
        9,
        family,
        30_080,
        Frontend {
            masquerade: Masquerade::Always,
            ..frontend(&[1, 2])
        },
    );
    plane.settle(&table);

    let vip = |number| scene.vip(family, number);
    let ask = |host: &network::Host, number| network::ask(host, transport, vip(number), 80);
    let several = |host: &network::Host, number| -> BTreeSet<Answer> {
        (0..40).map(|_| ask(host, number)).collect()
    };
    let pod = |number: u8| family.pod(number);
    let seen = |pod: u8, source: IpAddr| Answer::From { pod, source };
    let client = family.client();
    let (node, bridge) = (family.node(), family.bridge());

    // A frontend like a ClusterIP: Pods keep their address, others are masqueraded.
    assert_eq!(
        several(&hosts.client, 1),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.node, 1),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.pods[0], 1),
        [seen(1, bridge), seen(2, pod(1))].into()
    );
    // Hairpin.
    assert_eq!(several(&hosts.pods[0], 2), [seen(1, bridge)].into());
    assert_eq!(several(&hosts.pods[1], 2), [seen(1, pod(2))].into());
    // `externalTrafficPolicy: Cluster`.
    assert_eq!(
        several(&hosts.client, 3),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    assert_eq!(
        several(&hosts.pods[1], 3),
        [seen(1, bridge), seen(2, bridge)].into()
    );
    // `externalTrafficPolicy: Local`: from outside only the local endpoint, and the client keeps its address.
    assert_eq!(several(&hosts.client, 4), [seen(2, client)].into());
    assert_eq!(several(&hosts.pods[1], 4), [seen(1, pod(2))].into());
    assert_eq!(several(&hosts.node, 4), [seen(1, bridge)].into());
    assert_eq!(ask(&hosts.client, 5), Answer::Silence);
    assert_eq!(ask(&hosts.pods[1], 5), seen(1, pod(2)));
    assert_eq!(ask(&hosts.node, 5), seen(1, bridge));
    // No endpoint.
    for host in [&hosts.client, &hosts.node, &hosts.pods[0]] {
        assert_eq!(
            ask(host, 6),
            Answer::Refused,
            "{family:?} {transport:?} {host:?}"
        );
    }
    // Source ranges: the client is in them, and no Pod.
    assert_eq!(several(&hosts.client, 7), [seen(1, bridge)].into());
    assert_eq!(ask(&hosts.pods[0], 7), Answer::Silence);
    // Affinity: one endpoint for each client, also when the other one goes and comes.
    let kept = several(&hosts.client, 8);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let Some(Answer::From { pod: kept, .. }) = kept.first().copied() else {
        panic!("{kept:?}");
    };
    for (pods, expected) in [
        (&[kept][..], kept),
        (&[1, 2], kept),
        (&[3 - kept], 3 - kept),
        (&[1, 2], 3 - kept),
    ] {
        let frontend = Frontend {
            affinity_seconds: std::num::NonZeroU32::new(60),
            ..frontend(pods)
        };
        let change = scene.add(&mut table, 8, family, 80, frontend);
        plane.update(&table, &[change]);
        assert_eq!(several(&hosts.client, 8), [seen(expected, bridge)].into());
    }
    // NodePorts, also on the node itself.
    for host in [&hosts.client, &hosts.node, &hosts.pods[0]] {
        let answers: BTreeSet<_> = (0..40)
            .map(|_| network::ask(host, transport, node, 30_080))
            .collect();
        assert_eq!(answers, [seen(1, bridge), seen(2, bridge)].into());
    }
    // Other ports of a ClusterIP, and addresses of no Service.
    assert_eq!(
        network::ask(&hosts.client, transport, vip(1), 81),
        Answer::Refused
    );
    assert_eq!(
        network::ask(&hosts.node, transport, vip(1), 81),
        Answer::Refused
    );
    assert_eq!(
        network::ask(&hosts.client, transport, vip(200), 80),
        Answer::Silence
    );
    // What is not ours.
    assert_eq!(
        network::ask(&hosts.client, transport, pod(1), POD_PORT),
        seen(1, client)
    );
}

/// Of many connections about one half meets each of two endpoints.
pub(crate) fn endpoints_are_chosen_uniformly(hosts: &Hosts, plane: &mut impl Plane) {
    const ASKED: u16 = 400;
    // Five standard deviations of so many tosses of a coin.
    const EXPECTED: std::ops::RangeInclusive<usize> = 150..=250;
    let scene = Scene::new();
    let mut table = scene.empty_table();
    for (number, family) in [(1, Family::V4), (2, Family::V6)] {
        let frontend = scene.frontend(family, &[1, 2]);
        scene.add(&mut table, number, family, 80, frontend);
    }
    plane.settle(&table);
    for (number, family) in [(1, Family::V4), (2, Family::V6)] {
        let vip = scene.vip(family, number);
        let answers = (0..ASKED).map(|_| network::ask(&hosts.client, Transport::Tcp, vip, 80));
        let first = answers.filter(|answer| matches!(answer, Answer::From { pod: 1, .. }));
        let first = first.count();
        assert!(
            EXPECTED.contains(&first),
            "{family:?}: {first} of {ASKED} met the first of two endpoints"
        );
    }
}

/// An established connection stays with an endpoint that leaves the list, whatever follows it there.
pub(crate) fn connections_stay(hosts: &Hosts, plane: &mut impl Plane) {
    let scene = Scene::new();
    for (number, family) in [(1, Family::V4), (2, Family::V6)] {
        let_pods_talk(hosts, family);
        let mut table = scene.empty_table();
        scene.add(&mut table, number, family, 80, scene.talking(family, &[1]));
        plane.settle(&table);
        let vip = SocketAddr::new(scene.vip(family, number), 80);
        let mut older = Connection::open(&hosts.client, vip);
        assert_eq!(older.ask().unwrap(), 1);
        let change = scene.add(&mut table, number, family, 80, scene.talking(family, &[2]));
        plane.update(&table, &[change]);
        for _ in 0..20 {
            let mut younger = Connection::open(&hosts.client, vip);
            assert_eq!(younger.ask().unwrap(), 2);
            younger.break_off();
        }
        assert_eq!(older.ask().unwrap(), 1);
        let change = scene.add(&mut table, number, family, 80, scene.nowhere(family));
        plane.update(&table, &[change]);
        assert_eq!(older.ask().unwrap(), 1);
        let refused = network::ask(&hosts.client, Transport::Tcp, vip.ip(), vip.port());
        assert_eq!(refused, Answer::Refused);
        assert_eq!(older.close().unwrap(), "good-bye from 1\n");
    }
}

/// While endpoints come and go every request meets one that is in the list before or after the change.
pub(crate) fn a_change_loses_nothing(hosts: &Hosts, plane: &mut impl Plane) {
    const CHANGES: usize = 60;
    const REQUESTS: usize = 200;
    for (family, transport) in [
        (Family::V4, Transport::Tcp),
        (Family::V4, Transport::Udp),
        (Family::V6, Transport::Udp),
    ] {
        let scene = Scene {
            transport,
            ..Scene::new()
        };
        let mut table = scene.empty_table();
        let lists: [&[u8]; 4] = [&[1], &[1, 2], &[2], &[1, 2]];
        let mut lists = lists.into_iter().cycle();
        let mut change = |table: &mut ForwardingTable| {
            let pods = lists.next().unwrap();
            scene.add(table, 1, family, 80, scene.frontend(family, pods))
        };
        change(&mut table);
        plane.settle(&table);
        let vip = scene.vip(family, 1);
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let answers = std::thread::scope(|threads| {
            let client = threads.spawn(|| {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(network::ask(&hosts.client, transport, vip, 80));
                    asked.store(answers.len(), Ordering::Relaxed);
                }
                answers
            });
            let mut changes = 0;
            while changes < CHANGES || asked.load(Ordering::Relaxed) < REQUESTS {
                let changed = change(&mut table);
                plane.update(&table, &[changed]);
                changes += 1;
            }
            stop.store(true, Ordering::Relaxed);
            client.join().unwrap()
        });
        let mut lost = BTreeMap::new();
        for answer in &answers {
            if !matches!(answer, Answer::From { .. }) {
                *lost.entry(answer).or_insert(0) += 1;
            }
        }
        assert!(
            lost.is_empty(),
            "{family:?} {transport:?}: lost {lost:?} of {}",
            answers.len()
        );
    }
}

/// Each Pod talks on [`TALK_PORT`].
pub(crate) fn let_pods_talk(hosts: &Hosts, family: Family) {
    for (number, pod) in (1..).zip(&hosts.pods) {
        let door = SocketAddr::new(family.pod(number), TALK_PORT);
        pod.run(move || talk(door, number));
    }
}

fn forward_to(family: Family, pods: &[u8], port: u16) -> Outcome {
    let endpoints = pods.iter().map(|pod| proxy_table::Endpoint {
        address: family.pod(*pod),
        port: port.try_into().unwrap(),
    });
    Outcome::Forward(EndpointSet::new(endpoints).unwrap())
}

/// The node whose table the tests make.
pub(crate) struct Scene {
    pub(crate) context: Arc<NodeContext>,
    pub(crate) transport: Transport,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let mut context = NodeContext::new("node-1".into());
        context.pods = PodDetection::Networks(vec![
            "10.244.0.0/16".parse().unwrap(),
            "2001:db8:f4::/48".parse().unwrap(),
        ]);
        context.service_cidrs = ["10.96.0.0/12", "2001:db8:96::/112"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        context.node_port_addresses = [Family::V4.node(), Family::V6.node()].into();
        Self {
            context: Arc::new(context),
            transport: Transport::Tcp,
        }
    }

    pub(crate) fn empty_table(&self) -> ForwardingTable {
        ForwardingTable::new(Arc::clone(&self.context))
    }

    pub(crate) fn service(number: u32) -> config::name::ServiceKey {
        config::name::ServiceKey::new("shop", format!("web-{number}"))
    }

    pub(crate) fn vip(&self, family: Family, number: u32) -> IpAddr {
        let [_, _, high, low] = number.to_be_bytes();
        match family {
            Family::V4 => IpAddr::from([10, 96, high, low]),
            Family::V6 => format!("2001:db8:96::{number:x}").parse().unwrap(),
        }
    }

    pub(crate) fn forward(&self, family: Family, pods: &[u8]) -> Outcome {
        forward_to(family, pods, POD_PORT)
    }

    /// To where [`let_pods_talk`] has them talk.
    pub(crate) fn talking(&self, family: Family, pods: &[u8]) -> Frontend {
        let forward = forward_to(family, pods, TALK_PORT);
        Frontend {
            inside: forward.clone(),
            outside: forward,
            ..self.frontend(family, pods)
        }
    }

    pub(crate) fn frontend(&self, family: Family, pods: &[u8]) -> Frontend {
        Frontend {
            kind: FrontendKind::ClusterIp,
            port: "http".into(),
            policy: config::service::TrafficPolicy::Cluster,
            inside: self.forward(family, pods),
            outside: self.forward(family, pods),
            masquerade: Masquerade::UnlessPod,
            affinity_seconds: None,
            scheduler: None,
            sources: None,
        }
    }

    /// A frontend without endpoints.
    pub(crate) fn nowhere(&self, family: Family) -> Frontend {
        Frontend {
            inside: Outcome::Reject,
            outside: Outcome::Reject,
            ..self.frontend(family, &[1])
        }
    }

    pub(crate) fn add(
        &self,
        table: &mut ForwardingTable,
        number: u32,
        family: Family,
        port: u16,
        frontend: Frontend,
    ) -> TableChange {
        let address = self.vip(family, number);
        let mut part = self.part(Place::Address(address), port, frontend);
        part.cluster_ips.insert(address, UndefinedPort::Reject);
        table.update(&Self::service(number), Some(part))
    }

    pub(crate) fn add_node_port(
        &self,
        table: &mut ForwardingTable,
        number: u32,
        family: Family,
        port: u16,
        frontend: Frontend,
    ) {
        let place = Place::Node(config::address::IpFamily::of(family.node()));
        table.update(
            &Self::service(number),
            Some(self.part(place, port, frontend)),
        );
    }

    pub(crate) fn part(&self, place: Place, port: u16, frontend: Frontend) -> ServiceTable {
        let protocol = match self.transport {
            Transport::Tcp => config::service::Protocol::Tcp,
            Transport::Udp => config::service::Protocol::Udp,
        };
        let key = FrontendKey {
            place,
            protocol,
            port: port.try_into().unwrap(),
        };
        let mut part = ServiceTable::default();
        part.frontends.insert(key, Arc::new(frontend));
        part
    }
}

/// Where the talking is done.
pub(crate) const TALK_PORT: u16 = 8081;
