//! The `process_*` metrics that every Prometheus client library exports, from `/proc/self`. On other systems than Linux there are none.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// What the kernel reports about this process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    open_fds: i64,
    max_fds: Option<i64>,
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
        let help = "User and system CPU time of the process";
        write(
            to,
            "process_cpu",
            help,
            Some(&Unit::Seconds),
            &ConstCounter::new(usage.cpu_seconds),
        )?;
        let help = "When the process started, in seconds since the Unix epoch";
        write(
            to,
            "process_start_time",
            help,
            Some(&Unit::Seconds),
            &ConstGauge::new(usage.start_seconds),
        )?;
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Resident memory",
                Some(&Unit::Bytes),
                Some(usage.resident_bytes),
            ),
            (
                "process_virtual_memory",
                "Virtual memory",
                Some(&Unit::Bytes),
                Some(usage.virtual_bytes),
            ),
            ("process_open_fds", "Open file descriptors", None, Some(usage.open_fds)),
            (
                "process_max_fds",
                "The soft limit of open file descriptors",
                None,
                usage.max_fds,
            ),
        ] {
            if let Some(value) = value {
                write(to, name, help, unit, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let kind = metric.metric_type();
    metric.encode(encoder.encode_descriptor(name, help, unit, kind)?)
}

#[cfg(target_os = "linux")]
fn usage() -> Option<Usage> {
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
fn usage() -> Option<Usage> {
    None
}
