//! What a run is told by its environment.

use std::env;

/// The number that a variable holds; `usual` if it holds none.
pub fn number(variable: &str, usual: u32) -> u32 {
    let given = env::var(variable).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}
