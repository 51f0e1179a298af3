//! Clients that send requests while the gateway changes, and a barrier for requests that a test holds.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Conn, get, post};
use super::h2::{H2, read};
use super::upstream::{Exchange, Next};

/// Echoes on a WebSocket, and answers other requests as usual.
pub fn echo(mut exchange: Exchange<'_>) -> Next {
    if exchange.head.header("upgrade").is_none() {
        return exchange.ok();
    }
    exchange.switch("");
    while let Ok(bytes) = exchange.wire.some()
        && !bytes.is_empty()
        && exchange.write(&bytes)
    {}
    Next::Close
}

/// Clients that send one request after the other until they are stopped.
#[derive(Default)]
pub struct Load {
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn spawn(&mut self, mut turn: impl FnMut(usize) -> usize + Send + 'static) {
        let (stopped, sent) = (Arc::clone(&self.stopped), Arc::clone(&self.sent));
        self.threads.push(thread::spawn(move || {
            for number in 0.. {
                sent.fetch_add(turn(number), Ordering::Relaxed);
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
        }));
    }

    /// Stops the clients, fails if one of them has failed, and returns the number of their requests.
    pub fn stop(self) -> usize {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no request fails");
        }
        self.sent.load(Ordering::Relaxed)
    }

    /// One connection of HTTP/1.1, with GET and POST.
    pub fn http1(&mut self, mut conn: Conn) {
        self.spawn(move |number| {
            let call = if number % 2 == 0 {
                get("/common")
            } else {
                post("/common", "0123456789")
            };
            assert_eq!(conn.call(&call.token("canary-ada")).status, 200);
            1
        });
    }

    /// One connection of HTTP/2 with several streams.
    pub fn http2(&mut self, h2: H2) {
        self.spawn(move |_| {
            let streams = [(); 4].map(|()| {
                let mut sender = h2.sender.clone();
                let sent = sender.send_request(h2.request(&post("/common", "0123456789").token("canary-ada")));
                h2.runtime
                    .spawn(async { read(sent.await.expect("an answer")).await.status })
            });
            for stream in streams {
                assert_eq!(h2.runtime.block_on(stream).expect("no panic"), 200);
            }
            4
        });
    }

    /// A WebSocket over HTTP/1.1 that lives as long as the load.
    pub fn websocket_http1(&mut self, mut conn: Conn) {
        let call = get("/ws")
            .token("canary-ada")
            .header("Sec-WebSocket-Version", "13")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        conn.send(call.bytes());
        let head = conn.wire.head().expect("in time").expect("an answer");
        assert!(head.first.starts_with("HTTP/1.1 101 "), "{}", head.first);
        self.spawn(move |number| {
            let message = format!("message {number:>8}");
            conn.send(&message);
            assert_eq!(conn.wire.up_to(message.len()).expect("an echo"), message.as_bytes());
            thread::sleep(Duration::from_millis(2));
            0
        });
    }

    /// The same over HTTP/2.
    pub fn websocket_http2(&mut self, mut h2: H2) {
        // An answer shows that the gateway has sent its settings, which allow such requests.
        h2.call(&get("/common").token("canary-ada"));
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = h2.request(&get("/ws").token("canary-ada").header("Sec-WebSocket-Version", "13"));
        *request.method_mut() = http::Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let sent = h2.sender.send_request(request);
        let upgraded = h2.runtime.block_on(async {
            let response = sent.await.expect("an answer");
            assert_eq!(response.status(), 200);
            hyper::upgrade::on(response).await.expect("a WebSocket")
        });
        let mut io = TokioIo::new(upgraded);
        self.spawn(move |number| {
            let message = format!("message {number:>8}");
            h2.runtime.block_on(async {
                io.write_all(message.as_bytes()).await.expect("it is open");
                let mut echoed = vec![0; message.len()];
                io.read_exact(&mut echoed).await.expect("an echo");
                assert_eq!(echoed, message.as_bytes());
                tokio::time::sleep(Duration::from_millis(2)).await;
            });
            0
        });
    }
}

/// Holds requests at an upstream until it is opened.
#[derive(Clone, Default)]
pub struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    pub fn wait(&self) {
        let guard = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(guard, |open| !*open).expect("no panic"));
    }
}
