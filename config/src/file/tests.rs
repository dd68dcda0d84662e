//! What a file may say, and what is said of what it may not.

use proptest::prelude::*;

use super::*;
use crate::crd::{IPAddressPool, IPAddressPoolSpec, ReservationSpec, ServiceAllocationSpec};

#[track_caller]
fn refuses(text: &str, expected: &[&str]) {
    let reading = read("lan.yaml", text.as_bytes());
    let found: Vec<_> = reading.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn reads(text: &str, expected: &[&str]) {
    let reading = read("lan.yaml", text.as_bytes());
    assert_eq!(reading.refusals, []);
    let found: Vec<_> = reading.objects.iter().map(show).collect();
    assert_eq!(found, expected);
}

fn show(object: &Object) -> String {
    let (kind, name, origin) = (object.kind(), object.name(), object.origin());
    match object {
        Object::Pool(pool) => format!("{origin} {kind} {name} {:?}", pool.ranges),
        Object::Advertisement(_) => format!("{origin} {kind} {name}"),
    }
}

/// A document of ours, of which `spec` is the sixth line.
fn pool(spec: &str) -> String {
    format!(
        "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata:\n  name: lan\nspec:\n{spec}"
    )
}

#[test]
fn says_the_place_and_the_remedy() {
    for (spec, expected) in [
        (
            "  addresses:\n  - 192.0.2.1\n  - 192.0.2.9-192.0.2.7\n",
            "lan.yaml:8:5: IPAddressPool lan: spec.addresses[1]: 192.0.2.9-192.0.2.7 runs backwards: swap the two addresses",
        ),
        (
            "  addresses: [\"::/0\"]\n",
            "lan.yaml:6:15: IPAddressPool lan: spec.addresses[0]: ::/0 is every address there is: write the part of your network that Services may use",
        ),
        (
            "  addresses: [192.0.2.1, 192.0.2.0/30]\n",
            "lan.yaml:6:26: IPAddressPool lan: spec.addresses[1]: 192.0.2.0-192.0.2.3 overlaps 192.0.2.1 in spec.addresses[0]: remove what is written twice",
        ),
        (
            "  addresses: [192.0.2.1]\n  autoAsign: true\n",
            "lan.yaml:7:3: IPAddressPool lan: spec: there is no field \"autoAsign\": did you mean \"autoAssign\"?",
        ),
        (
            "  addresses: [192.0.2.1]\n  serviceAllocation: {namespaceSelectors: [{matchLabel: {a: b}}]}\n",
            "lan.yaml:7:45: IPAddressPool lan: spec.serviceAllocation.namespaceSelectors[0]: there is no field \"matchLabel\": did you mean \"matchLabels\"?",
        ),
        (
            "  addresses: [192.0.2.1]\n  bgp: true\n",
            "lan.yaml:7:3: IPAddressPool lan: spec: there is no field \"bgp\": write one of addresses, autoAssign, avoidBuggyIPs, disabled, holdAfterDeletion, onInUse, quota, reservations, serviceAllocation",
        ),
        (
            "  addresses: [192.0.2.1]\n  autoAssign: yes\n",
            "lan.yaml:7:15: IPAddressPool lan: spec.autoAssign: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "  addresses: [192.0.2.1]\n  onInUse: keep\n",
            "lan.yaml:7:12: IPAddressPool lan: spec.onInUse: unknown variant `keep`, expected `Keep` or `Reassign`",
        ),
        (
            "  addresses: [192.0.2.1]\n  addresses: [192.0.2.2]\n",
            "lan.yaml:7:3: the key \"addresses\" is written twice in this mapping: remove one",
        ),
        (
            "  {}\n",
            "lan.yaml:6:3: IPAddressPool lan: spec: addresses is missing: write it",
        ),
        (
            "  addresses: [192.0.2.1]\n  reservations: [{address: 192.0.2.2, service: media/tv}]\n",
            "lan.yaml:7:28: IPAddressPool lan: spec.reservations[0].address: 192.0.2.2 is not in spec.addresses: reserve an address that the pool has",
        ),
        (
            "  addresses: [192.0.2.1]\n  serviceAllocation: {priority: -1}\n",
            "lan.yaml:7:33: IPAddressPool lan: spec.serviceAllocation.priority: the priority -1 is not from 0 to 4294967295: lower is tried first, 0 is last",
        ),
        (
            "  addresses: [192.0.2.1]\n  serviceAllocation: {serviceSelectors: [{matchExpressions: [{key: a, operator: Is}]}]}\n",
            "lan.yaml:7:42: IPAddressPool lan: spec.serviceAllocation.serviceSelectors[0]: \"Is\" is not an operator of a label selector: write In, NotIn, Exists or DoesNotExist",
        ),
    ] {
        refuses(&pool(spec), &[expected]);
    }
}

#[test]
fn every_mistake_of_a_document_is_said_at_once() {
    refuses(
        &pool("  addresses: [x, 192.0.2.7/24]\n  disable: true\n"),
        &[
            "lan.yaml:7:3: IPAddressPool lan: spec: there is no field \"disable\": did you mean \"disabled\"?",
            "lan.yaml:6:15: IPAddressPool lan: spec.addresses[0]: \"x\" is not a range of addresses: write a range (192.0.2.10-192.0.2.20), a prefix (192.0.2.0/28) or one address",
            "lan.yaml:6:18: IPAddressPool lan: spec.addresses[1]: 192.0.2.7/24 is inside the prefix 192.0.2.0/24: write 192.0.2.0/24 for all of it, or 192.0.2.7 for the one address",
        ],
    );
}

#[test]
fn a_bad_document_harms_no_other() {
    let good = pool("  addresses: [192.0.2.1]\n");
    let text = format!("apiVersion: [\n---\n{good}---\n\tx: y\n--- # done\n'unclosed\n");
    let reading = read("lan.yaml", text.as_bytes());
    assert_eq!(reading.objects.len(), 1);
    assert_eq!(reading.objects[0].origin().to_string(), "lan.yaml:3");
    let lines: Vec<_> = reading
        .refusals
        .iter()
        .filter_map(|refusal| refusal.place.map(|place| place.line))
        .collect();
    assert_eq!(lines, [1, 10, 12]);
}

#[test]
fn what_metallb_reads_is_read_as_it_is() {
    reads(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: first-pool, namespace: metallb-system}\nspec:\n  addresses: [192.168.10.7/24, 192.168.9.1-192.168.9.5, \"fc00:f853:0ccd:e799::/124\"]\n  autoAssign: false\n---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: example, namespace: metallb-system}\n",
        &[
            "lan.yaml:1 IPAddressPool first-pool [AddressRange { first: 192.168.10.0, last: 192.168.10.255 }, AddressRange { first: 192.168.9.1, last: 192.168.9.5 }, AddressRange { first: fc00:f853:ccd:e799::, last: fc00:f853:ccd:e799::f }]",
            "lan.yaml:8 L2Advertisement example",
        ],
    );
    refuses(
        "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: x}\n",
        &[
            "lan.yaml:2:7: kind BGPPeer is about BGP: Foghorn announces by ARP and NDP only, remove the document",
        ],
    );
    refuses(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: x}\nspec: {addresses: [192.0.2.1], reservations: []}\n",
        &[
            "lan.yaml:4:32: IPAddressPool x: spec: there is no field \"reservations\": write one of addresses, autoAssign, avoidBuggyIPs, serviceAllocation",
        ],
    );
}

#[test]
fn what_kubectl_prints_is_read() {
    reads(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: foghorn.dev/v1alpha1\n  kind: L2Advertisement\n  metadata: {name: a, creationTimestamp: null, uid: x}\n  spec: {}\n  status: {}\n- apiVersion: foghorn.dev/v1alpha1\n  kind: L2Advertisement\n  metadata: {name: b}\n",
        &[
            "lan.yaml:4 L2Advertisement a",
            "lan.yaml:9 L2Advertisement b",
        ],
    );
    reads(
        "{\"apiVersion\": \"foghorn.dev/v1alpha1\", \"kind\": \"L2Advertisement\", \"metadata\": {\"name\": \"a\"}}",
        &["lan.yaml:1 L2Advertisement a"],
    );
}

#[test]
fn the_second_of_one_name_points_at_both() {
    let text = pool("  addresses: [192.0.2.1]\n");
    refuses(
        &format!("{text}---\n{text}"),
        &[
            "lan.yaml:11:9: IPAddressPool lan: metadata.name: the same name is in lan.yaml:1 too, which is in force: rename or remove one",
        ],
    );
}

#[test]
fn documents_of_others_are_ignored_and_typing_errors_are_not() {
    let reading = read(
        "all.yaml",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\n",
    );
    let ignored: Vec<_> = reading.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(
        ignored,
        [
            "all.yaml:1: v1 Service is not configuration of Foghorn: it is ignored",
            "all.yaml:7: apps/v1 Deployment is not configuration of Foghorn: it is ignored",
        ]
    );
    assert_eq!(reading.refusals, []);
    for (text, expected) in [
        (
            "apiVersion: foghorn.dev/v1\nkind: IPAddressPool\n",
            "lan.yaml:1:13: apiVersion foghorn.dev/v1 and kind IPAddressPool are not known here: write foghorn.dev/v1alpha1 and IPAddressPool or L2Advertisement",
        ),
        (
            "apiVersion: foghorn.de/v1alpha1\nkind: IPAddressPool\n",
            "lan.yaml:1:13: apiVersion foghorn.de/v1alpha1 and kind IPAddressPool are not known here: write foghorn.dev/v1alpha1 and IPAddressPool or L2Advertisement",
        ),
        (
            "apiVersion: foghorn.dev/v1alpha1\nkind: IPAdressPool\n",
            "lan.yaml:2:7: \"IPAdressPool\" is none of IPAddressPool, L2Advertisement",
        ),
        (
            "kind: IPAddressPool\n",
            "lan.yaml:1:1: this is not an object of Kubernetes: begin it with apiVersion and kind",
        ),
        (
            "- just\n- a list\n",
            "lan.yaml:1:1: this is not an object of Kubernetes: begin it with apiVersion and kind",
        ),
        (
            "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nspec: {addresses: [192.0.2.1]}\n",
            "lan.yaml:1:1: IPAddressPool: metadata.name is missing: write it",
        ),
        (
            "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: 7}\n",
            "lan.yaml:3:18: IPAddressPool: a name is a text: put it in quotes",
        ),
        (
            "apiVersion: foghorn.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: Lan_1}\n",
            "lan.yaml:3:18: L2Advertisement Lan_1: metadata.name: \"Lan_1\" is not a name: write at most 253 of lower case letters, digits, '-' and '.', beginning and ending with a letter or digit",
        ),
    ] {
        refuses(text, &[expected]);
    }
}

#[test]
fn bombs_are_refused_at_once() {
    let deep = format!("x: {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let many = "- x\n".repeat(200_000);
    let simplify =
        "the document is nested or aliased beyond what any configuration needs: simplify it";
    for text in [deep, laughs, many] {
        let refusals = read("bomb.yaml", text.as_bytes()).refusals;
        assert_eq!(refusals[0].reason.to_string(), simplify);
    }
    let separators = "---\n".repeat(200_000);
    assert_eq!(read("bomb.yaml", separators.as_bytes()), Reading::default());
    let mistakes = "---\nx: [\n".repeat(100_000);
    let refusals = read("bomb.yaml", mistakes.as_bytes()).refusals;
    assert_eq!(
        (refusals.len(), refusals[MOST_REFUSALS].to_string().as_str()),
        (
            MOST_REFUSALS + 1,
            "bomb.yaml:202:4: there are more mistakes than are listed: correct these first"
        )
    );
    let huge = vec![b'#'; 10 << 20];
    let refusals = read("huge.yaml", &huge).refusals;
    assert_eq!(
        refusals[0].to_string(),
        "huge.yaml:1:1: the file has more than 1048576 bytes: split it"
    );
    let refusals = read("latin1.yaml", b"a: b\nname: K\xf6ln\n").refusals;
    assert_eq!(
        refusals[0].to_string(),
        "latin1.yaml:2:8: the file is not text in UTF-8: save it as such"
    );
}

#[test]
fn a_place_covers_the_very_text() {
    let text = format!(
        "\u{feff}# Köln\n---\n{}",
        pool("  addresses: [192.0.2.1, \"192.0.2.9-192.0.2.7\"]\r\n")
    );
    let refusals = read("lan.yaml", text.as_bytes()).refusals;
    let place = refusals[0].place.unwrap();
    assert_eq!((place.line, place.column), (8, 26));
    assert_eq!(&text[place.start..place.end], "\"192.0.2.9-192.0.2.7\"");
}

fn any_spec() -> impl Strategy<Value = IPAddressPoolSpec> {
    let word = "[a-z]{1,8}|yes|no|on|null|1|1e3|0x1";
    let allocation =
        (0..5_i64, proptest::collection::vec(word, 0..3)).prop_map(|(priority, namespaces)| {
            ServiceAllocationSpec {
                priority,
                namespaces,
                ..ServiceAllocationSpec::default()
            }
        });
    (
        proptest::collection::vec(0..60_u8, 1..5),
        any::<[bool; 4]>(),
        proptest::option::of(allocation),
        (word, word),
    )
        .prop_map(
            |(ends, [auto, buggy, disabled, reserve], allocation, (namespace, name))| {
                let addresses = ends.iter().zip(0_u8..).map(|(&width, block)| match width {
                    0..20 => format!("192.0.2.{}-192.0.2.{}", block * 50, block * 50 + width),
                    20..40 => format!("2001:db8:{block}::/{}", width + 80),
                    _ => format!("198.51.100.{block}"),
                });
                let addresses: Vec<String> = addresses.collect();
                let first = addresses[0].split(['-', '/']).next().unwrap().to_owned();
                let reservation = ReservationSpec {
                    address: first,
                    service: format!("{namespace}/{name}"),
                };
                IPAddressPoolSpec {
                    addresses,
                    auto_assign: auto,
                    avoid_buggy_ips: buggy,
                    disabled,
                    service_allocation: allocation,
                    reservations: reserve.then_some(reservation).into_iter().collect(),
                    ..IPAddressPoolSpec::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_as_the_same(spec in any_spec(), name in "[a-z]{1,5}|yes|no|null|true") {
        let text = serde_yaml::to_string(&IPAddressPool::new(&name, spec.clone())).unwrap();
        let reading = read("x", text.as_bytes());
        prop_assert_eq!(&reading.refusals, &[], "{}", text);
        let origin = Origin::File { path: "x".into(), line: 1 };
        let expected = spec.to_pool(&name, Labels::new(), origin).unwrap();
        prop_assert_eq!(reading.objects, vec![Object::Pool(Arc::new(expected))]);
    }

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        read("x", &octets);
    }

    #[test]
    fn no_text_makes_it_panic_and_places_are_inside(
        parts in proptest::collection::vec(
            "apiVersion: foghorn.dev/v1alpha1\n|kind: IPAddressPool\n|metadata: |\\{name: a\\}\n|spec: |addresses: |\\[|\\]|- |\n|  |: |&a |\\*a |'|\"|---\n|192.0.2.1|-192.0.2.0|#|!t |\\| |> |ö|\t|\\? ",
            0..25,
        )
    ) {
        let text = parts.concat();
        for refusal in read("x", text.as_bytes()).refusals {
            let place = refusal.place.unwrap();
            prop_assert!(place.start <= text.len() && place.end <= text.len(), "{place:?} {text:?}");
            prop_assert!(text.get(place.start..place.end).is_some(), "{place:?} {text:?}");
            prop_assert!((place.line as usize) <= text.split(['\n', '\r']).count(), "{place:?} {text:?}");
        }
    }
}
