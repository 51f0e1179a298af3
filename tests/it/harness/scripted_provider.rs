//! [`ScriptedProvider`]: a server that answers each path as the test has written, and keeps every request. It stands for the servers of an
//! identity provider, also for hostile ones.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::pki::Pki;
use super::wait_until;
use super::wire::{Body, Head, Wire, WithoutLength};

/// One request as the provider received it.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: Head,
    pub body: Body,
}

impl Received {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        let target = self.head.first.split(' ').nth(1).unwrap_or_default();
        target.split('?').next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }
}

/// A response, and how it is sent.
#[derive(Clone)]
pub struct Script {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    hold: Option<Hold>,
    sent: Option<usize>,
    raw: bool,
}

impl Script {
    /// A response with this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
            hold: None,
            sent: None,
            raw: false,
        }
    }

    /// A response with status 200 and this document.
    pub fn json(document: &Value) -> Self {
        Self::new(200, document.to_string()).field("Content-Type", "application/json")
    }

    /// These bytes in place of a response; then the connection is closed.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let mut script = Self::new(200, bytes);
        script.raw = true;
        script
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before the first byte.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits before the first byte until it is released.
    pub fn hold(mut self, hold: &Hold) -> Self {
        self.hold = Some(hold.clone());
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = Some(bytes);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        if self.raw {
            return self.body.clone();
        }
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let fields: String = fields.collect();
        let length = self.body.len();
        let head = format!(
            "HTTP/1.1 {} Scripted\r\n{fields}Content-Length: {length}\r\n\r\n",
            self.status
        );
        let sent = self.sent.unwrap_or(length).min(length);
        [head.as_bytes(), &self.body[..sent]].concat()
    }
}

/// Holds responses back until it is released.
#[derive(Clone, Default)]
pub struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Hold {
    pub fn release(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let released = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(released, |released| !*released).expect("no panic"));
    }
}

type Answer = Arc<dyn Fn(&Received) -> Script + Send + Sync>;

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    received: Mutex<Vec<Received>>,
    accepted: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    is_down: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

/// A provider on a port of its own. It lives as long as the test.
pub struct ScriptedProvider {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl ScriptedProvider {
    /// One that speaks http on a loopback address.
    pub fn start() -> Self {
        Self::serve("127.0.0.1:0", None)
    }

    /// One that speaks https. Its certificate is for `localhost` and 127.0.0.1, signed by `pki`.
    pub fn https(pki: &Pki) -> Self {
        Self::with_names(pki, &["localhost", "127.0.0.1"])
    }

    /// One that speaks https. Its certificate is for these names, signed by `pki`.
    pub fn with_names(pki: &Pki, names: &[&str]) -> Self {
        Self::at("127.0.0.1:0", pki, names)
    }

    /// The same at this address, which must be free.
    pub fn at(address: &str, pki: &Pki, names: &[&str]) -> Self {
        let mut tls = pki.server(names, false);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::serve(address, Some(Arc::new(tls)))
    }

    fn serve(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            tls,
            ..Shared::default()
        });
        accept(&shared, listener);
        Self { shared, address }
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`, and this path.
    pub fn url(&self, path: &str) -> String {
        match self.shared.tls {
            None => format!("http://{}{path}", self.address),
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers all further requests for this path so. Without an answer, a path is 404.
    pub fn serves(&self, path: &str, script: Script) {
        self.answers(path, move |_| script.clone());
    }

    /// Answers all further requests for this path by what they are.
    pub fn answers(&self, path: &str, answer: impl Fn(&Received) -> Script + Send + Sync + 'static) {
        let mut answers = self.shared.answers.lock().expect("no panic");
        answers.insert(path.to_owned(), Arc::new(answer));
    }

    /// Every request for this path so far.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let received = self.shared.received();
        received
            .iter()
            .filter(|request| request.path() == path)
            .cloned()
            .collect()
    }

    /// How many requests for this path came so far.
    pub fn count(&self, path: &str) -> usize {
        self.received(path).len()
    }

    pub fn wait_for(&self, path: &str, count: usize) {
        let what = format!("{count} requests for {path} reach the provider");
        wait_until(&what, Duration::from_secs(20), || self.count(path) >= count);
    }

    /// How many connections were made.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Refuses connections from now on, and closes those that are open.
    pub fn goes_down(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then closes the listener.
        let _ = TcpStream::connect(self.address);
        wait_until("the provider's port is closed", Duration::from_secs(5), || {
            TcpStream::connect(self.address).is_err()
        });
        for stream in self.shared.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again, at the same address.
    pub fn comes_back(&self) {
        self.shared.is_down.store(false, Ordering::SeqCst);
        let mut listener = None;
        wait_until("the provider's port is free", Duration::from_secs(5), || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        accept(&self.shared, listener.expect("bound"));
    }
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().expect("no panic")
    }
}

fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if shared.is_down.load(Ordering::SeqCst) {
                return;
            }
            shared.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(copy) = stream.try_clone() else { return };
            shared.streams.lock().expect("no panic").push(copy);
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                match &shared.tls {
                    None => serve(&shared, &mut Wire::new(&stream)),
                    Some(tls) => {
                        let session = ServerConnection::new(Arc::clone(tls)).expect("a TLS session");
                        serve(&shared, &mut Wire::new(StreamOwned::new(session, &stream)));
                    }
                }
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
}

fn serve<S: Read + Write>(shared: &Shared, wire: &mut Wire<S>) {
    while let Ok(Some(head)) = wire.head() {
        let Ok(body) = wire.body(&head, WithoutLength::Empty) else {
            return;
        };
        let received = Received { head, body };
        shared.received().push(received.clone());
        let answer = shared.answers.lock().expect("no panic").get(received.path()).cloned();
        let script = answer.map_or_else(|| Script::new(404, ""), |answer| answer(&received));
        if let Some(hold) = &script.hold {
            hold.wait();
        }
        thread::sleep(script.delay);
        if wire.write(&script.bytes()).is_err() || script.raw || script.sent.is_some() {
            return;
        }
    }
}
