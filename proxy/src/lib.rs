//! Forwards what lands on a Service to its endpoints.
