//! A simulated LAN of speakers: faults in any order, laws at every step.
//!
//! `FOGHORN_SIMULATION_SEEDS=N` runs seeds 0 to N; `FOGHORN_SIMULATION_SEED=N` runs that one and prints its log.

#![expect(
    unreachable_pub,
    reason = "the modules of a test are reached from the test alone"
)]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here is a failing test, in helpers as well"
)]

mod faults;
mod many;
mod partitions;
mod planned;
mod setup;
mod stories;
#[path = "../support/mod.rs"]
mod support;
