//! Announces the addresses of Services on the LAN.
