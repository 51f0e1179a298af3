//! Request bodies without a length: they wait on disk until it is known, stream, or are refused.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::harness::client::Reply;
use crate::harness::gunicorn::{self, Gunicorn};
use crate::harness::h2server::{Answer, H2Server};
use crate::harness::pki::Pki;
use crate::harness::upstream::closed_port;
use crate::harness::{Call, Config, Conn, Gate, RecordingUpstream, Redis, call, config, get, post, signal, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;
const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + u8::try_from(at % 23).unwrap()).collect()
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for part in body.chunks(60_001) {
        chunks.extend_from_slice(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    chunks
}

/// A POST by chunks.
fn chunked(target: &str, body: &[u8]) -> Call {
    let mut call = call("POST", target).header("Transfer-Encoding", "chunked");
    call.body = [&chunks(body)[..], b"0\r\n\r\n"].concat();
    call
}

/// A POST over HTTP/2 in the clear, without a length. The answer's status, and its body; nothing if the stream is reset before.
fn over_http2(gate: &Gate, target: &str, body: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let request = http::Request::post(format!("http://localhost{target}"))
        .body(())
        .unwrap();
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(gate.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
        let driven = tokio::spawn(connection);
        let (answer, mut stream) = client.send_request(request, false).unwrap();
        let mut rest = Bytes::from(body);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                break;
            };
            let piece = rest.split_to(room.min(rest.len()));
            if stream.send_data(piece, rest.is_empty()).is_err() {
                break;
            }
        }
        let answer = answer.await.ok()?;
        let (head, mut incoming) = answer.into_parts();
        let mut whole = Vec::new();
        while let Some(Ok(data)) = incoming.data().await {
            let _ = incoming.flow_control().release_capacity(data.len());
            whole.extend_from_slice(&data);
        }
        driven.abort();
        Some((head.status.as_u16(), whole))
    })
}

fn status_over_http2(gate: &Gate, body: Vec<u8>) -> u16 {
    over_http2(gate, "/x", body).expect("an answer").0
}

/// A body that is refused while it is sent.
fn refused_over_http2(gate: &Gate, body: Vec<u8>, status: u16) {
    let (answered, _) = over_http2(gate, "/x", body).expect("a refused upload ends with its answer");
    assert_eq!(answered, status);
}

/// A gateway that spools into a folder of its own, beside its file.
fn spooling(upstream: &RecordingUpstream, body: &str, total: &str) -> Config {
    config()
        .app(upstream)
        .with(&format!(
            "spool = {{ dir = \".\", body = \"{body}\", total = \"{total}\" }}"
        ))
        .public("/*")
}

/// Sizes of the files without a name that the gateway has open in its folder.
fn sizes(gate: &Gate) -> Vec<u64> {
    let folder = gate.folder.path().display().to_string();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).expect("it runs");
    descriptors
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let link = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
            let is_unnamed = link.starts_with(&folder) && link.ends_with(" (deleted)");
            is_unnamed.then_some(std::fs::metadata(&path).ok()?.len())
        })
        .collect()
}

fn wait_for_files(gate: &Gate, count: usize) {
    wait_until("files are opened or closed", PATIENCE, || sizes(gate).len() == count);
}

fn named_files(gate: &Gate) -> usize {
    std::fs::read_dir(gate.folder.path()).expect("a folder").count()
}

/// What may not have been written of an upload that has not ended.
const UNWRITTEN: usize = 140_000;

/// An upload that has begun; it is one of so many that wait on disk, each but for what is gathered for the next write.
fn begun(gate: &Gate, part: &[u8], count: usize) -> Conn {
    let mut conn = gate.connect();
    conn.send([CHUNKED.as_bytes(), &chunks(part)].concat());
    wait_until("it waits on disk", PATIENCE, || {
        let sizes = sizes(gate);
        sizes.len() == count && sizes.iter().all(|size| *size >= (part.len() - UNWRITTEN) as u64)
    });
    conn
}

fn assert_received(upstream: &RecordingUpstream, expected: &[u8]) {
    let seen = upstream.last();
    let framing = (seen.header("content-length"), seen.header("transfer-encoding"));
    assert_eq!(framing, (Some(expected.len().to_string().as_str()), None));
    assert!(seen.body.data == expected, "it is another body");
}

#[test]
fn a_long_body_without_a_length_arrives_whole_and_with_a_length() {
    let upstream = RecordingUpstream::start();
    let whole = body(MIB + 1);
    for buffer in ["64KiB", "0B", "100KiB"] {
        let gate =
            Gate::start(&spooling(&upstream, "64MiB", "1GiB").with(&format!("buffer = {{ request = \"{buffer}\" }}")));
        let named = named_files(&gate);
        assert_eq!(gate.call(&chunked("/x", &whole)).status, 200, "{buffer}");
        assert_received(&upstream, &whole);
        assert_eq!(status_over_http2(&gate, whole.clone()), 200, "{buffer}");
        assert_received(&upstream, &whole);
        // One whose end comes apart from it.
        let before = upstream.accepted();
        let mut conn = begun(&gate, &whole[..MIB / 2], 1);
        assert_eq!(upstream.accepted(), before, "no server is taken for half a body");
        assert_eq!(named_files(&gate), named, "what is on disk has no name");
        conn.send(chunks(&whole[MIB / 2..]));
        conn.send("0\r\n\r\n");
        assert_eq!(conn.reply().status, 200, "{buffer}");
        assert_received(&upstream, &whole);
        wait_for_files(&gate, 0);
        // The connection serves on.
        assert_eq!(conn.call(&get("/x")).status, 200);
    }
}

#[test]
fn spool_space_is_limited_and_released() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&spooling(&upstream, "600KiB", "1MiB"));
    let half = body(500 * 1024);
    assert_eq!(gate.call(&chunked("/x", &body(600 * 1024 + 1))).status, 413);
    refused_over_http2(&gate, body(600 * 1024 + 1), 413);
    assert_eq!(gate.call(&chunked("/x", &body(600 * 1024))).status, 200);
    wait_for_files(&gate, 0);

    let mut first = begun(&gate, &half, 1);
    let second = begun(&gate, &half, 2);
    let full = gate.call(&chunked("/x", &half));
    assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
    gate.logged(&["spool_full", "is used up"]);
    refused_over_http2(&gate, half.clone(), 503);
    // A client that leaves gives its room back, and so does one whose body has left.
    let calls = upstream.calls();
    drop(second);
    wait_for_files(&gate, 1);
    assert_eq!(gate.call(&chunked("/x", &half)).status, 200);
    first.send("0\r\n\r\n");
    assert_eq!(first.reply().status, 200);
    assert_eq!(upstream.calls(), calls + 2, "an incomplete body is not forwarded");
    wait_for_files(&gate, 0);
    let (mut first, mut second) = (begun(&gate, &half, 1), begun(&gate, &half, 2));
    for conn in [&mut first, &mut second] {
        conn.send("0\r\n\r\n");
        assert_eq!(conn.reply().status, 200, "all of the room is there again");
    }
}

#[test]
fn client_limits_apply_while_bodies_are_spooled() {
    let upstream = RecordingUpstream::start();
    let gate =
        Gate::start(&spooling(&upstream, "64MiB", "1GiB").limits("body_read_timeout = \"1s\"\nbody_bytes = \"1MiB\""));
    let mut slow = begun(&gate, &body(MIB / 2), 1);
    assert_eq!(slow.reply().status, 408);
    assert_eq!(gate.call(&chunked("/x", &body(MIB + 1))).status, 413);
    let mut broken = begun(&gate, &body(MIB / 2), 1);
    broken.send("x\r\n");
    assert_eq!(broken.reply().status, 400);
    wait_for_files(&gate, 0);
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn credentials_are_checked_again_after_a_body_was_spooled() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .with("spool = { dir = \".\", body = \"1MiB\", total = \"1MiB\" }")
            .protected("/*"),
    );
    for (revoke, status) in [(false, 200), (true, 401)] {
        let mut conn = gate.connect();
        let head = CHUNKED.replace("\r\n\r\n", "\r\nAuthorization: Token canary-ada\r\n\r\n");
        conn.send([head.as_bytes(), &chunks(&body(MIB / 2))].concat());
        wait_for_files(&gate, 1);
        std::thread::sleep(Duration::from_millis(1_100));
        if revoke {
            redis.del(&Redis::token_key("canary-ada"));
        }
        conn.send("0\r\n\r\n");
        assert_eq!(conn.reply().status, status, "revoked: {revoke}");
        wait_for_files(&gate, 0);
    }
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_failing_disk_is_503_and_logged() {
    let upstream = RecordingUpstream::start();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("spool");
    std::fs::create_dir(&dir).unwrap();
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .with(&format!("spool = {{ dir = {dir:?} }}"))
            .public("/*"),
    );
    assert_eq!(gate.call(&chunked("/x", &body(MIB))).status, 200);
    std::fs::remove_dir(&dir).unwrap();
    let reply = gate.call(&chunked("/x", &body(MIB)));
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    gate.logged(&["spool_failed", "could not be stored on disk: entity not found"]);
    refused_over_http2(&gate, body(MIB), 503);
    assert_eq!(gate.call(&chunked("/x", b"short")).status, 200);
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn unsized_refuse_and_stream_work_as_documented() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .with("unsized = \"refuse\"")
            .public("/*")
            .route("/problem", "public = true\nerrors = \"problem\""),
    );
    let reply = gate.call(&chunked("/x", &body(MIB)));
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (411, r#"{"detail":"Length Required."}"#)
    );
    assert_eq!(gate.call(&chunked("/problem", &body(MIB))).status, 411);
    refused_over_http2(&gate, body(MIB), 411);
    gate.logged(&["body_without_length"]);
    assert_eq!(upstream.calls(), 0);
    assert_eq!(
        gate.call(&chunked("/x", &body(64 * 1024))).status,
        200,
        "it is gathered"
    );
    assert_eq!(gate.call(&post("/x", body(MIB))).status, 200);

    let gate = Gate::start(&config().app(&upstream).with("unsized = \"stream\"").public("/*"));
    let whole = body(MIB);
    for status in [
        gate.call(&chunked("/x", &whole)).status,
        status_over_http2(&gate, whole.clone()),
    ] {
        let seen = upstream.last();
        assert_eq!((status, seen.header("transfer-encoding")), (200, Some("chunked")));
        assert!(seen.body.data == whole);
    }
}

#[test]
fn grpc_content_type_over_http1_is_spooled_too() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&spooling(&upstream, "64MiB", "1GiB"));
    let whole = body(MIB);
    let call = chunked("/x", &whole).header("Content-Type", "application/grpc");
    assert_eq!(gate.call(&call).status, 200);
    assert_received(&upstream, &whole);
}

#[test]
fn bodies_are_streamed_to_http2_servers() {
    let pki = Pki::new();
    for tls in [false, true] {
        let server = H2Server::start(tls.then(|| pki.server(&["localhost"], false)), |_, body| {
            Answer::ok(body.len().to_string())
        });
        let mut config = config()
            .server("workers = 1")
            .upstream("app", &[server.url().replace("127.0.0.1", "localhost")]);
        if tls {
            // There is no room to spool anything.
            config = config
                .file("ca.pem", pki.root_pem())
                .with("tls = { ca = \"ca.pem\" }")
                .with("spool = { dir = \".\", body = \"1B\", total = \"1B\" }");
        }
        let gate = Gate::start(&config.public("/*"));
        // That it speaks HTTP/2 is known from the first connection on.
        assert_eq!(gate.get("/x").status, 200);
        let reply = gate.call(&chunked("/x", &body(MIB)));
        assert_eq!((reply.status, reply.text()), (200, MIB.to_string()), "TLS: {tls}");
        let (status, length) = over_http2(&gate, "/x", body(MIB)).expect("an answer");
        assert_eq!((status, length), (200, MIB.to_string().into_bytes()), "TLS: {tls}");
    }
}

/// A server that ends with this value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// A program in a folder of `tests`, which serves on `PORT`.
fn peer(mut command: Command, words: &[&str]) -> (Peer, String) {
    let address = closed_port();
    let child = command
        .args(
            words
                .iter()
                .map(|word| word.replace("PORT", &address.port().to_string())),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("see scripts/test");
    let peer = Peer(child);
    wait_until("the server listens", PATIENCE, || TcpStream::connect(address).is_ok());
    (peer, format!("http://{address}"))
}

/// How long the body is that a server has read: of a long one without a length, over HTTP/1.1 and over HTTP/2.
fn read_by(url: &str, mode: &str, length: fn(&Value) -> u64) -> [u64; 2] {
    let gate = Gate::start(
        &config()
            .upstream("app", &[url.to_owned()])
            // A server that has left a body unread may close its connection behind the answer: the next request takes a new one.
            .with(&format!("unsized = \"{mode}\"\nidle_timeout = \"0s\""))
            .public("/*"),
    );
    let first: Reply = gate.call(&chunked("/upload", &body(MIB)));
    let (status, second) = over_http2(&gate, "/upload", body(MIB)).expect("an answer");
    assert_eq!((first.status, status), (200, 200), "{}", first.text());
    let second = serde_json::from_slice(&second).expect("JSON");
    [length(&first.json()), length(&second)]
}

/// Of the applications of `tests/peers`, which say back what they have read.
fn echoed_length(reply: &Value) -> u64 {
    reply["body"].as_str().map_or(0, |body| body.len() as u64)
}

/// Of the Django project, whose view says how long `request.body` is.
fn django_length(reply: &Value) -> u64 {
    reply["length"].as_u64().expect("a number")
}

/// What servers and Django read of a body of 1 MiB without a length, as docs/django.md says: where it comes by chunks, and where it waits on disk.
#[test]
fn application_servers_read_spooled_bodies_and_some_ignore_chunked_ones() {
    let folder = tempfile::tempdir().unwrap();
    let Some(gunicorn) = gunicorn::command("gunicorn", folder.path()) else {
        return;
    };
    let django = Gunicorn::start(gunicorn);
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let in_peers = |program: &str| {
        let mut command = gunicorn::command(program, folder.path()).expect("a venv");
        command.current_dir(&peers);
        command
    };
    let whole = [MIB as u64; 2];

    // WSGI has no word for a body without a length: Django reads none of it, and says nothing.
    assert_eq!(read_by(&django.url, "stream", django_length), [0, 0]);
    assert_eq!(read_by(&django.url, "spool", django_length), whole);

    // gunicorn itself reads to the end, if an application does.
    let (_peer, url) = peer(in_peers("gunicorn"), &["--bind", "127.0.0.1:PORT", "wsgi_app:app"]);
    assert_eq!(read_by(&url, "stream", echoed_length), whole);
    assert_eq!(read_by(&url, "spool", echoed_length), whole);

    let words = [
        "--plugin",
        "python3",
        "--http-socket",
        "127.0.0.1:PORT",
        "--wsgi-file",
        "wsgi_app.py",
        "--callable",
        "app",
        "--need-app",
        "--die-on-term",
    ];
    let (_peer, url) = peer(in_peers("/usr/bin/uwsgi-core"), &words);
    assert_eq!(read_by(&url, "stream", echoed_length), [0, 0]);
    assert_eq!(read_by(&url, "spool", echoed_length), whole);

    let (_peer, url) = peer(in_peers("uvicorn"), &["--port", "PORT", "asgi_app:app"]);
    assert_eq!(read_by(&url, "stream", echoed_length), whole);
    assert_eq!(read_by(&url, "spool", echoed_length), whole);

    let uvicorn = gunicorn::command("uvicorn", folder.path()).expect("a venv");
    let (_peer, url) = peer(uvicorn, &["--port", "PORT", "mysite.plain_asgi:application"]);
    assert_eq!(read_by(&url, "stream", django_length), whole);
    assert_eq!(read_by(&url, "spool", django_length), whole);
}
