//! Many Services at once, written straight into etcd.
//!
//! For each ClusterIP that it gives, the API server counts all that it has given (`Allocator.Used`, for a metric). So
//! Services made through it cost the square of their number, and a large cluster would take hours to set up. Everybody
//! who watches sees the same objects, and so does whoever lists them.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::api::Api;
use serde_json::{Value, json};

use crate::objects::{Number, for_each};
use e2e::connection::Connection;

/// Writes Services, their EndpointSlices and their IPAddresses, as the API server would have stored them.
pub(crate) fn load(server: SocketAddr, api: &Api, numbers: Range<u32>) -> Result<()> {
    let template = Template::take(server, api, numbers.start)?;
    write_all(numbers.start + 1..numbers.end, |number| {
        template.of(number).into()
    })
}

/// Writes the objects of all these Services, each by a request of its own.
///
/// In one transaction they would have one revision, and of two objects with one resourceVersion a watch that is resumed
/// after the first never shows the second.
fn write_all(
    numbers: Range<u32>,
    objects: impl Fn(Number) -> Vec<(String, Value)> + Sync,
) -> Result<()> {
    let etcd = SocketAddr::from((Ipv4Addr::LOCALHOST, ETCD_PORT));
    for_each(etcd, numbers, |number, etcd| {
        objects(number).into_iter().try_for_each(|(key, object)| {
            let value = BASE64.encode(object.to_string());
            etcd.post(
                "/v3/kv/put",
                &json!({"key": BASE64.encode(key), "value": value}),
            )
        })
    })
}

/// Writes Services of type LoadBalancer that nobody has served yet, and their IPAddresses.
///
/// The one before the first must be there: the others are made like it.
pub(crate) fn load_balancers(api: &Api, numbers: Range<u32>) -> Result<()> {
    let model = Number(numbers.start.saturating_sub(1));
    let mut service = stored(api, &model.service_path())?;
    if let Some(object) = service.as_object_mut() {
        object.insert("status".to_owned(), json!({"loadBalancer": {}}));
    }
    let address = stored(api, &format!("{ADDRESSES}/{}", model.frontend().ip()))?;
    let template = Template {
        service,
        slice: Value::Null,
        address,
    };
    write_all(numbers, |number| {
        let [service, _, address] = template.of(number);
        vec![service, address]
    })
}

/// What the API server stored for one Service.
#[derive(Debug)]
struct Template {
    service: Value,
    slice: Value,
    address: Value,
}

impl Template {
    /// Makes the Service through the API and reads what became of it.
    fn take(server: SocketAddr, api: &Api, number: u32) -> Result<Self> {
        let number = Number(number);
        number.create(&mut Connection::open(server)?)?;
        Ok(Self {
            service: stored(api, &number.service_path())?,
            slice: stored(api, &number.slice_path())?,
            address: stored(api, &format!("{ADDRESSES}/{}", number.frontend().ip()))?,
        })
    }

    /// The same for another Service: keys and objects, the Service first.
    fn of(&self, number: Number) -> [(String, Value); 3] {
        let (name, address) = (number.name(), number.frontend().ip().to_string());
        let mut service = self.service.clone();
        set(&mut service, "/metadata/name", json!(name));
        set(&mut service, "/metadata/uid", uid(number, 1));
        set(&mut service, "/spec/clusterIP", json!(address));
        set(&mut service, "/spec/clusterIPs", json!([address]));
        let mut slice = self.slice.clone();
        set(&mut slice, "/metadata/name", json!(name));
        set(&mut slice, "/metadata/uid", uid(number, 2));
        set(
            &mut slice,
            "/metadata/labels/kubernetes.io~1service-name",
            json!(name),
        );
        set(&mut slice, "/endpoints", number.endpoints());
        let mut ip_address = self.address.clone();
        set(&mut ip_address, "/metadata/name", json!(address));
        set(&mut ip_address, "/metadata/uid", uid(number, 3));
        set(&mut ip_address, "/spec/parentRef/name", json!(name));
        [
            (format!("/registry/services/specs/default/{name}"), service),
            (format!("/registry/endpointslices/default/{name}"), slice),
            (format!("/registry/ipaddresses/{address}"), ip_address),
        ]
    }
}

/// An object as etcd has it.
fn stored(api: &Api, path: &str) -> Result<Value> {
    let mut object = api.get(path)?;
    let metadata = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
        .with_context(|| format!("{path} has no metadata"))?;
    // etcd's own revision is the resourceVersion.
    metadata.remove("resourceVersion");
    metadata.remove("managedFields");
    Ok(object)
}

fn set(object: &mut Value, place: &str, value: Value) {
    if let Some(held) = object.pointer_mut(place) {
        *held = value;
    }
}

fn uid(number: Number, kind: u32) -> Value {
    json!(format!("{:08x}-0000-4000-8000-{kind:012x}", number.0))
}

/// Checks that the API server shows what was loaded.
pub(crate) fn check(api: &Api, number: Number) -> Result<()> {
    let service = api.get(&number.service_path())?;
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str);
    let expected = number.frontend().ip().to_string();
    ensure!(
        address == Some(&expected),
        "{} has the ClusterIP {address:?} instead of {expected}",
        number.name()
    );
    Ok(())
}

const ETCD_PORT: u16 = 2379;
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
