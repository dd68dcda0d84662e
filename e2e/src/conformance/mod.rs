//! Kubernetes' own end-to-end tests, run against the lab.

mod compare;
mod report;
mod skip;
mod suite;

pub(crate) use compare::compare;
pub(crate) use suite::{Selection, run};
