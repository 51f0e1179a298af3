//! A request judged without being sent: what would happen to it, for people who ask why.
//!
//! Everything is built as for serving, of the same parts, but no socket is opened for clients and nothing reaches an upstream.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, Request};
use tokio::time::{sleep, timeout};

use super::AppError;
use super::parts::Parts;
use crate::auth::jwt::explain::Explanation;
use crate::auth::{Authenticator, Now};
use crate::config::Config;
use crate::outbound::forwarded::{Peer, Scheme};
use crate::proxy::explain::ExplainedRequest;
use crate::secret::Secret;
use crate::server::worker;

/// How long stores are given to be found usable, before they are asked as they are.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// A gateway that serves nobody.
#[derive(Debug)]
pub struct DryRun {
    parts: Parts,
    scheme: Scheme,
}

/// A credential, without the scheme that it is sent under.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'c> {
    /// An opaque key.
    Token(&'c Secret<String>),
    /// A JWT.
    Jwt(&'c str),
}

/// What one credential comes to.
#[derive(Debug)]
pub struct DryRunReport {
    /// What each JWT authenticator that would be asked makes of a JWT, by its name.
    pub explained: Vec<(Arc<str>, Explanation)>,
    /// What would become of the request, and how it carried the credential: header and scheme.
    pub request: Option<(ExplainedRequest, HeaderName, String)>,
}

impl DryRun {
    /// Builds what a gateway on this configuration would have.
    ///
    /// # Errors
    /// TLS to upstreams cannot be set up.
    pub fn new(config: Config) -> Result<Self, AppError> {
        let scheme = if config.tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let limits = config.server.limits;
        Ok(Self {
            parts: Parts::new(config, limits),
            scheme,
        })
    }

    /// What the authenticators of the file make of a credential, or those of the route that `request` belongs to, and what would
    /// become of `request` with it. Stores are asked.
    ///
    /// # Errors
    /// The system does not give what a runtime needs.
    pub fn explain(&self, credential: Credential<'_>, request: Option<Request<()>>) -> Result<DryRunReport, AppError> {
        let mut report = DryRunReport {
            explained: Vec::new(),
            request: None,
        };
        worker::run_on_this_thread(|| async {
            self.wait_for_stores().await;
            let built = self.parts.authenticators();
            let proxy = self.parts.proxy(&built);
            let asked: Vec<&Authenticator> = match &request {
                None => built.values().map(AsRef::as_ref).collect(),
                Some(request) => proxy.authenticators_for(request, &self.peer()).collect(),
            };
            if let Credential::Jwt(token) = credential {
                for authenticator in &asked {
                    if let Authenticator::Jwt(jwt) = authenticator {
                        let explanation = jwt.explain(token.as_bytes(), Now::read()).await;
                        report.explained.push((Arc::clone(authenticator.name()), explanation));
                    }
                }
            }
            if let Some(request) = request {
                // Where the route asks nobody who reads such a credential, it is sent as anybody would send it.
                let (header, scheme) = asked
                    .iter()
                    .copied()
                    .chain(built.values().map(AsRef::as_ref))
                    .find_map(|authenticator| credential.carried_by(authenticator))
                    .unwrap_or_else(|| credential.carried_by_default());
                let request = credential.add_to(request, &header, &scheme);
                let explained = proxy.explain_request(&request, &self.peer()).await;
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
        for store in &self.parts.stores {
            tokio::spawn(Arc::clone(store).watch());
        }
        let all = async {
            while !self.parts.stores.iter().all(|store| store.was_reached()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // A store that is down is told of as the answers that it leads to.
        let _ = timeout(STORE_TIMEOUT, all).await;
    }
}

impl Credential<'_> {
    /// The header and the scheme that an authenticator of its kind reads.
    fn carried_by(&self, authenticator: &Authenticator) -> Option<(HeaderName, String)> {
        let scheme = match (self, authenticator) {
            (Self::Token(_), Authenticator::Token(token)) => token.settings().scheme.first(),
            (Self::Jwt(_), Authenticator::Jwt(jwt)) => jwt.settings().schemes.first()?,
            (Self::Token(_), Authenticator::Jwt(_)) | (Self::Jwt(_), Authenticator::Token(_)) => return None,
        };
        Some((authenticator.header().clone(), scheme.to_owned()))
    }

    fn carried_by_default(&self) -> (HeaderName, String) {
        let scheme = match self {
            Self::Token(_) => "Token",
            Self::Jwt(_) => "Bearer",
        };
        (AUTHORIZATION, scheme.to_owned())
    }

    /// What cannot stand in a header cannot be sent by anybody: the request goes without.
    fn add_to(&self, mut request: Request<()>, header: &HeaderName, scheme: &str) -> Request<()> {
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
            request.headers_mut().insert(header, value);
        }
        request
    }
}
