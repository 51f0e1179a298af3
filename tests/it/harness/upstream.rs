//! [`RecordingUpstream`]: an application server that keeps the bytes of every request, and answers as the test defines.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use socket2::SockRef;

use super::wait_until;
use super::wire::{Body, Head, Wire, WithoutLength};

/// Every response of a test upstream has this field; a response without it was made by the gateway.
pub const MARK: &str = "X-Upstream";

/// A request as an upstream received it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub head: Head,
    pub body: Body,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// `GET /x?y=1`
    pub fn line(&self) -> &str {
        self.head.first.strip_suffix(" HTTP/1.1").expect("HTTP/1.1")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }
}

/// What to do with the connection after a response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Keep,
    Close,
}

/// One request whose head was received, and the connection to the gateway.
pub struct Exchange<'c> {
    pub head: Head,
    pub wire: &'c mut Wire<TcpStream>,
    at: usize,
    shared: &'c Shared,
}

impl Exchange<'_> {
    /// Reads and records the body.
    pub fn read_body(&mut self) -> Body {
        let body = self.wire.body(&self.head, WithoutLength::Empty).unwrap_or_default();
        self.shared.seen()[self.at].body = body.clone();
        body
    }

    /// Writes; returns false if the gateway has closed the connection.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.write(bytes.as_ref()).is_ok()
    }

    /// Reads the body, and sends a complete response.
    pub fn answer(mut self, status: &str, fields: &str, body: &[u8]) -> Next {
        self.read_body();
        let head = format!(
            "HTTP/1.1 {status}\r\n{MARK}: 1\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if self.head.first.starts_with("HEAD ") {
            &[][..]
        } else {
            body
        };
        if self.write([head.as_bytes(), body].concat()) {
            Next::Keep
        } else {
            Next::Close
        }
    }

    /// The usual answer.
    pub fn ok(self) -> Next {
        let name = self.shared.name.clone();
        self.answer(
            "200 OK",
            "Content-Type: application/json\r\n",
            format!(r#"{{"upstream":"{name}"}}"#).as_bytes(),
        )
    }
}

type Handler = dyn Fn(Exchange<'_>) -> Next + Send + Sync;

struct Shared {
    name: String,
    seen: Mutex<Vec<Seen>>,
    handler: Mutex<Arc<Handler>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    listener: TcpListener,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().expect("no test fails inside")
    }
}

/// An application server on a port of its own; it lives as long as the test.
#[derive(Clone)]
pub struct RecordingUpstream {
    shared: Arc<Shared>,
    pub address: SocketAddr,
}

impl RecordingUpstream {
    pub fn start() -> Self {
        Self::named("1")
    }

    pub fn named(name: &str) -> Self {
        Self::listening(name, "127.0.0.1:0")
    }

    /// At this address, which must be free.
    pub fn at(address: &str) -> Self {
        Self::listening("1", address)
    }

    fn listening(name: &str, address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        // A thousand connections may come at once.
        SockRef::from(&listener).listen(4096).expect("a longer queue");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            seen: Mutex::default(),
            handler: Mutex::new(Arc::new(|exchange: Exchange<'_>| exchange.ok())),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            streams: Mutex::default(),
            listener,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.listener.accept() {
                let shared = Arc::clone(&accepting);
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared
                    .streams
                    .lock()
                    .expect("no test fails inside")
                    .push(stream.try_clone().expect("a descriptor"));
                shared.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = serve(&shared, &stream);
                    let _ = stream.shutdown(Shutdown::Both);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { shared, address }
    }

    /// Sets the handler of all further requests. The handler decides when to read the body.
    pub fn answers(&self, handler: impl Fn(Exchange<'_>) -> Next + Send + Sync + 'static) {
        *self.shared.handler.lock().expect("no test fails inside") = Arc::new(handler);
    }

    /// Answers all further requests with exactly these bytes, after reading the body, and closes the connection.
    pub fn answers_raw(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.answers(move |mut exchange| {
            exchange.read_body();
            exchange.write(&bytes);
            Next::Close
        });
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of requests received.
    pub fn calls(&self) -> usize {
        self.shared.seen().len()
    }

    /// Every request so far.
    pub fn all(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.shared
            .seen()
            .last()
            .cloned()
            .expect("a request reached the upstream")
    }

    /// How many connections were made.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Closes every connection that is open now, and waits until the last is gone.
    pub fn close_connections(&self) {
        for stream in self.shared.streams.lock().expect("no test fails inside").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        wait_until("the upstream's connections are closed", Duration::from_secs(5), || {
            self.open() == 0
        });
    }

    pub fn wait_for_calls(&self, count: usize) {
        wait_until("requests reach the upstream", Duration::from_secs(10), || {
            self.calls() >= count
        });
    }
}

fn serve(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream.try_clone()?);
    while let Some(head) = wire.head()? {
        let at = {
            let mut seen = shared.seen();
            seen.push(Seen {
                head: head.clone(),
                body: Body::default(),
            });
            seen.len() - 1
        };
        let handler = Arc::clone(&shared.handler.lock().expect("no test fails inside"));
        if handler(Exchange {
            head,
            wire: &mut wire,
            at,
            shared,
        }) == Next::Close
        {
            return Ok(());
        }
    }
    Ok(())
}

/// A loopback port without a listener: it was free a moment ago.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
