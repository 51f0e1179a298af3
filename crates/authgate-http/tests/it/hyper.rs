//! What hyper's HTTP/2 server does and a gateway must not do: the reasons of docs/adr/0002-h2-driven-directly.md that are not about
//! speed. If a test fails with a newer hyper, that reason is gone. Its client is compared in `src/fuzzing.rs`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::rc::Rc;

use authgate_http::runtime::LocalExecutor;
use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

/// The bodies that a server has read to their regular end.
type Complete = Rc<RefCell<Vec<Bytes>>>;

/// Starts a server that reads each body to its end.
fn start() -> (DuplexStream, Complete) {
    let (client, server) = duplex(64 * 1024);
    let complete = Complete::default();
    let seen = Rc::clone(&complete);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            if let Ok(body) = request.into_body().collect().await {
                seen.borrow_mut().push(body.to_bytes());
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(server), service);
    spawn_local(connection);
    (client, complete)
}

async fn with_client<F: Future>(test: impl FnOnce(SendRequest<Bytes>, Complete) -> F) -> F::Output {
    let (io, complete) = start();
    let (client, connection) = h2::client::handshake(io).await.expect("a connection");
    spawn_local(connection);
    test(client.ready().await.expect("a connection"), complete).await
}

fn post() -> Request<()> {
    let request = Request::builder().method(Method::POST).uri("http://a.example/");
    request.body(()).expect("a request")
}

/// A client can end its upload early without an error. With no Content-Length, an upstream would take a part for the whole.
#[tokio::test]
async fn hyper_takes_a_body_that_was_reset_without_an_error_for_complete() {
    let test = with_client(async |mut client, complete| {
        let (_, mut body) = client.send_request(post(), false).expect("a stream");
        body.send_data(Bytes::from_static(b"half"), false)
            .expect("an open stream");
        settle().await;
        body.send_reset(Reason::NO_ERROR);
        settle().await;
        assert_eq!(*complete.borrow(), ["half"]);
    });
    LocalSet::new().run_until(test).await;
}

/// One client can occupy a worker with frames that carry nothing.
#[tokio::test]
async fn hyper_answers_any_number_of_pings() {
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let test = async {
        let (mut client, _) = start();
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS].concat();
        client.write_all(&preface).await.expect("an open connection");
        let (mut answers, mut piece) = (0, [0; 4096]);
        for _ in 0..20_000 {
            client.write_all(PING).await.expect("an open connection");
            answers += client.read(&mut piece).await.expect("an answer");
        }
        assert!(answers > 19_000 * PING.len(), "{answers}");
    };
    LocalSet::new().run_until(test).await;
}

/// A refused upload is reset at once. Clients then report the reset, and not the response.
#[tokio::test]
async fn hyper_resets_an_upload_when_the_response_is_sent() {
    let (io, server) = duplex(64 * 1024);
    let test = async {
        let refuse = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
        spawn_local(http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(server), refuse));
        let (client, connection) = h2::client::handshake(io).await.expect("a connection");
        spawn_local(connection);
        let mut client = client.ready().await.expect("a connection");
        let (response, mut body) = client.send_request(post(), false).expect("a stream");
        body.send_data(Bytes::from_static(b"half"), false)
            .expect("an open stream");
        assert!(response.await.is_ok());
        let reset = poll_fn(|cx| body.poll_reset(cx)).await;
        assert_eq!(reset.expect("a reset"), Reason::NO_ERROR);
    };
    LocalSet::new().run_until(test).await;
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
