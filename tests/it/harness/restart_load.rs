//! Clients of a gateway that is restarted or replaced on the same sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::client::{Conn, get};
use super::h2::H2;
use super::wait_until;

/// Sends requests from many clients while `work` runs, and counts the answers. A connection is replaced only after the gateway has announced
/// its end. A request that fails, or a connection that is refused, fails the test.
pub fn under_load(address: SocketAddr, file: &Path, work: impl FnOnce(&AtomicUsize)) {
    let (answered, done, failures) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
    let client = |name: &str, client: &dyn Fn() -> Result<(), String>| {
        while !done.load(Ordering::Relaxed) {
            if let Err(problem) = client() {
                failures.lock().unwrap().push(format!("{name}: {problem}"));
            }
        }
    };
    let http1 = |mut conn: Conn, pause: Duration| {
        while !done.load(Ordering::Relaxed) {
            let sent = conn.wire.write(&get("/x").bytes());
            sent.map_err(|problem| format!("sending: {problem}"))?;
            let reply = conn
                .try_reply_strictly()
                .map_err(|problem| format!("reading: {problem}"))?;
            let reply = reply.ok_or("the connection ended before the answer")?;
            if reply.status != 200 || !reply.body.complete {
                return Err(format!("status {}", reply.status));
            }
            answered.fetch_add(1, Ordering::Relaxed);
            if reply.header("connection") == Some("close") {
                return conn.ends().map_err(|problem| format!("after the answer: {problem}"));
            }
            thread::sleep(pause);
        }
        Ok(())
    };
    let http2 = || {
        let mut h2 = H2::plain(address);
        while !done.load(Ordering::Relaxed) {
            let Some(reply) = h2.call_unless_goaway(&get("/x"))? else {
                return Ok(());
            };
            if reply.status != 200 || !reply.body.complete {
                return Err(format!("status {}, whole: {}", reply.status, reply.body.complete));
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let one_request = || {
        let mut conn = Conn::plain(address);
        let problem = |problem| format!("one request: {problem}");
        let sent = conn.wire.write(&get("/x").header("Connection", "close").bytes());
        sent.map_err(problem)?;
        let reply = conn.try_reply_strictly().map_err(problem)?;
        let reply = reply.ok_or("the connection ended before the answer")?;
        if reply.status != 200 || !reply.body.complete {
            return Err(format!("status {}", reply.status));
        }
        answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    thread::scope(|scope| {
        for pause in [Duration::ZERO, Duration::ZERO, Duration::from_millis(90)] {
            scope.spawn(move || client("HTTP/1.1", &|| http1(Conn::plain(address), pause)));
            scope.spawn(move || client("socket file", &|| http1(Conn::unix(file), pause)));
        }
        scope.spawn(|| client("HTTP/2", &http2));
        scope.spawn(|| client("HTTP/2", &http2));
        scope.spawn(|| client("one request", &one_request));
        work(&answered);
        done.store(true, Ordering::Relaxed);
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:?}");
}

/// Waits for further answers.
pub fn more(answered: &AtomicUsize) {
    let before = answered.load(Ordering::Relaxed);
    wait_until("requests are answered", Duration::from_secs(20), || {
        answered.load(Ordering::Relaxed) >= before + 100
    });
}
