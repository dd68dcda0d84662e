//! The shell that the programs share: watches, lease, events, health, metrics, telemetry.
