//! What must be written so that a status says what was decided.

use config::service::{IpMode, Service};
use controller_allocator::status::{CONDITION, Condition, ServiceStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::observed::{IngressView, Observed};

/// The body of the server-side apply that makes the status say what was decided; none if it says so already.
///
/// It names the identity and the version of the object that it was made for: a Service that was deleted and created
/// again, or changed by anybody since, is never written.
pub fn apply(observed: &Observed, desired: &ServiceStatus, now: Timestamp) -> Option<Value> {
    if says_addresses(observed, desired) && says_condition(observed, &desired.condition) {
        return None;
    }
    let ports: Vec<Value> = desired
        .ports
        .iter()
        .map(|(protocol, port)| json!({"port": port, "protocol": protocol.to_string()}))
        .collect();
    let ingress: Vec<Value> = desired
        .addresses
        .iter()
        .map(|address| json!({"ip": address, "ipMode": "VIP", "ports": ports}))
        .collect();
    let condition = &desired.condition;
    let known = observed.condition.as_ref();
    let same = known.filter(|known| known.is_true == condition.is_true);
    let since = same.map_or(now, |known| known.since);
    let condition = json!({
        "type": CONDITION,
        "status": if condition.is_true { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": seconds(since),
    });
    let status = json!({"loadBalancer": {"ingress": ingress}, "conditions": [condition]});
    Some(body(&observed.service, &observed.version, status))
}

/// The body of the server-side apply that says that somebody else writes this status, and leaves the rest to them;
/// none if it says so already.
pub fn contested(observed: &Observed, desired: &ServiceStatus, now: Timestamp) -> Option<Value> {
    let addresses: Vec<String> = desired.addresses.iter().map(ToString::to_string).collect();
    let writer = observed.foreign_writer().unwrap_or("somebody else");
    let message = format!(
        "{writer} keeps changing status.loadBalancer, where Foghorn gave {}: it is left as it is. To do: stop one of the two, or give the Service a spec.loadBalancerClass",
        addresses.join(", ")
    );
    let known = observed.condition.as_ref();
    if known.is_some_and(|known| known.reason == CONTESTED && known.message == message) {
        return None;
    }
    let condition = json!({
        "type": CONDITION, "status": "False", "reason": CONTESTED, "message": message,
        "lastTransitionTime": seconds(now),
    });
    let status = json!({"conditions": [condition]});
    Some(body(&observed.service, &observed.version, status))
}

/// The reason of the condition on a Service whose status somebody else keeps changing.
pub const CONTESTED: &str = "Contested";

/// The body of the server-side apply that takes back what we wrote to a Service that is no load balancer any more;
/// none if there is nothing to take back.
///
/// Only a Service with our condition was ours.
pub fn retract(observed: &Observed) -> Option<Value> {
    observed.condition.as_ref()?;
    // An empty list, not a missing one: somebody else may be recorded as a writer of the same value.
    let status = if observed.ingress.is_empty() {
        json!({})
    } else {
        json!({"loadBalancer": {"ingress": []}})
    };
    Some(body(&observed.service, &observed.version, status))
}

fn body(service: &Service, version: &str, status: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.key.name(),
            "namespace": service.key.namespace(),
            "uid": &*service.uid,
            "resourceVersion": version,
        },
        "status": status,
    })
}

/// Whether the status has exactly the addresses that were decided, with their ports.
pub fn says_addresses(observed: &Observed, desired: &ServiceStatus) -> bool {
    let ports: Vec<_> = desired
        .ports
        .iter()
        .map(|&(protocol, port)| (protocol, i32::from(port.get())))
        .collect();
    let expected = desired.addresses.iter().map(|&address| IngressView {
        address: Some(address),
        mode: IpMode::Vip,
        ports: ports.clone(),
    });
    expected.eq(observed.ingress.iter().cloned())
}

/// Whether our condition says what was decided.
pub fn says_condition(observed: &Observed, desired: &Condition) -> bool {
    observed.condition.as_ref().is_some_and(|found| {
        found.is_true == desired.is_true
            && found.reason == desired.reason
            && found.message == desired.message
    })
}

/// A time as `metav1.Time` has it, in whole seconds.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as api;

    use super::*;

    fn observed(status: Value) -> Observed {
        let object: api::Service = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7"},
            "spec": {"type": "LoadBalancer"},
            "status": status,
        }))
        .unwrap();
        Observed::from_api(&object).unwrap()
    }

    fn desired() -> ServiceStatus {
        ServiceStatus {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ports: vec![(config::service::Protocol::Tcp, 80.try_into().unwrap())],
            condition: Condition {
                is_true: true,
                reason: "Assigned",
                message: "192.0.2.1 from pool lan".to_owned(),
            },
        }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn writes_the_whole_and_then_nothing() {
        let now = time("2026-01-02T03:04:05.678Z");
        let body = apply(&observed(json!({})), &desired(), now).unwrap();
        assert_eq!(
            body,
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
                "status": {
                    "loadBalancer": {"ingress": [
                        {"ip": "192.0.2.1", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]},
                    ]},
                    "conditions": [{
                        "type": "foghorn.dev/AddressAssigned", "status": "True", "reason": "Assigned",
                        "message": "192.0.2.1 from pool lan", "lastTransitionTime": "2026-01-02T03:04:05Z",
                    }],
                },
            })
        );
        assert_eq!(
            apply(&observed(body["status"].clone()), &desired(), now),
            None
        );
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let first = time("2026-01-02T03:04:05Z");
        let later = time("2026-02-02T03:04:05Z");
        let status = apply(&observed(json!({})), &desired(), first).unwrap()["status"].take();
        for (is_true, since) in [
            (true, "2026-01-02T03:04:05Z"),
            (false, "2026-02-02T03:04:05Z"),
        ] {
            let mut other = desired();
            other.condition.message = "news".to_owned();
            other.condition.is_true = is_true;
            let body = apply(&observed(status.clone()), &other, later).unwrap();
            assert_eq!(body["status"]["conditions"][0]["lastTransitionTime"], since);
        }
    }

    #[test]
    fn takes_back_only_what_was_ours() {
        let foreign = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        assert_eq!(retract(&observed(foreign)), None);
        let ours = apply(&observed(json!({})), &desired(), Timestamp::UNIX_EPOCH).unwrap();
        let cleared = retract(&observed(ours["status"].clone())).unwrap();
        assert_eq!(cleared["status"], json!({"loadBalancer": {"ingress": []}}));
        let without = json!({"conditions": ours["status"]["conditions"]});
        assert_eq!(retract(&observed(without)).unwrap()["status"], json!({}));
    }
}
