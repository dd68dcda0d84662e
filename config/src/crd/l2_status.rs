//! The custom resource `ServiceL2Status`: who announces an address of a Service, and why.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_derive::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Nothing: what is to be announced is said by Services, pools and advertisements.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "foghorn.dev",
    version = "v1alpha1",
    kind = "ServiceL2Status",
    doc = "Who announces an address of a Service by ARP or NDP, since when, and why. Written by speakers, named SERVICE.ADDRESS",
    plural = "servicel2statuses",
    singular = "servicel2status",
    shortname = "l2",
    category = "foghorn",
    namespaced,
    status = "ServiceL2StatusStatus",
    derive = "PartialEq",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Service Name",
        type_ = "string",
        json_path = ".status.serviceName",
        description = "The Service"
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.address",
        description = "The address"
    ),
    printcolumn(
        name = "Allocated Node",
        type_ = "string",
        json_path = ".status.node",
        description = "The node that announces it"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.since",
        description = "Since when that is so"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "Why that is so"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ServiceL2StatusSpec {}

/// Who announces an address.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ServiceL2StatusStatus {
    /// The address it is about.
    #[serde(default)]
    pub address: String,
    /// The node that announces it; nothing while none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The Service that has the address.
    #[serde(default)]
    pub service_name: String,
    /// The namespace of the Service.
    #[serde(default)]
    pub service_namespace: String,
    /// Where the node announces it; nothing while none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceSpec>,
    /// Since when the node announces it, or none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why the node announces it, or none does, in a word: the reason of the Event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why the node announces it, or none does, in a sentence: that of the Event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where every node stands, those first that are asked first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateSpec>,
    /// The machine that has the address although it is no speaker; the address is not announced meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictSpec>,
}

/// An interface of a node.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct InterfaceSpec {
    /// The name of the interface.
    pub name: String,
    /// The hardware address of the interface, which answers for the address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
}

/// Where a node stands for an address.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct CandidateSpec {
    /// The node.
    pub node: String,
    /// Where it stands, in a word: `Owner`, `Outranked`, `Ineligible`…
    pub standing: String,
    /// Where it stands, in a sentence, with the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Another machine that has an address.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ConflictSpec {
    /// The hardware address of the machine.
    pub mac: String,
    /// The node that heard it.
    #[serde(rename = "heardBy")]
    pub heard_by: String,
}
