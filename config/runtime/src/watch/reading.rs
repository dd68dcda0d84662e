//! Objects of the API as deliveries.

use std::sync::Arc;

use config::catalogue::{Slot, Writer};
use config::declaration::{Group, Object, read};
use config::endpoint::EndpointSlice;
use config::node::Node;
use config::pool::Origin;
use config::refusal::{Kind, Refusal};
use config::service::Service;
use config::snapshot::Change;
use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use kube::api::DynamicObject;

use crate::delivery::Delivery;

/// A delivery, and the one that takes it back; none for an object that means nothing to us.
pub(super) type Reading = Option<(Delivery, Delivery)>;

pub(super) fn service(object: core::Service) -> Reading {
    let service = Service::from_api(&object)?;
    let key = service.key.clone();
    Some((
        Change::Service(key.clone(), Some(Arc::new(service))).into(),
        Change::Service(key, None).into(),
    ))
}

pub(super) fn slice(object: discovery::EndpointSlice) -> Reading {
    let slice = EndpointSlice::from_api(&object)?;
    let (key, name) = (slice.service.clone(), slice.name.clone());
    Some((
        Change::Slice(key.clone(), name.clone(), Some(Arc::new(slice))).into(),
        Change::Slice(key, name, None).into(),
    ))
}

pub(super) fn node(object: core::Node) -> Reading {
    let (name, node) = Node::from_api(&object)?;
    Some((
        Change::Node(name.clone(), Some(Arc::new(node))).into(),
        Change::Node(name, None).into(),
    ))
}

pub(super) fn namespace(object: core::Namespace) -> Reading {
    let name: Arc<str> = object.metadata.name?.into();
    let labels = Arc::new(object.metadata.labels.unwrap_or_default());
    Some((
        Change::Namespace(Arc::clone(&name), Some(labels)).into(),
        Change::Namespace(name, None).into(),
    ))
}

pub(super) fn service_cidr(object: networking::ServiceCIDR) -> Reading {
    let name: Arc<str> = object.metadata.name?.into();
    let texts = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    let prefixes = texts.iter().filter_map(|text| text.parse().ok()).collect();
    Some((
        Change::ServiceCidr(Arc::clone(&name), Some(prefixes)).into(),
        Change::ServiceCidr(name, None).into(),
    ))
}

pub(super) fn declaration(group: Group, kind: Kind, mut object: DynamicObject) -> Reading {
    let metadata = object.metadata;
    let name: Arc<str> = metadata.name?.into();
    let writer = match group {
        Group::Foghorn => Writer::Cluster,
        Group::MetalLb => Writer::MetalLb(metadata.namespace.unwrap_or_default().into()),
    };
    let origin = Origin::from(&writer);
    let slot = Slot {
        writer,
        kind,
        name: Arc::clone(&name),
    };
    let spec = object.data.get_mut("spec").map(serde_json::Value::take);
    let labels = metadata.labels.unwrap_or_default();
    let spec = spec.unwrap_or_default();
    let object: Result<Object, _> = read(group, kind, &name, labels, spec, origin.clone());
    let object = object.map_err(|errors| {
        let errors = errors.into_iter();
        errors
            .map(|error| Refusal {
                origin: origin.clone(),
                place: None,
                kind: Some(kind),
                name: Some(name.as_ref().to_owned()),
                field: error.field,
                reason: error.reason,
            })
            .collect()
    });
    let undo = Delivery::Withdrawn(slot.clone());
    Some((Delivery::Declared(slot, object), undo))
}
