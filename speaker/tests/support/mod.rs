//! A LAN of network namespaces on a bridge, and speakers in it that are told what to announce.

mod lan;
mod speaker;

pub(crate) use lan::{Host, Lan};
pub(crate) use speaker::{Speaker, configuration};
