//! How a gateway ends: what is under way comes to its end, nothing new begins.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::harness::frames::{GOAWAY, PING, PLAIN, Raw, WINDOW_UPDATE, frame, head};
use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::{Config, Conn, Gate, RecordingUpstream, config, get, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// An upstream that answers when the test lets it.
fn waiting() -> (RecordingUpstream, mpsc::Sender<()>) {
    let upstream = RecordingUpstream::start();
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(30));
        exchange.ok()
    });
    (upstream, release)
}

#[test]
fn requests_under_way_are_finished() {
    let (upstream, release) = waiting();
    let mut gate = Gate::start(&public(&upstream));
    let mut idle = gate.connect();
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    gate.signal("TERM");
    idle.ends().expect("idle connections end soon");
    wait_until("the listener is closed", Duration::from_secs(5), || {
        std::net::TcpStream::connect(gate.address).is_err()
    });
    assert!(!gate.has_ended());
    release.send(()).unwrap();
    let reply = conn.reply();
    assert!(reply.status == 200 && reply.body.complete);
    assert!(gate.stop().contains("drained"));
}

#[test]
fn during_the_delay_readyz_is_503_and_requests_are_served() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).drain("delay = \"1500ms\""));
    gate.signal("TERM");
    wait_until("it is not ready", Duration::from_secs(5), || {
        gate.probe("/readyz").status == 503
    });
    assert_eq!(gate.get("/x").status, 200);
}

#[test]
fn requests_beyond_the_timeout_are_cut_and_the_exit_code_is_0() {
    let (upstream, _release) = waiting();
    let gate = Gate::start(&public(&upstream).drain("timeout = \"300ms\""));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    let log = gate.stop();
    assert!(log.contains("drain timeout reached"), "{log}");
    assert!(conn.wire.head().is_ok_and(|head| head.is_none()));
}

#[test]
fn requests_that_a_drain_cuts_are_logged() {
    let (upstream, _release) = waiting();
    let gate = Gate::start(&public(&upstream).drain("timeout = \"200ms\""));
    let mut http1 = gate.connect();
    http1.send(get("/over-http1").bytes());
    let mut http2 = Raw::open(&gate);
    let fields = PLAIN.map(|(name, value)| (name, if name == ":path" { "/over-http2" } else { value }));
    http2.send(&head(1, &fields, 1));
    upstream.wait_for_calls(2);
    gate.signal("TERM");
    let log = gate.stop();
    for target in ["/over-http1", "/over-http2"] {
        let events: Vec<&str> = log.lines().filter(|line| line.contains(target)).collect();
        assert_eq!(events.len(), 1, "{target}: {log}");
        assert!(events[0].contains("client_gone"), "{}", events[0]);
    }
}

#[test]
fn http2_connections_receive_goaway() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut h2 = H2::connect(&gate);
    assert_eq!(h2.call(&get("/x")).status, 200);
    gate.signal("TERM");
    wait_until("the connection is closed", Duration::from_secs(5), || {
        h2.sender.is_closed()
    });
}

/// Clients at once, each of which sends one request after the other.
const CLIENTS: usize = 8;

/// Runs clients until a drain ends them, and hands out how each ended that lost a request.
fn lost(gate: &Gate, client: impl Fn(&AtomicUsize) -> Result<(), String> + Sync) -> Vec<String> {
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(&answered))).collect();
        wait_until("every client is busy", Duration::from_secs(20), || {
            answered.load(Ordering::Relaxed) >= 20 * CLIENTS
        });
        thread::sleep(Duration::from_micros(fastrand::u64(..20_000)));
        gate.signal("TERM");
        let ends = clients.into_iter().map(|client| client.join().expect("a client"));
        ends.filter_map(Result::err).collect()
    })
}

/// Sends requests over one connection until the gateway announces its close.
fn http1(gate: &Gate, answered: &AtomicUsize, pause: Duration) -> Result<(), String> {
    let mut conn = gate.connect();
    loop {
        conn.wire
            .write(&get("/x").bytes())
            .map_err(|error| format!("sending: {error}"))?;
        match conn.try_reply_strictly() {
            Ok(Some(reply)) if reply.status == 200 && reply.body.complete => {
                answered.fetch_add(1, Ordering::Relaxed);
                if reply.header("connection") == Some("close") {
                    return match conn.ends() {
                        Ok(()) => Ok(()),
                        Err(error) => Err(format!("behind the last answer: {error}")),
                    };
                }
            }
            Ok(Some(reply)) => return Err(format!("status {}", reply.status)),
            Ok(None) => return Err("the connection ended before the answer".to_owned()),
            Err(error) => return Err(format!("reading: {error}")),
        }
        thread::sleep(pause);
    }
}

#[test]
fn no_request_of_a_busy_client_is_lost() {
    let upstream = RecordingUpstream::start();
    let cleartext = public(&upstream);
    let tls = public(&upstream).tls(&Pki::new(), &[&["localhost"]]);
    for round in 0..4 {
        for config in [&cleartext, &tls] {
            // Some send their next request at once, some after the connection was idle for a while.
            let pause = Duration::from_millis(round * 70);
            let gate = Gate::start(config);
            let lost = lost(&gate, |answered| http1(&gate, answered, pause));
            assert!(lost.is_empty(), "pause {pause:?}, TLS {}: {lost:?}", gate.has_tls());
        }
    }
}

#[test]
fn no_stream_of_a_busy_client_is_lost() {
    let upstream = RecordingUpstream::start();
    let cleartext = public(&upstream);
    let tls = public(&upstream).tls(&Pki::new(), &[&["localhost"]]);
    for _ in 0..4 {
        for config in [&cleartext, &tls] {
            let gate = Gate::start(config);
            let lost = lost(&gate, |answered| {
                let mut h2 = H2::connect(&gate);
                loop {
                    let Some(reply) = h2.call_unless_goaway(&get("/x"))? else {
                        return Ok(());
                    };
                    if reply.status != 200 || !reply.body.complete {
                        return Err(format!("status {}, whole: {}", reply.status, reply.body.complete));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(lost.is_empty(), "TLS {}: {lost:?}", gate.has_tls());
        }
    }
}

#[test]
fn the_first_request_of_an_open_connection_is_served() {
    let upstream = RecordingUpstream::start();
    for tls in [false, true] {
        let config = public(&upstream);
        let gate = Gate::start(&if tls {
            config.tls(&Pki::new(), &[&["localhost"]])
        } else {
            config
        });
        let mut conns: Vec<Conn> = (0..CLIENTS).map(|_| gate.connect()).collect();
        gate.signal("TERM");
        wait_until("the listener is closed", Duration::from_secs(5), || {
            std::net::TcpStream::connect(gate.address).is_err()
        });
        for conn in &mut conns {
            let reply = conn.call(&get("/x"));
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
            conn.ends().expect("an orderly end");
        }
    }
}

#[test]
fn queued_connections_are_served() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).server("workers = 1").limits("connections = 1"));
    let mut first = gate.connect();
    assert_eq!(first.call(&get("/x")).status, 200);
    let mut waiting: Vec<Conn> = (0..CLIENTS).map(|_| gate.connect()).collect();
    for conn in &mut waiting {
        conn.send(get("/x").bytes());
    }
    gate.signal("TERM");
    gate.logged(&["draining"]);
    drop(first);
    for mut conn in waiting {
        assert_eq!(conn.reply().status, 200);
        conn.ends().expect("an orderly end");
    }
}

/// The two GOAWAYs of RFC 9113, section 6.8: a stream that was opened before the client could know is served.
#[test]
fn streams_sent_before_goaway_arrives_are_served() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut raw = Raw::open(&gate);
    raw.send(&head(1, &PLAIN, 1));
    raw.response();
    gate.signal("TERM");
    let last = |raw: &mut Raw| raw.until(GOAWAY)[..4].to_vec();
    assert_eq!(last(&mut raw), [0x7f, 0xff, 0xff, 0xff], "all streams are served");
    let ping = raw.until(PING);
    raw.send(&head(3, &PLAIN, 1));
    raw.response();
    raw.send(&[frame(PING, 1, 0, &ping), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat());
    assert_eq!(last(&mut raw), [0, 0, 0, 3], "up to the last one that came");
    while raw.next().is_some() {}
    for _ in 0..3 {
        assert!(
            raw.send(&frame(PING, 0, 0, &[0; 8])),
            "what comes late is read, and not reset"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a client sends on an idle connection at the moment when it is closed is never answered with a reset.
#[test]
fn a_client_that_sends_too_late_sees_fin_and_no_reset() {
    let upstream = RecordingUpstream::start();
    for tls in [false, true] {
        let config = public(&upstream).limits("idle_timeout = \"300ms\"");
        let gate = Gate::start(&if tls {
            config.tls(&Pki::new(), &[&["localhost"]])
        } else {
            config
        });
        let mut conn = gate.connect();
        assert_eq!(conn.call(&get("/x")).status, 200);
        thread::sleep(Duration::from_millis(600));
        conn.wire
            .write(&get("/late").bytes())
            .expect("a connection that is still read");
        conn.ends().expect("an orderly end");
        assert!(upstream.all().iter().all(|call| !call.line().contains("late")));
    }
}
