//! `Upstream::forward` to a plain TCP server.

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use authgate_http::framing::header_case::{ConfiguredNames, HeaderCase};
use authgate_http::server::worker::run_on_this_thread;
use authgate_http::transfer::incoming::{IncomingBody, body_channel};
use authgate_http::upstream::body::{BodyLimits, RequestBody};
use authgate_http::upstream::{
    Balance, ClientSide, Forwarded, HostMode, NoResponseCause, Resolver, Server, Transport, UnsizedBodies, Upstream,
    UpstreamError, UpstreamLimits, UpstreamSettings,
};
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Action {
    Respond(&'static str),
    /// Close the connection without a response.
    Close,
    /// Wait until the client closes the connection.
    Wait,
}

/// A server that accepts one connection after the other, and takes these actions on its requests.
struct ScriptedServer {
    address: SocketAddr,
    /// The index of the connection, the request line, and the body of each request.
    requests: Receiver<(usize, String, String)>,
}

impl ScriptedServer {
    fn start(connections: &'static [&'static [Action]]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for (index, actions) in connections.iter().enumerate() {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                for action in *actions {
                    let Some((line, body)) = read_request(&mut stream) else {
                        break;
                    };
                    // The test may have ended already.
                    let _ = sender.send((index, line, body));
                    match action {
                        Action::Respond(response) => stream.get_mut().write_all(response.as_bytes()).unwrap(),
                        Action::Close => break,
                        Action::Wait => {
                            let _ = stream.read(&mut [0]);
                        }
                    }
                }
            }
        });
        Self { address, requests }
    }

    /// The index of the connection and the request line of each request so far.
    fn received(&self) -> Vec<(usize, String)> {
        self.requests.try_iter().map(|(index, line, _)| (index, line)).collect()
    }
}

/// The request line and the body; `None` at the end of the connection.
fn read_request(stream: &mut impl BufRead) -> Option<(String, String)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some((lines.remove(0), String::from_utf8(body).unwrap()))
}

fn upstream(server: &ScriptedServer) -> Upstream {
    let settings = Arc::new(UpstreamSettings {
        name: "app".into(),
        servers: vec![Server {
            transport: Transport::Http,
            authority: server.address.to_string().parse().unwrap(),
            weight: 1,
        }],
        balance: Balance::LeastRequest,
        host: HostMode::Server,
        connect_timeout: TIMEOUT,
        response_timeout: TIMEOUT,
        idle_timeout: TIMEOUT,
        body_read_timeout: TIMEOUT,
        in_flight: 0,
        request_buffer: 0,
        unsized_bodies: UnsizedBodies::Stream,
        response_buffer: 0,
        retries: 1,
        secret_header: None,
        health_check: None,
        tls: None,
    });
    let limits = UpstreamLimits::new(&settings);
    Upstream::new(
        settings,
        limits,
        Arc::new(ConfiguredNames::default()),
        &Resolver::of_system(),
    )
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    run_on_this_thread(|| async {
        test().await;
        Ok(())
    })
    .unwrap();
}

/// Forwards a request, and returns the body of the response.
#[expect(clippy::disallowed_methods, reason = "this tests it")]
async fn forward(
    upstream: &Upstream,
    method: Method,
    body: &'static str,
    timeout: Option<Duration>,
) -> Result<String, UpstreamError> {
    let incoming = match body {
        "" => IncomingBody::Empty,
        body => {
            let (sender, receiver) = body_channel(Some(body.len() as u64));
            let cx = std::task::Context::from_waker(std::task::Waker::noop());
            sender.send_data(body.into(), Some(0), &cx);
            sender.finish(&cx);
            IncomingBody::Http1(receiver)
        }
    };
    let limits = BodyLimits {
        max_bytes: None,
        read_timeout: TIMEOUT,
    };
    let request = Request::builder().method(method).uri("/path");
    let request = request
        .body(RequestBody::new(incoming, limits, Instant::now()).unwrap())
        .unwrap();
    let header_case = HeaderCase::default();
    let client = ClientSide::without_client(&header_case);
    match upstream.forward(request, false, timeout, &client).await? {
        Forwarded::Response(response) => {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Ok(String::from_utf8(body.to_vec()).unwrap())
        }
        Forwarded::Upgraded(..) => panic!("an upgrade"),
    }
}

fn lines<const N: usize>(expected: [(usize, &str); N]) -> Vec<(usize, String)> {
    expected.map(|(index, line)| (index, line.to_owned())).to_vec()
}

#[test]
fn a_connection_is_reused_after_a_complete_response() {
    let server = ScriptedServer::start(&[&[Action::Respond(OK), Action::Respond(OK)]]);
    run(|| async {
        let upstream = upstream(&server);
        assert_eq!(forward(&upstream, Method::GET, "", None).await.unwrap(), "ok");
        assert_eq!(forward(&upstream, Method::POST, "data", None).await.unwrap(), "ok");
    });
    let get = (0, "get /path http/1.1".to_owned(), String::new());
    let post = (0, "post /path http/1.1".to_owned(), "data".to_owned());
    assert_eq!(server.requests.try_iter().collect::<Vec<_>>(), [get, post]);
}

#[test]
fn a_connection_is_not_reused_after_bytes_behind_the_response() {
    const SURPLUS: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let server = ScriptedServer::start(&[&[Action::Respond(SURPLUS)], &[Action::Respond(OK)]]);
    run(|| async {
        let upstream = upstream(&server);
        for _ in 0..2 {
            assert_eq!(forward(&upstream, Method::GET, "", None).await.unwrap(), "ok");
        }
    });
    assert_eq!(
        server.received(),
        lines([(0, "get /path http/1.1"), (1, "get /path http/1.1")])
    );
}

#[test]
fn a_repeatable_request_is_sent_again_when_a_pooled_connection_closes() {
    let server = ScriptedServer::start(&[&[Action::Respond(OK), Action::Close], &[Action::Respond(OK)]]);
    run(|| async {
        let upstream = upstream(&server);
        for _ in 0..2 {
            assert_eq!(forward(&upstream, Method::GET, "", None).await.unwrap(), "ok");
        }
    });
    let get = "get /path http/1.1";
    assert_eq!(server.received(), lines([(0, get), (0, get), (1, get)]));
}

#[test]
fn a_post_is_never_sent_twice() {
    let server = ScriptedServer::start(&[&[Action::Respond(OK), Action::Close], &[Action::Respond(OK)]]);
    run(|| async {
        let upstream = upstream(&server);
        assert_eq!(forward(&upstream, Method::GET, "", None).await.unwrap(), "ok");
        let failed = forward(&upstream, Method::POST, "data", None).await.unwrap_err();
        assert!(
            matches!(failed, UpstreamError::NoResponse(NoResponseCause::ConnectionFailed(_))),
            "{failed}"
        );
    });
    assert_eq!(
        server.received(),
        lines([(0, "get /path http/1.1"), (0, "post /path http/1.1")])
    );
}

#[test]
fn a_server_that_does_not_respond_in_time_is_a_response_timeout() {
    let server = ScriptedServer::start(&[&[Action::Wait]]);
    run(|| async {
        let upstream = upstream(&server);
        let failed = forward(&upstream, Method::GET, "", Some(Duration::from_millis(100))).await;
        assert!(matches!(failed, Err(UpstreamError::ResponseTimeout)), "{failed:?}");
    });
    assert_eq!(server.received(), lines([(0, "get /path http/1.1")]));
}
