//! `authgate parity`: recorded requests are sent to the application and to the gateway.

use std::fs;

use serde_json::json;

use crate::django::{Django, import, log_in};
use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::harness::upstream::Exchange;
use crate::harness::{Gate, Next, RecordingUpstream, Redis, call, get, post, wait_until};
use crate::recording::{KEY, RECORD, lines, recording};
use crate::reload::reload;

/// An application that knows ada's token, as DRF does.
pub fn authenticates(exchange: Exchange<'_>) -> Next {
    let json = "Content-Type: application/json\r\n";
    // Without an identity, the application verifies the token itself.
    let by_itself = exchange.head.header("authorization") == Some("Token canary-ada");
    if by_itself || exchange.head.header("x-user-id") == Some("42") {
        return exchange.answer("200 OK", json, b"{\"user\":42}");
    }
    let refused = format!("{json}WWW-Authenticate: Token\r\n");
    if exchange.head.header("authorization").is_some() {
        return exchange.answer("401 Unauthorized", &refused, b"{\"detail\":\"Invalid token.\"}");
    }
    let body = b"{\"detail\":\"Authentication credentials were not provided.\"}";
    exchange.answer("401 Unauthorized", &refused, body)
}

struct Replay {
    upstream: RecordingUpstream,
    gate: Gate,
    _redis: Redis,
}

impl Replay {
    /// A gateway that has recorded some requests.
    fn start() -> Self {
        let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
        upstream.answers(authenticates);
        let gate = Gate::start(&recording(&redis, &upstream));
        for (call, status) in [
            (get("/api/x?y=1").token("canary-ada"), 200),
            (get("/api/x").token("canary-unknown"), 401),
            (get("/api/x"), 401),
            (call("OPTIONS", "/api/x").token("canary-ada"), 200),
            (call("HEAD", "/api/x").token("canary-ada"), 200),
            (post("/api/x", "hello").token("canary-ada"), 200),
        ] {
            assert_eq!(gate.call(&call).status, status);
        }
        wait_until("the lines are written", std::time::Duration::from_secs(10), || {
            gate.folder.path().join("requests.jsonl").exists() && lines(gate.folder.path()).len() == 6
        });
        fs::copy(
            gate.folder.path().join("requests.jsonl"),
            gate.folder.path().join("copy.jsonl"),
        )
        .unwrap();
        Self {
            upstream,
            gate,
            _redis: redis,
        }
    }

    fn parity(&self, words: &[&str]) -> Ended {
        let (application, gateway) = (self.upstream.url(), format!("http://{}", self.gate.address));
        let servers = ["--application", &application, "--gateway", &gateway];
        authgate(self.gate.folder.path(), &[&["parity"], words, &servers].concat())
    }
}

const SEALED: [&str; 3] = ["copy.jsonl", "--seal", "record.key"];

#[test]
fn equal_responses_are_exit_0_and_each_difference_is_printed() {
    let replay = Replay::start();
    let ended = replay.parity(&SEALED);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "5 responses are the same.\n"),
        "{ended:?}"
    );
    assert!(
        ended.err.contains("1 requests with other methods were not sent"),
        "{ended:?}"
    );
    let before = replay.upstream.calls();
    let ended = replay.parity(&[&SEALED[..], &["--unsafe"]].concat());
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "6 responses are the same.\n"),
        "{ended:?}"
    );
    // The gateway refuses two requests itself.
    assert_eq!(replay.upstream.calls() - before, 10);
    assert_eq!(
        replay
            .upstream
            .all()
            .iter()
            .filter(|seen| seen.text() == "hello")
            .count(),
        3
    );

    // The application has another token, and another challenge.
    replay
        .upstream
        .answers(|exchange| match exchange.head.header("authorization") {
            Some("Token canary-unknown") => exchange.answer("200 OK", "", b"hello"),
            None => exchange.answer("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"api\"\r\n", b"x"),
            Some(_) => authenticates(exchange),
        });
    let ended = replay.parity(&SEALED);
    assert_eq!(ended.code, 1, "{ended:?}");
    for words in [
        "request 2: GET /api/x\n  status: application 200, gateway 401\n",
        "challenge: application none, gateway \"Token\"\n",
        "challenge: application \"Bearer realm=\\\"api\\\"\", gateway \"Token\"\n",
        "request 3: GET /api/x\n",
    ] {
        assert!(ended.out.contains(words), "{words}\n{}", ended.out);
    }
    assert!(
        !ended.out.contains("request 1:") && ended.err.contains("2 of 5 responses differ"),
        "{ended:?}"
    );
    assert!(
        !ended.out.contains("canary") && !ended.err.contains("canary"),
        "{ended:?}"
    );
}

#[test]
fn a_recording_that_cannot_be_read_is_exit_2() {
    let replay = Replay::start();
    let folder = replay.gate.folder.path();
    fs::write(folder.join("wrong.key"), [1; 32]).unwrap();
    fs::write(folder.join("short.key"), KEY.split_at(3).0).unwrap();
    fs::write(folder.join("text"), "not a recording\n").unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    for (words, expected) in [
        (&["copy.jsonl"][..], "name the key with --seal FILE"),
        (
            &["copy.jsonl", "--seal", "wrong.key"],
            "line 1: authorization: it was sealed with another key",
        ),
        (&["copy.jsonl", "--seal", "short.key"], "a key has 32 bytes"),
        (&["none.jsonl"], "none.jsonl: No such file"),
        (&["text"], "it is neither a recording of the gateway"),
        (&["empty"], "the recording has no request"),
    ] {
        let ended = replay.parity(words);
        assert_eq!(ended.code, 2, "{words:?} {ended:?}");
        assert!(ended.err.contains(expected), "{words:?} {ended:?}");
    }
    let bad = [
        &["parity", "copy.jsonl", "--application", "ftp://x", "--gateway"][..],
        &["http://x"],
    ]
    .concat();
    let ended = authgate(folder, &bad);
    assert!(
        ended.code == 2 && ended.err.contains("--application ftp://x: write"),
        "{ended:?}"
    );
}

#[test]
fn a_har_file_and_plain_lines_from_standard_input_are_sent_too() {
    let replay = Replay::start();
    let folder = replay.gate.folder.path();
    let header = |name: &str, value: &str| json!({ "name": name, "value": value });
    let entry = |method: &str, token: &str| {
        json!({ "request": {
            "method": method,
            "url": "https://api.example/api/x?a=1#top",
            "headers": [header(":authority", "api.example"), header("Authorization", token), header("Connection", "x-hop"), header("X-Hop", "1")],
            "postData": { "mimeType": "text/plain", "text": "" },
        }})
    };
    let har = json!({ "log": { "version": "1.2", "entries": [entry("GET", "Token canary-ada"), entry("DELETE", "Token canary-ada")] } });
    fs::write(folder.join("browser.har"), serde_json::to_string_pretty(&har).unwrap()).unwrap();
    let ended = replay.parity(&["browser.har"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "1 responses are the same.\n"),
        "{ended:?}"
    );
    let seen = replay.upstream.last();
    assert_eq!(
        (seen.line(), seen.header("host"), seen.header("x-hop")),
        ("GET /api/x?a=1", Some("api.example"), None)
    );

    let (application, gateway) = (replay.upstream.url(), format!("http://{}", replay.gate.address));
    let words = ["parity", "-", "--application", &application, "--gateway", &gateway];
    let line = |token: &str| {
        let headers = json!([["Authorization", token], ["Host", "localhost"]]);
        json!({ "method": "GET", "url": "http://localhost/api/x", "headers": headers, "body": "" }).to_string()
    };
    let text = format!("{}\n\n{}\n", line("Token canary-ada"), line("Token canary-unknown"));
    let ended = authgate_with_input(folder, &words, text.as_bytes());
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "2 responses are the same.\n"),
        "{ended:?}"
    );
    let ended = authgate_with_input(
        folder,
        &words,
        format!("{}\nnot JSON\n", line("Token canary-ada")).as_bytes(),
    );
    assert!(
        ended.code == 2 && ended.err.contains("line 2: it is not a recorded request"),
        "{ended:?}"
    );
    // Without an application there is nothing to compare with.
    let words = [
        "parity",
        "-",
        "--application",
        "http://127.0.0.1:1",
        "--gateway",
        &gateway,
    ];
    let ended = authgate_with_input(folder, &words, text.as_bytes());
    assert!(
        ended.code == 1 && ended.out.contains("application no response"),
        "{ended:?}"
    );
}

#[test]
fn what_django_refuses_is_refused_by_the_gateway_with_the_same_bytes() {
    let before = ("DJANGO_SETTINGS_MODULE", "mysite.before_settings");
    let Some(django) = Django::start_with(&[before]) else {
        return;
    };
    let redis = Redis::start();
    let file = |mode: &str| {
        let lines = format!("authenticate = [\"token\", \"jwt\"]\ncredential = \"keep\"\nmode = {mode:?}");
        let file = django.before(&redis).route("/api/*", &lines);
        let file = file
            .public("/api/token/*")
            .public("/api/token-auth/")
            .public("/healthz");
        file.log(RECORD).file("record.key", KEY)
    };
    let gate = Gate::start(&file("observe"));
    import(&gate, &django.dump(&[]));
    let token = log_in(&gate, "/api/token-auth/", "token");
    let bad = [
        "Token",
        "Token a b",
        "Token canary-unknown",
        "Bearer",
        "Bearer a.b.c",
        "Bearer a b",
        "Basic YTpi",
    ];
    for value in bad {
        assert_eq!(gate.call(&get("/api/hello/").authorization(value).echoes()).status, 401);
    }
    assert_eq!(gate.get("/api/hello/").status, 401);
    assert_eq!(
        gate.call(&call("OPTIONS", "/api/hello/").token(&token).echoes()).status,
        200
    );
    assert_eq!(gate.call(&get("/api/none/").token(&token).echoes()).status, 404);
    let ben = django.users()["ben"]["token"].as_str().unwrap().to_owned();
    assert_eq!(gate.call(&get("/api/hello/").token(&ben).echoes()).status, 401);
    assert!(reload(&gate, &file("enforce")));
    let folder = gate.folder.path();
    wait_until("the lines are written", std::time::Duration::from_secs(10), || {
        lines(folder).len() == 12
    });
    fs::copy(folder.join("requests.jsonl"), folder.join("copy.jsonl")).unwrap();
    let (application, gateway) = (django.url(), format!("http://{}", gate.address));
    let words = [
        "parity",
        "copy.jsonl",
        "--seal",
        "record.key",
        "--application",
        &application,
        "--gateway",
        &gateway,
    ];
    let ended = authgate(folder, &words);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "11 responses are the same.\n"),
        "{ended:?}"
    );
}
