//! `status`: everything on one screen, what is wrong first.

use std::fmt::Write as _;
use std::net::IpAddr;

use config::service::Service;
use controller_allocator::Allocator;
use controller_allocator::{Claim, Classes};
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Cluster, Event, Source, mentions};
use crate::describe::{about, advertisements, endpoints};
use crate::pools::{Pools, pools};
use crate::table::{Table, age, count};

/// Everything on one screen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Who leads.
    pub controller: Controller,
    /// What speakers say of each other; empty if they cannot be asked.
    pub speakers: Vec<SpeakerView>,
    /// How full the pools are.
    pub pools: Pools,
    /// Services of type LoadBalancer.
    pub services: Vec<ServiceView>,
    /// What could not be read, and what that means.
    pub gaps: Vec<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What it is about.
    pub about: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// The controller, as its Lease shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// The Lease, as NAMESPACE/NAME.
    pub lease: Option<String>,
    /// Who leads.
    pub leader: Option<String>,
    /// When the Lease was renewed.
    pub renewed: Option<Timestamp>,
}

/// A speaker that answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerView {
    /// Its node.
    pub node: String,
    /// How many addresses it announces.
    pub owns: usize,
    /// The nodes that it does not hear.
    pub silent: Vec<String>,
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether the controller serves its class.
    pub is_ours: bool,
    /// What it has; one line if it has nothing.
    pub addresses: Vec<AddressView>,
    /// Endpoints that are ready.
    pub ready_endpoints: usize,
    /// Why it lacks something.
    pub lacks: Option<String>,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressView {
    /// The address.
    pub address: IpAddr,
    /// The pool that it counts for.
    pub pool: Option<String>,
    /// The node that announces it, as far as anybody says.
    pub announced_by: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who says so.
    pub source: Option<Source>,
}

/// Events older than this many seconds are no problem of today.
const RECENT_SECONDS: i64 = 3600;
/// How many lines of Services are shown; the others are counted.
const MOST_SERVICES: usize = 100;

/// The state of everything at `now`.
pub fn status(
    cluster: &Cluster,
    classes: &Classes,
    namespace: Option<&str>,
    now: Timestamp,
) -> Status {
    let allocator = cluster.decide(classes);
    let mut problems = Vec::new();
    let controller = controller(cluster, now, &mut problems);
    configuration_problems(cluster, &allocator, &mut problems);
    let mut services = Vec::new();
    for service in cluster.load_balancers(namespace).into_values() {
        let view = service_view(cluster, &allocator, classes, service, now);
        if view.is_ours {
            service_problems(cluster, &allocator, service, &view, now, &mut problems);
        }
        services.push(view);
    }
    Status {
        problems,
        controller,
        speakers: speakers(cluster),
        pools: pools(cluster, &allocator),
        services,
        gaps: cluster.gaps.clone(),
    }
}

fn controller(cluster: &Cluster, now: Timestamp, problems: &mut Vec<Problem>) -> Controller {
    let newest = cluster.leases.iter().max_by_key(|lease| lease.renewed);
    let held = newest.filter(|lease| lease.is_held(now));
    let is_known = !cluster.gaps.iter().any(|gap| gap.starts_with("who leads"));
    if held.is_none() && is_known {
        let problem = match newest.and_then(|lease| Some((lease, lease.renewed?))) {
            Some((lease, renewed)) => format!(
                "nobody leads: the Lease {}/{} was renewed {} ago for the last time",
                lease.namespace,
                lease.name,
                age(renewed, now)
            ),
            None => "nobody leads: there is no Lease of a controller".to_owned(),
        };
        problems.push(Problem {
            about: "controller".to_owned(),
            problem,
            remedy: "start foghorn-controller, or look at its log (one that runs with --leader-elect=false has no Lease)"
                .to_owned(),
        });
    }
    Controller {
        lease: newest.map(|lease| format!("{}/{}", lease.namespace, lease.name)),
        leader: held.and_then(|lease| lease.holder.clone()),
        renewed: newest.and_then(|lease| lease.renewed),
    }
}

fn configuration_problems(cluster: &Cluster, allocator: &Allocator, problems: &mut Vec<Problem>) {
    for refusal in cluster.catalogue.refusals() {
        let kind = refusal
            .kind
            .map(|kind| kind.to_string())
            .unwrap_or_default();
        let name = refusal.name.clone().unwrap_or_default();
        let (problem, remedy) = crate::diagnostic::split(&refusal.reason);
        problems.push(Problem {
            about: format!("{kind} {name}"),
            problem: format!("{}: {problem}", refusal.field)
                .trim_start_matches(": ")
                .to_owned(),
            remedy,
        });
    }
    for (name, conflicts) in config::conflict::conflicts(&cluster.snapshot) {
        for conflict in conflicts {
            let text = conflict.to_string();
            let (problem, remedy) = crate::diagnostic::split_text(&text, false);
            problems.push(Problem {
                about: format!("IPAddressPool {name}"),
                problem,
                remedy,
            });
        }
    }
    if cluster.snapshot.pools().is_empty() && allocator.decisions().next().is_none() {
        problems.push(Problem {
            about: "pools".to_owned(),
            problem: "there is no pool".to_owned(),
            remedy: "create an IPAddressPool, or give the programs a file of pools (--config)"
                .to_owned(),
        });
    }
}

fn service_view(
    cluster: &Cluster,
    allocator: &Allocator,
    classes: &Classes,
    service: &Service,
    now: Timestamp,
) -> ServiceView {
    let decision = allocator.decision(&service.key);
    let pool_of = |address: IpAddr| {
        let granted = decision?
            .granted
            .iter()
            .find(|granted| granted.address == address)?;
        granted.pool.as_ref().map(ToString::to_string)
    };
    let addresses = service.ingress.iter().map(|ingress| {
        let announcer = cluster.announcer(service, ingress.address, now);
        AddressView {
            address: ingress.address,
            pool: pool_of(ingress.address),
            since: announcer.as_ref().and_then(|announcer| announcer.since),
            source: announcer.as_ref().map(|announcer| announcer.source),
            announced_by: announcer.map(|announcer| announcer.node),
        }
    });
    let rejection = decision.and_then(|decision| decision.rejection.as_ref());
    ServiceView {
        namespace: service.key.namespace().to_owned(),
        name: service.key.name().to_owned(),
        is_ours: Claim::of(service, classes).is_some(),
        addresses: addresses.collect(),
        ready_endpoints: endpoints(cluster, service)
            .iter()
            .map(|found| found.ready)
            .sum(),
        lacks: rejection.map(ToString::to_string),
    }
}

fn service_problems(
    cluster: &Cluster,
    allocator: &Allocator,
    service: &Service,
    view: &ServiceView,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) {
    let mut add = |problem: String, remedy: &str| {
        problems.push(Problem {
            about: service.key.to_string(),
            problem,
            remedy: remedy.to_owned(),
        });
    };
    let decision = allocator.decision(&service.key);
    if let Some(rejection) = decision.and_then(|decision| decision.rejection.as_ref()) {
        let refusals: Vec<String> = rejection.refusals.iter().map(ToString::to_string).collect();
        let lead = if view.addresses.is_empty() {
            "no address"
        } else {
            "not all addresses"
        };
        add(
            format!("{lead}: {}", refusals.join(". ")),
            rejection.remedy(),
        );
    }
    let held: Vec<IpAddr> = view.addresses.iter().map(|view| view.address).collect();
    let due: Vec<String> = decision
        .into_iter()
        .flat_map(|decision| decision.addresses())
        .filter(|address| !held.contains(address))
        .map(|address| address.to_string())
        .collect();
    if !due.is_empty() {
        add(
            format!(
                "{} can be had, and the controller has not given it yet",
                due.join(", ")
            ),
            "wait a moment; if it stays, look at the log of foghorn-controller",
        );
    }
    let about_kept = decision.into_iter().flat_map(|decision| &decision.granted);
    for granted in about_kept {
        if let Some(obstacle) = &granted.although {
            add(
                format!(
                    "{} stays although {}",
                    granted.address,
                    about(granted.address, obstacle)
                ),
                obstacle.remedy(),
            );
        }
    }
    for address in &held {
        if let Some((problem, remedy)) = advertisements(cluster, service, *address).obstacle() {
            add(format!("{address} is not announced: {problem}"), remedy);
        }
    }
    if !held.is_empty()
        && view.ready_endpoints == 0
        && cluster.snapshot.slices(&service.key).next().is_some()
    {
        add(
            "no endpoint is ready: nobody answers, so nobody announces".to_owned(),
            "look at the Pods that the Service selects",
        );
    }
    let recent = |event: &&Event| now.as_second() - event.last.as_second() < RECENT_SECONDS;
    let events: Vec<&Event> = cluster.events_of(service).filter(recent).collect();
    for address in &held {
        let mut about = events
            .iter()
            .filter(|event| mentions(&event.message, *address));
        let last = about.rfind(|event| {
            ["AddressConflict", "AddressConflictEnded"].contains(&event.reason.as_str())
        });
        if let Some(event) = last.filter(|event| event.reason == "AddressConflict") {
            add(
                event.message.clone(),
                "find the machine with that hardware address, and give it another address",
            );
        }
    }
    if let Some(event) = events
        .iter()
        .rfind(|event| event.reason == "StatusContested")
    {
        let (problem, remedy) = event
            .message
            .split_once(" To do: ")
            .unwrap_or((&event.message, ""));
        add(problem.trim_end_matches('.').to_owned(), remedy);
    }
}

fn speakers(cluster: &Cluster) -> Vec<SpeakerView> {
    let view = |speaker: &crate::speaker::SpeakerStatus| SpeakerView {
        node: speaker.node.clone(),
        owns: speaker
            .addresses
            .iter()
            .filter(|status| status.owner.as_deref() == Some(&speaker.node))
            .count(),
        silent: speaker
            .peers
            .iter()
            .filter(|peer| !peer.heard)
            .map(|peer| peer.node.clone())
            .collect(),
    };
    let mut speakers: Vec<_> = cluster.speakers.iter().map(view).collect();
    speakers.sort_by(|one, other| one.node.cmp(&other.node));
    speakers
}

impl Status {
    /// The whole as text.
    pub fn text(&self, now: Timestamp) -> String {
        let mut text = String::new();
        if self.problems.is_empty() {
            text.push_str("Everything is as it should be.\n");
        } else {
            let _ = writeln!(
                text,
                "{}:",
                count(self.problems.len(), "problem", "problems")
            );
            for found in &self.problems {
                let _ = writeln!(text, "  ! {}: {}", found.about, found.problem);
                if !found.remedy.is_empty() {
                    let _ = writeln!(text, "    to do: {}", found.remedy);
                }
            }
        }
        text.push_str("\nController  ");
        match (
            &self.controller.leader,
            &self.controller.lease,
            self.controller.renewed,
        ) {
            (Some(leader), Some(lease), Some(renewed)) => {
                let _ = writeln!(
                    text,
                    "{leader} leads (Lease {lease}, renewed {} ago)",
                    age(renewed, now)
                );
            }
            _ => text.push_str("nobody is known to lead\n"),
        }
        for speaker in &self.speakers {
            let _ = write!(
                text,
                "Speaker     {} announces {}",
                speaker.node,
                count(speaker.owns, "address", "addresses")
            );
            if speaker.silent.is_empty() {
                text.push('\n');
            } else {
                let _ = writeln!(text, " and does not hear {}", speaker.silent.join(", "));
            }
        }
        if !self.pools.pools.is_empty() {
            let _ = write!(text, "\n{}", self.pools.table(0));
        }
        if !self.services.is_empty() {
            let _ = write!(text, "\n{}", self.services_table(now));
        }
        if !self.gaps.is_empty() {
            text.push_str("\nNot known:\n");
            for gap in &self.gaps {
                let _ = writeln!(text, "  - {gap}");
            }
        }
        text
    }

    fn services_table(&self, now: Timestamp) -> String {
        let headings = [
            "NAMESPACE",
            "SERVICE",
            "ADDRESS",
            "POOL",
            "ANNOUNCED BY",
            "SINCE",
            "READY",
        ];
        let mut table = Table::new(&headings);
        for service in self.services.iter().take(MOST_SERVICES) {
            let (namespace, name) = (&service.namespace, &service.name);
            let ready = service.ready_endpoints.to_string();
            if service.addresses.is_empty() {
                let address = if service.is_ours {
                    "<pending>"
                } else {
                    "<not ours>"
                };
                let line = [namespace, name, address, "", "", "", &ready];
                table.row(line.map(str::to_owned));
            }
            for (index, found) in service.addresses.iter().enumerate() {
                let is_first = index == 0;
                let once = |text: &str| {
                    if is_first {
                        text.to_owned()
                    } else {
                        " ".to_owned()
                    }
                };
                let since = found.since.map(|since| age(since, now)).unwrap_or_default();
                table.row([
                    once(namespace),
                    once(name),
                    found.address.to_string(),
                    found.pool.clone().unwrap_or_else(|| {
                        if service.is_ours {
                            "none".to_owned()
                        } else {
                            "not ours".to_owned()
                        }
                    }),
                    found.announced_by.clone().unwrap_or_else(|| "?".to_owned()),
                    since,
                    once(&ready),
                ]);
            }
        }
        let mut text = table.text(0);
        let more = self.services.len().saturating_sub(MOST_SERVICES);
        if more > 0 {
            let _ = writeln!(
                text,
                "and {}: narrow it with --namespace",
                count(more, "Service", "Services")
            );
        }
        text
    }
}
