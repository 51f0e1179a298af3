//! [`Authorization`]: authenticates a request, and evaluates the policy of its route.

use std::sync::Arc;

use authgate_auth::{Now, Refused, RequestFacts, Verdict};
use authgate_core::credential::Refusal;
use authgate_core::identity::Identity;
use authgate_core::policy::{Denied, Permit};
use http::{HeaderMap, Method};

use super::Route;
use super::refusal::format::RefusalFormat;
use super::rejection::Rejection;
use super::websocket::{Handshake, WebSocketRequest};
use crate::telemetry::labels;

/// The result of authentication and authorization.
#[derive(Debug)]
pub(super) struct Authorization {
    /// The authenticated user, also if the policy denies the request.
    pub(super) user: Option<Arc<Identity>>,
    pub(super) decision: Result<Permit, Rejection>,
}

impl Route {
    /// Moves the credential of a WebSocket into its header, if the route allows a subprotocol or a cookie.
    pub(super) fn take_websocket_credential(
        &self,
        handshake: Option<Handshake>,
        headers: &mut HeaderMap,
    ) -> Result<Option<WebSocketRequest>, Rejection> {
        let mut offers_gateway_subprotocol = false;
        if let Some(credential) = &self.settings.websocket {
            match handshake {
                Some(_) => {
                    let read = &self.settings.rules.credential_headers;
                    offers_gateway_subprotocol = credential.take(headers, read)?;
                }
                None => credential.discard(headers),
            }
        }
        Ok(handshake.map(|handshake| WebSocketRequest {
            handshake,
            offers_gateway_subprotocol,
        }))
    }

    /// Authenticates and authorizes a request. A preflight has no credential, so its policy permits it without one.
    pub(super) async fn authorize(&self, request: &RequestFacts<'_>) -> Authorization {
        if self.is_preflight(request.method, request.headers) {
            return Authorization {
                user: None,
                decision: Ok(self.settings.policy.permit_preflight()),
            };
        }
        match self.authenticate(request).await {
            Ok(user) => Authorization {
                decision: self.permit(user.clone()),
                user,
            },
            Err(rejection) => Authorization {
                user: None,
                decision: match self.permit_unknown(&rejection, request.headers) {
                    Some(permit) => Ok(permit),
                    None => Err(rejection),
                },
            },
        }
    }

    /// The permit for a key that no record knows, if its authenticator forwards such keys. Several lines of a header have no permit.
    #[cold]
    #[inline(never)]
    fn permit_unknown(&self, rejection: &Rejection, headers: &HeaderMap) -> Option<Permit> {
        let Rejection::Refused(Refused {
            by,
            refusal: Refusal::TokenUnknown,
            ..
        }) = rejection
        else {
            return None;
        };
        let chain = self.chain.as_ref()?;
        let forwards = chain.authenticators().nth(*by)?.settings().kind.forwards_unknown();
        if !forwards || chain.saw_repeated_credential(headers) {
            return None;
        }
        self.settings.policy.permit_unknown()
    }

    pub(super) fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.settings
            .cors
            .as_ref()
            .is_some_and(|cors| cors.is_preflight(method, headers))
    }

    fn permit(&self, user: Option<Arc<Identity>>) -> Result<Permit, Rejection> {
        self.settings.policy.permit(user).map_err(|denied| match denied {
            Denied::Unauthenticated => Rejection::Unauthenticated,
            Denied::NotAllowed(unmet) => Rejection::NotAllowed(unmet),
        })
    }

    /// Authenticates a request. `Ok(None)` means that it has no credential; a failed look-up is an error.
    async fn authenticate(&self, request: &RequestFacts<'_>) -> Result<Option<Arc<Identity>>, Rejection> {
        let Some(chain) = self.chain.as_ref().filter(|_| self.settings.policy.needs_identity()) else {
            return Ok(None);
        };
        // DRF refuses the joined text of several credential lines, so the chain does the same there.
        let is_problem = matches!(self.settings.refusal_format, RefusalFormat::Problem { .. });
        if is_problem && chain.saw_repeated_credential(request.headers) {
            return Err(Rejection::RepeatedCredential);
        }
        match chain.authenticate(request, Now::read()).await {
            Ok(Verdict::Accept(identity)) => {
                self.metrics
                    .record_authentication(&identity.user_info().authenticator, &labels::ACCEPTED);
                Ok(Some(identity))
            }
            Ok(Verdict::Refuse(refused)) => {
                if let Some(authenticator) = chain.authenticators().nth(refused.by) {
                    self.metrics
                        .record_authentication(authenticator.name(), refused.refusal.label_value());
                }
                Err(Rejection::Refused(refused))
            }
            // Several lines of a credential's header are never treated as anonymous, not even on an optional route.
            Ok(Verdict::Pass) if chain.saw_repeated_credential(request.headers) => Err(Rejection::Unauthenticated),
            Ok(Verdict::Pass) => Ok(None),
            Err(unavailable) => {
                self.metrics
                    .record_authentication(&unavailable.authenticator, unavailable.source.label_value());
                Err(unavailable.into())
            }
        }
    }
}
