//! Heartbeats: datagrams of strangers, and the bodies that a holder of the key could send.

#![no_main]

use speaker_announcer::heartbeat::{Heartbeat, LONGEST};
use speaker_announcer::{Key, Keyring};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let Ok(key) = Key::new(&[7; 32]) else { return };
    let keys = Keyring::new(key, None);
    assert!(
        Heartbeat::open(octets, &keys).is_err(),
        "a stranger is believed"
    );
    if let Ok(heartbeat) = Heartbeat::open(&keys.seal(octets), &keys) {
        let sealed = heartbeat.seal(&keys);
        assert!(sealed.len() <= LONGEST);
        assert_eq!(Heartbeat::open(&sealed, &keys), Ok(heartbeat));
    }
});
