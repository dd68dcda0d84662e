//! Where a watch goes on: what was seen, what the API server answered, what to ask for next. Pure.

use kube::api::{ListParams, VersionMatch};

use crate::connection::is_away;

/// What to ask for next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Everything there is.
    List(AtLeast),
    /// What changes from this resourceVersion on.
    Watch(String),
}

/// How new a list has to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum AtLeast {
    /// Whatever the API server has at hand: nothing is known yet.
    Anything,
    /// Not older than this resourceVersion, which was seen: time does not go back.
    Version(String),
    /// What etcd has now: the version that was seen is none of this cluster's, as after it was restored from a backup.
    Newest,
}

impl Next {
    /// Whether an answer with this HTTP status says only that the version is too old to go on from.
    pub(super) fn is_expired(&self, status: Option<u16>) -> bool {
        matches!(self, Self::Watch(_)) && status == Some(EXPIRED)
    }

    /// What to ask for after the API server refused this with an HTTP status, or did not answer.
    pub(super) fn after_failure(self, status: Option<u16>) -> Self {
        match (self, status) {
            // Who comes back may know less than before: restored from a backup, it would never say anything new to whoever
            // has seen more.
            (Self::Watch(version), status) if status == Some(EXPIRED) || is_away(status) => {
                Self::List(AtLeast::Version(version))
            }
            // "Too large resource version".
            (Self::List(AtLeast::Version(_)), Some(EXPIRED | TIMEOUT))
            | (Self::List(AtLeast::Anything), Some(EXPIRED)) => Self::List(AtLeast::Newest),
            (same, _) => same,
        }
    }
}

impl AtLeast {
    /// The parameters of a list that is that new.
    pub(super) fn parameters(&self, selector: Option<&str>) -> ListParams {
        let mut parameters = ListParams {
            label_selector: selector.map(str::to_owned),
            ..ListParams::default()
        };
        match self {
            Self::Anything => parameters.resource_version = Some("0".to_owned()),
            Self::Version(version) => {
                parameters.resource_version = Some(version.clone());
                parameters.version_match = Some(VersionMatch::NotOlderThan);
            }
            Self::Newest => {}
        }
        parameters
    }
}

const EXPIRED: u16 = 410;
const TIMEOUT: u16 = 504;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_ask_for_next() {
        let seen = || Next::List(AtLeast::Version("7".to_owned()));
        let watch = || Next::Watch("7".to_owned());
        let anything = || Next::List(AtLeast::Anything);
        let newest = || Next::List(AtLeast::Newest);
        for (asked, status, expected) in [
            (seen(), Some(410), newest()),
            (seen(), Some(504), newest()),
            (seen(), Some(500), seen()),
            (seen(), None, seen()),
            (anything(), Some(410), newest()),
            (anything(), Some(504), anything()),
            (newest(), Some(410), newest()),
            (watch(), Some(410), seen()),
            (watch(), Some(503), seen()),
            (watch(), None, seen()),
            (watch(), Some(403), watch()),
        ] {
            let said = format!("{asked:?} {status:?}");
            assert_eq!(asked.after_failure(status), expected, "{said}");
        }
    }

    #[test]
    fn only_a_watch_expires_without_a_failure() {
        let watch = Next::Watch("7".to_owned());
        assert!(watch.is_expired(Some(410)));
        assert!(!watch.is_expired(Some(504)));
        assert!(!Next::List(AtLeast::Anything).is_expired(Some(410)));
    }
}
