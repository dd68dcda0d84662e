//! Watches of the API server, turned into deliveries for the [`Source`](crate::source::Source).

mod follow;
mod items;
mod list;
mod next;
mod object;
mod reading;

use std::fmt::Debug;
use std::time::Duration;

use config::declaration::Group;
use config::endpoint::HEADLESS_LABEL;
use config::metallb;
use config::refusal::Kind;
use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::delivery::Delivery;
use follow::{Known, Watch};
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
        names: Vec::new(),
    };
    if interest.services {
        starter.watch(
            "services",
            Api::<core::Service>::all(client.clone()),
            service,
        );
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
            read,
            is_optional: name.ends_with(metallb::GROUP),
            known: Known::default(),
        };
        self.tasks.spawn(watch.run(api));
    }
}
