//! Tools that render the chart again and again, such as Argo CD and Flux, find no difference where nothing changed.

use crate::render;

#[test]
#[ignore = "needs Helm: make check-handbook"]
fn two_renderings_are_equal_when_the_key_is_named() {
    for arguments in EVERYTHING {
        let arguments = [
            *arguments,
            &["--set", "speaker.secretName=foghorn-heartbeat"],
        ]
        .concat();
        let first = render(&arguments).unwrap();
        let makes_a_key = first.contains("kind: Secret\n");
        assert!(!makes_a_key, "{arguments:?} makes a Secret");
        // Argo CD renders for ever as if it installed, Helm itself does not.
        for again in [&[][..], &["--is-upgrade"]] {
            let again = [&arguments[..], again].concat();
            let differing = differing_lines(&first, &render(&again).unwrap());
            assert_eq!(differing, [""; 0], "{again:?}");
        }
    }
}

#[test]
#[ignore = "needs Helm: make check-handbook"]
fn without_that_only_the_key_differs() {
    let (one, other) = (render(&[]).unwrap(), render(&[]).unwrap());
    let differing = differing_lines(&one, &other);
    let [line] = &differing[..] else {
        panic!("not one line differs, but {differing:#?}");
    };
    assert!(line.starts_with("  key: "), "{line}");
    let secret = one.split("---\n").find(|object| object.contains(line));
    assert!(secret.is_some_and(|object| object.contains("kind: Secret\n")));
}

/// The lines of a text that another one has not at their place; where one goes on after the other, its rest.
fn differing_lines(one: &str, other: &str) -> Vec<String> {
    let (mut one, mut other) = (one.lines(), other.lines());
    let mut differing = Vec::new();
    loop {
        match (one.next(), other.next()) {
            (None, None) => return differing,
            (one, other) if one == other => {}
            (one, other) => differing.extend(one.or(other).map(str::to_owned)),
        }
    }
}

#[test]
fn a_difference_is_seen() {
    assert_eq!(differing_lines("a\nb\nc", "a\nb\nc"), [""; 0]);
    assert_eq!(differing_lines("a\nb\nc", "a\nd\nc"), ["b"]);
    assert_eq!(differing_lines("a", "a\nb"), ["b"]);
}

/// The chart as it is, and with everything that it can make.
const EVERYTHING: &[&[&str]] = &[
    &[],
    &[
        "--include-crds",
        "--set=createNamespace=true,pool=192.0.2.0/28,proxy.enabled=true,proxy.apiServer.host=192.0.2.99",
        "--set=prometheus.enabled=true,prometheus.podMonitor.enabled=true",
        "--set=prometheus.prometheusRule.enabled=true,prometheus.dashboard.enabled=true",
        "--set-string=config=a",
    ],
    &["--set=prometheus.enabled=true,prometheus.serviceMonitor.enabled=true"],
];
