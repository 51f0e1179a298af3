//! How a gateway ends: what is under way comes to its end, nothing new begins.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::harness::h2::H2;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// An upstream that answers when it is told to.
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
fn requests_under_way_come_to_their_end() {
    let (upstream, release) = waiting();
    let mut gate = Gate::start(&public(&upstream));
    let mut idle = gate.connect();
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    gate.signal("TERM");
    assert!(idle.wire.closes(), "idle connections end at once");
    wait_until("nobody listens", Duration::from_secs(5), || {
        std::net::TcpStream::connect(gate.address).is_err()
    });
    assert!(!gate.has_ended());
    release.send(()).unwrap();
    let reply = conn.reply();
    assert!(reply.status == 200 && reply.body.complete);
    assert!(gate.stop().contains("drained"));
}

#[test]
fn a_delay_says_unready_and_still_serves() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream).drain("delay = \"1500ms\""));
    gate.signal("TERM");
    wait_until("it is not ready", Duration::from_secs(5), || {
        gate.probe("/readyz").status == 503
    });
    assert_eq!(gate.get("/x").status, 200);
}

#[test]
fn what_takes_too_long_is_cut_and_the_end_is_still_a_good_one() {
    let (upstream, _release) = waiting();
    let gate = Gate::start(&public(&upstream).drain("timeout = \"300ms\""));
    let mut conn = gate.connect();
    conn.send(get("/x").bytes());
    upstream.wait_for_calls(1);
    let log = gate.stop();
    assert!(log.contains("are cut"), "{log}");
    assert!(conn.wire.head().is_ok_and(|head| head.is_none()));
}

#[test]
fn http2_connections_are_told_to_go_away() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    let mut h2 = H2::connect(&gate);
    assert_eq!(h2.call(&get("/x")).status, 200);
    gate.signal("TERM");
    wait_until("the connection is closed", Duration::from_secs(5), || {
        h2.sender.is_closed()
    });
}

#[test]
fn sighup_changes_nothing_yet_and_says_so() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    gate.signal("HUP");
    gate.logged(&["reload is not built yet"]);
    assert_eq!(gate.get("/x").status, 200);
}
