//! A request's way to an upstream: a server, a connection, an answer in time, and once more where that is safe.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::body::{BodyFault, Progress, RequestBody, UpstreamBody};
use super::connector::{self, ConnectError, Tunnel};
use super::pool::{Held, Lease, Pool};
use super::{Balance, Check, HostMode, Settings, Transport};
use crate::outbound::Outbound;

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
    NoResponse(hyper::Error),
    /// It answered with a protocol that nobody asked for.
    #[error("an unasked-for switch of protocols")]
    UnaskedUpgrade,
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

impl Upstream {
    /// An upstream without any connections yet.
    pub fn new(settings: Settings) -> Self {
        let pools = settings
            .servers
            .iter()
            .map(|server| Rc::new(Pool::new(server, settings.response_buffer.clone())))
            .collect();
        Self {
            inner: Rc::new(Inner {
                settings,
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
        for at in 0..self.inner.pools.len() {
            let (inner, check) = (Rc::downgrade(&self.inner), check.clone());
            tokio::task::spawn_local(async move {
                loop {
                    // Workers do not ask all at once.
                    sleep(check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
                    let Some(inner) = inner.upgrade() else { return };
                    inner.check(&inner.pools[at], &check).await;
                }
            });
        }
    }

    /// Its name in the file.
    pub fn name(&self) -> &Arc<str> {
        &self.inner.settings.name
    }

    /// Waits for a small body before a server is taken, so that a slow client holds none; never where the two talk with each other.
    ///
    /// # Errors
    /// Its client does not send it, or nobody would take it.
    pub async fn gather(&self, request: &mut Request<RequestBody>) -> Result<(), UpstreamError> {
        let settings = &self.inner.settings;
        let Some(buffer) = &settings.request_buffer else {
            return Ok(());
        };
        if request.body().is_end_stream() || is_grpc(request.headers().get(CONTENT_TYPE)) {
            return Ok(());
        }
        // Who would be refused now is refused before its body is read.
        drop(settings.in_flight.take().ok_or(UpstreamError::Full)?);
        let gathered = request.body_mut().gather(buffer).await;
        gathered.map_err(UpstreamError::RequestBody)
    }

    /// Sends a request and waits for the head of its response, `response_timeout` at most where the route has its own.
    ///
    /// # Errors
    /// There is no response, or not in time.
    pub async fn forward(
        &self,
        request: Outbound<RequestBody>,
        response_timeout: Option<Duration>,
    ) -> Result<Answer, UpstreamError> {
        let settings = &self.inner.settings;
        let mut slot = Some(settings.in_flight.take().ok_or(UpstreamError::Full)?);
        let switches = request.switches();
        let request = request.into_request();
        let may_hold = !switches && !is_grpc(request.headers().get(CONTENT_TYPE));
        let mut request = framed(request);
        let progress = request.body().progress();
        let bound = response_timeout.unwrap_or(settings.response_timeout);
        let mut tries = settings.retries;
        self.earn();
        loop {
            let (mut lease, used_before) = self.connection().await?;
            if let Some(slot) = slot.take() {
                lease.hold(slot);
            }
            if settings.host == HostMode::Server {
                request.headers_mut().insert(HOST, lease.pool.host.clone());
            }
            if lease.sender.is_http2() {
                if switches {
                    return Err(UpstreamError::NoUpgrade);
                }
                request = for_http2(request, &lease.pool.server.transport);
            } else if request.version() == Version::HTTP_2 {
                request = for_http1(request);
            }
            lease.sender.set_switches(switches);
            // A copy is made only where it may be needed: what may have reached its server is sent again only if it may be repeated.
            let copy = (used_before && tries > 0 && !switches)
                .then(|| repeatable(&request))
                .flatten();
            let sent = lease.sender.send(request);
            let answer = tokio::select! {
                biased;
                answer = sent => answer,
                () = overdue(&progress, bound) => return Err(UpstreamError::ResponseTimeout),
            };
            let mut failed = match answer {
                Ok(response) => {
                    lease.pool.health.worked();
                    return answered(response, lease, switches, may_hold).await;
                }
                Err(failed) => failed,
            };
            slot = lease.release();
            request = match (failed.take_message(), copy) {
                // Not a byte of it was sent: the server had closed the connection while it was idle.
                (Some(unsent), _) if used_before => unsent,
                (None, Some(copy)) if ended_early(failed.error()) && self.may_retry() => {
                    tries -= 1;
                    copy
                }
                _ => {
                    let error = no_response(failed.into_error());
                    // What clients do to their own requests says nothing of a server.
                    if let UpstreamError::NoResponse(_) = error {
                        lease.pool.health.failed();
                    }
                    return Err(error);
                }
            };
        }
    }

    fn earn(&self) {
        let budget = &self.inner.budget;
        budget.set(budget.get().saturating_add(EARNED).min(MOST_RETRIES));
    }

    fn may_retry(&self) -> bool {
        let left = self.inner.budget.get().checked_sub(A_RETRY);
        if let Some(left) = left {
            self.inner.budget.set(left);
        }
        left.is_some()
    }

    /// A connection that was used before, or a new one; of several servers, to one that can be reached.
    async fn connection(&self) -> Result<(Lease, bool), UpstreamError> {
        let first = self.choose();
        let count = self.inner.pools.len();
        let mut last = None;
        for at in (first..first + count).map(|at| at % count) {
            let pool = &self.inner.pools[at];
            // Where nobody is usable, the one that was chosen is asked all the same.
            if at != first && !pool.health.is_usable() {
                continue;
            }
            if let Some((sender, born)) = pool.take() {
                return Ok((Lease::new(pool, sender, born), true));
            }
            let server = &pool.server;
            let connecting = connector::connect(server, self.inner.settings.tls.as_ref());
            let failed = match timeout(self.inner.settings.connect_timeout, connecting).await {
                Ok(Ok(sender)) => {
                    let born = Instant::now();
                    pool.share(&sender, born);
                    return Ok((Lease::new(pool, sender, born), false));
                }
                Ok(Err(source)) => UpstreamError::Connect {
                    server: name_of(&server.transport, &server.authority),
                    source,
                },
                Err(_) => UpstreamError::ConnectTimeout {
                    server: name_of(&server.transport, &server.authority),
                },
            };
            pool.health.failed();
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

impl Inner {
    async fn check(&self, pool: &Pool, check: &Check) {
        let passed = timeout(check.interval, self.ask(pool, check)).await.unwrap_or(false);
        let (upstream, server) = (
            &self.settings.name,
            name_of(&pool.server.transport, &pool.server.authority),
        );
        match pool.health.checked(passed) {
            Some(true) => info!(upstream = %upstream, server, "a server is up again"),
            Some(false) => {
                warn!(upstream = %upstream, server, path = check.path.as_str(), "a server is down: its checks fail")
            }
            None => {}
        }
    }

    /// On a connection of its own: what a server has in its pool says nothing of whether it takes more.
    async fn ask(&self, pool: &Pool, check: &Check) -> bool {
        let Ok(mut sender) = connector::connect(&pool.server, self.settings.tls.as_ref()).await else {
            return false;
        };
        let mut request = Request::new(RequestBody::none());
        *request.uri_mut() = Uri::from(check.path.clone());
        let host = match &self.settings.host {
            HostMode::Name(name) => name.clone(),
            HostMode::Preserve | HostMode::Server => pool.host.clone(),
        };
        request.headers_mut().insert(HOST, host);
        if let Some((name, value)) = &self.settings.secret_header {
            request.headers_mut().insert(name, value.clone());
        }
        if sender.is_http2() {
            request = for_http2(request, &pool.server.transport);
        }
        let answer = sender.send(request).await;
        answer.is_ok_and(|response| response.status().is_success() || response.status().is_redirection())
    }
}

async fn answered(
    response: Response<hyper::body::Incoming>,
    lease: Lease,
    switches: bool,
    may_hold: bool,
) -> Result<Answer, UpstreamError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let may_hold = may_hold && !is_live(response.headers().get(CONTENT_TYPE));
        return Ok(Answer::Response(
            response.map(|incoming| UpstreamBody::new(incoming, lease, may_hold)),
        ));
    }
    let is_websocket = response
        .headers()
        .get(http::header::UPGRADE)
        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !switches || !is_websocket {
        return Err(UpstreamError::UnaskedUpgrade);
    }
    let head = response.map(drop);
    match lease.into_tunnel().await {
        Some((tunnel, held)) => Ok(Answer::Switched(head, tunnel, held)),
        None => Err(UpstreamError::UnaskedUpgrade),
    }
}

fn name_of(transport: &Transport, authority: &Authority) -> String {
    match transport {
        Transport::Unix(path) => path.display().to_string(),
        Transport::Http | Transport::Https | Transport::H2c => authority.to_string(),
    }
}

/// Says in so many words that a body of unknown length comes: hyper would take such a GET for one without a body, and drop it.
fn framed(mut request: Request<RequestBody>) -> Request<RequestBody> {
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    request
}

/// Undoes [`for_http2`], where a request goes on to a server that speaks HTTP/1.1.
fn for_http1(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let host = parts
        .authority
        .take()
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    let target = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    let headers = request.headers_mut();
    headers.remove(TE);
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    framed(request)
}

/// HTTP/2 has the host in its target, and no framing of its own in fields (RFC 9113, sections 8.2.2 and 8.3.1).
fn for_http2(mut request: Request<RequestBody>, transport: &Transport) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(TRANSFER_ENCODING);
    if is_grpc(request.headers().get(CONTENT_TYPE)) {
        // What gRPC tells a server that its trailers will be read (HTTP/2 transport mapping, "Requests").
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(match transport {
        Transport::Https => Scheme::HTTPS,
        Transport::Http | Transport::H2c | Transport::Unix(_) => Scheme::HTTP,
    });
    parts.authority = authority;
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// Whether a message is one of gRPC's.
pub fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let kind = content_type.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Whether a response is one that never ends, and is read as it comes.
fn is_live(content_type: Option<&HeaderValue>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let is_events = kind
        .get(..EVENTS.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
    is_events || is_grpc(content_type)
}

/// A copy of a request that may be sent twice: safe, and without a body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let body = request.body().empty_copy()?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether a connection ended before a byte of a response.
fn ended_early(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let reset = io.is_some_and(|io| {
        matches!(
            io.kind(),
            std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::ConnectionAborted
        )
    });
    // hyper says "incomplete" of a head that had begun too; nothing of a body has been handed on by then, and the method is safe.
    reset || error.is_incomplete_message() || error.is_canceled()
}

/// Ends when nothing of the request's body has passed for that long.
async fn overdue(progress: &Progress, bound: Duration) {
    loop {
        let end = progress.last() + bound;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

fn no_response(error: hyper::Error) -> UpstreamError {
    let fault = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<BodyFault>());
    fault
        .copied()
        .map_or(UpstreamError::NoResponse(error), UpstreamError::RequestBody)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_from_one_protocol_to_the_other_and_back() {
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = Uri::from_static("/a%2Fb?c=d");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("Api.example:8443"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        let before = request.headers().clone();

        let there = for_http2(request, &Transport::Https);
        assert_eq!(there.uri().to_string(), "https://Api.example:8443/a%2Fb?c=d");
        assert_eq!((there.version(), there.headers().get(HOST)), (Version::HTTP_2, None));
        assert_eq!(there.headers()[TE], "trailers");

        let back = for_http1(there);
        assert_eq!(
            (back.uri().to_string().as_str(), back.version()),
            ("/a%2Fb?c=d", Version::HTTP_11)
        );
        assert_eq!((back.method(), back.headers()), (&Method::DELETE, &before));
    }

    #[test]
    fn grpc_is_known_by_its_content_type_alone() {
        let is = |kind: &'static str| is_grpc(Some(&HeaderValue::from_static(kind)));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc(None));
    }
}
