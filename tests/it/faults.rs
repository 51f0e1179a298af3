//! Upstreams that fail, in all ways that we could think of: what a client gets is 502 or 504 in time, or a body that is seen to be cut.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::client::Reply;
use crate::harness::h2::H2;
use crate::harness::pki::Pki;
use crate::harness::program::program;
use crate::harness::{Call, Config, Conn, Gate, config, get, post, signal, wait_until};

/// How a server leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// As one that has said all.
    Fin,
    /// As one that crashed.
    Reset,
    /// Not at all; it says no more.
    Stays,
}

/// A server that answers `/N` with the bytes at N, and ends so.
fn scripted(script: &'static [(Vec<u8>, Ends)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || play(stream, script));
        }
    });
    address
}

fn play(mut stream: TcpStream, script: &[(Vec<u8>, Ends)]) {
    let _ = stream.set_nodelay(true);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let target = String::from_utf8_lossy(&head)
            .split(' ')
            .nth(1)
            .unwrap_or("/")
            .to_owned();
        let Some((answers_raw, ends)) = target
            .trim_start_matches('/')
            .parse()
            .ok()
            .and_then(|at: usize| script.get(at))
        else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 4\r\n\r\ngood");
            continue;
        };
        let _ = stream.write_all(answers_raw);
        match ends {
            Ends::Fin => return,
            Ends::Reset => {
                // What was said before is to arrive: a reset takes along what is still under way.
                std::thread::sleep(Duration::from_millis(100));
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
            Ends::Stays => {}
        }
    }
}

fn public(address: SocketAddr) -> Config {
    config()
        .tls(&Pki::new(), &[&["localhost"]])
        .upstream("app", &[format!("http://{address}")])
        .with("response_timeout = \"1s\"")
        .public("/*")
}

/// The same request over HTTP/1.1 and over HTTP/2. Nothing: the connection or stream was closed without a word, since the head had not left yet
/// when the body broke off.
fn both(gate: &Gate, target: &str) -> [Option<Reply>; 2] {
    let mut conn = gate.connect();
    conn.send(get(target).bytes());
    let http1 = conn.try_reply("GET").expect("an answer or an end in time");
    [http1, H2::connect(gate).try_call(&get(target))]
}

fn leaked(script: Vec<(Vec<u8>, Ends)>) -> &'static [(Vec<u8>, Ends)] {
    Box::leak(script.into_boxed_slice())
}

#[test]
fn an_invalid_response_is_502_and_a_late_one_504() {
    let ok = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n";
    let mut said: Vec<Vec<u8>> = [
        "",
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Le",
        "{\"detail\":\"not HTTP\"}\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
        "HTTP/1.1 20 OK\r\nX-Upstream: 1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nX-Upstream: 1\r\n\r\n",
        "HTTP/1.1 abc OK\r\nX-Upstream: 1\r\n\r\n",
        "HTTP/1.1 099 OK\r\nX-Upstream: 1\r\n\r\n",
        "HTTP/3.0 200 OK\r\nX-Upstream: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x15\x03\x01\0\x02\x02\x28\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "a line without a colon\r\n",
        "X-A\0B: 1\r\n",
        "X A: 1\r\n",
        "X-A: 1\0\r\n",
        ": nameless\r\n",
    ] {
        said.push(format!("{ok}{fields}\r\nhello").into_bytes());
    }
    // Heads without measure.
    said.push(format!("{ok}X-Huge: {}\r\n\r\n", "x".repeat(4 * 1024 * 1024)).into_bytes());
    said.push(format!("{ok}{}\r\n", "X-A: 1\r\n".repeat(100_000)).into_bytes());
    // An HTTP/2 server where none is expected.
    said.push(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff\r\n\r\n".to_vec());
    let ends = [Ends::Fin, Ends::Reset, Ends::Stays];
    let script = leaked(
        said.iter()
            .flat_map(|said| ends.map(|ends| (said.clone(), ends)))
            .collect(),
    );
    let gate = Gate::start(&public(scripted(script)));
    std::thread::scope(|scope| {
        for half in 0..4 {
            let gate = &gate;
            scope.spawn(move || {
                for (at, (said, ends)) in script.iter().enumerate().filter(|(at, _)| at % 4 == half) {
                    let began = Instant::now();
                    for reply in both(gate, &format!("/{at}")) {
                        let shown = String::from_utf8_lossy(&said[..said.len().min(100)]);
                        let status = reply.map(|reply| reply.status);
                        let late = *ends == Ends::Stays && status == Some(504);
                        assert!(late || status == Some(502), "{shown:?} {ends:?}: {status:?}");
                    }
                    assert!(began.elapsed() < Duration::from_secs(10), "{ends:?}");
                }
            });
        }
    });
    assert_eq!(gate.get("/good").text(), "good");
}

#[test]
fn a_truncated_body_never_looks_complete() {
    let ok = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n";
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let mut script = Vec::new();
    for said in [
        format!("{ok}Content-Length: 100\r\n\r\n"),
        format!("{ok}Content-Length: 100\r\n\r\nhalf"),
        format!("{ok}Content-Length: 10000000\r\n\r\n{}", "x".repeat(500_000)),
        format!("{ok}Transfer-Encoding: chunked\r\n\r\n"),
        chunked.clone(),
        format!("{chunked}64\r\nand a part"),
        format!("{chunked}64"),
        format!("{chunked}0"),
        format!("{chunked}0\r\n"),
        format!("{chunked}0\r\nX-Trailer: 1\r\n"),
        format!("{ok}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nhalf\r\n"),
    ] {
        script.extend([Ends::Fin, Ends::Reset].map(|ends| (said.clone().into_bytes(), ends)));
    }
    // A length that is none ends it too, whether the server stays or not.
    for said in [
        "zz\r\nhalf\r\n",
        "-4\r\nhalf\r\n",
        "fffffffffffffffff\r\nhalf\r\n",
        "4half\r\n",
        "4\r\nhalfmore\r\n4\r\n",
    ] {
        script.extend([Ends::Fin, Ends::Stays].map(|ends| (format!("{chunked}{said}").into_bytes(), ends)));
    }
    // Without a length, only a reset tells that it is not all.
    script.push((format!("{ok}Connection: close\r\n\r\nhalf").into_bytes(), Ends::Reset));
    let script = leaked(script);
    let gate = Gate::start(&public(scripted(script)).with("buffer = { response = \"0B\" }"));
    let ahead = Gate::start(&public(scripted(script)));
    for (at, (said, ends)) in script.iter().enumerate() {
        for reply in [&gate, &ahead]
            .into_iter()
            .flat_map(|gate| both(gate, &format!("/{at}")))
        {
            let shown = String::from_utf8_lossy(&said[..said.len().min(120)]);
            // What has not left yet may still become a 502.
            let cut = |reply: &Reply| reply.status == 502 || reply.status == 200 && !reply.body.complete;
            assert!(reply.as_ref().is_none_or(cut), "{shown:?} {ends:?}: {reply:?}");
        }
    }
    assert!(gate.get("/good").body.complete && ahead.get("/good").body.complete);
}

#[test]
fn bytes_after_a_response_never_answer_the_next_request() {
    let evil = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\nContent-Length: 4\r\n\r\nevil";
    let ok = "HTTP/1.1 200 OK\r\nX-Upstream: 1\r\n";
    let script = leaked(
        [
            format!("{ok}Content-Length: 2\r\n\r\nok{evil}"),
            format!("{ok}Content-Length: 2\r\n\r\nok\r\n"),
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"),
            format!("{ok}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"),
            format!("HTTP/1.1 204 No Content\r\nX-Upstream: 1\r\n\r\n{evil}"),
            format!("HTTP/1.1 304 Not Modified\r\nX-Upstream: 1\r\nContent-Length: 2\r\n\r\n{evil}"),
            format!("HTTP/1.1 100 Continue\r\n\r\n{ok}Content-Length: 2\r\n\r\nok{evil}"),
        ]
        .map(|said| (said.into_bytes(), Ends::Stays))
        .into(),
    );
    let gate = Gate::start(&public(scripted(script)).server("workers = 1"));
    for at in 0..script.len() {
        for _ in 0..10 {
            let target = format!("/{at}");
            for reply in both(&gate, &target) {
                assert!(reply.is_none_or(|reply| !reply.text().contains("evil")), "{target}");
            }
            for reply in [gate.call(&post("/good", "x")), H2::connect(&gate).call(&get("/good"))] {
                assert_eq!((reply.status, reply.text().as_str()), (200, "good"), "behind {target}");
            }
        }
    }
}

/// `authgate echo`, which ends with this value.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start(at: &str) -> Self {
        let mut child = program()
            .args(["echo", "--listen", at])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("an address");
        let address = line.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        Self {
            child,
            address: address.unwrap_or_else(|| panic!("{line:?}")),
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The status of an answer that `authgate echo` may have made.
fn status_of(conn: &mut Conn) -> String {
    let head = conn.wire.head().expect("an answer in time").expect("an answer");
    head.first.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_killed_or_paused_server_fails_only_its_requests() {
    let mut echo = Echo::start("127.0.0.1:0");
    let gate = Gate::start(&public(echo.address).server("workers = 1"));
    let status = |call: &Call| {
        let mut conn = gate.connect();
        conn.send(call.bytes());
        status_of(&mut conn)
    };
    let ask = |expected: &str, what: &str| {
        let began = Instant::now();
        assert_eq!(status(&post("/x", "body")), expected, "{what}");
        assert_eq!(status(&get("/x")), expected, "{what}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
    };
    let again = || {
        wait_until("it is asked again", Duration::from_secs(10), || {
            status(&post("/x", "body")) == "200"
        });
    };
    for _ in 0..2 {
        ask("200", "there");
        // Its socket still takes connections and bytes.
        signal(echo.child.id(), "STOP");
        ask("504", "paused");
        signal(echo.child.id(), "CONT");
        again();
        // While a request is under way: no answer will come any more.
        signal(echo.child.id(), "STOP");
        let mut conn = gate.connect();
        conn.send(post("/x", "under way").bytes());
        wait_until("it is under way", Duration::from_secs(5), || {
            gate.metric("authgate_requests_in_flight") == 1.0
        });
        echo.kill();
        assert_eq!(status_of(&mut conn), "502");
        ask("502", "gone");
        echo = Echo::start(&echo.address.to_string());
        again();
    }
}

/// What an HTTP/2 server says, as bytes.
fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const NO_ERROR: [u8; 4] = [0; 4];
const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];

/// An HTTP/2 server's SETTINGS, and `:status: 200` by the static table with `x-upstream: 1` and more as literals.
fn h2_head(more: &[u8]) -> Vec<u8> {
    let fields = [&[0x88, 0, 10][..], b"x-upstream", &[1], b"1", more].concat();
    [h2_frame(SETTINGS, 0, 0, &[]), h2_frame(HEADERS, 4, 1, &fields)].concat()
}

#[test]
fn failures_of_an_http2_server_are_502_or_504() {
    let settings = h2_frame(SETTINGS, 0, 0, &[]);
    let head = h2_head(&[]);
    let sized = h2_head(&[&[0, 14][..], b"content-length", &[3], b"100"].concat());
    let half = h2_frame(DATA, 0, 1, b"half");
    let goaway = |last: u8, code: [u8; 4]| h2_frame(GOAWAY, 0, 0, &[&[0, 0, 0, last][..], &code].concat());
    // With what it says, and whether a head of it may arrive.
    let cases: Vec<(Vec<u8>, Ends, bool)> = vec![
        (vec![], Ends::Fin, false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Ends::Fin, false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Ends::Stays, false),
        (settings.clone(), Ends::Fin, false),
        (settings.clone(), Ends::Reset, false),
        (settings.clone(), Ends::Stays, false),
        (
            [settings.clone(), h2_frame(RST_STREAM, 0, 1, &INTERNAL_ERROR)].concat(),
            Ends::Stays,
            false,
        ),
        ([settings.clone(), goaway(0, INTERNAL_ERROR)].concat(), Ends::Fin, false),
        (
            [settings.clone(), h2_frame(HEADERS, 5, 1, &[0])].concat(),
            Ends::Stays,
            false,
        ),
        (
            [settings, h2_frame(DATA, 0, 1, b"no head")].concat(),
            Ends::Stays,
            false,
        ),
        ([head.clone(), half.clone()].concat(), Ends::Fin, true),
        ([head.clone(), half.clone()].concat(), Ends::Reset, true),
        (
            [head.clone(), half.clone(), h2_frame(RST_STREAM, 0, 1, &INTERNAL_ERROR)].concat(),
            Ends::Stays,
            true,
        ),
        (
            [head.clone(), half.clone(), goaway(0, INTERNAL_ERROR)].concat(),
            Ends::Fin,
            true,
        ),
        (
            [head.clone(), half.clone(), goaway(1, NO_ERROR)].concat(),
            Ends::Fin,
            true,
        ),
        ([head, h2_frame(DATA, 0, 9, b"of no stream")].concat(), Ends::Fin, true),
        ([sized, h2_frame(DATA, 1, 1, b"half")].concat(), Ends::Stays, true),
    ];
    for (answers_raw, ends, answered) in cases {
        fails_well(answers_raw, ends, answered);
    }
}

#[test]
fn a_body_that_an_http2_server_resets_without_an_error_never_looks_complete() {
    let reset = h2_frame(RST_STREAM, 0, 1, &NO_ERROR);
    fails_well(
        [h2_head(&[]), h2_frame(DATA, 0, 1, b"half"), reset].concat(),
        Ends::Stays,
        true,
    );
}

/// What an HTTP/2 server says to a request, how it ends, and whether a head of it may arrive.
fn fails_well(answers_raw: Vec<u8>, ends: Ends, answered: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shown = format!("{answers_raw:?} {ends:?}");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answers_raw = answers_raw.clone();
            std::thread::spawn(move || {
                let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
                // HEADERS of stream 1: the request is there.
                while !heard
                    .windows(6)
                    .any(|six| six[0] == HEADERS && six[2..] == [0, 0, 0, 1])
                {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => heard.extend_from_slice(&buffer[..count]),
                    }
                }
                let _ = stream.write_all(&answers_raw);
                if ends == Ends::Reset {
                    std::thread::sleep(Duration::from_millis(100));
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
                while ends == Ends::Stays && stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
        }
    });
    let gate = Gate::start(&public(address).with(&format!("servers = [\"h2c://{address}\"]")));
    let began = Instant::now();
    for reply in both(&gate, "/x") {
        let ended_well = |reply: &Reply| {
            let cut = answered && reply.status == 200 && !reply.body.complete;
            cut || reply.status == 502 || ends == Ends::Stays && reply.status == 504
        };
        assert!(reply.as_ref().map_or(answered, ended_well), "{shown}: {reply:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{shown}");
}
