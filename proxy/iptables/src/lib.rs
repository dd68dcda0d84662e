//! The iptables data plane: the forwarding table as chains, sent through `iptables-restore`.
//!
//! [`Program`] says what the kernel should hold and [`Program::walk`] what packets meet there; [`Program::diff`] says which
//! lines lead from one to the other. [`Kernel`] reads and applies, with the programs of iptables and either of their back
//! ends. [`Iptables`] is all of it together.
//!
//! The shape is the one that users of kube-proxy know: `FOGHORN-SERVICES` leads to a chain per port of a Service
//! (`FOGHORN-SVC-…`), which leads by lot to a chain per endpoint (`FOGHORN-SEP-…`). What differs: addresses are found through a
//! tree of prefixes instead of one long list, and what `nat` leaves alone is dropped or rejected in `filter`.

mod kernel;
pub mod kube_proxy;
mod plane;
mod program;
mod rule;
mod text;

pub use kernel::{Backend, BackendError, Found, Kernel, KernelError, LacksIpv6, Why, is_installed};
pub use plane::{Iptables, RuleCount};
pub use program::{Block, Change, Hook, Mirror, Program, Ruleset, Step, Style, Table};
pub use rule::{InterfaceMatch, Mark, MarkMatch, Probability, Recent, Rule, States, Target};
