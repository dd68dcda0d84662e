//! Statuses of pools and advertisements: their conditions, and how they are written.

use std::collections::{BTreeMap, BTreeSet};

use config::crd::{ACCEPTED, GROUP, VERSION};
use config::pool::Origin;
use config::refusal::{Kind, Refusal};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use serde_json::{Value, json};

/// What a condition should say: type, status, reason, message.
pub type Wanted = (&'static str, bool, &'static str, String);

/// The conditions that say so; one whose status was the same before keeps the time of its transition.
pub fn conditions(before: &[Condition], wanted: &[Wanted], now: Timestamp) -> Vec<Condition> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let condition = |(kind, is_true, reason, message): &Wanted| {
        let status = if *is_true { "True" } else { "False" };
        let same = before
            .iter()
            .find(|before| before.type_ == *kind && before.status == status);
        Condition {
            type_: (*kind).to_owned(),
            status: status.to_owned(),
            reason: (*reason).to_owned(),
            message: message.clone(),
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
            observed_generation: None,
        }
    };
    wanted.iter().map(condition).collect()
}

/// Whether an object is in force as written; `refused` says why not.
pub fn accepted(kind: Kind, in_force: bool, refused: Option<String>) -> Wanted {
    match refused {
        None => {
            let message = match kind {
                Kind::Pool => "the pool is in force as written",
                Kind::Advertisement => "the advertisement is in force as written",
            };
            (ACCEPTED, true, "InForce", message.to_owned())
        }
        Some(text) if in_force => {
            let text = format!("{text}; the last good version stays in force");
            (ACCEPTED, false, "Refused", shorten(text))
        }
        Some(text) => (ACCEPTED, false, "Refused", shorten(text)),
    }
}

/// Why objects of a kind in the cluster are refused, by name.
pub fn refused(kind: Kind, refusals: &BTreeSet<Refusal>) -> BTreeMap<&str, String> {
    let mut refused: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for refusal in refusals {
        if let (Some(found), Some(name), Origin::Cluster) =
            (refusal.kind, &refusal.name, &refusal.origin)
            && found == kind
        {
            let field = match refusal.field.as_str() {
                "" => String::new(),
                field => format!("{field}: "),
            };
            let text = format!("{field}{}", refusal.reason);
            refused.entry(name).or_default().push(text);
        }
    }
    let joined = refused.into_iter();
    joined
        .map(|(name, texts)| (name, texts.join("; ")))
        .collect()
}

/// The body of the server-side apply that makes the status of an object of ours say what it should; none if it does
/// already.
pub fn apply<S: Serialize + PartialEq>(
    kind: Kind,
    name: &str,
    known: Option<&S>,
    status: S,
) -> Option<(Value, S)> {
    if known == Some(&status) {
        return None;
    }
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": kind.to_string(),
        "metadata": {"name": name},
        "status": status,
    });
    Some((body, status))
}

/// A message of a condition may have 32768 characters; nobody reads as many.
pub fn shorten(text: String) -> String {
    const LONGEST: usize = 4096;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
