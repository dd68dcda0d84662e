//! The only IO: IPVS by generic netlink, routes and the interface by rtnetlink, switches by `/proc/sys`.

mod prepare;
mod retire;
mod settings;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::{Duration, Instant};

use config::address::IpFamily;
use config::scheduler::Scheduler;
use config::service::Protocol;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use nix::errno::Errno;
use proxy_nftables::Key;
use proxy_table::Endpoint;

use crate::message::rtnetlink::{self, Link};
use crate::message::{self, Request, ToIpvs, Told, Verb};
use crate::program::{Command, Program, Refusals, Server};
pub use retire::{KUBE_LINK, Retired};
use settings::Before;
pub use settings::SettingError;
use socket::Socket;
pub use socket::SocketError;

/// IPVS and the routes of this network namespace. All calls block, for as long as the kernel works on them.
#[derive(Debug)]
pub struct Kernel {
    ipvs: Socket,
    to_ipvs: ToIpvs,
    routes: Socket,
    /// Our interface, if it was seen.
    link: Option<u32>,
    /// What was set before we came: the note at the interface goes with it, where somebody removes that.
    before: Option<Before>,
}

/// Why the kernel does not hold what it should. After any of these it has to be read again.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the kernel has no IPVS: load the module ip_vs, or choose another --dataplane")]
    NoIpvs(#[source] SocketError),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(
        "the kernel has no scheduler {0} of IPVS: load the module ip_vs_{0}, or choose another --ipvs-scheduler"
    )]
    NoScheduler(Scheduler),
    #[error("interface {LINK} is no dummy interface: remove it")]
    ForeignLink,
    #[error("interface {LINK} is gone")]
    NoLink,
    #[error(transparent)]
    Rules(#[from] proxy_nftables::KernelError),
}

/// After how much silence connections are forgotten; none for TCP is as long as conntrack, and for others what they are.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    pub tcp: Option<Duration>,
    pub tcp_fin: Option<Duration>,
    pub udp: Option<Duration>,
}

impl KernelError {
    /// Whether the kernel said that something is not there.
    pub(crate) fn is_nothing_there(&self) -> bool {
        matches!(self, Self::Socket(error) if error.errno() == Some(Errno::ENOENT))
    }
}

impl Kernel {
    /// Opens sockets to the kernel; nothing is changed, but the module of IPVS may be loaded.
    ///
    /// # Errors
    /// If the kernel has none.
    pub fn open() -> Result<Self, KernelError> {
        let mut ipvs = Socket::open(NETLINK_GENERIC)?;
        let answer = ipvs.get(message::get_family());
        let answer = answer.map_err(KernelError::NoIpvs)?;
        let family = message::read_family(&answer);
        let silence = || SocketError::Silence {
            what: "find IPVS in the kernel".to_owned(),
        };
        Ok(Self {
            ipvs,
            to_ipvs: ToIpvs(family.ok_or_else(silence)?),
            routes: Socket::open(NETLINK_ROUTE)?,
            link: None,
            before: None,
        })
    }

    /// Reads back what the kernel holds: our virtual servers and those of others, and the addresses at our interface.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn read(&mut self) -> Result<Program, KernelError> {
        let mut program = Program::default();
        for told in self.told()? {
            let mut server = Server {
                scheduler: told.scheduler.unwrap_or_default(),
                persistence_seconds: told.persistence_seconds,
                foreign: !told.ours || told.scheduler.is_none(),
                ..Server::default()
            };
            self.each_endpoint(told.key, |endpoint, weight, _| {
                server.endpoints.insert(endpoint, weight);
            })?;
            program.servers.insert(told.key, server);
        }
        program.addresses = self.addresses()?;
        Ok(program)
    }

    /// What [`Self::read`] reads, and how long that took.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn read_timed(&mut self) -> Result<(Program, Duration), KernelError> {
        let begin = Instant::now();
        Ok((self.read()?, begin.elapsed()))
    }

    /// The addresses that the node has at any interface; those of Services are none, not even where kube-proxy has given them
    /// to an interface.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn own_addresses(&mut self) -> Result<BTreeSet<IpAddr>, KernelError> {
        let mut own = BTreeSet::new();
        let kube_proxys = find_link(&mut self.routes, KUBE_LINK)?.map(|link| link.index);
        self.routes.dump(rtnetlink::get_addresses(), |answer| {
            let found = rtnetlink::read_interface_address(answer);
            let found = found.filter(|(index, _)| Some(*index) != kube_proxys);
            own.extend(found.map(|(_, address)| address));
        })?;
        Ok(own)
    }

    /// Takes the steps in their order; which of them the kernel refused for what they are about, which is no harm to others.
    ///
    /// # Errors
    /// If it refuses one for another reason: it holds something between then.
    pub fn apply(&mut self, commands: &[Command]) -> Result<Refusals, KernelError> {
        let mut refused = Refusals::default();
        let is_route = |command: &Command| {
            matches!(
                command,
                Command::AddAddress(..) | Command::RemoveAddress(..)
            )
        };
        for run in commands.chunk_by(|one, other| is_route(one) == is_route(other)) {
            let of_routes = run.first().is_some_and(is_route);
            let run = run.iter().filter(|command| !refused.forestall(command));
            let run: Vec<&Command> = run.collect();
            let requests = run.iter().map(|command| self.request(command));
            let requests = requests.collect::<Result<_, _>>()?;
            let socket = if of_routes {
                &mut self.routes
            } else {
                &mut self.ipvs
            };
            socket.commit_each(requests, |number, error| {
                let step = run.get(number);
                match (step, error) {
                    // The endpoints of a refused server come behind it.
                    (Some(step), _) if refused.forestall(step) => Ok(()),
                    (Some(step), SocketError::Refused { what, source }) if is_of_object(source) => {
                        refused.handle_refused(step, what, source);
                        Ok(())
                    }
                    (_, error) => Err(error),
                }
            })?;
        }
        Ok(refused)
    }

    /// The endpoints of a server that nobody is sent to, with the connections that each has.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn drained(&mut self, key: Key) -> Result<Vec<(Endpoint, u32)>, KernelError> {
        let mut drained = Vec::new();
        self.each_endpoint(key, |endpoint, weight, connections| {
            if weight == 0 {
                drained.push((endpoint, connections));
            }
        })?;
        Ok(drained)
    }

    /// Whether the kernel has a scheduler, or can load it: asked with a server that nobody reaches.
    ///
    /// # Errors
    /// If the kernel refuses it for another reason.
    pub fn has_scheduler(&mut self, scheduler: Scheduler) -> Result<bool, KernelError> {
        let probe = Key {
            address: IpAddr::from([192, 0, 2, 0]),
            protocol: Protocol::Udp,
            port: NonZeroU16::MIN,
        };
        let add = self.to_ipvs.server(Verb::NewServer, probe, scheduler, None);
        match self.ipvs.commit(vec![(add, &[Errno::EEXIST])]) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(false),
            added => added?,
        }
        let delete = self.to_ipvs.delete_server(probe);
        self.ipvs.commit(vec![(delete, &[Errno::ESRCH])])?;
        Ok(true)
    }

    /// Whether our interface is there and up; what cannot be looked at counts as that.
    pub fn has_link(&mut self) -> bool {
        let found = self.find_link();
        found.map_or(true, |link| {
            link.is_some_and(|link| link.is_up && Some(link.index) == self.link)
        })
    }

    /// Removes everything of ours and puts the switches back; whether there was anything.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn remove() -> Result<bool, KernelError> {
        if !Path::new(LOADED).exists() {
            // Nothing of ours without it, and it is not loaded to see that.
            return Ok(false);
        }
        let mut kernel = Self::open()?;
        let told = kernel.told()?;
        // Whoever else has servers needs the same switches, and sets them when it starts only, as kube-proxy.
        let shared = told.iter().any(|told| !told.ours);
        let ours = told.into_iter().filter(|told| told.ours);
        let requests: Vec<(Request, &[Errno])> = ours
            .map(|told| (kernel.to_ipvs.delete_server(told.key), &[Errno::ESRCH][..]))
            .collect();
        let mut found = !requests.is_empty();
        kernel.ipvs.commit(requests)?;
        if let Some(link) = kernel.find_link()?.filter(|link| link.is_dummy) {
            found = true;
            let before = Before::from_alias(&link.alias);
            if let Some(before) = before.filter(|_| !shared) {
                kernel.put_back(&before)?;
            }
            let delete = rtnetlink::delete_link(link.index);
            kernel.routes.commit(vec![(delete, &[])])?;
        }
        Ok(found)
    }

    /// The addresses that are routed to our interface.
    fn addresses(&mut self) -> Result<BTreeMap<IpAddr, Option<IpAddr>>, KernelError> {
        let mut addresses = BTreeMap::new();
        if let Some(link) = self.find_link()? {
            for family in [IpFamily::V4, IpFamily::V6] {
                self.routes.dump(rtnetlink::get_routes(family), |answer| {
                    addresses.extend(rtnetlink::read_route(answer, link.index));
                })?;
            }
        }
        Ok(addresses)
    }

    fn told(&mut self) -> Result<Vec<Told>, KernelError> {
        let mut told = Vec::new();
        self.ipvs.dump(self.to_ipvs.get_servers(), |answer| {
            told.extend(message::read_server(answer));
        })?;
        Ok(told)
    }

    fn each_endpoint(
        &mut self,
        key: Key,
        mut each: impl FnMut(Endpoint, u32, u32),
    ) -> Result<(), KernelError> {
        let family = IpFamily::of(key.address);
        let read = self.ipvs.dump(self.to_ipvs.get_endpoints(key), |answer| {
            if let Some((endpoint, weight, connections)) = message::read_endpoint(family, answer) {
                each(endpoint, weight, connections);
            }
        });
        match read {
            // The server went meanwhile.
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            read => Ok(read?),
        }
    }

    fn find_link(&mut self) -> Result<Option<Link>, KernelError> {
        find_link(&mut self.routes, LINK)
    }

    /// The message for a step, and what the kernel may say to it without harm.
    fn request(&self, command: &Command) -> Result<(Request, &'static [Errno]), KernelError> {
        const GONE: &[Errno] = &[Errno::ESRCH, Errno::ENOENT];
        let link = || self.link.ok_or(KernelError::NoLink);
        let to = self.to_ipvs;
        Ok(match *command {
            Command::AddServer(key, scheduler, seconds) => {
                (to.server(Verb::NewServer, key, scheduler, seconds), &[])
            }
            Command::SetServer(key, scheduler, seconds) => {
                (to.server(Verb::SetServer, key, scheduler, seconds), &[])
            }
            Command::RemoveServer(key) => (to.delete_server(key), GONE),
            Command::AddEndpoint(key, endpoint) => {
                (to.endpoint(Verb::NewEndpoint, key, endpoint, 1), &[])
            }
            Command::SetWeight(key, endpoint, weight) => {
                (to.endpoint(Verb::SetEndpoint, key, endpoint, weight), &[])
            }
            Command::RemoveEndpoint(key, endpoint) => {
                (to.endpoint(Verb::DeleteEndpoint, key, endpoint, 0), GONE)
            }
            // Somebody gave the node this very address meanwhile.
            Command::AddAddress(address, source) => (
                rtnetlink::new_route(address, source, link()?),
                &[Errno::EEXIST],
            ),
            Command::RemoveAddress(address) => (rtnetlink::delete_route(address, link()?), GONE),
        })
    }
}

/// Whether the kernel says this of the one object that it is asked for: it would say it again, and others are not concerned.
/// Otherwise something is there or not there against what was read, or nothing can be had at all.
fn is_of_object(said: Errno) -> bool {
    let is_of_all = matches!(
        said,
        Errno::EPERM | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR
    );
    let is_of_reading = matches!(said, Errno::EEXIST | Errno::ENOENT | Errno::ESRCH);
    !is_of_all && !is_of_reading
}

/// The interface of this name, if there is one.
fn find_link(routes: &mut Socket, name: &str) -> Result<Option<Link>, KernelError> {
    match routes.get(rtnetlink::get_link(name)) {
        Ok(answer) => Ok(rtnetlink::read_link(&answer)),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The interface that the routes of VIPs and ClusterIPs are at.
const LINK: &str = "foghorn0";
const SYSCTLS: &str = "/proc/sys";
/// Exists while the module of IPVS is loaded.
const LOADED: &str = "/proc/net/ip_vs";
