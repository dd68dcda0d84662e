//! The watch of the records in which speakers say what became of addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use config::crd::ServiceL2Status;
use config_runtime::chain::Chain;
use controller_allocator::Stranger;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};

use crate::strangers::{Strangers, key};

/// All records from the newest list on. Nothing waits for them: without any, no address is in use by a stranger.
pub(super) struct Records {
    stream: BoxStream<'static, Result<WatchEvent<ServiceL2Status>, watcher::Error>>,
    listing: HashSet<(String, String)>,
    failing: bool,
    strangers: Strangers,
}

impl Records {
    pub(super) fn watch(client: &Client) -> Self {
        let records = Api::<ServiceL2Status>::all(client.clone());
        Self {
            stream: watch(records, watcher::Config::default())
                .default_backoff()
                .boxed(),
            listing: HashSet::new(),
            failing: false,
            strangers: Strangers::default(),
        }
    }

    /// Takes in the next news; whether it changes who has which address. Cancel-safe.
    pub(super) async fn changed(&mut self) -> bool {
        let Some(event) = self.stream.next().await else {
            return std::future::pending().await;
        };
        let now = Instant::now();
        match event {
            Ok(WatchEvent::Init) => self.listing.clear(),
            Ok(WatchEvent::InitApply(record)) => {
                self.listing.extend(key(&record));
                return self.strangers.observe(&record, now);
            }
            Ok(WatchEvent::InitDone) => {
                self.failing = false;
                let listing = std::mem::take(&mut self.listing);
                self.strangers.keep_only(&listing, now);
            }
            Ok(WatchEvent::Apply(record)) => return self.strangers.observe(&record, now),
            Ok(WatchEvent::Delete(record)) => self.strangers.remove(&record, now),
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        error = %Chain(&error),
                        "ServiceL2Statuses cannot be watched: an address that another machine has is not exchanged"
                    );
                }
            }
        }
        false
    }

    /// Lets go of what was said long ago; whether an address is free again.
    pub(super) fn advance(&mut self) -> bool {
        self.strangers.advance(Instant::now())
    }

    /// When to call [`Self::advance`] next, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.strangers.poll_timeout()
    }

    /// Who has which address.
    pub(super) fn strangers(&self) -> BTreeMap<IpAddr, Stranger> {
        self.strangers.known()
    }
}
