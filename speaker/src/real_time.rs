//! What keeps the thread of the machine from being late: real-time priority, locked memory, exact timers.

use std::fmt;
use std::io;

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_timerslack;

/// What the kernel granted to this thread.
#[derive(Debug)]
pub struct Granted {
    /// SCHED_FIFO, or why not.
    pub priority: io::Result<()>,
    /// Locked memory, or why not.
    pub memory: io::Result<()>,
}

/// Asks for everything for the calling thread.
pub fn claim() -> Granted {
    // Without real-time priority, timers may be up to 50 microseconds late by default.
    let _ = set_timerslack(1);
    Granted {
        priority: set_fifo(),
        memory: lock_memory(),
    }
}

/// First in, first out, above everything that is not real-time; threads made by this one do not inherit it.
///
/// The kernel is asked itself: musl's `sched_setscheduler` answers that there is no such call.
fn set_fifo() -> io::Result<()> {
    let parameter = Parameter {
        sched_priority: PRIORITY,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let number = libc::SYS_sched_setscheduler;
    // SAFETY: the pointer is to a parameter that lives during the call; 0 is the calling thread.
    let outcome = unsafe { libc::syscall(number, 0, policy, &raw const parameter) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `struct sched_param` as the kernel reads it (sched_setscheduler(2)); that of a C library may be longer.
#[repr(C)]
struct Parameter {
    sched_priority: libc::c_int,
}

/// Keeps what is in memory now from being swapped out.
///
/// Not what comes later: where the limit of locked memory is low, that would make allocations fail.
fn lock_memory() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    Ok(mlockall(MlockAllFlags::MCL_CURRENT | on_fault)?)
}

impl fmt::Display for Granted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |outcome: &io::Result<()>| match outcome {
            Ok(()) => "granted".to_owned(),
            Err(error) => format!("refused ({error})"),
        };
        let (priority, memory) = (say(&self.priority), say(&self.memory));
        write!(
            formatter,
            "real-time priority {priority}, locked memory {memory}"
        )
    }
}

/// Low among the real-time priorities: above all ordinary work, below the kernel's own threads.
const PRIORITY: i32 = 10;
