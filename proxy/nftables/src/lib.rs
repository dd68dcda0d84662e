//! The nftables data plane: the forwarding table as elements of sets and maps, sent over netlink.
//!
//! [`Program`] says what the kernel should hold and [`Program::walk`] what packets meet there; [`Mirror`] turns the
//! changes of the table into a [`Change`] whose cost follows them; [`Kernel`] reads and applies. [`Nftables`] is all
//! of it together. Rules never change with the Services: a frontend is one element that names its class, and a class
//! is a chain for all frontends with as many endpoints. The program `nft` is not needed, and can print and reload all.
//!
//! [`SendOn`] has a table of its own: what becomes of connections that were there before a VIP moved to this node.

mod kernel;
mod netlink;
mod plane;
mod program;
mod send_on;

pub use kernel::{Kernel, KernelError, SocketError, wait_for_packets_on_their_way};
pub use netlink::attribute;
pub use netlink::expression::{CtKey, Expression, MetaKey, PayloadBase, Register, RuleVerdict};
pub use plane::Nftables;
pub use program::{
    Change, ChangedFrontend, Choice, Class, EndpointName, Forwarder, Item, Key,
    LONGEST_AFFINITY_SECONDS, LeftFlows, MOST_ENDPOINTS, Masqueraded, Mirror, Program, Rule, Side,
    Slot, Value, bound, changed_frontends, effective, left_to_ipvs,
};
pub use send_on::{Goals, SendOn};
