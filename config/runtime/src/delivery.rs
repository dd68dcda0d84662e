//! What the watches and the files send to the source.

use std::sync::Arc;

use config::catalogue::Slot;
use config::declaration::Object;
use config::file::Reading;
use config::refusal::Refusal;
use config::snapshot::Change;

/// One thing that they say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Delivery {
    Change(Change),
    Declared(Slot, Result<Object, Vec<Refusal>>),
    Withdrawn(Slot),
    File(Arc<str>, Reading),
    Synced(&'static str),
}

impl From<Change> for Delivery {
    fn from(change: Change) -> Self {
        Self::Change(change)
    }
}
