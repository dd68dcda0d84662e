//! What nf_tables is told, in octets: nfnetlink messages and their attributes.
//!
//! Numbers without a name beside them are those of `linux/netfilter/nf_tables.h`, in the order in which
//! `nft --debug=mnl` shows them.

pub mod attribute;
pub(crate) mod expression;
pub(crate) mod message;
