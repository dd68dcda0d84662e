//! `plan`: what would happen to Services if files were applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use config::catalogue::{Slot, Writer};
use config::declaration::Object;
use config::file;
use config::name::ServiceKey;
use config::snapshot::Dirty;
use controller_allocator::{Classes, Decision};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::describe::about;
use crate::files::File;
use crate::table::{Table, count};

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Objects of the files that the cluster does not have.
    pub added: Vec<String>,
    /// Objects that would be other than now.
    pub changed: Vec<String>,
    /// Objects that would be deleted.
    pub deleted: Vec<String>,
    /// Services to which something happens, and those that have not all they ask for.
    pub services: Vec<ServicePlan>,
    /// Services that keep what they have.
    pub kept: usize,
    /// What could not be read, and what that means.
    pub gaps: Vec<String>,
}

/// What would happen to one Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePlan {
    /// The Service.
    pub service: String,
    /// What would happen.
    pub outcome: Outcome,
    /// What it has.
    pub before: Vec<IpAddr>,
    /// What it would have.
    pub after: Vec<IpAddr>,
    /// Why, or why it lacks something.
    pub reason: String,
}

/// What would happen to a Service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It would have fewer addresses.
    Loses,
    /// It would have other ones.
    Changes,
    /// It asks for something that it would not get.
    Lacks,
    /// It keeps an address that it would not get any more.
    KeepsAlthough,
    /// It would have more addresses.
    Gains,
    /// Nothing happens.
    Keeps,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Loses => "loses",
            Self::Changes => "changes",
            Self::Lacks => "lacks",
            Self::KeepsAlthough => "keeps, although",
            Self::Gains => "gains",
            Self::Keeps => "keeps",
        }
    }
}

/// What would happen if `files` were applied; `prune` deletes the pools and advertisements that they do not have.
pub fn plan(cluster: &Cluster, files: &[File], prune: bool, classes: &Classes) -> Plan {
    let mut allocator = cluster.decide(classes);
    let before: BTreeMap<ServiceKey, Decision> = allocator
        .decisions()
        .map(|(service, decision)| (service.clone(), decision.clone()))
        .collect();
    let mut next = cluster.clone();
    let mut plan = Plan {
        added: Vec::new(),
        changed: Vec::new(),
        deleted: Vec::new(),
        services: Vec::new(),
        kept: 0,
        gaps: cluster.gaps.clone(),
    };
    apply(&mut next, files, prune, &mut plan);
    allocator.configure(next.context(classes));
    allocator.settle();
    for (service, decision) in allocator.decisions() {
        let written = cluster.snapshot.service(service);
        let written =
            written.map(|found| found.ingress.iter().map(|entry| entry.address).collect());
        let written: Vec<IpAddr> = written.unwrap_or_default();
        let view = service_plan(service, &written, before.get(service), decision);
        if view.outcome == Outcome::Keeps {
            plan.kept += 1;
        } else {
            plan.services.push(view);
        }
    }
    plan.services.sort_by_key(|view| view.outcome);
    plan
}

fn service_plan(
    service: &ServiceKey,
    written: &[IpAddr],
    before: Option<&Decision>,
    decision: &Decision,
) -> ServicePlan {
    let had: BTreeSet<IpAddr> = written.iter().copied().collect();
    let after: Vec<IpAddr> = decision.addresses().collect();
    let has: BTreeSet<IpAddr> = after.iter().copied().collect();
    let lost = had.difference(&has).count();
    let gained = has.difference(&had).count();
    let although = decision.granted.iter().find_map(|granted| {
        let obstacle = granted.although.as_ref()?;
        let why = about(granted.address, obstacle);
        Some(format!("{} stays although {why}", granted.address))
    });
    let rejection = decision.rejection.as_ref().map(ToString::to_string);
    let news = before
        .and_then(|before| before.rejection.as_ref())
        .map(ToString::to_string)
        != rejection;
    let outcome = match (lost, gained) {
        (0, 0) if rejection.is_some() => Outcome::Lacks,
        (0, 0) if although.is_some() => Outcome::KeepsAlthough,
        (0, 0) => Outcome::Keeps,
        (0, _) => Outcome::Gains,
        (_, 0) => Outcome::Loses,
        (_, _) => Outcome::Changes,
    };
    let mut reasons: Vec<String> = although.into_iter().collect();
    reasons.extend(rejection.map(|text| {
        if news {
            text
        } else {
            format!("as now: {text}")
        }
    }));
    if reasons.is_empty() && matches!(outcome, Outcome::Gains | Outcome::Changes) {
        let pools = decision
            .granted
            .iter()
            .filter(|granted| !had.contains(&granted.address));
        let pools: BTreeSet<String> = pools
            .filter_map(|granted| granted.pool.as_ref())
            .map(|pool| format!("from pool {pool}"))
            .collect();
        reasons.extend(pools);
    }
    ServicePlan {
        service: service.to_string(),
        outcome,
        before: written.to_vec(),
        after,
        reason: reasons.join(". "),
    }
}

/// Puts the objects of files into a cluster as `kubectl apply` would.
fn apply(cluster: &mut Cluster, files: &[File], prune: bool, plan: &mut Plan) {
    let mut written = BTreeSet::new();
    for file in files {
        let reading = match &file.content {
            Ok(content) => file::read(&file.path, content),
            Err(error) => file::unreadable(&file.path, error),
        };
        for object in reading.objects {
            let slot = slot_of(cluster, &object);
            let name = format!("{} {}", slot.kind, slot.name);
            match is_same(cluster, &object) {
                None => plan.added.push(name),
                Some(false) => plan.changed.push(name),
                Some(true) => {}
            }
            written.insert((slot.kind, slot.name.clone()));
            if let Some(change) = cluster.catalogue.declare(slot, Ok(object)) {
                cluster.snapshot.apply(change, &mut Dirty::default());
            }
        }
    }
    if !prune {
        return;
    }
    for slot in slots(cluster) {
        if !written.contains(&(slot.kind, slot.name.clone())) {
            plan.deleted.push(format!("{} {}", slot.kind, slot.name));
            if let Some(change) = cluster.catalogue.withdraw(&slot) {
                cluster.snapshot.apply(change, &mut Dirty::default());
            }
        }
    }
}

/// Every object of the cluster.
fn slots(cluster: &Cluster) -> Vec<Slot> {
    let snapshot = &cluster.snapshot;
    let pools = snapshot.pools().values().map(|pool| &pool.origin);
    let advertisements = snapshot
        .advertisements()
        .values()
        .map(|found| &found.origin);
    let writers = pools.chain(advertisements).map(writer_of);
    // What is refused is there too, though not in force.
    let writers: BTreeSet<Writer> = writers.chain([Writer::Cluster]).collect();
    let slots = writers
        .iter()
        .flat_map(|writer| cluster.catalogue.slots_of(writer));
    slots
        .filter(|slot| !matches!(slot.writer, Writer::File(_)))
        .collect()
}

fn writer_of(origin: &config::pool::Origin) -> Writer {
    match origin {
        config::pool::Origin::MetalLb(namespace) => Writer::MetalLb(namespace.clone()),
        _ => Writer::Cluster,
    }
}

/// Whose place an object of a file takes: that of the object in force with its name, or one of its own.
fn slot_of(cluster: &Cluster, object: &Object) -> Slot {
    let snapshot = &cluster.snapshot;
    let origin = match object {
        Object::Pool(pool) => snapshot.pools().get(&pool.name).map(|found| &found.origin),
        Object::Advertisement(advertisement) => {
            let found = snapshot.advertisements().get(&advertisement.name);
            found.map(|found| &found.origin)
        }
    };
    Slot {
        writer: origin.map_or(Writer::Cluster, writer_of),
        kind: object.kind(),
        name: object.name().into(),
    }
}

/// Whether the cluster has the object as it is written; none if it has no such object.
fn is_same(cluster: &Cluster, object: &Object) -> Option<bool> {
    match object {
        Object::Pool(pool) => {
            let mut found = (**cluster.snapshot.pools().get(&pool.name)?).clone();
            found.origin = pool.origin.clone();
            Some(found == **pool)
        }
        Object::Advertisement(advertisement) => {
            let found = cluster.snapshot.advertisements().get(&advertisement.name)?;
            let mut found = (**found).clone();
            found.origin = advertisement.origin.clone();
            Some(found == **advertisement)
        }
    }
}

impl Plan {
    /// Whether somebody would lose an address.
    pub fn hurts(&self) -> bool {
        let hurts = |view: &ServicePlan| matches!(view.outcome, Outcome::Loses | Outcome::Changes);
        self.services.iter().any(hurts)
    }

    fn number(&self, outcome: Outcome) -> usize {
        self.services
            .iter()
            .filter(|view| view.outcome == outcome)
            .count()
    }

    /// The whole as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (word, names) in [
            ("new", &self.added),
            ("changed", &self.changed),
            ("deleted", &self.deleted),
        ] {
            for name in names {
                let _ = writeln!(text, "{word}: {name}");
            }
        }
        if text.is_empty() {
            text.push_str("The cluster has all of it already.\n");
        }
        if !self.services.is_empty() {
            let mut table = Table::new(&["SERVICE", "WOULD", "NOW", "THEN", "WHY"]);
            let join = |addresses: &[IpAddr]| {
                let addresses = addresses.iter().map(ToString::to_string);
                addresses.collect::<Vec<_>>().join(", ")
            };
            for view in &self.services {
                table.row([
                    view.service.clone(),
                    view.outcome.word().to_owned(),
                    join(&view.before),
                    join(&view.after),
                    view.reason.clone(),
                ]);
            }
            let _ = write!(text, "\n{}", table.text(0));
        }
        let numbers = [
            (self.number(Outcome::Loses), "would lose addresses"),
            (self.number(Outcome::Changes), "would change addresses"),
            (self.number(Outcome::Gains), "would gain addresses"),
            (self.number(Outcome::Lacks), "would lack something"),
            (
                self.kept + self.number(Outcome::KeepsAlthough),
                "would keep what they have",
            ),
        ];
        let numbers: Vec<String> = numbers
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        if numbers.is_empty() {
            text.push_str("\nThere is no Service of type LoadBalancer.\n");
        } else {
            let services = count(self.kept + self.services.len(), "Service", "Services");
            let _ = writeln!(text, "\nOf {services} {}.", numbers.join(", "));
        }
        for gap in &self.gaps {
            let _ = writeln!(text, "Not known: {gap}");
        }
        text
    }
}
