//! `acme` of `[server.tls]`: obtains certificates from an authority (RFC 8555) and renews them.
//!
//! One task per gateway, on the control runtime. Accounts, keys and certificates are in a folder that gateways may share: a lock file lets
//! one gateway at a time order, and all of them answer challenges from that folder and take over the certificates in it. Requests are not
//! served here, and a gateway never waits for a certificate.

mod directory;
mod order;
mod schedule;
mod store;
mod task;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use authgate_dataplane::file::ReadLimit;
use authgate_dataplane::telemetry::metrics::AcmeSample;
use authgate_dataplane::tls::Authorities;
use authgate_dataplane::tls::certificate::Certificate;
use authgate_dataplane::tls::managed::ManagedCertificates;
use authgate_dataplane::tls::validity::Validity;
use rustls_pki_types::UnixTime;
use tokio::task::AbortHandle;
use tracing::{error, warn};

use self::order::{Challenge, OrderError};
use self::schedule::Life;
use self::store::AcmeStore;

/// The configuration of `acme`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// Host names in lower case. Each gets a certificate of its own.
    pub domains: Vec<String>,
    /// Where the authority sends warnings.
    pub email: Option<String>,
    /// The https URL of the directory.
    pub directory: String,
    /// Authorities that sign the certificate of the directory; `None`: the root certificates of the system.
    pub ca: Option<Authorities>,
    /// The folder for accounts, keys and certificates.
    pub store: PathBuf,
    /// Whether `redirect_http` has listeners, which answer HTTP-01 challenges.
    pub has_http: bool,
}

/// The certificates of a configuration, and the task that renews them. Dropping it ends the task.
pub struct Acme {
    inner: Arc<Inner>,
    task: Mutex<Option<AbortHandle>>,
}

struct Inner {
    settings: AcmeSettings,
    store: AcmeStore,
    certificates: Arc<ManagedCertificates>,
    // One for each domain, in the order of the settings.
    domains: Mutex<Vec<Domain>>,
    /// Why the task has ended that renews certificates; `None` while it runs.
    stopped: Mutex<Option<String>>,
    /// Any client can ask for the answer to a challenge.
    reads: ReadLimit,
}

/// What is known of one domain.
#[derive(Debug)]
struct Domain {
    /// The life of the certificate that is served; `None`: there is none yet.
    life: Option<Life>,
    /// The leaf that is served.
    leaf: Vec<u8>,
    /// When the gateway orders a certificate.
    due: SystemTime,
    /// Failed attempts since the last certificate that need not be renewed yet.
    failed: u32,
    /// Failed attempts since the start.
    failures: u64,
    last_error: Option<String>,
    /// The kind of challenge that is tried first.
    challenge: Challenge,
}

/// The state of one domain, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeStatus {
    /// The domain.
    pub domain: String,
    /// The file of its certificate and key.
    pub file: PathBuf,
    /// When its certificate expires; `None`: there is none yet.
    pub expires: Option<UnixTime>,
    /// When the gateway orders the next certificate.
    pub due: SystemTime,
    /// Failed attempts since the start of the gateway, or since `acme` was changed.
    pub failures: u64,
    /// Why the last attempt has failed, or why certificates are not renewed now; `None` otherwise.
    pub last_error: Option<String>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Acme {
    /// Loads the certificates that are there already.
    pub fn new(settings: AcmeSettings) -> Self {
        let store = AcmeStore::new(&settings.store, &settings.directory);
        let managed = settings
            .domains
            .iter()
            .map(|domain| (domain.clone(), store.tls_challenge_file(domain)));
        let domain = |_| Domain {
            life: None,
            leaf: Vec::new(),
            due: SystemTime::now(),
            failed: 0,
            failures: 0,
            last_error: None,
            challenge: Challenge::TlsAlpn,
        };
        let inner = Inner {
            certificates: Arc::new(ManagedCertificates::new(managed)),
            domains: Mutex::new(settings.domains.iter().map(domain).collect()),
            stopped: Mutex::default(),
            reads: ReadLimit::default(),
            settings,
            store,
        };
        inner.load_certificates();
        Self {
            inner: Arc::new(inner),
            task: Mutex::new(None),
        }
    }

    /// The settings that it was made from.
    pub fn settings(&self) -> &AcmeSettings {
        &self.inner.settings
    }

    /// The certificates, for handshakes.
    pub fn certificates(&self) -> &Arc<ManagedCertificates> {
        &self.inner.certificates
    }

    /// Starts to obtain certificates, if that has not begun.
    ///
    /// Call it on a runtime.
    pub fn start(&self) {
        let mut running = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let supervised = task::supervise(Arc::clone(&self.inner), task::run);
            *running = Some(tokio::spawn(supervised).abort_handle());
        }
    }

    /// The state of each domain.
    pub fn status(&self) -> Vec<AcmeStatus> {
        let stopped = self.inner.stopped().clone();
        let domains = self.inner.domains();
        let named = self.inner.settings.domains.iter().zip(domains.iter());
        named
            .map(|(name, domain)| AcmeStatus {
                domain: name.clone(),
                file: self.inner.store.certificate_file(name),
                expires: domain.life.map(|life| life.not_after),
                due: domain.due,
                failures: domain.failures,
                last_error: stopped.clone().or_else(|| domain.last_error.clone()),
            })
            .collect()
    }

    /// The state of each domain, for metrics.
    pub fn samples(&self) -> Vec<AcmeSample> {
        let sample = |status: AcmeStatus| AcmeSample {
            domain: status.domain,
            certificate: status.file.display().to_string(),
            expiry: status
                .expires
                .map(|expires| i64::try_from(expires.as_secs()).unwrap_or(i64::MAX)),
            failures: status.failures,
            is_failing: status.last_error.is_some(),
        };
        self.status().into_iter().map(sample).collect()
    }

    /// The response to an HTTP-01 challenge of any gateway with this folder (RFC 8555, section 8.3). `path` is the path of the request.
    pub async fn http_challenge(&self, path: &str) -> Option<Vec<u8>> {
        let file = self
            .inner
            .store
            .http_challenge_file(path.strip_prefix(HTTP_CHALLENGES)?)?;
        self.inner.reads.run(move || store::read_http_challenge(&file)).await
    }
}

/// The paths of HTTP-01 challenges begin so.
pub const HTTP_CHALLENGES: &str = "/.well-known/acme-challenge/";

impl Inner {
    fn domains(&self) -> MutexGuard<'_, Vec<Domain>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> MutexGuard<'_, Option<String>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the certificates of the folder, where they are newer than the ones that are served. Reads files.
    fn load_certificates(&self) {
        for (at, name) in self.settings.domains.iter().enumerate() {
            let file = self.store.certificate_file(name);
            if !file.exists() {
                continue;
            }
            match Certificate::load_combined(&file) {
                Ok(certificate) if certificate.names().contains(name) => self.serve(at, &certificate),
                Ok(_) => {
                    warn!(acme.domain = name, file = %file.display(), "ignored: this certificate is not for the domain")
                }
                Err(problem) => warn!(acme.domain = name, reason = %problem, "a stored certificate cannot be used"),
            }
        }
    }

    /// Serves a certificate, unless it expires before the one that is served.
    fn serve(&self, at: usize, certificate: &Certificate) {
        let Some(life) = Validity::of(certificate.leaf()).map(Life::from) else {
            return;
        };
        let mut domains = self.domains();
        let domain = &mut domains[at];
        if domain.leaf == certificate.leaf() || domain.life.is_some_and(|served| served.not_after > life.not_after) {
            return;
        }
        self.certificates.set(at, certificate);
        domain.life = Some(life);
        domain.leaf = certificate.leaf().to_vec();
        domain.due = life.renewal(fastrand::f64());
        if domain.due > SystemTime::now() {
            domain.failed = 0;
            domain.last_error = None;
        }
    }

    /// Serves a certificate that was obtained.
    ///
    /// # Errors
    /// It does not end the need to renew: it would be renewed at once, or does not replace the one that is served.
    fn obtained(&self, at: usize, certificate: &Certificate) -> Result<(), OrderError> {
        self.serve(at, certificate);
        if self.domains()[at].due > SystemTime::now() {
            return Ok(());
        }
        let expires = Validity::of(certificate.leaf()).map(|validity| Life::from(validity).not_after_text());
        let expires = expires.as_deref().unwrap_or("at an unknown time");
        Err(OrderError::Certificate(format!(
            "it expires {expires}, so it would have to be renewed at once; compare the clock of this machine with that of the authority"
        )))
    }

    fn due(&self, now: SystemTime) -> Vec<usize> {
        let domains = self.domains();
        (0..domains.len()).filter(|at| domains[*at].due <= now).collect()
    }

    /// Records and logs a failed attempt.
    fn failed(&self, at: usize, problem: &OrderError) {
        let (now, name) = (SystemTime::now(), &self.settings.domains[at]);
        let mut domains = self.domains();
        let domain = &mut domains[at];
        let life = domain.life.filter(|life| !life.is_over());
        let pause = schedule::pause(domain.failed, problem.failure(), life, fastrand::f64());
        domain.failed = domain.failed.saturating_add(1);
        domain.failures += 1;
        domain.due = now + pause;
        domain.last_error = Some(problem.to_string());
        let retry = format!("{} s", pause.as_secs());
        let (failed, reason) = (domain.failed, problem.to_string());
        match domain.life {
            None => error!(
                acme.domain = name,
                reason, failed, retry, "no certificate could be obtained; TLS handshakes for this domain fail"
            ),
            Some(life) => error!(
                acme.domain = name,
                reason,
                failed,
                retry,
                expires = %life.not_after_text(),
                "the certificate could not be renewed; the present one is served"
            ),
        }
    }
}
