//! Listeners on the control runtime: admin, probes, redirects. They forward nothing and share no resources with forwarded requests.

pub mod access;
pub mod admin;
mod connection_limit;
pub mod redirect;
pub mod reload;
pub mod revoke;
pub mod status;
pub mod token;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use authgate_dataplane::tls::control::{ControlTls, Security};
use authgate_http::log_throttle::LogThrottle;
use authgate_http::node::Node;
use authgate_http::server::closing::{LINGER_TIMEOUT, close};
use authgate_http::server::socket::{Listener, Stream};
use authgate_http::server::stage::{DRAIN_GRACE, Stage};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, warn};

use self::connection_limit::{ConnectionPermit, Evicted, EvictingLimit};

/// Timeout for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection of these listeners is there for a few questions. At this age it takes no more of them.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);
/// A client that takes nothing of a response for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout for the last response of a connection.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What one kind of control listener does.
trait Service: Send + Sync + 'static {
    /// The body of its responses. One whose length is not known may take long: it bounds its own time.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// The most connections of a listener.
    const CONNECTIONS: usize;

    /// TLS of new connections over TCP; `None` is cleartext. Connections over a socket file are always cleartext.
    fn tls(&self) -> Option<ControlTls> {
        None
    }

    /// Answers a request. A body that it does not read is dropped.
    fn answer(&self, head: Parts, body: Incoming, peer: Peer) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// The other end of a connection.
#[derive(Debug, Clone)]
struct Peer {
    node: Node,
    security: Security,
}

impl Peer {
    /// Whether it is on this machine.
    fn is_local(&self) -> bool {
        match self.node {
            Node::Unix => true,
            Node::Ip(ip) => ip.is_loopback(),
        }
    }

    fn is_unix(&self) -> bool {
        self.node == Node::Unix
    }
}

/// Serves a listener until its drain has begun and the existing connections have ended.
async fn serve<S: Service>(listener: Listener, mut stage: watch::Receiver<Stage>, service: S) {
    let (limit, service) = (EvictingLimit::new(S::CONNECTIONS), Arc::new(service));
    let mut failures = LogThrottle::default();
    let mut open = JoinSet::new();
    let mut draining = pin!(async move {
        let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = &mut draining => break,
        };
        match accepted {
            Ok(stream) => {
                let (permit, evicted) = limit.acquire().await;
                open.spawn(connection(stream, permit, evicted, Arc::clone(&service)));
            }
            Err(problem) => {
                if let Some(times) = failures.note() {
                    warn!(reason = %problem, times, "a listener failed to accept; trying again");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    match listener.close() {
        Ok(queued) => {
            for stream in queued.into_iter().filter_map(|parked| Stream::new(parked).ok()) {
                let (permit, evicted) = limit.acquire().await;
                open.spawn(connection(stream, permit, evicted, Arc::clone(&service)));
            }
        }
        Err(problem) => warn!(reason = %problem, "queued connections could not be accepted and are lost"),
    }
    // Connections that are silent for longer are closed.
    let _ = timeout(DRAIN_GRACE, async { while open.join_next().await.is_some() {} }).await;
}

/// Serves one connection. It keeps the permit until the socket is closed, so that lingering sockets count.
async fn connection<S: Service>(stream: Stream, permit: ConnectionPermit, evicted: Evicted, service: Arc<S>) {
    let served = async {
        if let Err(problem) = serve_stream(stream, &permit, &*service).await {
            debug!(reason = %problem, "a connection of a control listener ended with an error");
        }
    };
    tokio::select! {
        () = served => {}
        _ = evicted => {}
    }
}

async fn serve_stream<S: Service>(stream: Stream, permit: &ConnectionPermit, service: &S) -> io::Result<()> {
    let node = stream.peer()?;
    let tls = match (&stream, service.tls()) {
        (Stream::Tcp(tcp), Some(tls)) => timeout(HANDSHAKE_TIMEOUT, begins_handshake(tcp)).await??.then_some(tls),
        (Stream::Tcp(_) | Stream::Unix(_), _) => None,
    };
    match tls {
        // The service refuses requests without TLS where TLS is required, and says so.
        None => {
            let security = Security::Cleartext;
            serve_requests(stream, Peer { node, security }, permit, service).await
        }
        Some(tls) => {
            let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
            let security = tls.security().clone();
            serve_requests(stream, Peer { node, security }, permit, service).await
        }
    }
}

/// Whether the client begins with a TLS handshake (RFC 8446, section 5.1). Cleartext HTTP begins with a letter.
async fn begins_handshake(tcp: &TcpStream) -> io::Result<bool> {
    const HANDSHAKE: u8 = 22;
    let mut first = [HANDSHAKE];
    tcp.peek(&mut first).await?;
    Ok(first == [HANDSHAKE])
}

async fn serve_requests<I, S: Service>(io: I, peer: Peer, permit: &ConnectionPermit, service: &S) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let is_stream = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let answering = permit.begin_answer();
        let ((head, body), peer, is_stream) = (request.into_parts(), peer.clone(), &is_stream);
        Box::pin(async move {
            let _answering = answering;
            let response = service.answer(head, body, peer).await;
            let has_length = response.body().size_hint().exact().is_some();
            is_stream.store(!has_length, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        })
    });
    let mut io = TimeoutWriter::new(io);
    io.set_timeout(Some(WRITE_TIMEOUT));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(io)), service);
    let mut ended = timeout(MAX_CONNECTION_AGE, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
    if ended.is_err() {
        Pin::new(&mut connection).graceful_shutdown();
        let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
        ended = match is_stream.load(Ordering::Relaxed) {
            true => Ok(last.await),
            false => timeout(LAST_RESPONSE_TIMEOUT, last).await,
        };
    }
    ended?.map_err(io::Error::other)?;
    // An unread body must not reset the connection before the client has read the response.
    close(connection.into_parts().io.into_inner(), None, LINGER_TIMEOUT).await;
    Ok(())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/json", format!("{body}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    /// Answers with more than a pipe takes.
    struct Long;

    impl Service for Long {
        type Body = Full<Bytes>;

        const CONNECTIONS: usize = 1;

        async fn answer(&self, _: Parts, _: Incoming, _: Peer) -> Response<Full<Bytes>> {
            text(StatusCode::OK, vec![b'x'; 1024 * 1024])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_a_response_is_disconnected() {
        let (mut client, server) = tokio::io::duplex(1024);
        let request = client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        request.await.expect("it fits into the pipe");
        let (permit, _evicted) = EvictingLimit::new(1).acquire().await;
        let peer = Peer {
            node: Node::Unix,
            security: Security::Cleartext,
        };
        let began = Instant::now();
        let ended = serve_requests(server, peer, &permit, &Long).await;
        assert!(ended.is_err());
        assert_eq!(began.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
    }
}
