//! One worker's pooled connections to an upstream's servers, and a request's way over one of them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until, timeout};

use super::body::{BodyFault, Progress, RequestBody, UpstreamBody};
use super::connector::{self, ConnectError};
use super::{Balance, HostMode, Server, Settings};
use crate::outbound::Outbound;

/// Connections kept for later, for each server and worker.
const MOST_IDLE: usize = 256;
/// A connection that was idle for longer is not used again.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// One worker's way to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    tls: Option<Arc<ClientConfig>>,
    servers: Box<[Pool]>,
    turn: Cell<usize>,
}

/// One server, and this worker's connections to it.
struct Pool {
    server: Server,
    host: HeaderValue,
    idle: RefCell<Vec<Idle>>,
    active: Cell<usize>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("server", &self.server)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
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
    /// The connection ended, or what came was no HTTP, before a response.
    #[error("no response: {0}")]
    NoResponse(hyper::Error),
    /// It answered with a protocol that nobody asked for.
    #[error("an unasked-for switch of protocols")]
    UnaskedUpgrade,
    /// No response in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// The request's own body did not come to its end.
    #[error(transparent)]
    RequestBody(BodyFault),
}

impl Upstream {
    /// An upstream without any connections yet. `tls` is for https servers.
    pub fn new(settings: Settings, tls: Option<Arc<ClientConfig>>) -> Self {
        let pool = |server: &Server| Pool {
            host: HeaderValue::try_from(host_value(server)).expect("an authority is visible ASCII"),
            server: server.clone(),
            idle: RefCell::new(Vec::new()),
            active: Cell::new(0),
        };
        let servers = settings.servers.iter().map(pool).collect();
        Self {
            inner: Rc::new(Inner {
                settings,
                tls,
                servers,
                turn: Cell::new(0),
            }),
        }
    }

    /// Its name in the file.
    pub fn name(&self) -> &Arc<str> {
        &self.inner.settings.name
    }

    /// Sends a request and waits for the head of its response, `response_timeout` at most where the route has its own.
    ///
    /// # Errors
    /// There is no response, or not in time.
    pub async fn forward(
        &self,
        request: Outbound<RequestBody>,
        response_timeout: Option<Duration>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut request = request.into_request();
        if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
            // Said in so many words: hyper would take a GET of unknown length for one without a body, and drop it.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        let progress = request.body().progress();
        let bound = response_timeout.unwrap_or(self.inner.settings.response_timeout);
        loop {
            let (mut lease, used_before) = self.connection().await?;
            if self.inner.settings.host == HostMode::Server {
                request.headers_mut().insert(HOST, lease.pool().host.clone());
            }
            let sent = lease.sender.try_send_request(request);
            let answer = tokio::select! {
                biased;
                answer = sent => answer,
                () = overdue(&progress, bound) => return Err(UpstreamError::ResponseTimeout),
            };
            match answer {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(UpstreamError::UnaskedUpgrade);
                }
                Ok(response) => return Ok(response.map(|incoming| UpstreamBody::new(incoming, lease))),
                // Not a byte of it was sent: the server had closed the connection while it was idle.
                Err(mut unsent) if used_before && unsent.message().is_some() => match unsent.take_message() {
                    Some(message) => request = message,
                    None => return Err(no_response(unsent.into_error())),
                },
                Err(failed) => return Err(no_response(failed.into_error())),
            }
        }
    }

    /// A connection that was used before, or a new one; of several servers, to one that can be reached.
    async fn connection(&self) -> Result<(Lease, bool), UpstreamError> {
        let first = self.choose();
        let count = self.inner.servers.len();
        let mut last = None;
        for at in (first..first + count).map(|at| at % count) {
            if let Some(sender) = self.inner.servers[at].take_idle() {
                return Ok((Lease::new(&self.inner, at, sender), true));
            }
            let server = &self.inner.servers[at].server;
            let connecting = connector::connect(server, self.inner.tls.as_ref());
            match timeout(self.inner.settings.connect_timeout, connecting).await {
                Ok(Ok(sender)) => return Ok((Lease::new(&self.inner, at, sender), false)),
                Ok(Err(source)) => {
                    last = Some(UpstreamError::Connect {
                        server: server.authority.to_string(),
                        source,
                    })
                }
                Err(_) => {
                    last = Some(UpstreamError::ConnectTimeout {
                        server: server.authority.to_string(),
                    })
                }
            }
        }
        Err(last.expect("an upstream has at least one server"))
    }

    fn choose(&self) -> usize {
        let servers = &self.inner.servers;
        if servers.len() == 1 {
            return 0;
        }
        match self.inner.settings.balance {
            Balance::RoundRobin => {
                let turn = self.inner.turn.get();
                self.inner.turn.set(turn.wrapping_add(1));
                turn % servers.len()
            }
            Balance::LeastRequest => {
                let one = fastrand::usize(..servers.len());
                let other = (one + fastrand::usize(1..servers.len())) % servers.len();
                if servers[other].active.get() < servers[one].active.get() {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// `Host` without the port that its scheme implies.
fn host_value(server: &Server) -> String {
    let implied = match server.transport {
        super::Transport::Http => 80,
        super::Transport::Https => 443,
    };
    match server.authority.port_u16() {
        Some(port) if port == implied => server.authority.host().to_owned(),
        _ => server.authority.to_string(),
    }
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

impl Pool {
    /// The one that was used last: the others may grow old and go.
    fn take_idle(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() > LONGEST_IDLE {
                idle.clear();
            } else if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put_idle(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE && !sender.is_closed() {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

/// A connection in use by one request; the server counts it as busy until the lease ends.
pub(super) struct Lease {
    inner: Rc<Inner>,
    at: usize,
    sender: SendRequest<RequestBody>,
    counted: Counted,
}

/// Keeps a server's count of requests true however a lease ends.
struct Counted {
    inner: Rc<Inner>,
    at: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let active = &self.inner.servers[self.at].active;
        active.set(active.get().saturating_sub(1));
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("server", &self.pool().server)
            .finish_non_exhaustive()
    }
}

impl Lease {
    fn new(inner: &Rc<Inner>, at: usize, sender: SendRequest<RequestBody>) -> Self {
        let active = &inner.servers[at].active;
        active.set(active.get() + 1);
        let counted = Counted {
            inner: Rc::clone(inner),
            at,
        };
        Self {
            inner: Rc::clone(inner),
            at,
            sender,
            counted,
        }
    }

    fn pool(&self) -> &Pool {
        &self.inner.servers[self.at]
    }

    /// The response has been read to its end: the connection may serve another request as soon as it is ready for one.
    pub(super) fn give_back(self) {
        let Self {
            inner,
            at,
            mut sender,
            counted,
        } = self;
        drop(counted);
        if sender.is_ready() {
            inner.servers[at].put_idle(sender);
        } else if !sender.is_closed() {
            tokio::task::spawn_local(async move {
                if sender.ready().await.is_ok() {
                    inner.servers[at].put_idle(sender);
                }
            });
        }
    }
}
