//! What one change costs with iptables, step by step, and how that depends on the number of Services: `make bench-micro`.
//!
//! `update` is everything: the difference, and the programs of iptables in each back end. It is left out where the process
//! may not change iptables.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(missing_docs, reason = "criterion makes the functions")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use config::address::IpFamily;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use proxy_iptables::{Backend, Iptables, Mark, Program, Style};
use proxy_table::generate::many;

/// Services in the table, each with three endpoints.
const SIZES: [u32; 3] = [100, 1_000, 10_000];
const MARK: Mark = Mark(NonZeroU32::new(0x4000).unwrap());

fn whole(criterion: &mut Criterion) {
    let style = Style {
        mark: MARK,
        random_fully: true,
    };
    let mut group = criterion.benchmark_group("iptables: everything");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    for services in SIZES {
        let table = many::table(services);
        let families = [IpFamily::V4, IpFamily::V6];
        let program = Program::compile(&table, style, families);
        group.bench_function(BenchmarkId::new("compile", services), |bencher| {
            bencher.iter(|| Program::compile(black_box(&table), style, families));
        });
        group.bench_function(BenchmarkId::new("no difference", services), |bencher| {
            bencher.iter(|| program.diff(black_box(&program)));
        });
    }
}

fn update(criterion: &mut Criterion) {
    for backend in [Backend::Nft, Backend::Legacy] {
        let name = format!("iptables, {backend}: update of one Service in the kernel/Services");
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(3));
        for services in SIZES {
            let mut table = many::table(services);
            let Ok(mut plane) = Iptables::open(Some(backend), MARK) else {
                return;
            };
            if plane.settle(&table).is_err() {
                return;
            }
            let mut toggle = many::Toggle::new(services / 2);
            group.bench_function(BenchmarkId::from_parameter(services), |bencher| {
                bencher.iter(|| {
                    let change = toggle.change(&mut table);
                    plane.update(&table, &[change]).unwrap()
                });
            });
        }
        group.finish();
        Iptables::remove(Some(backend.other())).unwrap();
    }
}

criterion_group!(benches, whole, update);
criterion_main!(benches);
