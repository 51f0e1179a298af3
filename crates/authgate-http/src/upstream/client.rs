//! Forwards a request to an upstream: chooses a server, uses or opens a connection, waits for the answer, and repeats the request if that is safe.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::body_error::RequestBodyError;
use super::client_side::ClientSide;
use super::connector::{self, HttpConnection, Io, Tunnel};
use super::content_type::{is_grpc, stream_kind};
use super::error::UpstreamError;
use super::http1::{ExchangeError, ResponseOrUpgrade};
use super::limits::{Buffer, UpstreamLimits};
use super::pool::{ActiveRequest, ConnOrigin, ConnState, IdlePolicy, Pool, Protocol, TunnelGuard};
use super::resolve::Resolver;
use super::response::{ProtocolBody, UpstreamBody};
use super::settings::{Balance, HostMode, Server, Tls, Transport, UnsizedBodies, UpstreamSettings};
use super::spool::Spool;
use super::{health_check, http2};
use crate::framing::header_case::ConfiguredNames;

/// Each request earns 1 unit and each retry costs 5, so that retries are at most a fifth of the requests. At most 20 retries can be saved.
const CREDIT_PER_REQUEST: u32 = 1;
const COST_OF_RETRY: u32 = 5;
const MAX_RETRY_CREDIT: u32 = 20 * COST_OF_RETRY;

/// One worker's access to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<UpstreamSettings>,
    limits: UpstreamLimits,
    request_buffer: Option<Buffer>,
    /// Cloned for each response, so that the counter of the clones belongs to this worker.
    response_buffer: Option<Rc<Buffer>>,
    /// The case of the names that the gateway adds to requests.
    own_names: Arc<ConfiguredNames>,
    /// Whether one of the servers may speak HTTP/2; without HTTP/2 there is no gRPC.
    may_use_http2: bool,
    /// One for each of `settings.servers`, in the same order.
    pools: Box<[Rc<Pool>]>,
    round_robin: Cell<u32>,
    /// The budget of retries.
    retry_credit: Cell<u32>,
}

/// The active health checks of an upstream. Dropping it ends them, although requests of the upstream may still be under way.
#[derive(Debug)]
#[must_use = "dropping it ends the checks"]
pub struct HealthChecks(JoinSet<()>);

/// The result of a request.
#[expect(
    clippy::large_enum_variant,
    reason = "most are responses, and a box would be one more allocation for each of them"
)]
#[derive(Debug)]
pub enum Forwarded {
    /// A response.
    Response(Response<UpstreamBody>),
    /// The protocol was switched as the request asked: the response head, and the connection with the bytes after it.
    Upgraded(Response<()>, Tunnel, TunnelGuard),
}

impl Upstream {
    /// An upstream without connections. `resolver` belongs to the worker; `own_names`: the case of the names that the gateway adds.
    pub fn new(
        settings: Arc<UpstreamSettings>,
        limits: UpstreamLimits,
        own_names: Arc<ConfiguredNames>,
        resolver: &Resolver,
    ) -> Self {
        let new_pool = |server: &Server| Rc::new(Pool::new(server, &settings, &limits, resolver));
        let pools = settings.servers.iter().map(new_pool).collect();
        Self::with_pools(settings, limits, own_names, pools, MAX_RETRY_CREDIT)
    }

    /// The same upstream with changed settings. Servers that both have keep their pool: its connections, its health, and the number of its
    /// active requests. Connections over TLS are kept only if both have the same [`Tls`] configuration. `limits` are those of the new settings:
    /// [`UpstreamLimits::with_settings`].
    ///
    /// This upstream can still be used, so that its requests can end.
    #[must_use]
    pub fn with_settings(
        &self,
        settings: Arc<UpstreamSettings>,
        limits: UpstreamLimits,
        own_names: Arc<ConfiguredNames>,
        resolver: &Resolver,
    ) -> Self {
        let same_tls = Tls::is_same(self.inner.settings.tls.as_ref(), settings.tls.as_ref());
        let pool = |server: &Server| {
            let endpoint = server.endpoint();
            let can_keep = same_tls || endpoint.transport != Transport::Https;
            let kept = self.inner.pools.iter().find(|pool| can_keep && pool.server == endpoint);
            match kept {
                Some(pool) => {
                    pool.apply(&settings);
                    Rc::clone(pool)
                }
                None => Rc::new(Pool::new(server, &settings, &limits, resolver)),
            }
        };
        let pools = settings.servers.iter().map(pool).collect();
        Self::with_pools(settings, limits, own_names, pools, self.inner.retry_credit.get())
    }

    fn with_pools(
        settings: Arc<UpstreamSettings>,
        limits: UpstreamLimits,
        own_names: Arc<ConfiguredNames>,
        pools: Box<[Rc<Pool>]>,
        retry_credit: u32,
    ) -> Self {
        let may_use_http2 = settings
            .servers
            .iter()
            .any(|server| matches!(server.transport, Transport::Https | Transport::H2c));
        Self {
            inner: Rc::new(Inner {
                request_buffer: limits.request_buffer(&settings),
                response_buffer: limits.response_buffer(&settings).map(Rc::new),
                settings,
                limits,
                own_names,
                may_use_http2,
                pools,
                round_robin: Cell::new(0),
                retry_credit: Cell::new(retry_credit),
            }),
        }
    }

    /// Starts the active health checks, if they are configured. Call it on the worker that owns this.
    pub fn start_health_checks(&self) -> HealthChecks {
        let Inner {
            settings,
            own_names,
            pools,
            ..
        } = &*self.inner;
        let mut checks = HealthChecks(JoinSet::new());
        let Some(check) = &settings.health_check else {
            return checks;
        };
        for pool in pools {
            let (pool, check) = (Rc::clone(pool), check.clone());
            checks.0.spawn_local(health_check::run(
                pool,
                Arc::clone(settings),
                Arc::clone(own_names),
                check,
            ));
        }
        checks
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
    pub async fn buffer_body(&self, request: &mut Request<RequestBody>) -> Result<(), UpstreamError> {
        let settings = &self.inner.settings;
        let unsized_bodies = match &settings.unsized_bodies {
            UnsizedBodies::Spool(_) if self.inner.pools.iter().all(|pool| pool.protocol() == Protocol::Http2) => {
                &UnsizedBodies::Stream
            }
            // If the chosen server decides the protocol, `forward` refuses the body.
            UnsizedBodies::Refuse if self.inner.pools.iter().any(|pool| pool.protocol() != Protocol::Http1) => {
                &UnsizedBodies::Stream
            }
            unsized_bodies => unsized_bodies,
        };
        let buffer = self.inner.request_buffer.as_ref();
        if buffer.is_none() && matches!(unsized_bodies, UnsizedBodies::Stream) {
            return Ok(());
        }
        if self.inner.may_use_http2 && is_grpc(request.version(), request.headers()) {
            return Ok(());
        }
        // If the limit is already reached, refuse the request before its body is read.
        drop(
            self.inner
                .limits
                .in_flight
                .try_acquire()
                .ok_or(UpstreamError::InFlightLimit)?,
        );
        let buffered = Box::pin(
            request
                .body_mut()
                .buffer(buffer, unsized_bodies, &self.inner.limits.spool),
        )
        .await;
        buffered.map_err(UpstreamError::RequestBody)
    }

    /// Sends a request and waits for the head of its response. `response_timeout`: the timeout of the route, if it has one. Early hints from
    /// HTTP/2 servers are dropped by hyper.
    ///
    /// # Errors
    /// There is no response, or it did not come in time.
    pub fn forward(
        &self,
        request: Request<RequestBody>,
        wants_upgrade: bool,
        response_timeout: Option<Duration>,
        client: &ClientSide<'_>,
    ) -> impl Future<Output = Result<Forwarded, UpstreamError>> {
        let settings = &self.inner.settings;
        let (mut head, mut body) = request.into_parts();
        async move {
            let mut permit = Some(
                self.inner
                    .limits
                    .in_flight
                    .try_acquire()
                    .ok_or(UpstreamError::InFlightLimit)?,
            );
            let may_buffer = !(wants_upgrade || self.inner.may_use_http2 && is_grpc(head.version, &head.headers));
            // A request that may have reached its server is sent again only if it is repeatable.
            let repeatable = !wants_upgrade && is_repeatable(&head, &body);
            let response_timeout = response_timeout.unwrap_or(settings.response_timeout);
            let (mut retries_left, progress) = (settings.retries, body.progress());
            self.earn_retry_credit();
            let mut reuse = match repeatable && retries_left > 0 && self.can_afford_retry() {
                true => Reuse::Pooled(IdlePolicy::AnyOpen),
                false => Reuse::Pooled(IdlePolicy::SafeOnly),
            };
            loop {
                let Connected {
                    connection,
                    mut active,
                    state,
                } = self.acquire(progress.last_activity(), reuse).await?;
                if let Some(permit) = permit.take() {
                    active.keep_permit(permit);
                }
                if settings.host == HostMode::Server {
                    head.headers.insert(HOST, active.pool.host.clone());
                }
                // Rare: a server that could choose HTTP/2 has chosen HTTP/1.1 this time.
                if may_buffer && matches!(connection, HttpConnection::Http1(_)) && body.is_unsized() {
                    Box::pin(self.inner.ensure_length(&mut body)).await?;
                }
                let sent = match connection {
                    HttpConnection::Http1(connection) => {
                        let exchanged = connection
                            .exchange(&head, &self.inner.own_names, body, response_timeout, client)
                            .await;
                        exchanged.map(Received::Http1)
                    }
                    // The gateway cannot switch protocols on a shared connection.
                    HttpConnection::Http2(_) if wants_upgrade => return Err(UpstreamError::UpgradeUnsupported),
                    HttpConnection::Http2(sender) => {
                        let request = http2::to_http2(&head, body, &active.pool.server.transport);
                        Box::pin(http2::send(sender, request, response_timeout))
                            .await
                            .map(Received::Http2)
                    }
                };
                let failure = match sent {
                    Ok(received) => {
                        active.pool.health.record_success();
                        return self.forwarded(received, active, wants_upgrade, may_buffer);
                    }
                    Err(failure) => failure,
                };
                permit = active.take_permit();
                // If one idle connection was closed, others may be closed too.
                reuse = Reuse::Http2Only;
                if let (ConnState::Idle(age), ExchangeError::Unsent(..) | ExchangeError::ClosedEarly(_)) =
                    (state, &failure)
                {
                    active.pool.idle_estimate.record_closed(age, Instant::now());
                }
                body = match failure {
                    // No byte was sent: the server had closed the connection while it was idle.
                    ExchangeError::Unsent(body, _) if state != ConnState::New => *body,
                    ExchangeError::ClosedEarly(_)
                        if state != ConnState::New && repeatable && retries_left > 0 && self.spend_retry_credit() =>
                    {
                        retries_left -= 1;
                        RequestBody::empty()
                    }
                    failure => {
                        let error = UpstreamError::from(failure);
                        // A fault of the client's request body says nothing about the server.
                        if let UpstreamError::NoResponse(cause) = &error {
                            active.pool.health.record_failure(cause);
                        }
                        return Err(error);
                    }
                };
            }
        }
    }

    fn forwarded(
        &self,
        received: Received,
        active: ActiveRequest,
        wants_upgrade: bool,
        may_buffer: bool,
    ) -> Result<Forwarded, UpstreamError> {
        let (head, source) = match received {
            Received::Http1(ResponseOrUpgrade::Response(response)) => {
                let (head, body) = response.into_parts();
                (head, ProtocolBody::Http1(body))
            }
            Received::Http2(response) => {
                let (head, body) = response.into_parts();
                (head, ProtocolBody::Http2(body))
            }
            Received::Http1(ResponseOrUpgrade::Upgraded(head, tunnel)) => {
                let protocol = head.headers().get(UPGRADE);
                let is_websocket =
                    protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
                return match wants_upgrade && is_websocket {
                    true => Ok(Forwarded::Upgraded(head, tunnel, active.into_tunnel_guard())),
                    false => Err(UpstreamError::UnexpectedUpgrade),
                };
            }
        };
        // A live stream is not buffered, and may be silent.
        let kind = stream_kind(head.headers.get(CONTENT_TYPE));
        let read_timeout = kind.is_none().then_some(self.inner.settings.body_read_timeout);
        let read_ahead = self
            .inner
            .response_buffer
            .as_ref()
            .filter(|_| may_buffer && kind.is_none());
        let body = UpstreamBody::new(source, active, read_timeout, read_ahead.cloned(), kind);
        Ok(Forwarded::Response(Response::from_parts(head, body)))
    }

    fn earn_retry_credit(&self) {
        let retry_credit = &self.inner.retry_credit;
        retry_credit.set(
            retry_credit
                .get()
                .saturating_add(CREDIT_PER_REQUEST)
                .min(MAX_RETRY_CREDIT),
        );
    }

    fn can_afford_retry(&self) -> bool {
        self.inner.retry_credit.get() >= COST_OF_RETRY
    }

    fn spend_retry_credit(&self) -> bool {
        let left = self.inner.retry_credit.get().checked_sub(COST_OF_RETRY);
        if let Some(left) = left {
            self.inner.retry_credit.set(left);
        }
        left.is_some()
    }

    /// Gets a connection: a reused one or a new one. With several servers it tries those that are usable. `now` may be slightly in the past.
    async fn acquire(&self, now: Instant, reuse: Reuse) -> Result<Connected, UpstreamError> {
        let first = self.choose_server();
        match Connected::reuse(&self.inner.pools[first], now, reuse) {
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
            if let Some(connected) = Connected::reuse(pool, Instant::now(), reuse) {
                return Ok(connected);
            }
            let server = &pool.server;
            let mut is_local_exhaustion = false;
            let connect_timeout = self.inner.settings.connect_timeout;
            let connecting = connector::connect(
                server,
                &pool.addresses,
                self.inner.settings.tls.as_ref(),
                connect_timeout,
            );
            let failed = match timeout(connect_timeout, connecting).await {
                Ok(Ok((connection, peer))) => {
                    let origin = ConnOrigin::now(peer);
                    pool.record_opened(&connection, origin);
                    return Ok(Connected {
                        connection,
                        active: ActiveRequest::new(pool, origin),
                        state: ConnState::New,
                    });
                }
                Ok(Err(source)) => {
                    is_local_exhaustion = source.is_local_exhaustion();
                    UpstreamError::Connect {
                        server: pool.server_name(),
                        source,
                    }
                }
                Err(_) => UpstreamError::ConnectTimeout {
                    server: pool.server_name(),
                },
            };
            if !is_local_exhaustion {
                pool.health.record_failure(&failed);
            }
            last = Some(failed);
        }
        Err(last.expect("an upstream has at least one server"))
    }

    /// Chooses the server to try first: a usable one, if there is any.
    fn choose_server(&self) -> usize {
        let pools = &self.inner.pools;
        if pools.len() == 1 {
            return 0;
        }
        let all = || (0..pools.len()).filter(|at| pools[*at].health.is_usable());
        let count = all().count();
        // If no server is usable, choose among all.
        let nth = |nth: usize| if count == 0 { nth } else { all().nth(nth).unwrap_or(0) };
        let count = if count == 0 { pools.len() } else { count };
        let weight = |at: usize| self.inner.settings.servers[at].weight;
        match self.inner.settings.balance {
            Balance::RoundRobin => {
                let total: u32 = (0..count).map(|at| weight(nth(at))).sum();
                let round_robin = self.inner.round_robin.get();
                self.inner.round_robin.set(round_robin.wrapping_add(1));
                let mut left = round_robin % total.max(1);
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
                let (load, other_load) = (pools[one].load(weight(one)), pools[other].load(weight(other)));
                // With equal load, choose in proportion to the weights.
                let even = other_load == load && fastrand::u32(..weight(one) + weight(other)) < weight(other);
                if other_load < load || even { other } else { one }
            }
        }
    }
}

impl Inner {
    /// Makes the length of a body known before it is sent over HTTP/1.1, if the configuration demands it.
    async fn ensure_length(&self, body: &mut RequestBody) -> Result<(), UpstreamError> {
        let result = match &self.settings.unsized_bodies {
            UnsizedBodies::Stream => Ok(()),
            UnsizedBodies::Refuse => Err(RequestBodyError::LengthRequired),
            UnsizedBodies::Spool(settings) => {
                let usage = &self.limits.spool;
                body.spool(Spool { settings, usage }, self.settings.request_buffer)
                    .await
            }
        };
        result.map_err(UpstreamError::RequestBody)
    }
}

/// Which connections may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// All connections that are as the request needs them.
    Pooled(IdlePolicy),
    /// Only the shared HTTP/2 connection, which knows whether it is open. One idle connection was closed, so others may be closed too.
    Http2Only,
}

/// A connection, and the counted request at its server.
struct Connected {
    connection: HttpConnection,
    active: ActiveRequest,
    state: ConnState,
}

impl Connected {
    fn reuse(pool: &Rc<Pool>, now: Instant, reuse: Reuse) -> Option<Self> {
        let (connection, origin, state) = match reuse {
            Reuse::Pooled(IdlePolicy::AnyOpen) => pool.take(now, IdlePolicy::AnyOpen)?,
            Reuse::Pooled(IdlePolicy::SafeOnly) => pool.take(Instant::now(), IdlePolicy::SafeOnly)?,
            Reuse::Http2Only => pool.take_http2(now, IdlePolicy::SafeOnly)?,
        };
        Some(Self {
            connection,
            active: ActiveRequest::new(pool, origin),
            state,
        })
    }
}

/// The response, in either version of HTTP.
enum Received {
    Http1(ResponseOrUpgrade<Io>),
    Http2(Response<Incoming>),
}

/// Whether a request may be sent twice: its method is safe, and it has no body.
fn is_repeatable(head: &Parts, body: &RequestBody) -> bool {
    matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && body.is_end_stream()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn changed_settings_keep_the_state_of_the_same_servers() {
        let changed = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("bound"));
            let resolver = Resolver::of_system();
            let settings = UpstreamSettings {
                in_flight: 1,
                ..UpstreamSettings::for_tests(&[&url, "http://127.0.0.1:1"])
            };
            let limits = UpstreamLimits::new(&settings);
            let old = Upstream::new(Arc::new(settings), limits.clone(), Arc::default(), &resolver);
            let pool = &old.inner.pools[0];
            let connecting = connector::connect(&pool.server, &pool.addresses, None, Duration::from_secs(5));
            let (HttpConnection::Http1(connection), peer) = connecting.await.expect("it listens") else {
                panic!("the server speaks HTTP/1")
            };
            ActiveRequest::new(pool, ConnOrigin::now(peer)).finish(Some(connection));
            let _request = limits.in_flight.try_acquire().expect("the first one");
            for _ in 0..3 {
                pool.health.record_failure(&"refused");
            }

            let settings = UpstreamSettings {
                in_flight: 2,
                ..UpstreamSettings::for_tests(&["http://127.0.0.1:2", &url])
            };
            let limits = limits.with_settings(&settings);
            let new = old.with_settings(Arc::new(settings), limits, Arc::default(), &resolver);
            assert!(new.inner.pools[0].health.is_usable(), "another server");
            assert!(Rc::ptr_eq(&new.inner.pools[1], pool) && !pool.health.is_usable());
            assert!(
                new.inner.pools[1].take(Instant::now(), IdlePolicy::AnyOpen).is_some(),
                "the idle connection"
            );
            let in_flight = &new.inner.limits.in_flight;
            let _second = in_flight.try_acquire().expect("one of two");
            assert!(
                in_flight.try_acquire().is_none(),
                "the request under the old settings counts"
            );
        };
        LocalSet::new().run_until(changed).await;
    }
}
