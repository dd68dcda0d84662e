//! Watches of the API server, turned into deliveries for the [`Source`](crate::source::Source).

mod reading;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use config::declaration::Group;
use config::endpoint::HEADLESS_LABEL;
use config::metallb;
use config::refusal::Kind;
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::connection::{Connection, is_away, status_code};
use crate::source::Delivery;
use reading::{Reading, declaration, namespace, node, service, service_cidr, slice};

/// What a program wants to know of the cluster.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interest {
    /// Services.
    pub services: bool,
    /// EndpointSlices, except those of headless Services.
    pub endpoint_slices: bool,
    /// Nodes.
    pub nodes: bool,
    /// Namespaces, for their labels.
    pub namespaces: bool,
    /// IPAddressPools, ours and MetalLB's.
    pub pools: bool,
    /// L2Advertisements, ours and MetalLB's.
    pub advertisements: bool,
    /// ServiceCIDRs.
    pub service_cidrs: bool,
}

/// Services are listed from the newest state: what they hold is adopted before anybody is served.
const SERVICES: &str = "services";
/// How long one watch request lasts before it is renewed, in seconds; a connection that died in silence is noticed by
/// then. Each watch takes a moment at random within the range, so that they do not all come back together.
const WATCH_SECONDS: std::ops::Range<u32> = 90..150;
/// How long to wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long to wait before looking again for a kind that is not installed.
const ABSENT_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Starts the watches; returns what must be delivered once before everything is known.
pub(crate) fn start(
    client: &Client,
    interest: Interest,
    connection: &Connection,
    deliveries: &mpsc::Sender<Delivery>,
    tasks: &mut JoinSet<()>,
) -> Vec<&'static str> {
    let mut starter = Starter {
        client,
        connection,
        deliveries,
        tasks,
        streaming: Arc::default(),
        names: Vec::new(),
    };
    if interest.services {
        starter.watch(SERVICES, Api::<core::Service>::all(client.clone()), service);
    }
    if interest.endpoint_slices {
        let api = Api::<discovery::EndpointSlice>::all(client.clone());
        let selector = format!("!{HEADLESS_LABEL}");
        starter.watch_selected("endpointslices", api, Some(selector), slice);
    }
    if interest.nodes {
        starter.watch("nodes", Api::<core::Node>::all(client.clone()), node);
    }
    if interest.namespaces {
        let api = Api::<core::Namespace>::all(client.clone());
        starter.watch("namespaces", api, namespace);
    }
    if interest.service_cidrs {
        let api = Api::<networking::ServiceCIDR>::all(client.clone());
        starter.watch("servicecidrs", api, service_cidr);
    }
    for (wanted, kind) in [
        (interest.pools, Kind::Pool),
        (interest.advertisements, Kind::Advertisement),
    ] {
        if wanted {
            starter.watch_declarations(Group::Foghorn, kind);
            starter.watch_declarations(Group::MetalLb, kind);
        }
    }
    starter.names
}

struct Starter<'a> {
    client: &'a Client,
    connection: &'a Connection,
    deliveries: &'a mpsc::Sender<Delivery>,
    tasks: &'a mut JoinSet<()>,
    streaming: Arc<OnceCell<bool>>,
    names: Vec<&'static str>,
}

impl Starter<'_> {
    fn watch<K>(&mut self, name: &'static str, api: Api<K>, read: fn(K) -> Reading)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        self.watch_selected(name, api, None, read);
    }

    fn watch_declarations(&mut self, group: Group, kind: Kind) {
        let (name, read): (_, fn(DynamicObject) -> Reading) = match (group, kind) {
            (Group::Foghorn, Kind::Pool) => ("ipaddresspools.foghorn.dev", |object| {
                declaration(Group::Foghorn, Kind::Pool, object)
            }),
            (Group::Foghorn, Kind::Advertisement) => ("l2advertisements.foghorn.dev", |object| {
                declaration(Group::Foghorn, Kind::Advertisement, object)
            }),
            (Group::MetalLb, Kind::Pool) => ("ipaddresspools.metallb.io", |object| {
                declaration(Group::MetalLb, Kind::Pool, object)
            }),
            (Group::MetalLb, Kind::Advertisement) => ("l2advertisements.metallb.io", |object| {
                declaration(Group::MetalLb, Kind::Advertisement, object)
            }),
        };
        let api_version = group.api_version();
        let (api_group, version) = api_version.split_once('/').unwrap_or_default();
        let kind = GroupVersionKind::gvk(api_group, version, &kind.to_string());
        let plural = name.split('.').next().unwrap_or_default();
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        self.watch_selected(name, api, None, read);
    }

    fn watch_selected<K>(
        &mut self,
        name: &'static str,
        api: Api<K>,
        selector: Option<String>,
        read: fn(K) -> Reading,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        self.names.push(name);
        let watch = Watch {
            name,
            client: self.client.clone(),
            selector,
            connection: self.connection.clone(),
            deliveries: self.deliveries.clone(),
            streaming: Arc::clone(&self.streaming),
            read,
            is_optional: name.ends_with(metallb::GROUP),
            may_stream: name != SERVICES,
            known: HashMap::new(),
            listed: HashMap::new(),
            synced: false,
        };
        self.tasks.spawn(watch.run(api));
    }
}

/// The watch of one kind.
struct Watch<K> {
    name: &'static str,
    client: Client,
    selector: Option<String>,
    connection: Connection,
    deliveries: mpsc::Sender<Delivery>,
    /// Whether the API server streams lists (KEP-3157); asked once for all watches.
    streaming: Arc<OnceCell<bool>>,
    read: fn(K) -> Reading,
    /// Whether it may be forbidden.
    is_optional: bool,
    /// Whether a list that is a little old will do: streamed ones come from a cache.
    may_stream: bool,
    /// For each object by namespace and name, the delivery that takes it back.
    known: HashMap<(Option<String>, String), Delivery>,
    /// The part of them that the list in progress has named.
    listed: HashMap<(Option<String>, String), Delivery>,
    synced: bool,
}

/// Nobody receives the deliveries any more.
struct Closed;

/// Why a stream of events was given up.
enum Ended {
    /// The kind is not installed.
    Absent,
    /// The API server does not stream lists after all.
    NotStreaming,
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    async fn run(mut self, api: Api<K>) {
        let mut streaming = self.learn_streaming().await && self.may_stream;
        let mut absent = Backoff::new(ABSENT_RETRY.0, ABSENT_RETRY.1);
        loop {
            match self.follow(&api, streaming).await {
                Err(Closed) => return,
                Ok(Ended::NotStreaming) => streaming = false,
                Ok(Ended::Absent) => {
                    // What was known stays: it is read again when the kind is back, or taken back by its list.
                    self.connection.answered(self.name);
                    if self.mark_synced().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(absent.next_delay()).await;
                }
            }
        }
    }

    /// Asks for the version until there is an answer: lists are streamed by default from 1.34.
    async fn learn_streaming(&self) -> bool {
        const FIRST_MINOR: u32 = 34;
        let learn = async || {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            loop {
                match self.client.apiserver_version().await {
                    Ok(version) => {
                        self.connection.answered(self.name);
                        let minor = version.minor.chars();
                        let digits: String = minor.take_while(char::is_ascii_digit).collect();
                        return digits
                            .parse::<u32>()
                            .is_ok_and(|minor| minor >= FIRST_MINOR);
                    }
                    Err(error) => {
                        self.connection.failed(self.name, &error);
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
            }
        };
        *self.streaming.get_or_init(learn).await
    }

    /// Waits until the API server answers anything: a watch that is resumed says nothing until something changes.
    async fn await_answer(&self, backoff: &mut Backoff) {
        loop {
            tokio::time::sleep(backoff.next_delay()).await;
            if self.client.apiserver_version().await.is_ok() {
                return self.connection.answered(self.name);
            }
        }
    }

    /// Delivers what the API server says for as long as that makes sense.
    async fn follow(&mut self, api: &Api<K>, streaming: bool) -> Result<Ended, Closed> {
        let mut config = watcher::Config::default().timeout(fastrand::u32(WATCH_SECONDS));
        config.label_selector = self.selector.clone();
        if streaming {
            config = config.streaming_lists();
        }
        let mut events = std::pin::pin!(watcher(api.clone(), config));
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match events.next().await {
                // The stream of a watcher has no end.
                None => return Ok(Ended::NotStreaming),
                Some(Ok(Event::Init)) => self.known.extend(self.listed.drain()),
                Some(Ok(event)) => {
                    backoff.reset();
                    self.connection.answered(self.name);
                    self.take(event).await?;
                }
                Some(Err(error)) => match status_code(&error) {
                    Some(404) => return Ok(Ended::Absent),
                    // Whoever has no use for MetalLB need not grant it.
                    Some(403) if self.is_optional => return Ok(Ended::Absent),
                    // The feature gate is off: the parameter is forbidden.
                    Some(400 | 422) if streaming => return Ok(Ended::NotStreaming),
                    // Too old to go on from: a new list follows.
                    Some(410) => {}
                    code => {
                        self.connection.failed(self.name, &error);
                        if is_away(code) {
                            self.await_answer(&mut backoff).await;
                        } else {
                            tokio::time::sleep(backoff.next_delay()).await;
                        }
                    }
                },
            }
        }
    }

    async fn take(&mut self, event: Event<K>) -> Result<(), Closed> {
        match event {
            Event::Init => {}
            Event::InitApply(object) => {
                let Some(key) = key(&object) else {
                    return Ok(());
                };
                let before = self.known.remove(&key);
                if let Some(undo) = self.deliver(object, before).await? {
                    self.listed.insert(key, undo);
                }
            }
            Event::InitDone => {
                let gone: Vec<_> = self.known.drain().map(|(_, undo)| undo).collect();
                for undo in gone {
                    self.send(undo).await?;
                }
                self.known = std::mem::take(&mut self.listed);
                self.mark_synced().await?;
            }
            Event::Apply(object) => {
                let Some(key) = key(&object) else {
                    return Ok(());
                };
                let before = self.known.remove(&key);
                if let Some(undo) = self.deliver(object, before).await? {
                    self.known.insert(key, undo);
                }
            }
            Event::Delete(object) => {
                let undo = key(&object).and_then(|key| self.known.remove(&key));
                if let Some(undo) = undo {
                    self.send(undo).await?;
                }
            }
        }
        Ok(())
    }

    /// Delivers an object, and takes back what it was before if it is something else now.
    async fn deliver(
        &self,
        object: K,
        before: Option<Delivery>,
    ) -> Result<Option<Delivery>, Closed> {
        let (delivery, undo) = (self.read)(object).unzip();
        if let Some(before) = before.filter(|before| Some(before) != undo.as_ref()) {
            self.send(before).await?;
        }
        if let Some(delivery) = delivery {
            self.send(delivery).await?;
        }
        Ok(undo)
    }

    async fn mark_synced(&mut self) -> Result<(), Closed> {
        if !std::mem::replace(&mut self.synced, true) {
            self.send(Delivery::Synced(self.name)).await?;
        }
        Ok(())
    }

    async fn send(&self, delivery: Delivery) -> Result<(), Closed> {
        self.deliveries.send(delivery).await.map_err(|_| Closed)
    }
}

fn key<K: Resource>(object: &K) -> Option<(Option<String>, String)> {
    let metadata = object.meta();
    Some((metadata.namespace.clone(), metadata.name.clone()?))
}
