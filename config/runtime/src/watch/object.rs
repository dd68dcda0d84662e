//! One object as the API server sends it. What cannot be read is refused alone: everything else goes on.

use kube::api::WatchEvent;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Namespace, if there is one, and name.
pub(super) type Key = (Option<String>, String);

/// An object that cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Which one, if it says so.
    pub(super) key: Option<Key>,
    /// Its resourceVersion.
    pub(super) version: Option<String>,
    /// Whether it is no more.
    pub(super) is_deleted: bool,
    /// Why.
    pub(super) error: serde_json::Error,
}

/// Reads an item of a list; an error if it is no JSON at all.
pub(super) fn object<K>(text: &[u8]) -> serde_json::Result<Result<K, Unreadable>>
where
    K: DeserializeOwned,
{
    match serde_json::from_slice(text) {
        Ok(object) => Ok(Ok(object)),
        Err(error) => Ok(read(serde_json::from_slice(text)?, error)),
    }
}

/// Reads a line of a watch; an error if it is no event at all.
pub(super) fn event<K>(line: &str) -> serde_json::Result<Result<WatchEvent<K>, Unreadable>>
where
    K: DeserializeOwned,
{
    let error = match serde_json::from_str(line) {
        Ok(event) => return Ok(Ok(event)),
        Err(error) => error,
    };
    Ok(match serde_json::from_str::<WatchEvent<Value>>(line)? {
        WatchEvent::Added(object) => read(object, error).map(WatchEvent::Added),
        WatchEvent::Modified(object) => read(object, error).map(WatchEvent::Modified),
        WatchEvent::Deleted(object) => {
            let read = read(object, error).map(WatchEvent::Deleted);
            read.map_err(|unreadable| Unreadable {
                is_deleted: true,
                ..unreadable
            })
        }
        WatchEvent::Bookmark(bookmark) => Ok(WatchEvent::Bookmark(bookmark)),
        WatchEvent::Error(status) => Ok(WatchEvent::Error(status)),
    })
}

/// Reads an object once more, without what nobody here asks about.
fn read<K: DeserializeOwned>(mut object: Value, error: serde_json::Error) -> Result<K, Unreadable> {
    drop_timeless_conditions(&mut object);
    K::deserialize(&object).map_err(|_| {
        let field = |name: &str| {
            let value = object.get("metadata")?.get(name)?;
            value.as_str().map(str::to_owned)
        };
        Unreadable {
            key: field("name").map(|name| (field("namespace"), name)),
            version: field("resourceVersion"),
            is_deleted: false,
            error,
        }
    })
}

/// Whoever writes a condition without its time gets `null` back from the API server, where the schema wants a time.
fn drop_timeless_conditions(object: &mut Value) {
    let conditions = object.pointer_mut("/status/conditions");
    if let Some(Value::Array(conditions)) = conditions {
        conditions.retain(|condition| {
            let time = condition.get("lastTransitionTime");
            time.is_some_and(|time| !time.is_null())
        });
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(status: &Value, port: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "status": status, "spec": {"ports": [{"port": port}]},
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}})
    }

    #[test]
    fn a_condition_without_its_time_is_left_out() {
        let condition = |time: Value| json!({"type": "Fit", "status": "True", "reason": "a", "message": "", "lastTransitionTime": time});
        let times = [json!(null), json!("2026-01-01T00:00:00Z")];
        let status = json!({"conditions": times.map(condition)});
        let text = service(&status, &json!(80)).to_string();
        let read: Service = object(text.as_bytes()).unwrap().unwrap();
        assert_eq!(read.status.unwrap().conditions.unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let odd = service(&json!({}), &json!("eighty"));
        let in_list = object::<Service>(odd.to_string().as_bytes())
            .unwrap()
            .unwrap_err();
        let in_watch = |kind: &str| {
            let line = json!({"type": kind, "object": odd}).to_string();
            event::<Service>(&line).unwrap().unwrap_err()
        };
        for (unreadable, is_deleted) in [
            (in_list, false),
            (in_watch("MODIFIED"), false),
            (in_watch("DELETED"), true),
        ] {
            assert_eq!(
                unreadable.key,
                Some((Some("shop".to_owned()), "web".to_owned()))
            );
            assert_eq!(unreadable.version.as_deref(), Some("7"));
            assert_eq!(unreadable.is_deleted, is_deleted);
            assert!(unreadable.error.to_string().contains("eighty"));
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for line in [
            "",
            "{\"type\":\"ADDED\",\"object\":{",
            "{\"kind\":\"Status\"}",
            "[]",
        ] {
            assert!(event::<Service>(line).is_err(), "{line}");
        }
        let refusal =
            json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).to_string();
        let read = event::<Service>(&refusal).unwrap().unwrap();
        assert!(matches!(read, WatchEvent::Error(status) if status.code == 410));
    }
}
