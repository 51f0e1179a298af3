//! A request's way to an upstream: a server, a connection, an answer in time, and once more where that is safe.

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
use crate::framing::spelling::OurNames;
use crate::outbound::{Outbound, single};

/// A request earns this much of a retry, so that retries are never more than a fifth of what is sent, and so many at once.
const EARNED: u32 = 1;
const A_RETRY: u32 = 5;
const MOST_RETRIES: u32 = 20 * A_RETRY;

/// One worker's way to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// How names are written that the gateway adds to requests.
    names: Arc<OurNames>,
    /// Whether one of its servers may be spoken to over HTTP/2: to others there is no gRPC.
    speaks_http2: bool,
    pools: Box<[Rc<Pool>]>,
    turn: Cell<u32>,
    /// What is left for sending again.
    budget: Cell<u32>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// A response.
    Response(Response<UpstreamBody>),
    /// The protocol was switched, as it was asked to be: the head of the response, and the bytes behind it.
    Switched(Response<()>, Tunnel, Held),
}

/// Why an upstream gave no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No server could be connected to.
    #[error("no connection to {server}: {source}")]
    Connect {
        /// The last one tried.
        server: String,
        /// Why.
        source: ConnectError,
    },
    /// No server was connected to in time.
    #[error("no connection to {server} in time")]
    ConnectTimeout {
        /// The last one tried.
        server: String,
    },
    /// As many requests as it may have at once are under way.
    #[error("as many requests as it may have are under way")]
    Full,
    /// The connection ended, or what came was no HTTP, before a response.
    #[error("no response: {0}")]
    NoResponse(Unreadable),
    /// It answered with a protocol that nobody asked for.
    #[error("an unasked-for switch of protocols")]
    UnaskedUpgrade,
    /// It answered a request for a WebSocket with success, and did not switch.
    #[error("a success in place of a switch of protocols")]
    NotSwitched,
    /// A protocol cannot be switched over the HTTP/2 that this upstream speaks.
    #[error("its HTTP/2 has no way to switch protocols")]
    NoUpgrade,
    /// No response in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// The request's own body did not come to its end.
    #[error(transparent)]
    RequestBody(BodyFault),
}

/// What came in place of a response.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The end of the connection.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// Bytes that can be read in no way, or in more than one.
    #[error("what came cannot be read: {0}")]
    NoHttp(&'static str),
}

impl Upstream {
    /// An upstream without any connections yet. `resolver` is its worker's; `names`: how names are written that the gateway adds.
    pub fn new(settings: Settings, names: Arc<OurNames>, resolver: &Resolver) -> Self {
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

    /// Keeps asking its servers whether they are up, where the file says so. To be called once, on the worker that has it.
    pub fn watch(&self) {
        let Some(check) = &self.inner.settings.check else {
            return;
        };
        for pool in &self.inner.pools {
            check::watch(pool, &self.inner.settings, &self.inner.names, check);
        }
    }

    /// Its name in the file.
    pub fn name(&self) -> &Arc<str> {
        &self.inner.settings.name
    }

    /// Waits for a small body before a server is taken, so that a slow client holds none, and for one without a length that a server may
    /// not read to its end; never where the two talk with each other.
    ///
    /// # Errors
    /// Its client does not send it, there is no room for it, or the upstream would not take it.
    pub async fn gather(&self, request: &mut Request<RequestBody>) -> Result<(), UpstreamError> {
        let settings = &self.inner.settings;
        let beyond = match &settings.beyond {
            Unsized::Spool(_) if self.inner.pools.iter().all(|pool| pool.speaks() == Speaks::Http2) => &Unsized::Stream,
            // Where the server that is chosen decides, `forward` refuses it.
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
        // Who would be refused now is refused before its body is read.
        drop(settings.in_flight.take().ok_or(UpstreamError::Full)?);
        let gathered = Box::pin(request.body_mut().gather(buffer, beyond)).await;
        gathered.map_err(UpstreamError::RequestBody)
    }

    /// Sends a request and waits for the head of its response, `response_timeout` at most where the route has its own. Early hints of
    /// HTTP/2 servers are dropped by the library that reads them.
    ///
    /// # Errors
    /// There is no response, or not in time.
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
            let mut slot = Some(settings.in_flight.take().ok_or(UpstreamError::Full)?);
            let may_hold = !(switches || self.inner.speaks_http2 && is_grpc(head.version, &head.headers));
            // What may have reached its server is sent again only if it may be repeated.
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
                // Rare: a server that chooses its protocol anew has chosen HTTP/1.1.
                if may_hold && matches!(link, Link::Http1(_)) && body.is_unsized() {
                    Box::pin(settings.end(&mut body)).await?;
                }
                let sent = match link {
                    Link::Http1(connection) => {
                        let exchanged = connection.exchange(&head, &self.inner.names, body, late, client).await;
                        exchanged.map(Received::Http1)
                    }
                    // A protocol cannot be switched over what is shared.
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
                // Where one connection was stale, others may be.
                reuse = Reuse::Shared;
                if let (Past::Idle(age), Failure::Unsent(..) | Failure::EndedEarly(_)) = (past, &failure) {
                    lease.pool.idle_limit.closed(age, Instant::now());
                }
                body = match failure {
                    // Not a byte of it was sent: the server had closed the connection while it was idle.
                    Failure::Unsent(body, _) if past != Past::New => *body,
                    Failure::EndedEarly(_) if past != Past::New && repeatable && tries > 0 && self.may_retry() => {
                        tries -= 1;
                        RequestBody::none()
                    }
                    failure => {
                        let error = no_response(failure);
                        // What clients do to their own requests says nothing of a server.
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
        // What never ends is read as it comes, and may be silent.
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

    /// A connection that was used before, or a new one; of several servers, to one that can be reached. `now` may be some way back.
    async fn connection(&self, now: Instant, reuse: Reuse) -> Result<Connected, UpstreamError> {
        let first = self.choose();
        match Connected::used(&self.inner.pools[first], now, reuse) {
            Some(connected) => Ok(connected),
            // Rare, and large: no part of every request's future.
            None => Box::pin(self.connect(first, reuse)).await,
        }
    }

    async fn connect(&self, first: usize, reuse: Reuse) -> Result<Connected, UpstreamError> {
        let count = self.inner.pools.len();
        let mut last = None;
        for at in (first..first + count).map(|at| at % count) {
            let pool = &self.inner.pools[at];
            // Where nobody is usable, the one that was chosen is asked all the same.
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

    /// Where to begin: a server that is usable, if one is.
    fn choose(&self) -> usize {
        let pools = &self.inner.pools;
        if pools.len() == 1 {
            return 0;
        }
        let all = || (0..pools.len()).filter(|at| pools[*at].health.is_usable());
        let count = all().count();
        // Where none is usable, all are asked all the same.
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
                // Equally busy: as heavy as they are.
                let even = others == load && fastrand::u32(..weight(one) + weight(other)) < weight(other);
                if others < load || even { other } else { one }
            }
        }
    }
}

impl Settings {
    /// Makes the length of a body known that is about to leave over HTTP/1.1, where that is wanted.
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

/// Which connections may be used that were used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// All that are as the request needs them.
    Any(Needs),
    /// Where one was stale, other idle ones may be. Of HTTP/2 there is one connection, which knows by itself whether it is open.
    Shared,
}

/// A connection, and a place at its server.
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

/// What came back, in either version of HTTP.
enum Received {
    Http1(Exchanged<Io>),
    Http2(Response<Incoming>),
}

/// Whether a request is one of gRPC's, which is spoken over HTTP/2 alone: over HTTP/1 `Content-Type` is any client's word, and nothing
/// depends on it.
pub fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && is_grpc_type(single(headers, &CONTENT_TYPE))
}

/// Whether a media type is one of gRPC's.
fn is_grpc_type(content_type: Option<&HeaderValue>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let parts = content_type.and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()));
    parts.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// Whether a response is one that never ends, and is read as it comes.
fn is_live(content_type: Option<&HeaderValue>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let is_events = kind
        .get(..EVENTS.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
    is_events || is_grpc_type(content_type)
}

/// Whether a request may be sent twice: it is safe, and has no body.
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
