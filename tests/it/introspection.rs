//! `kind = "introspection"`: tokens that an authorization server is asked about (RFC 7662).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
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
use crate::harness::scripted_provider::{Received, Script, ScriptedProvider};
use crate::harness::{Config, Conn, Gate, RecordingUpstream, Redis, config, get, wait_until};

pub const PATH: &str = "/introspect";
/// Longer than any test.
pub const LONG: &str = "timeout = \"60s\"";
/// How long something may take on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
const INVALID: &str = "{\"detail\":\"Invalid token.\"}";

/// An authorization server, and the tokens that it knows.
pub struct Idp {
    pub provider: ScriptedProvider,
    pub tokens: Arc<Mutex<HashMap<String, Script>>>,
}

impl Idp {
    pub fn start() -> Self {
        Self::of(ScriptedProvider::start())
    }

    pub fn of(provider: ScriptedProvider) -> Self {
        let tokens: Arc<Mutex<HashMap<String, Script>>> = Arc::default();
        let known = Arc::clone(&tokens);
        provider.answers(PATH, move |received| {
            let known = known.lock().unwrap();
            let script = known.get(&token_of(received)).cloned();
            script.unwrap_or_else(|| Script::json(&json!({ "active": false })))
        });
        Self { provider, tokens }
    }

    pub fn says(&self, token: &str, script: Script) {
        self.tokens.lock().unwrap().insert(token.to_owned(), script);
    }

    /// An active token of user 42, with these further members.
    pub fn knows(&self, token: &str, more: &Value) {
        self.says(token, Script::json(&active(more)));
    }

    pub fn count(&self) -> usize {
        self.provider.count(PATH)
    }

    /// How often it was asked about this token.
    pub fn asked(&self, token: &str) -> usize {
        let received = self.provider.received(PATH);
        received.iter().filter(|received| token_of(received) == token).count()
    }

    /// `[authenticators.idp]`, with these further lines.
    pub fn authenticator(&self, lines: &str) -> String {
        let url = self.provider.url(PATH);
        format!(
            "[authenticators.idp]\nkind = \"introspection\"\nurl = \"{url}\"\n\
             client = {{ id = \"gate way\", secret = \"canary&secret\" }}\n{lines}\n"
        )
    }

    pub fn config(&self, upstream: &RecordingUpstream, lines: &str) -> Config {
        config()
            .tables(&self.authenticator(lines))
            .app(upstream)
            .route("/api/*", "authenticate = [\"idp\"]")
    }

    /// Opaque tokens are introspected, and JWTs of this signer are verified.
    pub fn beside_jwts(&self, upstream: &RecordingUpstream, signer: &Signer) -> Config {
        self.config(upstream, "form = \"opaque\"")
            .jwt("users = \"none\"")
            .jwt("form = \"jwt\"")
            .jwt(&format!("keys = [{}]", signer.key("jwt.pem")))
            .file("jwt.pem", signer.file())
    }
}

pub fn active(more: &Value) -> Value {
    let mut answer = json!({ "active": true, "sub": "42" });
    for (name, value) in more.as_object().unwrap() {
        answer[name] = value.clone();
    }
    answer
}

pub fn token_of(received: &Received) -> String {
    let text = received.text();
    let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == "token")
        .map(|(_, token)| token.to_owned())
        .unwrap_or_default()
}

pub fn ask(gate: &Gate, token: &str) -> Reply {
    gate.call(&get("/api/x").bearer(token))
}

pub fn status(gate: &Gate, token: &str) -> u16 {
    ask(gate, token).status
}

/// The metric of introspections that ended so.
pub fn introspections(gate: &Gate, outcome: &str) -> f64 {
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

pub fn config_of(tables: &str, upstream: &RecordingUpstream) -> Config {
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
        .beside_jwts(&upstream, &signer)
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
