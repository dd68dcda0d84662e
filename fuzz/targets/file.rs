//! Configuration files: whatever is in one, it is read or refused document by document.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let _ = config::file::read("pools.yaml", octets);
});
