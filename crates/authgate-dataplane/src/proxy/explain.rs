//! Explains a request: admits it as a real one, and describes the result instead of forwarding it.

use std::sync::Arc;

use authgate_auth::{Authenticator, Chain};
use authgate_core::outbound::peer::Peer;
use authgate_core::outbound::request_id::RequestId;
use authgate_core::policy::{Permit, Principal};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};

use super::admission::Routed;
use super::refusal::RefusalContext;
use super::{Client, Proxy, Route, Target};
use crate::upstream::Upstream;

/// What the gateway would do with a request.
#[derive(Debug)]
pub struct ExplainedRequest {
    /// The label of the route in metrics and logs.
    pub route: Option<Arc<str>>,
    /// Whether the request is observed: it goes on as it came, and `outcome` is what an enforced route would do.
    pub is_observed: bool,
    /// The outcome.
    pub outcome: ExplainedOutcome,
}

/// The outcome of an explained request.
#[derive(Debug)]
pub enum ExplainedOutcome {
    /// The gateway would forward it.
    Forwarded {
        /// The upstream.
        upstream: Arc<str>,
        /// The identity headers.
        identity: HeaderMap,
    },
    /// The gateway would answer it.
    Answered {
        /// The response to the client.
        response: Response<Bytes>,
        /// The reason in the log, if any.
        reason: Option<String>,
    },
}

impl Proxy {
    /// The authenticators of the request's route. None if no route matches, or if the route is public.
    pub fn authenticators_for(&self, head: &Parts, peer: &Peer) -> impl Iterator<Item = &Authenticator> {
        let routed = self.route(head, peer).ok();
        let chain = routed.and_then(|routed| routed.route().chain.as_ref());
        chain.into_iter().flat_map(Chain::authenticators)
    }

    /// Explains what the gateway would do with a request of this client.
    pub async fn explain_request(&self, mut head: Parts, client: &Client) -> ExplainedRequest {
        let routed = self.route(&head, &client.peer);
        let route = routed.as_ref().ok().map(Routed::route);
        let context = RefusalContext::of(&head, route);
        let mut is_observed = false;
        let decided = match routed {
            Ok(routed) => {
                let admission = self.admit(&routed, &mut head, client).await;
                let decision = match admission.observation {
                    Some(observation) => {
                        is_observed = true;
                        observation.decide(&self.observer.evaluations).await.decision
                    }
                    None => admission.decision,
                };
                decision.map(|permit| match &routed.route().target {
                    Target::Upstream(upstream) => forwarded(routed.route(), upstream, &permit),
                    Target::KeySet(key_set) => ExplainedOutcome::Answered {
                        response: Response::new(key_set.clone()),
                        reason: None,
                    },
                })
            }
            Err(rejection) => Err(rejection),
        };
        let outcome = decided.unwrap_or_else(|rejection| ExplainedOutcome::Answered {
            response: self.refuse(&rejection, route, &context, &RequestId::random()),
            reason: rejection.reason(),
        });
        ExplainedRequest {
            route: route.map(|route| Arc::clone(route.metrics.label())),
            is_observed,
            outcome,
        }
    }
}

fn forwarded(route: &Route, upstream: &Upstream, permit: &Permit) -> ExplainedOutcome {
    let mut identity = HeaderMap::new();
    route.settings.rules.identity.insert(&mut identity, permit);
    // No token is made: an application would accept it.
    if let (Some(signer), Principal::User(_)) = (&route.settings.signer, permit.principal()) {
        let described = format!("(a signed identity for the audience {:?})", signer.audience());
        identity.extend(HeaderValue::try_from(described).map(|value| (signer.header().clone(), value)));
    }
    ExplainedOutcome::Forwarded {
        upstream: Arc::clone(upstream.name()),
        identity,
    }
}
