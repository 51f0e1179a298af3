//! Signed identities: JWTs that applications verify with published keys, and that no client can forge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use crate::harness::h2::H2;
use crate::harness::load::Load;
use crate::harness::mint::{Signer, now};
use crate::harness::program::{authgate, authgate_with_input};
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, call, config, get, wait_until};
use crate::reload::reload;

const TIMEOUT: Duration = Duration::from_secs(20);
const HEADER: &str = "x-authgate-identity";

/// A gateway whose cached tokens are those of ada, and which signs with these keys.
fn signing(redis: &Redis, upstream: &RecordingUpstream, keys: &[(&Signer, &str)], more: &str) -> Config {
    let lines: Vec<String> = keys.iter().map(|(signer, file)| signer.key(file)).collect();
    let mut config = config()
        .redis(redis)
        .token("")
        .app(upstream)
        .identity("headers = {}")
        .identity(&format!("signed = {{ keys = [{}]{more} }}", lines.join(", ")))
        .protected("/api/*");
    for (signer, file) in keys {
        config = config.file(file, signer.private.clone());
    }
    config
}

fn setup() -> (Redis, RecordingUpstream, Signer) {
    (
        Redis::start().with_ada(),
        RecordingUpstream::start(),
        Signer::new(Algorithm::EdDSA),
    )
}

/// The token of the last request that the upstream has received.
fn last_token(upstream: &RecordingUpstream) -> String {
    upstream.last().header(HEADER).expect("a signed identity").to_owned()
}

fn token_of(gate: &Gate, upstream: &RecordingUpstream) -> String {
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    last_token(upstream)
}

/// Reads a token without verifying it.
fn unverified(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn kid(token: &str) -> String {
    unverified(token, 0)["kid"].as_str().expect("a key id").to_owned()
}

fn published(gate: &Gate) -> JwkSet {
    serde_json::from_value(gate.probe("/jwks.json").json()).expect("a JWK Set")
}

/// Verifies a token as an application does, with the published keys; `jsonwebtoken` is not what has signed it.
fn verified(token: &str, keys: &JwkSet, audience: &str) -> Option<Value> {
    let header = decode_header(token).ok()?;
    assert_eq!(header.typ.as_deref(), Some("authgate-identity+jwt"));
    let key = keys.find(header.kid.as_deref()?)?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = 0;
    validation.set_audience(&[audience]);
    validation.set_issuer(&["authgate"]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let key = DecodingKey::from_jwk(key).expect("a usable key");
    decode::<Value>(token, &key, &validation).ok().map(|token| token.claims)
}

#[test]
fn an_application_verifies_identities_with_the_published_keys() {
    let (redis, upstream, _) = setup();
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256] {
        let signer = Signer::new(algorithm).kid("one");
        let gate = Gate::start(&signing(&redis, &upstream, &[(&signer, "identity.key")], ""));
        let token = token_of(&gate, &upstream);
        let claims = verified(&token, &published(&gate), "app").expect("a valid token");
        let (issued, expires) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!(
            (60..=61).contains(&(expires - issued)) && (issued - now()).abs() <= 20,
            "{claims}"
        );
        let mut facts = claims.clone();
        for date in ["iat", "exp"] {
            facts.as_object_mut().unwrap().remove(date);
        }
        let expected = json!({
            "iss": "authgate", "aud": "app", "sub": "42", "username": "ada", "email": "ada@example.com",
            "groups": ["staff"], "scopes": [], "authenticator": "token",
        });
        assert_eq!(facts, expected);
        assert_eq!(
            unverified(&token, 0),
            json!({ "alg": algorithm.name(), "kid": "one", "typ": "authgate-identity+jwt" })
        );
        let seen = upstream.last();
        assert_eq!(seen.header("x-user-id"), None, "`headers = {{}}` sends no plain field");
        assert!(
            verified(&token, &published(&gate), "other").is_none(),
            "another audience"
        );
    }
}

#[test]
fn openssl_verifies_the_signature() {
    let (redis, upstream, _) = setup();
    let signer = Signer::new(Algorithm::RS256);
    let gate = Gate::start(&signing(&redis, &upstream, &[(&signer, "identity.key")], ""));
    let token = token_of(&gate, &upstream);
    let (signed, signature) = token.rsplit_once('.').expect("a JWS");
    let file = |name: &str, bytes: &[u8]| {
        let path = gate.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let verify = |signed: &str| {
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-verify"])
            .arg(file("public.pem", signer.public.as_bytes()))
            .arg("-signature")
            .arg(file("signature", &URL_SAFE_NO_PAD.decode(signature).unwrap()))
            .arg(file("signed", signed.as_bytes()))
            .output()
            .expect("openssl is installed");
        output.status.success()
    };
    assert!(verify(signed));
    assert!(!verify(&format!("{signed}x")));
}

#[test]
fn no_client_sends_a_signed_identity_past_the_gateway_in_any_spelling() {
    let (redis, upstream, signer) = setup();
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], ", header = \"X-Who\"")
        .public("/public/*")
        .route("/optional/*", "authenticate = [\"token\"]\noptional = true")
        .route("/observed/*", "authenticate = [\"token\"]\nmode = \"observe\"");
    let gate = Gate::start(&config);
    let own = gate.call(&get("/api/x").token("canary-ada"));
    assert_eq!(own.status, 200);
    let own = upstream.last().header("x-who").expect("a token").to_owned();
    for name in [
        "X-Who",
        "x-who",
        "X_Who",
        "x_who",
        "X.Who",
        "XWho",
        "X-Authgate-Identity",
        "x_authgate_identity",
    ] {
        for (target, credential, expected) in [
            ("/api/x", true, vec![own.as_str()]),
            ("/optional/x", true, vec![&own]),
            ("/optional/x", false, vec![]),
            ("/observed/x", true, vec![]),
            ("/public/x", true, vec![]),
            ("/public/x", false, vec![]),
        ] {
            let mut call = get(target).header(name, "forged").header(name, own.as_str());
            if credential {
                call = call.token("canary-ada");
            }
            call = call.header("Connection", "x-who");
            assert_eq!(gate.call(&call).status, 200, "{name}");
            let seen = upstream.last();
            let values: Vec<&str> = seen.head.folded("x-who").iter().map(|(_, value)| *value).collect();
            assert_eq!(values, expected, "{name} on {target}");
            assert!(seen.head.folded(HEADER).is_empty(), "{name} on {target}");
        }
    }
}

#[test]
fn a_token_is_signed_once_until_half_of_its_lifetime_is_over() {
    let (redis, upstream, _) = setup();
    redis.put_user("7", &json!({ "username": "eve" }));
    redis.put_token("canary-eve", &json!({ "user": "7" }));
    // Two ECDSA signatures of the same claims are different: equal tokens were signed once.
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::subscribed(&signing(
        &redis,
        &upstream,
        &[(&signer, "identity.key")],
        ", ttl = \"1h\"",
    ));
    let mut conn = gate.connect();
    let mut token = |credential: &str| {
        assert_eq!(conn.call(&get("/api/x").token(credential)).status, 200);
        last_token(&upstream)
    };
    let (ada, eve) = (token("canary-ada"), token("canary-eve"));
    assert_ne!(ada, eve);
    for _ in 0..50 {
        assert_eq!((token("canary-ada"), token("canary-eve")), (ada.clone(), eve.clone()));
    }
    drop(gate);

    let gate = Gate::subscribed(&signing(
        &redis,
        &upstream,
        &[(&signer, "identity.key")],
        ", ttl = \"2s\"",
    ));
    let (keys, mut conn) = (published(&gate), gate.connect());
    let mut dates: Vec<i64> = Vec::new();
    let mut tokens: Vec<String> = Vec::new();
    wait_until("a token is renewed twice", TIMEOUT, || {
        assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
        let token = last_token(&upstream);
        if tokens.last() != Some(&token) {
            dates.push(unverified(&token, 1)["iat"].as_i64().unwrap());
            assert!(verified(&token, &keys, "app").is_some(), "a new token has not expired");
            tokens.push(token);
        }
        tokens.len() == 3
    });
    assert!(dates.windows(2).all(|pair| pair[0] < pair[1]), "{dates:?}");
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 3, "no token comes back");
}

#[test]
fn each_upstream_receives_a_token_for_its_own_audience() {
    let (redis, upstream, signer) = setup();
    let (billing, plain) = (RecordingUpstream::named("billing"), RecordingUpstream::named("plain"));
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], "")
        .upstream("billing", &[billing.url()])
        .with("identity = { audience = \"https://billing.example\" }")
        .upstream("plain", &[plain.url()])
        .with("identity = { signed = false, headers = { X-User-Id = \"id\" } }")
        .route_to("billing", "/billing/*", "authenticate = [\"token\"]")
        .route_to("plain", "/plain/*", "authenticate = [\"token\"]");
    let gate = Gate::start(&config);
    let keys = published(&gate);
    for _ in 0..3 {
        for (target, upstream, audience, other) in [
            ("/api/x", &upstream, "app", "https://billing.example"),
            ("/billing/x", &billing, "https://billing.example", "app"),
        ] {
            assert_eq!(gate.call(&get(target).token("canary-ada")).status, 200);
            let token = last_token(upstream);
            assert!(verified(&token, &keys, audience).is_some(), "{audience}");
            assert!(verified(&token, &keys, other).is_none(), "{audience}");
        }
        assert_eq!(gate.call(&get("/plain/x").token("canary-ada")).status, 200);
        assert_eq!(plain.last().header(HEADER), None);
        assert_eq!(plain.last().header("x-user-id"), Some("42"));
    }
}

#[test]
fn the_facts_of_a_token_are_chosen_by_the_configuration() {
    let (redis, upstream, signer) = setup();
    redis.put_user(
        "42",
        &json!({ "username": "zo\u{eb}", "attributes": { "tenant": "acme", "plan": { "name": "pro", "seats": 3 } } }),
    );
    for (lines, expected) in [
        (", facts = []", json!({})),
        (
            ", facts = [\"username\", \"attributes.plan.seats\"]",
            json!({ "username": "zo\u{eb}", "attributes": { "plan": { "seats": 3 } } }),
        ),
    ] {
        let gate = Gate::start(&signing(&redis, &upstream, &[(&signer, "identity.key")], lines));
        let mut claims = unverified(&token_of(&gate, &upstream), 1);
        for name in ["iss", "aud", "sub", "iat", "exp"] {
            assert!(claims.as_object_mut().unwrap().remove(name).is_some(), "{name}");
        }
        assert_eq!(claims, expected);
    }
    // Without `facts`, a token has the attributes that `headers` names too.
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], "")
        .identity("headers = { X-Tenant = \"attributes.tenant\" }");
    let gate = Gate::start(&config);
    let claims = unverified(&token_of(&gate, &upstream), 1);
    assert_eq!(claims["attributes"], json!({ "tenant": "acme" }));
    assert_eq!(upstream.last().header("x-tenant"), Some("acme"));
}

#[test]
fn a_signed_identity_is_no_credential() {
    let (redis, upstream, signer) = setup();
    let other = Signer::new(Algorithm::EdDSA);
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], "")
        .jwt("users = \"none\"")
        .jwt("profile = \"plain\"")
        .jwt(&format!("keys = [{}]", other.key("jwt.pem")))
        .file("jwt.pem", other.file())
        .route("/jwt/*", "authenticate = [\"jwt\"]");
    let gate = Gate::start(&config);
    let token = token_of(&gate, &upstream);
    let claims = json!({ "sub": "42", "exp": now() + 60 });
    assert_eq!(gate.call(&get("/jwt/x").bearer(&other.sign(&claims))).status, 200);
    assert_eq!(gate.call(&get("/jwt/x").bearer(&token)).status, 401);
}

#[test]
fn a_key_of_an_authenticator_never_signs_identities() {
    let (redis, upstream, signer) = setup();
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], "")
        .jwt("users = \"none\"")
        .jwt(&format!("keys = [{}]", signer.key("jwt.pem")))
        .file("jwt.pem", signer.file());
    let folder = tempfile::tempdir().unwrap();
    config.write(folder.path());
    let ended = authgate(folder.path(), &["check", "gateway.toml"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("also a key of authenticators.jwt"), "{ended:?}");
}

#[test]
fn the_key_set_is_served_at_its_exact_path_and_by_the_gateway_alone() {
    let (redis, upstream, signer) = setup();
    let next = Signer::new(Algorithm::ES256).kid("next");
    let config = signing(&redis, &upstream, &[(&signer, "identity.key"), (&next, "next.key")], "")
        .admin("token = \"canary-admin-token-of-a-good-length\"")
        .tables("[[routes]]\npath = \"/.well-known/jwks.json\"\npublic = true\njwks = true\n");
    let gate = Gate::start(&config);
    let expected = {
        let mut jwk = signer.jwk.clone();
        jwk["alg"] = json!("EdDSA");
        let mut second = next.jwk.clone();
        second["alg"] = json!("ES256");
        (jwk, second)
    };
    let (mut conn, mut h2) = (gate.connect(), H2::connect(&gate));
    let path = "/.well-known/jwks.json";
    for reply in [
        conn.call(&get(path)),
        h2.call(&get(path)),
        conn.call(&get("/.well-known/jwks.json?x=1")),
    ] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
        let keys = reply.json()["keys"].clone();
        let mut first = keys[0].clone();
        let thumbprint = first.as_object_mut().unwrap().remove("kid").expect("a thumbprint");
        assert_eq!(thumbprint.as_str().map(str::len), Some(43));
        assert_eq!((&first, &keys[1]), (&expected.0, &expected.1));
        // The admin listener has the same, without its token.
        let admin = gate.probe("/jwks.json");
        assert_eq!((admin.status, admin.json()["keys"].clone()), (200, keys));
    }
    let head = conn.call(&call("HEAD", path));
    assert_eq!((head.status, head.body.data.len()), (200, 0));
    for method in ["POST", "DELETE", "OPTIONS"] {
        let reply = conn.call(&call(method, path));
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    assert_eq!(conn.call(&get("/.well-known/jwks.json/")).status, 404);
    assert_eq!(upstream.calls(), 0);
    assert_eq!(
        gate.ask_admin(&call("POST", "/jwks.json").host("127.0.0.1")).status,
        405
    );
    assert_eq!(gate.probe("/metrics").status, 401, "everything else needs the token");
    let events = gate.requests(3);
    assert!(
        events.iter().take(3).all(|event| event["outcome"] == "key_set"),
        "{events:?}"
    );
}

#[test]
fn an_explained_request_says_that_there_would_be_a_token_and_makes_none() {
    let (redis, upstream, signer) = setup();
    let config = signing(&redis, &upstream, &[(&signer, "identity.key")], "")
        .tables("[[routes]]\npath = \"/jwks.json\"\npublic = true\njwks = true\n");
    let gate = Gate::start(&config);
    let show = |path: &str| {
        let words = ["token", "show", "-", "--json", "--route", path];
        let ended = authgate_with_input(gate.folder.path(), &words, b"canary-ada\n");
        serde_json::from_str::<Value>(&ended.good()).unwrap()["request"].clone()
    };
    let identity = json!([[HEADER, "(a signed identity for the audience \"app\")"]]);
    assert_eq!(show("/api/x")["identity"], identity);
    assert_eq!(show("/jwks.json")["status"], 200);
}

#[test]
fn without_signed_identities_there_is_no_key_set() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/x"));
    assert_eq!(gate.probe("/jwks.json").status, 404);
}

#[test]
fn keys_are_rotated_under_load_and_a_removed_key_never_signs_again() {
    let (redis, upstream, _) = setup();
    let (old, new) = (
        Signer::new(Algorithm::ES256).kid("old"),
        Signer::new(Algorithm::EdDSA).kid("new"),
    );
    let with = |keys: &[(&Signer, &str)]| signing(&redis, &upstream, keys, "");
    // Each token that an upstream receives is verified with the keys that are published at that moment.
    let keys: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let published_keys: Arc<Mutex<Option<JwkSet>>> = Arc::default();
    let unverifiable = Arc::new(AtomicUsize::new(0));
    let gate = Gate::start(&with(&[(&old, "old.key")]));
    *published_keys.lock().unwrap() = Some(published(&gate));
    let (counts, known, failed) = (
        Arc::clone(&keys),
        Arc::clone(&published_keys),
        Arc::clone(&unverifiable),
    );
    upstream.answers(move |exchange| {
        let token = exchange.head.header(HEADER).unwrap_or_default().to_owned();
        let known = known.lock().unwrap().clone().unwrap();
        if verified(&token, &known, "app").is_none() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        *counts.lock().unwrap().entry(kid(&token)).or_default() += 1;
        let next: Next = exchange.ok();
        next
    });
    let mut load = Load::default();
    for _ in 0..3 {
        let mut conn = gate.connect();
        load.spawn(move |_| {
            assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
            1
        });
    }
    let received = |kid: &str| keys.lock().unwrap().get(kid).copied().unwrap_or_default();
    let wait_for_more = |kid: &str| {
        let before = received(kid);
        wait_until("more requests are signed", TIMEOUT, || received(kid) > before + 20);
    };
    wait_for_more("old");
    // Publish the next key, use it, and then remove the old one.
    assert!(reload(&gate, &with(&[(&old, "old.key"), (&new, "new.key")])));
    *published_keys.lock().unwrap() = Some(published(&gate));
    wait_for_more("old");
    assert_eq!(received("new"), 0, "the second key signs nothing");
    assert!(reload(&gate, &with(&[(&new, "new.key"), (&old, "old.key")])));
    wait_for_more("new");
    let before = received("old");
    wait_for_more("new");
    assert_eq!(received("old"), before, "no remembered token of the old key is sent");
    assert!(reload(&gate, &with(&[(&new, "new.key")])));
    *published_keys.lock().unwrap() = Some(published(&gate));
    wait_for_more("new");
    assert!(load.stop() > 100);
    assert_eq!(unverifiable.load(Ordering::Relaxed), 0);
    // The user was looked up once: a new key ends no decision of the cache.
    gate.metric_becomes("authgate_reloads_total{outcome=\"applied\"}", 3.0);
}

#[test]
fn a_key_file_that_is_replaced_is_in_force_without_a_command() {
    let (redis, upstream, signer) = setup();
    let gate = Gate::start(&signing(&redis, &upstream, &[(&signer, "identity.key")], ""));
    let mut conn = gate.connect();
    let mut token = || {
        assert_eq!(conn.call(&get("/api/x").token("canary-ada")).status, 200);
        last_token(&upstream)
    };
    let old = kid(&token());
    let new = Signer::new(Algorithm::EdDSA);
    fs::write(gate.folder.path().join("new"), &new.private).unwrap();
    fs::rename(gate.folder.path().join("new"), gate.folder.path().join("identity.key")).unwrap();
    wait_until("the new key signs", TIMEOUT, || kid(&token()) != old);
    wait_until("all workers have it", TIMEOUT, || {
        gate.metric("authgate_reloads_total{outcome=\"applied\"}") == 1.0
    });
    let token = token();
    assert!(verified(&token, &published(&gate), "app").is_some());
    assert_eq!(published(&gate).keys.len(), 1);
    // A key that cannot be used changes nothing.
    fs::write(gate.folder.path().join("identity.key"), "no key").unwrap();
    wait_until("the file is refused", TIMEOUT, || {
        gate.metric("authgate_reloads_total{outcome=\"refused\"}") >= 1.0
    });
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    assert_eq!(kid(&last_token(&upstream)), kid(&token));
}

#[test]
fn a_reload_that_keeps_the_rules_keeps_the_tokens() {
    let (redis, upstream, _) = setup();
    let signer = Signer::new(Algorithm::ES256);
    let first = signing(&redis, &upstream, &[(&signer, "identity.key")], ", ttl = \"1h\"");
    let gate = Gate::start(&first);
    let token = token_of(&gate, &upstream);
    assert!(reload(&gate, &first.clone().public("/public/*")));
    assert_eq!(token_of(&gate, &upstream), token);
    let other = signing(
        &redis,
        &upstream,
        &[(&signer, "identity.key")],
        ", ttl = \"1h\", issuer = \"other\"",
    );
    assert!(reload(&gate, &other));
    let token = token_of(&gate, &upstream);
    assert_eq!(unverified(&token, 1)["iss"], "other");
}
