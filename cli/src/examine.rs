//! Asks every speaker, through the API server, for `doctor`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::arguments::{Common, Doctor};
use crate::doctor::{Asked, addresses};
use crate::fetch::{self, Door};

/// Everything that `doctor` judges.
///
/// # Errors
/// If no cluster is configured, or no speaker can be asked: then there is nothing to judge.
pub async fn examine(common: &Common, asked: &Doctor) -> anyhow::Result<Asked> {
    let (client, _) = fetch::connect(common).await?;
    let selector = &asked.cluster.speaker_selector;
    let pods = Api::<Pod>::all(client.clone());
    let pods = pods.list(&ListParams::default().labels(selector)).await?;
    anyhow::ensure!(
        !pods.items.is_empty(),
        "no Pod has the labels {selector}: is Foghorn installed in this cluster? Where speakers run outside of Pods, run `foghorn-speaker doctor` on each node"
    );
    let speakers: Vec<Door> = pods
        .iter()
        .map(|pod| Door::of(pod, asked.cluster.speaker_port))
        .collect();
    let mut examined = Asked::default();
    let mut gaps = Vec::new();
    examined.speakers = ask_all(&client, &speakers, "status", &mut gaps).await;
    // Whoever is silent once is not asked again.
    examined.gaps.append(&mut gaps);
    examined.examinations = ask_all(&client, &speakers, "doctor", &mut gaps).await;
    let wanted: BTreeSet<IpAddr> = if asked.addresses.is_empty() {
        addresses(&examined)
    } else {
        asked.addresses.iter().copied().collect()
    };
    for address in wanted {
        let path = format!("probe/{address}");
        let probes = ask_all(&client, &speakers, &path, &mut gaps).await;
        examined.probes.extend(probes);
    }
    match daemon_sets(&client).await {
        Ok(found) => examined.daemon_sets = found,
        Err(error) => examined.gaps.push(format!(
            "other products are not looked for: DaemonSets cannot be listed ({error})"
        )),
    }
    Ok(examined)
}

/// Asks all speakers the same at the same time; those that do not answer are gaps.
async fn ask_all<T: DeserializeOwned>(
    client: &Client,
    speakers: &[Door],
    path: &str,
    gaps: &mut Vec<String>,
) -> Vec<T> {
    let answers = stream::iter(speakers.iter().map(|speaker| ask(client, speaker, path)));
    let answers: Vec<Result<T, String>> = answers.buffered(MOST_AT_ONCE).collect().await;
    let mut found = Vec::new();
    for answer in answers {
        match answer {
            Ok(answer) => found.push(answer),
            Err(gap) => gaps.push(gap),
        }
    }
    found
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    speaker: &Door,
    path: &str,
) -> Result<T, String> {
    let answer = fetch::page_within(PATIENCE, client, speaker, path).await;
    answer
        .and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{speaker}: {error}")))
        .map_err(|error| format!("a speaker does not answer to /{path}: {error}"))
}

async fn daemon_sets(client: &Client) -> Result<Vec<String>, kube::Error> {
    let found = Api::<DaemonSet>::all(client.clone());
    let found = found.list_metadata(&ListParams::default()).await?;
    Ok(found
        .iter()
        .map(|one| format!("{}/{}", one.namespace().unwrap_or_default(), one.name_any()))
        .collect())
}

/// Speakers that are asked at the same time.
const MOST_AT_ONCE: usize = 64;
/// How long a speaker may take, its listening to the wire included.
const PATIENCE: Duration = Duration::from_secs(5);
