//! What one change costs, step by step, and how that depends on the number of Services: `make bench-micro`.
//!
//! From the octets of the API server to those of netlink: parse, compile (with the choice of the endpoints), update
//! (table and mirror), encode; beside them what a comparison of everything costs. `commit` asks the kernel itself, and
//! is left out where the process may not change nf_tables.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(missing_docs, reason = "criterion makes the functions")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use config::endpoint::EndpointSlice;
use config::name::{NodeName, ServiceKey};
use config::service::Service;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use proxy_nftables::{Forwarder, Mirror, Nftables, Program};
use proxy_table::{
    ForwardingTable, NodeContext, PodDetection, ServiceTable, TableChange, compile_service,
};
use serde_json::json;

/// Services in the table, each with three endpoints.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

fn service_octets(number: u32) -> Vec<u8> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name(number), "namespace": "default", "uid": "00000000-0000-4000-8000-000000000001",
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "ClusterIP", "clusterIP": address(0x0a60_0000, number), "clusterIPs": [address(0x0a60_0000, number)],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "selector": {"app": "web"},
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
        "status": {"loadBalancer": {}},
    });
    service.to_string().into_bytes()
}

fn slice_octets(number: u32, endpoints: u32) -> Vec<u8> {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|index| {
            json!({"addresses": [address(0x0a80_0000, number * 3 + index)], "nodeName": format!("node-{}", index % 3),
                "conditions": {"ready": true, "serving": true, "terminating": false}, "zone": "a",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("web-{index}"),
                    "uid": "00000000-0000-4000-8000-000000000002"}})
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": name(number), "namespace": "default", "labels": {"kubernetes.io/service-name": name(number)}},
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
    });
    slice.to_string().into_bytes()
}

fn parse_service(octets: &[u8]) -> Service {
    let service: core::Service = serde_json::from_slice(octets).unwrap();
    Service::from_api(&service).unwrap()
}

fn parse_slice(octets: &[u8]) -> Arc<EndpointSlice> {
    let slice: discovery::EndpointSlice = serde_json::from_slice(octets).unwrap();
    Arc::new(EndpointSlice::from_api(&slice).unwrap())
}

fn name(number: u32) -> String {
    format!("svc-{number}")
}

fn address(base: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(base + number)
}

fn context() -> Arc<NodeContext> {
    let mut context = NodeContext::new(NodeName::from("node-1"));
    context.pods = PodDetection::Networks(vec!["10.244.0.0/16".parse().unwrap()]);
    context.service_cidrs = BTreeSet::from(["10.96.0.0/12".parse().unwrap()]);
    Arc::new(context)
}

fn part(number: u32, endpoints: u32, context: &NodeContext) -> (ServiceKey, ServiceTable) {
    let service = parse_service(&service_octets(number));
    let slice = parse_slice(&slice_octets(number, endpoints));
    let table = compile_service(&service, [&slice], context, &BTreeSet::new());
    (service.key, table)
}

fn table_of(services: u32) -> ForwardingTable {
    let context = context();
    let mut table = ForwardingTable::new(Arc::clone(&context));
    for number in 0..services {
        let (key, part) = part(number, 3, &context);
        table.update(&key, Some(part));
    }
    table
}

/// A Service in the middle gets two endpoints instead of three, or three instead of two.
#[derive(Debug)]
struct Toggle {
    key: ServiceKey,
    parts: [ServiceTable; 2],
    turn: bool,
}

impl Toggle {
    fn new(services: u32) -> Self {
        let context = context();
        let (key, three) = part(services / 2, 3, &context);
        let (_, two) = part(services / 2, 2, &context);
        Self {
            key,
            parts: [two, three],
            turn: false,
        }
    }

    fn change(&mut self, table: &mut ForwardingTable) -> TableChange {
        let [two, three] = &self.parts;
        self.turn = !self.turn;
        let part = if self.turn { two } else { three };
        table.update(&self.key, Some(part.clone()))
    }
}

fn parse(criterion: &mut Criterion) {
    let service = service_octets(7);
    criterion.bench_function("parse/service", |bencher| {
        bencher.iter(|| parse_service(black_box(&service)));
    });
    let mut group = criterion.benchmark_group("parse/slice of endpoints");
    for endpoints in [3, 100, 1000] {
        let slice = slice_octets(7, endpoints);
        group.bench_function(BenchmarkId::from_parameter(endpoints), |bencher| {
            bencher.iter(|| parse_slice(black_box(&slice)));
        });
    }
}

fn compile(criterion: &mut Criterion) {
    let context = context();
    let service = parse_service(&service_octets(7));
    let mut group = criterion.benchmark_group("compile and eligibility/endpoints");
    for endpoints in [3, 100, 1000] {
        let slice = parse_slice(&slice_octets(7, endpoints));
        group.bench_function(BenchmarkId::from_parameter(endpoints), |bencher| {
            bencher.iter(|| {
                compile_service(&service, [black_box(&slice)], &context, &BTreeSet::new())
            });
        });
    }
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table, difference and encoding/Services");
    for services in SIZES {
        let mut table = table_of(services);
        let held = Program::compile(&table);
        let mut mirror = Mirror::new(&table, &held, &Forwarder::Rules);
        let mut toggle = Toggle::new(services);
        group.bench_function(BenchmarkId::from_parameter(services), |bencher| {
            bencher.iter(|| {
                let change = toggle.change(&mut table);
                let change = mirror.update(&table, &[change]).unwrap();
                black_box(change.encoded_octets())
            });
        });
    }
}

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("everything");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for services in SIZES {
        let table = table_of(services);
        let program = Program::compile(&table);
        group.bench_function(BenchmarkId::new("compile", services), |bencher| {
            bencher.iter(|| Program::compile(black_box(&table)));
        });
        group.bench_function(BenchmarkId::new("no difference", services), |bencher| {
            bencher.iter(|| program.diff(black_box(&program)));
        });
        let nothing = Program::default();
        let change = nothing.diff(&program).unwrap();
        group.bench_function(BenchmarkId::new("encode", services), |bencher| {
            bencher.iter(|| change.encoded_octets());
        });
    }
}

fn commit(criterion: &mut Criterion) {
    let Ok(mut plane) = Nftables::open() else {
        return;
    };
    let mut group = criterion.benchmark_group("commit of one Service in the kernel/Services");
    for services in [1_000, 30_000, 100_000] {
        let mut table = table_of(services);
        if plane.settle(&table).is_err() {
            return;
        }
        let mut toggle = Toggle::new(services);
        group.bench_function(BenchmarkId::from_parameter(services), |bencher| {
            bencher.iter(|| {
                let change = toggle.change(&mut table);
                plane.update(&table, &[change]).unwrap()
            });
        });
    }
    group.finish();
    Nftables::remove().unwrap();
}

criterion_group!(benches, parse, compile, change, whole, commit);
criterion_main!(benches);
