//! Events of Kubernetes (`v1` Event), for what `kubectl describe` shows.
//!
//! [`machine`] decides what is written; this module writes it.

pub mod machine;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::chain::Chain;
use crate::connection::status_code;
pub use machine::{Event, Severity, Subject};
use machine::{Recorder, Write};

/// Tells Events; cheap to copy, never waits.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Event>,
}

/// How many Events may wait to be written; more are dropped.
const CAPACITY: usize = 2048;
/// How long one write may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Events {
    /// Tells an Event. It is dropped if too many wait already, as when the API server is away.
    pub fn tell(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            tracing::debug!("Dropped an Event");
        }
    }
}

/// A writer of Events that says it is `foghorn-<program>` on `instance`; run it as a server, so that it also writes
/// what tasks tell while they end.
pub fn run(
    client: Client,
    program: &str,
    instance: &str,
    closing: CancellationToken,
) -> (Events, impl Future<Output = anyhow::Result<()>> + use<>) {
    let (sender, told) = mpsc::channel(CAPACITY);
    let writer = Writer {
        client,
        component: format!("foghorn-{program}"),
        instance: instance.to_owned(),
        started: Timestamp::now(),
        failing: false,
    };
    (Events { sender }, write(writer, told, closing))
}

async fn write(
    mut writer: Writer,
    mut told: mpsc::Receiver<Event>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    let mut recorder = Recorder::default();
    loop {
        let event = tokio::select! {
            biased;
            event = told.recv() => event,
            () = closing.cancelled() => None,
        };
        let Some(event) = event else {
            return Ok(());
        };
        recorder.handle_event(event, Instant::now());
        while let Some(write) = recorder.poll_write() {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            loop {
                match writer.write(&write).await {
                    Written::Done => break,
                    Written::Refused => {
                        recorder.handle_gone(write.event());
                        break;
                    }
                    Written::Unanswered => tokio::select! {
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                        () = closing.cancelled() => return Ok(()),
                    },
                }
            }
        }
    }
}

/// How long to wait between attempts to write the same Event.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    Done,
    Refused,
    Unanswered,
}

struct Writer {
    client: Client,
    component: String,
    instance: String,
    /// Part of the names of Events: they stay unique when the program starts again.
    started: Timestamp,
    failing: bool,
}

impl Writer {
    async fn write(&mut self, write: &Write) -> Written {
        let (event, number) = (write.event(), write.number());
        // Events about objects of the cluster live in `default`.
        let namespace = event.subject.namespace.as_deref().unwrap_or("default");
        let api = Api::<api::Event>::namespaced(self.client.clone(), namespace);
        let name = self.name(event, number);
        let asked = async {
            match write {
                Write::Create { .. } => {
                    let object = self.object(event, name, namespace);
                    api.create(&PostParams::default(), &object).await
                }
                Write::Count { count, .. } => {
                    let patch = serde_json::json!({
                        "count": count, "lastTimestamp": Time(Timestamp::now()),
                    });
                    let parameters = PatchParams::default();
                    api.patch(&name, &parameters, &Patch::Merge(patch)).await
                }
            }
        };
        let error = match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
            Ok(Ok(_)) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("Events can be written again");
                }
                return Written::Done;
            }
            // The Event is gone, or its namespace is.
            Ok(Err(error)) if status_code(&error) == Some(404) => return Written::Refused,
            Ok(Err(error)) => Ok(error),
            Err(_) => Err("no answer in time"),
        };
        let refused =
            matches!(&error, Ok(error) if status_code(error).is_some_and(|code| code < 500));
        if !std::mem::replace(&mut self.failing, true) {
            let error = error.map_or_else(str::to_owned, |error| Chain(&error).to_string());
            tracing::warn!(error, "Events cannot be written");
        }
        if refused {
            Written::Refused
        } else {
            Written::Unanswered
        }
    }

    /// Names are at most 253 octets: that of the object is cut.
    fn name(&self, event: &Event, number: u64) -> String {
        const LONGEST: usize = 200;
        let object: String = event.subject.name.chars().take(LONGEST).collect();
        let started = self.started.as_microsecond();
        format!(
            "{}.{started:x}{number:x}",
            object.trim_end_matches(['.', '-'])
        )
    }

    fn object(&self, event: &Event, name: String, namespace: &str) -> api::Event {
        let now = Time(Timestamp::now());
        let subject = &event.subject;
        api::Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: api::ObjectReference {
                api_version: Some(subject.api_version.clone()),
                kind: Some(subject.kind.clone()),
                namespace: subject.namespace.clone(),
                name: Some(subject.name.clone()),
                uid: Some(subject.uid.clone()),
                ..api::ObjectReference::default()
            },
            type_: Some(
                match event.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            reason: Some(event.reason.clone()),
            message: Some(event.note.clone()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(api::EventSource {
                component: Some(self.component.clone()),
                host: Some(self.instance.clone()),
            }),
            ..api::Event::default()
        }
    }
}
