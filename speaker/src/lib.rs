//! Announces the addresses of Services on the LAN: the shell around [`speaker_announcer::Announcer`].
//!
//! [`compile`] turns the snapshot into what the machine is told; [`engine`] is the thread that feeds and flushes the
//! machine; [`wire`] and [`interfaces`] are its sockets. [`doctor`] needs none of this. The rest tells it what the node knows of itself, and tells others
//! what it says.

pub mod arguments;
pub mod clock;
pub mod compile;
pub mod doctor;
pub mod engine;
pub mod feed;
pub mod interfaces;
pub mod judge;
pub mod key_file;
pub mod metrics;
pub mod probe;
pub mod proxy_health;
pub mod proxy_socket;
pub mod real_time;
pub mod record;
pub mod status;
pub mod tell;
pub mod wire;
