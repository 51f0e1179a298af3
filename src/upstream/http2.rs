//! HTTP/2 to a server: translates requests, and sends them over a shared connection.

use std::io;
use std::time::Duration;

use http::header::{HOST, TE};
use http::request::Parts;
use http::uri::{self, Authority, Scheme, Uri};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::time::{Instant, sleep_until};

use super::Transport;
use super::body::{BodyFault, Progress, RequestBody};
use super::client::is_grpc;
use super::http1::Failure;

/// HTTP/2 carries the host in the target, and has no framing fields (RFC 9113, sections 8.2.2 and 8.3.1).
pub(super) fn translated(head: &Parts, body: RequestBody, transport: &Transport) -> Request<RequestBody> {
    let mut headers = head.headers.clone();
    if is_grpc(head.version, &headers) {
        // The field with which gRPC announces that it reads trailers (gRPC over HTTP2, "Requests").
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let host = headers.remove(HOST);
    let mut target = uri::Parts::default();
    target.path_and_query = head.uri.path_and_query().cloned();
    target.scheme = Some(match transport {
        Transport::Https => Scheme::HTTPS,
        Transport::Http | Transport::H2c | Transport::Unix(_) => Scheme::HTTP,
    });
    target.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_else(|_| head.uri.clone());
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

/// Sends a request over a shared connection.
pub(super) async fn send(
    mut sender: http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
    late: Duration,
) -> Result<Response<Incoming>, Failure> {
    let progress = request.body().progress();
    let mut failed = tokio::select! {
        biased;
        answer = sender.try_send_request(request) => match answer {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        },
        () = overdue(&progress, late) => return Err(Failure::Late),
    };
    let unsent = failed.take_message();
    let error = failed.into_error();
    let fault = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<BodyFault>());
    Err(match (unsent, fault) {
        (Some(unsent), _) => Failure::Unsent(Box::new(unsent.into_body()), io::Error::other(error)),
        (None, Some(fault)) => Failure::RequestBody(*fault),
        (None, None) if ended_early(&error) => Failure::EndedEarly(io::Error::other(error)),
        (None, None) => Failure::Broken(io::Error::other(error)),
    })
}

/// Whether the connection ended before the first byte of a response.
fn ended_early(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let reset = io.is_some_and(|io| {
        matches!(
            io.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    });
    reset || error.is_incomplete_message() || error.is_canceled()
}

/// Ready when no byte of the request body has passed for `bound`.
async fn overdue(progress: &Progress, bound: Duration) {
    loop {
        let end = progress.last() + bound;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn over_http2_the_host_is_in_the_target() {
        let mut request = Request::new(());
        *request.method_mut() = Method::DELETE;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static("/a%2Fb?c=d");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("Api.example:8443"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        let (head, ()) = request.into_parts();

        let there = translated(&head, RequestBody::none(), &Transport::Https);
        assert_eq!(there.uri().to_string(), "https://Api.example:8443/a%2Fb?c=d");
        assert_eq!((there.version(), there.headers().get(HOST)), (Version::HTTP_2, None));
        assert_eq!(
            (there.method(), there.headers()[TE].as_bytes()),
            (&Method::DELETE, &b"trailers"[..])
        );
    }
}
