//! What a process has used, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Of itself and of the children that it waited for, in user space and in the kernel.
    pub(crate) cpu_seconds: f64,
    /// The most memory that it had resident at once, in MiB; without children.
    pub(crate) peak_mib: f64,
    /// The memory that it has resident now, in MiB.
    pub(crate) resident_mib: f64,
}

impl Usage {
    /// Of the process with this number.
    pub(crate) fn of(process_id: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process_id}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
        Self::parse(&stat, &status)
            .with_context(|| format!("/proc/{process_id} is not as expected"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // utime, stime, cutime and cstime are the 12th to 15th after the name in parentheses (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: f64 = fields
            .split_ascii_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        let mib = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
            Some(kib / 1024.0)
        };
        Some(Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            peak_mib: mib("VmHWM:")?,
            resident_mib: mib("VmRSS:")?,
        })
    }
}

/// `USER_HZ`, the same on every architecture that Kubernetes runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_count_as_processor_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 20 30 20 0 9 0 123 456 789";
        let status = "Name:\ta\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        let usage = Usage::parse(stat, status).unwrap();
        assert_eq!(
            usage,
            Usage {
                cpu_seconds: 3.5,
                peak_mib: 20.0,
                resident_mib: 10.0,
            }
        );
        assert_eq!(Usage::parse("nonsense", status), None);
    }
}
