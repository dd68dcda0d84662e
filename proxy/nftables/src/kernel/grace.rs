//! The end of what packets are in the middle of.

use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

/// Waits until every packet has left the rules that it was in the middle of, on all processors.
///
/// The rules of netfilter are read under RCU, and `membarrier` waits for one of its grace periods.
pub fn wait_for_packets_on_their_way() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // A kernel without it, or with processors that must not be disturbed: a packet takes microseconds.
        thread::sleep(LONG_FOR_A_PACKET);
    }
}

const LONG_FOR_A_PACKET: Duration = Duration::from_millis(20);
