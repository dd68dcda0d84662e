//! The Services and EndpointSlices of the bench, and how they are written.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use e2e::connection::Connection;

/// A Service of the bench by its number. The cluster's size counts from 0; trials count from [`FIRST_OF_TRIALS`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Number(pub(crate) u32);

impl Number {
    /// The name of the Service and of its slice.
    pub(crate) fn name(self) -> String {
        format!("svc-{}", self.0)
    }

    /// Where clients find it.
    pub(crate) fn frontend(self) -> SocketAddrV4 {
        // From 10.96.1.1 on, without the addresses that end in 0 and 255.
        SocketAddrV4::new(nth_address(0x0a60_0100, self.0), PORT)
    }

    /// One of its endpoints.
    pub(crate) fn endpoint(self, index: u32) -> SocketAddrV4 {
        let nth = self.0 * ENDPOINTS + index % ENDPOINTS;
        SocketAddrV4::new(nth_address(0x0a80_0100, nth), ENDPOINT_PORT)
    }

    pub(crate) fn service_path(self) -> String {
        format!("{SERVICES}/{}", self.name())
    }

    pub(crate) fn slice_path(self) -> String {
        format!("{SLICES}/{}", self.name())
    }

    /// Writes the Service, then its slice with three endpoints.
    pub(crate) fn create(self, api: &mut Connection) -> Result<()> {
        api.create(SERVICES, &self.service())?;
        api.create(SLICES, &self.slice(ENDPOINTS))
    }

    /// Writes the Service with a slice that has no endpoints.
    pub(crate) fn create_empty(self, api: &mut Connection) -> Result<()> {
        api.create(SERVICES, &self.service())?;
        api.create(SLICES, &self.slice(0))
    }

    /// Deletes the slice, then the Service.
    pub(crate) fn delete(self, api: &mut Connection) -> Result<()> {
        api.delete(&self.slice_path())?;
        api.delete(&self.service_path())
    }

    /// Gives it the endpoints `first` and the following ones, `count` in all.
    pub(crate) fn change_endpoints(
        self,
        api: &mut Connection,
        first: u32,
        count: u32,
    ) -> Result<()> {
        let endpoints = self.some_endpoints(first..first + count);
        api.patch(&self.slice_path(), &json!({"endpoints": endpoints}))
    }

    /// Writes a Service for conversations: [`ECHO_PORT`] and [`SINK_PORT`], the same port at the endpoint, of which there is one.
    pub(crate) fn create_steady(self, api: &mut Connection) -> Result<()> {
        let ports = [("echo", ECHO_PORT, "TCP"), ("sink", SINK_PORT, "TCP")];
        self.create_with(api, &ports, 1)
    }

    /// Writes a Service for datagrams that nobody reads: [`UNREAD_PORT`], with two endpoints.
    pub(crate) fn create_unread(self, api: &mut Connection) -> Result<()> {
        self.create_with(api, &[("unread", UNREAD_PORT, "UDP")], 2)
    }

    /// Writes it as a load balancer without endpoints, and without NodePorts, of which there are fewer than Services.
    pub(crate) fn create_load_balancer(self, api: &mut Connection) -> Result<()> {
        let mut service = self.service();
        if let Some(spec) = service.pointer_mut("/spec").and_then(Value::as_object_mut) {
            spec.insert("type".to_owned(), json!("LoadBalancer"));
            spec.insert("allocateLoadBalancerNodePorts".to_owned(), json!(false));
        }
        api.create(SERVICES, &service)
    }

    fn create_with(
        self,
        api: &mut Connection,
        ports: &[(&str, u16, &str)],
        endpoints: u32,
    ) -> Result<()> {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, port, protocol)| json!({"name": name, "port": port, "protocol": protocol}))
            .collect();
        let mut service = self.service();
        let mut slice = self.slice(endpoints);
        if let (Some(service), Some(slice)) = (
            service.pointer_mut("/spec/ports"),
            slice.pointer_mut("/ports"),
        ) {
            *service = json!(ports);
            *slice = json!(ports);
        }
        api.create(SERVICES, &service)?;
        api.create(SLICES, &slice)
    }

    fn service(self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name()},
            "spec": {
                "clusterIP": self.frontend().ip(),
                "ports": [{"name": "web", "port": PORT, "targetPort": ENDPOINT_PORT, "protocol": "TCP"}],
            },
        })
    }

    /// The endpoints that it has when it is new, as its slice lists them.
    pub(crate) fn endpoints(self) -> Value {
        self.some_endpoints(0..ENDPOINTS)
    }

    fn some_endpoints(self, indices: Range<u32>) -> Value {
        indices
            .map(|index| endpoint(self.endpoint(index)))
            .collect()
    }

    fn slice(self, count: u32) -> Value {
        let endpoints = self.some_endpoints(0..count);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": self.name(), "labels": {"kubernetes.io/service-name": self.name()}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": ENDPOINT_PORT, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }
}

/// Does `write` for every number, over several connections at once.
pub(crate) fn for_each(
    server: SocketAddr,
    numbers: Range<u32>,
    write: impl Fn(Number, &mut Connection) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicU32::new(numbers.start);
    let work = || -> Result<()> {
        let mut connection = Connection::open(server)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return Ok(());
            }
            write(Number(number), &mut connection)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let outcome = thread.join().ok().context("a writer panicked")?;
            outcome?;
        }
        Ok(())
    })
}

/// Refuses more Services than the cluster's network has room for.
pub(crate) fn check_size(services: u32) -> Result<()> {
    ensure!(
        services <= FIRST_OF_TRIALS,
        "{services} Services are more than the {FIRST_OF_TRIALS} that the bench has addresses for"
    );
    Ok(())
}

fn endpoint(address: SocketAddrV4) -> Value {
    json!({"addresses": [address.ip()], "nodeName": "node-1", "conditions": {"ready": true}})
}

fn nth_address(base: u32, nth: u32) -> Ipv4Addr {
    Ipv4Addr::from(base + nth / 254 * 256 + nth % 254 + 1)
}

/// Endpoints of each Service.
pub(crate) const ENDPOINTS: u32 = 3;
/// The port of each Service.
pub(crate) const PORT: u16 = 80;
/// The port that all endpoints listen on.
pub(crate) const ENDPOINT_PORT: u16 = 8080;
/// Where what comes goes back.
pub(crate) const ECHO_PORT: u16 = 8081;
/// Where what comes is read.
pub(crate) const SINK_PORT: u16 = 8082;
/// Where datagrams may come.
pub(crate) const UNREAD_PORT: u16 = 8083;
/// Services that come and go during a measurement have numbers from here on.
pub(crate) const FIRST_OF_TRIALS: u32 = 300_000;
/// How many of those there are.
pub(crate) const TRIALS: u32 = 4_000;
/// The networks of frontends and of endpoints.
pub(crate) const FRONTENDS: &str = "10.96.0.0/12";
pub(crate) const ENDPOINT_NETWORK: &str = "10.128.0.0/10";
const CONNECTIONS: u32 = 12;
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_and_endpoints_stay_in_their_networks() {
        assert_eq!(Number(0).frontend().to_string(), "10.96.1.1:80");
        assert_eq!(Number(254).frontend().to_string(), "10.96.2.1:80");
        let last = Number(FIRST_OF_TRIALS + TRIALS - 1);
        assert_eq!(last.frontend().to_string(), "10.100.173.216:80");
        assert_eq!(Number(0).endpoint(2).to_string(), "10.128.1.3:8080");
        assert_eq!(last.endpoint(2).to_string(), "10.142.7.140:8080");
        assert_eq!(last.endpoint(5), last.endpoint(2));
    }
}
