//! What HTTP/2 clients take, and how fast: windows that stay closed, answers that wait for them, and the end of both.

use std::time::{Duration, Instant};

use crate::harness::frames::{
    CANCEL, DATA, GOAWAY, HEADERS, PLAIN, RST_STREAM, Raw, SETTINGS, Sender, WINDOW_UPDATE, frame, head,
};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, wait_until};

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// Streams are to begin without a window (RFC 9113, section 6.5.2).
fn no_window() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

#[test]
fn a_stream_whose_client_gives_no_window_is_reset() {
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
fn a_slow_client_receives_all_data_before_a_cut() {
    const SENT: usize = 12 * 1024 * 1024;
    let upstream = RecordingUpstream::start();
    let mut answer = b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 13000000\r\n\r\n".to_vec();
    answer.resize(answer.len() + SENT, b'x');
    upstream.answers_raw(answer);
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
fn a_slowly_reading_client_is_not_disconnected() {
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
fn a_drain_waits_for_a_response_that_is_blocked_by_the_window() {
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

/// Each stream of a connection may be sent so much that is not read; the connection as a whole, so much besides.
const STREAM_WINDOW: usize = 256 * 1024;
const CONNECTION_WINDOW: i64 = 1024 * 1024;

#[test]
fn unread_uploads_do_not_block_other_streams() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(
        &config()
            .redis_with_long_timeout(&redis)
            .token("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .protected("/p")
            .public("/x"),
    );
    let mut sender = Sender::open(&gate);
    // As long as the store does not answer, none of their bodies is asked for.
    redis.pause();
    let (stalled, last) = (120, 241);
    let request = |path| {
        let token = ("authorization", "Token canary-ada");
        [(":method", "POST"), PLAIN[1], PLAIN[2], (":path", path), token]
    };
    let before = gate.memory();
    for stream in (1..last).step_by(2) {
        sender.request(stream, &request("/p"), 0);
        for _ in 0..STREAM_WINDOW / 16_384 {
            sender.data(stream, 16_384, 0);
        }
    }
    // What is held is what has come, and not many times as much.
    let held = stalled * STREAM_WINDOW;
    assert!(gate.memory() < before + 2 * held, "{}", gate.memory() - before);
    sender.request(last, &request("/x"), 0);
    for _ in 0..100 {
        sender.data(last, 16_384, 0);
    }
    sender.data(last, 0, 1);
    sender.until(|sender| sender.answered == 1);
    assert_eq!(upstream.calls(), 1);
    redis.resume();
    for stream in (1..last).step_by(2) {
        sender.data(stream, 16_384, 1);
    }
    sender.until(|sender| sender.answered == stalled + 1);
    sender.is_served(last + 2);
    // Once nothing is held any more, the window is what it was.
    for round in 1..150 {
        let stream = last + 2 + 2 * round;
        sender.request(stream, &request("/x"), 0);
        sender.data(stream, 16_384, 1);
        sender.until(|sender| sender.answered == stalled + 2 + round as usize);
    }
    let step = i64::try_from(STREAM_WINDOW).unwrap();
    assert!(
        sender.connection <= CONNECTION_WINDOW + step,
        "{} are left open",
        sender.connection
    );
}

#[test]
fn data_beyond_the_window_is_not_buffered_repeatedly() {
    const STREAMS: u32 = 128;
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| exchange.answer("200 OK", "", &vec![b'x'; 1_000_000]));
    // Without a buffer of its own, so that all of it is what HTTP/2 holds.
    let gate = Gate::start(&public(&upstream).with("buffer = { response = \"0B\" }"));
    let ask = |raw: &mut Raw| {
        let small = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
        let heads: Vec<u8> = (0..STREAMS).flat_map(|at| head(2 * at + 1, &PLAIN, 1)).collect();
        raw.send(&[small, heads].concat());
        let mut begun = 0;
        while begun < STREAMS {
            begun += u32::from(matches!(raw.next().expect("a frame"), (DATA, ..)));
        }
    };
    // The first one warms up what is kept for later.
    let mut raws = vec![Raw::open(&gate)];
    ask(&mut raws[0]);
    let before = gate.memory();
    for _ in 0..4 {
        let mut raw = Raw::open(&gate);
        ask(&mut raw);
        raws.push(raw);
    }
    let each = (gate.memory() - before) / (4 * STREAMS as usize);
    assert!(each < 24 * 1024, "{each} bytes a stream");
}
