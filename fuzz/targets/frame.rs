//! Frames: whatever is read is written again as it was, and read as the same.

#![no_main]

use speaker_announcer::packet::Frame;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    if let Ok(frame) = Frame::parse(octets) {
        let written = frame.emit();
        assert_eq!(Frame::parse(&written), Ok(frame));
    }
});
