//! Which address each Service gets, and why not.
//!
//! [`Allocator`] holds what is given and serves one changed Service at a cost that follows the change. Everything in
//! it derives from the Services' statuses and the [`Context`]: one that starts afresh on them gives the same
//! addresses to the same Services. [`status`] says what to write.
//!
//! The rules, in the order in which they decide:
//!
//! 1. What a Service holds stays, also out of all pools, unless its author asks otherwise: by another type, class,
//!    family, requested address or requested pool; or unless the pool's `onInUse` is `Reassign`; or unless it was given
//!    a moment ago and speakers find that another machine has it. What is asked for instead replaces it in one step, so
//!    that a wish which cannot be fulfilled costs nothing.
//! 2. Where two Services hold one address without the right to share it, the older one keeps it (by
//!    `creationTimestamp`, then namespace and name); one that is already served never yields to one that arrives.
//! 3. Those who lack something are served in the same order: requested addresses (or the one reserved for the
//!    Service), the requested pool, pools with `serviceAllocation` by priority (0 last) and name, the other pools by
//!    name. In a pool an address that the Service may share comes before the first free one.
//! 4. An address that is held for a deleted Service (`holdAfterDeletion`) is for the Service of that name alone, as one
//!    that is reserved, until the hold ends; not even who asks for it by number gets it. A quota stands in the way of
//!    what is new, never of what is held already, and not of an address that a pool reserves for the Service.

mod admission;
mod allocator;
mod claim;
mod context;
mod decision;
mod holds;
mod ledger;
mod pools;
mod rejection;
mod runs;
mod search;
pub mod status;

pub use allocator::{Allocator, Outcome, Verdict};
pub use claim::{Backend, Claim, Classes, SharingTerms};
pub use context::{Context, Stranger};
pub use decision::{Decision, Granted, Released};
pub use holds::Hold;
pub use pools::{FamilyUsage, PoolUsage};
pub use rejection::{Asked, Obstacle, Refusal, Rejection, SharingObstacle};
