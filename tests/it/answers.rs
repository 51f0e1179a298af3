//! What servers answer: one reading or none, and nobody waits for one that has fallen silent.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, Next, RecordingUpstream, config, get, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

#[test]
fn a_server_that_falls_silent_in_a_body_is_given_up_and_one_that_streams_is_not() {
    let upstream = RecordingUpstream::start();
    let (_release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    upstream.answers(move |mut exchange| {
        exchange.read_body();
        let kind = exchange.head.header("x-kind").unwrap_or("text/plain").to_owned();
        let head = format!("HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Type: {kind}\r\nContent-Length: 8\r\n\r\nhalf");
        exchange.write(head);
        let live = kind == "text/event-stream";
        let _ = wait.lock().unwrap().recv_timeout(if live {
            Duration::from_secs(2)
        } else {
            Duration::from_secs(20)
        });
        exchange.write("half");
        Next::Keep
    });
    let config = config()
        .upstream("app", &[upstream.url()])
        .with("body_read_timeout = \"300ms\"")
        .public("/*");
    let gate = Gate::start(&config);
    let live = gate.call(&get("/events").header("X-Kind", "text/event-stream"));
    assert!(live.body.complete && live.text() == "halfhalf", "{live:?}");
    let cut = gate.get("/x");
    assert!(cut.status == 200 && !cut.body.complete, "{cut:?}");
    gate.logged(&["upstream_silent", "silent in the middle of a body"]);
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_502() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&public(&upstream));
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "X: y\r\n folded",
        "X : y",
    ] {
        upstream.says(format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n{fields}\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        ));
        let reply = gate.get("/x");
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (502, "Bad gateway."),
            "{fields}"
        );
        gate.logged(&["upstream_no_response", "what came cannot be read"]);
    }
}

#[test]
fn a_cut_body_looks_cut_to_clients_of_http_1_0_too() {
    let upstream = RecordingUpstream::start();
    for config in [public(&upstream), public(&upstream).tls(&Pki::new(), &[&["localhost"]])] {
        let gate = Gate::start(&config);
        let ends = |answer: &str| {
            upstream.says(answer);
            let mut conn = gate.connect();
            conn.send("GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n");
            conn.wire.head().unwrap().expect("a head");
            // As the library sees it: a reset, or TLS that was not closed.
            std::io::Read::read_to_end(&mut conn.wire.stream, &mut Vec::new()).is_ok()
        };
        let head = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        assert!(ends(&format!("{head}4\r\nhalf\r\n0\r\n\r\n")), "a whole one ends");
        assert!(!ends(head), "a cut one does not");
        assert!(!ends(&format!("{head}zz\r\n")), "nor does one that is broken");
    }
}

#[test]
fn a_client_whose_answer_comes_early_sends_its_request_to_the_end() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        let bodiless = exchange.head.first.contains("/204");
        exchange.write(if bodiless {
            "HTTP/1.1 204 No Content\r\nX-Upstream: 1\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\nok"
        });
        exchange.read_body();
        Next::Keep
    });
    let gate = Gate::start(&public(&upstream));
    for target in ["/200", "/204"] {
        let mut conn = gate.connect();
        for at in 0..3 {
            let before = upstream.calls();
            let length = 4 * 1024 * 1024;
            conn.send(format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            ));
            let reply = conn.reply();
            assert!(reply.status < 300, "{target} {at}: {reply:?}");
            for _ in 0..length / 65_536 {
                conn.send(vec![b'x'; 65_536]);
            }
            let whole = || {
                upstream
                    .all()
                    .get(before)
                    .is_some_and(|seen| seen.body.data.len() == length)
            };
            wait_until("all of it has come", Duration::from_secs(10), whole);
        }
        assert_eq!(conn.call(&get("/200")).status, 200, "and the connection goes on");
    }
}
