//! Admission: the only place that decides about a request. The body is not read, and nothing is sent to an upstream.
//!
//! [`Proxy::route`] checks the head and finds the route. [`Proxy::admit`] then decides whether the request may be
//! forwarded. There are two steps so that a caller knows the route while the second one waits for a store. The users of
//! an [`Admission`] differ only in what they do with it: the proxy forwards the request, `explain` describes the result.

use std::future::Future;
use std::sync::Arc;

use authgate_core::identity::Identity;
use authgate_core::outbound::peer::Peer;
use authgate_core::path::RequestPath;
use authgate_core::policy::Permit;
use authgate_http::concurrency::ConcurrencyPermit;
use authgate_http::framing::grammar::is_method;
use authgate_http::framing::target;
use authgate_http::transfer::incoming::IncomingBody;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Version};
use http_body::Body;
use percent_encoding::{AsciiSet, CONTROLS};

use super::authorization::Authorization;
use super::cors;
use super::host::Host;
use super::observe::{self, Observation};
use super::rejection::Rejection;
use super::routes::{Destination, Disagreement, FindError, Found};
use super::websocket::{self, Handshake, WebSocketRequest};
use super::{Client, Proxy, Route};
use crate::recording::{Recorder, Recording};

/// The maximum number of bytes of a path reading in the log.
const LONGEST_READING: usize = 256;
/// All bytes except visible ASCII.
const NOT_VISIBLE: &AsciiSet = &CONTROLS.add(b' ');

/// The route and the host of a request with a valid head. Only [`Proxy::route`] makes one.
#[derive(Debug)]
pub(super) struct Routed<'p> {
    route: &'p Route,
    host: Host,
}

/// The decision about a request. Only [`Proxy::admit`] makes one.
#[derive(Debug)]
pub(super) struct Admission<'r> {
    pub(super) routed: &'r Routed<'r>,
    /// How the request asks for a WebSocket. `None` if it does not ask, or was rejected before the gateway looked.
    pub(super) websocket: Option<WebSocketRequest>,
    /// Counts against the limit of concurrent requests. `None` if the request was rejected before the limit.
    pub(super) in_flight: Option<ConcurrencyPermit>,
    /// The authenticated user, also if the policy denies the request.
    pub(super) user: Option<Arc<Identity>>,
    /// The permit to forward the request, or the reason why it is rejected.
    pub(super) decision: Result<Permit, Rejection>,
    /// `Some` exactly if the permit is that of an observed request.
    pub(super) observation: Option<Box<Observation>>,
}

/// An admission whose decision is a permit: what forwarding needs.
#[derive(Debug)]
pub(super) struct Permitted<'r> {
    pub(super) route: &'r Route,
    pub(super) host: &'r Host,
    pub(super) websocket: Option<WebSocketRequest>,
    pub(super) permit: Permit,
}

impl<'r> Admission<'r> {
    /// The permitted request.
    ///
    /// # Errors
    /// The request is rejected.
    pub(super) fn into_permitted(self) -> Result<Permitted<'r>, Rejection> {
        let Routed { route, host } = self.routed;
        self.decision.map(|permit| Permitted {
            route,
            host,
            websocket: self.websocket,
            permit,
        })
    }
}

impl<'p> Routed<'p> {
    pub(super) fn route(&self) -> &'p Route {
        self.route
    }

    /// Begins to record the request. On a public route, a body may have a password.
    #[cold]
    pub(super) fn begin_recording(
        &self,
        recorder: &Arc<Recorder>,
        head: &Parts,
        body: &IncomingBody,
        peer: &Peer,
    ) -> Recording {
        let (scheme, host) = (
            peer.scheme().as_str(),
            String::from_utf8_lossy(self.host.sent.as_bytes()),
        );
        let url = format!("{scheme}://{host}{}", target::path_and_query(head));
        let is_public = !self.route.settings.policy.needs_identity();
        let mut recording = recorder.begin(head.method.clone(), url, head.headers.clone(), is_public);
        if body.is_end_stream() {
            recording.set_body(Bytes::new());
        }
        recording
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }
}

impl Proxy {
    /// Checks the head of a request, and finds its host and route.
    pub(super) fn route(&self, head: &Parts, peer: &Peer) -> Result<Routed<'_>, Rejection> {
        if head.version == Version::HTTP_2 {
            self.check_http2_head(head)?;
        }
        if !head.method.as_str().bytes().all(is_method) {
            return Err(Rejection::Malformed("a lowercase letter in its method"));
        }
        // A gateway serves no other schemes (RFC 9110, section 4.2). The outbound request has no scheme.
        let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
        if !head.uri.scheme_str().is_none_or(is_http) {
            return Err(Rejection::Malformed("its scheme"));
        }
        // A WebSocket over HTTP/2 is routed by the method that it would have over HTTP/1.1.
        let method = match head.method {
            Method::CONNECT if websocket::is_extended_connect(head) => &Method::GET,
            Method::CONNECT | Method::TRACE => return Err(Rejection::NotImplemented),
            ref method => method,
        };
        let host = self.hosts.read(&head.uri, &head.headers, peer.scheme().default_port());
        let host = host.map_err(|_| Rejection::Malformed("its host"))?;
        let route = match self.find(head, &host, method)? {
            Found::Route(id) => self.routes.get(id).ok_or(Rejection::NoRoute)?,
            Found::OtherMethods(allowed) => {
                self.find_preflight(head, &host)?
                    .ok_or_else(|| Rejection::MethodNotAllowed {
                        sent: method.clone(),
                        allowed: allowed.to_vec(),
                    })?
            }
            Found::NoRoute => return Err(Rejection::NoRoute),
        };
        Ok(Routed { route, host })
    }

    /// Decides whether a request may be forwarded. If the credential of a WebSocket is a subprotocol or a cookie, this
    /// moves it into its header.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` holds what it was given a second time"
    )]
    #[inline(always)]
    pub(super) fn admit<'r>(
        &'r self,
        routed: &'r Routed<'r>,
        head: &mut Parts,
        client: &Client,
    ) -> impl Future<Output = Admission<'r>> {
        async move {
            let route = routed.route;
            let rejected = |in_flight, rejection| Admission {
                routed,
                websocket: None,
                in_flight,
                user: None,
                decision: Err(rejection),
                observation: None,
            };
            let in_flight = match self.check_connection(&routed.host, client) {
                Ok(in_flight) => in_flight,
                Err(rejection) => return rejected(None, rejection),
            };
            if let Some(rollout) = route.settings.rollout {
                // Boxed: it must not enlarge the future of each request.
                let observed = Box::pin(observe::admit(route, rollout, head, &routed.host, client)).await;
                return Admission {
                    routed,
                    websocket: observed.websocket,
                    in_flight: Some(in_flight),
                    user: observed.authorization.user,
                    decision: observed.authorization.decision,
                    observation: observed.observation,
                };
            }
            let websocket = match route.take_websocket_credential(Handshake::of(head), &mut head.headers) {
                Ok(websocket) => websocket,
                Err(rejection) => return rejected(Some(in_flight), rejection),
            };
            let request = client.request_facts(head, &routed.host);
            let Authorization { user, decision } = route.authorize(&request).await;
            Admission {
                routed,
                websocket,
                in_flight: Some(in_flight),
                user,
                decision,
                observation: None,
            }
        }
    }

    /// The checks between routing and authentication: the certificate of the host, and the limit of concurrent requests.
    fn check_connection(&self, host: &Host, client: &Client) -> Result<ConcurrencyPermit, Rejection> {
        if client.is_outdated {
            return Err(Rejection::OutdatedConnection);
        }
        if client
            .served
            .as_ref()
            .is_some_and(|served| served.is_misdirected(&host.name))
        {
            return Err(Rejection::Misdirected);
        }
        self.bounds.in_flight.try_acquire().ok_or(Rejection::Overloaded)
    }

    /// Checks that the HTTP/1 reader has already made, for an HTTP/2 request. h2 makes only a part of them: it answers
    /// some oversized heads itself, and does not count fields.
    fn check_http2_head(&self, head: &Parts) -> Result<(), Rejection> {
        let headers = &head.headers;
        // Count as RFC 9113, section 6.5.2, does: 32 extra bytes for each field.
        let fields = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        if headers.len() > self.bounds.headers || fields.sum::<usize>() > self.bounds.header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        if target.len() > self.bounds.header_bytes {
            return Err(Rejection::TargetTooLong);
        }
        // RFC 9113, section 8.3.1. Bytes above 0x7F are refused over HTTP/1 too.
        if !target.starts_with('/') || !target.is_ascii() {
            return Err(Rejection::Malformed("its path"));
        }
        Ok(())
    }

    /// Looks up the path of a request in the route table.
    fn find(&self, head: &Parts, host: &Host, method: &Method) -> Result<Found<'_>, Rejection> {
        let path = RequestPath::parse(target::path(head)).map_err(FindError::from);
        path.and_then(|path| self.table.find(&host.name, path, method))
            .map_err(|error| Rejection::AmbiguousPath(self.describe(&error, method)))
    }

    /// If no route lists OPTIONS, a preflight belongs to the route of the method that it asks about.
    fn find_preflight(&self, head: &Parts, host: &Host) -> Result<Option<&Route>, Rejection> {
        let Some(method) = cors::requested_method(&head.method, &head.headers) else {
            return Ok(None);
        };
        let route = match self.find(head, host, &method)? {
            Found::Route(id) => self.routes.get(id),
            Found::OtherMethods(_) | Found::NoRoute => None,
        };
        Ok(route.filter(|route| route.is_preflight(&head.method, &head.headers)))
    }

    /// Describes for the log why the look-up of a path failed. Bytes from the client are escaped to visible ASCII, and
    /// their length is limited.
    #[cold]
    fn describe(&self, error: &FindError, method: &Method) -> String {
        let disagreement = match error {
            FindError::Path(error) => return format!("its path: {error}"),
            FindError::Disagreement(disagreement) => disagreement,
        };
        let destination = |destination| match destination {
            Destination::Route(id) => match self.routes.get(id) {
                Some(route) => format!("route {}", route.metrics.label()),
                None => "no route".to_owned(),
            },
            Destination::OtherMethods => format!("a route that does not accept {method}"),
            Destination::NoRoute => "no route".to_owned(),
        };
        let Disagreement { sent, reading, other } = &**disagreement;
        let shown = &reading[..reading.len().min(LONGEST_READING)];
        let more = if shown.len() < reading.len() { "…" } else { "" };
        format!(
            "its path: as sent it is for {}, read as {}{more} for {}",
            destination(*sent),
            percent_encoding::percent_encode(shown, NOT_VISIBLE),
            destination(*other)
        )
    }
}
