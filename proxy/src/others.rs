//! What goes once this proxy forwards: what other data planes of ours left in the kernel, and what kube-proxy left.
//!
//! It would go on translating, to the endpoints of that time, so it is tried again until it is gone.

use std::time::Duration;

use config_runtime::chain::Chain;
use proxy::leftovers::{self, Leftovers};
use proxy::mode::Mode;
use proxy_iptables::{Backend, Iptables};
use proxy_ipvs::{Ipvs, Retired};
use proxy_nftables::Nftables;

/// Data planes of ours that are not in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Others {
    /// Whether nftables is one of them.
    pub(crate) nftables: bool,
    /// Whether IPVS is one of them.
    pub(crate) ipvs: bool,
    /// The back end of iptables that is in use.
    pub(crate) spared: Option<Backend>,
}

/// Whether there is nothing left to be tried again.
type IsDone = bool;

/// Removes all of it, what of IPVS has connections when those have ended. What stays keeps nothing else.
pub(crate) async fn remove(others: Others) {
    let mut retirement = Retirement {
        ours: others.ipvs,
        is_said: false,
    };
    tokio::join!(
        until_done(move |is_first| others.remove(is_first)),
        until_done(remove_of_kube_proxy),
        until_done(move |is_first| retirement.look(is_first)),
    );
}

/// Does it on a thread that may block, again and again until it is done; at first it is told that it is the first time.
async fn until_done(mut work: impl FnMut(bool) -> IsDone + Send + 'static) {
    let mut is_first = true;
    loop {
        let working = tokio::task::spawn_blocking(move || {
            let is_done = work(is_first);
            (is_done, work)
        });
        match working.await {
            Ok((false, same)) => work = same,
            Ok((true, _)) | Err(_) => return,
        }
        is_first = false;
        tokio::time::sleep(RETRY).await;
    }
}

impl Others {
    /// Removes the rules that they left behind, and says so.
    fn remove(self, is_first: bool) -> IsDone {
        // Where there is no nf_tables there is nothing in it.
        let nftables = self.nftables && Nftables::answers().is_ok();
        let nftables = !nftables || say_removed(Mode::Nftables, Nftables::remove(), is_first);
        let iptables = say_removed(Mode::Iptables, Iptables::remove(self.spared), is_first);
        nftables & iptables & say_what_stays(is_first)
    }
}

fn say_what_stays(is_first: bool) -> IsDone {
    let stays = leftovers::expect_none_of_ours();
    if let Err(error) = &stays {
        let what = "Our rules of iptables were not removed: trying again";
        failed(is_first, &Chain(error).to_string(), what);
    }
    stays.is_ok()
}

fn say_removed<E>(mode: Mode, removed: Result<bool, E>, is_first: bool) -> IsDone
where
    E: std::error::Error + 'static,
{
    let mode = mode.name();
    match removed {
        Ok(true) => tracing::info!(mode, "Removed the rules of another data plane of ours"),
        Ok(false) => {}
        Err(error) => {
            let what = format!("Our rules of {mode} were not removed: trying again");
            failed(is_first, &Chain(&error).to_string(), &what);
            return false;
        }
    }
    true
}

fn remove_of_kube_proxy(is_first: bool) -> IsDone {
    match leftovers::remove() {
        Ok(found) => {
            say(&found);
            true
        }
        Err(error) => {
            let error = Chain(&error).to_string();
            failed(
                is_first,
                &error,
                "What kube-proxy left was not removed: trying again",
            );
            false
        }
    }
}

fn say(found: &Leftovers) {
    if !found.removed_tables.is_empty() {
        tracing::info!(families = ?found.removed_tables, "Removed the nftables table of kube-proxy");
    }
    if !found.removed_chains.is_empty() {
        tracing::info!(from = ?found.removed_chains, "Removed the chains of kube-proxy's iptables mode");
    }
    if !found.iptables_tables.is_empty() {
        tracing::warn!(
            tables = ?found.iptables_tables,
            "Chains of kube-proxy's iptables mode are there, and no iptables to remove them with: take the image whose tag ends in -iptables, \
             or restart the node"
        );
    }
}

/// Virtual servers of IPVS that no new connection meets: they go when those that they have are over.
#[derive(Clone, Copy, Debug)]
struct Retirement {
    /// Whether ours are among them; kube-proxy's always are.
    ours: bool,
    is_said: bool,
}

impl Retirement {
    /// Removes what has no connections.
    fn look(&mut self, is_first: bool) -> IsDone {
        let mut waiting = 0;
        let mut is_done = true;
        let all: [(bool, &str, Retire); 2] = [
            (self.ours, "Foghorn", Ipvs::retire),
            (true, "kube-proxy", Ipvs::retire_kube_proxy),
        ];
        for (_, whose, retire) in all.into_iter().filter(|(is_meant, ..)| *is_meant) {
            match retire() {
                Ok(Retired::Nothing) => {}
                Ok(Retired::Waiting(count)) => waiting += count,
                Ok(Retired::Done) => {
                    tracing::info!(whose, "Removed what was left of an IPVS mode");
                }
                Err(error) => {
                    is_done = false;
                    let what = format!(
                        "What is left of an IPVS mode of {whose} was not removed: trying again"
                    );
                    failed(is_first, &Chain(&error).to_string(), &what);
                }
            }
        }
        if waiting > 0 && !std::mem::replace(&mut self.is_said, true) {
            tracing::info!(
                count = waiting,
                "Connections through IPVS live on: their servers go when they have ended"
            );
        }
        is_done && waiting == 0
    }
}

type Retire = fn() -> Result<Retired, proxy_ipvs::KernelError>;

/// The same failure is news once.
fn failed(is_first: bool, error: &str, what: &str) {
    if is_first {
        tracing::warn!(%error, "{what}");
    } else {
        tracing::debug!(%error, "{what}");
    }
}

/// How often what is not gone is looked at.
const RETRY: Duration = Duration::from_secs(10);
