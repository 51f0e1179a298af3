//! HTTP/2 for tests: hyper's client on a runtime of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::client::{Call, Reply};
use super::gate::Gate;
use super::wire::{Body, Head};

/// One connection that speaks HTTP/2.
pub struct H2 {
    pub runtime: Runtime,
    pub sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl H2 {
    /// By ALPN over TLS, with prior knowledge in the clear.
    pub fn connect(gate: &Gate) -> Self {
        let tls = gate.has_tls().then(|| gate.pki().client(&["h2"], rustls::ALL_VERSIONS));
        Self::over(gate.address, tls)
    }

    /// In the clear.
    pub fn plain(address: SocketAddr) -> Self {
        Self::over(address, None)
    }

    /// Over TLS, as that client.
    pub fn connect_as(gate: &Gate, client: rustls::ClientConfig) -> Self {
        Self::over(gate.address, Some(client))
    }

    fn over(address: SocketAddr, tls: Option<rustls::ClientConfig>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let sender = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address)
                .await
                .expect("the gateway listens");
            let Some(client) = tls else { return start(tcp).await };
            let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
            let tls = TlsConnector::from(Arc::new(client))
                .connect(name, tcp)
                .await
                .expect("a handshake");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            start(tls).await
        });
        Self {
            runtime,
            sender,
            scheme,
        }
    }

    pub fn request(&self, call: &Call) -> Request<Full<Bytes>> {
        let uri = format!("{}://{}{}", self.scheme, call.host, call.target);
        let mut request = Request::builder().method(call.method.as_str()).uri(uri);
        for (name, value) in &call.fields {
            request = request.header(name, value.as_slice());
        }
        request.body(Full::new(call.body.clone().into())).expect("a request")
    }

    /// Sends a request and reads its answer whole.
    pub fn call(&mut self, call: &Call) -> Reply {
        self.try_call(call).expect("an answer")
    }

    /// Sends a request and reads its answer whole. `None`: the server has sent GOAWAY and did not process it, so a client sends it again over
    /// another connection (RFC 9113, section 6.8).
    pub fn call_unless_goaway(&mut self, call: &Call) -> Result<Option<Reply>, String> {
        let request = self.request(call);
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            if sender.ready().await.is_err() {
                return Ok(None);
            }
            match sender.send_request(request).await {
                Ok(response) => Ok(Some(read(response).await)),
                Err(error) if was_not_processed(&error) => Ok(None),
                Err(error) => Err(format!("{error:?}")),
            }
        })
    }

    /// The same; nothing if the stream ends before there is an answer.
    pub fn try_call(&mut self, call: &Call) -> Option<Reply> {
        let request = self.request(call);
        let sent = self.sender.send_request(request);
        self.runtime.block_on(async {
            let reply = read(sent.await.ok()?).await;
            reply.check(call.echoes);
            Some(reply)
        })
    }
}

async fn start<I>(io: I) -> SendRequest<Full<Bytes>>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Whether the server has not processed this request, so that a client sends it again over another connection (RFC 9113, section 6.8). hyper
/// may take a request while a GOAWAY arrives. Then it does not send it, and reports the GOAWAY.
pub fn was_not_processed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_goaway = cause
        .is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR));
    error.is_canceled() || is_goaway
}

/// Reads an answer to its end, whole or cut.
pub async fn read(response: Response<Incoming>) -> Reply {
    let (parts, mut incoming) = response.into_parts();
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let fields: Vec<_> = parts.headers.iter().map(field).collect();
    let raw = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect::<String>()
        .into_bytes();
    let mut body = Body {
        complete: true,
        ..Body::default()
    };
    while let Some(frame) = incoming.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => body.data.extend_from_slice(&data),
            Ok(Err(trailers)) => body
                .trailers
                .extend_from_slice(format!("{:?}", trailers.trailers_ref()).as_bytes()),
            Err(_) => {
                body.complete = false;
                break;
            }
        }
    }
    let head = Head {
        raw,
        first: String::new(),
        fields,
    };
    Reply {
        status: parts.status.as_u16(),
        head,
        body,
        interim: Vec::new(),
    }
}
