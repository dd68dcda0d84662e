//! Annotations of a Service: each line is a name, `=` and a value.

#![no_main]

use std::collections::BTreeMap;

use config::annotation::Requests;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let annotations: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let _ = Requests::read(&annotations, text.lines().next());
});
