//! What HTTP/2 clients take, and how fast: windows that stay closed, answers that wait for them, and the end of both.

use std::time::{Duration, Instant};

use crate::harness::frames::{
    CANCEL, DATA, GOAWAY, HEADERS, PLAIN, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, head,
};
use crate::harness::{Config, Gate, RecordingUpstream, config, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// Streams are to begin without a window (RFC 9113, section 6.5.2).
fn no_window() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

#[test]
fn a_stream_of_which_a_client_takes_nothing_is_reset() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| match exchange.head.first.as_str() {
        "GET /big HTTP/1.1" => exchange.answer("200 OK", "", &vec![b'x'; 100_000]),
        _ => exchange.ok(),
    });
    let gate = Gate::start(&public(&upstream).limits("body_read_timeout = \"1s\""));
    let mut raw = Raw::open(&gate);
    // It opens one for the connection and the first stream alone.
    let mut big = PLAIN;
    big[3].1 = "/big";
    raw.send(
        &[
            no_window(),
            head(1, &big, 1),
            frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()),
            frame(WINDOW_UPDATE, 0, 1, &1_000_000_u32.to_be_bytes()),
            head(3, &big, 1),
        ]
        .concat(),
    );
    let mut taken = 0;
    loop {
        match raw.next().expect("a frame") {
            (DATA, 1, payload) => taken += payload.len(),
            (DATA, stream, payload) => assert!(payload.is_empty(), "{} bytes of {stream}", payload.len()),
            (RST_STREAM, stream, payload) => {
                assert_eq!((stream, payload), (3, vec![0, 0, 0, CANCEL]));
                break;
            }
            (GOAWAY, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
    assert_eq!(taken, 100_000);
    raw.send(&[head(5, &PLAIN, 1), frame(WINDOW_UPDATE, 0, 5, &[0, 1, 0, 0])].concat());
    raw.response();
}

#[test]
fn all_that_came_before_a_cut_reaches_a_client_that_was_slow() {
    const SENT: usize = 12 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    let mut answer = b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 13000000\r\n\r\n".to_vec();
    answer.resize(answer.len() + SENT, b'x');
    upstream.says(answer);
    let gate = Gate::start(&public(&upstream).with("buffer = { response = \"16MiB\" }"));
    let mut raw = Raw::open(&gate);
    let window = |stream| frame(WINDOW_UPDATE, 0, stream, &20_000_000_u32.to_be_bytes());
    raw.send(&[no_window(), head(1, &PLAIN, 1), window(0)].concat());
    // The server has said all that it will, and none of it was taken yet.
    wait_until("the server is let go", Duration::from_secs(10), || {
        upstream.calls() > 0 && upstream.open() == 0
    });
    // Requests that are under way beside it, and whose turn it is as well.
    let mut post = PLAIN;
    post[0].1 = "POST";
    raw.send(&[3, 5, 7, 9].map(|stream| head(stream, &post, 0)).concat());
    raw.send(
        &[
            [3, 5, 7, 9].map(|stream| frame(DATA, 0, stream, b"x")).concat(),
            window(1),
        ]
        .concat(),
    );
    let mut taken = 0;
    loop {
        match raw.next().unwrap_or_else(|| panic!("{taken} bytes")) {
            (DATA, 1, payload) => taken += payload.len(),
            (RST_STREAM, 1, _) => break,
            (GOAWAY, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
    assert_eq!(taken, SENT);
}

#[test]
fn a_client_that_takes_little_by_little_is_not_let_go() {
    const BODY: usize = 8 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| exchange.answer("200 OK", "", &vec![b'x'; BODY]));
    let gate = Gate::start(&public(&upstream).limits("body_read_timeout = \"1s\""));
    let mut raw = Raw::open(&gate);
    socket2::SockRef::from(&raw.0)
        .set_recv_buffer_size(64 * 1024)
        .expect("a socket");
    let window = |stream| frame(WINDOW_UPDATE, 0, stream, &1_000_000_000_u32.to_be_bytes());
    let streams = [1, 3, 5];
    raw.send(
        &[
            streams.map(|stream| head(stream, &PLAIN, 1)).concat(),
            streams.map(window).concat(),
            window(0),
        ]
        .concat(),
    );
    // More waits for it all the time than it takes at once.
    let slowly = Instant::now() + Duration::from_secs(3);
    let mut taken = 0;
    while taken < BODY * streams.len() {
        match raw.next().unwrap_or_else(|| panic!("cut off after {taken} bytes")) {
            (DATA, _, payload) => taken += payload.len(),
            (RST_STREAM | GOAWAY, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
        if Instant::now() < slowly {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_drain_waits_for_the_end_of_an_answer_that_its_client_has_no_room_for() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| exchange.answer("200 OK", "", &vec![b'x'; 10_000]));
    let gate = Gate::start(&public(&upstream));
    let mut raw = Raw::open(&gate);
    raw.send(&[no_window(), head(1, &PLAIN, 1)].concat());
    while !matches!(raw.next().expect("a frame"), (HEADERS, ..)) {}
    gate.signal("TERM");
    // Longer than a client has for its goodbye.
    std::thread::sleep(Duration::from_millis(4500));
    raw.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0]));
    let mut taken = 0;
    while taken < 10_000 {
        if let (DATA, 1, payload) = raw.next().unwrap_or_else(|| panic!("cut off after {taken} bytes")) {
            taken += payload.len();
        }
    }
}
