//! [`Handler`]: the program that answers the requests of a worker. The server knows nothing else of it.

use std::future::Future;
use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use rustls::ServerConnection;
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::limits::Limits;
use super::socket::Stream;
use crate::framing::grammar::ParseError;
use crate::framing::header_case::HeaderCase;
use crate::node::Node;
use crate::transfer::early_hints::EarlyHints;
use crate::transfer::incoming::IncomingBody;

/// Answers the requests of one worker. Its methods are called on the thread of the worker.
pub trait Handler: 'static {
    /// What the handler keeps for each connection.
    type Connection: 'static;
    /// Makes the TLS of new connections.
    type Tls: TlsAccept;
    /// The body of a response.
    type Body: Body<Data = Bytes> + Unpin + 'static;
    /// The handler's end of a connection that has switched protocols.
    type Tunnel: Tunnel;

    /// The limits for clients, at this moment.
    fn limits(&self) -> Limits;

    /// The TLS of new connections, at this moment. `None`: connections are cleartext.
    fn tls(&self) -> Option<Self::Tls>;

    /// Whether this node begins its connections with a PROXY protocol header.
    fn expects_proxy_header(&self, node: Node) -> bool;

    /// A connection that is ready for its first request.
    fn connected(&self, connected: Connected<'_, Self::Tls>) -> Self::Connection;

    /// Answers a request. It cannot fail: an error is a response too.
    fn handle(
        &self,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        connection: &Self::Connection,
    ) -> impl Future<Output = Reply<Self::Body, Self::Tunnel>>;

    /// The response to a request whose head could not be read. The connection closes after it.
    fn refuse(&self, connection: &Self::Connection, fault: HeadFault) -> Response<Bytes>;

    /// Counts an event.
    fn count(&self, event: ConnectionEvent);
}

/// Makes the TLS of new connections.
pub trait TlsAccept {
    /// Completes a handshake.
    ///
    /// # Errors
    /// No requests are served on the connection; the caller closes it.
    fn accept(&self, stream: Stream) -> impl Future<Output = Result<TlsAccepted, TlsEnded<Stream>>>;
}

/// A handshake after which the connection closes.
#[derive(Debug)]
pub enum TlsEnded<S> {
    /// The handshake has failed, and the alert was sent.
    Failed(io::Error, S),
    /// The handshake has answered a challenge of a certificate authority (RFC 8737).
    Challenge(S),
}

impl<S> From<(io::Error, S)> for TlsEnded<S> {
    fn from((problem, stream): (io::Error, S)) -> Self {
        Self::Failed(problem, stream)
    }
}

/// A connection whose TLS handshake is complete.
#[derive(Debug)]
pub struct TlsAccepted {
    /// The connection.
    pub stream: TlsStream<Stream>,
    /// When the certificate of the client expires. The connection takes no requests after that.
    pub expires: Option<UnixTime>,
}

/// A new connection, as the handler sees it.
#[derive(Debug, Clone, Copy)]
pub struct Connected<'c, T> {
    /// Where it comes from.
    pub origin: Origin,
    /// The TLS session, and what made it; `None` without TLS.
    pub tls: Option<(&'c ServerConnection, &'c T)>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The peer of the socket. No PROXY protocol header was expected.
    Peer(Node),
    /// A proxy has named the client in a PROXY protocol header.
    Named {
        /// The client.
        client: Node,
        /// The peer of the socket.
        proxy: Node,
    },
    /// The PROXY protocol header names no client: the load balancer itself connects, or it does not know the client.
    Unnamed {
        /// The peer of the socket.
        proxy: Node,
    },
}

impl Origin {
    /// The client, or else the peer of the socket.
    pub fn node(self) -> Node {
        match self {
            Self::Peer(node) | Self::Named { client: node, .. } | Self::Unnamed { proxy: node } => node,
        }
    }
}

/// The parts of an exchange beside the messages.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'e> {
    /// How the client wrote the field names of the request.
    pub header_case: &'e HeaderCase,
    /// Takes early hints for the client. The server reads it after each poll of [`Handler::handle`].
    pub hints: &'e EarlyHints,
}

/// The response of a handler.
#[derive(Debug)]
pub enum Reply<B, T> {
    /// A response.
    Response {
        /// The response.
        response: Response<B>,
        /// How to write its field names over HTTP/1.
        header_case: HeaderCase,
    },
    /// The head of a response that switches protocols. The connection (HTTP/1) or the stream (HTTP/2) then belongs to the tunnel.
    Switch {
        /// The head: 101 over HTTP/1, 2xx over HTTP/2.
        response: Response<()>,
        /// How to write its field names over HTTP/1.
        header_case: HeaderCase,
        /// The other end.
        tunnel: Box<T>,
    },
}

/// The handler's end of a connection that has switched protocols.
pub trait Tunnel: 'static {
    /// Exchanges bytes with the client until both directions have ended.
    fn run<I: AsyncRead + AsyncWrite + Unpin>(self, client: I) -> impl Future<Output = ()>;
}

/// Why the head of a request could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// It is invalid, or can be read in more than one way.
    Malformed(&'static str),
    /// Its target is longer than the limit.
    TargetTooLong,
    /// It has too many fields or too many bytes.
    TooLarge,
    /// It was not complete in time.
    TooSlow,
}

impl From<ParseError> for HeadFault {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed(what) => Self::Malformed(what),
            ParseError::TargetTooLong => Self::TargetTooLong,
            ParseError::HeadTooLarge => Self::TooLarge,
        }
    }
}

/// An event of a connection, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// A connection was accepted.
    Opened,
    /// It has ended.
    Closed,
    /// Its TLS handshake has ended.
    Handshake(Handshake),
    /// An HTTP/2 client exceeded the budget of frames that carry no data.
    Flooded,
}

/// How a TLS handshake has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With a new session.
    Full,
    /// With a session of an earlier connection.
    Resumed,
    /// With an error.
    Failed,
    /// By its timeout.
    TimedOut,
    /// With the answer to a challenge of a certificate authority.
    Challenge,
}
