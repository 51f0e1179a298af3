//! How an introspection endpoint is found and asked: its failures, its bounds, and reloads.

use std::fs;
use std::thread;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::scripted_provider::{Hold, Script, ScriptedProvider};
use crate::harness::{Config, Gate, RecordingUpstream, get, wait_until};
use crate::introspection::{Idp, LONG, PATH, TIMEOUT, active, ask, config_of, introspections, status};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

#[test]
fn an_endpoint_that_cannot_answer_is_503_and_nothing_is_remembered() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, ""));
    let answer = |more: Value| Script::json(&active(&more));
    let good = || answer(json!({}));
    let body = active(&json!({})).to_string();
    let huge = active(&json!({ "x": "x".repeat(1 << 20) }));
    let failures = [
        (
            Script::new(401, body.clone()),
            "client",
            "it does not accept the gateway as a client",
        ),
        (Script::new(403, body.clone()), "client", "status 403"),
        (Script::new(400, body.clone()), "status", "status 400"),
        (Script::new(500, body.clone()), "status", "status 500"),
        (Script::new(201, body.clone()), "status", "status 201"),
        (
            Script::new(302, body.clone()).field("Location", "/elsewhere"),
            "status",
            "redirect",
        ),
        (Script::new(200, "<html>"), "answer", "not one JSON object"),
        (Script::new(200, ""), "answer", "not one JSON object"),
        (
            Script::new(200, r#"{"active":false,"active":true}"#),
            "answer",
            "without duplicate members",
        ),
        (
            answer(json!({ "active": "true" })),
            "answer",
            "\\\"active\\\" is not true or false",
        ),
        (
            answer(json!({ "active": null })),
            "answer",
            "\\\"active\\\" is not true or false",
        ),
        (
            answer(json!({ "exp": "soon" })),
            "answer",
            "\\\"exp\\\" is not a number",
        ),
        (
            answer(json!({ "aud": [1] })),
            "answer",
            "\\\"aud\\\" is not a string or a list",
        ),
        (answer(json!({ "sub": 42 })), "answer", "\\\"sub\\\" is not a string"),
        (Script::json(&huge), "answer", "longer than 1048576 bytes"),
        (good().field("Content-Encoding", "gzip"), "answer", "compressed"),
        (Script::raw("SSH-2.0-OpenSSH_9.2\r\n"), "answer", "not valid HTTP"),
        (good().cut_after(3), "unreachable", "connection was lost"),
        (
            good().delay(Duration::from_millis(1500)),
            "timeout",
            "no complete response in time",
        ),
    ];
    for (at, (script, outcome, reason)) in failures.into_iter().enumerate() {
        let before = introspections(&gate, outcome);
        idp.says("canary-ada", script);
        let reply = ask(&gate, "canary-ada");
        assert_eq!(reply.status, 503, "{reason}");
        assert!(reply.header("retry-after").is_some(), "{reason}");
        assert_eq!(introspections(&gate, outcome), before + 1.0, "{reason}");
        let event = gate.requests(at + 1)[at].clone();
        assert_eq!(event["outcome"], format!("introspection_{outcome}"), "{event}");
        assert!(event.to_string().contains(reason), "{reason}: {event}");
    }
    assert_eq!(upstream.calls(), 0);
    gate.logged(&["a token could not be introspected", "\"authenticator\":\"idp\""]);
    let shown = gate.probe("/status.json").json();
    let shown = &shown["introspection"][0];
    assert_eq!(
        (&shown["authenticator"], &shown["last_success"]),
        (&json!("idp"), &Value::Null)
    );
    assert!(
        shown["error"]
            .as_str()
            .unwrap()
            .contains("no complete response in time"),
        "{shown}"
    );
    idp.says("canary-ada", good());
    assert_eq!(status(&gate, "canary-ada"), 200);
    gate.logged(&["the introspection endpoint answers again"]);
    let shown = gate.probe("/status.json").json();
    let shown = &shown["introspection"][0];
    assert!(shown["error"].is_null() && shown["last_success"].is_string(), "{shown}");
}

#[test]
fn concurrent_requests_with_one_token_ask_once_over_all_workers() {
    const MANY: usize = 60;
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, LONG));
    for (token, script, expected) in [
        ("canary-ada", Script::json(&active(&json!({}))), 200),
        ("canary-unknown", Script::json(&json!({ "active": false })), 401),
        // A failure is one for all that wait.
        ("canary-failed", Script::new(500, ""), 503),
    ] {
        let hold = Hold::default();
        idp.says(token, script.hold(&hold));
        let statuses: Vec<u16> = thread::scope(|threads| {
            let asked: Vec<_> = (0..MANY).map(|_| threads.spawn(|| status(&gate, token))).collect();
            wait_until("all of them wait", TIMEOUT, || {
                gate.metric("authgate_requests_in_flight") >= MANY as f64
            });
            hold.release();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(statuses, [expected; MANY], "{token}");
        assert_eq!(idp.asked(token), 1, "{token}");
    }
}

/// Active tokens. The endpoint answers only after the hold is released.
fn held_tokens(idp: &Idp, count: usize) -> (Vec<String>, Hold) {
    let hold = Hold::default();
    let tokens: Vec<String> = (0..count).map(|at| format!("canary-{at}")).collect();
    for token in &tokens {
        idp.says(token, Script::json(&active(&json!({}))).hold(&hold));
    }
    (tokens, hold)
}

#[test]
fn a_bounded_number_of_tokens_is_introspected_at_once() {
    const MANY: usize = 80;
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, LONG));
    let (tokens, hold) = held_tokens(&idp, MANY);
    thread::scope(|threads| {
        let asked: Vec<_> = tokens
            .iter()
            .map(|token| threads.spawn(|| status(&gate, token)))
            .collect();
        wait_until("all of them wait", TIMEOUT, || {
            gate.metric("authgate_requests_in_flight") >= MANY as f64
        });
        idp.provider.wait_for(PATH, 64);
        assert_eq!(idp.count(), 64);
        hold.release();
        for asked in asked {
            assert_eq!(asked.join().unwrap(), 200);
        }
    });
    assert_eq!(idp.count(), MANY);
}

#[test]
fn tokens_beyond_the_bound_are_503_in_time_and_other_authenticators_go_on() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let config = idp
        .beside_jwts(&upstream, &signer)
        .route("/both/*", "authenticate = [\"idp\", \"jwt\"]");
    let gate = Gate::start(&config);
    let (tokens, hold) = held_tokens(&idp, 70);
    thread::scope(|threads| {
        let asked: Vec<_> = tokens
            .iter()
            .map(|token| threads.spawn(|| status(&gate, token)))
            .collect();
        idp.provider.wait_for(PATH, 64);
        let mut conn = gate.connect();
        for _ in 0..50 {
            assert_eq!(conn.call(&get("/both/x").bearer(&signer.access())).status, 200);
        }
        for asked in asked {
            assert_eq!(asked.join().unwrap(), 503);
        }
    });
    hold.release();
    assert!(introspections(&gate, "timeout") >= 64.0);
}

#[test]
fn the_metadata_of_the_issuer_name_the_endpoint() {
    for place in [OPENID, OAUTH] {
        let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
        let metadata = json!({ "issuer": idp.provider.url(""), "introspection_endpoint": idp.provider.url(PATH) });
        let hold = Hold::default();
        idp.provider.serves(place, Script::json(&metadata).hold(&hold));
        let url = format!("url = \"{}\"", idp.provider.url(PATH));
        let discovery = format!("discovery = \"{}\"\n{LONG}", idp.provider.url(""));
        let gate = Gate::start(&config_of(&idp.authenticator("").replace(&url, &discovery), &upstream));
        // Nothing is fetched before it is needed.
        assert_eq!(idp.provider.count(OPENID), 0);
        let tokens: Vec<String> = (0..20).map(|at| format!("canary-{at}")).collect();
        thread::scope(|threads| {
            let asked = tokens.iter().map(|token| {
                idp.knows(token, &json!({}));
                threads.spawn(|| status(&gate, token))
            });
            let asked: Vec<_> = asked.collect();
            wait_until("all of them wait", TIMEOUT, || {
                gate.metric("authgate_requests_in_flight") >= 20.0
            });
            hold.release();
            for asked in asked {
                assert_eq!(asked.join().unwrap(), 200, "{place}");
            }
        });
        assert_eq!((idp.provider.count(place), idp.count()), (1, 20), "{place}");
    }
}

#[test]
fn metadata_of_another_issuer_are_not_used() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let (issuer, endpoint) = (idp.provider.url("/a"), idp.provider.url(PATH));
    let url = format!("url = \"{endpoint}\"");
    let discovery = format!("discovery = \"{issuer}\"");
    let gate = Gate::start(&config_of(&idp.authenticator("").replace(&url, &discovery), &upstream));
    idp.knows("canary-ada", &json!({}));
    let place = "/a/.well-known/openid-configuration";
    let metadata = |issuer: &str| json!({ "issuer": issuer, "introspection_endpoint": endpoint });
    for (script, reason) in [
        (Script::new(404, ""), "there is no document"),
        (Script::json(&metadata(&format!("{issuer}/"))), "byte for byte"),
        (
            Script::json(&json!({ "issuer": issuer })),
            "they have no `introspection_endpoint`",
        ),
        (Script::new(500, ""), "status 500"),
        (Script::new(200, "<html>"), "not a JSON object"),
    ] {
        idp.provider.serves(place, script);
        wait_until(reason, TIMEOUT, || {
            assert_eq!(status(&gate, "canary-ada"), 503, "{reason}");
            let shown = gate.probe("/status.json").json();
            shown["introspection"][0]["error"].as_str().unwrap().contains(reason)
        });
    }
    assert_eq!(idp.count(), 0);
    gate.logged(&["introspection_discovery"]);
    idp.provider.serves(place, Script::json(&metadata(&issuer)));
    wait_until("the metadata are there", TIMEOUT, || status(&gate, "canary-ada") == 200);
}

#[test]
fn a_reload_keeps_the_endpoint_and_its_counters_where_it_is_the_same() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let config = |lines: &str| idp.config(&upstream, lines);
    let gate = Gate::start(&config(""));
    idp.knows("canary-ada", &json!({}));
    assert_eq!(status(&gate, "canary-ada"), 200);
    let connections = idp.provider.accepted();
    let reload = |changed: &Config| {
        let before = gate.metric("authgate_reloads_total{outcome=\"applied\"}");
        changed.write(gate.folder.path());
        gate.signal("HUP");
        wait_until("it is applied", TIMEOUT, || {
            gate.metric("authgate_reloads_total{outcome=\"applied\"}") > before
        });
    };
    // Nothing has changed: the cache is kept.
    reload(&config("").log("level = \"debug\""));
    assert_eq!((status(&gate, "canary-ada"), idp.count()), (200, 1));
    // Another rule: the cache is empty, the connection and the counters are kept.
    reload(&config("leeway = \"1s\""));
    assert_eq!((status(&gate, "canary-ada"), idp.count()), (200, 2));
    assert_eq!(
        (idp.provider.accepted(), introspections(&gate, "active")),
        (connections, 2.0)
    );
}

#[test]
fn a_changed_secret_is_in_force_after_a_reload() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let tables = idp
        .authenticator("")
        .replace("\"canary&secret\"", "{ file = \"client.secret\" }");
    let config = config_of(&tables, &upstream).file("client.secret", "canary-old\n");
    let gate = Gate::start(&config);
    idp.knows("canary-ada", &json!({}));
    assert_eq!(status(&gate, "canary-ada"), 200);
    fs::write(gate.folder.path().join("client.secret"), "canary-new\n").unwrap();
    wait_until("the file was read again", TIMEOUT, || {
        gate.metric("authgate_reloads_total{outcome=\"applied\"}") >= 1.0
    });
    assert_eq!(status(&gate, "canary-ada"), 200);
    let logins: Vec<_> = idp
        .provider
        .received(PATH)
        .iter()
        .map(|asked| asked.header("authorization").unwrap().to_owned())
        .collect();
    let login = |secret: &str| format!("Basic {}", STANDARD.encode(format!("gate+way:{secret}")));
    assert_eq!(logins, [login("canary-old"), login("canary-new")]);
}

#[test]
fn the_endpoint_goes_down_under_load_and_comes_back() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, ""));
    idp.knows("canary-cached", &json!({}));
    for at in 0..2000 {
        idp.knows(&format!("canary-{at}"), &json!({}));
    }
    assert_eq!(status(&gate, "canary-cached"), 200);
    let (down, stop) = (
        std::sync::atomic::AtomicBool::new(false),
        std::sync::atomic::AtomicBool::new(false),
    );
    use std::sync::atomic::Ordering::SeqCst;
    thread::scope(|threads| {
        let cached = threads.spawn(|| {
            let mut conn = gate.connect();
            while !stop.load(SeqCst) {
                assert_eq!(conn.call(&get("/api/x").bearer("canary-cached")).status, 200);
            }
        });
        let new = threads.spawn(|| {
            let (mut conn, mut statuses) = (gate.connect(), Vec::new());
            for at in 0..2000 {
                if stop.load(SeqCst) {
                    break;
                }
                let was_down = down.load(SeqCst);
                let status = conn.call(&get("/api/x").bearer(&format!("canary-{at}"))).status;
                assert!(status == 200 || status == 503, "{status}");
                statuses.push((was_down && down.load(SeqCst), status));
                thread::sleep(Duration::from_millis(2));
            }
            statuses
        });
        idp.provider.wait_for(PATH, 20);
        idp.provider.goes_down();
        down.store(true, SeqCst);
        wait_until("requests fail", TIMEOUT, || {
            introspections(&gate, "unreachable") >= 10.0
        });
        down.store(false, SeqCst);
        idp.provider.comes_back();
        let answered = introspections(&gate, "active");
        wait_until("requests succeed again", TIMEOUT, || {
            introspections(&gate, "active") >= answered + 10.0
        });
        stop.store(true, SeqCst);
        cached.join().unwrap();
        let statuses = new.join().unwrap();
        assert!(
            statuses.iter().all(|(was_down, status)| !was_down || *status == 503),
            "{statuses:?}"
        );
        assert_eq!(statuses.last().unwrap().1, 200);
    });
}

#[test]
fn an_endpoint_over_https_must_have_a_trusted_certificate() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (idp, upstream) = (Idp::of(ScriptedProvider::https(&pki)), RecordingUpstream::start());
    idp.knows("canary-ada", &json!({}));
    for (root, expected) in [(pki.root_pem(), 200), (other.root_pem(), 503)] {
        let gate = Gate::start(&idp.config(&upstream, "ca = \"ca.pem\"").file("ca.pem", root));
        assert_eq!(status(&gate, "canary-ada"), expected);
        if expected == 503 {
            gate.logged(&["a token could not be introspected", "TLS failed"]);
        }
    }
}
