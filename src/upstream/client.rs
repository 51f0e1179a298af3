//! Forwards a request to an upstream: chooses a server, uses or opens a connection, waits for the answer, and repeats the request if that is safe.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::body::{BodyFault, RequestBody};
use super::connector::{self, ConnectError, Io, Link, Tunnel};
use super::http1::{Exchanged, Failure};
use super::pool::{Born, Held, Lease, Needs, Past, Pool, Speaks};
use super::resolve::Resolver;
use super::response::{Source, UpstreamBody};
use super::{Balance, ClientSide, HostMode, Settings, Transport, Unsized, check, http2};
use crate::framing::header_case::ConfiguredNames;
use crate::outbound::{Outbound, single};

/// Each request earns 1 unit and each retry costs 5, so that retries are at most a fifth of the requests. At most 20 retries can be saved.
const EARNED: u32 = 1;
const A_RETRY: u32 = 5;
const MOST_RETRIES: u32 = 20 * A_RETRY;

/// One worker's access to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// The case of the names that the gateway adds to requests.
    names: Arc<ConfiguredNames>,
    /// Whether one of the servers may speak HTTP/2; without HTTP/2 there is no gRPC.
    speaks_http2: bool,
    pools: Box<[Rc<Pool>]>,
    turn: Cell<u32>,
    /// The budget of retries.
    budget: Cell<u32>,
}

/// The result of a request.
#[derive(Debug)]
pub enum Answer {
    /// A response.
    Response(Response<UpstreamBody>),
    /// The protocol was switched as the request asked: the response head, and the connection with the bytes after it.
    Switched(Response<()>, Tunnel, Held),
}

/// Why an upstream gave no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No server could be connected to.
    #[error("no connection to {server}: {source}")]
    Connect {
        /// The last server that was tried.
        server: String,
        /// The reason.
        source: ConnectError,
    },
    /// No connection was opened in time.
    #[error("no connection to {server} in time")]
    ConnectTimeout {
        /// The last server that was tried.
        server: String,
    },
    /// The limit of concurrent requests is reached.
    #[error("as many requests as it may have are under way")]
    Full,
    /// The connection ended before a response, or the response was no valid HTTP.
    #[error("no response: {0}")]
    NoResponse(Unreadable),
    /// The server switched protocols, but the request did not ask for it.
    #[error("an unasked-for switch of protocols")]
    UnaskedUpgrade,
    /// The server answered a WebSocket request with success, but did not switch.
    #[error("a success in place of a switch of protocols")]
    NotSwitched,
    /// The server speaks HTTP/2, over which the gateway cannot switch protocols.
    #[error("its HTTP/2 has no way to switch protocols")]
    NoUpgrade,
    /// No response came in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// The request body did not reach its end.
    #[error(transparent)]
    RequestBody(BodyFault),
}

/// What came instead of a response.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The connection ended or failed.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The bytes are invalid or ambiguous as HTTP.
    #[error("what came cannot be read: {0}")]
    NoHttp(&'static str),
}

impl Upstream {
    /// An upstream without connections. `resolver` belongs to the worker; `names`: the case of the names that the gateway adds.
    pub fn new(settings: Settings, names: Arc<ConfiguredNames>, resolver: &Resolver) -> Self {
        let pools = settings
            .servers
            .iter()
            .map(|server| Rc::new(Pool::new(server, &settings, resolver)))
            .collect();
        let speaks_http2 = settings
            .servers
            .iter()
            .any(|server| matches!(server.transport, Transport::Https | Transport::H2c));
        Self {
            inner: Rc::new(Inner {
                settings,
                names,
                speaks_http2,
                pools,
                turn: Cell::new(0),
                budget: Cell::new(MOST_RETRIES),
            }),
        }
    }

    /// Starts the active health checks, if they are configured. Call it once, on the worker that owns this.
    pub fn watch(&self) {
        let Some(check) = &self.inner.settings.check else {
            return;
        };
        for pool in &self.inner.pools {
            check::watch(pool, &self.inner.settings, &self.inner.names, check);
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.inner.settings.name
    }

    /// Buffers a small body before a server is chosen, so that a slow client does not occupy a server. Also handles a body without a length, which
    /// a server may not read to its end. Does neither for gRPC, where client and server talk in both directions.
    ///
    /// # Errors
    /// The client does not send the body, there is no room for it, or the upstream does not accept it.
    pub async fn gather(&self, request: &mut Request<RequestBody>) -> Result<(), UpstreamError> {
        let settings = &self.inner.settings;
        let beyond = match &settings.beyond {
            Unsized::Spool(_) if self.inner.pools.iter().all(|pool| pool.speaks() == Speaks::Http2) => &Unsized::Stream,
            // If the chosen server decides the protocol, `forward` refuses the body.
            Unsized::Refuse if self.inner.pools.iter().any(|pool| pool.speaks() != Speaks::Http1) => &Unsized::Stream,
            beyond => beyond,
        };
        let buffer = settings.request_buffer.as_ref();
        if buffer.is_none() && matches!(beyond, Unsized::Stream) {
            return Ok(());
        }
        if self.inner.speaks_http2 && is_grpc(request.version(), request.headers()) {
            return Ok(());
        }
        // If the limit is already reached, refuse the request before its body is read.
        drop(settings.in_flight.try_acquire().ok_or(UpstreamError::Full)?);
        let gathered = Box::pin(request.body_mut().gather(buffer, beyond)).await;
        gathered.map_err(UpstreamError::RequestBody)
    }

    /// Sends a request and waits for the head of its response. `response_timeout`: the timeout of the route, if it has one. Early hints from
    /// HTTP/2 servers are dropped by hyper.
    ///
    /// # Errors
    /// There is no response, or it did not come in time.
    pub fn forward(
        &self,
        request: Outbound<RequestBody>,
        response_timeout: Option<Duration>,
        client: &ClientSide<'_>,
    ) -> impl Future<Output = Result<Answer, UpstreamError>> {
        let settings = &self.inner.settings;
        let switches = request.switches();
        let (mut head, mut body) = request.into_request().into_parts();
        async move {
            let mut slot = Some(settings.in_flight.try_acquire().ok_or(UpstreamError::Full)?);
            let may_hold = !(switches || self.inner.speaks_http2 && is_grpc(head.version, &head.headers));
            // A request that may have reached its server is sent again only if it is repeatable.
            let repeatable = !switches && is_repeatable(&head, &body);
            let late = response_timeout.unwrap_or(settings.response_timeout);
            let (mut tries, progress) = (settings.retries, body.progress());
            self.earn();
            let mut reuse = match repeatable && tries > 0 && self.has_retry() {
                true => Reuse::Any(Needs::Open),
                false => Reuse::Any(Needs::Safe),
            };
            loop {
                let Connected { link, mut lease, past } = self.connection(progress.last(), reuse).await?;
                if let Some(slot) = slot.take() {
                    lease.hold(slot);
                }
                if settings.host == HostMode::Server {
                    head.headers.insert(HOST, lease.pool.host.clone());
                }
                // Rare: a server that could choose HTTP/2 has chosen HTTP/1.1 this time.
                if may_hold && matches!(link, Link::Http1(_)) && body.is_unsized() {
                    Box::pin(settings.end(&mut body)).await?;
                }
                let sent = match link {
                    Link::Http1(connection) => {
                        let exchanged = connection.exchange(&head, &self.inner.names, body, late, client).await;
                        exchanged.map(Received::Http1)
                    }
                    // The gateway cannot switch protocols on a shared connection.
                    Link::Http2(_) if switches => return Err(UpstreamError::NoUpgrade),
                    Link::Http2(sender) => {
                        let request = http2::translated(&head, body, &lease.pool.server.transport);
                        Box::pin(http2::send(sender, request, late)).await.map(Received::Http2)
                    }
                };
                let failure = match sent {
                    Ok(received) => {
                        lease.pool.health.worked();
                        return self.answered(received, lease, switches, may_hold);
                    }
                    Err(failure) => failure,
                };
                slot = lease.release();
                // If one idle connection was closed, others may be closed too.
                reuse = Reuse::Shared;
                if let (Past::Idle(age), Failure::Unsent(..) | Failure::EndedEarly(_)) = (past, &failure) {
                    lease.pool.idle_limit.closed(age, Instant::now());
                }
                body = match failure {
                    // No byte was sent: the server had closed the connection while it was idle.
                    Failure::Unsent(body, _) if past != Past::New => *body,
                    Failure::EndedEarly(_) if past != Past::New && repeatable && tries > 0 && self.may_retry() => {
                        tries -= 1;
                        RequestBody::none()
                    }
                    failure => {
                        let error = no_response(failure);
                        // A fault of the client's request body says nothing about the server.
                        if let UpstreamError::NoResponse(_) = error {
                            lease.pool.health.failed();
                        }
                        return Err(error);
                    }
                };
            }
        }
    }

    fn answered(
        &self,
        received: Received,
        lease: Lease,
        switches: bool,
        may_hold: bool,
    ) -> Result<Answer, UpstreamError> {
        let (head, source) = match received {
            Received::Http1(Exchanged::Response(response)) => {
                let (head, body) = response.into_parts();
                (head, Source::Http1(body))
            }
            Received::Http2(response) => {
                let (head, body) = response.into_parts();
                (head, Source::Http2(body))
            }
            Received::Http1(Exchanged::Switched(head, tunnel)) => {
                let to = head.headers().get(UPGRADE);
                let is_websocket = to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
                return match switches && is_websocket {
                    true => Ok(Answer::Switched(head, tunnel, lease.into_held())),
                    false => Err(UpstreamError::UnaskedUpgrade),
                };
            }
        };
        // A live stream is not buffered, and may be silent.
        let live = is_live(head.headers.get(CONTENT_TYPE));
        let silence = (!live).then_some(self.inner.settings.body_read_timeout);
        let body = UpstreamBody::new(source, lease, silence, may_hold && !live);
        Ok(Answer::Response(Response::from_parts(head, body)))
    }

    fn earn(&self) {
        let budget = &self.inner.budget;
        budget.set(budget.get().saturating_add(EARNED).min(MOST_RETRIES));
    }

    fn has_retry(&self) -> bool {
        self.inner.budget.get() >= A_RETRY
    }

    fn may_retry(&self) -> bool {
        let left = self.inner.budget.get().checked_sub(A_RETRY);
        if let Some(left) = left {
            self.inner.budget.set(left);
        }
        left.is_some()
    }

    /// Gets a connection: a reused one or a new one. With several servers it tries those that are usable. `now` may be slightly in the past.
    async fn connection(&self, now: Instant, reuse: Reuse) -> Result<Connected, UpstreamError> {
        let first = self.choose();
        match Connected::used(&self.inner.pools[first], now, reuse) {
            Some(connected) => Ok(connected),
            // Boxed because it is rare and large: other requests need no room for it.
            None => Box::pin(self.connect(first, reuse)).await,
        }
    }

    async fn connect(&self, first: usize, reuse: Reuse) -> Result<Connected, UpstreamError> {
        let count = self.inner.pools.len();
        let mut last = None;
        for at in (first..first + count).map(|at| at % count) {
            let pool = &self.inner.pools[at];
            // Skip servers that are not usable. If none is usable, only the chosen one is tried.
            if at != first && !pool.health.is_usable() {
                continue;
            }
            if let Some(connected) = Connected::used(pool, Instant::now(), reuse) {
                return Ok(connected);
            }
            let server = &pool.server;
            let mut is_ours = false;
            let patience = self.inner.settings.connect_timeout;
            let connecting = connector::connect(server, &pool.addresses, self.inner.settings.tls.as_ref(), patience);
            let failed = match timeout(patience, connecting).await {
                Ok(Ok((link, peer))) => {
                    let born = Born::now(peer);
                    pool.opened(&link, born);
                    return Ok(Connected {
                        link,
                        lease: Lease::new(pool, born),
                        past: Past::New,
                    });
                }
                Ok(Err(source)) => {
                    is_ours = source.is_ours();
                    UpstreamError::Connect {
                        server: pool.name(),
                        source,
                    }
                }
                Err(_) => UpstreamError::ConnectTimeout { server: pool.name() },
            };
            if !is_ours {
                pool.health.failed();
            }
            last = Some(failed);
        }
        Err(last.expect("an upstream has at least one server"))
    }

    /// Chooses the server to try first: a usable one, if there is any.
    fn choose(&self) -> usize {
        let pools = &self.inner.pools;
        if pools.len() == 1 {
            return 0;
        }
        let all = || (0..pools.len()).filter(|at| pools[*at].health.is_usable());
        let count = all().count();
        // If no server is usable, choose among all.
        let nth = |nth: usize| if count == 0 { nth } else { all().nth(nth).unwrap_or(0) };
        let count = if count == 0 { pools.len() } else { count };
        let weight = |at: usize| pools[at].server.weight;
        match self.inner.settings.balance {
            Balance::RoundRobin => {
                let total: u32 = (0..count).map(|at| weight(nth(at))).sum();
                let turn = self.inner.turn.get();
                self.inner.turn.set(turn.wrapping_add(1));
                let mut left = turn % total.max(1);
                let mut at = 0;
                while left >= weight(nth(at)) {
                    left -= weight(nth(at));
                    at += 1;
                }
                nth(at)
            }
            Balance::LeastRequest if count == 1 => nth(0),
            Balance::LeastRequest => {
                let first = fastrand::usize(..count);
                let second = (first + fastrand::usize(1..count)) % count;
                let (one, other) = (nth(first), nth(second));
                let (load, others) = (pools[one].load(), pools[other].load());
                // With equal load, choose in proportion to the weights.
                let even = others == load && fastrand::u32(..weight(one) + weight(other)) < weight(other);
                if others < load || even { other } else { one }
            }
        }
    }
}

impl Settings {
    /// Makes the length of a body known before it is sent over HTTP/1.1, if the configuration demands it.
    async fn end(&self, body: &mut RequestBody) -> Result<(), UpstreamError> {
        let most = self.request_buffer.as_ref().map_or(0, |buffer| buffer.bytes);
        let ended = match &self.beyond {
            Unsized::Stream => Ok(()),
            Unsized::Refuse => Err(BodyFault::NoLength),
            Unsized::Spool(spool) => body.spool(spool, most).await,
        };
        ended.map_err(UpstreamError::RequestBody)
    }
}

/// Which connections may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// All connections that are as the request needs them.
    Any(Needs),
    /// Only the shared HTTP/2 connection, which knows whether it is open. One idle connection was closed, so others may be closed too.
    Shared,
}

/// A connection, and the counted request at its server.
struct Connected {
    link: Link,
    lease: Lease,
    past: Past,
}

impl Connected {
    fn used(pool: &Rc<Pool>, now: Instant, reuse: Reuse) -> Option<Self> {
        let (link, born, past) = match reuse {
            Reuse::Any(Needs::Open) => pool.take(now, Needs::Open)?,
            Reuse::Any(Needs::Safe) => pool.take(Instant::now(), Needs::Safe)?,
            Reuse::Shared => pool.take_shared(now, Needs::Safe)?,
        };
        Some(Self {
            link,
            lease: Lease::new(pool, born),
            past,
        })
    }
}

/// The response, in either version of HTTP.
enum Received {
    Http1(Exchanged<Io>),
    Http2(Response<Incoming>),
}

/// Whether the request is gRPC, which needs HTTP/2. Over HTTP/1 any client can send this `Content-Type`, so nothing may depend on it there.
pub fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && is_grpc_type(single(headers, &CONTENT_TYPE))
}

/// Whether the media type is one of gRPC.
fn is_grpc_type(content_type: Option<&HeaderValue>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let parts = content_type.and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()));
    parts.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// Whether the response is a live stream, which may never end and is forwarded as it comes.
fn is_live(content_type: Option<&HeaderValue>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let is_events = kind
        .get(..EVENTS.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
    is_events || is_grpc_type(content_type)
}

/// Whether a request may be sent twice: its method is safe, and it has no body.
fn is_repeatable(head: &Parts, body: &RequestBody) -> bool {
    matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && body.is_end_stream()
}

pub(super) fn no_response(failure: Failure) -> UpstreamError {
    match failure {
        Failure::RequestBody(fault) => UpstreamError::RequestBody(fault),
        Failure::Late => UpstreamError::ResponseTimeout,
        Failure::Unsent(_, problem) | Failure::EndedEarly(problem) | Failure::Broken(problem) => {
            UpstreamError::NoResponse(Unreadable::Broken(problem))
        }
        Failure::NoHttp(what) => UpstreamError::NoResponse(Unreadable::NoHttp(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type_alone() {
        let is = |kind: &'static str| is_grpc_type(Some(&HeaderValue::from_static(kind)));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(is("Application/gRPC") && is("application/grpc\t; x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc_type(None));
    }
}
