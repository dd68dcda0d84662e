//! What traffic to a Service must meet: the forwarding table and its verdict.
