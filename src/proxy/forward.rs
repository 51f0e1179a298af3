//! Forwards an admitted request to its upstream, and prepares the upstream's response for the client.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use authgate_auth::Now;
use authgate_core::outbound::{Outbound, RequestContext};
use authgate_http::framing::header_case::HeaderCase;
use authgate_http::framing::hop_by_hop;
use authgate_http::server::handler::{Exchange, Reply};
use authgate_http::transfer::incoming::IncomingBody;
use authgate_http::upstream::body::RequestBody;
use authgate_http::upstream::{ClientSide, Forwarded, UpstreamError};
use http::request::Parts;
use http::{Request, Version};
use http_body::Body;
use tokio::time::Instant;

use super::admission::{Authorization, Permitted};
use super::body::ResponseBody;
use super::outcome::Outcome;
use super::rejection::Rejection;
use super::websocket::{self, Handshake, WebSocket};
use super::{Client, websocket_credential};
use crate::upstream::Upstream;

/// If the authentication is older than this, repeat it before the request is sent: the credential may have expired or
/// been revoked.
const MAX_AUTHENTICATION_AGE: Duration = Duration::from_secs(1);

/// Forwards a permitted request. Also returns how the upstream wrote the field names of its response.
///
/// # Errors
/// The body of the request is not acceptable, or the upstream sent no usable response.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds what it was given a second time"
)]
#[inline(always)]
pub(super) fn forward(
    permitted: Permitted<'_>,
    upstream: &Upstream,
    mut head: Parts,
    body: IncomingBody,
    exchange: Exchange<'_>,
    client: &Client,
    outcome: &mut Outcome,
) -> impl Future<Output = Result<(Forwarded, HeaderCase), Rejection>> {
    async move {
        let Permitted {
            route,
            host,
            websocket,
            mut permit,
        } = permitted;
        // The key of the gateway's own handshake, for a WebSocket that an HTTP/2 client opens.
        let key = match &websocket {
            Some(websocket) if websocket.handshake == Handshake::Http2 => Some(websocket::to_http1(&mut head)),
            Some(_) | None => None,
        };
        // HTTP/1.0 has no interim responses (RFC 9110, section 15.2).
        let may_hint = websocket.is_none() && head.version != Version::HTTP_10;
        let upstream_header_case = RefCell::default();
        let side = ClientSide {
            request_header_case: exchange.header_case,
            early_hints: may_hint.then_some(exchange.hints),
            response_header_case: (head.version != Version::HTTP_2).then_some(&upstream_header_case),
        };
        let mut sent = Instant::now();
        let mut request = Request::from_parts(head, RequestBody::new(body, route.settings.body, sent)?);
        if websocket.is_none() && !request.body().is_end_stream() {
            upstream.buffer_body(&mut request).await?;
            let waited = sent.elapsed();
            sent += waited;
            if waited > MAX_AUTHENTICATION_AGE && !permit.is_observed() {
                let again = Box::pin(route.authorize(request.method(), request.headers())).await;
                let Authorization { user, decision } = again;
                outcome.set_user(user);
                permit = decision?;
            }
        }
        outcome.record_body(request.body());
        // The token is dropped here: a variable of the future would be part of it until the response.
        let outbound = {
            let token = match &route.settings.signer {
                Some(signer) => signer
                    .token(&permit, Now::read())?
                    .map(|token| (signer.header(), token)),
                None => None,
            };
            let context = RequestContext {
                peer: &client.peer,
                host: &host.sent,
                forwarded: outcome.forwarded(),
                is_upgrade: websocket.is_some(),
                signed_identity: token.as_ref().map(|(header, token)| (*header, token)),
            };
            Outbound::new(request, permit, context, &route.settings.rules)
        };
        let response_timeout = route.settings.response_timeout;
        let mut forwarded = upstream.forward(outbound, response_timeout, &side).await?;
        let duration = sent.elapsed();
        route.metrics.record_upstream_response(duration);
        match &mut forwarded {
            Forwarded::Response(response) => {
                // Any 2xx would open a WebSocket over HTTP/2 (RFC 8441, section 4).
                if key.is_some() && response.status().is_success() {
                    return Err(Rejection::Upstream(UpstreamError::UpgradeIgnored));
                }
                // The body of an HTTP/1.0 upstream may end when the connection closes. The gateway frames it again,
                // so that a truncated body never looks complete.
                *response.version_mut() = Version::HTTP_11;
                hop_by_hop::strip_response(response.headers_mut());
                outcome.upstream_responded(response.status(), duration);
            }
            Forwarded::Upgraded(head, ..) => {
                hop_by_hop::strip_response(head.headers_mut());
                if let Some(key) = &key
                    && !websocket::is_confirmed(head, key)
                {
                    return Err(Rejection::Upstream(UpstreamError::UnexpectedUpgrade));
                }
                if websocket.is_some_and(|websocket| websocket.offers_gateway_subprotocol) {
                    websocket_credential::select(head.headers_mut());
                }
                outcome.upstream_responded(head.status(), duration);
                match key {
                    None => websocket::switch_http1(head),
                    Some(_) => websocket::switch_http2(head),
                }
            }
        }
        Ok((forwarded, upstream_header_case.take()))
    }
}

/// The reply with an upstream's response, or with the WebSocket that the upstream has opened.
pub(super) fn reply(forwarded: Forwarded, header_case: HeaderCase, outcome: Outcome) -> Reply<ResponseBody, WebSocket> {
    match forwarded {
        Forwarded::Response(response) => Reply::Response {
            response: response.map(|body| ResponseBody::upstream(body, outcome)),
            header_case,
        },
        Forwarded::Upgraded(response, tunnel, tunnel_guard) => Reply::Switch {
            response,
            header_case,
            tunnel: Box::new(WebSocket {
                tunnel,
                tunnel_guard,
                outcome,
            }),
        },
    }
}
