//! What each question answers about one and the same cluster.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use cli::cluster::Cluster;
use cli::files::File;
use cli::{dump, plan, pools, status, why};
use controller_allocator::Classes;
use jiff::Timestamp;

fn cluster() -> Cluster {
    Cluster::read(dump::objects(include_bytes!("data/cluster.yaml")).unwrap())
}

fn now() -> Timestamp {
    "2026-01-01T00:10:11Z".parse().unwrap()
}

fn file(content: &str) -> Vec<File> {
    vec![File {
        path: "lan.yaml".into(),
        content: Ok(content.into()),
    }]
}

#[test]
fn status_shows_what_is_wrong_first() {
    let status = status::status(&cluster(), &Classes::default(), None, now());
    assert_eq!(
        status.text(now()),
        "\
2 problems:
  ! IPAddressPool wrong: spec.addresses[0]: 192.0.2.9-192.0.2.7 runs backwards
    to do: swap the two addresses
  ! default/api: no address: asked for an IPv4 address: pool lab serves only Services that ask for it (autoAssign: false); pool lan has no free IPv4 address: 1 of 2 in use, 1 reserved or of others
    to do: add a range to a pool, or delete a Service that needs no address

Controller  controller-a leads (Lease foghorn-system/foghorn-controller, renewed 6s ago)

POOL  SERVES      IPV4 IN USE  FREE  IPV6 IN USE  FREE    ADDRESSES
lab   on request  0 of 1       1     0 of 1.8e19  1.8e19  2001:db8::/64, 192.0.2.250
lan   everybody   1 of 2       0     -            -       192.0.2.240/31

NAMESPACE  SERVICE  ADDRESS      POOL  ANNOUNCED BY  SINCE  READY
default    api      <pending>    -     -             -      0
default    other    <not ours>   -     -             -      0
default    web      192.0.2.240  lan   node-2        10s    1
"
    );
}

#[test]
fn a_lease_that_ran_out_is_a_problem() {
    let later: Timestamp = "2026-01-01T00:11:00Z".parse().unwrap();
    let status = status::status(&cluster(), &Classes::default(), Some("media"), later);
    assert_eq!(
        status
            .problems
            .first()
            .map(|problem| problem.problem.as_str()),
        Some(
            "nobody leads: the Lease foghorn-system/foghorn-controller was renewed 55s ago for the last time"
        )
    );
    assert_eq!(status.services, []);
}

/// What `status --watch` shows: time goes by on the screen though nothing happens.
#[test]
fn a_screen_that_is_shown_again_says_how_much_later_it_is_and_nothing_else() {
    let screen = |now: &str| {
        let now: Timestamp = now.parse().unwrap();
        status::status(&cluster(), &Classes::default(), None, now).text(now)
    };
    let first = screen("2026-01-01T00:10:11Z");
    assert_eq!(screen("2026-01-01T00:10:11Z"), first);
    let later = first
        .replace("renewed 6s ago", "renewed 9s ago")
        .replace("node-2        10s ", "node-2        13s ");
    assert_ne!(later, first);
    assert_eq!(screen("2026-01-01T00:10:14Z"), later);
}

#[test]
fn pools_say_who_has_what() {
    let cluster = cluster();
    let pools = pools::pools(&cluster, &cluster.decide(&Classes::default()));
    assert_eq!(
        pools.text(),
        "\
POOL  SERVES      IPV4 IN USE  FREE  IPV6 IN USE  FREE    ADDRESSES
lab   on request  0 of 1       1     0 of 1.8e19  1.8e19  2001:db8::/64, 192.0.2.250
lan   everybody   1 of 2       0     -            -       192.0.2.240/31

lan (the cluster)
  ADDRESS      SERVICE
  192.0.2.240  default/web
  192.0.2.241  reserved for media/jellyfin
"
    );
}

#[track_caller]
fn explains(service: &str, expected: &str) {
    let why = why::why(
        &cluster(),
        &Classes::default(),
        &service.parse().unwrap(),
        now(),
    );
    assert_eq!(why.unwrap().text(now()), expected);
}

#[test]
fn why_tells_the_whole_decision() {
    explains(
        "default/web",
        "\
default/web has 192.0.2.240.

What it asks for
  its type is LoadBalancer
  it names no class, and such Services are served
  it wants IPv4 (SingleStack)

What it has
  192.0.2.240 of pool lan, for 10m

What each pool says
  - lab (IPv4): serves only Services that ask for it (autoAssign: false)
  + lan (IPv4): has given 192.0.2.240

Who announces it
  192.0.2.240: node-2 (eth0, 02:00:00:00:00:02), as the last Event about it says, 10s ago
  192.0.2.240: no advertisement is about its pool: every node may announce it

Endpoints
  node-1: 1 ready
  node-2: 0 ready, 1 not ready

What happened lately
  10s ago  AddressReceived: Announcing 192.0.2.240 from node node-2 (eth0, 02:00:00:00:00:02): received 192.0.2.240 from node-1
  11s ago  AddressHandedOver: node-1: handed 192.0.2.240 over to node-2: this node shuts down
  10m ago  AddressAcquired: Announcing 192.0.2.240 from node node-1 (eth0, 02:00:00:00:00:01)
",
    );
    explains(
        "default/api",
        "\
default/api has no address.

What it asks for
  its type is LoadBalancer
  it names no class, and such Services are served
  it wants IPv4 (SingleStack)

What it lacks
  asked for an IPv4 address: pool lab serves only Services that ask for it (autoAssign: false); pool lan has no free IPv4 address: 1 of 2 in use, 1 reserved or of others
  to do: add a range to a pool, or delete a Service that needs no address

What each pool says
  - lab (IPv4): serves only Services that ask for it (autoAssign: false)
  - lan (IPv4): has no free IPv4 address: 1 of 2 in use, 1 reserved or of others

Who announces it
  no endpoint is known: as long as there is none, no node announces
",
    );
}

#[test]
fn why_says_who_is_not_served() {
    explains(
        "default/other",
        "\
default/other is left to somebody else.

What it asks for
  its type is LoadBalancer
  its class example.com/cloud is not served: the controller serves foghorn.dev/foghorn (--load-balancer-class, and here too)
",
    );
    explains(
        "default/inner",
        "\
default/inner gets no external address: it is not of type LoadBalancer.

What it asks for
  its type is ClusterIP
",
    );
    let nobody = "default/nobody".parse().unwrap();
    assert_eq!(
        why::why(&cluster(), &Classes::default(), &nobody, now()),
        None
    );
}

const POOL: &str =
    "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: lan}\nspec:\n  ";

#[track_caller]
fn plans(spec: &str, prune: bool, hurts: bool, expected: &str) {
    let files = file(&format!("{POOL}{spec}\n"));
    let plan = plan::plan(&cluster(), &files, prune, &Classes::default());
    assert_eq!(plan.text(), expected);
    assert_eq!(plan.hurts(), hurts);
}

#[test]
fn a_plan_says_who_gains_keeps_and_changes() {
    plans(
        "addresses: [192.0.2.240-192.0.2.243]",
        false,
        false,
        "\
changed: IPAddressPool lan

SERVICE      WOULD  NOW  THEN         WHY
default/api  gains  -    192.0.2.241  from pool lan

Of 2 Services 1 would gain addresses, 1 would keep what they have.
",
    );
    plans(
        "addresses: [192.0.2.242]",
        true,
        false,
        "\
changed: IPAddressPool lan
deleted: IPAddressPool lab
deleted: IPAddressPool wrong

SERVICE      WOULD            NOW          THEN         WHY
default/web  keeps, although  192.0.2.240  192.0.2.240  192.0.2.240 stays although it is in no pool
default/api  gains            -            192.0.2.242  from pool lan

Of 2 Services 1 would gain addresses, 1 would keep what they have.
",
    );
    plans(
        "{addresses: [192.0.2.242], onInUse: Reassign}",
        false,
        true,
        "\
changed: IPAddressPool lan

SERVICE      WOULD    NOW          THEN         WHY
default/web  changes  192.0.2.240  192.0.2.242  from pool lan
default/api  lacks    -            -            asked for an IPv4 address: pool lab serves only Services that ask for it (autoAssign: false); pool lan has no free IPv4 address: 1 of 1 in use. To do: add a range to a pool, or delete a Service that needs no address

Of 2 Services 1 would change addresses, 1 would lack something.
",
    );
    plans(
        "{addresses: [192.0.2.240-192.0.2.241], reservations: [{address: 192.0.2.241, service: media/jellyfin}]}",
        false,
        false,
        "\
The cluster has all of it already.

SERVICE      WOULD  NOW  THEN  WHY
default/api  lacks  -    -     as now: asked for an IPv4 address: pool lab serves only Services that ask for it (autoAssign: false); pool lan has no free IPv4 address: 1 of 2 in use, 1 reserved or of others. To do: add a range to a pool, or delete a Service that needs no address

Of 2 Services 1 would lack something, 1 would keep what they have.
",
    );
}
