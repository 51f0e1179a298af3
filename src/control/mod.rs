//! Listeners beside the workers, on the control runtime: nothing here forwards anything, or shares anything with requests that do.

pub mod admin;
pub mod redirect;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::telemetry::seldom::Seldom;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection of these listeners is there for a few questions.
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);
const LONGEST_HEAD: usize = 16 * 1024;

/// Answers requests from their heads alone until the process ends, with so many connections at once.
pub async fn serve(
    listener: TcpListener,
    connections: usize,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
) {
    let (slots, answer) = (Arc::new(Semaphore::new(connections)), Arc::new(answer));
    let mut failures = Seldom::default();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(problem) => {
                if let Some(times) = failures.note() {
                    warn!(reason = %problem, times, "a listener failed to accept; trying again");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(LONGEST_HEAD)
                .serve_connection(TokioIo::new(tcp), service);
            if let Ok(Err(problem)) = timeout(LONGEST_CONNECTION, connection).await {
                debug!(reason = %problem, "a connection beside the workers ended");
            }
            drop(slot);
        });
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
