//! One reading of every HTTP/1 message, or none: what is refused is answered as everything else is, and goes nowhere.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::Conn;
use crate::harness::{Config, Gate, Next, RecordingUpstream, config, get};

const GOOD: &str = "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn open_to_all(upstream: &RecordingUpstream) -> Config {
    config()
        .app(upstream)
        .public("/*")
        .route("/api/*", "public = true\nmethods = [\"GET\", \"POST\"]")
}

/// Wants an answer of that status with all that our answers have, and then the end.
fn refused(conn: &mut Conn, status: u16, detail: &str, what: &str) -> String {
    let reply = conn.reply();
    assert_eq!((reply.status, reply.detail().as_str()), (status, detail), "{what:?}");
    assert_eq!(reply.header("connection"), Some("close"), "{what:?}");
    assert!(conn.wire.closes(), "{what:?} leaves the connection open");
    reply.header("x-request-id").unwrap().to_owned()
}

/// Heads that servers disagree on, each with the part of the reason that the log gives.
const BAD: [(&str, &str); 36] = [
    ("GET / HTTP/1.1\nHost: localhost\n\n", "first line"),
    ("GET / HTTP/1.1\r\nHost: localhost\n\r\n", "bare LF"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n\n", "field's name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\rX: y\r\n\r\n", "bare CR"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n", "folded"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n", "folded"),
    ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", "field's name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n", "field's name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", "field's name"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", "control"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x1bb\r\n\r\n", "control"),
    ("GET / HTTP/1.1\r\n\r\n", "no Host"),
    ("GET / HTTP/1.0\r\n\r\n", "no Host"),
    ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "second"),
    ("GET /#x HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
    ("GET /?x#y HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
    ("GET /\u{e9} HTTP/1.1\r\nHost: localhost\r\n\r\n", "target"),
    ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", "no target"),
    ("GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", "first line"),
    ("GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", "version"),
    ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", "version"),
    ("GET /\r\nHost: localhost\r\n\r\n", "target"),
    ("\n\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "method"),
    ("@ / HTTP/1.1\r\nHost: localhost\r\n\r\n", "method"),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "beside",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "beside",
    ),
    (
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        "second",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4, 4\r\n\r\nabcd",
        "Content-Length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +4\r\n\r\nabcd",
        "Content-Length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x4\r\n\r\nabcd",
        "Content-Length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n",
        "Content-Length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "second",
    ),
    (
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "control",
    ),
];

#[test]
fn a_message_that_can_be_read_in_two_ways_is_answered_400_and_goes_nowhere() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    for (head, reason) in BAD {
        let mut conn = gate.connect();
        conn.send(head);
        let id = refused(&mut conn, 400, "Malformed request.", head);
        let log = gate.logged(&[&id]);
        let line = log.lines().find(|line| line.contains(&id)).unwrap();
        let event: Value = serde_json::from_str(line).unwrap();
        let said = event["reason"].as_str().unwrap_or_default();
        assert!(
            event["outcome"] == "malformed" && event["http.status"] == 400 && said.contains(reason),
            "{head:?}: {event}"
        );
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut_nor_what_was_answered_before() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    for (head, _) in BAD {
        let mut conn = gate.connect();
        conn.send(format!("{GOOD}{head}GET /behind HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(conn.reply().status, 200, "{head:?}");
        refused(&mut conn, 400, "Malformed request.", head);
    }
    for (head, _) in BAD.iter().step_by(5) {
        let mut conn = gate.connect();
        for byte in format!("{GOOD}{head}").as_bytes() {
            // The gateway may have closed the connection already.
            if conn.wire.stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        assert_eq!(conn.reply().status, 200, "{head:?}");
        refused(&mut conn, 400, "Malformed request.", head);
    }
    assert!(upstream.all().iter().all(|seen| seen.line() == "GET /first"));
}

#[test]
fn a_refused_message_does_not_cut_off_the_answer_before_it() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    let mut conn = gate.connect();
    upstream.answers(|exchange| {
        std::thread::sleep(Duration::from_millis(300));
        exchange.ok()
    });
    conn.send(GOOD);
    upstream.wait_for_calls(1);
    conn.send("GET / HTTP/1.1\nHost: localhost\n\n");
    assert_eq!(conn.reply().status, 200);
    refused(&mut conn, 400, "Malformed request.", "a bare LF");
}

#[test]
fn nothing_follows_an_answer_that_closes() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    for behind in [
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "\0",
        "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut conn = gate.connect();
        conn.send(format!(
            "GET /first HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{behind}"
        ));
        let reply = conn.reply();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        assert!(conn.wire.closes(), "{behind:?} is answered after Connection: close");
    }
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn chunks_that_can_be_read_in_two_ways_end_the_request() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    for chunks in [
        "g\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\r0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "0000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
        "3\r\nabc\r\n0\r\n X: y\r\n\r\n",
    ] {
        let mut conn = gate.connect();
        conn.send(format!(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /behind HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let reply = conn.reply();
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (400, "Malformed request."),
            "{chunks:?}"
        );
        assert!(conn.wire.closes(), "{chunks:?}");
    }
    assert!(upstream.all().iter().all(|seen| seen.line() != "GET /behind"));
    assert!(
        upstream.all().iter().all(|seen| !seen.body.complete),
        "a cut body looks whole"
    );
    let mut conn = gate.connect();
    conn.send("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n00\r\nX-T: y\r\n\r\n");
    assert_eq!(conn.reply().status, 200);
    assert_eq!(upstream.last().body.data, b"abc");
}

#[test]
fn heads_that_are_too_large_are_answered() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &open_to_all(&upstream)
            .limits("header_bytes = \"16KiB\"")
            .limits("headers = 20"),
    );
    let many = (0..20).fold(get("/x"), |call, at| call.header(&format!("X-{at}"), "1"));
    let large = "Request Header Fields Too Large.";
    for (call, status, detail) in [
        (get("/x").header("X-Long", "x".repeat(20_000)), 431, large),
        (many, 431, large),
        (get(&format!("/{}", "x".repeat(20_000))), 414, "URI Too Long."),
    ] {
        let mut conn = gate.connect();
        let _ = conn.wire.write(&call.bytes());
        refused(&mut conn, status, detail, detail);
    }
    for outcome in ["head_too_large", "target_too_long"] {
        gate.logged(&[outcome]);
    }
    let most = (0..19).fold(get("/x"), |call, at| call.header(&format!("X-{at}"), "1"));
    assert_eq!(gate.call(&most).status, 200);
    assert_eq!(gate.call(&get("/x").header("X-Long", "x".repeat(16_000))).status, 200);
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn a_head_behind_another_request_has_its_deadline_too() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream).limits("header_timeout = \"300ms\""));
    let mut conn = gate.connect();
    conn.send(format!("{GOOD}GET /second HTTP/1.1\r\nHost: loc"));
    assert_eq!(conn.reply().status, 200);
    refused(&mut conn, 408, "Request Timeout.", "half a head");
}

#[test]
fn a_client_that_is_refused_before_its_body_is_read_sees_the_answer() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream).limits("body_bytes = \"1KiB\""));
    // More than any buffer between the two holds.
    for framing in ["Content-Length: 20000000", "Transfer-Encoding: chunked"] {
        let mut conn = gate.connect();
        let mut request = format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n").into_bytes();
        if framing.starts_with('T') {
            request.extend_from_slice(b"1312d00\r\n");
        }
        request.resize(request.len() + 20_000_000, b'x');
        if framing.starts_with('T') {
            request.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        conn.send(request);
        assert_eq!(conn.reply().status, 413, "{framing}");
        assert!(conn.wire.closes());
    }
}

/// One case of a page: what is sent, and the code of the error that it must end in.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    error: Option<u32>,
}

/// The blocks of a page of llhttp's tests that are about requests, read strictly.
fn vectors_of(page: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for part in page.split("<!-- meta=").skip(1) {
        let Some((meta, rest)) = part.split_once("-->") else {
            continue;
        };
        let strict = meta.contains("\"request\"") && !meta.contains("pause") && !meta.contains("skipBody");
        let blocks: Vec<&str> = rest.split("```").collect();
        let (Some(sent), Some(log)) = (
            blocks.iter().find_map(|block| block.strip_prefix("http\n")),
            blocks.iter().find_map(|block| block.strip_prefix("log\n")),
        ) else {
            continue;
        };
        if !strict {
            continue;
        }
        let text = sent
            .strip_suffix('\n')
            .unwrap_or(sent)
            .replace("\\\n", "")
            .replace('\n', "\r\n");
        let text = text
            .replace("\\r", "\r")
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace("\\f", "\x0c");
        let error = log.lines().last().and_then(|line| line.split_once(" error code="));
        let error = error.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        vectors.push(Vector {
            name: text.chars().take(60).collect(),
            bytes: with_host(&text).into_bytes(),
            error,
        });
    }
    vectors
}

/// Those cases are about parsers and not servers: most have no Host.
fn with_host(text: &str) -> String {
    if text.to_ascii_lowercase().contains("\nhost:") {
        return text.to_owned();
    }
    let begins = text.len() - text.trim_start_matches(['\r', '\n']).len();
    match text[begins..].find("\r\n") {
        Some(at) => {
            let (line, rest) = text.split_at(begins + at + 2);
            format!("{line}Host: localhost\r\n{rest}")
        }
        None => text.to_owned(),
    }
}

#[test]
fn what_llhttp_refuses_is_refused() {
    let folder = std::env::var_os("AUTHGATE_VECTORS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"));
    let Ok(pages) = std::fs::read_dir(folder.join("http1-llhttp")) else {
        eprintln!("skipped: no test vectors in {}", folder.display());
        return;
    };
    // 5: bytes after a request that closes; 21 to 23: pauses and upgrades.
    const NO_FAULT: [u32; 4] = [5, 21, 22, 23];
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&open_to_all(&upstream));
    let (mut judged, mut wrong) = (0, Vec::new());
    for page in pages.map(|page| page.unwrap().path()).filter(|path| path.is_file()) {
        for vector in vectors_of(&String::from_utf8_lossy(&std::fs::read(&page).unwrap())) {
            let Some(error) = vector.error.filter(|code| !NO_FAULT.contains(code)) else {
                continue;
            };
            // Methods that one parser does not know are tokens too (RFC 9110, section 9.1).
            if vector.name.starts_with("MKCOLA") || vector.name.starts_with("ANNOUNCE") {
                continue;
            }
            judged += 1;
            let mut conn = gate.connect();
            let _ = conn.wire.write(&vector.bytes);
            conn.set_timeout(Duration::from_secs(2));
            let mut last = 0;
            let refused = loop {
                match conn.try_reply("GET") {
                    Ok(Some(reply)) => last = reply.status,
                    Ok(None) => break last == 0 || last >= 400,
                    Err(_) => break false,
                }
            };
            if !refused {
                wrong.push(format!(
                    "{}: {:?} (code {error}), last answer {last}",
                    page.display(),
                    vector.name
                ));
            }
        }
    }
    assert!(judged >= 50 && wrong.is_empty(), "{judged} judged, wrong: {wrong:#?}");
}

/// Pieces of messages, good and bad, that are put together at random.
const PIECES: [&str; 40] = [
    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /",
    "POST /x?y=",
    "OPTIONS *",
    "CONNECT localhost:80",
    "GET http://localhost/x",
    "GET localhost",
    "PUT /",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    "Host: localhost\r\n",
    "Host: [::1]:80\r\n",
    "Host: a b\r\n",
    "Host:\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, X\r\n",
    "Upgrade: websocket\r\nConnection: upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "X: y\r\n",
    "X-\u{fc}: y\r\n",
    "X: \u{fc}\r\n",
    "\r\n",
    "\r\n\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "3;a=b\r\nabc\r\n0\r\nT: x\r\n\r\n",
    "%zz",
    "%00",
    "[]{}|^`\\\"",
    ":",
    " ",
    "\n",
    "\0",
];

/// A message that may be good: a line, mostly a Host, some fields, an end, and something behind it.
fn message(rng: &mut fastrand::Rng) -> String {
    let any = |rng: &mut fastrand::Rng, from: usize, to: usize| PIECES[rng.usize(from..to)];
    let mut message = String::new();
    if rng.u32(..4) > 0 {
        message += any(rng, 1, 8);
        message += if rng.u32(..5) > 0 {
            " HTTP/1.1\r\n"
        } else {
            any(rng, 8, 11)
        };
        message += if rng.u32(..5) > 0 { "Host: localhost\r\n" } else { "" };
        for _ in 0..rng.usize(..3) {
            message += any(rng, 11, 27);
        }
        message += "\r\n";
    }
    for _ in 0..rng.usize(..4) {
        message += any(rng, 0, PIECES.len());
    }
    message
}

#[test]
fn the_parser_behind_the_guard_has_nothing_to_say() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &open_to_all(&upstream)
            .limits("header_timeout = \"100ms\"")
            .limits("body_read_timeout = \"100ms\"")
            .limits("idle_timeout = \"100ms\""),
    );
    let run = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut answered = [0; 6];
        for _ in 0..400 {
            let mut conn = gate.connect();
            let _ = conn.wire.write(message(&mut rng).as_bytes());
            // Each answer is one of the upstream's or one of ours, with its id and its body: the harness looks at all of them.
            while let Ok(Some(reply)) = conn.try_reply("GET") {
                answered[usize::from(reply.status / 100)] += 1;
            }
        }
        answered
    };
    let answered: Vec<[usize; 6]> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|seed| {
                scope.spawn({
                    let run = &run;
                    move || run(seed)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("it runs")).collect()
    });
    let (good, bad) = answered
        .iter()
        .fold((0, 0), |(good, bad), one| (good + one[2], bad + one[4]));
    assert!(good > 300 && bad > 1000, "{good} and {bad}");
}

/// The end of an answer may wait in our own buffers, if the system's happen to be full just before it: so, of many sizes, some.
#[test]
fn a_refused_message_waits_until_a_slow_reader_has_the_answer_before_it() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|mut exchange| {
        exchange.read_body();
        let kibs: usize = exchange.head.first.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: {}\r\n\r\n",
            kibs * 1024
        );
        exchange.write([head.as_bytes(), &vec![b'x'; kibs * 1024]].concat());
        Next::Close
    });
    let gate = Gate::start(&config().app(&upstream).public("/*"));
    let read = |kibs: usize| {
        let mut tcp = std::net::TcpStream::connect(gate.address).unwrap();
        socket2::SockRef::from(&tcp).set_recv_buffer_size(64 * 1024).unwrap();
        tcp.write_all(format!("GET /{kibs} HTTP/1.1\r\nHost: localhost\r\n\r\nX\0").as_bytes())
            .unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let mut answers = Vec::new();
        tcp.read_to_end(&mut answers).unwrap();
        let body = answers.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (body, refusal) = answers[body..].split_at((kibs * 1024).min(answers.len() - body));
        let whole = body.len() == kibs * 1024 && body.iter().all(|byte| *byte == b'x');
        assert!(whole, "the answer of {kibs} KiB was cut off");
        assert!(refusal.starts_with(b"HTTP/1.1 400 "), "{kibs} KiB");
    };
    std::thread::scope(|scope| {
        for at in 0..60 {
            scope.spawn(move || read(2000 + at * 40));
        }
    });
}
