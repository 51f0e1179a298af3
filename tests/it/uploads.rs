//! Requests with bodies over HTTP/2: answers that come before a body was read, and clients that wait for a 100 before they send one.

use std::future::poll_fn;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};

use crate::harness::frames::{CANCEL, END_STREAM, PLAIN, RST_STREAM, Sender, frame};
use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config};

const NO_ERROR: [u8; 4] = [0; 4];

/// `/p/*` wants a token: 401 without one. `/small/*` is public, and 413 beyond 512 bytes.
fn refusing(upstream: &RecordingUpstream, redis: &Redis) -> Config {
    config()
        .tokens(redis)
        .app(upstream)
        .protected("/p/*")
        .route("/small/*", "public = true\nbody_bytes = \"512B\"")
        .public("/x")
}

fn post(path: &'static str) -> [(&'static str, &'static str); 4] {
    [(":method", "POST"), PLAIN[1], PLAIN[2], (":path", path)]
}

#[test]
fn curl_receives_the_response_to_a_refused_upload() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let pki = Pki::new();
    let clear = refusing(&upstream, &redis);
    for config in [clear.clone(), clear.tls(&pki, &[&["localhost"]])] {
        let gate = Gate::start(&config);
        let root = gate.folder.path().join("root.pem");
        std::fs::write(&root, pki.root_pem()).unwrap();
        redis.pause();
        for size in [1_000, 60_000, 300_000] {
            let body = gate.folder.path().join("body");
            std::fs::write(&body, vec![b'x'; size]).unwrap();
            for (path, token, status) in [
                ("/p/x", "", "401"),
                ("/p/x", "Authorization: Token canary-ada", "503"),
                ("/nothing", "", "404"),
                ("/small/x", "", "413"),
            ] {
                for _ in 0..2 {
                    let mut curl = Command::new("curl");
                    curl.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
                    curl.args(["--write-out", "%{http_code}", "--header", token]);
                    curl.arg("--upload-file").arg(&body);
                    let port = gate.address.port();
                    match gate.has_tls() {
                        true => curl.arg("--http2").arg("--cacert").arg(&root),
                        false => curl.arg("--http2-prior-knowledge"),
                    };
                    let scheme = if gate.has_tls() { "https" } else { "http" };
                    curl.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
                    curl.arg(format!("{scheme}://localhost:{port}{path}"));
                    let ended = curl.output().expect("curl");
                    let (out, err) = (
                        String::from_utf8_lossy(&ended.stdout),
                        String::from_utf8_lossy(&ended.stderr),
                    );
                    assert_eq!((&*out, &*err), (status, ""), "{scheme} {path} {size}");
                }
            }
        }
        redis.resume();
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn an_upload_that_is_refused_is_not_reset_while_its_client_sends() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&refusing(&upstream, &redis));
    let mut sender = Sender::open(&gate);
    sender.request(1, &post("/p/x"), 0);
    sender.until(|sender| sender.answered == 1);
    // More than any window, so that those have to be opened again.
    for _ in 0..150 {
        sender.data(1, 16_384, 0);
    }
    sender.data(1, 0, END_STREAM);
    sender.is_served(3);
    assert_eq!(sender.resets, []);
}

#[test]
fn frames_after_our_reset_of_a_refused_upload_are_no_client_error() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&refusing(&upstream, &redis));
    let mut sender = Sender::open(&gate);
    let streams = |round: u32| (0..100).map(move |at| 200 * round + 2 * at + 1);
    for round in 0..2 {
        let before = sender.resets.len();
        for stream in streams(round) {
            sender.request(stream, &post("/p/x"), 0);
        }
        // They send nothing, and are not waited for.
        sender.until(|sender| sender.resets.len() == before + 100);
        // Frames cross; and what they take of the connection's window comes back.
        for stream in streams(round) {
            for _ in 0..4 {
                sender.data(stream, 16_384, 0);
            }
        }
    }
    assert_eq!(sender.answered, 200);
    assert!(sender.resets.iter().all(|(_, error)| error[..] == NO_ERROR));
    sender.is_served(1001);
    assert_eq!(sender.resets.len(), 200);
}

#[test]
fn resets_of_refused_uploads_cost_a_client_nothing() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&refusing(&upstream, &redis));
    let mut sender = Sender::open(&gate);
    for round in 0..20 {
        let before = sender.answered;
        let streams = || (0..100).map(|at| 200 * round + 2 * at + 1);
        for stream in streams() {
            sender.request(stream, &post("/p/x"), 0);
        }
        sender.until(|sender| sender.answered == before + 100);
        let resets: Vec<u8> = streams()
            .flat_map(|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, CANCEL]))
            .collect();
        assert!(sender.raw.send(&resets));
    }
    sender.is_served(9_999);
}

#[test]
fn a_thousand_refused_uploads_do_not_close_a_connection() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let gate = Gate::start(&refusing(&upstream, &redis));
    let body = gate.folder.path().join("body");
    for size in [100, 20_000] {
        std::fs::write(&body, vec![b'x'; size]).unwrap();
        let mut h2load = Command::new("h2load");
        h2load.args(["-n", "1200", "-c", "1", "-m", "50", "-d"]).arg(&body);
        h2load.arg(format!("http://{}/p/x", gate.address));
        let out = String::from_utf8(h2load.output().expect("h2load").stdout).unwrap();
        assert!(out.contains("1200 done") && out.contains(" 0 errored"), "{out}");
        assert!(out.contains("1200 4xx"), "{out}");
    }
}

/// Sends a request that waits for a 100: whether one comes, and the status of the answer.
fn expecting(gate: &Gate, path: &str, body_comes_at_once: bool) -> (bool, StatusCode) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let tcp = tokio::net::TcpStream::connect(gate.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://localhost{path}"))
            .header("expect", "100-Continue")
            .body(())
            .unwrap();
        let (mut response, mut stream) = client.send_request(request, false).unwrap();
        if body_comes_at_once {
            stream.send_data(Bytes::from_static(b"body"), true).unwrap();
        }
        let interim = poll_fn(|cx| response.poll_informational(cx)).await;
        let continued = interim.is_some_and(|interim| interim.unwrap().status() == StatusCode::CONTINUE);
        if continued && !body_comes_at_once {
            stream.send_data(Bytes::from_static(b"body"), true).unwrap();
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), response).await;
        (continued, answer.expect("an answer").unwrap().status())
    })
}

#[test]
fn a_100_continue_is_sent_when_the_body_is_read() {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    for buffer in ["64KiB", "0B"] {
        let gate = Gate::start(&refusing(&upstream, &redis).with(&format!("buffer = {{ request = \"{buffer}\" }}")));
        assert_eq!(expecting(&gate, "/x", false), (true, StatusCode::OK), "{buffer}");
        assert_eq!(upstream.last().text(), "body");
        assert_eq!(upstream.last().header("expect"), None);
        // Never before it is known that the body is wanted.
        assert_eq!(expecting(&gate, "/p/x", false), (false, StatusCode::UNAUTHORIZED));
        assert_eq!(expecting(&gate, "/nothing", false), (false, StatusCode::NOT_FOUND));
        let (_, status) = expecting(&gate, "/x", true);
        assert_eq!(status, StatusCode::OK);
    }
}
