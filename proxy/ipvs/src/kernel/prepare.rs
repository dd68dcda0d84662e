//! What has to be there before servers and routes are: the interface, the kernel's switches, the timeouts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::settings::{self, Before};
use super::{Kernel, KernelError, LINK, SYSCTLS, Timeouts};
use crate::message::read_timeouts;
use crate::message::rtnetlink::{self, Link};

impl Kernel {
    /// Makes the interface and sets the switches, whatever is there already.
    ///
    /// # Errors
    /// If something is refused: without the switches, VIPs leak to the LAN and nothing is masqueraded.
    pub fn prepare(&mut self, timeouts: Timeouts) -> Result<(), KernelError> {
        let link = self.ensure_link()?;
        self.link = Some(link.index);
        self.ensure_switches(&link)?;
        self.set_up(&link)?;
        let tcp = timeouts.tcp.or_else(timeout_of_conntrack);
        let wanted = [tcp, timeouts.tcp_fin, timeouts.udp].map(seconds);
        if wanted != [0; 3] {
            let set = self.to_ipvs.set_timeouts(wanted);
            self.ipvs.commit(vec![(set, &[])])?;
        }
        Ok(())
    }

    fn ensure_link(&mut self) -> Result<Link, KernelError> {
        let link = match self.find_link()? {
            Some(link) => link,
            None => {
                let request = (rtnetlink::new_link(LINK), &[Errno::EEXIST][..]);
                self.routes.commit(vec![request])?;
                self.find_link()?.ok_or(KernelError::NoLink)?
            }
        };
        if link.is_dummy {
            Ok(link)
        } else {
            Err(KernelError::ForeignLink)
        }
    }

    /// What was set before is noted first: whatever happens then, it can be put back.
    fn ensure_switches(&mut self, link: &Link) -> Result<(), KernelError> {
        let found = settings::read(Path::new(SYSCTLS))?;
        let noted = Before::from_alias(&link.alias);
        let is_noted = noted.is_some();
        // What an earlier process of ours noted goes before what it left.
        let before = match noted.or_else(|| self.before.take()) {
            Some(before) => before,
            None => {
                let timeouts = self.ipvs.get(self.to_ipvs.get_timeouts())?;
                let timeouts = read_timeouts(&timeouts).unwrap_or_default();
                let mut before = found.clone();
                let names = TIMEOUTS.map(str::to_owned);
                before.0.extend(names.into_iter().zip(timeouts));
                before
            }
        };
        if !is_noted {
            let alias = rtnetlink::set_alias(link.index, &before.to_alias());
            self.routes.commit(vec![(alias, &[])])?;
        }
        self.before = Some(before);
        settings::ensure(Path::new(SYSCTLS), &found)?;
        Ok(())
    }

    fn set_up(&mut self, link: &Link) -> Result<(), KernelError> {
        // Where only new interfaces are without IPv6, this one needs it: its routes are refused otherwise.
        let switch =
            |name: &str| Path::new(SYSCTLS).join(format!("net/ipv6/conf/{name}/disable_ipv6"));
        let is_on = fs::read_to_string(switch("all")).is_ok_and(|text| text.trim() == "0");
        if is_on {
            // What is refused then is said with the first route.
            let _ = fs::write(switch(LINK), "0");
        }
        // Without IPv6 in the kernel there is nothing to keep off.
        let harmless = &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL];
        let bare = (rtnetlink::set_no_address(link.index), &harmless[..]);
        let mut requests = vec![bare];
        if !link.is_up {
            requests.push((rtnetlink::set_up(link.index), &[]));
        }
        self.routes.commit(requests)?;
        Ok(())
    }

    /// Sets switches and timeouts as they were.
    pub(super) fn put_back(&mut self, before: &Before) -> Result<(), KernelError> {
        settings::put_back(Path::new(SYSCTLS), before);
        let seconds = TIMEOUTS.map(|name| before.0.get(name).copied().unwrap_or(0));
        let set = self.to_ipvs.set_timeouts(seconds);
        self.ipvs.commit(vec![(set, &[])])?;
        Ok(())
    }
}

/// After how much silence conntrack forgets a TCP connection: earlier than that, IPVS should not. Conntrack is there once IPVS
/// is, and not before.
fn timeout_of_conntrack() -> Option<Duration> {
    let name = "net/netfilter/nf_conntrack_tcp_timeout_established";
    let text = fs::read_to_string(Path::new(SYSCTLS).join(name)).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// As the kernel takes it: 0 leaves a timeout as it is.
fn seconds(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        seconds.min(LONGEST_SECONDS)
    })
}

/// The names of the timeouts in the note, in the order of the kernel.
const TIMEOUTS: [&str; 3] = ["tcp", "tcp_fin", "udp"];
/// The kernel counts them in ticks, of which there may be a thousand in a second, with 31 bits: 24 days.
const LONGEST_SECONDS: u32 = 2_147_483;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_the_kernel_could_not_count_is_the_longest_that_it_can() {
        for (timeout, expected) in [
            (None, 0),
            (Some(Duration::ZERO), 0),
            (Some(Duration::from_secs(432_000)), 432_000),
            (Some(Duration::from_secs(100 * 86_400)), LONGEST_SECONDS),
            (Some(Duration::MAX), LONGEST_SECONDS),
        ] {
            assert_eq!(seconds(timeout), expected, "{timeout:?}");
        }
    }
}
