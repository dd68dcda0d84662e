//! `/status`: where every address stands and why; `/probe`: who answers for it on the wire; `/doctor`: what is wrong with the
//! node. As JSON, for `kubectl foghorn status`, `why` and `doctor`.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use config::name::NodeName;
use serde::Serialize;
use speaker_announcer::Link;

use tokio::sync::Semaphore;

use crate::compile::Compiler;
use crate::doctor::{self, facts};
use crate::engine::{Control, Gone, Interface, State, VipView};
use crate::probe::who_has;

/// What is needed to answer.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The node of this speaker.
    pub node: NodeName,
    /// The machine.
    pub control: Control,
    /// Which Services have which address.
    pub compiler: Arc<RwLock<Compiler>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    version: u32,
    node: String,
    addresses: Vec<AddressStatus>,
    peers: Vec<PeerStatus>,
    /// The nodes that are silent, and peers agree.
    silent: Vec<String>,
    interfaces: Vec<InterfaceStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AddressStatus {
    address: IpAddr,
    services: Vec<String>,
    owner: Option<String>,
    owned_for_seconds: Option<f64>,
    /// Where this node announces it, or would.
    interfaces: Vec<InterfaceName>,
    candidates: Vec<CandidateStatus>,
}

#[derive(Debug, Serialize)]
struct InterfaceName {
    name: String,
    mac: String,
}

#[derive(Debug, Serialize)]
struct CandidateStatus {
    node: String,
    /// One word.
    standing: &'static str,
    /// The whole reason.
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerStatus {
    node: String,
    heard: bool,
    since_seconds: f64,
}

#[derive(Debug, Serialize)]
struct InterfaceStatus {
    name: String,
    mac: String,
    up: bool,
    addresses: Vec<String>,
}

/// The routes `/status` and, for one address only, `/status/192.0.2.240`; `/probe/192.0.2.240`; `/doctor`.
pub fn router(sources: Sources) -> Router {
    let all = |Shared(sources): Shared<Sources>| answer(sources, None);
    let one = |Shared(sources): Shared<Sources>, Path(address): Path<IpAddr>| {
        answer(sources, Some(address))
    };
    // Whoever asks without end gets no more than this from the LAN.
    let probes = Arc::new(Semaphore::new(MOST_PROBES));
    let on_the_wire = |Shared(sources): Shared<Sources>, Path(address): Path<IpAddr>| {
        probe(sources, address, probes)
    };
    Router::new()
        .route("/status", get(all))
        .route("/status/{address}", get(one))
        .route("/probe/{address}", get(on_the_wire))
        .route("/doctor", get(examine))
        .with_state(sources)
}

#[derive(Debug, Serialize)]
struct Examination {
    version: u32,
    node: String,
    findings: Vec<FindingStatus>,
}

#[derive(Debug, Serialize)]
struct FindingStatus {
    severity: String,
    message: String,
}

async fn examine(Shared(sources): Shared<Sources>) -> Response {
    let facts = tokio::task::spawn_blocking(|| facts::gather(std::path::Path::new("/")));
    let Ok(facts) = facts.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let findings = doctor::diagnose(&facts).into_iter();
    Json(Examination {
        version: 1,
        node: sources.node.to_string(),
        findings: findings
            .map(|finding| FindingStatus {
                severity: finding.severity().to_string(),
                message: finding.to_string(),
            })
            .collect(),
    })
    .into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probed {
    version: u32,
    node: String,
    address: IpAddr,
    is_owner: bool,
    interfaces: Vec<ProbedInterface>,
}

#[derive(Debug, Serialize)]
struct ProbedInterface {
    name: String,
    mac: String,
    /// The hardware addresses of others that answered.
    answers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn probe(sources: Sources, vip: IpAddr, probes: Arc<Semaphore>) -> Response {
    let state = match sources.control.state().await {
        Ok(state) => state,
        Err(gone) => return (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    };
    let Some(view) = state.vips.get(&vip) else {
        let text = format!("{vip} is no address that speakers announce");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let is_used = |link: &&Link| view.interfaces.iter().any(|used| used.name == link.name);
    let mut interfaces = Vec::new();
    for link in state.links.iter().filter(is_used) {
        let _turn = probes.acquire().await;
        let asked = link.clone();
        let outcome = tokio::task::spawn_blocking(move || who_has(&asked, vip)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let (answers, error) = match outcome {
            Ok(answers) => (answers.iter().map(ToString::to_string).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        interfaces.push(ProbedInterface {
            name: link.name.clone(),
            mac: link.mac.to_string(),
            answers,
            error,
        });
    }
    Json(Probed {
        version: 1,
        node: sources.node.to_string(),
        address: vip,
        is_owner: view.standing.owner.as_ref() == Some(&sources.node),
        interfaces,
    })
    .into_response()
}

/// Probes at the same time, two frames each.
const MOST_PROBES: usize = 16;

async fn answer(sources: Sources, only: Option<IpAddr>) -> Response {
    match look(&sources, only).await {
        Ok(status) => Json(status).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

/// Where every address stands, or only one.
pub(crate) async fn look(sources: &Sources, only: Option<IpAddr>) -> Result<Status, Gone> {
    let state = sources.control.state().await?;
    let compiler = sources
        .compiler
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let services = |vip| {
        let keys = compiler.services_of(vip);
        keys.map(ToString::to_string).collect()
    };
    Ok(status(&sources.node, &state, only, services))
}

fn status(
    node: &NodeName,
    state: &State,
    only: Option<IpAddr>,
    services: impl Fn(IpAddr) -> Vec<String>,
) -> Status {
    let vips = state.vips.iter();
    let asked = vips.filter(|(vip, _)| only.is_none_or(|only| only == **vip));
    Status {
        version: 1,
        node: node.to_string(),
        addresses: asked
            .map(|(vip, view)| address(*vip, view, services(*vip)))
            .collect(),
        peers: state
            .peers
            .iter()
            .map(|(node, peer)| PeerStatus {
                node: node.to_string(),
                heard: peer.heard,
                since_seconds: state.now.since(peer.since).as_secs_f64(),
            })
            .collect(),
        silent: state.silent.iter().map(ToString::to_string).collect(),
        interfaces: state.links.iter().map(interface).collect(),
    }
}

fn address(address: IpAddr, view: &VipView, services: Vec<String>) -> AddressStatus {
    let standing = &view.standing;
    AddressStatus {
        address,
        services,
        owner: standing.owner.as_ref().map(ToString::to_string),
        owned_for_seconds: view.owned_for.map(|duration| duration.as_secs_f64()),
        interfaces: view
            .interfaces
            .iter()
            .map(|Interface { name, mac }| InterfaceName {
                name: name.clone(),
                mac: mac.to_string(),
            })
            .collect(),
        candidates: standing
            .candidates
            .iter()
            .map(|(node, standing)| CandidateStatus {
                node: node.to_string(),
                standing: standing.label(),
                reason: standing.to_string(),
            })
            .collect(),
    }
}

fn interface(link: &Link) -> InterfaceStatus {
    InterfaceStatus {
        name: link.name.clone(),
        mac: link.mac.to_string(),
        up: link.up,
        addresses: link.addresses.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use speaker_announcer::{Ineligible, LinkIndex, MacAddr, Standing, Time, VipStanding};

    use super::*;
    use crate::engine::PeerView;

    #[test]
    fn says_where_every_address_stands_and_why() {
        let mac = MacAddr::new(2, 0, 0, 0, 0, 1);
        let vip: IpAddr = "192.0.2.240".parse().unwrap();
        let other: IpAddr = "192.0.2.241".parse().unwrap();
        let by = NodeName::from("node-2");
        let standing = VipStanding {
            owner: Some(by.clone()),
            since: Some(Time::from_millis(500)),
            own: Standing::Outranked { by: by.clone() },
            candidates: vec![
                (by.clone(), Standing::Owner { leaving: false }),
                ("node-1".into(), Standing::Outranked { by: by.clone() }),
                ("node-3".into(), Standing::Ineligible(Ineligible::Excluded)),
            ],
        };
        let view = VipView {
            standing,
            owned_for: Some(Duration::from_millis(1500)),
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                mac,
            }],
        };
        let peer = PeerView {
            heard: true,
            since: Time::from_millis(1000),
        };
        let link = Link {
            index: LinkIndex(2),
            name: "eth0".to_owned(),
            mac,
            up: true,
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
        };
        let state = State {
            now: Time::from_millis(2000),
            vips: [(vip, view.clone()), (other, view)].into(),
            peers: [(by, peer)].into(),
            silent: ["node-3".into()].into(),
            links: vec![link],
        };
        let services = |_| vec!["default/web".to_owned()];
        let said = status(&"node-1".into(), &state, Some(vip), services);
        assert_eq!(
            serde_json::to_value(said).unwrap(),
            serde_json::json!({
                "version": 1, "node": "node-1",
                "addresses": [{
                    "address": "192.0.2.240", "services": ["default/web"], "owner": "node-2", "ownedForSeconds": 1.5,
                    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}],
                    "candidates": [
                        {"node": "node-2", "standing": "Owner", "reason": "owns the address"},
                        {"node": "node-1", "standing": "Outranked", "reason": "would be next, but node-2 comes first"},
                        {"node": "node-3", "standing": "Excluded",
                            "reason": "the node is labelled node.kubernetes.io/exclude-from-external-load-balancers"},
                    ],
                }],
                "peers": [{"node": "node-2", "heard": true, "sinceSeconds": 1.0}],
                "silent": ["node-3"],
                "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "up": true, "addresses": ["192.0.2.1/24"]}],
            })
        );
        assert_eq!(
            status(&"node-1".into(), &state, None, services)
                .addresses
                .len(),
            2
        );
    }
}
