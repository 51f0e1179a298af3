//! Active health checks: which `Host` they send, and what the log says of one that failed.

use std::sync::mpsc;
use std::time::Duration;

use crate::harness::gunicorn::{self, Gunicorn};
use crate::harness::upstream::closed_port;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

const CHECK: &str = "health = { path = \"/healthz\", interval = \"100ms\" }";

/// One whose answers may take a while.
const SLOW_CHECK: &str = "health = { path = \"/healthz\", interval = \"1s\" }";

/// Routes that name several hosts, a wildcard first.
fn with_hosts(config: Config) -> Config {
    config
        .route("/wild/*", "host = \"*.example\"\npublic = true")
        .route("/api/*", "host = \"api.example\"\npublic = true")
        .route("/shop/*", "host = \"shop.example\"\npublic = true")
        .public("/*")
}

/// The `Host` of the first check that comes.
fn host_of_checks(upstream: &RecordingUpstream) -> String {
    let (send, receive) = mpsc::channel();
    upstream.answers(move |exchange| {
        if exchange.head.first.starts_with("GET /healthz ") {
            let _ = send.send(exchange.head.header("host").unwrap_or_default().to_owned());
        }
        exchange.ok()
    });
    receive.recv_timeout(Duration::from_secs(10)).expect("a check")
}

#[test]
fn a_health_check_sends_the_first_host_of_the_routes() {
    let upstream = RecordingUpstream::start();
    let own = upstream.address.to_string();
    for (expected, config) in [
        ("api.example", with_hosts(config().app(&upstream).with(CHECK))),
        ("localhost", config().app(&upstream).with(CHECK).public("/*")),
        (
            "inner.example",
            with_hosts(config().app(&upstream).with(CHECK).with("host = \"inner.example\"")),
        ),
        (
            own.as_str(),
            with_hosts(config().app(&upstream).with(CHECK).with("host = \"server\"")),
        ),
        (
            "localhost",
            with_hosts(
                config()
                    .app(&upstream)
                    .with("health = { path = \"/healthz\", interval = \"100ms\", host = \"localhost\" }"),
            ),
        ),
        (
            "check.example:8443",
            with_hosts(
                config()
                    .app(&upstream)
                    .with("health = { path = \"/healthz\", interval = \"100ms\", host = \"check.example:8443\" }"),
            ),
        ),
        // Of another upstream's routes nothing is taken.
        (
            "localhost",
            with_hosts(
                config()
                    .app(&upstream)
                    .upstream("checked", &[upstream.url()])
                    .with(CHECK),
            )
            .route_to("checked", "/checked", "public = true"),
        ),
    ] {
        let _gate = Gate::start(&config);
        assert_eq!(host_of_checks(&upstream), expected);
    }
}

#[test]
fn the_log_has_the_reason_of_a_failed_health_check() {
    let (picky, silent) = (RecordingUpstream::start(), RecordingUpstream::start());
    picky.answers(|exchange| exchange.answer("400 Bad Request", "", b""));
    silent.answers(|exchange| {
        let _ = exchange.wire.some();
        exchange.ok()
    });
    let broken = RecordingUpstream::start();
    broken.answers_raw("nonsense\r\n\r\n");
    let gone = format!("http://{}", closed_port());
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", &[picky.url(), silent.url(), broken.url(), gone.clone()])
            .with(SLOW_CHECK)
            .route("/*", "host = \"api.example\"\npublic = true"),
    );
    for (server, reason) in [
        (picky.url(), "status 400"),
        (silent.url(), "no response within 1s"),
        (broken.url(), "malformed head"),
        (gone, "Connection refused"),
    ] {
        let server = server.trim_start_matches("http://");
        let line = gate.logged(&["a server is down", server]);
        assert!(
            line.contains(reason) && line.contains("\"reason\"") && line.contains("\"host\":\"api.example\""),
            "{server}: {line}"
        );
    }
    let downs = gate
        .log()
        .lines()
        .filter(|line| line.contains("a server is down"))
        .count();
    assert_eq!(downs, 4, "once for each");
}

#[test]
fn a_healthy_django_passes_checks_whatever_its_address_is() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut command) = gunicorn::command("gunicorn", folder.path()) else {
        return;
    };
    command.env("DJANGO_ALLOWED_HOSTS", "api.example");
    let django = Gunicorn::start(command);
    let gate = Gate::start(
        &config()
            .server("workers = 1")
            .upstream("app", std::slice::from_ref(&django.url))
            .with(SLOW_CHECK)
            .route("/*", "host = \"api.example\"\npublic = true")
            .upstream("unnamed", std::slice::from_ref(&django.url))
            .with("health = { path = \"/healthz\", interval = \"1s\", host = \"127.0.0.1\" }")
            .route_to("unnamed", "/unnamed", "public = true"),
    );
    let line = gate.logged(&["a server is down", "unnamed"]);
    assert!(line.contains("status 400"), "{line}");
    wait_until("Django answers", Duration::from_secs(10), || {
        gate.call(&get("/healthz").host("api.example")).status == 200
    });
    let of_app = |line: &str| line.contains("\"upstream\":\"app\"") && line.contains("status 400");
    assert!(!gate.log().lines().any(of_app), "{}", gate.log());
}
