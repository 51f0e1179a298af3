//! Forwards an admitted request to its upstream, and prepares the upstream's response for the client.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use authgate_auth::{Now, RequestFacts};
use authgate_core::outbound::{Outbound, RequestContext};
use authgate_http::framing::header_case::HeaderCase;
use authgate_http::framing::hop_by_hop;
use authgate_http::server::handler::{Exchange, Reply};
use authgate_http::transfer::incoming::IncomingBody;
use authgate_http::upstream::body::{BodyCanceller, RequestBody};
use authgate_http::upstream::{ClientSide, Forwarded, UpstreamError};
use http::request::Parts;
use http::{Method, Request, Version};
use http_body::Body;
use tokio::time::Instant;

use super::admission::{Permitted, Routed};
use super::authorization::Authorization;
use super::body::ResponseBody;
use super::outcome::Outcome;
use super::rejection::Rejection;
use super::streams::{Stream, StreamOrigin};
use super::websocket::{self, Handshake};
use super::websocket_tunnel::WebSocket;
use super::{Client, Proxy, websocket_credential};
use crate::upstream::Upstream;

/// If the authentication is older than this, repeat it before the request is sent: the credential may have expired or
/// been revoked.
const MAX_AUTHENTICATION_AGE: Duration = Duration::from_secs(1);

/// The answer of an upstream.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) forwarded: Forwarded,
    /// How the upstream wrote the field names of its response.
    header_case: HeaderCase,
    opening: Opening,
}

/// The stream of a request, or what is needed to open it.
#[derive(Debug)]
enum Opening {
    /// A gRPC request has opened it.
    Open(Stream),
    /// The response may open it.
    Possible {
        origin: StreamOrigin,
        /// Cancels the body of the request.
        request_body: Option<BodyCanceller>,
    },
}

/// Forwards a permitted request.
///
/// # Errors
/// The body of the request is not acceptable, or the upstream sent no usable response.
#[expect(clippy::too_many_arguments, reason = "all belong to one request")]
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds what it was given a second time"
)]
#[inline(always)]
pub(super) fn forward(
    proxy: &Rc<Proxy>,
    permitted: Permitted<'_>,
    upstream: &Upstream,
    mut head: Parts,
    body: IncomingBody,
    exchange: Exchange<'_>,
    client: &Client,
    is_grpc: bool,
    outcome: &mut Outcome,
) -> impl Future<Output = Result<Answer, Rejection>> {
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
                let facts = RequestFacts {
                    method: request.method(),
                    uri: request.uri(),
                    headers: request.headers(),
                    extensions: request.extensions(),
                    host: &host.sent,
                    peer: &client.peer,
                    certificate: client.certificate.as_ref(),
                    is_repeated: true,
                };
                let again = Box::pin(route.authorize(&facts)).await;
                let Authorization { user, decision } = again;
                outcome.set_user(user);
                permit = decision?;
            }
        }
        let request_body = request.body().canceller();
        let origin = StreamOrigin::of(&permit, route, request.headers_mut());
        // A client of gRPC may send for long before its response begins.
        let opening = match is_grpc {
            true => Opening::Open(proxy.open_stream(route, host, None, origin, outcome, request_body)),
            false => Opening::Possible { origin, request_body },
        };
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
        let mut forwarded = {
            let mut forwarding = pin!(upstream.forward(outbound, response_timeout, &side));
            poll_fn(|cx| {
                if let Opening::Open(stream) = &opening
                    && let Poll::Ready(end) = stream.poll_end(cx)
                {
                    return Poll::Ready(Err(Rejection::StreamEnded(end)));
                }
                forwarding.as_mut().poll(cx).map_err(Rejection::from)
            })
            .await?
        };
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
        Ok(Answer {
            forwarded,
            header_case: upstream_header_case.take(),
            opening,
        })
    }
}

impl Answer {
    /// The reply with an upstream's response, or with the WebSocket that the upstream has opened.
    pub(super) fn into_reply(
        self,
        proxy: &Rc<Proxy>,
        routed: &Routed<'_>,
        outcome: Outcome,
    ) -> Reply<ResponseBody, WebSocket> {
        let Self {
            forwarded,
            header_case,
            opening,
        } = self;
        let open_stream = |method, outcome: &Outcome| match opening {
            Opening::Open(stream) => stream,
            Opening::Possible { origin, request_body } => {
                proxy.open_stream(routed.route(), routed.host(), method, origin, outcome, request_body)
            }
        };
        match forwarded {
            Forwarded::Response(response) => Reply::Response {
                response: response.map(|body| match body.stream_kind() {
                    None => ResponseBody::upstream(body, outcome),
                    Some(kind) => {
                        let stream = open_stream(None, &outcome);
                        stream.set_body(body);
                        ResponseBody::stream(stream, kind, outcome)
                    }
                }),
                header_case,
            },
            Forwarded::Upgraded(response, tunnel, tunnel_guard) => Reply::Switch {
                response,
                header_case,
                tunnel: Box::new(WebSocket {
                    tunnel,
                    tunnel_guard,
                    // Over HTTP/2 too, it was routed by this method.
                    stream: open_stream(Some(Method::GET), &outcome),
                    outcome,
                }),
            },
        }
    }
}
