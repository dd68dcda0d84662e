//! How long others wait for the kernel's nf_tables lock while a contender commits.
//!
//! An empty transaction takes the lock of its network namespace, finds nothing to do and gives it back: as long as it
//! takes, somebody else held the lock. That is the same measure for all contenders, whatever they say of themselves.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::namespace::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

/// Runs `work` and says, beside its outcome, the longest wait for the lock meanwhile.
pub(crate) fn longest_wait_during<T>(
    node: &Namespace,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Duration)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<Duration> {
            node.enter()?;
            let lock = Lock::open()?;
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                longest = longest.max(lock.wait()?);
                thread::sleep(PAUSE);
            }
            Ok(longest)
        });
        let outcome = work();
        over.store(true, Ordering::Relaxed);
        let longest = watch.join().ok().context("the watcher panicked")??;
        Ok((outcome?, longest))
    })
}

/// A netlink socket to the nf_tables of the network namespace of the thread that opened it.
#[derive(Debug)]
struct Lock {
    socket: OwnedFd,
}

impl Lock {
    fn open() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Self { socket })
    }

    /// Takes the lock and gives it back; how long that took. The kernel works on a message while it is sent.
    fn wait(&self) -> Result<Duration> {
        let kernel = NetlinkAddr::new(0, 0);
        let begin = Instant::now();
        let sent = sendto(
            self.socket.as_raw_fd(),
            &EMPTY_BATCH,
            &kernel,
            MsgFlags::empty(),
        )?;
        let took = begin.elapsed();
        ensure!(sent == EMPTY_BATCH.len(), "a netlink message was cut");
        Ok(took)
    }
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` for `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), each a
/// `nlmsghdr` with `NLM_F_REQUEST` and an `nfgenmsg`; the numbers of the header in the order of this machine.
const EMPTY_BATCH: [u8; 40] = empty_batch();

const fn empty_batch() -> [u8; 40] {
    let mut batch = [0; 40];
    let mut at = 0;
    let mut kind = 0x10;
    while at < 40 {
        #[expect(clippy::indexing_slicing, reason = "checked when this is compiled")]
        {
            batch[at] = 20;
            batch[at + 4] = kind;
            batch[at + 6] = 1;
            // The subsystem, in network order.
            batch[at + 19] = 10;
        }
        kind += 1;
        at += 20;
    }
    batch
}

#[cfg(not(target_endian = "little"))]
compile_error!("the bench writes netlink headers for little-endian machines");

const PAUSE: Duration = Duration::from_micros(200);
