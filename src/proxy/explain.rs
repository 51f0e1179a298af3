//! What would become of a request, by the same steps that a real one takes, up to the one that sends it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::rejection::Rejection;
use super::{Proxy, Route, reason, reply};
use crate::auth::{Authenticator, Chain};
use crate::outbound::forwarded::{Peer, RequestId};

/// What would become of a request.
#[derive(Debug)]
pub struct ExplainedRequest {
    /// The route, as metrics and logs call it.
    pub route: Option<Arc<str>>,
    /// What would happen.
    pub end: ExplainedEnd,
}

/// What would happen to a request.
#[derive(Debug)]
pub enum ExplainedEnd {
    /// It would be forwarded.
    Forwarded {
        /// To this upstream.
        upstream: Arc<str>,
        /// With these fields, which say who asks.
        identity: HeaderMap,
    },
    /// It would be answered here.
    Answered {
        /// What the client would get.
        response: Response<Bytes>,
        /// What the log would say of it beside its label.
        reason: Option<String>,
    },
}

impl Proxy {
    /// Who is asked about a request: nobody where it finds no route, or a public one.
    pub fn authenticators_for(&self, request: &Request<()>, peer: &Peer) -> impl Iterator<Item = &Authenticator> {
        let chain = self
            .find(request, peer)
            .ok()
            .and_then(|(route, _)| route.chain.as_ref());
        chain.into_iter().flat_map(Chain::authenticators)
    }

    /// Says what would become of a request.
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
            end: ExplainedEnd::Answered {
                response: reply::reply(&rejection, answers, &RequestId::random()),
                reason: reason(&rejection),
            },
        }
    }

    async fn admit(&self, route: &Route, request: &Request<()>) -> Result<ExplainedEnd, Rejection> {
        let permit = route.permit(self.identify(route, request).await?)?;
        let mut identity = HeaderMap::new();
        route.rules.identity.insert(&mut identity, &permit);
        Ok(ExplainedEnd::Forwarded {
            upstream: Arc::clone(route.upstream.name()),
            identity,
        })
    }
}
