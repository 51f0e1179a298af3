//! Load by h2load over TLS: many concurrent requests, each with its own response, and HTTP/2 features that hyper's client does not use.
//! Speed is not measured here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::program::run;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config};

const REQUESTS: usize = 5000;

/// Tokens and JWTs, over TLS.
fn both(redis: &Redis, signer: &Signer) -> Config {
    config()
        .tls(&Pki::new(), &[&["localhost"]])
        .log("access = false")
        .redis_with_long_timeout(redis)
        .token("store = \"redis\"")
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"none\"")
        .jwt("cache = { entries = 1000 }")
}

/// Runs h2load, and wants this many answers of this class and nothing else.
fn h2load(gate: &Gate, more: &[&str], authorization: &str, class: &str) {
    let url = format!("https://{}/api/x", gate.address);
    let mut command = Command::new("h2load");
    command
        .args(["-n", &REQUESTS.to_string(), "-c", "20", "-t", "1"])
        .args(more);
    if !authorization.is_empty() {
        command.args(["-H", &format!("Authorization: {authorization}")]);
    }
    let ended = run(
        {
            command.arg(url);
            command
        },
        b"",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    let said = |words: &str| ended.out.contains(words);
    // What is no 2xx or 3xx is failed in its words too.
    let (good, failed) = if class == "2xx" { (REQUESTS, 0) } else { (0, REQUESTS) };
    let requests = format!(
        "{REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {good} succeeded, {failed} failed, 0 errored, 0 timeout"
    );
    assert!(
        said(&requests) && said(&format!("{REQUESTS} {class}")),
        "{more:?}: {}",
        ended.out
    );
}

#[test]
fn thousands_of_concurrent_requests_get_their_own_responses() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &both(&redis, &signer)
            .app(&upstream)
            .with("connect_timeout = \"15s\"")
            .route("/api/*", "authenticate = [\"token\", \"jwt\"]"),
    );
    let good = signer.with(&json!({}));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let mut expected = 0;
    for protocol in [&["-m", "50"][..], &["-m", "50", "-w", "20", "-W", "20"], &["--h1"]] {
        h2load(&gate, protocol, &format!("Bearer {good}"), "2xx");
        h2load(&gate, protocol, "Token canary-ada", "2xx");
        expected += 2 * REQUESTS;
        assert_eq!(upstream.calls(), expected);
        for refused in [
            &format!("Bearer {forged}"),
            "Bearer canary",
            "Token canary-unknown",
            "Basic Y2FuYXJ5",
            "",
        ] {
            h2load(&gate, protocol, refused, "4xx");
        }
        assert_eq!(upstream.calls(), expected, "no request with a bad credential passed");
    }
    let counted = |status: &str, outcome: &str| {
        gate.metric(&format!(
            "authgate_requests_total{{route=\"/api/*\",outcome=\"{outcome}\",status=\"{status}\"}}"
        ))
    };
    assert_eq!(counted("2xx", "forwarded"), expected as f64);
    assert_eq!(counted("5xx", "upstream_no_response"), 0.0);
    assert!(upstream.all().iter().all(|seen| seen.header("x-user-id") == Some("42")));
}

/// Runs nghttp, and hands on what it says.
fn nghttp(gate: &Gate, folder: &Path, more: &[&str], path: &str) -> String {
    let scheme = if gate.has_tls() { "https" } else { "http" };
    let mut command = Command::new("nghttp");
    command
        .current_dir(folder)
        .args(["-v", "-y", "--no-push", "-t", "15"])
        .args(more)
        .arg(format!("{scheme}://{}{path}", gate.address));
    let ended = run(command, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.out
}

#[test]
fn h2load_is_served_over_http2() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let config = || config().tokens(&redis).app(&upstream).protected("/*");
    let gate = Gate::start(&config().tls(&Pki::new(), &[&["localhost"]]));
    let folder = gate.folder.path();
    let body = "0123456789".repeat(30_000);
    std::fs::write(folder.join("body"), &body).unwrap();
    let token = ["-H", "Authorization: Token canary-ada"];
    let plain: &[&str] = &[];
    for more in [
        plain,
        &["--padding=255"],
        &["--continuation"],
        &["--header-table-size=0", "--encoder-header-table-size=0"],
        &["-w", "1", "-W", "1"],
        &["--no-dep"],
        &["-p", "256"],
        &["-m", "100"],
    ] {
        for data in [
            plain,
            &["-d", "body"],
            &["-d", "body", "--no-content-length"],
            &["-d", "body", "--trailer", "x-user-id: 1"],
        ] {
            let before = upstream.calls();
            let said = nghttp(&gate, folder, &[&token[..], more, data].concat(), "/x");
            let times = if more.contains(&"-m") { 100 } else { 1 };
            assert_eq!(said.matches(":status: 200").count(), times, "{more:?} {data:?}: {said}");
            assert_eq!(upstream.calls() - before, times, "{more:?} {data:?}");
            let seen = upstream.last();
            assert_eq!(seen.header("x-user-id"), Some("42"));
            assert_eq!(
                seen.text(),
                if data.is_empty() { "" } else { body.as_str() },
                "{more:?} {data:?}"
            );
            assert!(seen.body.complete && seen.body.trailers.is_empty(), "{more:?} {data:?}");
        }
    }
    let said = nghttp(
        &gate,
        folder,
        &[&token[..], &["-d", "body", "--expect-continue"]].concat(),
        "/x",
    );
    // hyper sends no 100 over HTTP/2, and a client does not wait for one for long.
    assert!(said.contains(":status: 200"), "{said}");
    assert_eq!(upstream.last().text(), body);
    let calls = upstream.calls();
    let said = nghttp(
        &gate,
        folder,
        &["-H", "Authorization: Token canary-unknown", "-d", "body"],
        "/x",
    );
    assert!(
        said.contains(":status: 401") && !said.contains("PUSH_PROMISE"),
        "{said}"
    );
    // An upgrade to HTTP/2 in the clear (RFC 7540, section 3.2) was removed from the protocol, and is not granted.
    let clear = Gate::start(&config());
    let mut command = Command::new("nghttp");
    command.args(["-v", "-u", "-t", "15", &format!("http://{}/x", clear.address)]);
    let ended = run(command, b"");
    assert!(
        ended.out.contains("HTTP/1.1 401") && !ended.out.contains(" 101 "),
        "{ended:?}"
    );
    assert_eq!(upstream.calls(), calls);
}

#[test]
fn overload_is_answered_at_once_without_growing_memory() {
    let upstream = RecordingUpstream::start();
    upstream.answers(|exchange| {
        std::thread::sleep(Duration::from_millis(20));
        exchange.ok()
    });
    let gate = Gate::start(
        &config()
            .tls(&Pki::new(), &[&["localhost"]])
            .log("access = false")
            .limits("in_flight = 10")
            .app(&upstream)
            .public("/*"),
    );
    // Up to 5,000 requests are asked for at once, of which ten may be under way.
    let flood = || {
        let mut command = Command::new("h2load");
        command.args(["-n", "20000", "-c", "100", "-m", "50", "-t", "1"]);
        command.arg(format!("https://{}/x", gate.address));
        let ended = run(command, b"");
        let count = |class: &str| -> usize {
            let (before, _) = ended.out.split_once(class).expect("a line of status codes");
            let digits = before.rsplit([' ', ',']).find(|word| !word.is_empty());
            digits.expect("a number").parse().expect("a number")
        };
        let (good, unavailable) = (count(" 2xx"), count(" 5xx"));
        assert!(
            good > 0 && good + unavailable == 20_000 && ended.out.contains(" 0 errored, 0 timeout"),
            "{}",
            ended.out
        );
        gate.memory()
    };
    let first = flood();
    let last = (0..4).fold(first, |_, _| flood());
    println!("{first} bytes after 20,000 requests, {last} after 100,000");
    assert!(last < first + 16 * 1024 * 1024, "{first}, {last}");
    gate.metric_becomes("authgate_requests_in_flight", 0.0);
}
