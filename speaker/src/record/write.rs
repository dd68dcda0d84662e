//! Writes records, one after the other, never more than a few each second.

use std::collections::BTreeMap;
use std::time::Duration;

use config::crd::ServiceL2Status;
use config::name::{NodeName, ServiceKey};
use config_runtime::backoff::Backoff;
use config_runtime::chain::Chain;
use config_runtime::connection::status_code;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::{Duty, Record, Step, Subject, Written};

/// Writes what `duties` say, for ever.
pub async fn follow(
    client: Client,
    node: NodeName,
    mut duties: watch::Receiver<BTreeMap<Subject, Duty>>,
) {
    let mut written = Written::default();
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut looked = false;
    // Nothing is known before the first duties, and what was found would count as superfluous.
    if duties.changed().await.is_err() {
        return;
    }
    loop {
        if !looked {
            match found(&client, &node).await {
                Ok(subjects) => subjects
                    .into_iter()
                    .for_each(|subject| written.found(subject)),
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "Records cannot be read: trying again");
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            looked = true;
        }
        let step = written.next(&duties.borrow_and_update());
        let Some(step) = step else {
            if duties.changed().await.is_err() {
                return;
            }
            continue;
        };
        match take(&client, &node, &step).await {
            Ok(()) => {
                backoff.reset();
                written.done(step);
                tokio::time::sleep(PACE).await;
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "Record not written: trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// The records that say that this node owns an address.
async fn found(client: &Client, node: &NodeName) -> Result<Vec<Subject>, kube::Error> {
    let records: Api<ServiceL2Status> = Api::all(client.clone());
    let list = records.list(&ListParams::default()).await?;
    let statuses = list.items.into_iter().filter_map(|record| record.status);
    let own = statuses.filter(|status| status.node == node.as_str());
    Ok(own
        .filter_map(|status| {
            Some(Subject {
                service: ServiceKey::new(status.service_namespace, status.service_name),
                vip: status.address.parse().ok()?,
            })
        })
        .collect())
}

async fn take(client: &Client, node: &NodeName, step: &Step) -> Result<(), kube::Error> {
    let (subject, outcome) = match step {
        Step::Write(subject, record) => (subject, write(client, node, subject, record).await),
        Step::Remove(subject) => {
            let removed = api(client, subject)
                .delete(&subject.object_name(), &DeleteParams::default())
                .await;
            (subject, removed.map(drop))
        }
    };
    match outcome {
        // The Service, and its record with it, or the whole namespace is gone.
        Err(error)
            if matches!(status_code(&error), Some(403 | 404))
                && is_known(client, subject).await =>
        {
            tracing::info!(service = %subject.service, vip = %subject.vip, error = %Chain(&error), "Record not written");
            Ok(())
        }
        other => other,
    }
}

/// Whether the kind is known, so that what is not found does not exist, and what is forbidden is so for good.
async fn is_known(client: &Client, subject: &Subject) -> bool {
    let asked = api(client, subject)
        .list(&ListParams::default().limit(1))
        .await;
    asked.is_ok()
}

async fn write(
    client: &Client,
    node: &NodeName,
    subject: &Subject,
    record: &Record,
) -> Result<(), kube::Error> {
    let parameters = PatchParams::apply(MANAGER).force();
    let name = subject.object_name();
    let object = json!({
        "apiVersion": "foghorn.dev/v1alpha1",
        "kind": "ServiceL2Status",
        "metadata": {
            "name": name,
            "namespace": subject.service.namespace(),
            "labels": {"foghorn.dev/node": label(node)},
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": subject.service.name(),
                "uid": record.service_uid,
            }],
        },
        "spec": {},
    });
    let api = api(client, subject);
    api.patch(&name, &parameters, &Patch::Apply(&object))
        .await?;
    let status = json!({
        "apiVersion": "foghorn.dev/v1alpha1",
        "kind": "ServiceL2Status",
        "status": record.status,
    });
    api.patch_status(&name, &parameters, &Patch::Apply(&status))
        .await?;
    Ok(())
}

/// The name of a node as the value of a label, which is shorter than the longest names of nodes.
fn label(node: &NodeName) -> &str {
    let name = node.as_str();
    name.get(..LONGEST_LABEL)
        .map_or(name, |short| short.trim_end_matches(['-', '.']))
}

fn api(client: &Client, subject: &Subject) -> Api<ServiceL2Status> {
    Api::namespaced(client.clone(), subject.service.namespace())
}

/// The same for all speakers: a new owner takes every field over.
const MANAGER: &str = "foghorn-speaker";
const LONGEST_LABEL: usize = 63;
/// Between two writes of one speaker, so that the death of a node with a thousand addresses is no flood.
const PACE: Duration = Duration::from_millis(20);
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
