//! HTTP/2 with prior knowledge. The client is hyper's.

use std::future::Future;

use authgate_http::runtime::LocalExecutor;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Server;

/// Runs the steps of a client with one connection.
fn with_client<F: Future<Output = ()>>(server: &Server, steps: impl FnOnce(SendRequest<Full<Bytes>>) -> F) {
    let address = server.address;
    let run = async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let builder = http2::Builder::new(LocalExecutor);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        steps(sender).await;
        Ok(())
    };
    authgate_http::server::worker::run_on_this_thread(|| run).unwrap();
}

fn post(path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let uri = format!("http://h{path}");
    Request::post(uri).body(Full::new(body.into())).unwrap()
}

async fn echo(sender: &mut SendRequest<Full<Bytes>>, body: Vec<u8>) {
    let response = sender.send_request(post("/", body.clone())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("date"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
}

#[test]
fn streams_are_served_concurrently() {
    let server = Server::start();
    with_client(&server, |mut sender| async move {
        let requests = (0..8_u8).map(|index| sender.send_request(post("/", vec![index; 10_000])));
        for (index, response) in (0..8_u8).zip(requests.collect::<Vec<_>>()) {
            let body = response.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), vec![index; 10_000]);
        }
    });
}

#[test]
fn bodies_larger_than_every_window_are_echoed() {
    let server = Server::start();
    with_client(&server, |mut sender| async move {
        echo(&mut sender, vec![b'x'; 3 << 20]).await;
        echo(&mut sender, Vec::new()).await;
    });
}

#[test]
fn an_ignored_body_does_not_stop_the_connection() {
    let server = Server::start();
    with_client(&server, |mut sender| async move {
        let response = sender
            .send_request(post("/ignored", vec![b'x'; 200_000]))
            .await
            .unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ignored");
        echo(&mut sender, b"next".to_vec()).await;
    });
}

#[test]
fn an_extended_connect_hands_the_stream_to_the_tunnel() {
    let server = Server::start();
    with_client(&server, |mut sender| async move {
        // After this exchange, the client has the SETTINGS that permit it.
        echo(&mut sender, b"first".to_vec()).await;
        let mut connect = Request::new(Full::default());
        (*connect.method_mut(), *connect.uri_mut()) = (Method::CONNECT, "http://h/".parse().unwrap());
        connect.extensions_mut().insert(Protocol::from_static("websocket"));
        let response = sender.send_request(connect).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        tunnel.write_all(b"through the tunnel").await.unwrap();
        let mut received = [0; 18];
        tunnel.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"through the tunnel");
        // The other streams of the connection are still served.
        echo(&mut sender, b"beside it".to_vec()).await;
    });
}
