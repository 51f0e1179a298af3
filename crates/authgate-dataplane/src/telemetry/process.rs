//! The `process_*` metrics that every Prometheus client library exports, from `/proc/self`. On other systems than Linux there are none.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::table;

/// What the kernel reports about this process.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system CPU time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: i64,
    virtual_bytes: i64,
    /// Open file descriptors.
    pub open_fds: i64,
    /// Their soft limit; `None`: there is none.
    pub max_fds: Option<i64>,
    start_seconds: f64,
}

/// Reads [`Usage`] at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // If /proc cannot be read, these metrics are missing, but the scrape succeeds.
        let Some(usage) = usage() else {
            return Ok(());
        };
        let to = &mut encoder;
        table::PROCESS_CPU.write(to, &ConstCounter::new(usage.cpu_seconds))?;
        table::PROCESS_START_TIME.write(to, &ConstGauge::new(usage.start_seconds))?;
        table::PROCESS_RESIDENT_MEMORY.write(to, &ConstGauge::new(usage.resident_bytes))?;
        table::PROCESS_VIRTUAL_MEMORY.write(to, &ConstGauge::new(usage.virtual_bytes))?;
        table::PROCESS_OPEN_FDS.write(to, &ConstGauge::new(usage.open_fds))?;
        match usage.max_fds {
            Some(limit) => table::PROCESS_MAX_FDS.write(to, &ConstGauge::new(limit)),
            None => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
/// The usage by now. `None`: it cannot be read.
pub fn usage() -> Option<Usage> {
    use procfs::process::{LimitValue, Process};

    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Some(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: whole(stat.rss.saturating_mul(procfs::page_size())),
        virtual_bytes: whole(stat.vsize),
        open_fds: i64::try_from(process.fd_count().ok()?).ok()?,
        max_fds: match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(whole(limit)),
            LimitValue::Unlimited => None,
        },
        start_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
    })
}

#[cfg(not(target_os = "linux"))]
/// The usage by now. `None`: it cannot be read.
pub fn usage() -> Option<Usage> {
    None
}
