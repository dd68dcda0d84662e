//! `why`: the whole decision about one Service in sentences.

mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::{FamilyPolicy, Service, ServiceKind};
use controller_allocator::{Allocator, Claim, Classes, Decision, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Cluster, Source};
use crate::describe::{
    Advertised, NodeEndpoints, about, advertisements, endpoints, is_local, list,
};

/// The whole decision about one Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The Service, as NAMESPACE/NAME.
    pub service: String,
    /// The answer in one sentence.
    pub answer: String,
    /// What it is and what it asks for, in sentences.
    pub asks: Vec<String>,
    /// What each pool says.
    pub pools: Vec<PoolAnswer>,
    /// What it has.
    pub has: Vec<Held>,
    /// What it lacks and why, one sentence each.
    pub lacks: Vec<String>,
    /// What to do about what it lacks.
    pub remedy: String,
    /// Who announces each address.
    pub announced: Vec<Announced>,
    /// Its endpoints by node.
    pub endpoints: Vec<NodeEndpoints>,
    /// What follows from where the endpoints are, and what stands in the way.
    pub notes: Vec<String>,
    /// The last Events, the newest first.
    pub events: Vec<EventView>,
    /// What could not be read, and what that means.
    pub gaps: Vec<String>,
}

/// What a pool says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolAnswer {
    /// The pool.
    pub pool: String,
    /// The family of the address.
    pub family: String,
    /// Whether it would give an address.
    pub gives: bool,
    /// The rule that decides.
    pub reason: String,
}

/// An address that the Service has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The address.
    pub address: IpAddr,
    /// The pool that it counts for.
    pub pool: Option<String>,
    /// Why the Service would not get it today.
    pub although: Option<String>,
    /// Since when the Service has had an address without a gap.
    pub since: Option<Timestamp>,
    /// Whether the status of the Service shows it.
    pub is_written: bool,
    /// The Services that share it.
    pub shared_with: Vec<String>,
}

/// Who announces an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Announced {
    /// The address.
    pub address: IpAddr,
    /// The node, as far as anybody says.
    pub node: Option<String>,
    /// Interfaces and hardware addresses.
    pub interfaces: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who says so.
    pub source: Option<Source>,
    /// Where every candidate stands, as the owner's speaker or another one says.
    pub candidates: Vec<Standing>,
}

/// Where a candidate stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The node.
    pub node: String,
    /// One word.
    pub standing: String,
    /// Why.
    pub reason: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// When it last happened.
    pub last: Timestamp,
    /// The reason, one word.
    pub reason: String,
    /// What happened.
    pub message: String,
}

/// How many Events are shown.
const MOST_EVENTS: usize = 5;

/// The whole decision about one Service; none if there is no such Service.
pub fn why(cluster: &Cluster, classes: &Classes, key: &ServiceKey, now: Timestamp) -> Option<Why> {
    let service = cluster.snapshot.service(key)?;
    let allocator = cluster.decide(classes);
    let claim = Claim::of(service, classes);
    let decision = allocator.decision(key);
    let has = held(cluster, &allocator, service, decision);
    let rejection = decision.and_then(|decision| decision.rejection.as_ref());
    let endpoints = endpoints(cluster, service);
    let announced: Vec<Announced> = match claim {
        Some(_) => has
            .iter()
            .map(|held| announced(cluster, service, held.address, now))
            .collect(),
        None => Vec::new(),
    };
    let events = cluster.events_of(service).rev().take(MOST_EVENTS);
    Some(Why {
        service: key.to_string(),
        answer: answer(service, claim.as_ref(), &has, rejection.is_some()),
        asks: asks(service, classes, claim.as_ref()),
        pools: pool_answers(&allocator, claim.as_ref(), &has),
        lacks: rejection
            .into_iter()
            .flat_map(|rejection| &rejection.refusals)
            .map(ToString::to_string)
            .collect(),
        remedy: rejection
            .map_or("", |rejection| rejection.remedy())
            .to_owned(),
        notes: match claim {
            Some(_) => notes(cluster, service, &has, &endpoints),
            None => Vec::new(),
        },
        has,
        announced,
        endpoints,
        events: events
            .map(|event| EventView {
                last: event.last,
                reason: event.reason.clone(),
                message: event.message.clone(),
            })
            .collect(),
        gaps: cluster.gaps.clone(),
    })
}

fn answer(service: &Service, claim: Option<&Claim>, has: &[Held], lacks: bool) -> String {
    let key = &service.key;
    let addresses: Vec<String> = has.iter().map(|held| held.address.to_string()).collect();
    let addresses = list(&addresses);
    match claim {
        None if service.kind == ServiceKind::LoadBalancer => {
            format!("{key} is left to somebody else")
        }
        None => format!("{key} gets no external address: it is not of type LoadBalancer"),
        Some(_) if has.is_empty() => format!("{key} has no address"),
        Some(_) if has.iter().any(|held| !held.is_written) => {
            format!("{key} is to get {addresses}, which the controller has not written yet")
        }
        Some(_) if lacks => format!("{key} has {addresses}, and lacks something"),
        Some(_) => format!("{key} has {addresses}"),
    }
}

fn asks(service: &Service, classes: &Classes, claim: Option<&Claim>) -> Vec<String> {
    let kind = match service.kind {
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::ClusterIp => "ClusterIP",
        ServiceKind::ExternalName => "ExternalName",
    };
    let mut asks = vec![format!("its type is {kind}")];
    if service.kind != ServiceKind::LoadBalancer {
        return asks;
    }
    let served: Vec<String> = classes.names.iter().cloned().collect();
    let served = list(&served);
    asks.push(match (&service.load_balancer_class, claim.is_some()) {
        (Some(class), true) => format!("its class {class} is served"),
        (None, true) => "it names no class, and such Services are served".to_owned(),
        (Some(class), false) => format!(
            "its class {class} is not served: the controller serves {served} (--load-balancer-class, and here too)"
        ),
        (None, false) => format!(
            "it names no class, and the controller serves only {served}: set spec.loadBalancerClass, or --serve-classless"
        ),
    });
    let Some(claim) = claim else {
        return asks;
    };
    let families: Vec<String> = claim.families.iter().map(ToString::to_string).collect();
    let policy = match claim.policy {
        FamilyPolicy::SingleStack => "SingleStack",
        FamilyPolicy::PreferDualStack => "PreferDualStack",
        FamilyPolicy::RequireDualStack => "RequireDualStack",
    };
    asks.push(format!("it wants {} ({policy})", list(&families)));
    let requests = &claim.requests;
    if !requests.addresses.is_empty() {
        let addresses: Vec<String> = requests.addresses.iter().map(ToString::to_string).collect();
        asks.push(format!("it asks for {}", list(&addresses)));
    }
    if let Some(pool) = &requests.pool {
        asks.push(format!("it asks for the pool {pool}"));
    }
    if let Some(key) = &requests.sharing_key {
        asks.push(format!(
            "it shares addresses with Services that have the key {key}"
        ));
    }
    asks.extend(requests.complaints.iter().map(ToString::to_string));
    asks.extend(service.complaints.iter().map(ToString::to_string));
    if claim.deleting {
        asks.push("it is being deleted: it keeps what it has, and gets nothing new".to_owned());
    }
    asks
}

fn pool_answers(allocator: &Allocator, claim: Option<&Claim>, has: &[Held]) -> Vec<PoolAnswer> {
    let Some(claim) = claim else {
        return Vec::new();
    };
    let verdicts = allocator.verdicts(&claim.service).into_iter();
    verdicts
        .map(|verdict| pool_answer(verdict, claim, has))
        .collect()
}

fn pool_answer(verdict: Verdict, claim: &Claim, has: &[Held]) -> PoolAnswer {
    let Verdict {
        pool,
        family,
        obstacle,
    } = verdict;
    let mine = has.iter().find(|held| {
        held.pool.as_deref() == Some(pool.as_str()) && IpFamily::of(held.address) == family
    });
    let others = claim
        .requests
        .pool
        .as_ref()
        .filter(|wanted| **wanted != pool);
    let reason = match (mine, others, &obstacle) {
        (Some(held), _, _) => format!("has given {}", held.address),
        (None, Some(wanted), None) => {
            format!("would serve it, but the Service asks for the pool {wanted}")
        }
        (None, None, None) => "would give an address".to_owned(),
        (None, _, Some(obstacle)) => {
            let text = obstacle.to_string();
            let start = format!("pool {pool} ");
            text.strip_prefix(&start).unwrap_or(&text).to_owned()
        }
    };
    PoolAnswer {
        gives: mine.is_some() || (obstacle.is_none() && others.is_none()),
        pool: pool.to_string(),
        family: family.to_string(),
        reason,
    }
}

fn held(
    cluster: &Cluster,
    allocator: &Allocator,
    service: &Service,
    decision: Option<&Decision>,
) -> Vec<Held> {
    let since = cluster.conditions.get(&service.key);
    let since = since
        .filter(|condition| condition.is_true)
        .map(|condition| condition.since);
    let written = |address: IpAddr| service.ingress.iter().any(|found| found.address == address);
    let granted = decision.into_iter().flat_map(|decision| &decision.granted);
    granted
        .map(|granted| Held {
            address: granted.address,
            pool: granted.pool.as_ref().map(ToString::to_string),
            although: granted
                .although
                .as_ref()
                .map(|obstacle| about(granted.address, obstacle)),
            since: since.filter(|_| written(granted.address)),
            is_written: written(granted.address),
            shared_with: allocator
                .holders(granted.address)
                .filter(|holder| **holder != service.key)
                .map(ToString::to_string)
                .collect(),
        })
        .collect()
}

fn announced(cluster: &Cluster, service: &Service, address: IpAddr, now: Timestamp) -> Announced {
    let announcer = cluster.announcer(service, address, now);
    let statuses = cluster.speakers.iter().flat_map(|speaker| {
        let found = speaker
            .addresses
            .iter()
            .find(|status| status.address == address);
        found.map(|status| (&speaker.node, status))
    });
    let node = announcer.as_ref().map(|announcer| announcer.node.clone());
    let best = statuses.max_by_key(|(speaker, _)| Some(*speaker) == node.as_ref());
    let standing = |node: &String, standing: &String, reason: &String| Standing {
        node: node.clone(),
        standing: standing.clone(),
        reason: reason.clone(),
    };
    let candidates = best.into_iter().flat_map(|(_, status)| &status.candidates);
    let mut candidates: Vec<_> = candidates
        .map(|found| standing(&found.node, &found.standing, &found.reason))
        .collect();
    if candidates.is_empty()
        && let Some(record) = cluster.record(service, address)
    {
        let found = record.candidates.iter();
        candidates.extend(found.map(|found| standing(&found.node, &found.standing, &found.reason)));
    }
    Announced {
        address,
        node,
        since: announcer.as_ref().and_then(|announcer| announcer.since),
        source: announcer.as_ref().map(|announcer| announcer.source),
        interfaces: announcer
            .map(|announcer| announcer.interfaces)
            .unwrap_or_default(),
        candidates,
    }
}

fn notes(
    cluster: &Cluster,
    service: &Service,
    has: &[Held],
    endpoints: &[NodeEndpoints],
) -> Vec<String> {
    let mut notes = Vec::new();
    let ready: Vec<String> = endpoints
        .iter()
        .filter(|found| found.ready > 0)
        .map(|found| found.node.clone())
        .collect();
    match (is_local(service), ready.as_slice()) {
        (_, []) if endpoints.is_empty() => notes
            .push("no endpoint is known: as long as there is none, no node announces".to_owned()),
        (_, []) => notes
            .push("no endpoint is ready: no node announces, for nobody would answer".to_owned()),
        (true, nodes) => notes.push(format!(
            "externalTrafficPolicy is Local: only {} may announce, where endpoints are ready",
            list(nodes)
        )),
        (false, _) => {}
    }
    let mut grouped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for held in has {
        let advertised = advertisements(cluster, service, held.address);
        let text = match (&advertised, advertised.obstacle()) {
            (_, Some((problem, remedy))) => format!("not announced: {problem}. To do: {remedy}"),
            (Advertised::Everywhere, None) => {
                "no advertisement is about its pool: every node may announce it".to_owned()
            }
            (Advertised::By { names, nodes }, None) => {
                let nodes: Vec<String> = nodes.iter().cloned().collect();
                format!("announced by {} from {}", list(names), list(&nodes))
            }
            (Advertised::Nowhere(_), None) => continue,
        };
        grouped
            .entry(text)
            .or_default()
            .push(held.address.to_string());
    }
    notes.extend(
        grouped
            .into_iter()
            .map(|(text, addresses)| format!("{}: {text}", list(&addresses))),
    );
    let excluded = cluster
        .snapshot
        .nodes()
        .iter()
        .filter(|(_, node)| node.excluded_from_load_balancers());
    let excluded: Vec<String> = excluded.map(|(name, _)| name.to_string()).collect();
    if !excluded.is_empty() {
        notes.push(format!(
            "{} may not announce: labelled {}",
            list(&excluded),
            config::node::EXCLUDE_LABEL
        ));
    }
    notes
}
