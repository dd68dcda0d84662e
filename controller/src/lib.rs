//! Gives Services of type LoadBalancer their addresses.
