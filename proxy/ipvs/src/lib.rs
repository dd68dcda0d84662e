//! The IPVS data plane: the forwarding table as virtual servers, behind the rules of the nftables data plane.
//!
//! The rules decide what is rejected, dropped and masqueraded, as they do where they forward themselves; what they leave
//! ([`proxy_nftables::left_to_ipvs`]) meets the virtual servers of a [`Program`]. [`Mirror`] turns the changes of the table
//! into [`Command`]s whose number follows them, [`Draining`] lets connections end before their endpoint goes, [`Kernel`]
//! is the only IO, and [`Ipvs`] all of it together. The program `ipvsadm` is not needed.
//!
//! IPVS sees only what is delivered to the node. Each address of a Service is therefore a local route at the interface
//! `foghorn0`, and no address of it: nobody who looks for the node's addresses finds it, and what the node itself sends
//! there has the node's own source.

mod draining;
mod kernel;
mod message;
mod plane;
mod program;

pub use draining::Draining;
pub use kernel::{KUBE_LINK, Kernel, KernelError, Retired, SettingError, SocketError, Timeouts};
pub use plane::Ipvs;
pub use program::{Change, Command, Mirror, Program, Refusal, Refusals, Server, Surroundings};
