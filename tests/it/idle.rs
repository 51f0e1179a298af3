//! Pooled connections meet the limits of servers that close idle ones: no request is lost to that which cannot be sent again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::upstream::closed_port;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, post, signal, wait_until};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// How long a server needs from its decision to close a connection to the close.
const BUSY: Duration = Duration::from_millis(50);

/// A server that closes connections when they have been idle for so long, and counts those that it has accepted.
fn closing_after(limit: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream, limit));
        }
    });
    (address, accepted)
}

fn serve(mut stream: TcpStream, limit: Duration) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut heard = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(count @ 1..) => heard.extend_from_slice(&piece[..count]),
            Ok(0) => return,
            // It has other things to do before it closes. What comes meanwhile is lost, and its sender sees a reset.
            Err(_) => return std::thread::sleep(BUSY),
        }
        if heard.ends_with(b"\r\n\r\n") || heard.ends_with(b"body") {
            heard.clear();
            let answer = b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// Many clients send POSTs, each so long after the last, give or take a few milliseconds. Statuses other than 200.
fn timed_posts(gate: &Gate, clients: u64, rounds: u64, pause: Duration) -> Vec<u16> {
    let sending: Vec<_> = (0..clients)
        .map(|client| {
            let mut conn = gate.connect();
            std::thread::spawn(move || {
                // One connection to the server for each: they begin together.
                let mut bad = Vec::new();
                for round in 0..=rounds {
                    let status = conn.call(&post("/x", "body")).status;
                    bad.extend((status != 200).then_some(status));
                    let jitter = Duration::from_micros((client * 7919 + round * 104_729) % 8_000);
                    std::thread::sleep(pause + jitter - Duration::from_millis(4));
                }
                bad
            })
        })
        .collect();
    sending
        .into_iter()
        .flat_map(|client| client.join().expect("no client panics"))
        .collect()
}

fn one_worker(url: &str) -> Config {
    config()
        .server("workers = 1")
        .upstream("app", &[url.to_owned()])
        .public("/*")
}

#[test]
fn no_post_fails_because_a_server_closes_idle_connections() {
    for limit in [400, 1_000] {
        let limit = Duration::from_millis(limit);
        let (address, _) = closing_after(limit);
        let gate = Gate::start(&one_worker(&format!("http://{address}")));
        let bad = timed_posts(&gate, 40, 5, limit + BUSY / 2);
        assert!(bad.is_empty(), "{limit:?}: {} of 240 were lost: {bad:?}", bad.len());
    }
}

#[test]
fn posts_reuse_a_recently_used_connection() {
    let (address, accepted) = closing_after(Duration::from_secs(30));
    let gate = Gate::start(&one_worker(&format!("http://{address}")));
    let mut conn = gate.connect();
    for _ in 0..100 {
        assert_eq!(conn.call(&post("/x", "body")).status, 200);
    }
    let count = accepted.load(Ordering::SeqCst);
    // A pause of the machine may cost one now and then.
    assert!(count < 10, "{count} connections for 100 requests");
}

#[test]
fn posts_reuse_longer_idle_connections_after_some_have_survived() {
    let (address, accepted) = closing_after(Duration::from_secs(60));
    let gate = Gate::start(&one_worker(&format!("http://{address}")));
    let mut conn = gate.connect();
    assert_eq!(conn.call(&post("/x", "body")).status, 200);
    std::thread::sleep(Duration::from_secs(4));
    // A connection that is older than what is known to be safe is left for requests that can be repeated.
    assert_eq!(conn.call(&post("/x", "body")).status, 200);
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(conn.call(&post("/x", "body")).status, 200);
    assert_eq!(
        accepted.load(Ordering::SeqCst),
        2,
        "connections were seen to survive 3 s"
    );
}

#[test]
fn a_connection_is_not_reused_after_its_announced_idle_limit() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        let fields = match exchange.head.first.as_str() {
            "GET /announced HTTP/1.1" => "Keep-Alive: timeout=2, max=100\r\n",
            "GET /at-once HTTP/1.1" => "Keep-Alive: timeout=0\r\n",
            _ => "",
        };
        exchange.answer("200 OK", fields, b"ok")
    });
    let gate = Gate::start(&one_worker(&upstream.url()));
    let mut conn = gate.connect();
    let pause = || std::thread::sleep(Duration::from_millis(1_300));
    for (target, accepted) in [("/x", 1), ("/announced", 1), ("/x", 2), ("/at-once", 2), ("/x", 3)] {
        let reply = conn.call(&get(target));
        assert_eq!((reply.status, upstream.accepted()), (200, accepted), "{target}");
        assert_eq!(
            reply.head.header("keep-alive"),
            None,
            "that is between us and the server"
        );
        pause();
    }
}

#[test]
fn idle_connections_close_after_idle_timeout() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&one_worker(&upstream.url()).with("idle_timeout = \"1s\""));
    assert_eq!(gate.get("/x").status, 200);
    wait_until("the gateway closes it", Duration::from_secs(10), || {
        upstream.open() == 0
    });
    drop(gate);
    let gate = Gate::start(&one_worker(&upstream.url()).with("idle_timeout = \"0s\""));
    for _ in 0..5 {
        assert_eq!(gate.get("/x").status, 200);
    }
    assert_eq!(upstream.accepted(), 6, "none is kept");
}

/// A server of the venv, on a port of its own; it ends with this value.
struct Peer(std::process::Child);

impl Drop for Peer {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// A server of the venv that has the application of `tests/peers`; `PORT` stands for its port. `None` where there is no venv.
fn peer(words: &[&str]) -> Option<(Peer, String)> {
    let Some(venv) = std::env::var_os("AUTHGATE_VENV") else {
        eprintln!("skipped: AUTHGATE_VENV names no venv with tests/django/requirements.txt");
        return None;
    };
    let address = closed_port();
    let port = address.port().to_string();
    let child = Command::new(std::path::Path::new(&venv).join("bin").join(words[0]))
        .args(words[1..].iter().map(|word| word.replace("PORT", &port)))
        .current_dir(PEERS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    let peer = Peer(child);
    wait_until("the server listens", Duration::from_secs(20), || {
        TcpStream::connect(address).is_ok()
    });
    Some((peer, format!("http://{address}")))
}

#[test]
fn no_post_to_gunicorn_fails() {
    let words = [
        "gunicorn",
        "--bind",
        "127.0.0.1:PORT",
        "--worker-class",
        "gthread",
        "--threads",
        "40",
        "--keep-alive",
        "2",
        "wsgi_app:app",
    ];
    let Some((_peer, url)) = peer(&words) else { return };
    let gate = Gate::start(&one_worker(&url));
    for pause in [2_000, 2_500] {
        let bad = timed_posts(&gate, 20, 3, Duration::from_millis(pause));
        assert!(bad.is_empty(), "{} of 80 were lost: {bad:?}", bad.len());
    }
}

#[test]
fn no_post_to_uvicorn_fails() {
    let words = ["uvicorn", "--port", "PORT", "--timeout-keep-alive", "1", "asgi_app:app"];
    let Some((_peer, url)) = peer(&words) else { return };
    let gate = Gate::start(&one_worker(&url));
    let bad = timed_posts(&gate, 30, 6, Duration::from_secs(1));
    assert!(bad.is_empty(), "{} of 210 were lost: {bad:?}", bad.len());
}
