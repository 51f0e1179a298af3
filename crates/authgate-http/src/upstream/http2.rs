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

use super::body::{BodyProgress, RequestBody};
use super::body_error::RequestBodyError;
use super::content_type::is_grpc;
use super::http1::ExchangeError;
use super::settings::Transport;

/// HTTP/2 carries the host in the target, and has no framing fields (RFC 9113, sections 8.2.2 and 8.3.1).
pub(super) fn to_http2(head: &Parts, body: RequestBody, transport: &Transport) -> Request<RequestBody> {
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
    response_timeout: Duration,
) -> Result<Response<Incoming>, ExchangeError> {
    let progress = request.body().progress();
    let mut failed = tokio::select! {
        biased;
        answer = sender.try_send_request(request) => match answer {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        },
        () = until_overdue(&progress, response_timeout) => return Err(ExchangeError::Timeout),
    };
    let unsent = failed.take_message();
    let error = failed.into_error();
    let body_error = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<RequestBodyError>());
    Err(match (unsent, body_error) {
        (Some(unsent), _) => ExchangeError::Unsent(Box::new(unsent.into_body()), io::Error::other(error)),
        (None, Some(body_error)) => ExchangeError::RequestBody(*body_error),
        (None, None) if closed_early(&error) => ExchangeError::ClosedEarly(io::Error::other(error)),
        (None, None) => ExchangeError::ConnectionFailed(io::Error::other(error)),
    })
}

/// Whether the connection ended before the first byte of a response.
fn closed_early(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let reset = io.is_some_and(|io| {
        matches!(
            io.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    });
    reset || error.is_incomplete_message() || error.is_canceled()
}

/// Ready when no byte of the request body has passed for `response_timeout`.
async fn until_overdue(progress: &BodyProgress, response_timeout: Duration) {
    loop {
        let end = progress.last_activity() + response_timeout;
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
    fn the_host_moves_to_the_target() {
        let mut request = Request::new(());
        *request.method_mut() = Method::DELETE;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static("/a%2Fb?c=d");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("Api.example:8443"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        let (head, ()) = request.into_parts();

        let there = to_http2(&head, RequestBody::empty(), &Transport::Https);
        assert_eq!(there.uri().to_string(), "https://Api.example:8443/a%2Fb?c=d");
        assert_eq!((there.version(), there.headers().get(HOST)), (Version::HTTP_2, None));
        assert_eq!(
            (there.method(), there.headers()[TE].as_bytes()),
            (&Method::DELETE, &b"trailers"[..])
        );
    }
}
