//! `kind = "introspection"`: tokens that an authorization server is asked about (RFC 7662).

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::mint::{Signer, base64, now};
use crate::harness::pki::{Pki, show};
use crate::harness::program::authgate_with_input;
use crate::harness::proofs::ProofKey;
use crate::harness::scripted_provider::{Hold, Received, Script, ScriptedProvider};
use crate::harness::{Config, Conn, Gate, RecordingUpstream, Redis, config, get, wait_until};

const PATH: &str = "/introspect";
/// Longer than any test.
const LONG: &str = "timeout = \"60s\"";
/// How long something may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
const INVALID: &str = "{\"detail\":\"Invalid token.\"}";

/// An authorization server, and the tokens that it knows.
struct Idp {
    provider: ScriptedProvider,
    tokens: Arc<Mutex<HashMap<String, Script>>>,
}

impl Idp {
    fn start() -> Self {
        Self::of(ScriptedProvider::start())
    }

    fn of(provider: ScriptedProvider) -> Self {
        let tokens: Arc<Mutex<HashMap<String, Script>>> = Arc::default();
        let known = Arc::clone(&tokens);
        provider.answers(PATH, move |received| {
            let known = known.lock().unwrap();
            let script = known.get(&token_of(received)).cloned();
            script.unwrap_or_else(|| Script::json(&json!({ "active": false })))
        });
        Self { provider, tokens }
    }

    fn says(&self, token: &str, script: Script) {
        self.tokens.lock().unwrap().insert(token.to_owned(), script);
    }

    /// An active token of user 42, with these further members.
    fn knows(&self, token: &str, more: &Value) {
        self.says(token, Script::json(&active(more)));
    }

    fn count(&self) -> usize {
        self.provider.count(PATH)
    }

    /// How often it was asked about this token.
    fn asked(&self, token: &str) -> usize {
        let received = self.provider.received(PATH);
        received.iter().filter(|received| token_of(received) == token).count()
    }

    /// `[authenticators.idp]`, with these further lines.
    fn authenticator(&self, lines: &str) -> String {
        let url = self.provider.url(PATH);
        format!(
            "[authenticators.idp]\nkind = \"introspection\"\nurl = \"{url}\"\n\
             client = {{ id = \"gate way\", secret = \"canary&secret\" }}\n{lines}\n"
        )
    }

    fn config(&self, upstream: &RecordingUpstream, lines: &str) -> Config {
        config()
            .tables(&self.authenticator(lines))
            .app(upstream)
            .route("/api/*", "authenticate = [\"idp\"]")
    }
}

fn active(more: &Value) -> Value {
    let mut answer = json!({ "active": true, "sub": "42" });
    for (name, value) in more.as_object().unwrap() {
        answer[name] = value.clone();
    }
    answer
}

fn token_of(received: &Received) -> String {
    let text = received.text();
    let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == "token")
        .map(|(_, token)| token.to_owned())
        .unwrap_or_default()
}

fn ask(gate: &Gate, token: &str) -> Reply {
    gate.call(&get("/api/x").bearer(token))
}

fn status(gate: &Gate, token: &str) -> u16 {
    ask(gate, token).status
}

/// The metric of introspections that ended so.
fn introspections(gate: &Gate, outcome: &str) -> f64 {
    gate.metric(&format!(
        "authgate_introspection_requests_total{{authenticator=\"idp\",outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn an_active_token_has_the_identity_that_the_answer_describes() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let headers = "headers = { X-Id = \"id\", X-Name = \"username\", X-Email = \"email\", X-Groups = \"groups\", \
                   X-Scopes = \"scopes\", X-Tenant = \"claims.tenant\", X-By = \"authenticator\" }";
    let gate = Gate::start(&idp.config(&upstream, "").identity(headers));
    idp.knows(
        "canary-ada",
        &json!({
            "username": "ada", "email": "ada@example.com", "groups": ["staff", "editors"], "scope": "read write",
            "tenant": "acme", "exp": now() + 300, "iat": now(), "client_id": "app", "token_type": "Bearer", "nbf": null,
        }),
    );
    assert_eq!(status(&gate, "canary-ada"), 200);
    let sent = upstream.last();
    for (name, value) in [
        ("x-id", "42"),
        ("x-name", "ada"),
        ("x-email", "ada@example.com"),
        ("x-groups", "staff,editors"),
        ("x-scopes", "read,write"),
        ("x-tenant", "acme"),
        ("x-by", "idp"),
    ] {
        assert_eq!(sent.header(name), Some(value), "{name}");
    }
    let [asked] = &idp.provider.received(PATH)[..] else {
        panic!("asked once")
    };
    assert!(
        asked.head.first.starts_with("POST /introspect HTTP/1.1"),
        "{}",
        asked.head.first
    );
    assert_eq!(asked.text(), "token=canary-ada&token_type_hint=access_token");
    let login = STANDARD.encode("gate+way:canary%26secret");
    for (name, value) in [
        ("authorization", format!("Basic {login}").as_str()),
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    // The next ones are answered from the cache.
    for _ in 0..3 {
        assert_eq!(status(&gate, "canary-ada"), 200);
    }
    assert_eq!((idp.count(), introspections(&gate, "active")), (1, 1.0));
}

#[test]
fn with_method_post_the_client_authenticates_in_the_body() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let config = idp
        .authenticator("")
        .replace("canary&secret\" }", "canary&secret\", method = \"post\" }");
    let gate = Gate::start(&config_of(&config, &upstream));
    idp.knows("canary-ada", &json!({}));
    assert_eq!(status(&gate, "canary-ada"), 200);
    let asked = &idp.provider.received(PATH)[0];
    assert_eq!(asked.header("authorization"), None);
    assert!(
        asked
            .text()
            .ends_with("&client_id=gate+way&client_secret=canary%26secret"),
        "{}",
        asked.text()
    );
}

fn config_of(tables: &str, upstream: &RecordingUpstream) -> Config {
    let config = config().tables(tables).app(upstream);
    config.route("/api/*", "authenticate = [\"idp\"]")
}

#[test]
fn a_token_that_is_not_active_is_refused_as_an_unknown_one() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, "cache = { negative_ttl = \"60s\" }"));
    idp.says(
        "canary-revoked",
        Script::json(&json!({ "active": false, "sub": "42", "exp": "soon" })),
    );
    for token in ["canary-revoked", "canary-unknown"] {
        for _ in 0..3 {
            let reply = ask(&gate, token);
            assert_eq!((reply.status, reply.text().as_str()), (401, INVALID), "{token}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"api\""));
        }
        assert_eq!(idp.asked(token), 1, "{token}");
    }
    // What cannot be a token is refused without asking.
    let header = |value: &str| gate.call(&get("/api/x").authorization(value));
    for (value, text) in [
        ("Bearer", "No credentials provided."),
        ("Bearer canary canary", "should not contain spaces."),
        ("Bearer canary\u{e9}", "should not contain invalid characters."),
        (&format!("Bearer {}", "canary".repeat(3000)), "Invalid token."),
    ] {
        let reply = header(value);
        assert_eq!(reply.status, 401, "{text}");
        assert!(reply.text().contains(text), "{text}: {}", reply.text());
    }
    idp.knows("canary-ada,canary-ada", &json!({}));
    let twice = get("/api/x").bearer("canary-ada").authorization("canary-ada");
    assert_eq!(gate.call(&twice).text(), INVALID);
    assert_eq!((idp.count(), upstream.calls()), (2, 0));
}

#[test]
fn the_claims_of_an_answer_are_checked_as_those_of_a_jwt() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let lines =
        "issuer = \"https://idp.example\"\naudience = [\"api\", \"shop\"]\nleeway = \"5s\"\ntoken_bytes = \"64B\"";
    let gate = Gate::start(&idp.config(&upstream, lines));
    let good = json!({ "iss": "https://idp.example", "aud": ["other", "api"], "exp": now() + 300, "nbf": now() });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (at, (claims, outcome)) in [
        (good.clone(), None),
        (with("aud", json!("shop")), None),
        (with("exp", Value::Null), None),
        (with("exp", json!(now() - 100)), Some(("introspected_expired", ""))),
        (
            with("nbf", json!(now() + 100)),
            Some(("introspected_invalid", "not before")),
        ),
        (
            with("iat", json!(now() + 100)),
            Some(("introspected_invalid", "issued at")),
        ),
        (
            with("iss", json!("https://evil.example")),
            Some(("introspected_invalid", "issuer")),
        ),
        (with("iss", Value::Null), Some(("introspected_invalid", "issuer"))),
        (
            with("aud", json!(["other"])),
            Some(("introspected_invalid", "audience")),
        ),
        (with("aud", Value::Null), Some(("introspected_invalid", "audience"))),
        (
            with("sub", Value::Null),
            Some(("introspected_user_unnamed", "sub is absent")),
        ),
        (
            with("sub", json!("")),
            Some(("introspected_user_unnamed", "sub must be an id")),
        ),
        (
            with("username", json!(true)),
            Some(("introspected_user_unnamed", "username is a boolean")),
        ),
        (
            with("username", json!("a\nb")),
            Some(("introspected_user_unnamed", "username")),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("canary-{at}");
        idp.knows(&token, &claims);
        let reply = ask(&gate, &token);
        match outcome {
            None => assert_eq!(reply.status, 200, "{claims}"),
            Some((label, reason)) => {
                assert_eq!((reply.status, reply.text().as_str()), (401, INVALID), "{claims}");
                let event = gate.requests(at + 1)[at].clone();
                assert_eq!(event["outcome"], label, "{claims}");
                assert!(event["reason"].as_str().unwrap_or_default().contains(reason), "{event}");
            }
        }
    }
}

#[test]
fn a_token_that_is_not_valid_yet_is_asked_about_again() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, "cache = { negative_ttl = \"60s\" }"));
    idp.knows("canary-ada", &json!({ "nbf": now() + 100 }));
    for _ in 0..2 {
        assert_eq!(status(&gate, "canary-ada"), 401);
    }
    idp.knows("canary-ada", &json!({ "nbf": now() }));
    assert_eq!(status(&gate, "canary-ada"), 200);
    assert_eq!(idp.count(), 3);
}

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

#[test]
fn a_bounded_number_of_tokens_is_introspected_at_once() {
    const MANY: usize = 80;
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, LONG));
    let hold = Hold::default();
    let tokens: Vec<String> = (0..MANY).map(|at| format!("canary-{at}")).collect();
    for token in &tokens {
        idp.says(token, Script::json(&active(&json!({}))).hold(&hold));
    }
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
        .config(&upstream, "form = \"opaque\"")
        .jwt("users = \"none\"")
        .jwt("form = \"jwt\"")
        .jwt(&format!("keys = [{}]", signer.key("jwt.pem")))
        .file("jwt.pem", signer.file())
        .route("/both/*", "authenticate = [\"idp\", \"jwt\"]");
    let gate = Gate::start(&config);
    let hold = Hold::default();
    let tokens: Vec<String> = (0..70).map(|at| format!("canary-{at}")).collect();
    for token in &tokens {
        idp.says(token, Script::json(&active(&json!({}))).hold(&hold));
    }
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
fn a_cached_token_ends_when_it_expires() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, ""));
    idp.knows("canary-ada", &json!({ "exp": now() + 3 }));
    assert_eq!(status(&gate, "canary-ada"), 200);
    // The endpoint goes on calling it active.
    wait_until("it has expired", TIMEOUT, || status(&gate, "canary-ada") == 401);
    assert_eq!(idp.count(), 2);
}

#[test]
fn a_token_without_an_end_is_cached_for_the_ttl() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, "cache = { ttl = \"1s\" }"));
    idp.knows("canary-ada", &json!({}));
    assert_eq!(status(&gate, "canary-ada"), 200);
    idp.says("canary-ada", Script::json(&json!({ "active": false })));
    wait_until("the entry has expired", TIMEOUT, || status(&gate, "canary-ada") == 401);
    assert_eq!(idp.count(), 2);
}

#[test]
fn without_a_cache_each_request_asks() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, "cache = { entries = 0, negative_entries = 0 }"));
    idp.knows("canary-ada", &json!({}));
    for _ in 0..3 {
        assert_eq!(status(&gate, "canary-ada"), 200);
    }
    assert_eq!(idp.count(), 3);
}

#[test]
fn revoked_tokens_and_users_are_refused_whatever_the_endpoint_says() {
    let (idp, upstream, redis) = (Idp::start(), RecordingUpstream::start(), Redis::start());
    let gate = Gate::start(&idp.config(&upstream, "revocation = \"redis\"").redis(&redis));
    let issued = now() - 100;
    idp.knows("canary-one", &json!({ "jti": "one", "iat": issued }));
    idp.knows("canary-two", &json!({ "jti": "two", "iat": issued }));
    idp.knows("canary-later", &json!({ "iat": issued + 50 }));
    idp.knows("canary-undated", &json!({}));
    let all = ["canary-one", "canary-two", "canary-later", "canary-undated"];
    let statuses = || all.map(|token| status(&gate, token));
    assert_eq!(statuses(), [200; 4]);
    redis.set("revoked:jti:one", "1");
    wait_until("the revocation is in force", TIMEOUT, || {
        statuses() == [401, 200, 200, 200]
    });
    gate.logged(&["introspected_revoked"]);
    redis.set("revoked:user:42", (issued + 10).to_string());
    wait_until("the user's tokens are revoked", TIMEOUT, || {
        statuses() == [401, 401, 200, 401]
    });
    // The endpoint knows nothing of it.
    redis.pause();
    idp.knows("canary-new", &json!({ "iat": now() }));
    assert_eq!(status(&gate, "canary-new"), 503);
    redis.resume();
    wait_until("the store is back", TIMEOUT, || status(&gate, "canary-new") == 200);
}

#[test]
fn jwts_and_introspected_tokens_share_a_scheme() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let config = idp
        .config(&upstream, "form = \"opaque\"")
        .jwt("users = \"none\"")
        .jwt("form = \"jwt\"")
        .jwt(&format!("keys = [{}]", signer.key("jwt.pem")))
        .file("jwt.pem", signer.file())
        .identity("headers = { X-By = \"authenticator\" }")
        .route("/both/*", "authenticate = [\"jwt\", \"idp\"]")
        .route("/maybe/*", "authenticate = [\"idp\"]\noptional = true");
    let gate = Gate::start(&config);
    idp.knows("canary-ada", &json!({}));
    let jwt = signer.access();
    for (token, by) in [(jwt.as_str(), "jwt"), ("canary-ada", "idp")] {
        assert_eq!(gate.call(&get("/both/x").bearer(token)).status, 200, "{by}");
        assert_eq!(upstream.last().header("x-by"), Some(by));
    }
    assert_eq!(gate.call(&get("/both/x").bearer("canary-unknown")).text(), INVALID);
    // A JWT is not sent to the endpoint, and not taken for anonymous.
    assert_eq!(gate.call(&get("/maybe/x").bearer(&jwt)).text(), INVALID);
    gate.logged(&["introspected_invalid", "\"reason\":\"form\""]);
    assert_eq!(gate.call(&get("/maybe/x")).status, 200);
    assert_eq!(idp.count(), 2);
}

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

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
fn a_bound_token_is_useless_without_its_proof_also_if_it_is_cached() {
    let (idp, upstream, client) = (
        Idp::start(),
        RecordingUpstream::start(),
        ProofKey::new(Algorithm::ES256),
    );
    let gate = Gate::start(&idp.config(&upstream, "dpop = \"accept\""));
    idp.knows("canary-bound", &json!({ "cnf": client.cnf() }));
    idp.knows("canary-unbound", &json!({}));
    idp.knows("canary-unknown-binding", &json!({ "cnf": { "jwk": {} } }));
    let proof = |token: &str| client.send(get("/api/x"), "http://localhost/api/x", token);
    let other = ProofKey::new(Algorithm::ES256).send(get("/api/x"), "http://localhost/api/x", "canary-bound");
    // Before the token is in the cache, and after it was accepted.
    for _ in 0..2 {
        let before = upstream.calls();
        assert_eq!(status(&gate, "canary-bound"), 401);
        for refused in [
            other.clone(),
            proof("canary-unbound"),
            proof("canary-unknown-binding"),
            get("/api/x").authorization("DPoP canary-bound"),
        ] {
            assert_eq!(gate.call(&refused).status, 401);
        }
        assert_eq!(upstream.calls(), before);
        assert_eq!(gate.call(&proof("canary-bound")).status, 200);
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
        assert_eq!(status(&gate, "canary-unbound"), 200);
    }
    assert_eq!((idp.asked("canary-bound"), idp.asked("canary-unbound")), (1, 1));
}

#[test]
fn a_token_that_is_bound_to_a_certificate_is_useless_without_it() {
    let (idp, upstream, pki) = (Idp::start(), RecordingUpstream::start(), Arc::new(Pki::new()));
    let certificate = pki.leaf(&["client.example"]);
    let der = CertificateDer::from_pem_slice(certificate.0.as_bytes()).unwrap();
    let config = idp
        .config(&upstream, "certificate_bound = \"require\"")
        .file("clients.pem", pki.root_pem())
        .tls(&pki, &[&["localhost"]])
        .tls_line("client_auth = { mode = \"optional\", ca = \"clients.pem\" }");
    let gate = Gate::start(&config);
    idp.knows(
        "canary-bound",
        &json!({ "cnf": { "x5t#S256": base64(digest(&SHA256, &der)) } }),
    );
    let mut with = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let without = with.clone();
    show(&mut with, certificate);
    for _ in 0..2 {
        for (client, expected) in [(&without, 401), (&with, 200)] {
            let mut conn = Conn::tls(gate.address, "localhost", client.clone()).unwrap();
            assert_eq!(conn.call(&get("/api/x").bearer("canary-bound")).status, expected);
        }
    }
    assert_eq!(idp.count(), 1);
}

#[test]
fn a_dry_run_asks_the_endpoint_as_a_request_would() {
    let (idp, upstream) = (Idp::start(), RecordingUpstream::start());
    let gate = Gate::start(&idp.config(&upstream, ""));
    let signer = Signer::new(Algorithm::ES256);
    let (good, bad) = (signer.access(), signer.with(&json!({ "user_id": "7" })));
    idp.knows(&good, &json!({ "username": "ada" }));
    let inspect = |token: &str| {
        let words = ["jwt", "inspect", "-", "--json", "--route", "/api/x"];
        authgate_with_input(gate.folder.path(), &words, token.as_bytes()).out
    };
    let forwarded = inspect(&good);
    assert!(
        forwarded.contains("\"x-user-name\"") && forwarded.contains("ada"),
        "{forwarded}"
    );
    let refused = inspect(&bad);
    assert!(
        refused.contains("401") && refused.contains("Invalid token."),
        "{refused}"
    );
    assert_eq!((idp.count(), upstream.calls()), (2, 0));
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
