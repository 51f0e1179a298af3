//! Listeners on the control runtime: admin, probes, redirects. They forward nothing and share no resources with forwarded requests.

pub mod admin;
mod connection_limit;
pub mod redirect;

use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use authgate_http::log_throttle::LogThrottle;
use authgate_http::server::closing::{DRAIN_GRACE, LINGER_TIMEOUT, close};
use authgate_http::server::socket::close_listener;
use authgate_http::server::stage::Stage;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::connection_limit::{ConnectionPermit, Evicted, EvictingLimit};

/// Timeout for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection of these listeners is there for a few questions.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Answers requests by their heads only, with at most this many connections. Without `stage`, runs until the process ends; with it, until a
/// drain has begun and the existing connections have ended.
pub async fn serve<A>(listener: TcpListener, connections: usize, stage: Option<watch::Receiver<Stage>>, answer: A)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let (limit, answer) = (EvictingLimit::new(connections), Arc::new(answer));
    let mut failures = LogThrottle::default();
    let mut open = JoinSet::new();
    let mut draining = pin!(async move {
        match stage {
            Some(mut stage) => {
                let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
            }
            None => pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = &mut draining => break,
        };
        match accepted {
            Ok((tcp, _)) => {
                let (permit, evicted) = limit.acquire().await;
                open.spawn(connection(tcp, permit, evicted, Arc::clone(&answer)));
            }
            Err(problem) => {
                if let Some(times) = failures.note() {
                    warn!(reason = %problem, times, "a listener failed to accept; trying again");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    match close_listener(listener) {
        Ok(queued) => {
            for tcp in queued {
                let (permit, evicted) = limit.acquire().await;
                open.spawn(connection(tcp, permit, evicted, Arc::clone(&answer)));
            }
        }
        Err(problem) => warn!(reason = %problem, "queued connections could not be accepted and are lost"),
    }
    // Connections that are silent for longer are closed.
    let _ = timeout(DRAIN_GRACE, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection<A>(tcp: TcpStream, permit: ConnectionPermit, evicted: Evicted, answer: Arc<A>)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    // Keep the permit until the socket is closed, so that lingering sockets count.
    let service = service_fn(|request| {
        permit.touch();
        ready(Ok::<_, Infallible>(answer(&request)))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(tcp), service);
    let served = async move {
        match timeout(MAX_CONNECTION_AGE, poll_fn(|cx| connection.poll_without_shutdown(cx))).await {
            // An unread body must not reset the connection before the client has read the response.
            Ok(Ok(())) => close(connection.into_parts().io.into_inner(), None, LINGER_TIMEOUT).await,
            Ok(Err(problem)) => debug!(reason = %problem, "a connection of a control listener ended with an error"),
            Err(_) => {}
        }
    };
    tokio::select! {
        () = served => {}
        _ = evicted => {}
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
