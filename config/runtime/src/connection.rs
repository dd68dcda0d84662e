//! Whether the API server answers, said once for all watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::chain::Chain;

/// Whether the API server answers; shared by everything that asks it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    troubles: Arc<Mutex<BTreeMap<&'static str, Trouble>>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Trouble {
    /// No answer.
    Away,
    /// An answer that does not help.
    Refused(String),
}

impl Connection {
    /// Whether everything that was asked last was answered.
    pub fn is_answering(&self) -> bool {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        !troubles.values().any(|trouble| *trouble == Trouble::Away)
    }

    /// A request for `what` failed; logs it unless that is known.
    pub(crate) fn failed(&self, what: &'static str, error: &(dyn std::error::Error + 'static)) {
        let trouble = if is_away(status_code(error)) {
            Trouble::Away
        } else {
            Trouble::Refused(Chain(error).to_string())
        };
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let known_away = troubles.values().any(|known| *known == Trouble::Away);
        let before = troubles.insert(what, trouble.clone());
        drop(troubles);
        match trouble {
            Trouble::Away if known_away => {}
            Trouble::Away => {
                tracing::warn!(error = %Chain(error), "API server does not answer: going on with what is known");
            }
            trouble if before.as_ref() == Some(&trouble) => {}
            Trouble::Refused(error) => {
                tracing::warn!(what, error, "API server refuses to be watched")
            }
        }
    }

    /// A request for `what` was answered.
    pub(crate) fn answered(&self, what: &'static str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = troubles.remove(what) else {
            return;
        };
        let still_away = troubles.values().any(|trouble| *trouble == Trouble::Away);
        drop(troubles);
        match before {
            Trouble::Away if still_away => {}
            Trouble::Away => tracing::info!("API server answers again"),
            Trouble::Refused(_) => tracing::info!(what, "API server lets it be watched again"),
        }
    }
}

/// Whether an answer with this status, or none, means that the API server cannot serve anybody now.
pub(crate) fn is_away(code: Option<u16>) -> bool {
    code.is_none_or(|code| code >= 500 || code == 429)
}

/// The HTTP status that the API server answered with, if it answered.
pub fn status_code(error: &(dyn std::error::Error + 'static)) -> Option<u16> {
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
