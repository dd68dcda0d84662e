//! What to write about a decision: the status, the condition, the Events.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use config::name::PoolName;
use config::service::Protocol;

use crate::allocator::Outcome;
use crate::claim::Claim;
use crate::decision::{Decision, Granted, Released};
use crate::pools::PoolUsage;
use crate::rejection::{Asked, Obstacle, Rejection};

/// The type of the condition on a Service that says whether it has its addresses.
pub const CONDITION: &str = config::service::ASSIGNED_CONDITION;

/// What the status of a Service should say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceStatus {
    /// The addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// The ports that each address serves.
    pub ports: Vec<(Protocol, NonZeroU16)>,
    /// The condition [`CONDITION`].
    pub condition: Condition,
}

/// The condition [`CONDITION`] of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// The Service has an address, though perhaps not all that it asked for.
    pub is_true: bool,
    /// The reason as one word.
    pub reason: &'static str,
    /// The whole reason.
    pub message: String,
}

/// Something to tell the author of a Service in an Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The Service got an address.
    Assigned(IpAddr, Option<PoolName>),
    /// An address that the status had already stays.
    Adopted(IpAddr, Option<PoolName>),
    /// The Service keeps an address although it would not get it today.
    Kept(IpAddr, Obstacle),
    /// An address was taken from the Service.
    Released(IpAddr, Released),
    /// The Service does not get what it asked for.
    Refused(Rejection, Severity),
}

/// How much a refusal hurts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The Service has no address, or not the one that its author named.
    Warning,
    /// The Service works; it would like more.
    Wish,
}

impl ServiceStatus {
    /// What the status of a Service should say about a decision.
    pub fn of(claim: &Claim, decision: &Decision) -> Self {
        Self {
            addresses: decision.addresses().collect(),
            ports: claim.terms.ports.iter().copied().collect(),
            condition: Condition::of(decision),
        }
    }
}

impl Condition {
    fn of(decision: &Decision) -> Self {
        let mut sentences: Vec<String> = Vec::new();
        if !decision.granted.is_empty() {
            let granted: Vec<String> = decision.granted.iter().map(phrase).collect();
            sentences.push(granted.join(", "));
        }
        if let Some(rejection) = &decision.rejection {
            sentences.push(rejection.to_string());
        }
        let kept = decision
            .granted
            .iter()
            .any(|granted| granted.although.is_some());
        let reason = match (&decision.rejection, decision.granted.is_empty()) {
            (Some(rejection), true) => rejection.reason(),
            (Some(_), false) => "PartlyAssigned",
            (None, true) => "NotAssigned",
            (None, false) if kept => "Kept",
            (None, false) => "Assigned",
        };
        Self {
            is_true: !decision.granted.is_empty(),
            reason,
            message: shorten(sentences.join(". "), LONGEST_MESSAGE),
        }
    }
}

fn phrase(granted: &Granted) -> String {
    match (&granted.although, &granted.pool) {
        (Some(obstacle), _) => {
            format!(
                "{} stays although {}",
                granted.address,
                about(granted.address, obstacle)
            )
        }
        (None, Some(pool)) => format!("{} from pool {pool}", granted.address),
        (None, None) => granted.address.to_string(),
    }
}

/// An obstacle in a sentence that names the address already.
fn about(address: IpAddr, obstacle: &Obstacle) -> String {
    let text = obstacle.to_string();
    let rest = text.strip_prefix(&address.to_string());
    rest.map_or_else(|| text.clone(), |rest| format!("it{rest}"))
}

impl Notice {
    /// Everything that an outcome tells, in the order in which to tell it.
    pub fn of(outcome: &Outcome) -> Vec<Self> {
        let granted = &outcome.decision.granted;
        let pool = |address: IpAddr| {
            let granted = granted.iter().find(|granted| granted.address == address);
            granted.and_then(|granted| granted.pool.clone())
        };
        let released = outcome.released.iter().cloned();
        let mut notices: Vec<Self> = released
            .map(|(address, why)| Self::Released(address, why))
            .collect();
        let gained = outcome.gained.iter();
        notices.extend(gained.map(|&address| Self::Assigned(address, pool(address))));
        let adopted = outcome.adopted.iter();
        notices.extend(adopted.map(|&address| Self::Adopted(address, pool(address))));
        if !outcome.has_news {
            return notices;
        }
        notices.extend(granted.iter().filter_map(|granted| {
            let obstacle = granted.although.clone()?;
            Some(Self::Kept(granted.address, obstacle))
        }));
        if let Some(rejection) = &outcome.decision.rejection {
            let severity = Severity::of(rejection, granted);
            notices.push(Self::Refused(rejection.clone(), severity));
        }
        notices
    }

    /// The reason of the Event, one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Assigned(..) => "AddressAssigned",
            Self::Adopted(..) => "AddressAdopted",
            Self::Kept(..) => "AddressKept",
            Self::Released(..) => "AddressReleased",
            Self::Refused(..) => "AddressRefused",
        }
    }

    /// Whether the author of the Service should look at it.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Assigned(..) | Self::Adopted(..) => false,
            Self::Kept(..) => true,
            Self::Released(_, released) => matches!(released, Released::InUse(_)),
            Self::Refused(_, severity) => *severity == Severity::Warning,
        }
    }
}

impl Severity {
    fn of(rejection: &Rejection, granted: &[Granted]) -> Self {
        let is_wish = |asked: &Asked| matches!(asked, Asked::Any(_, None) | Asked::Another(_));
        let all_wishes = rejection
            .refusals
            .iter()
            .all(|refusal| is_wish(&refusal.asked));
        if all_wishes && !granted.is_empty() {
            Self::Wish
        } else {
            Self::Warning
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assigned(address, Some(pool)) => {
                write!(formatter, "Assigned {address} from pool {pool}")
            }
            Self::Assigned(address, None) => write!(formatter, "Assigned {address}"),
            Self::Adopted(address, Some(pool)) => {
                write!(formatter, "{address} stays; it counts for pool {pool}")
            }
            Self::Adopted(address, None) => write!(formatter, "{address} stays"),
            Self::Kept(address, obstacle) => write!(
                formatter,
                "{address} stays although {}; it goes when the Service goes or asks for another one",
                about(*address, obstacle)
            ),
            Self::Released(address, why) => write!(formatter, "Took {address} away: {why}"),
            Self::Refused(rejection, _) => {
                let text = rejection.to_string();
                formatter.write_str(&shorten(capitalise(&text), LONGEST_NOTE))
            }
        }
    }
}

/// The numbers in the status of a pool; what an `i64` cannot hold is the largest one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(missing_docs, reason = "named as in the API")]
pub struct PoolNumbers {
    pub assigned_ipv4: i64,
    pub assigned_ipv6: i64,
    pub available_ipv4: i64,
    pub available_ipv6: i64,
}

impl From<PoolUsage> for PoolNumbers {
    fn from(usage: PoolUsage) -> Self {
        let number = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            assigned_ipv4: number(usage.v4.assigned),
            assigned_ipv6: number(usage.v6.assigned),
            available_ipv4: number(usage.v4.available),
            available_ipv6: number(usage.v6.available),
        }
    }
}

fn capitalise(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
}

/// At most `longest` bytes, cut between characters.
fn shorten(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let ellipsis = '…';
        let mut end = longest - ellipsis.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push(ellipsis);
    }
    text
}

/// What a condition's message may be (`metav1.Condition`), in bytes to be safe.
const LONGEST_MESSAGE: usize = 32_768;
/// What the note of an Event may be (`events.k8s.io/v1`).
const LONGEST_NOTE: usize = 1024;
