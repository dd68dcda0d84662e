//! Gives Services of type LoadBalancer their addresses.
//!
//! [`controller_allocator`] decides; this package feeds it with what the API server says and writes what it decides.
//! Only the leader watches Services, and it begins by listing them anew, so it decides from nothing older than its
//! leadership. Everything it holds in memory derives from their statuses.
//!
//! Pure: [`observed`], [`patch`], [`writes`], [`contention`], [`conditions`], [`pools`],
//! [`advertisements`], [`strangers`]. Shell: [`leader`], [`metrics`].

pub mod advertisements;
pub mod arguments;
pub mod conditions;
pub mod contention;
pub mod leader;
pub mod metrics;
pub mod observed;
pub mod patch;
pub mod pools;
pub mod strangers;
pub mod writes;
