//! A LAN of speakers in virtual time.

pub mod law;
pub mod random;
pub mod segment;
