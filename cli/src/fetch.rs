//! Asks the API server, and the speakers through it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::arguments::{self, Common};
use crate::cluster::Cluster;
use crate::dump;
use crate::speaker::SpeakerStatus;

/// How much to ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// What decides who gets which address.
    Decisions,
    /// Also what happens: Events, endpoints, leases, and what speakers say.
    Everything,
}

/// A kind of objects to ask for.
struct Resource {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// What is not known without it; none if no answer can do without.
    gap: Option<&'static str>,
}

impl Resource {
    /// Whether it says what happens, and decides nothing.
    fn is_news(&self) -> bool {
        ["Event", "EndpointSlice", "Lease", "ServiceL2Status"].contains(&self.kind)
    }
}

const fn resource(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    gap: Option<&'static str>,
) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
        gap,
    }
}

const NODES: &str = "endpoints and addresses of nodes are not known";
const EVENTS: &str = "what happened lately is not known";
const LEASES: &str = "who leads is not known";
const NETWORKS: &str = "pools are not compared with the networks of ClusterIPs";
/// Kinds that need not be installed are no gap where they are not.
const RESOURCES: [Resource; 12] = [
    resource("", "v1", "Service", "services", None),
    resource(
        "",
        "v1",
        "Namespace",
        "namespaces",
        Some("pools may select other namespaces than is said"),
    ),
    resource("", "v1", "Node", "nodes", Some(NODES)),
    resource(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        Some(NODES),
    ),
    resource(
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
        "servicecidrs",
        Some(NETWORKS),
    ),
    resource(
        "foghorn.dev",
        "v1alpha1",
        "IPAddressPool",
        "ipaddresspools",
        None,
    ),
    resource(
        "foghorn.dev",
        "v1alpha1",
        "L2Advertisement",
        "l2advertisements",
        Some("who may announce is not known"),
    ),
    resource(
        "metallb.io",
        "v1beta1",
        "IPAddressPool",
        "ipaddresspools",
        Some("pools of MetalLB are not known"),
    ),
    resource(
        "metallb.io",
        "v1beta1",
        "L2Advertisement",
        "l2advertisements",
        Some("who may announce is not known"),
    ),
    resource(
        "foghorn.dev",
        "v1alpha1",
        "ServiceL2Status",
        "servicel2statuses",
        Some("who announces is from the last Events"),
    ),
    resource("", "v1", "Event", "events", Some(EVENTS)),
    resource("coordination.k8s.io", "v1", "Lease", "leases", Some(LEASES)),
];

/// How long a connection to the API server may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a speaker may take to answer.
const SPEAKER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the cluster says, or a dump of it; and the namespace that a Service without one is in.
///
/// # Errors
/// If a dump cannot be read, or the API server does not answer.
pub async fn cluster(
    common: &Common,
    asked: &arguments::Cluster,
    extent: Extent,
) -> anyhow::Result<(Cluster, String)> {
    if !asked.dump.is_empty() {
        let mut objects = Vec::new();
        for path in &asked.dump {
            objects.extend(read_dump(path)?);
        }
        let namespace = common
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        return Ok((Cluster::read(objects), namespace));
    }
    let (client, namespace) = connect(common).await?;
    let (objects, gaps) = objects(&client, asked, extent).await?;
    let mut cluster = Cluster::read(objects);
    cluster.gaps.extend(gaps);
    if extent == Extent::Everything {
        speakers(&client, asked, &mut cluster).await;
    }
    Ok((cluster, namespace))
}

/// The objects that the API server has, and what cannot be known since some cannot be listed.
///
/// # Errors
/// If the API server does not answer, or forbids to list what no answer can do without.
pub async fn objects(
    client: &Client,
    asked: &arguments::Cluster,
    extent: Extent,
) -> anyhow::Result<(Vec<Value>, Vec<String>)> {
    let resources: Vec<&Resource> = RESOURCES
        .iter()
        .filter(|resource| extent == Extent::Everything || !resource.is_news())
        .collect();
    let lists = resources
        .iter()
        .map(|resource| list(client, resource, &asked.lease_name));
    let mut objects = Vec::new();
    let mut gaps = Vec::new();
    for (resource, answer) in resources.iter().zip(join_all(lists).await) {
        match (answer, resource.gap) {
            (Ok(found), _) => objects.extend(found),
            (Err(kube::Error::Api(status)), gap) if status.code == 404 => {
                if gap.is_none() && resource.group == config::crd::GROUP {
                    gaps.push(
                        "the custom resources of Foghorn are not installed: pools of files are not seen here".to_owned(),
                    );
                }
            }
            (Err(error), None) => {
                let failed = format!("failed to list {}", resource.plural);
                return Err(anyhow::Error::from(error).context(failed));
            }
            (Err(error), Some(gap)) => {
                let plural = resource.plural;
                gaps.push(format!(
                    "{gap}: {plural} cannot be listed ({})",
                    short(&error)
                ));
            }
        }
    }
    Ok((objects, gaps))
}

fn read_dump(path: &Path) -> anyhow::Result<Vec<Value>> {
    let content =
        std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    dump::objects(&content).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// A client for the cluster that is meant, and the namespace that a Service without one is in.
///
/// # Errors
/// If no cluster is configured, or the kubeconfig cannot be read.
pub async fn connect(common: &Common) -> anyhow::Result<(Client, String)> {
    let options = KubeConfigOptions {
        context: common.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &common.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        None if common.context.is_some() => kube::Config::from_kubeconfig(&options).await?,
        None => kube::Config::infer()
            .await
            .context("no cluster is configured: give --kubeconfig FILE, or --dump FILE")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let namespace = common.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    Ok((Client::try_from(config)?, namespace))
}

async fn list(
    client: &Client,
    resource: &Resource,
    lease_name: &str,
) -> Result<Vec<Value>, kube::Error> {
    let gvk = GroupVersionKind::gvk(resource.group, resource.version, resource.kind);
    let described = ApiResource::from_gvk_with_plural(&gvk, resource.plural);
    let api = Api::<DynamicObject>::all_with(client.clone(), &described);
    let mut parameters = ListParams::default();
    match resource.kind {
        "Lease" => parameters.field_selector = Some(format!("metadata.name={lease_name}")),
        "Event" => parameters.field_selector = Some("involvedObject.kind=Service".to_owned()),
        _ => {}
    }
    let list = api.list(&parameters).await?;
    let version = described.api_version.clone();
    let objects = list.items.into_iter().filter_map(|object| {
        let mut object = serde_json::to_value(object).ok()?;
        let fields = object.as_object_mut()?;
        fields.insert("apiVersion".to_owned(), version.clone().into());
        fields.insert("kind".to_owned(), resource.kind.into());
        Some(object)
    });
    Ok(objects.collect())
}

/// Asks every speaker that runs as a Pod, through the API server.
async fn speakers(client: &Client, asked: &arguments::Cluster, cluster: &mut Cluster) {
    let pods = Api::<Pod>::all(client.clone());
    let parameters = ListParams::default().labels(&asked.speaker_selector);
    let pods = match pods.list(&parameters).await {
        Ok(pods) => pods.items,
        Err(error) => {
            let gap = format!(
                "speakers cannot be found: Pods cannot be listed ({})",
                short(&error)
            );
            return cluster.gaps.push(gap);
        }
    };
    if pods.is_empty() {
        return cluster.gaps.push(format!(
            "speakers are not asked: no Pod has the labels {} (do they run outside of Pods?); who announces is from what they wrote down",
            asked.speaker_selector
        ));
    }
    let answers = pods
        .iter()
        .map(|pod| ask(client, Door::of(pod, asked.speaker_port)));
    let mut silent = Vec::new();
    for answer in join_all(answers).await {
        match answer {
            Ok(status) => cluster.speakers.push(status),
            Err(error) => silent.push(error),
        }
    }
    if let Some(first) = silent.first() {
        cluster.gaps.push(format!(
            "{} of {} speakers do not answer to /status: {first}",
            silent.len(),
            pods.len()
        ));
    }
}

async fn ask(client: &Client, door: Door) -> Result<SpeakerStatus, String> {
    let text = page(client, &door, "status").await?;
    serde_json::from_str(&text).map_err(|error| format!("{door}: {error}"))
}

/// A port of a Pod, to be asked through the API server.
#[derive(Clone, Debug)]
pub struct Door {
    namespace: String,
    name: String,
    port: u16,
    speaks_tls: bool,
}

impl Door {
    /// A port of one of Foghorn's Pods on which metrics are served; whether with TLS is in its arguments.
    pub fn of(pod: &Pod, port: u16) -> Self {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            port,
            speaks_tls: arguments.any(|argument| argument.starts_with("--tls-cert-file")),
        }
    }

    /// As the API server wants it: it checks no certificate of a Pod.
    fn resource(&self) -> String {
        let scheme = if self.speaks_tls { "https:" } else { "" };
        format!("{scheme}{}:{}", self.name, self.port)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// What is served there, through the API server.
///
/// # Errors
/// If it does not answer in time, or the API server forbids to ask.
pub async fn page(client: &Client, door: &Door, path: &str) -> Result<String, String> {
    page_within(SPEAKER_TIMEOUT, client, door, path).await
}

/// The same with another time to wait.
///
/// # Errors
/// As [`page`].
pub async fn page_within(
    patience: Duration,
    client: &Client,
    door: &Door,
    path: &str,
) -> Result<String, String> {
    let namespace = &door.namespace;
    let pods = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
    let request = pods
        .get_subresource(&format!("proxy/{path}"), &door.resource())
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(patience, client.request_text(request)).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(format!("{door}: {}", short(&error))),
        Err(_) => Err(format!("{door}: no answer in {} s", patience.as_secs())),
    }
}

fn short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// What other products have in the cluster that can be translated.
///
/// # Errors
/// If the API server does not answer, or forbids to look.
pub async fn others(common: &Common) -> anyhow::Result<Vec<Value>> {
    let (client, _) = connect(common).await?;
    let lists = OTHERS.iter().map(|resource| list(&client, resource, ""));
    let mut objects = Vec::new();
    for (resource, answer) in OTHERS.iter().zip(join_all(lists).await) {
        match answer {
            Ok(found) => objects.extend(found),
            // Not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let failed = format!("failed to list {} of {}", resource.plural, resource.group);
                return Err(anyhow::Error::from(error).context(failed));
            }
        }
    }
    // Of ConfigMaps those that these products read, and not everybody's.
    objects.retain(|object| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        text("/kind") != Some("ConfigMap")
            || CONFIG_MAPS.contains(&(
                text("/metadata/namespace").unwrap_or_default(),
                text("/metadata/name").unwrap_or_default(),
            ))
    });
    Ok(objects)
}

/// The versions that the products serve now; of Cilium's two, those that both older and newer releases have.
const OTHERS: [Resource; 6] = [
    resource(
        "metallb.io",
        "v1beta1",
        "IPAddressPool",
        "ipaddresspools",
        None,
    ),
    resource(
        "metallb.io",
        "v1beta1",
        "L2Advertisement",
        "l2advertisements",
        None,
    ),
    resource(
        "cilium.io",
        "v2alpha1",
        "CiliumLoadBalancerIPPool",
        "ciliumloadbalancerippools",
        None,
    ),
    resource(
        "cilium.io",
        "v2alpha1",
        "CiliumL2AnnouncementPolicy",
        "ciliuml2announcementpolicies",
        None,
    ),
    resource("network.kubesphere.io", "v1alpha2", "Eip", "eips", None),
    resource("", "v1", "ConfigMap", "configmaps", None),
];

/// The ConfigMaps of kube-vip's cloud provider, and of MetalLB before 0.13.
const CONFIG_MAPS: [(&str, &str); 2] = [("kube-system", "kubevip"), ("metallb-system", "config")];
