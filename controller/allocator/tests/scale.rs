//! The cost follows the change, not the number of Services or the size of pools.

mod support;
use std::time::{Duration, Instant};

use support::*;

/// Far more than a change takes, far less than one that looks at everything.
const ONE_CHANGE: Duration = Duration::from_millis(20);

#[test]
fn ten_thousand_services_and_a_huge_pool() {
    let mut allocator = settled(
        context(vec![pool("huge", &["10.0.0.0/8", "2001:db8::/64"])]),
        vec![],
    );
    for number in 0..10_000 {
        allocator.claim(claim(&format!("a/{number}"), DUAL));
    }
    assert_eq!(allocator.settle().len(), 10_000);
    let mut slowest = Vec::new();
    for number in 0..100 {
        let begin = Instant::now();
        let service = format!("a/{}", number * 97);
        allocator.withdraw(&key(&service));
        step(&mut allocator, claim(&service, DUAL));
        step(&mut allocator, claim(&format!("b/{number}"), V4));
        slowest.push(begin.elapsed());
    }
    slowest.sort();
    assert!(slowest[50] < ONE_CHANGE, "{:?}", slowest[50]);
    let usage = allocator.usage().next().map(|(_, usage)| usage);
    assert_eq!(usage.map(|usage| usage.v4.assigned), Some(10_100));
    assert_eq!(answer(&allocator, "b/99").0, "10.0.39.115");
}
