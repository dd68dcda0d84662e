//! The controller is killed again and again while Services come and go: no address is given twice, none moves.
//!
//! Run by `make test-crash`.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::api::Api;
use e2e::lab::{Lab, Options, ServiceProxy, with_lab};
use e2e::manifest;
use e2e::questions::external_addresses;
use e2e::random::Random;
use e2e::topology::{POOL_IPV4, POOL_IPV6};
use e2e::wait;
use serde_json::Value;

const KILLS: u32 = 50;
const SERVICES: u16 = 100;
const COLLECTION: &str = "/api/v1/namespaces/default/services";

#[test]
#[ignore = "needs the lab: make test-crash"]
fn crashes_move_no_address_and_give_none_twice() -> Result<()> {
    let options = Options {
        agents: false,
        speakers: false,
        proxy: ServiceProxy::None,
        ..Options::foghorn("crash")
    };
    with_lab(&options, |lab| {
        lab.kubectl
            .apply(&manifest::pool_yaml("lan", &[POOL_IPV4, POOL_IPV6]))?;
        let mut random = Random::from_environment();
        println!("FOGHORN_SEED={} repeats the choices", random.seed);
        let api = lab.api;
        let ledger = Mutex::new(Ledger::default());
        let churn_ends = AtomicBool::new(false);
        let watch_ends = AtomicBool::new(false);
        let churn_random = Random::seeded(random.seed ^ 1);
        thread::scope(|scope| -> Result<()> {
            let watch = scope.spawn(|| keep_ledger(api, &ledger, &watch_ends));
            let churn = scope.spawn(|| come_and_go(api, churn_random, &churn_ends));
            let killed = kill_often(lab, &ledger, &mut random);
            churn_ends.store(true, Ordering::Relaxed);
            let changes = churn.join().map_err(|_| anyhow!("the churn panicked"));
            let served = killed.and_then(|()| wait_until_all_are_served(&ledger));
            watch_ends.store(true, Ordering::Relaxed);
            watch.join().map_err(|_| anyhow!("the watch panicked"))??;
            served?;
            println!("{KILLS} kills, {} Services came or went", changes??);
            Ok(())
        })?;
        let ledger = lock(&ledger);
        println!("{} addresses were assigned", ledger.assigned);
        ensure!(ledger.offences.is_empty(), "{}", ledger.offences.join("\n"));
        Ok(())
    })
}

fn kill_often(lab: &mut Lab, ledger: &Mutex<Ledger>, random: &mut Random) -> Result<()> {
    let controller = lab.controller_mut()?;
    let begin = Instant::now();
    for kill in 1..=KILLS {
        // Half of the crashes hit a controller that starts, half one that assigns.
        if kill % 2 == 0 {
            let before = lock(ledger).assigned;
            wait::until(
                "an assignment by the restarted controller",
                Duration::from_secs(60),
                || {
                    controller.expect_running()?;
                    Ok((lock(ledger).assigned > before).then_some(()))
                },
            )?;
            thread::sleep(random.shorter_than(Duration::from_millis(300)));
        } else {
            thread::sleep(random.shorter_than(Duration::from_millis(1500)));
        }
        controller.expect_running()?;
        controller.kill()?;
        controller.start_again()?;
        if kill % 10 == 0 {
            println!("{kill} kills after {:.0} s", begin.elapsed().as_secs_f64());
        }
        ensure!(
            lock(ledger).offences.is_empty(),
            "{}",
            lock(ledger).offences.join("\n")
        );
    }
    Ok(())
}

/// Makes and deletes Services at random until told to end; then makes those that are missing. Returns how many changes.
fn come_and_go(api: Api, mut random: Random, end: &AtomicBool) -> Result<usize> {
    let mut present = BTreeSet::new();
    let mut changes = 0;
    while !end.load(Ordering::Relaxed) {
        let number = random.below(SERVICES);
        if present.remove(&number) {
            api.delete(&format!("{COLLECTION}/web-{number}"))?;
        } else {
            create(api, number)?;
            present.insert(number);
        }
        changes += 1;
        thread::sleep(random.shorter_than(Duration::from_millis(60)));
    }
    for number in (0..SERVICES).filter(|number| !present.contains(number)) {
        create(api, number)?;
        changes += 1;
    }
    Ok(changes)
}

fn create(api: Api, number: u16) -> Result<()> {
    api.create(
        COLLECTION,
        &manifest::load_balancer(&format!("web-{number}")),
    )?;
    Ok(())
}

fn wait_until_all_are_served(ledger: &Mutex<Ledger>) -> Result<()> {
    let waited = wait::until(
        "addresses for all Services",
        Duration::from_secs(60),
        || {
            let ledger = lock(ledger);
            let served = ledger
                .held
                .values()
                .filter(|held| held.addresses.len() == 2)
                .count();
            Ok((served == usize::from(SERVICES) && ledger.held.len() == served).then_some(()))
        },
    );
    waited.with_context(|| {
        let ledger = lock(ledger);
        let unserved = ledger
            .held
            .values()
            .filter(|held| held.addresses.len() != 2);
        let names: Vec<&str> = unserved.map(|held| held.name.as_str()).collect();
        format!(
            "{} Services, without both addresses: {names:?}",
            ledger.held.len()
        )
    })
}

fn keep_ledger(api: Api, ledger: &Mutex<Ledger>, end: &AtomicBool) -> Result<()> {
    let list = api.get(COLLECTION)?;
    let mut version = text(&list["metadata"]["resourceVersion"]);
    let mut watch = api.watch(COLLECTION, &version, Duration::from_secs(5))?;
    while !end.load(Ordering::Relaxed) {
        match watch.next(Duration::from_millis(200))? {
            Some((kind, _)) if kind == "ERROR" => bail!("the watch ended with an error"),
            Some((kind, service)) => {
                version = text(&service["metadata"]["resourceVersion"]);
                lock(ledger).note(&kind, &service);
            }
            None if watch.has_ended() => {
                watch = api.watch(COLLECTION, &version, Duration::from_secs(5))?
            }
            None => {}
        }
    }
    Ok(())
}

/// Who holds which address, as the API server's own history tells it.
#[derive(Debug, Default)]
struct Ledger {
    held: BTreeMap<String, Held>,
    assigned: usize,
    offences: Vec<String>,
}

#[derive(Debug, Default)]
struct Held {
    name: String,
    addresses: BTreeSet<IpAddr>,
}

impl Ledger {
    /// Takes note of a change to a Service, in the order of the API server.
    fn note(&mut self, kind: &str, service: &Value) {
        let uid = text(&service["metadata"]["uid"]);
        if kind == "DELETED" {
            self.held.remove(&uid);
            return;
        }
        let name = text(&service["metadata"]["name"]);
        let addresses: BTreeSet<IpAddr> = external_addresses(service).into_iter().collect();
        for address in &addresses {
            for (other, held) in &self.held {
                if *other != uid && held.addresses.contains(address) {
                    self.offences
                        .push(format!("{address} is given to {name} and to {}", held.name));
                }
            }
        }
        let held = self.held.entry(uid).or_default();
        if !addresses.is_superset(&held.addresses) {
            self.offences.push(format!(
                "{name} has {addresses:?} after {:?}",
                held.addresses
            ));
        }
        self.assigned += addresses.difference(&held.addresses).count();
        *held = Held { name, addresses };
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(uid: &str, addresses: &[&str]) -> Value {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"metadata": {"uid": uid, "name": uid}, "status": {"loadBalancer": {"ingress": ingress}}})
    }

    #[track_caller]
    fn check(history: &[(&str, Value)], offences: &[&str]) {
        let mut ledger = Ledger::default();
        for (kind, service) in history {
            ledger.note(kind, service);
        }
        assert_eq!(ledger.offences, offences);
    }

    #[test]
    fn an_address_may_go_to_another_only_after_its_holder() {
        let (a, b) = (service("a", &["192.0.2.1"]), service("b", &["192.0.2.1"]));
        check(
            &[
                ("ADDED", a.clone()),
                ("DELETED", a.clone()),
                ("ADDED", b.clone()),
            ],
            &[],
        );
        check(
            &[("ADDED", a), ("MODIFIED", b)],
            &["192.0.2.1 is given to b and to a"],
        );
    }

    #[test]
    fn a_second_address_may_join_and_none_may_change() {
        let one = service("a", &["192.0.2.1"]);
        let both = service("a", &["192.0.2.1", "2001:db8::1"]);
        check(
            &[
                ("ADDED", service("a", &[])),
                ("MODIFIED", one.clone()),
                ("MODIFIED", both),
            ],
            &[],
        );
        check(
            &[
                ("ADDED", one.clone()),
                ("MODIFIED", service("a", &["192.0.2.2"])),
            ],
            &["a has {192.0.2.2} after {192.0.2.1}"],
        );
        check(
            &[("ADDED", one), ("MODIFIED", service("a", &[]))],
            &["a has {} after {192.0.2.1}"],
        );
    }
}
