//! What happened, in a sentence for people.

use std::net::IpAddr;
use std::time::Duration;

use config::name::NodeName;

use crate::candidates::Ineligible;
use crate::event_reason::EventReason;
use crate::link::LinkIndex;
use crate::packet::MacAddr;

/// Something that the shell should log, count, and tell of with a Kubernetes Event where a VIP is concerned.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Event {
    #[error("announcing {vip}: nobody else did")]
    Acquired { vip: IpAddr },
    #[error("took over {vip} from {from}, silent for {} ms", silent_for.as_millis())]
    TakenOver {
        vip: IpAddr,
        from: NodeName,
        silent_for: Duration,
    },
    #[error("received {vip} from {from} by a planned hand-over")]
    Received { vip: IpAddr, from: NodeName },
    #[error("handed {vip} over to {to}: {reason}")]
    HandedOver {
        vip: IpAddr,
        to: NodeName,
        reason: Ineligible,
    },
    #[error("handed {vip} over to {to}, which is preferred")]
    HandedBack { vip: IpAddr, to: NodeName },
    #[error("withdrew {vip}: {to} took it over while this node could not be heard")]
    Yielded { vip: IpAddr, to: NodeName },
    #[error("released {vip}: {reason}")]
    Released { vip: IpAddr, reason: Ineligible },
    #[error("released {vip}: it is not to be announced any more")]
    Unconfigured { vip: IpAddr },
    #[error(
        "{vip} is in use by another machine with the hardware address {mac}: not announced until that machine is gone"
    )]
    Conflict {
        vip: IpAddr,
        link: LinkIndex,
        mac: MacAddr,
    },
    #[error("another machine with the hardware address {mac} claims {vip}: defended")]
    Defended {
        vip: IpAddr,
        link: LinkIndex,
        mac: MacAddr,
    },
    #[error("{vip} is free again: the other machine does not answer any more")]
    ConflictEnded { vip: IpAddr },
    #[error(
        "did not take over {vip}: its owner {owner} is silent but answered with {mac}, only its heartbeats are lost"
    )]
    OwnerAnswered {
        vip: IpAddr,
        owner: NodeName,
        mac: MacAddr,
    },
    #[error("did not take over {vip}: its owner {owner} is silent here, but {witness} hears it")]
    OwnerHeard {
        vip: IpAddr,
        owner: NodeName,
        witness: NodeName,
    },
    #[error("hear the speaker of {node}")]
    PeerHeard { node: NodeName },
    #[error("the speaker of {node} is silent for {} ms", silent_for.as_millis())]
    PeerSilent {
        node: NodeName,
        silent_for: Duration,
    },
    #[error("{node} is silent, and no peer hears it")]
    SilenceAgreed { node: NodeName },
    #[error("{node} is heard again, by this speaker or a peer")]
    SilenceEnded { node: NodeName },
    #[error("this speaker was stopped for {} ms: nobody is declared silent for a while", late.as_millis())]
    Stalled { late: Duration },
}

impl Event {
    /// The VIP that it is about, if any.
    pub fn vip(&self) -> Option<IpAddr> {
        match *self {
            Self::Acquired { vip }
            | Self::TakenOver { vip, .. }
            | Self::Received { vip, .. }
            | Self::HandedOver { vip, .. }
            | Self::HandedBack { vip, .. }
            | Self::Yielded { vip, .. }
            | Self::Released { vip, .. }
            | Self::Unconfigured { vip }
            | Self::Conflict { vip, .. }
            | Self::Defended { vip, .. }
            | Self::ConflictEnded { vip }
            | Self::OwnerAnswered { vip, .. }
            | Self::OwnerHeard { vip, .. } => Some(vip),
            Self::PeerHeard { .. }
            | Self::PeerSilent { .. }
            | Self::SilenceAgreed { .. }
            | Self::SilenceEnded { .. }
            | Self::Stalled { .. } => None,
        }
    }

    /// What happened, without the particulars.
    pub fn reason(&self) -> EventReason {
        match self {
            Self::Acquired { .. } => EventReason::AddressAcquired,
            Self::TakenOver { .. } => EventReason::AddressTakenOver,
            Self::Received { .. } => EventReason::AddressReceived,
            Self::HandedOver { .. } => EventReason::AddressHandedOver,
            Self::HandedBack { .. } => EventReason::AddressHandedBack,
            Self::Yielded { .. } => EventReason::AddressYielded,
            Self::Released { .. } => EventReason::AddressReleased,
            Self::Unconfigured { .. } => EventReason::AddressUnconfigured,
            Self::Conflict { .. } => EventReason::AddressConflict,
            Self::Defended { .. } => EventReason::AddressDefended,
            Self::ConflictEnded { .. } => EventReason::AddressConflictEnded,
            Self::OwnerAnswered { .. } => EventReason::OwnerAnswered,
            Self::OwnerHeard { .. } => EventReason::OwnerHeard,
            Self::PeerHeard { .. } => EventReason::PeerHeard,
            Self::PeerSilent { .. } => EventReason::PeerSilent,
            Self::SilenceAgreed { .. } => EventReason::SilenceAgreed,
            Self::SilenceEnded { .. } => EventReason::SilenceEnded,
            Self::Stalled { .. } => EventReason::SpeakerStalled,
        }
    }

    /// Whether this node answers for the VIP from now on (`Some(true)`), stopped to (`Some(false)`), or neither.
    pub fn owns(&self) -> Option<bool> {
        self.reason().owns()
    }
}
