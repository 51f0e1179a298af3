//! Explains what the gateway would do with a credential or a request.
//!
//! A dry run uses the same parts as a running gateway. It opens no listener and sends nothing to an upstream.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::jwt::explain::Explanation;
use authgate_auth::jwt::keys::remote::KeySourceStatus;
use authgate_auth::{Authenticator, KindSettings, Now};
use authgate_core::outbound::peer::{Peer, Scheme};
use authgate_core::secret::Secret;
use authgate_dataplane::proxy::Client;
use authgate_dataplane::proxy::explain::ExplainedRequest;
use authgate_http::server::worker;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, Request, request};
use tokio::time::{sleep, timeout};

use super::error::AppError;
use super::process::Process;
use super::snapshot::Snapshot;
use super::worker::WorkerParts;
use crate::config::Config;

/// How long a dry run waits for its stores to be connected. After that it continues, connected or not.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// A gateway without listeners.
#[derive(Debug)]
pub struct DryRun {
    process: Arc<Process>,
    snapshot: Arc<Snapshot>,
    scheme: Scheme,
}

/// A credential without its scheme.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'c> {
    /// An opaque key.
    Token(&'c Secret<String>),
    /// A JWT.
    Jwt(&'c str),
}

/// The result of a dry run.
#[derive(Debug)]
pub struct DryRunReport {
    /// The explanations of the JWT authenticators, by name. Empty for an opaque token.
    pub explained: Vec<(Arc<str>, Explanation)>,
    /// Where the keys of these authenticators come from, and what came of it.
    pub key_sources: Vec<KeySourceStatus>,
    /// The explained request, with the header and the scheme of the credential.
    pub request: Option<(ExplainedRequest, HeaderName, String)>,
}

impl DryRun {
    /// Builds the parts of a gateway with this configuration.
    ///
    /// # Errors
    /// TLS to upstreams cannot be set up.
    pub fn new(config: Config) -> Result<Self, AppError> {
        let scheme = if config.tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let process = Arc::new(Process::default());
        let snapshot = Snapshot::new(config, &process, None)?;
        Ok(Self {
            process,
            snapshot: Arc::new(snapshot),
            scheme,
        })
    }

    /// Explains a credential with all authenticators, or, if there is a `request`, with those of its route; then explains the request
    /// with the credential. Queries the stores.
    ///
    /// # Errors
    /// The runtime cannot be started.
    pub fn explain(&self, credential: Credential<'_>, request: Option<Request<()>>) -> Result<DryRunReport, AppError> {
        let mut report = DryRunReport {
            explained: Vec::new(),
            key_sources: Vec::new(),
            request: None,
        };
        let head = request.map(|request| request.into_parts().0);
        worker::run_on_this_thread(|| async {
            self.snapshot.watch_stores();
            self.wait_for_stores().await;
            let parts = WorkerParts::new(&self.process, Arc::clone(&self.snapshot));
            let (built, proxy) = (parts.authenticators(), parts.proxy());
            let authenticators: Vec<&Authenticator> = match &head {
                None => built.values().map(AsRef::as_ref).collect(),
                Some(head) => proxy.authenticators_for(head, &self.peer()).collect(),
            };
            if let Credential::Jwt(token) = credential {
                for authenticator in &authenticators {
                    if let Some(jwt) = authenticator.as_jwt() {
                        let time_limit = authenticator.time_limit();
                        let explanation = jwt.explain(token.as_bytes(), Now::read(), time_limit).await;
                        report.explained.push((Arc::clone(authenticator.name()), explanation));
                    }
                }
                let sources = self.snapshot.key_sources().map(|source| source.status());
                report.key_sources = sources
                    .filter(|source| report.explained.iter().any(|(name, _)| *name == source.authenticator))
                    .collect();
            }
            if let Some(head) = head {
                // If no authenticator of the route reads this kind of credential, send it as another authenticator expects it.
                let (header, scheme) = authenticators
                    .iter()
                    .copied()
                    .chain(built.values().map(AsRef::as_ref))
                    .find_map(|authenticator| credential.carried_by(authenticator))
                    .unwrap_or_else(|| credential.carried_by_default());
                let head = credential.add_to(head, &header, &scheme);
                let client = Client {
                    peer: self.peer(),
                    served: None,
                    certificate: None,
                    is_outdated: false,
                };
                let explained = proxy.explain_request(head, &client).await;
                report.request = Some((explained, header, scheme));
            }
            Ok(())
        })?;
        Ok(report)
    }

    fn peer(&self) -> Peer {
        Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), self.scheme, &Arc::default())
    }

    async fn wait_for_stores(&self) {
        let all = async {
            let (stores, sources) = (&self.snapshot.stores, || self.snapshot.key_sources());
            while !stores.iter().all(|store| store.was_reached()) || !sources().all(|source| source.was_reached()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // After the timeout, an unreachable store or source of keys shows in the explained response.
        let _ = timeout(STORE_TIMEOUT, all).await;
    }
}

impl Credential<'_> {
    /// The header and the scheme in which an authenticator reads this kind of credential, or `None` if it reads another kind.
    fn carried_by(&self, authenticator: &Authenticator) -> Option<(HeaderName, String)> {
        let reads_it = match self {
            Self::Token(_) => matches!(authenticator.settings().kind, KindSettings::Token(_)),
            Self::Jwt(_) => authenticator.as_jwt().is_some(),
        };
        let scheme = authenticator.settings().scheme.first();
        reads_it.then(|| (authenticator.header().clone(), scheme.to_owned()))
    }

    fn carried_by_default(&self) -> (HeaderName, String) {
        let scheme = match self {
            Self::Token(_) => "Token",
            Self::Jwt(_) => "Bearer",
        };
        (AUTHORIZATION, scheme.to_owned())
    }

    /// Adds the credential to a request. A credential that is not a valid header value is left out, because no client can send it.
    fn add_to(&self, mut head: request::Parts, header: &HeaderName, scheme: &str) -> request::Parts {
        let text = match self {
            Self::Token(key) => key.expose().as_str(),
            Self::Jwt(token) => *token,
        };
        let value = match scheme {
            "" => text.to_owned(),
            scheme => format!("{scheme} {text}"),
        };
        if let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) {
            value.set_sensitive(true);
            head.headers.insert(header, value);
        }
        head
    }
}
