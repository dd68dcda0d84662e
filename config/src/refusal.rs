//! Refusals: what in a pool or an advertisement is wrong, where it stands, and what to write instead.

use std::fmt;

use crate::address::RangeError;
use crate::name::ServiceKeyError;
use crate::pool::Origin;
use crate::selector::SelectorError;

/// The kinds of objects that configure Foghorn.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `IPAddressPool`.
    Pool,
    /// `L2Advertisement`.
    Advertisement,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pool => "IPAddressPool",
            Self::Advertisement => "L2Advertisement",
        })
    }
}

/// A refusal of one object, or of a document that has not even a name; it harms nothing else.
///
/// Displayed as a compiler would: `lan.yaml:7:18: IPAddressPool lan: spec.addresses[1]: ..`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Refusal {
    /// Where the object was written.
    pub origin: Origin,
    /// Where in the file; none for an object of the cluster.
    pub place: Option<Place>,
    /// The kind of the object, if that could be read.
    pub kind: Option<Kind>,
    /// The name of the object, if that could be read.
    pub name: Option<String>,
    /// The field, as `spec.addresses[1]`; empty if it is about the object as a whole.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: Reason,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Bytes from the start of the file to the first one of what is meant.
    pub start: usize,
    /// Bytes from the start of the file to the one after what is meant.
    pub end: usize,
}

/// What is wrong with one field of an object, before it is known where that stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// The field, as `spec.addresses[1]`.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: Reason,
}

impl FieldError {
    /// An error in a field.
    pub fn new(field: impl Into<String>, reason: impl Into<Reason>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// What is wrong, and what to do.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error(transparent)]
    Service(#[from] ServiceKeyError),
    #[error(transparent)]
    HoldTime(#[from] crate::pool::HoldTimeError),
    #[error("the quota {0} is not from 0 to 4294967295: 0 means no limit")]
    Quota(i64),
    #[error("there are no addresses: write at least one range, prefix or address")]
    NoAddresses,
    #[error("{found} overlaps {other} in {field}: remove what is written twice")]
    OverlapsItself {
        found: String,
        other: String,
        field: String,
    },
    #[error("\"{0}\" is not an IP address: write one, such as 192.0.2.7")]
    Address(String),
    #[error("{0} is not in spec.addresses: reserve an address that the pool has")]
    ReservedOutside(std::net::IpAddr),
    #[error("{address} is reserved for {other} already: give each Service an address of its own")]
    ReservedTwice {
        address: std::net::IpAddr,
        other: String,
    },
    #[error("the weight {0} is not from 1 to 100: write how much better these nodes are")]
    Weight(i64),
    #[error("the priority {0} is not from 0 to 4294967295: lower is tried first, 0 is last")]
    Priority(i64),
    #[error(
        "\"{0}\" is not a name: write at most 253 of lower case letters, digits, '-' and '.', beginning and ending with a letter or digit"
    )]
    Name(String),
    #[error("{0}")]
    Type(String),
    #[error("{field} is missing: write it")]
    Missing { field: String },
    #[error("there is no field \"{found}\"{}", suggestion(nearest.as_deref(), known))]
    UnknownField {
        found: String,
        nearest: Option<String>,
        known: Vec<String>,
    },
    #[error("\"{found}\" is none of {}", known.join(", "))]
    UnknownValue { found: String, known: Vec<String> },
    #[error("{0}")]
    Syntax(String),
    #[error("the file has more than {most} bytes: split it")]
    TooLarge { most: u64 },
    #[error("the file is not text in UTF-8: save it as such")]
    NotText,
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    #[error("kind {kind} is about BGP: Foghorn announces by ARP and NDP only, remove the document")]
    Bgp { kind: String },
    #[error(
        "apiVersion {api_version} and kind {kind} are not known here: write foghorn.dev/v1alpha1 and IPAddressPool or L2Advertisement"
    )]
    UnknownKind { api_version: String, kind: String },
    #[error("this is not an object of Kubernetes: begin it with apiVersion and kind")]
    NotAnObject,
    #[error("the same name is in {first} too, which is in force: rename or remove one")]
    Duplicate { first: Origin },
}

/// At most the first 200 characters of what a library said.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean \"{nearest}\"?"),
        None => format!(": write one of {}", known.join(", ")),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.place) {
            (Origin::File { path, .. }, Some(place)) => {
                write!(formatter, "{path}:{}:{}: ", place.line, place.column)?;
            }
            (origin, _) => write!(formatter, "{origin}: ")?,
        }
        match (self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(formatter, "{kind} {name}: ")?,
            (Some(kind), None) => write!(formatter, "{kind}: ")?,
            (None, _) => {}
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        write!(formatter, "{}", self.reason)
    }
}

impl Refusal {
    /// A short word for the metric label and the condition's reason, one for each kind of mistake.
    pub fn label(&self) -> &'static str {
        match self.reason {
            Reason::Range(_) | Reason::NoAddresses | Reason::OverlapsItself { .. } => "Addresses",
            Reason::Selector(_) => "Selector",
            Reason::Service(_)
            | Reason::Address(_)
            | Reason::ReservedOutside(_)
            | Reason::ReservedTwice { .. } => "Reservation",
            Reason::Weight(_) | Reason::Priority(_) | Reason::Quota(_) | Reason::HoldTime(_) => {
                "Number"
            }
            Reason::Name(_) => "Name",
            Reason::Type(_)
            | Reason::Missing { .. }
            | Reason::UnknownField { .. }
            | Reason::UnknownValue { .. } => "Schema",
            Reason::Syntax(_) | Reason::NotAnObject => "Syntax",
            Reason::TooLarge { .. } | Reason::NotText | Reason::Unreadable(_) => "File",
            Reason::Bgp { .. } | Reason::UnknownKind { .. } => "Kind",
            Reason::Duplicate { .. } => "Duplicate",
        }
    }
}
