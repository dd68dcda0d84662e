//! What happened, in a word.

/// What happened, without the particulars: the reason of a Kubernetes Event, and a label of metrics.
#[expect(missing_docs, reason = "`Event` has a sentence for each")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EventReason {
    AddressAcquired,
    AddressTakenOver,
    AddressReceived,
    AddressHandedOver,
    AddressHandedBack,
    AddressYielded,
    AddressReleased,
    AddressUnconfigured,
    AddressConflict,
    AddressDefended,
    AddressConflictEnded,
    OwnerAnswered,
    OwnerHeard,
    PeerHeard,
    PeerSilent,
    SilenceAgreed,
    SilenceEnded,
    SpeakerStalled,
}

/// What it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventSubject {
    /// Who answers for a VIP: whether this node does from now on, or stopped to.
    Move {
        /// Whether it does.
        owns: bool,
    },
    /// A machine that is no speaker, or a silent owner that is not as silent as it seemed.
    Conflict,
    /// Speakers and what is between them.
    Speakers,
}

impl EventReason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::AddressAcquired,
        Self::AddressTakenOver,
        Self::AddressReceived,
        Self::AddressHandedOver,
        Self::AddressHandedBack,
        Self::AddressYielded,
        Self::AddressReleased,
        Self::AddressUnconfigured,
        Self::AddressConflict,
        Self::AddressDefended,
        Self::AddressConflictEnded,
        Self::OwnerAnswered,
        Self::OwnerHeard,
        Self::PeerHeard,
        Self::PeerSilent,
        Self::SilenceAgreed,
        Self::SilenceEnded,
        Self::SpeakerStalled,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressAcquired => "AddressAcquired",
            Self::AddressTakenOver => "AddressTakenOver",
            Self::AddressReceived => "AddressReceived",
            Self::AddressHandedOver => "AddressHandedOver",
            Self::AddressHandedBack => "AddressHandedBack",
            Self::AddressYielded => "AddressYielded",
            Self::AddressReleased => "AddressReleased",
            Self::AddressUnconfigured => "AddressUnconfigured",
            Self::AddressConflict => "AddressConflict",
            Self::AddressDefended => "AddressDefended",
            Self::AddressConflictEnded => "AddressConflictEnded",
            Self::OwnerAnswered => "OwnerAnswered",
            Self::OwnerHeard => "OwnerHeard",
            Self::PeerHeard => "PeerHeard",
            Self::PeerSilent => "PeerSilent",
            Self::SilenceAgreed => "SilenceAgreed",
            Self::SilenceEnded => "SilenceEnded",
            Self::SpeakerStalled => "SpeakerStalled",
        }
    }

    /// What it is about.
    pub const fn subject(self) -> EventSubject {
        match self {
            Self::AddressAcquired | Self::AddressTakenOver | Self::AddressReceived => {
                EventSubject::Move { owns: true }
            }
            Self::AddressHandedOver
            | Self::AddressHandedBack
            | Self::AddressYielded
            | Self::AddressReleased
            | Self::AddressUnconfigured => EventSubject::Move { owns: false },
            Self::AddressConflict
            | Self::AddressDefended
            | Self::AddressConflictEnded
            | Self::OwnerAnswered
            | Self::OwnerHeard => EventSubject::Conflict,
            Self::PeerHeard
            | Self::PeerSilent
            | Self::SilenceAgreed
            | Self::SilenceEnded
            | Self::SpeakerStalled => EventSubject::Speakers,
        }
    }

    /// Whether this node answers for the VIP from now on (`Some(true)`), stopped to (`Some(false)`), or neither.
    pub const fn owns(self) -> Option<bool> {
        match self.subject() {
            EventSubject::Move { owns } => Some(owns),
            EventSubject::Conflict | EventSubject::Speakers => None,
        }
    }

    /// Whether an operator should look at it (a Kubernetes Event of type Warning).
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::AddressYielded
                | Self::AddressConflict
                | Self::AddressDefended
                | Self::OwnerAnswered
                | Self::OwnerHeard
                | Self::PeerSilent
                | Self::SpeakerStalled
        )
    }
}
