//! The access log: one event for each request, and clients cannot forge one.

use serde_json::Value;

use crate::harness::{Gate, RecordingUpstream, Redis, config, get};

fn start(lines: &[&str]) -> (Redis, RecordingUpstream, Gate) {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let config = config()
        .tokens(&redis)
        .app(&upstream)
        .protected("/api/*")
        .public("/public/*");
    let gate = Gate::start(&lines.iter().fold(config, |config, line| config.log(line)));
    (redis, upstream, gate)
}

#[test]
fn each_request_is_one_log_event_with_all_fields() {
    let (_redis, upstream, gate) = start(&[]);
    let ok = gate.call(&get("/api/x?key=1").token("canary-ada"));
    let id = upstream.last().header("x-request-id").unwrap().to_owned();
    let refused = gate.call(&get("/api/x").token("canary-unknown"));
    gate.get("/nowhere");
    let events = gate.requests(3);
    assert_eq!((ok.status, refused.status, events.len()), (200, 401, 3));
    let check = |event: &Value, status: u16, outcome: &str, route: &str| {
        assert_eq!(event["http.status"], status, "{event}");
        assert_eq!(
            (event["outcome"].as_str(), event["route"].as_str()),
            (Some(outcome), Some(route)),
            "{event}"
        );
        assert!(
            event["duration_ms"].is_number() && event["client.ip"] == "127.0.0.1" && event["http.method"] == "GET",
            "{event}"
        );
    };
    check(&events[0], 200, "forwarded", "/api/*");
    assert_eq!(
        (events[0]["user.id"].as_str(), events[0]["authenticator"].as_str()),
        (Some("42"), Some("token"))
    );
    assert_eq!(
        (events[0]["http.target"].as_str(), events[0]["request.id"].as_str()),
        (Some("/api/x"), Some(id.as_str()))
    );
    assert!(events[0]["upstream_ms"].is_number() && events[0]["complete"] == true);
    check(&events[1], 401, "token_unknown", "/api/*");
    assert_eq!(events[1]["request.id"].as_str(), refused.header("x-request-id"));
    assert_eq!(events[1].get("user.id"), None);
    check(&events[2], 404, "no_route", "none");
}

#[test]
fn the_query_is_logged_only_if_configured() {
    let (_redis, _upstream, gate) = start(&["query = true"]);
    gate.get("/public/x?a=1");
    assert_eq!(gate.requests(1)[0]["http.target"], "/public/x?a=1");
}

#[test]
fn client_input_cannot_add_log_lines() {
    for format in ["format = \"text\"", "format = \"json\""] {
        let (_redis, _upstream, gate) = start(&[format]);
        let nasty = "/public/x\"\u{1b}[31m";
        let mut conn = gate.connect();
        let _ = conn
            .wire
            .write(format!("GET {nasty} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let _ = conn.wire.head();
        gate.call(
            &get("/public/x%22%20outcome=%22forged%22%E2%80%A8").header("User-Agent", "\"} {\"message\":\"forged\"}"),
        );
        gate.call(&get("/public/%0aforged"));
        gate.get("/public/last");
        gate.logged(&["/public/last"]);
        let log = gate.stop();
        let forged = log
            .lines()
            .filter(|line| line.trim_start().starts_with("forged") || line.contains("outcome=\"forged\""))
            .count();
        assert_eq!(forged, 0, "{log}");
        assert!(
            !log.contains('\u{1b}') && !log.contains("\"message\":\"forged\""),
            "{log}"
        );
    }
}

#[test]
fn access_can_be_switched_off() {
    let (_redis, upstream, gate) = start(&["access = false"]);
    gate.get("/public/x");
    assert_eq!(upstream.calls(), 1);
    assert!(!gate.stop().contains("\"request\""));
}

#[test]
fn each_request_is_one_line_of_either_format() {
    for format in ["text", "json"] {
        let (_redis, upstream, gate) = start(&[&format!("format = \"{format}\"")]);
        let body = gate.call(&get("/api/one").token("canary-ada")).body.data.len();
        gate.call(&get("/api/two").token("canary-unknown"));
        gate.get("/public/three");
        gate.get("/four");
        gate.get("/public/%0afive");
        let id = upstream.last().header("x-request-id").unwrap().to_owned();
        gate.get("/public/last");
        gate.logged(&["/public/last"]);
        let log = gate.stop();
        for target in [
            "/api/one",
            "/api/two",
            "/public/three",
            "/four",
            "/public/%0afive",
            "/public/last",
        ] {
            let count = log.lines().filter(|line| line.contains(target)).count();
            assert_eq!(count, 1, "{format} {target}:\n{log}");
        }
        let line = log.lines().find(|line| line.contains("/api/one")).unwrap();
        let words = if format == "text" {
            [
                format!("bytes={body}"),
                "http.status=200".into(),
                "user.id=\"42\"".into(),
                "authenticator=\"token\"".into(),
            ]
        } else {
            [
                format!("\"bytes\":{body}"),
                "\"http.status\":200".into(),
                "\"user.id\":\"42\"".into(),
                "\"authenticator\":\"token\"".into(),
            ]
        };
        for word in words {
            assert!(line.contains(&word), "{word}: {line}");
        }
        assert!(
            log.lines()
                .any(|line| line.contains("/public/three") && line.contains(&id)),
            "{log}"
        );
        if format == "json" {
            let parsed = log
                .lines()
                .filter(|line| serde_json::from_str::<Value>(line).is_ok())
                .count();
            assert_eq!(parsed, log.lines().count(), "every line is one event:\n{log}");
        }
    }
}

#[test]
fn the_query_is_left_out_for_every_outcome() {
    for format in ["format = \"text\"", "format = \"json\""] {
        let (_redis, _upstream, gate) = start(&[format]);
        for target in ["/public/a", "/api/b", "/nowhere/c", "/public/../api/d", "/public/%zz"] {
            gate.get(&format!("{target}?token=canary-in-a-query"));
        }
        gate.get("/public/last");
        gate.logged(&["/public/last"]);
        assert!(!gate.stop().contains("in-a-query"));
    }
}

#[test]
fn the_log_gives_the_missing_requirement_and_the_ambiguous_path_readings() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let require = "authenticate = [\"token\"]\nrequire = { groups = { any = [\"root\", \"admins\"] }, scopes = { all = [\"orders:write\"] }, \
                   claims = { realm.tenant = \"acme\" } }";
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .app(&upstream)
            .public("/public/*")
            .protected("/admin/*")
            .route("/orders", "authenticate = [\"token\"]\nmethods = [\"POST\"]")
            .route("/require", require)
            .route("/problem", &format!("{require}\nerrors = \"problem\"")),
    );
    for (target, status, expected) in [
        (
            "/require",
            403,
            "missing: one of the groups \"root\", \"admins\"; scope \"orders:write\"; claim realm.tenant = \"acme\"",
        ),
        (
            "/problem",
            403,
            "missing: one of the groups \"root\", \"admins\"; scope \"orders:write\"; claim realm.tenant = \"acme\"",
        ),
        (
            "/public/..%2fadmin",
            400,
            "its path: as sent it is for route /public/*, read as /admin for route /admin/*",
        ),
        (
            "/Admin/x",
            400,
            "its path: as sent it is for no route, read as /admin/x for route /admin/*",
        ),
        (
            "/public/../orders",
            400,
            "its path: as sent it is for route /public/*, read as /orders for a route that does not accept GET",
        ),
        (
            "/public/%E2%80%AE/../../%c3%a9",
            400,
            "its path: as sent it is for route /public/*, read as /%c3%a9 for no route",
        ),
        (
            "/public/%zz",
            400,
            "its path: it does not begin with `/`, or holds a control character, `#`, or `%` without",
        ),
    ] {
        let before = gate.requests(0).len();
        let reply = gate.call(&get(target).token("canary-ada"));
        assert_eq!(reply.status, status, "{target}");
        for word in ["root", "orders:write", "acme", "/admin/*", "for route"] {
            assert!(
                !reply.text().contains(word),
                "the client reads {word}: {}",
                reply.text()
            );
        }
        let events = gate.requests(before + 1);
        let reason = events.last().unwrap()["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with(expected), "{target}: {reason}");
    }
    let long = format!("/public/..%2f{}", "a".repeat(1000));
    let before = gate.requests(0).len();
    assert_eq!(gate.get(&long).status, 400);
    let events = gate.requests(before + 1);
    let reason = events.last().unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(reason.len() < 400 && reason.contains('…'), "{reason}");
}
