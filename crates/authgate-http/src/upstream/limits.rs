//! The limits of one upstream that all workers share, with the counters of what is in use, and the reports about its servers.
//!
//! The counters live as long as the process. If the settings change, [`UpstreamLimits::with_settings`] keeps them: what is in use counts against
//! the new limits.

use super::health_reports::{HealthReports, ServerStatus};
use super::settings::UpstreamSettings;
use super::spool::SpoolUsage;
use crate::concurrency::ConcurrencyLimit;

/// The limit of buffered bytes in all workers: once for requests and once for responses, for each upstream.
const MAX_BUFFERED: usize = 256 * 1024 * 1024;

/// The shared limits of one upstream; clones share the counters.
#[derive(Debug, Clone)]
pub struct UpstreamLimits {
    /// Concurrent requests.
    pub(super) in_flight: ConcurrencyLimit,
    /// Buffered request bodies.
    request_buffers: ConcurrencyLimit,
    /// Responses that are read ahead.
    response_buffers: ConcurrencyLimit,
    pub(super) spool: SpoolUsage,
    /// What the workers report of its servers.
    pub(super) reports: HealthReports,
}

impl UpstreamLimits {
    /// Limits of which nothing is in use.
    pub fn new(settings: &UpstreamSettings) -> Self {
        Self {
            in_flight: ConcurrencyLimit::new(settings.in_flight),
            request_buffers: ConcurrencyLimit::new(max_messages(settings.request_buffer)),
            response_buffers: ConcurrencyLimit::new(max_messages(settings.response_buffer)),
            spool: SpoolUsage::new(),
            reports: HealthReports::default(),
        }
    }

    /// The limits of changed settings, with the same counters.
    #[must_use]
    pub fn with_settings(&self, settings: &UpstreamSettings) -> Self {
        Self {
            in_flight: self.in_flight.with_max(settings.in_flight),
            request_buffers: self.request_buffers.with_max(max_messages(settings.request_buffer)),
            response_buffers: self.response_buffers.with_max(max_messages(settings.response_buffer)),
            spool: self.spool.clone(),
            reports: self.reports.clone(),
        }
    }

    /// The state of each server of these settings.
    pub fn servers(&self, settings: &UpstreamSettings) -> Vec<ServerStatus> {
        let servers = settings.servers.iter();
        servers
            .map(|server| self.reports.status(server.endpoint().name()))
            .collect()
    }

    /// The requests under way in all workers, and their limit. `None`: there is no limit, and they are not counted.
    pub fn in_flight(&self) -> Option<(usize, usize)> {
        self.in_flight.usage()
    }

    /// The buffer for request bodies, if the settings have one.
    pub(super) fn request_buffer(&self, settings: &UpstreamSettings) -> Option<Buffer> {
        Buffer::new(settings.request_buffer, &self.request_buffers)
    }

    /// The buffer for responses, if the settings have one.
    pub(super) fn response_buffer(&self, settings: &UpstreamSettings) -> Option<Buffer> {
        Buffer::new(settings.response_buffer, &self.response_buffers)
    }
}

/// How many messages of this many bytes [`MAX_BUFFERED`] allows: at least one, and 0 if nothing is buffered.
fn max_messages(bytes: usize) -> usize {
    MAX_BUFFERED.checked_div(bytes).map_or(0, |messages| messages.max(1))
}

/// How much of a message is buffered, so that a slow client does not occupy a server.
#[derive(Debug, Clone)]
pub(super) struct Buffer {
    /// The limit for one message, in bytes; at least 1.
    pub(super) bytes: usize,
    /// The limit of buffered messages. Beyond it, messages are forwarded without a buffer.
    pub(super) messages: ConcurrencyLimit,
}

impl Buffer {
    fn new(bytes: usize, messages: &ConcurrencyLimit) -> Option<Self> {
        let messages = messages.clone();
        (bytes > 0).then_some(Self { bytes, messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffered_messages_are_limited_by_their_total_size() {
        let messages = [0, 1, 64 << 20, MAX_BUFFERED, MAX_BUFFERED + 1].map(max_messages);
        assert_eq!(messages, [0, MAX_BUFFERED, 4, 1, 1]);
    }
}
