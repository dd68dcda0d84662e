//! Entries of the connection tracking whose endpoint is gone: how long until they are gone too.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::namespace::Namespace;

use crate::contender::Running;
use crate::measure::Bench;
use crate::objects::{Number, UNREAD_PORT};
use crate::record::{Measure, Place};
use e2e::connection::Connection;

impl Bench<'_> {
    /// Fills the connection tracking with entries of one UDP Service, takes one of its two endpoints away, and waits
    /// until the entries that point at it are gone.
    pub(crate) fn stale_entries(&mut self, running: &Running, place: Place) -> Result<()> {
        let wanted = entries_that_fit()?;
        let number = self.next_trial();
        let mut api = Connection::open(self.server)?;
        let node = self.node()?;
        let _sources = Sources::prepare(node)?;
        number.create_unread(&mut api)?;
        running.wait_until_idle()?;
        node.run(|| fill(number, wanted))??;
        running.wait_until_idle()?;
        let stale = entries_of(node, *number.endpoint(0).ip())?;
        let all = node.run(count)??;
        ensure!(
            stale > wanted / 4,
            "only {stale} of {wanted} entries point at the endpoint that goes"
        );
        let cpu = running.usage()?.cpu_seconds;
        let begin = Instant::now();
        number.change_endpoints(&mut api, 1, 1)?;
        let seconds = node.run(|| -> Result<f64> {
            // Entries of other connections come and go meanwhile.
            while count()? > all - stale + OTHERS {
                ensure!(
                    begin.elapsed() < PATIENCE,
                    "{} entries are still there",
                    count()?
                );
                thread::sleep(Duration::from_millis(1));
            }
            Ok(begin.elapsed().as_secs_f64())
        })??;
        running.wait_until_idle()?;
        let cpu = running.usage()?.cpu_seconds - cpu;
        self.records
            .add(place, Measure::StaleEntries, [f64::from(stale)]);
        self.records.add(place, Measure::StaleSeconds, [seconds]);
        self.records.add(place, Measure::StaleCpu, [cpu]);
        number.delete(&mut api)?;
        running.wait_until_idle()?;
        let _ = node.output("conntrack", &["-F"])?;
        Ok(())
    }
}

/// Addresses of the Pod network that the node itself has for a while, to send from.
#[derive(Debug)]
struct Sources<'a>(&'a Namespace);

impl<'a> Sources<'a> {
    fn prepare(node: &'a Namespace) -> Result<Self> {
        node.configure(&format!("route add local {SOURCES} dev lo"))?;
        node.set_parameters("net.netfilter.nf_conntrack_udp_timeout=600")?;
        Ok(Self(node))
    }
}

impl Drop for Sources<'_> {
    fn drop(&mut self) {
        // The namespace goes soon anyway.
        let _ = self
            .0
            .configure(&format!("route del local {SOURCES} dev lo"));
        let _ = self
            .0
            .set_parameters("net.netfilter.nf_conntrack_udp_timeout=30");
    }
}

/// One datagram from each of `wanted` places.
fn fill(number: Number, wanted: u32) -> Result<()> {
    let server = SocketAddrV4::new(*number.frontend().ip(), UNREAD_PORT);
    for nth in 0..wanted {
        let address = Ipv4Addr::from(FIRST_SOURCE + nth / PORTS_EACH);
        let port = u16::try_from(FIRST_PORT + nth % PORTS_EACH)?;
        UdpSocket::bind((address, port))?
            .send_to(&[0], server)
            .with_context(|| format!("{address}:{port} could not send"))?;
    }
    Ok(())
}

/// How many entries there are in the network namespace of this thread.
fn count() -> Result<u32> {
    let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    Ok(text.context("no connection tracking")?.trim().parse()?)
}

/// How many of them point at an endpoint.
fn entries_of(node: &Namespace, endpoint: Ipv4Addr) -> Result<u32> {
    let arguments = ["-L", "-p", "udp", "--reply-src", &endpoint.to_string()];
    let listing = node.output("conntrack", &arguments)?;
    Ok(u32::try_from(listing.lines().count())?)
}

/// Half a million, or what the machine allows (`net.netfilter.nf_conntrack_max`).
fn entries_that_fit() -> Result<u32> {
    let most: u32 = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?
        .trim()
        .parse()?;
    Ok(WANTED.min(most / 10 * 8))
}

const WANTED: u32 = 500_000;
const SOURCES: &str = "10.244.200.0/24";
/// 10.244.200.1
const FIRST_SOURCE: u32 = 0x0af4_c801;
const FIRST_PORT: u32 = 1024;
const PORTS_EACH: u32 = 60_000;
const OTHERS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(120);
