//! Long-lived streams of all kinds, from an application to a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client, server};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{interval, timeout};

use super::client::{Call, Conn, get};
use super::h2::H2;
use super::upstream::{Exchange, MARK, Next, RecordingUpstream};
use super::{Gate, wait_until};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two events of an application.
const PAUSE: Duration = Duration::from_millis(10);

/// An application with WebSockets (`…/ws`) and server-sent events (`…/events`) over HTTP/1.1, and one with gRPC (`…/talk`, `…/upload`).
pub struct Application {
    pub http: RecordingUpstream,
    pub grpc: GrpcServer,
    ended: Arc<AtomicUsize>,
}

impl Application {
    pub fn start() -> Self {
        let http = RecordingUpstream::start();
        let ended = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ended);
        http.answers(move |exchange| {
            let path = exchange.head.first.clone();
            let next = match () {
                () if path.contains("/ws") => echo(exchange),
                () if path.contains("/events") => send_events(exchange),
                () => return exchange.ok(),
            };
            counted.fetch_add(1, Ordering::SeqCst);
            next
        });
        Self {
            grpc: GrpcServer::start(),
            http,
            ended,
        }
    }

    /// Waits until the application has seen the end of this many streams.
    pub fn wait_until_ended(&self, streams: usize) {
        let ended = || self.ended.load(Ordering::SeqCst) + self.grpc.ended();
        wait_until("the application sees the ends", PATIENCE, || ended() == streams);
    }
}

fn echo(mut exchange: Exchange<'_>) -> Next {
    exchange.switch("");
    while let Ok(bytes) = exchange.wire.some()
        && !bytes.is_empty()
        && exchange.write(&bytes)
    {}
    Next::Close
}

/// Sends events until the gateway has closed the connection.
pub fn send_events(mut exchange: Exchange<'_>) -> Next {
    let head = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut open = exchange.write(format!("HTTP/1.1 200 OK\r\n{MARK}: 1\r\n{head}"));
    while open {
        thread::sleep(PAUSE);
        open = exchange.write("c\r\ndata: tick\n\n\r\n");
    }
    Next::Close
}

/// A gRPC server that reads what its clients send. `…/talk` sends messages at the same time, `…/upload` answers nothing.
pub struct GrpcServer {
    url: String,
    received: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl GrpcServer {
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("h2c://{}", listener.local_addr().expect("bound"));
        let (received, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, over) = (Arc::clone(&received), Arc::clone(&ended));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (received, ended) = (Arc::clone(&counted), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut connection = server::handshake(tcp).await.expect("HTTP/2");
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (received, ended) = (Arc::clone(&received), Arc::clone(&ended));
                        tokio::spawn(async move {
                            talk(request, respond, &received).await;
                            ended.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        Self {
            url,
            received,
            ended,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// How many bytes it has received.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Returns when the client has ended or reset the stream.
async fn talk(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>, received: &AtomicUsize) {
    let head = Response::builder()
        .header("x-upstream", "1")
        .header("content-type", "application/grpc");
    let mut answer = request.uri().path().ends_with("/talk").then(|| {
        let head = head.body(()).expect("a head");
        respond.send_response(head, false).expect("an open stream")
    });
    let mut body = request.into_body();
    let mut ticks = interval(PAUSE);
    loop {
        tokio::select! {
            data = body.data() => match data {
                Some(Ok(data)) => {
                    received.fetch_add(data.len(), Ordering::SeqCst);
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Some(Err(_)) | None => return,
            },
            _ = ticks.tick(), if answer.is_some() => {
                let answer = answer.as_mut().expect("it is set");
                if answer.send_data(Bytes::from_static(b"\0\0\0\0\x04tick"), false).is_err() {
                    return;
                }
            }
        }
    }
}

/// The client's side of a request over HTTP/2 whose windows are its own.
pub struct Http2Call {
    runtime: Runtime,
    response: Option<client::ResponseFuture>,
    body: Option<RecvStream>,
    out: SendStream<Bytes>,
}

impl Http2Call {
    /// A gRPC call whose request does not end. `window`: how much of the response the gateway may send before the client has read it.
    pub fn grpc(gate: &Gate, target: &str, authorization: &str, window: u32) -> Self {
        let request = Request::post(format!("http://localhost{target}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", authorization);
        Self::open(gate, request.body(()).expect("a request"), window)
    }

    /// A request for events.
    pub fn events(gate: &Gate, target: &str, authorization: &str, window: u32) -> Self {
        let request = Request::get(format!("http://localhost{target}")).header("authorization", authorization);
        Self::open(gate, request.body(()).expect("a request"), window)
    }

    fn open(gate: &Gate, request: Request<()>, window: u32) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let ends = request.method() == http::Method::GET;
        let (response, out) = runtime.block_on(async {
            let tcp = TcpStream::connect(gate.address).await.expect("the gateway listens");
            let mut builder = client::Builder::new();
            let (sender, connection) = builder
                .initial_window_size(window)
                // A test does not read all the time, and each event is a small frame.
                .data_frame_budget(1 << 24)
                .handshake(tcp)
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            let mut sender = sender.ready().await.expect("HTTP/2");
            sender.send_request(request, ends).expect("a request")
        });
        Self {
            runtime,
            response: Some(response),
            body: None,
            out,
        }
    }

    pub fn send(&mut self, bytes: &'static [u8]) {
        // It fails if the gateway has reset the stream.
        let _ = self.out.send_data(Bytes::from_static(bytes), false);
    }

    /// Waits for the head of the response.
    pub fn head(&mut self) -> HeaderMap {
        let response = self.response.take().expect("the first call");
        let response = self.runtime.block_on(within(response)).expect("an answer");
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        self.body = Some(body);
        head.headers
    }

    fn message(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut().expect("a head");
        let data = self.runtime.block_on(within(body.data()))?.expect("no reset");
        let _ = body.flow_control().release_capacity(data.len());
        Some(data)
    }

    fn trailers(&mut self) -> HeaderMap {
        let body = self.body.as_mut().expect("a head");
        let trailers = self.runtime.block_on(within(body.trailers()));
        trailers.expect("no reset").expect("trailers")
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// More than an application sends before its stream ends.
const MOST_FRAMES: usize = 2000;
const MOST_BYTES: usize = 30 * MOST_FRAMES;
/// A masked text frame.
const FRAME: &[u8] = b"\x81\x84\x01\x02\x03\x04ping";
/// An unmasked Close frame with 1008.
pub const CLOSE_1008: &[u8] = &[0x88, 2, 0x03, 0xf0];

/// The client's side of an open stream.
pub enum Stream {
    WebSocketHttp1(Conn),
    WebSocketHttp2(H2, TokioIo<Upgraded>),
    EventsHttp1(Conn),
    EventsHttp2(H2, Incoming),
    Grpc(Http2Call),
}

impl Stream {
    /// One of each kind below this path.
    pub fn open_all(gate: &Gate, path: &str, authorization: &str) -> Vec<Self> {
        let (ws, events) = (format!("{path}/ws"), format!("{path}/events"));
        let mut call = Http2Call::grpc(gate, &format!("{path}/talk"), authorization, 65_535);
        assert_eq!(call.head()["content-type"], "application/grpc");
        vec![
            Self::websocket_http1(gate, &ws, authorization),
            Self::websocket_http2(gate, &ws, authorization),
            Self::events_http1(gate, &events, authorization),
            Self::events_http2(gate, &events, authorization),
            Self::Grpc(call),
        ]
    }

    pub fn websocket_http1(gate: &Gate, target: &str, authorization: &str) -> Self {
        let call = with(get(target), authorization)
            .header("Sec-WebSocket-Version", "13")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut conn = gate.connect();
        conn.send(call.bytes());
        let head = conn.wire.head().expect("in time").expect("an answer");
        assert!(head.first.starts_with("HTTP/1.1 101 "), "{}", head.first);
        Self::WebSocketHttp1(conn)
    }

    pub fn websocket_http2(gate: &Gate, target: &str, authorization: &str) -> Self {
        let mut h2 = H2::connect(gate);
        // An answer shows that the gateway has sent its settings, which allow such requests.
        h2.call(&get("/nowhere"));
        let call = with(get(target), authorization).header("Sec-WebSocket-Version", "13");
        let mut request = h2.request(&call);
        *request.method_mut() = http::Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let sent = h2.sender.send_request(request);
        let upgraded = h2.runtime.block_on(async {
            let response = within(sent).await.expect("an answer");
            assert_eq!(response.status(), 200);
            hyper::upgrade::on(response).await.expect("a WebSocket")
        });
        Self::WebSocketHttp2(h2, TokioIo::new(upgraded))
    }

    pub fn events_http1(gate: &Gate, target: &str, authorization: &str) -> Self {
        let mut conn = gate.connect();
        conn.send(with(get(target), authorization).bytes());
        let head = conn.wire.head().expect("in time").expect("an answer");
        assert!(head.first.starts_with("HTTP/1.1 200 "), "{}", head.first);
        Self::EventsHttp1(conn)
    }

    pub fn events_http2(gate: &Gate, target: &str, authorization: &str) -> Self {
        let mut h2 = H2::connect(gate);
        let request = h2.request(&with(get(target), authorization));
        let sent = h2.sender.send_request(request);
        let response = h2.runtime.block_on(within(sent)).expect("an answer");
        assert_eq!(response.status(), 200);
        Self::EventsHttp2(h2, response.into_body())
    }

    /// Sends bytes, if it is a WebSocket.
    pub fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::WebSocketHttp1(conn) => drop(conn.send(bytes)),
            Self::WebSocketHttp2(h2, io) => h2.runtime.block_on(within(io.write_all(bytes))).expect("it is open"),
            Self::EventsHttp1(_) | Self::EventsHttp2(..) | Self::Grpc(_) => panic!("no WebSocket"),
        }
    }

    /// So many bytes, or as many as come before the end, if it is a WebSocket.
    pub fn up_to(&mut self, length: usize) -> Vec<u8> {
        match self {
            Self::WebSocketHttp1(conn) => conn.wire.up_to(length).expect("in time"),
            Self::WebSocketHttp2(h2, io) => h2.runtime.block_on(async {
                let mut bytes = Vec::new();
                let _ = within(io.take(length as u64).read_to_end(&mut bytes)).await;
                bytes
            }),
            Self::EventsHttp1(_) | Self::EventsHttp2(..) | Self::Grpc(_) => panic!("no WebSocket"),
        }
    }

    /// Data passes.
    pub fn check_open(&mut self) {
        match self {
            Self::WebSocketHttp1(_) | Self::WebSocketHttp2(..) => {
                self.send(FRAME);
                assert_eq!(self.up_to(FRAME.len()), FRAME);
            }
            Self::EventsHttp1(conn) => {
                let some = conn.wire.some().expect("in time");
                assert!(!some.is_empty() && !ends_chunked(&some), "{some:?}");
            }
            Self::EventsHttp2(h2, body) => {
                let frame = h2.runtime.block_on(within(body.frame()));
                assert!(frame.expect("it is open").expect("no reset").is_data());
            }
            Self::Grpc(call) => {
                call.send(b"\0\0\0\0\x04ping");
                assert!(call.message().is_some());
            }
        }
    }

    /// The stream ends as one whose credential is not accepted any more.
    pub fn check_ended(mut self) {
        match &mut self {
            Self::WebSocketHttp1(conn) => {
                assert_eq!(conn.wire.up_to(usize::MAX).expect("in time"), CLOSE_1008);
            }
            Self::WebSocketHttp2(h2, io) => h2.runtime.block_on(async {
                let mut bytes = Vec::new();
                within(io.read_to_end(&mut bytes)).await.expect("no reset");
                assert_eq!(bytes, CLOSE_1008);
            }),
            Self::EventsHttp1(conn) => {
                let mut bytes = Vec::new();
                while !ends_chunked(&bytes) {
                    let some = conn.wire.some().expect("in time");
                    assert!(!some.is_empty(), "cut after {bytes:?}");
                    bytes.extend(some);
                    assert!(bytes.len() < MOST_BYTES, "it goes on");
                }
                // The connection can be used further.
                assert_eq!(conn.call(&get("/public")).status, 200);
            }
            Self::EventsHttp2(h2, body) => {
                let mut frames = 0;
                while let Some(frame) = h2.runtime.block_on(within(body.frame())) {
                    frames += 1;
                    assert!(frame.expect("no reset").is_data() && frames < MOST_FRAMES);
                }
            }
            Self::Grpc(call) => {
                assert!((0..MOST_FRAMES).any(|_| call.message().is_none()), "it goes on");
                assert_eq!(call.trailers()["grpc-status"], "16");
            }
        }
    }
}

fn ends_chunked(bytes: &[u8]) -> bool {
    bytes.ends_with(b"0\r\n\r\n")
}

fn with(call: Call, authorization: &str) -> Call {
    match authorization {
        "" => call,
        authorization => call.authorization(authorization),
    }
}
