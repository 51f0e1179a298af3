//! [`Process`]: what lives as long as the process.

use std::sync::Arc;

use authgate_auth::ReplayMemory;
use authgate_auth::dependencies::ChangeCounters;
use authgate_dataplane::telemetry::metrics::Metrics;

use crate::service_manager::ServiceManager;

/// What lives as long as the process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Every metric. Counters keep their values from one snapshot to the next.
    pub(super) metrics: Arc<Metrics>,
    /// The counters of changes in stores, which cached decisions depend on.
    pub(super) counters: Arc<ChangeCounters>,
    /// The DPoP proofs that clients have used. A reload must not make them valid again.
    pub(super) replays: Arc<ReplayMemory>,
    /// Has passed sockets, and receives messages.
    pub(super) service_manager: ServiceManager,
}
