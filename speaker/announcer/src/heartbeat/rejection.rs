//! Why a datagram is not heeded.

/// Why a datagram to the heartbeat port is not heeded. Counted by the shell, nothing else happens.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Rejection {
    #[error("the datagram is shorter or longer than any heartbeat")]
    Length,
    #[error("not a heartbeat")]
    NotAHeartbeat,
    #[error(
        "a heartbeat of another version of the protocol: run the same version of the speaker on all nodes"
    )]
    Version,
    #[error("made with a key that this speaker does not have: give all speakers the same Secret")]
    UnknownKey,
    #[error("its authentication code is wrong")]
    Forged,
    #[error("authentic, but its contents cannot be read")]
    Malformed,
    #[error("this node's own heartbeat")]
    Own,
    #[error("another speaker runs under this node's name: give every node a name of its own")]
    NameTaken,
    #[error("received before, or too old")]
    Replayed,
    #[error("not yet proven to be of now: it echoes no recent heartbeat of this speaker")]
    Unproven,
    #[error("more speakers than this one can remember")]
    TooManyPeers,
    #[error("received on an interface that is not known or is down")]
    UnknownLink,
}

impl Rejection {
    /// The reason as a label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::NotAHeartbeat => "not_a_heartbeat",
            Self::Version => "version",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::NameTaken => "name_taken",
            Self::Replayed => "replayed",
            Self::Unproven => "unproven",
            Self::TooManyPeers => "too_many_peers",
            Self::UnknownLink => "unknown_link",
        }
    }
}
