//! [`FetchError`]: why there is no document.

use std::error::Error as StdError;

use authgate_core::label_value::LabelValue;
use authgate_core::printable::Printable;
use http::{HeaderMap, StatusCode, header};

use super::MAX_BODY;
use crate::labels;

/// Why there is no document. The message says what happened, and what to do where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There is no connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// There is no connection by way of the proxy that `HTTPS_PROXY` names.
    #[error("no connection through the proxy {proxy}: {cause}")]
    Proxy {
        /// The proxy, without its credentials.
        proxy: String,
        /// What happened.
        cause: String,
    },
    /// TLS has failed, most often because the certificate is not trusted.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The deadline has passed.
    #[error("no complete response in time")]
    Timeout,
    /// The connection was lost before the end of the response.
    #[error("the connection was lost before the end of the response: {0}")]
    Cut(String),
    /// The response is not HTTP.
    #[error("the response is not valid HTTP: {0}")]
    Protocol(String),
    /// The response redirects to another URL.
    #[error("the response is a redirect ({status}) to {location}, and redirects are not followed; write the final URL")]
    Redirect {
        /// A 3xx status.
        status: StatusCode,
        /// Where it redirects to.
        location: String,
    },
    /// The status of the response is neither 200 nor a redirect.
    #[error("the response has status {0}")]
    Status(StatusCode),
    /// The body is compressed.
    #[error("the body of the response is compressed, which was not asked for")]
    Compressed,
    /// The body is too long.
    #[error("the body of the response is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// The runtime of the client has not started, or has ended.
    #[error("the gateway is shutting down")]
    ShutDown,
}

impl FetchError {
    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Connect(_) => &labels::FETCH_CONNECT,
            Self::Proxy { .. } => &labels::FETCH_PROXY,
            Self::Tls(_) => &labels::FETCH_TLS,
            Self::Timeout => &labels::FETCH_TIMEOUT,
            Self::Cut(_) => &labels::FETCH_CUT,
            Self::Protocol(_) => &labels::FETCH_PROTOCOL,
            Self::Redirect { .. } => &labels::FETCH_REDIRECT,
            Self::Status(_) => &labels::FETCH_STATUS,
            Self::Compressed => &labels::FETCH_COMPRESSED,
            Self::TooLarge => &labels::FETCH_TOO_LARGE,
            Self::ShutDown => &labels::FETCH_SHUT_DOWN,
        }
    }

    /// The error for a request that the client could not complete. `proxy`: the proxy that it used.
    pub(super) fn of_request(error: &hyper_util::client::legacy::Error, proxy: Option<String>) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::of_tls(tls);
        }
        let cause = causes(error);
        match (error.is_connect(), proxy) {
            (true, Some(proxy)) => Self::Proxy { proxy, cause },
            (true, None) => Self::Connect(cause),
            (false, _) if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) => Self::Protocol(cause),
            (false, _) => Self::Cut(cause),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{BadSignature, UnknownIssuer};
        let remedy = match error {
            rustls::Error::InvalidCertificate(BadSignature | UnknownIssuer) => {
                "; if the server is the right one, name the authority that signed its certificate in `ca`"
            }
            _ => "",
        };
        Self::Tls(format!("{error}{remedy}"))
    }

    /// The error for a body that ended early.
    pub(super) fn of_body(error: &(dyn StdError + 'static)) -> Self {
        let cause = error.to_string();
        if find::<http_body_util::LengthLimitError>(error).is_some() {
            Self::TooLarge
        } else if let Some(tls) = find::<rustls::Error>(error) {
            Self::of_tls(tls)
        } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
            Self::Protocol(cause)
        } else {
            Self::Cut(cause)
        }
    }

    /// The error for a response that has no document, by its head.
    pub(super) fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status.is_redirection() {
            let location = headers.get(header::LOCATION);
            let location = location.map_or_else(|| "nowhere".to_owned(), |value| brief(value.as_bytes()));
            return Some(Self::Redirect { status, location });
        }
        if status != StatusCode::OK {
            return Some(Self::Status(status));
        }
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        let is_plain = encodings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
        (!is_plain).then_some(Self::Compressed)
    }

    /// Whether the connection was lost, so that the same request may succeed over another one.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Cut(_))
    }
}

/// The start of a text that a server has sent, on one line.
pub(super) fn brief(text: &[u8]) -> String {
    const MAX_BYTES: usize = 200;
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_BYTES)]);
    Printable(&text).to_string()
}

/// The first error of this type among an error and its causes. `io::Error` hides the error that it was made from: its `source` is the
/// source of that one.
fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The messages of the causes of an error, from the outermost to the innermost.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    let mut messages: Vec<String> = causes.map(ToString::to_string).collect();
    messages.dedup();
    match messages.is_empty() {
        true => error.to_string(),
        false => messages.join(": "),
    }
}
