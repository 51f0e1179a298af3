//! Explains a request: takes the same steps as for a real request, but does not forward it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::rejection::Rejection;
use super::{Proxy, Route, reason, reply};
use crate::auth::{Authenticator, Chain};
use crate::outbound::forwarded::{Peer, RequestId};

/// What the gateway would do with a request.
#[derive(Debug)]
pub struct ExplainedRequest {
    /// The label of the route in metrics and logs.
    pub route: Option<Arc<str>>,
    /// The outcome.
    pub end: ExplainedOutcome,
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
    pub fn authenticators_for(&self, request: &Request<()>, peer: &Peer) -> impl Iterator<Item = &Authenticator> {
        let chain = self
            .find(request, peer)
            .ok()
            .and_then(|(route, _)| route.chain.as_ref());
        chain.into_iter().flat_map(Chain::authenticators)
    }

    /// Explains what the gateway would do with a request.
    pub async fn explain_request(&self, request: &Request<()>, peer: &Peer) -> ExplainedRequest {
        let (rejection, route) = match self.find(request, peer) {
            Err(rejection) => (rejection, None),
            Ok((route, _)) => match self.admit(route, request).await {
                Ok(end) => {
                    let route = Some(Arc::clone(&route.label));
                    return ExplainedRequest { route, end };
                }
                Err(rejection) => (rejection, Some(route)),
            },
        };
        let answers = route.map_or(&self.nowhere, |route| &route.answers);
        ExplainedRequest {
            route: route.map(|route| Arc::clone(&route.label)),
            end: ExplainedOutcome::Answered {
                response: reply::reply(&rejection, answers, &RequestId::random()),
                reason: reason(&rejection),
            },
        }
    }

    async fn admit(&self, route: &Route, request: &Request<()>) -> Result<ExplainedOutcome, Rejection> {
        let permit = route.permit(self.identify(route, request).await?)?;
        let mut identity = HeaderMap::new();
        route.rules.identity.insert(&mut identity, &permit);
        Ok(ExplainedOutcome::Forwarded {
            upstream: Arc::clone(route.upstream.name()),
            identity,
        })
    }
}
