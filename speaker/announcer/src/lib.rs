//! Who answers for a VIP and what it says on the wire, as a machine without input or output.
//!
//! Start at [`Announcer`]. The shell feeds it with `handle_*` (configuration, links, fitness, heartbeats, frames,
//! the passing of time) and empties it with `poll_*` (frames and heartbeats to send, events, the next timeout):
//!
//! ```text
//! Announcer::new(Identity { node, incarnation, seed }, Keyring, Timing, now: Time) -> Announcer
//! handle_configuration(Configuration, now)          handle_link(Link, now)      handle_link_removed(LinkIndex, now)
//! handle_fitness(Fitness, now)                      handle_idle(&BTreeSet<IpAddr>, now), of those watched()
//! handle_programmed(Programmed, now)
//! handle_keys(Keyring)                              handle_shutdown(now)        handle_timeout(now)
//! handle_heartbeat(LinkIndex, &[u8], now) -> Result<(), Rejection>
//! handle_frame(LinkIndex, &[u8], now) -> Result<(), FrameError>
//! poll_transmit() -> Option<Transmit { link, payload: Payload::Frame(Vec<u8>) | Payload::Heartbeat(Vec<u8>) }>
//! poll_event() -> Option<Event>                     poll_timeout() -> Option<Time>
//! standing(IpAddr) -> Option<VipStanding>           owned() -> iterator of IpAddr
//! silent_nodes() -> &BTreeSet<NodeName>            solicited_node_groups(LinkIndex) -> BTreeSet<Ipv6Addr>
//! is_done() -> bool, after handle_shutdown
//! ```
//!
//! # How an owner is found
//!
//! Every speaker says with each heartbeat what it offers, claims and owns. A claim has a number, the *epoch*, one
//! higher than any that the claimant has heard of for this VIP; of two claims that hear each other the higher one
//! stands and the other is withdrawn at once. Everything else follows from this one rule:
//!
//! - **Planned move**: the owner says that it is *leaving* and goes on answering; the best of the others claims with
//!   the next epoch and announces; the old owner hears the higher claim and is silent from then on.
//! - **Partition**: each side serves its clients. When it heals, the later acquirer keeps the VIP: an owner that was
//!   cut off has lost its clients to the other one long ago, so this is the order that moves the fewest clients.
//! - **A machine that was stopped** and wakes up as an owner of the past hears the higher claim and withdraws.
//!
//! Equal epochs (two claims made without hearing each other) are ordered by [`election::precedence`], which depends
//! on the address and the names of the nodes only, so that speakers with different views of the API agree.
//!
//! An unplanned takeover is *fenced*: see [`Timing`] for the schedule of probes.

pub mod announcement;
mod announcer;
pub mod candidates;
pub mod configuration;
pub mod election;
pub mod event;
pub mod event_reason;
pub mod heartbeat;
pub mod link;
pub mod membership;
pub mod packet;
mod random;
pub mod standing;
pub mod table;
pub mod time;

pub use announcer::{Announcer, Identity, Payload, Transmit};
pub use candidates::{Candidate, Ineligible, PlacementKey};
pub use configuration::{Configuration, Failback, Fitness, Partition, Programmed, Timing, Vip};
pub use event::Event;
pub use event_reason::{EventReason, EventSubject};
pub use heartbeat::key::{Key, Keyring};
pub use heartbeat::rejection::Rejection;
pub use link::{Link, LinkIndex, Links};
pub use packet::{FrameError, MacAddr};
pub use standing::{Standing, VipStanding};
pub use time::Time;
