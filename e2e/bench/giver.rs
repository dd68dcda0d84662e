//! Who gives addresses: the controllers that are compared.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who gives the addresses.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Giver {
    /// Ours.
    Foghorn,
    /// The real controller of MetalLB.
    Metallb,
}

impl Giver {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Foghorn => "foghorn-controller",
            Self::Metallb => "MetalLB controller",
        }
    }
}
