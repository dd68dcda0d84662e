//! Which of several writers is in force.

use proptest::prelude::*;

use super::*;
use crate::file;
use crate::snapshot::{Dirty, Snapshot};

/// A catalogue, and the snapshot that its changes make.
#[derive(Default)]
struct World {
    catalogue: Catalogue,
    snapshot: Snapshot,
}

impl World {
    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.snapshot.apply(change, &mut Dirty::default());
        }
    }

    fn file(&mut self, path: &str, text: &str) {
        let reading = file::read(path, text.as_bytes());
        let changes = self.catalogue.read_file(&path.into(), reading);
        self.apply(changes);
    }

    fn cluster(&mut self, writer: Writer, name: &str, address: &str) {
        let origin = Origin::from(&writer);
        let kind = Kind::Pool;
        let slot = Slot {
            writer,
            kind,
            name: name.into(),
        };
        let spec = serde_json::json!({"addresses": [address]});
        let group = crate::declaration::Group::Foghorn;
        let object = crate::declaration::read(
            group,
            kind,
            name,
            crate::selector::Labels::new(),
            spec,
            origin,
        );
        let change = self.catalogue.declare(slot, Ok(object.unwrap()));
        self.apply(change);
    }

    fn withdraw(&mut self, writer: Writer, name: &str) {
        let change = self.catalogue.withdraw(&Slot {
            writer,
            kind: Kind::Pool,
            name: name.into(),
        });
        self.apply(change);
    }

    #[track_caller]
    fn has(&self, pools: &[&str], refusals: &[&str]) {
        let found: Vec<_> = self
            .snapshot
            .pools()
            .values()
            .map(|pool| format!("{} {} ({})", pool.name, pool.ranges[0], pool.origin))
            .collect();
        assert_eq!(found, pools);
        let found: Vec<_> = self
            .catalogue
            .refusals()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, refusals);
    }
}

fn document(name: &str, address: &str) -> String {
    format!(
        "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: {{addresses: [{address}]}}\n---\n"
    )
}

#[test]
fn the_first_writer_wins_and_the_next_one_follows_when_it_goes() {
    let metallb = || Writer::MetalLb("metallb-system".into());
    let mut world = World::default();
    world.file("b.yaml", &document("lan", "192.0.2.4"));
    world.file("a.yaml", &document("lan", "192.0.2.3"));
    world.has(
        &["lan 192.0.2.3 (a.yaml:1)"],
        &[
            "b.yaml:1: IPAddressPool lan: the same name is in a.yaml:1 too, which is in force: rename or remove one",
        ],
    );
    world.cluster(metallb(), "lan", "192.0.2.2");
    world.cluster(Writer::Cluster, "lan", "192.0.2.1");
    let in_cluster = "IPAddressPool lan: the same name is in the cluster too, which is in force: rename or remove one";
    world.has(
        &["lan 192.0.2.1 (the cluster)"],
        &[
            &format!("metallb.io in the namespace metallb-system: {in_cluster}"),
            &format!("a.yaml:1: {in_cluster}"),
            &format!("b.yaml:1: {in_cluster}"),
        ],
    );
    world.withdraw(Writer::Cluster, "lan");
    world.withdraw(metallb(), "lan");
    world.file("a.yaml", "");
    world.has(&["lan 192.0.2.4 (b.yaml:1)"], &[]);
}

#[test]
fn the_last_good_version_stays_until_the_document_goes() {
    let mut world = World::default();
    world.file(
        "a.yaml",
        &(document("x", "192.0.2.1") + &document("y", "192.0.2.2")),
    );
    world.file(
        "a.yaml",
        &(document("x", "192.0.2.9-192.0.2.1") + &document("y", "192.0.2.3")),
    );
    let refusal = "a.yaml:4:20: IPAddressPool x: spec.addresses[0]: 192.0.2.9-192.0.2.1 runs backwards: swap the two addresses";
    world.has(
        &["x 192.0.2.1 (a.yaml:1)", "y 192.0.2.3 (a.yaml:6)"],
        &[refusal],
    );
    world.file("a.yaml", &document("y", "192.0.2.3"));
    world.has(&["y 192.0.2.3 (a.yaml:1)"], &[]);
}

#[test]
fn a_file_that_cannot_be_read_takes_nothing_out() {
    let mut world = World::default();
    world.file("a.yaml", &document("x", "192.0.2.1"));
    let reading = file::unreadable("a.yaml", "Permission denied");
    let changes = world.catalogue.read_file(&"a.yaml".into(), reading);
    world.apply(changes);
    world.has(
        &["x 192.0.2.1 (a.yaml:1)"],
        &["a.yaml:1:1: the file cannot be read: Permission denied"],
    );
}

#[test]
fn documents_about_bgp_hold_nothing_in_force() {
    let bgp = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: x}\n";
    let mut world = World::default();
    world.file("a.yaml", &(document("x", "192.0.2.1") + bgp));
    world.file("a.yaml", &(document("y", "192.0.2.1") + bgp));
    world.has(
        &["y 192.0.2.1 (a.yaml:1)"],
        &[
            "a.yaml:7:7: kind BGPPeer is about BGP: Foghorn announces by ARP and NDP only, remove the document",
        ],
    );
}

/// Something that a writer does to a pool.
#[derive(Clone, Debug)]
enum Step {
    Declare(u8),
    Refuse,
    Withdraw,
}

proptest! {
    /// Whatever happened before, the first writer that has a good version of a name is in force.
    #[test]
    fn only_what_is_declared_counts_not_how_it_came_to_be(
        steps in proptest::collection::vec(
            (0..4_usize, 0..2_usize, prop_oneof![
                (1..4_u8).prop_map(Step::Declare), Just(Step::Refuse), Just(Step::Withdraw),
            ]),
            0..40,
        )
    ) {
        let writers = [
            Writer::Cluster,
            Writer::MetalLb("a".into()),
            Writer::MetalLb("b".into()),
            Writer::File("lan.yaml".into()),
        ];
        let names = ["x", "y"];
        let mut world = World::default();
        let mut declared: BTreeMap<(usize, usize), u8> = BTreeMap::new();
        for (writer, name, step) in steps {
            match step {
                Step::Declare(address) => {
                    declared.insert((name, writer), address);
                    let address = format!("192.0.2.{address}");
                    world.cluster(writers[writer].clone(), names[name], &address);
                }
                Step::Refuse => {
                    let slot = Slot {
                        writer: writers[writer].clone(),
                        kind: Kind::Pool,
                        name: names[name].into(),
                    };
                    let change = world.catalogue.declare(slot, Err(Vec::new()));
                    world.apply(change);
                }
                Step::Withdraw => {
                    declared.remove(&(name, writer));
                    world.withdraw(writers[writer].clone(), names[name]);
                }
            }
            let mut expected: BTreeMap<&str, String> = BTreeMap::new();
            for (&(name, _), address) in &declared {
                let address = format!("192.0.2.{address}");
                expected.entry(names[name]).or_insert(address);
            }
            let found: BTreeMap<&str, String> = world
                .snapshot
                .pools()
                .values()
                .map(|pool| (pool.name.as_str(), pool.ranges[0].to_string()))
                .collect();
            prop_assert_eq!(found, expected);
            let duplicates = declared.len() - world.snapshot.pools().len();
            prop_assert_eq!(world.catalogue.refusals().len(), duplicates);
        }
    }
}
