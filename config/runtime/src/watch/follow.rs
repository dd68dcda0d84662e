//! The watch of one kind: a list, then what changes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::ErrorKind::{TimedOut, UnexpectedEof};

use futures::{AsyncBufReadExt as _, StreamExt as _};
use kube::api::{WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::list::list;
use super::next::{AtLeast, Next};
use super::object::{Key, Unreadable, event};
use super::reading::Reading;
use super::{ABSENT_RETRY, RETRY, WATCH_SECONDS};
use crate::backoff::Backoff;
use crate::connection::{Connection, is_away, status_code};
use crate::delivery::Delivery;

/// The watch of one kind.
pub(super) struct Watch<K> {
    pub(super) name: &'static str,
    pub(super) client: Client,
    pub(super) selector: Option<String>,
    pub(super) connection: Connection,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) read: fn(K) -> Reading,
    /// Whether it may be forbidden.
    pub(super) is_optional: bool,
    pub(super) known: Known,
}

/// What was delivered.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// For each object the delivery that takes it back.
    held: HashMap<Key, Delivery>,
    /// The part of them that the list in progress has named.
    listed: HashMap<Key, Delivery>,
    synced: bool,
}

/// Nobody receives the deliveries any more.
struct Closed;

/// Why a list or a watch did not go on.
enum Stopped {
    Closed,
    Failed(kube::Error),
}

impl From<Closed> for Stopped {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<kube::Error> for Stopped {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

/// What came during a watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    Nothing,
    /// Events, at least a bookmark.
    Something,
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Delivers what the API server says for as long as somebody receives it.
    pub(super) async fn run(mut self, api: Api<K>) {
        let mut next = Next::List(AtLeast::Anything);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut absent = Backoff::new(ABSENT_RETRY.0, ABSENT_RETRY.1);
        loop {
            let stopped = match &mut next {
                Next::List(at_least) => match self.list(&api, at_least).await {
                    Ok(version) => {
                        next = Next::Watch(version);
                        backoff.reset();
                        continue;
                    }
                    Err(stopped) => stopped,
                },
                Next::Watch(version) => match self.watch(&api, version, &mut backoff).await {
                    // The time of the request is over.
                    Ok(Said::Something) => continue,
                    // Whoever ends watches at once is not asked again at once.
                    Ok(Said::Nothing) => {
                        tokio::time::sleep(backoff.next_delay()).await;
                        continue;
                    }
                    Err(stopped) => stopped,
                },
            };
            let Stopped::Failed(error) = stopped else {
                return;
            };
            let code = status_code(&error);
            // Whoever has no use for MetalLB need not grant it.
            if code == Some(404) || code == Some(403) && self.is_optional {
                // What was known stays: it is read again when the kind is back, or taken back by its list.
                self.connection.answered(self.name);
                if self.mark_synced().await.is_err() {
                    return;
                }
                tokio::time::sleep(absent.next_delay()).await;
                continue;
            }
            let is_expired = next.is_expired(code);
            next = next.after_failure(code);
            if is_expired {
                continue;
            }
            self.connection.failed(self.name, &error);
            if is_away(code) {
                self.await_answer(&mut backoff).await;
            } else {
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Waits until the API server answers anything: a watch that is resumed says nothing until something changes.
    async fn await_answer(&self, backoff: &mut Backoff) {
        loop {
            tokio::time::sleep(backoff.next_delay()).await;
            if self.client.apiserver_version().await.is_ok() {
                return self.connection.answered(self.name);
            }
        }
    }

    /// Delivers everything there is, takes back what is no more, and returns the version to watch from.
    async fn list(&mut self, api: &Api<K>, at_least: &AtLeast) -> Result<String, Stopped> {
        // What an earlier list named before it broke off.
        self.known.held.extend(self.known.listed.drain());
        let path = api.resource_url();
        let mut list = list(&self.client, path, self.selector.as_deref(), at_least).await?;
        self.connection.answered(self.name);
        while let Some(objects) = list.next().await? {
            for object in objects {
                match object {
                    Ok(object) => {
                        let taken = self.take(object).await?;
                        self.known.listed.extend(taken);
                    }
                    Err(unreadable) => {
                        self.complain(&unreadable);
                        let key = unreadable.key;
                        let known = key.and_then(|key| self.known.held.remove_entry(&key));
                        self.known.listed.extend(known);
                    }
                }
            }
        }
        let version = list.version()?;
        let gone: Vec<_> = self.known.held.drain().map(|(_, undo)| undo).collect();
        for undo in gone {
            self.send(undo).await?;
        }
        self.known.held = std::mem::take(&mut self.known.listed);
        self.mark_synced().await?;
        Ok(version)
    }

    /// Delivers changes from `version` on, which follows them, until the request has lasted long enough.
    async fn watch(
        &mut self,
        api: &Api<K>,
        version: &mut String,
        backoff: &mut Backoff,
    ) -> Result<Said, Stopped> {
        let mut parameters = WatchParams::default().timeout(fastrand::u32(WATCH_SECONDS));
        parameters.label_selector = self.selector.clone();
        let request = Request::new(api.resource_url())
            .watch(&parameters, version)
            .map_err(kube::Error::BuildRequest)?;
        let mut lines = Box::pin(self.client.request_stream(request).await?).lines();
        self.connection.answered(self.name);
        let mut said = Said::Nothing;
        while let Some(line) = lines.next().await {
            let line = match line {
                // A connection that breaks off ends the watch as its time does.
                Err(error) if matches!(error.kind(), TimedOut | UnexpectedEof) => break,
                line => line.map_err(kube::Error::ReadEvents)?,
            };
            let event = match event::<K>(&line) {
                Err(error) if error.is_eof() => break,
                event => event.map_err(kube::Error::SerdeError)?,
            };
            let event = match event {
                Ok(event) => event,
                Err(unreadable) => {
                    said = Said::Something;
                    if let Some(seen) = self.pass_over(unreadable).await? {
                        *version = seen;
                    }
                    continue;
                }
            };
            let seen = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let seen = object.meta().resource_version.clone();
                    let taken = self.take(object).await?;
                    self.known.held.extend(taken);
                    seen
                }
                WatchEvent::Deleted(object) => {
                    let undo = key(&object).and_then(|key| self.known.held.remove(&key));
                    if let Some(undo) = undo {
                        self.send(undo).await?;
                    }
                    object.meta().resource_version.clone()
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    return Err(Stopped::Failed(kube::Error::Api(status)));
                }
            };
            // Only what it says shows that it serves.
            said = Said::Something;
            backoff.reset();
            if let Some(seen) = seen {
                *version = seen;
            }
        }
        Ok(said)
    }

    /// Goes on behind an object that cannot be read, whose version is returned. What was known of it stays, unless it
    /// is no more.
    async fn pass_over(&mut self, unreadable: Unreadable) -> Result<Option<String>, Closed> {
        if !unreadable.is_deleted {
            self.complain(&unreadable);
        } else if let Some(undo) = unreadable.key.and_then(|key| self.known.held.remove(&key)) {
            self.send(undo).await?;
        }
        Ok(unreadable.version)
    }

    fn complain(&self, unreadable: &Unreadable) {
        let (namespace, name) = unreadable.key.clone().unwrap_or_default();
        tracing::warn!(
            what = self.name,
            namespace,
            name,
            error = %unreadable.error,
            "Object cannot be read: what was known of it before stays"
        );
    }

    /// Delivers an object; its key and the delivery that takes it back, if it means anything to us.
    async fn take(&mut self, object: K) -> Result<Option<(Key, Delivery)>, Closed> {
        let Some(key) = key(&object) else {
            return Ok(None);
        };
        let before = self.known.held.remove(&key);
        let undo = self.deliver(object, before).await?;
        Ok(undo.map(|undo| (key, undo)))
    }

    /// Delivers an object, and takes back what it was before if it is something else now.
    async fn deliver(
        &self,
        object: K,
        before: Option<Delivery>,
    ) -> Result<Option<Delivery>, Closed> {
        let (delivery, undo) = (self.read)(object).unzip();
        if let Some(before) = before.filter(|before| Some(before) != undo.as_ref()) {
            self.send(before).await?;
        }
        if let Some(delivery) = delivery {
            self.send(delivery).await?;
        }
        Ok(undo)
    }

    async fn mark_synced(&mut self) -> Result<(), Closed> {
        if !std::mem::replace(&mut self.known.synced, true) {
            self.send(Delivery::Synced(self.name)).await?;
        }
        Ok(())
    }

    async fn send(&self, delivery: Delivery) -> Result<(), Closed> {
        self.deliveries.send(delivery).await.map_err(|_| Closed)
    }
}

fn key<K: Resource>(object: &K) -> Option<Key> {
    let metadata = object.meta();
    Some((metadata.namespace.clone(), metadata.name.clone()?))
}
