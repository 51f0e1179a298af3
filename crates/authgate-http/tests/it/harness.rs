//! [`Server`]: a worker with the handler [`Echo`] on a loopback port. [`RawClient`]: a client that writes and reads bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use authgate_http::framing::header_case::HeaderCase;
use authgate_http::node::Node;
use authgate_http::server::address::Address;
use authgate_http::server::handler::{
    Connected, ConnectionEvent, Exchange, Handler, HeadFault, Reply, TlsAccept, TlsAccepted, TlsEnded, Tunnel,
};
use authgate_http::server::inherited::InheritedSockets;
use authgate_http::server::limits::Limits;
use authgate_http::server::listen;
use authgate_http::server::socket::Stream;
use authgate_http::server::socket_file::SocketAccess;
use authgate_http::server::stage::Stage;
use authgate_http::server::worker::{Worker, WorkerPool, run_on_this_thread};
use authgate_http::transfer::incoming::IncomingBody;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LINK, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// The handler sets this date, so that whole responses can be compared.
pub const TEST_DATE: &str = "Tue, 01 Dec 2026 12:00:00 GMT";
const TIMEOUT: Duration = Duration::from_secs(20);
/// The grace of a drain is a quarter of it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends request bodies back. `/hints`: with early hints before the response. `/ignored`: drops the body. A request for an upgrade, or a
/// CONNECT, gets a tunnel that sends its bytes back.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type Connection = ();
    type Tls = NoTls;
    type Body = Full<Bytes>;
    type Tunnel = EchoTunnel;

    fn limits(&self) -> Limits {
        Limits {
            connections: 64,
            header_bytes: 1024,
            headers: 16,
            tls_handshake_timeout: TIMEOUT,
            header_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            body_read_timeout: TIMEOUT,
            h2_streams: 16,
        }
    }

    fn tls(&self) -> Option<NoTls> {
        None
    }

    fn expects_proxy_header(&self, _: Node) -> bool {
        false
    }

    fn connected(&self, _: Connected<'_, NoTls>) {}

    async fn handle(
        &self,
        request: Request<IncomingBody>,
        exchange: Exchange<'_>,
        (): &(),
    ) -> Reply<Full<Bytes>, EchoTunnel> {
        let header_case = HeaderCase::default();
        if let Some(response) = switch(&request) {
            return Reply::Switch {
                response,
                header_case,
                tunnel: Box::new(EchoTunnel),
            };
        }
        let path = request.uri().path().to_owned();
        if path == "/hints" {
            let link = HeaderValue::from_static("</style.css>");
            exchange.hints.push(HeaderMap::from_iter([(LINK, link)]));
        }
        let response = match path.as_str() {
            "/ignored" => respond(StatusCode::OK, "ignored".into()),
            _ => match request.into_body().collect().await {
                Ok(body) => respond(StatusCode::OK, body.to_bytes()),
                Err(_) => respond(StatusCode::BAD_REQUEST, "incomplete".into()),
            },
        };
        Reply::Response {
            response: response.map(Full::new),
            header_case,
        }
    }

    fn refuse(&self, (): &(), fault: HeadFault) -> Response<Bytes> {
        respond(StatusCode::BAD_REQUEST, format!("{fault:?}").into())
    }

    fn count(&self, _: ConnectionEvent) {}
}

fn respond(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let response = Response::builder().status(status).header(DATE, TEST_DATE);
    response.header(CONTENT_TYPE, "text/plain").body(body).unwrap()
}

/// The head that switches protocols, if the request asks for that.
fn switch(request: &Request<IncomingBody>) -> Option<Response<()>> {
    let response = Response::builder().header(DATE, TEST_DATE);
    if request.version() == Version::HTTP_2 && *request.method() == Method::CONNECT {
        return response.body(()).ok();
    }
    let protocol = request.headers().get(UPGRADE)?;
    let response = response.status(StatusCode::SWITCHING_PROTOCOLS);
    response
        .header("connection", "upgrade")
        .header(UPGRADE, protocol)
        .body(())
        .ok()
}

/// Sends each byte back until the client closes its direction.
struct EchoTunnel;

impl Tunnel for EchoTunnel {
    async fn run<I: AsyncRead + AsyncWrite + Unpin>(self, mut client: I) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = client.read(&mut buffer).await {
            client.write_all(&buffer[..count]).await.unwrap();
            client.flush().await.unwrap();
        }
        let _ = client.shutdown().await;
    }
}

enum NoTls {}

impl TlsAccept for NoTls {
    async fn accept(&self, _: Stream) -> Result<TlsAccepted, TlsEnded<Stream>> {
        match *self {}
    }
}

/// A worker on a thread of its own. Dropping it cuts its connections.
pub struct Server {
    pub address: SocketAddr,
    stage: watch::Sender<Stage>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    pub fn start() -> Self {
        let any = Address::Tcp(([127, 0, 0, 1], 0).into());
        let open = listen::open(&any, 1, SocketAccess::OwnerAndGroup, &InheritedSockets::default()).unwrap();
        let address = open.address.tcp().unwrap();
        let (stage, receiver) = watch::channel(Stage::Serving);
        let (common, mut inboxes) = WorkerPool::new(1, 64, DRAIN_TIMEOUT, receiver);
        let inbox = inboxes.remove(0);
        let listeners = open.listeners.into_iter().map(Into::into).collect();
        let thread =
            std::thread::spawn(move || run_on_this_thread(|| Worker::new(0, common, Echo).run(listeners, inbox)));
        Self {
            address,
            stage,
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> RawClient {
        RawClient::connect(self.address)
    }

    /// Begins to drain.
    pub fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Waits until the worker has ended by itself.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Aborting);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A client that writes and reads bytes.
pub struct RawClient(TcpStream);

impl RawClient {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads exactly this many bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads as many bytes as expected, and compares.
    #[track_caller]
    pub fn expect(&mut self, expected: &str) {
        let mut received = vec![0; expected.len()];
        let mut count = 0;
        while count < received.len() {
            match self.0.read(&mut received[count..]).unwrap() {
                0 => break,
                more => count += more,
            }
        }
        assert_eq!(String::from_utf8_lossy(&received[..count]), expected);
    }

    /// The server has closed the connection, and sent nothing more.
    #[track_caller]
    pub fn expect_end(mut self) {
        let mut remaining = Vec::new();
        self.0.read_to_end(&mut remaining).unwrap();
        assert_eq!(String::from_utf8_lossy(&remaining), "");
    }
}

/// The bytes of an echoed response on a connection that stays open.
pub fn echoed(body: &str) -> String {
    response("200 OK", body, "")
}

/// The bytes of the last response of a connection.
pub fn last(status: &str, body: &str) -> String {
    response(status, body, "Connection: close\r\n")
}

fn response(status: &str, body: &str, connection: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ndate: {TEST_DATE}\r\ncontent-type: text/plain\r\nContent-Length: {length}\r\n{connection}\r\n{body}"
    )
}
