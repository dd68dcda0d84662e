//! What a speaker says to its proxy over their socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = proxy::speaker_socket::parse_line(text);
});
