//! [`HealthReports`]: what the workers report of the servers of one upstream, for operators. Decisions do not depend on it: each worker
//! uses its own [`Health`](super::health::Health). Only a change of state takes a lock, never a request that succeeds after a success.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::SystemTime;

/// The reports of all workers; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HealthReports(Arc<Mutex<Vec<Entry>>>);

/// One for each server and worker.
#[derive(Debug)]
struct Entry {
    server: String,
    worker: ThreadId,
    report: Weak<HealthReport>,
}

/// What one worker reports of one server.
#[derive(Debug, Default)]
pub(super) struct HealthReport(Mutex<Faults>);

#[derive(Debug, Default)]
struct Faults {
    connections: Option<ServerFault>,
    checks: Option<ServerFault>,
}

/// What is wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFault {
    /// Whether it fails its health checks. Otherwise, requests to it have failed.
    pub fails_checks: bool,
    /// Since when.
    pub since: SystemTime,
    /// The last failure of this kind.
    pub reason: String,
}

/// The state of one server, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address, or the path of its socket file.
    pub server: String,
    /// The workers that use it.
    pub workers: usize,
    /// The workers for which it fails.
    pub failing: usize,
    /// What is wrong with it, for the worker that has noticed it first. `None`: no worker has a problem with it.
    pub fault: Option<ServerFault>,
}

impl HealthReports {
    /// The report of this worker about a server. It replaces an earlier one of the same worker and server.
    pub(super) fn report(&self, server: String) -> Arc<HealthReport> {
        let (worker, report) = (thread::current().id(), Arc::default());
        let mut entries = self.lock();
        entries.retain(|entry| entry.report.strong_count() > 0 && (entry.worker != worker || entry.server != server));
        entries.push(Entry {
            server,
            worker,
            report: Arc::downgrade(&report),
        });
        report
    }

    /// The state of a server with this name.
    pub(super) fn status(&self, server: String) -> ServerStatus {
        let entries = self.lock();
        let reports = entries.iter().filter(|entry| entry.server == server);
        let reports: Vec<Arc<HealthReport>> = reports.filter_map(|entry| entry.report.upgrade()).collect();
        let faults: Vec<ServerFault> = reports.iter().filter_map(|report| report.fault()).collect();
        ServerStatus {
            workers: reports.len(),
            failing: faults.len(),
            fault: faults.into_iter().min_by_key(|fault| fault.since),
            server,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HealthReport {
    /// The server is not used for a pause, because of this failure.
    pub(super) fn set_ejected(&self, reason: &dyn Display) {
        set(&mut self.lock().connections, false, reason);
    }

    /// The server has answered a request.
    pub(super) fn clear_ejected(&self) {
        self.lock().connections = None;
    }

    /// The server fails its checks, the last one because of this.
    pub(super) fn set_checks_fail(&self, reason: &dyn Display) {
        set(&mut self.lock().checks, true, reason);
    }

    /// The server passes its checks, or there are none.
    pub(super) fn clear_checks(&self) {
        self.lock().checks = None;
    }

    fn fault(&self) -> Option<ServerFault> {
        let faults = self.lock();
        faults.checks.as_ref().or(faults.connections.as_ref()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(fault: &mut Option<ServerFault>, fails_checks: bool, reason: &dyn Display) {
    let since = fault.as_ref().map_or_else(SystemTime::now, |fault| fault.since);
    *fault = Some(ServerFault {
        fails_checks,
        since,
        reason: reason.to_string(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_the_faults_of_the_workers_that_use_it() {
        let reports = HealthReports::default();
        let status = || reports.status("127.0.0.1:8000".to_owned());
        assert_eq!((status().workers, status().fault), (0, None));
        let here = reports.report("127.0.0.1:8000".to_owned());
        let shared = reports.clone();
        let other = thread::spawn(move || shared.report("127.0.0.1:8000".to_owned()))
            .join()
            .expect("a thread");
        let _another_server = reports.report("127.0.0.1:8001".to_owned());
        assert_eq!((status().workers, status().failing), (2, 0));

        here.set_ejected(&"connection refused");
        let since = status().fault.expect("one").since;
        here.set_ejected(&"connection reset");
        let fault = status().fault.expect("one");
        assert_eq!(
            (fault.since, &*fault.reason, fault.fails_checks),
            (since, "connection reset", false)
        );
        other.set_checks_fail(&"status 500");
        assert_eq!((status().workers, status().failing), (2, 2));
        here.clear_ejected();
        assert!(status().fault.expect("one").fails_checks);
        other.clear_checks();
        assert_eq!((status().failing, status().fault), (0, None));
        drop(other);
        let _again = reports.report("127.0.0.1:8000".to_owned());
        assert_eq!(status().workers, 1, "a worker has one report for each server");
        drop(here);
    }
}
