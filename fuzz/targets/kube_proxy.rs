//! kube-proxy's configuration file: whatever is in it, it is read or refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let _ = config::kube_proxy::read("config.conf", octets);
});
