//! A hostile Pod, with all the capabilities that a Pod can have in its own network: what it cannot reach, and what it cannot
//! pretend. A machine on the LAN tries the nodes' loopback too.
//!
//! Run by `make test-hostile`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bystander::unnoticed;
use e2e::client::{Question, Target};
use e2e::heartbeats::{self, PORT};
use e2e::http::{Request, Response, ask};
use e2e::lab::{HEARTBEAT_KEY, Lab, Options, with_lab};
use e2e::manifest::TCP_PORT;
use e2e::metrics::{Metrics, SPEAKER};
use e2e::namespace::Namespace;
use e2e::questions::{at, items, items_of};
use e2e::topology::{Family, INTERFACE, NODES, NodeNumber, ROUTER_IPV4, ROUTER_IPV6};
use socket2::{Domain, Protocol, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(60);
/// Whoever listens answers in a millisecond.
const SHORT: Duration = Duration::from_millis(300);
/// The port of the controller's metrics and `/debug`.
const CONTROLLER: u16 = 7472;
/// On each node: metrics, `/debug` and `/status` of the speaker, its health, metrics and `/debug` of the proxy.
const ON_NODES: [u16; 3] = [SPEAKER, 7475, 10249];
/// The health of controller and proxy.
const HEALTH: [u16; 2] = [7473, 10256];
const SERVICE: &str = "/api/v1/namespaces/default/services/web";

#[test]
#[ignore = "needs the lab: make test-hostile"]
fn a_hostile_pod_reaches_nothing_but_services_and_speaks_for_nobody() -> Result<()> {
    with_lab(&Options::foghorn("hostile-pod"), |lab| {
        let vips = lab.serve_web(Duration::from_secs(60))?;
        let machine = lab.plug_in_host("mallory", 0x66, &["192.168.1.66/24"])?;
        let (node, pod) = a_pod(lab)?;
        println!("the Pod is on {node}");
        unnoticed(lab, &vips, "a hostile Pod", |lab| {
            other_ports_are_refused(lab, &pod, &vips)?;
            administration_is_out_of_reach(lab, &[&pod, &machine])?;
            health_tells_no_secret(&pod)?;
            heartbeats_of_a_pod_are_not_heard(lab, &pod, &machine)
        })?;
        unnoticed(lab, &vips, "loopback from the LAN", |_| {
            loopback_of_a_node_is_out_of_reach(&machine)
        })
    })
}

/// The network of one of the Pods behind the Service, and its node.
fn a_pod(lab: &Lab) -> Result<(NodeNumber, Namespace)> {
    let pods = lab
        .api
        .get("/api/v1/namespaces/default/pods?labelSelector=app=web")?;
    let pod = items(&pods).next().context("no Pod")?;
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let node = NodeNumber::by_name(name).context("no node")?;
    Ok((node, lab.pod_namespace(address.parse()?)?))
}

fn other_ports_are_refused(lab: &Lab, pod: &Namespace, vips: &[IpAddr]) -> Result<()> {
    let service = lab.api.get(SERVICE)?;
    let cluster_ips = items_of(&service["spec"]["clusterIPs"]);
    let cluster_ips = cluster_ips
        .filter_map(|address| Some(address.as_str()?.parse::<IpAddr>()))
        .collect::<Result<Vec<_>, _>>()?;
    for &address in vips.iter().chain(&cluster_ips) {
        let target = Target::tcp(at(address, TCP_PORT));
        let name = target.ask_from(pod, Question::Hostname, PATIENCE)?;
        ensure!(name.starts_with("web-"), "{address}: {name}");
        for port in [22, 81, 8080, 10250] {
            let is_cluster_ip = cluster_ips.contains(&address);
            // A refusal may come late: kernels limit how often they refuse by ICMPv6.
            let patience = if is_cluster_ip { PATIENCE } else { SHORT };
            let outcome = connect_within(pod, at(address, port), patience)?;
            let as_it_should = match outcome {
                // The proxy rejects what a ClusterIP has no port for.
                Err(ErrorKind::ConnectionRefused) => true,
                Err(_) => !is_cluster_ip,
                Ok(()) => false,
            };
            ensure!(as_it_should, "{address}, port {port}: {outcome:?}");
        }
    }
    println!("other ports of {cluster_ips:?} are refused, those of {vips:?} lead nowhere");
    Ok(())
}

fn administration_is_out_of_reach(lab: &Lab, from: &[&Namespace]) -> Result<()> {
    // All of it is there: on loopback.
    is_there(&lab.outer, CONTROLLER)?;
    Metrics::read(&lab.outer, CONTROLLER)?;
    for node in &lab.nodes {
        for port in ON_NODES {
            is_there(&node.namespace, port)?;
        }
        for port in [SPEAKER, 10249] {
            Metrics::read(&node.namespace, port)?;
        }
    }
    let mut count = 0;
    for (address, port) in hosts().into_iter().flat_map(|address| {
        let ports = std::iter::once(CONTROLLER).chain(ON_NODES);
        ports.map(move |port| (address, port))
    }) {
        for namespace in from {
            let outcome = connect_within(namespace, at(address, port), PATIENCE)?;
            ensure!(
                outcome == Err(ErrorKind::ConnectionRefused),
                "{} at {address}, port {port}: {outcome:?}",
                namespace.name()
            );
            count += 1;
        }
    }
    println!("{count} tries at ports for metrics, /debug and /status were refused");
    Ok(())
}

fn health_tells_no_secret(pod: &Namespace) -> Result<()> {
    let mut count = 0;
    for (address, port) in hosts().into_iter().flat_map(|address| {
        let ports = HEALTH.into_iter();
        ports.map(move |port| (address, port))
    }) {
        for path in [
            "/healthz",
            "/livez",
            "/readyz",
            "/metrics",
            "/debug/snapshot",
            "/status",
            "/",
        ] {
            // The controller is at the router and proxies at the nodes; only IPv4 is listened to.
            let Some(response) = get(pod, at(address, port), path) else {
                continue;
            };
            let body = String::from_utf8_lossy(&response.body);
            let is_health = ["/healthz", "/livez", "/readyz"].contains(&path);
            ensure!(
                (response.status == 200) == is_health,
                "{path} of {address}, port {port}: {} {body}",
                response.status
            );
            ensure!(body.len() < 1000, "{path} is talkative: {body}");
            for secret in [HEARTBEAT_KEY.trim(), "token", "192.168.1.1"] {
                ensure!(!body.contains(secret), "{path} tells {secret}: {body}");
            }
            count += 1;
        }
    }
    ensure!(count >= 28, "only {count} answers of health");
    println!("{count} answers of health tell no secret");
    Ok(())
}

/// Datagrams as speakers make them, from the Pod's own address and from its node's: nobody reads them, on any node.
fn heartbeats_of_a_pod_are_not_heard(
    lab: &Lab,
    pod: &Namespace,
    machine: &Namespace,
) -> Result<()> {
    let heard = heartbeats::record(pod, NODES[0], 1, Duration::from_millis(500))?;
    ensure!(heard.is_empty(), "a Pod hears heartbeats");
    let recorded = heartbeats::record(machine, NODES[0], 10, PATIENCE)?;
    let forged: Vec<_> = recorded
        .iter()
        .flat_map(|one| [one.clone(), one.of_another_key(), one.with_another_body()])
        .collect();
    let refused = |lab: &Lab| -> Result<Vec<u64>> {
        let nodes = lab.nodes.iter();
        nodes
            .map(|node| heartbeats::refused(&node.namespace, None))
            .collect()
    };
    let before = refused(lab)?;
    let hosts: Vec<_> = hosts().into_iter().map(|host| at(host, PORT)).collect();
    heartbeats::send(pod, &forged, &hosts)?;
    for from in NODES {
        for to in NODES {
            let datagrams = forged.iter().map(|one| one.octets());
            send_as(pod, from.ipv4(), to.ipv4(), datagrams)?;
        }
    }
    // What is read is counted at once: these come after them.
    heartbeats::send(machine, &[recorded[0].of_another_key()], &[])?;
    e2e::wait::until("what the machine on the LAN sent", PATIENCE, || {
        let after = refused(lab)?;
        let grown = after
            .iter()
            .zip(&before)
            .all(|(after, before)| after > before);
        Ok(grown.then_some(()))
    })?;
    let grown: Vec<_> = refused(lab)?
        .iter()
        .zip(&before)
        .map(|(a, b)| a - b)
        .collect();
    ensure!(
        grown.iter().all(|&grown| grown <= 2),
        "speakers read heartbeats of a Pod: {grown:?}"
    );
    println!("{} heartbeats of a Pod were read by nobody", forged.len());
    Ok(())
}

/// A neighbour that sends a node packets for 127.0.0.1 (CVE-2020-8558).
fn loopback_of_a_node_is_out_of_reach(machine: &Namespace) -> Result<()> {
    machine.set_parameters("net.ipv4.conf.all.route_localnet=1")?;
    machine.configure("addr del 127.0.0.1/8 dev lo")?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for node in NODES {
        machine.configure(&format!(
            "route replace 127.0.0.1/32 via {} src 192.168.1.66 dev {INTERFACE}",
            node.ipv4()
        ))?;
        for port in ON_NODES {
            let outcome = connect_within(machine, at(loopback, port), SHORT)?;
            ensure!(
                outcome.is_err(),
                "port {port} of loopback of {node} answers"
            );
        }
    }
    println!("no node lets the LAN reach its loopback");
    Ok(())
}

/// The addresses of nodes and of the router, where the controller is.
fn hosts() -> Vec<IpAddr> {
    let nodes = NODES.into_iter();
    let nodes = nodes.flat_map(|node| Family::BOTH.map(|family| node.address(family)));
    [ROUTER_IPV4.into(), ROUTER_IPV6.into()]
        .into_iter()
        .chain(nodes)
        .collect()
}

/// Fails unless somebody listens to a port on loopback.
fn is_there(host: &Namespace, port: u16) -> Result<()> {
    let outcome = connect_within(host, at(Ipv4Addr::LOCALHOST.into(), port), PATIENCE)?;
    let name = host.name();
    ensure!(outcome.is_ok(), "nobody listens to port {port} of {name}");
    Ok(())
}

/// Connects; the kind of the error if that fails.
fn connect_within(
    from: &Namespace,
    to: SocketAddr,
    patience: Duration,
) -> Result<Result<(), ErrorKind>> {
    let outcome = from.run(|| TcpStream::connect_timeout(&to, patience))?;
    Ok(outcome.map(drop).map_err(|error| error.kind()))
}

fn get(from: &Namespace, server: SocketAddr, path: &str) -> Option<Response> {
    let asked = from.run(|| ask(server, &Request::get(path), PATIENCE));
    asked.ok()?.ok()
}

/// Sends UDP datagrams to the port of heartbeats with any source address.
fn send_as<'a>(
    namespace: &Namespace,
    from: Ipv4Addr,
    to: Ipv4Addr,
    datagrams: impl Iterator<Item = &'a [u8]> + Send,
) -> Result<()> {
    namespace.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.set_header_included_v4(true)?;
        let port = PORT.to_be_bytes();
        for datagram in datagrams {
            let length = u16::try_from(8 + datagram.len())?;
            let total = (20 + length).to_be_bytes();
            let length = length.to_be_bytes();
            // The kernel writes the checksum of the header; a datagram of IPv4 needs none.
            let packet = [
                &[0x45, 0][..],
                &total,
                &[0, 0, 0, 0, 255, 17, 0, 0],
                &from.octets(),
                &to.octets(),
                &port,
                &port,
                &length,
                &[0, 0],
                datagram,
            ]
            .concat();
            socket.send_to(&packet, &SocketAddr::from((to, PORT)).into())?;
        }
        Ok(())
    })?
}
