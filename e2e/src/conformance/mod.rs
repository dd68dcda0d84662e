//! Kubernetes' own end-to-end tests, run against the lab.

mod column;
mod compare;
mod report;
mod skip;
mod suite;

pub(crate) use column::Column;
pub(crate) use compare::compare;
pub(crate) use suite::{Selection, run, run_nodes};
