//! The source against an API server that does what the test says.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of this is a test"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use config::name::ServiceKey;
use config_runtime::Interest;
use config_runtime::source::{Source, Update};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Objects by resource and the watches of them.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// How new each list was asked to be.
    lists: Vec<String>,
    version: u64,
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    watches: BTreeMap<String, Vec<mpsc::UnboundedSender<Value>>>,
    /// What happened, for watches that begin later.
    log: Vec<(u64, &'static str, Value)>,
    /// Watches that know less than this version are too old.
    oldest: u64,
}

impl Api {
    /// Serves these resources.
    async fn serve(resources: &[&'static str]) -> (Self, kube::Client) {
        let api = Self::default();
        for resource in resources {
            api.install(resource);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        (api, kube::Client::try_from(config).unwrap())
    }

    fn install(&self, resource: &'static str) {
        self.0.lock().unwrap().objects.entry(resource).or_default();
    }

    fn put(&self, resource: &'static str, mut object: Value) {
        let mut held = self.0.lock().unwrap();
        held.version += 1;
        object["metadata"]["resourceVersion"] = json!(held.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let objects = held.objects.get_mut(resource).unwrap();
        let kind = if objects.insert(name, object.clone()).is_none() {
            "ADDED"
        } else {
            "MODIFIED"
        };
        held.tell(resource, json!({"type": kind, "object": object}));
    }

    /// Takes an object out without telling anybody, as when a watch was away.
    fn lose(&self, resource: &'static str, name: &str) {
        let mut held = self.0.lock().unwrap();
        held.objects.get_mut(resource).unwrap().remove(name);
        held.version += 1;
    }

    /// Says that what the watches know is too old, which ends them.
    fn expire(&self) {
        let mut held = self.0.lock().unwrap();
        held.version += 1;
        held.oldest = held.version;
        for (_, watches) in std::mem::take(&mut held.watches) {
            for watch in watches {
                // A watch that has ended is not told.
                let _ = watch.send(too_old());
            }
        }
    }
}

impl Held {
    fn tell(&mut self, resource: &'static str, event: Value) {
        for watch in self.watches.get(resource).into_iter().flatten() {
            let _ = watch.send(event.clone());
        }
        self.log.push((self.version, resource, event));
    }
}

fn too_old() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410,
        "message": "too old", "reason": "Expired"}})
}

fn refuse(code: StatusCode, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": reason});
    (code, axum::Json(status)).into_response()
}

async fn answer(State(api): State<Api>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let asked = |name: &str| {
        let mut parameters = query.split('&').filter_map(|text| text.split_once('='));
        parameters.find_map(|(found, value)| (found == name).then(|| value.to_owned()))
    };
    let mut held = api.0.lock().unwrap();
    if uri.path() == "/version" {
        return axum::Json(
            json!({"major": "1", "minor": "37", "gitVersion": "v1", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        )
        .into_response();
    }
    let resource = uri
        .path()
        .trim_start_matches("/api/")
        .trim_start_matches("/apis/");
    let Some(objects) = held.objects.get(resource) else {
        return refuse(StatusCode::NOT_FOUND, "NotFound");
    };
    let items: Vec<Value> = objects.values().cloned().collect();
    let version = held.version.to_string();
    if asked("watch").is_none() {
        let wanted = asked("resourceVersion").unwrap_or_default();
        held.lists.push(wanted.clone());
        if wanted
            .parse()
            .is_ok_and(|wanted: u64| wanted > held.version)
        {
            return refuse(StatusCode::GATEWAY_TIMEOUT, "Timeout");
        }
        return axum::Json(json!({"kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": version}, "items": items}))
        .into_response();
    }
    let (sender, events) = mpsc::unbounded_channel();
    let since: u64 = asked("resourceVersion").unwrap().parse().unwrap();
    if since < held.oldest || since > held.version {
        sender.send(too_old()).unwrap();
    }
    let missed = held
        .log
        .iter()
        .filter(|(version, of, _)| *version > since && *of == resource);
    for (_, _, event) in missed {
        sender.send(event.clone()).unwrap();
    }
    held.watches
        .entry(resource.to_owned())
        .or_default()
        .push(sender);
    let lines = futures::stream::unfold(events, async |mut events| {
        let event: Value = events.recv().await?;
        Some((Ok::<_, Infallible>(format!("{event}\n")), events))
    });
    Body::from_stream(lines).into_response()
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"port": 80}]}})
}

fn slice(service: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]})
}

fn pool(name: &str, address: &str) -> Value {
    json!({"apiVersion": "foghorn.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": name},
        "spec": {"addresses": [address]}})
}

const METALLB_POOLS: &str = "metallb.io/v1beta1/ipaddresspools";
const SERVICES: &str = "v1/services";
const SLICES: &str = "discovery.k8s.io/v1/endpointslices";
const POOLS: &str = "foghorn.dev/v1alpha1/ipaddresspools";

async fn next(source: &mut Source) -> Update {
    tokio::time::timeout(Duration::from_secs(20), source.changed())
        .await
        .unwrap()
}

async fn synced(source: &mut Source) -> Update {
    tokio::time::timeout(Duration::from_secs(20), source.synced())
        .await
        .unwrap()
}

fn services(source: &Source) -> Vec<String> {
    let mut names: Vec<_> = source
        .snapshot()
        .services()
        .map(|service| service.key.to_string())
        .collect();
    names.sort();
    names
}

fn touched(update: &Update) -> Vec<String> {
    update
        .dirty
        .services
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn what_vanished_while_the_watch_was_away_is_taken_back() {
    let services_only = Interest {
        services: true,
        ..Interest::default()
    };
    let (api, client) = Api::serve(&[SERVICES]).await;
    api.put(SERVICES, service("stays"));
    api.put(SERVICES, service("goes"));
    let mut source = Source::start(Some(client), &[], services_only);
    let update = synced(&mut source).await;
    assert_eq!(touched(&update), ["shop/goes", "shop/stays"]);

    api.lose(SERVICES, "goes");
    api.expire();
    let update = next(&mut source).await;
    assert_eq!(touched(&update), ["shop/goes"]);
    assert_eq!(services(&source), ["shop/stays"]);

    api.put(SERVICES, service("comes"));
    let update = next(&mut source).await;
    assert_eq!(touched(&update), ["shop/comes"]);
    // The first list may be from a cache; the second must not be older than what was seen.
    assert_eq!(api.0.lock().unwrap().lists, ["0", "2"]);
}

#[tokio::test]
async fn a_cluster_that_was_restored_from_a_backup_is_listed_anew() {
    let (api, client) = Api::serve(&[SERVICES]).await;
    for name in ["stays", "goes"] {
        api.put(SERVICES, service(name));
    }
    let interest = Interest {
        services: true,
        ..Interest::default()
    };
    let mut source = Source::start(Some(client), &[], interest);
    synced(&mut source).await;
    {
        let mut held = api.0.lock().unwrap();
        held.version = 1;
        held.log.clear();
        held.objects.get_mut(SERVICES).unwrap().remove("goes");
        for (_, watches) in std::mem::take(&mut held.watches) {
            for watch in watches {
                let _ = watch.send(too_old());
            }
        }
    }
    let update = next(&mut source).await;
    assert_eq!(touched(&update), ["shop/goes"]);
    assert_eq!(services(&source), ["shop/stays"]);
    assert_eq!(api.0.lock().unwrap().lists, ["0", "2", ""]);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_refused_alone() {
    let interest = Interest {
        services: true,
        ..Interest::default()
    };
    let odd = |name: &str| {
        let mut odd = service(name);
        odd["spec"]["ports"] = json!("none");
        odd
    };
    // The time of a condition that was written without one.
    let mut timeless = service("timeless");
    timeless["status"] = json!({"conditions": [{"type": "Fit", "status": "True", "reason": "a", "message": "",
        "lastTransitionTime": null}]});
    let (api, client) = Api::serve(&[SERVICES]).await;
    api.put(SERVICES, odd("first"));
    api.put(SERVICES, service("stays"));
    let mut source = Source::start(Some(client), &[], interest);
    synced(&mut source).await;
    assert_eq!(services(&source), ["shop/stays"]);

    // In a watch: what was known of it stays, and what comes behind it is heard of.
    api.put(SERVICES, odd("stays"));
    api.put(SERVICES, timeless);
    next(&mut source).await;
    assert_eq!(services(&source), ["shop/stays", "shop/timeless"]);
    assert_eq!(api.0.lock().unwrap().lists.len(), 1);

    // In another list the same.
    api.lose(SERVICES, "timeless");
    api.expire();
    next(&mut source).await;
    assert_eq!(services(&source), ["shop/stays"]);
}

#[tokio::test]
async fn metallb_is_read_where_it_is_and_gives_way_to_ours() {
    let (api, client) = Api::serve(&[POOLS, METALLB_POOLS]).await;
    let mut theirs = pool("lan", "192.0.2.9/24");
    theirs["metadata"]["namespace"] = json!("metallb-system");
    api.put(METALLB_POOLS, theirs);
    let interest = Interest {
        pools: true,
        ..Interest::default()
    };
    let mut source = Source::start(Some(client), &[], interest);
    synced(&mut source).await;
    let shown = |source: &Source| {
        let pool = &source.snapshot().pools()[&"lan".into()];
        format!("{} from {}", pool.ranges[0], pool.origin)
    };
    assert_eq!(
        shown(&source),
        "192.0.2.0-192.0.2.255 from metallb.io in the namespace metallb-system"
    );
    api.put(POOLS, pool("lan", "192.0.2.1"));
    let update = next(&mut source).await;
    assert_eq!(shown(&source), "192.0.2.1 from the cluster");
    assert_eq!(update.refused.len(), 1);
}

#[tokio::test]
async fn a_slice_that_changes_its_service_leaves_the_old_one() {
    let (api, client) = Api::serve(&[SLICES]).await;
    api.put(SLICES, slice("old"));
    let interest = Interest {
        endpoint_slices: true,
        ..Interest::default()
    };
    let mut source = Source::start(Some(client), &[], interest);
    synced(&mut source).await;
    api.put(SLICES, slice("new"));
    let mut seen = Vec::new();
    while seen != ["shop/new", "shop/old"] {
        seen.extend(touched(&next(&mut source).await));
        seen.sort();
    }
    let count = |name| {
        source
            .snapshot()
            .slices(&ServiceKey::new("shop", name))
            .count()
    };
    assert_eq!((count("old"), count("new")), (0, 1));
}

#[tokio::test]
async fn kinds_that_are_not_installed_are_waited_for_by_nobody_and_found_later() {
    let (api, client) = Api::serve(&[SERVICES]).await;
    let interest = Interest {
        services: true,
        pools: true,
        ..Interest::default()
    };
    let mut source = Source::start(Some(client), &[], interest);
    assert!(synced(&mut source).await.synced);
    assert!(source.connection().is_answering());
    api.install(POOLS);
    api.put(POOLS, pool("lan", "192.0.2.1"));
    let update = next(&mut source).await;
    assert!(update.dirty.configuration);
    assert!(source.snapshot().pools().contains_key(&"lan".into()));
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_version_and_harms_no_other() {
    let (api, client) = Api::serve(&[POOLS]).await;
    api.put(POOLS, pool("lan", "192.0.2.1"));
    api.put(POOLS, pool("dmz", "198.51.100.1"));
    let interest = Interest {
        pools: true,
        ..Interest::default()
    };
    let mut source = Source::start(Some(client), &[], interest);
    synced(&mut source).await;
    let before = source.snapshot().clone();

    api.put(POOLS, pool("lan", "192.0.2.9-192.0.2.7"));
    let update = next(&mut source).await;
    let refused: Vec<_> = update.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "the cluster: IPAddressPool lan: spec.addresses[0]: 192.0.2.9-192.0.2.7 runs backwards: swap the two addresses"
        ]
    );
    assert_eq!(*source.snapshot(), before);

    let mut wrong_type = pool("lan", "x");
    wrong_type["spec"]["addresses"] = json!({"a": 1});
    api.put(POOLS, wrong_type);
    let update = next(&mut source).await;
    assert_eq!((update.refused.len(), update.settled.len()), (1, 1));
    assert_eq!(*source.snapshot(), before);

    api.put(POOLS, pool("lan", "192.0.2.2"));
    let update = next(&mut source).await;
    assert_eq!((update.refused.len(), update.settled.len()), (0, 1));
    assert_ne!(*source.snapshot(), before);
}
