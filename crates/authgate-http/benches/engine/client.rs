//! The HTTP/1 client: one request after the other on one connection, to a server that does nothing but answer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use authgate_http::framing::header_case::{ConfiguredNames, HeaderCase};
use authgate_http::runtime::DeadlineTimer;
use authgate_http::tcp;
use authgate_http::transfer::early_hints::EarlyHints;
use authgate_http::transfer::incoming::{BodySender, Demand, IncomingBody, body_channel};
use authgate_http::upstream::ClientSide;
use authgate_http::upstream::body::{BodyLimits, RequestBody};
use authgate_http::upstream::http1::{Connection, ResponseOrUpgrade};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request};
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::{Case, DATA, KIB, PIECE, block_on, read_to_end, resident, thread_time};

const TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: BodyLimits = BodyLimits {
    max_bytes: None,
    read_timeout: TIMEOUT,
};

pub(super) fn run(case: Case, variant: &str, warm: usize, requests: usize) -> Duration {
    let server = start_server(case.request, case.response);
    let plan = Plan::new(case, warm, requests);
    match variant {
        "own" => block_on(|| own(server, plan)),
        "hyper" => block_on(|| hyper(server, plan)),
        "joined" => block_on(|| joined(server, plan)),
        other => panic!("no variant {other}"),
    }
}

/// The requests of a run.
struct Plan {
    case: Case,
    warm: usize,
    requests: usize,
    head: Parts,
    /// The head as a client wrote it. The values of `head` are slices of it.
    header_case: HeaderCase,
}

impl Plan {
    fn new(case: Case, warm: usize, requests: usize) -> Self {
        const FIELDS: &[(&str, &str)] = &[
            ("Host", "app.example"),
            ("User-Agent", "engine/1"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, deflate"),
            ("Authorization", "Token 0123456789abcdef0123456789abcdef01234567"),
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Forwarded-Proto", "https"),
            ("X-Request-Id", "0123456789abcdef"),
            ("X-User", "ada"),
        ];
        let lines = FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let bytes = Bytes::from(format!(
            "GET /api/orders/1 HTTP/1.1\r\n{}\r\n",
            lines.collect::<String>()
        ));
        let method = if case.request > 0 { "POST" } else { "GET" };
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = method.parse().expect("a method");
        head.uri = "/api/orders/1".parse().expect("a target");
        for (name, value) in FIELDS {
            let line = memchr::memmem::find(&bytes, format!("\r\n{name}: ").as_bytes()).expect("a line");
            let start = line + name.len() + 4;
            let value = HeaderValue::from_maybe_shared(bytes.slice(start..start + value.len()));
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            head.headers.append(name, value.expect("a value"));
        }
        Self {
            case,
            warm,
            requests,
            head,
            header_case: HeaderCase::from_head(bytes),
        }
    }

    /// The body of a request, and what feeds it.
    fn body(&self) -> (RequestBody, Option<Feeder>) {
        let left = self.case.request;
        let (incoming, feeder) = if left == 0 {
            (IncomingBody::Empty, None)
        } else {
            let (sender, receiver) = body_channel(Some(left as u64));
            (IncomingBody::Http1(receiver), Some(Feeder { sender, left }))
        };
        (
            RequestBody::new(incoming, LIMITS, Instant::now()).expect("no limit"),
            feeder,
        )
    }

    /// Counts the CPU time of all requests after the warm ones.
    async fn measure(&self, mut request: impl AsyncFnMut() -> usize) -> Duration {
        let mut start = thread_time();
        for at in 0..self.warm + self.requests {
            if at == self.warm {
                start = thread_time();
            }
            assert_eq!(request().await, self.case.response);
        }
        thread_time() - start
    }
}

/// The part of a client's connection that reads the body of its request on demand.
struct Feeder {
    sender: BodySender,
    left: usize,
}

impl Feeder {
    /// Whether it has handed data over.
    fn feed(&mut self, cx: &Context<'_>) -> bool {
        if self.left == 0 || self.sender.demand(cx) != Demand::More {
            return false;
        }
        let count = self.left.min(PIECE);
        self.left -= count;
        let data = Bytes::from_static(&DATA[..count]);
        self.sender.send_data(data, Some(self.left as u64), cx);
        if self.left == 0 {
            self.sender.finish(cx);
        }
        true
    }
}

/// Drives a request, and feeds its body in the same task.
async fn feed<F: Future>(exchange: F, mut feeder: Option<Feeder>) -> F::Output {
    let mut exchange = pin!(exchange);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(response);
            }
            if !feeder.as_mut().is_some_and(|feeder| feeder.feed(cx)) {
                return Poll::Pending;
            }
        }
    })
    .await
}

async fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).await.expect("a connection");
    tcp::set_options(&stream);
    stream
}

/// The check that the pool makes before it reuses a connection.
fn is_open(tcp: &TcpStream) -> bool {
    let peek = || SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
    let peeked = tcp.try_io(Interest::READABLE, peek);
    peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn own(server: SocketAddr, plan: Plan) -> Duration {
    let (names, hints) = (ConfiguredNames::default(), EarlyHints::default());
    let response_case = RefCell::new(HeaderCase::default());
    let client = ClientSide {
        request_header_case: &plan.header_case,
        early_hints: Some(&hints),
        response_header_case: Some(&response_case),
    };
    let mut idle = Some(Connection::new(connect(server).await));
    let request = async || {
        let connection = idle
            .take()
            .filter(|idle| is_open(idle.io()))
            .expect("an idle connection");
        let (body, feeder) = plan.body();
        let head = plan.head.clone();
        let exchange = connection.exchange(&head, &names, body, TIMEOUT, &client);
        let Ok(ResponseOrUpgrade::Response(response)) = feed(exchange, feeder).await else {
            panic!("no response")
        };
        let mut body = response.into_body();
        let length = read_to_end(&mut body).await;
        idle = body.into_connection();
        length
    };
    plan.measure(request).await
}

/// Ends with an error if there is no response in time, as the own client does.
async fn in_time<F: Future + Unpin>(mut waiting: F, timer: &mut DeadlineTimer) -> F::Output {
    let deadline = Instant::now() + TIMEOUT;
    poll_fn(|cx| match Pin::new(&mut waiting).poll(cx) {
        Poll::Pending => {
            assert!(timer.poll_until(deadline, cx).is_pending(), "no response in time");
            Poll::Pending
        }
        ready => ready,
    })
    .await
}

async fn hyper(server: SocketAddr, plan: Plan) -> Duration {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(server).await))
        .await
        .expect("a connection");
    spawn_local(connection);
    let mut timer = DeadlineTimer::default();
    let request = async || {
        sender.ready().await.expect("an idle connection");
        let (body, feeder) = plan.body();
        let sent = pin!(sender.try_send_request(Request::from_parts(plan.head.clone(), body)));
        let response = feed(in_time(sent, &mut timer), feeder).await;
        read_to_end(response.expect("a response").into_body()).await
    };
    plan.measure(request).await
}

async fn joined(server: SocketAddr, plan: Plan) -> Duration {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(server).await))
        .await
        .expect("a connection");
    let mut connection = pin!(connection);
    let mut timer = DeadlineTimer::default();
    let request = async || {
        poll_fn(|cx| {
            let _ = connection.as_mut().poll(cx);
            sender.poll_ready(cx)
        })
        .await
        .expect("an idle connection");
        let (body, feeder) = plan.body();
        let mut sent = pin!(sender.try_send_request(Request::from_parts(plan.head.clone(), body)));
        let sent = poll_fn(|cx| {
            let _ = connection.as_mut().poll(cx);
            sent.as_mut().poll(cx)
        });
        let response = feed(in_time(sent, &mut timer), feeder).await;
        let mut body = response.expect("a response").into_body();
        let mut length = 0;
        let mut next = |cx: &mut Context<'_>| {
            let frame = Pin::new(&mut body).poll_frame(cx);
            if frame.is_ready() {
                return frame;
            }
            let _ = connection.as_mut().poll(cx);
            Pin::new(&mut body).poll_frame(cx)
        };
        while let Some(frame) = poll_fn(&mut next).await {
            length += frame.expect("a frame").into_data().map_or(0, |data| data.len());
        }
        length
    };
    plan.measure(request).await
}

/// Starts a server on another thread. Its requests have bodies of `request` bytes, and its responses of `response`.
fn start_server(request: usize, response: usize) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let response = response_bytes(response);
        let (mut piece, mut seen) = (vec![0; 64 * KIB], Vec::new());
        loop {
            let end = loop {
                if let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => seen.extend_from_slice(&piece[..count]),
                }
            };
            let mut left = request - (seen.len() - end);
            seen.clear();
            while left > 0 {
                left -= stream.read(&mut piece).expect("a body");
            }
            if stream.write_all(&response).is_err() {
                return;
            }
        }
    });
    address
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn response_bytes(length: usize) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nServer: app\r\nDate: Sat, 28 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\nVary: Accept, Cookie\r\n";
    let mut bytes = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

/// The resident memory of connections that are idle after one request.
pub(super) fn memory(variant: &str, connections: usize) -> usize {
    let (listener, address) = listen();
    thread::spawn(move || {
        let (mut held, mut piece, response) = (Vec::with_capacity(connections), [0; 4096], response_bytes(KIB));
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut piece).expect("a request");
            stream.write_all(&response).expect("a response");
            held.push(stream);
        }
    });
    let own = variant == "own";
    let plan = Plan::new(super::CASES[0], 0, 1);
    block_on(move || async move {
        let (mut idle, mut senders) = (Vec::with_capacity(connections), Vec::with_capacity(connections));
        let mut before = resident();
        for at in 0..=connections {
            // The first one is not counted: it initialises the runtime.
            if at == 1 {
                before = resident();
            }
            let (body, _) = plan.body();
            if own {
                let (names, client) = (
                    ConfiguredNames::default(),
                    ClientSide::without_client(&plan.header_case),
                );
                let connection = Connection::new(connect(address).await);
                let exchange = connection.exchange(&plan.head, &names, body, TIMEOUT, &client).await;
                let Ok(ResponseOrUpgrade::Response(response)) = exchange else {
                    panic!("no response")
                };
                let mut body = response.into_body();
                read_to_end(&mut body).await;
                let mut connection = body.into_connection().expect("an idle connection");
                connection.release_buffers();
                idle.push(connection);
            } else {
                let io = TokioIo::new(connect(address).await);
                let (mut sender, connection) = http1::handshake(io).await.expect("a connection");
                spawn_local(connection);
                let response = sender
                    .try_send_request(Request::from_parts(plan.head.clone(), body))
                    .await;
                read_to_end(response.expect("a response").into_body()).await;
                sender.ready().await.expect("an idle connection");
                senders.push(sender);
            }
        }
        resident() - before
    })
}
