//! Pools and advertisements from several writers, and which of them are in force.
//!
//! For each name the first writer wins: a custom resource of ours in the cluster, then one of MetalLB's (by
//! namespace), then files (by path). The others are refused, visibly, and come into force when the first one goes.
//! A version that cannot be followed never replaces one that could: the last good version stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::advertisement::L2Advertisement;
use crate::declaration::{Named, Object};
use crate::file::Reading;
use crate::name::{AdvertisementName, PoolName};
use crate::pool::{Origin, Pool};
use crate::refusal::{Kind, Reason, Refusal};
use crate::snapshot::Change;

/// Who writes an object; earlier ones win.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Writer {
    /// The cluster, in our group.
    Cluster,
    /// The cluster, in MetalLB's group, in this namespace.
    MetalLb(Arc<str>),
    /// The file with this path.
    File(Arc<str>),
}

/// One object of one writer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    /// Who writes it.
    pub writer: Writer,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

/// Everything that was declared, by name and writer.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pools: Entries<Pool>,
    advertisements: Entries<L2Advertisement>,
    refused: BTreeMap<Slot, Vec<Refusal>>,
    nameless: BTreeMap<Arc<str>, Vec<Refusal>>,
}

impl Catalogue {
    /// An object came or changed; what that changes of what is in force.
    pub fn declare(&mut self, slot: Slot, object: Result<Object, Vec<Refusal>>) -> Option<Change> {
        match object {
            Ok(object) => {
                self.refused.remove(&slot);
                match object {
                    Object::Pool(pool) => self.pools.put(slot.writer, pool),
                    Object::Advertisement(advertisement) => {
                        self.advertisements.put(slot.writer, advertisement)
                    }
                }
            }
            Err(refusals) => {
                self.refused.insert(slot, refusals);
                None
            }
        }
    }

    /// An object went; what that changes of what is in force.
    pub fn withdraw(&mut self, slot: &Slot) -> Option<Change> {
        self.refused.remove(slot);
        match slot.kind {
            Kind::Pool => self.pools.take(&slot.writer, &PoolName::new(&*slot.name)),
            Kind::Advertisement => {
                let name = AdvertisementName::new(&*slot.name);
                self.advertisements.take(&slot.writer, &name)
            }
        }
    }

    /// A file was read anew; what that changes of what is in force.
    ///
    /// While a document of the file cannot even be named, nothing of that file is taken out: what seems missing may
    /// be what cannot be read.
    pub fn read_file(&mut self, path: &Arc<str>, reading: Reading) -> Vec<Change> {
        let slot = |kind, name: &str| Slot {
            writer: Writer::File(Arc::clone(path)),
            kind,
            name: name.into(),
        };
        let mut refused: BTreeMap<Slot, Vec<Refusal>> = BTreeMap::new();
        let mut nameless = Vec::new();
        for refusal in reading.refusals {
            match (refusal.kind, &refusal.name) {
                (Some(kind), Some(name)) => {
                    let slot = slot(kind, name);
                    refused.entry(slot).or_default().push(refusal);
                }
                _ => nameless.push(refusal),
            }
        }
        let mut gone = self.slots_of(&Writer::File(Arc::clone(path)));
        // What is about BGP was understood, and is none of the pools and advertisements.
        let hides_nothing = |refusal: &Refusal| matches!(refusal.reason, Reason::Bgp { .. });
        let is_readable = nameless.iter().all(hides_nothing);
        gone.retain(|slot| is_readable && !refused.contains_key(slot));
        let mut changes = Vec::new();
        for object in reading.objects {
            let slot = slot(object.kind(), object.name());
            gone.remove(&slot);
            changes.extend(self.declare(slot, Ok(object)));
        }
        for (slot, refusals) in refused {
            self.declare(slot, Err(refusals));
        }
        changes.extend(gone.iter().filter_map(|slot| self.withdraw(slot)));
        if nameless.is_empty() {
            self.nameless.remove(path);
        } else {
            self.nameless.insert(Arc::clone(path), nameless);
        }
        changes
    }

    /// Everything of one writer, in force or not.
    pub fn slots_of(&self, writer: &Writer) -> BTreeSet<Slot> {
        let slot = |kind, name: &str| Slot {
            writer: writer.clone(),
            kind,
            name: name.into(),
        };
        let pools = self.pools.names_of(writer);
        let advertisements = self.advertisements.names_of(writer);
        let refused = self.refused.keys().filter(|slot| slot.writer == *writer);
        pools
            .map(|name| slot(Kind::Pool, name.as_str()))
            .chain(advertisements.map(|name| slot(Kind::Advertisement, name.as_str())))
            .chain(refused.cloned())
            .collect()
    }

    /// Everything that is refused now, also for being the second of its name.
    pub fn refusals(&self) -> BTreeSet<Refusal> {
        let refused = self.refused.values().flatten();
        let nameless = self.nameless.values().flatten();
        let mut refusals: BTreeSet<Refusal> = refused.chain(nameless).cloned().collect();
        refusals.extend(self.pools.duplicates(Kind::Pool, PoolName::as_str));
        refusals.extend(
            self.advertisements
                .duplicates(Kind::Advertisement, AdvertisementName::as_str),
        );
        refusals
    }
}

/// The objects of one kind, by name and writer.
#[derive(Clone, Debug)]
struct Entries<T: Named> {
    by_name: BTreeMap<T::Name, BTreeMap<Writer, Arc<T>>>,
}

impl<T: Named> Default for Entries<T> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
        }
    }
}

/// A change of the object in force with a name.
trait ToChange: Named + Sized {
    fn change(name: Self::Name, value: Option<Arc<Self>>) -> Change;
}

impl ToChange for Pool {
    fn change(name: PoolName, value: Option<Arc<Self>>) -> Change {
        Change::Pool(name, value)
    }
}

impl ToChange for L2Advertisement {
    fn change(name: AdvertisementName, value: Option<Arc<Self>>) -> Change {
        Change::Advertisement(name, value)
    }
}

impl<T: ToChange + PartialEq> Entries<T> {
    fn put(&mut self, writer: Writer, object: Arc<T>) -> Option<Change> {
        let name = object.name().clone();
        let before = self.in_force(&name);
        self.by_name
            .entry(name.clone())
            .or_default()
            .insert(writer, object);
        self.compare(name, before)
    }

    fn take(&mut self, writer: &Writer, name: &T::Name) -> Option<Change> {
        let before = self.in_force(name);
        let versions = self.by_name.get_mut(name)?;
        versions.remove(writer);
        if versions.is_empty() {
            self.by_name.remove(name);
        }
        self.compare(name.clone(), before)
    }

    fn in_force(&self, name: &T::Name) -> Option<Arc<T>> {
        let versions = self.by_name.get(name)?;
        versions.values().next().cloned()
    }

    fn compare(&self, name: T::Name, before: Option<Arc<T>>) -> Option<Change> {
        let now = self.in_force(&name);
        (now != before).then(|| T::change(name, now))
    }

    fn names_of(&self, writer: &Writer) -> impl Iterator<Item = &T::Name> {
        self.by_name
            .iter()
            .filter(move |(_, versions)| versions.contains_key(writer))
            .map(|(name, _)| name)
    }

    fn duplicates(&self, kind: Kind, text: fn(&T::Name) -> &str) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (name, versions) in &self.by_name {
            let mut versions = versions.values();
            let Some(first) = versions.next() else {
                continue;
            };
            refusals.extend(versions.map(|later| Refusal {
                origin: later.origin().clone(),
                place: None,
                kind: Some(kind),
                name: Some(text(name).to_owned()),
                field: String::new(),
                reason: Reason::Duplicate {
                    first: first.origin().clone(),
                },
            }));
        }
        refusals
    }
}

/// Where an object of a writer was written, if no line is known.
impl From<&Writer> for Origin {
    fn from(writer: &Writer) -> Self {
        match writer {
            Writer::Cluster => Self::Cluster,
            Writer::MetalLb(namespace) => Self::MetalLb(Arc::clone(namespace)),
            Writer::File(path) => Self::File {
                path: Arc::clone(path),
                line: 1,
            },
        }
    }
}

#[cfg(test)]
mod tests;
