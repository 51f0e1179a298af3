//! The HTTP/2 server, with prior knowledge: streams of one connection, from hyper's client on another thread.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use authgate_http::framing::header_case::HeaderCase;
use authgate_http::node::Node;
use authgate_http::runtime::LocalExecutor;
use authgate_http::server::handler::{
    Connected, ConnectionEvent, Exchange, Handler, HeadFault, Reply, TlsAccept, TlsAccepted, TlsEnded, Tunnel,
};
use authgate_http::server::limits::Limits;
use authgate_http::server::socket::{AcceptQueue, BoundListener, Stream};
use authgate_http::server::stage::Stage;
use authgate_http::server::worker::{Worker, WorkerPool};
use authgate_http::tcp;
use authgate_http::transfer::incoming::IncomingBody;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use hyper::client;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use super::frames::{ExcusedResets, FrameLimiter};
use super::write_buffer;
use super::{Case, KIB, Pieces, block_on, read_to_end, resident, thread_time};

const TIMEOUT: Duration = Duration::from_secs(60);
const STREAMS: u32 = 128;

pub(super) fn run(case: Case, variant: &str, warm: usize, requests: usize) -> Duration {
    let (listener, address) = listen();
    let (marks, mut marked) = mpsc::channel(2);
    let peer = thread::spawn(move || block_on(|| send_requests(address, case, warm, requests, marks)));
    let variant = variant.to_owned();
    let took = block_on(move || async move {
        spawn_local(serve(variant, listener, case.response));
        marked.recv().await.expect("the first mark");
        let start = thread_time();
        marked.recv().await.expect("the second mark");
        thread_time() - start
    });
    peer.join().expect("no panic");
    took
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
    listener.set_nonblocking(true).expect("an option");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// The peer: sends requests, and a mark before and after those that are measured.
async fn send_requests(address: SocketAddr, case: Case, warm: usize, requests: usize, marks: mpsc::Sender<()>) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let handshake = client::conn::http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("a connection");
    spawn_local(connection);
    for count in [warm, requests] {
        let streams = (0..case.streams).map(async |_| {
            let mut sender = sender.clone();
            for _ in 0..count / case.streams {
                let request = Request::builder()
                    .method(if case.request > 0 { Method::POST } else { Method::GET })
                    .uri(if case.waits {
                        "http://app.example/once"
                    } else {
                        "http://app.example/api/orders/1"
                    })
                    .header("user-agent", "engine/1")
                    .header("accept", "application/json")
                    .header("authorization", "Token 0123456789abcdef0123456789abcdef01234567")
                    .body(Pieces(case.request))
                    .expect("a request");
                let response = sender.send_request(request).await.expect("a response");
                assert_eq!(read_to_end(response.into_body()).await, case.response);
            }
        });
        join_all(streams).await;
        marks.send(()).await.expect("the server");
    }
}

/// Answers a request after its body was read. Requests for `/wait` get no answer, and those for `/once` wait once.
async fn answer<B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin>(
    request: Request<B>,
    length: usize,
) -> Response<Pieces> {
    match request.uri().path() {
        "/wait" => pending::<()>().await,
        "/once" => tokio::task::yield_now().await,
        _ => {}
    }
    if !request.body().is_end_stream() {
        read_to_end(request.into_body()).await;
    }
    let mut response = Response::new(Pieces(length));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn serve(variant: String, listener: TcpListener, length: usize) {
    if variant == "own" {
        return serve_own(listener, length).await;
    }
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tcp::set_options(&stream);
        SockRef::from(&stream)
            .set_tcp_notsent_lowat(128 * 1024)
            .expect("an option");
        match &*variant {
            "hyper" => spawn_local(serve_hyper(stream, length)),
            "buffered" => spawn_local(serve_buffered(stream, length)),
            other => panic!("no variant {other}"),
        };
    }
}

async fn serve_own(listener: TcpListener, length: usize) {
    let (_stage, stage) = watch::channel(Stage::Serving);
    let (pool, mut inboxes) = WorkerPool::new(1, 10_000, TIMEOUT, stage);
    let worker = Worker::new(0, pool, Answers(length));
    let inbox = inboxes.pop().expect("an inbox");
    worker
        .run(
            vec![BoundListener::Tcp(listener, AcceptQueue::OfOneWorker).into()],
            inbox,
        )
        .await
        .expect("a listener");
}

/// hyper, with the settings of the engine.
fn builder() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_local_error_reset_streams(128)
        .enable_connect_protocol()
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    builder
}

async fn serve_hyper(stream: TcpStream, length: usize) {
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, length).await) });
    let _ = builder().serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_buffered(stream: TcpStream, length: usize) {
    let (io, flusher) = write_buffer::split(FrameLimiter::new(stream, ExcusedResets::default()));
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, length).await) });
    let mut connection = pin!(builder().serve_connection(TokioIo::new(io), service));
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => polled.map(drop),
        }
    })
    .await;
}

#[derive(Clone)]
struct Answers(usize);

impl Handler for Answers {
    type Connection = ();
    type Tls = Cleartext;
    type Body = Pieces;
    type Tunnel = Cleartext;

    fn limits(&self) -> Limits {
        Limits {
            connections: 10_000,
            header_bytes: 32 * 1024,
            headers: 100,
            tls_handshake_timeout: TIMEOUT,
            header_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            body_read_timeout: TIMEOUT,
            h2_streams: STREAMS,
        }
    }

    fn tls(&self) -> Option<Cleartext> {
        None
    }

    fn expects_proxy_header(&self, _: Node) -> bool {
        false
    }

    fn connected(&self, _: Connected<'_, Cleartext>) {}

    async fn handle(&self, request: Request<IncomingBody>, _: Exchange<'_>, (): &()) -> Reply<Pieces, Cleartext> {
        Reply::Response {
            response: answer(request, self.0).await,
            header_case: HeaderCase::default(),
        }
    }

    fn refuse(&self, (): &(), fault: HeadFault) -> Response<Bytes> {
        panic!("a head was refused: {fault:?}")
    }

    fn count(&self, _: ConnectionEvent) {}
}

/// Neither TLS nor tunnels are measured.
enum Cleartext {}

impl TlsAccept for Cleartext {
    async fn accept(&self, _: Stream) -> Result<TlsAccepted, TlsEnded<Stream>> {
        match *self {}
    }
}

impl Tunnel for Cleartext {
    async fn run<I: AsyncRead + AsyncWrite + Unpin>(self, _: I) {
        match self {}
    }
}

/// The resident memory of connections that are idle after one request, or on which `streams` requests wait for an answer.
pub(super) fn memory(variant: &str, connections: usize, streams: usize) -> usize {
    let (listener, address) = listen();
    let (marks, mut marked) = mpsc::channel(1);
    thread::spawn(move || {
        let mut held = Vec::with_capacity(connections);
        for at in 0..=connections {
            held.push(open_connection(address, streams));
            if at == 0 || at == connections {
                thread::sleep(Duration::from_millis(200));
                marks.blocking_send(()).expect("the server");
            }
        }
        thread::park();
    });
    let variant = variant.to_owned();
    block_on(move || async move {
        spawn_local(serve(variant, listener, KIB));
        // The first connection is not counted: it initialises the runtime.
        marked.recv().await.expect("the first mark");
        let before = resident();
        marked.recv().await.expect("the second mark");
        resident() - before
    })
}

/// A client that makes a request on stream 1, waits for its answer, and opens `streams` more (RFC 9113, section 4.1).
fn open_connection(address: SocketAddr, streams: usize) -> std::net::TcpStream {
    let request = |stream: usize, path: &str| {
        // Indexed fields, and literals for the path and the authority (RFC 7541, section 6).
        let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(b"\x01\x0bapp.example");
        let mut frame = vec![0, 0, u8::try_from(block.len()).expect("a short block"), 1, 5];
        frame.extend_from_slice(&u32::try_from(stream).expect("an id").to_be_bytes());
        [frame, block].concat()
    };
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let mut write = |bytes: &[u8]| stream.write_all(bytes).expect("an open connection");
    write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS, SETTINGS_ACK].concat());
    write(&request(1, "/"));
    let (mut seen, mut piece) = (0, [0; 4096]);
    while seen < KIB + 80 {
        match stream.read(&mut piece).expect("a response") {
            0 => panic!("the server has closed the connection"),
            count => seen += count,
        }
    }
    let waiting: Vec<_> = (0..streams).flat_map(|at| request(2 * at + 3, "/wait")).collect();
    stream.write_all(&waiting).expect("an open connection");
    stream
}
