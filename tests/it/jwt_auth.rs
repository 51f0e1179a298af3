//! `Authorization: Bearer <jwt>`: keys and claims.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::{Signer, claims, claims_with, forged, now};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get};
use crate::jwt_store::with_store;

/// One route that requires a JWT signed by one of these keys.
pub fn with_keys(upstream: &RecordingUpstream, signers: &[&Signer]) -> Config {
    let mut config = config()
        .jwt("users = \"none\"")
        .app(upstream)
        .route("/api/*", "authenticate = [\"jwt\"]");
    let mut keys = Vec::new();
    for (at, signer) in signers.iter().enumerate() {
        config = config.file(&format!("key{at}"), signer.file());
        keys.push(signer.key(&format!("key{at}")));
    }
    config.jwt(&format!("keys = [{}]", keys.join(", ")))
}

pub fn status(gate: &Gate, jwt: &str) -> u16 {
    gate.call(&get("/api/x").bearer(jwt)).status
}

/// Wants 401 with that message, and an upstream that hears nothing.
pub fn refused(gate: &Gate, upstream: &RecordingUpstream, jwt: &str, message: &str) {
    let before = upstream.calls();
    let reply = gate.call(&get("/api/x").bearer(jwt));
    assert_eq!(reply.status, 401, "wanted {message}");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"api\""));
    let expected = json!({
        "detail": "Given token not valid for any token type", "code": "token_not_valid",
        "messages": [{ "token_class": "AccessToken", "token_type": "access", "message": message }],
    });
    assert_eq!(reply.json(), expected);
    assert_eq!(upstream.calls(), before);
}

#[test]
fn each_algorithm_verifies_with_its_own_key_and_with_no_other() {
    let upstream = RecordingUpstream::start();
    let rsa = Signer::new(Algorithm::RS256);
    for algorithm in Algorithm::ALL {
        let signer = if algorithm.name().contains("S") && matches!(&algorithm.name()[..2], "RS" | "PS") {
            rsa.as_algorithm(algorithm)
        } else {
            Signer::new(algorithm)
        };
        let gate = Gate::start(&with_keys(&upstream, &[&signer]));
        let good = signer.access();
        assert_eq!(status(&gate, &good), 200, "{algorithm:?}");
        assert_eq!(upstream.last().header("x-user-id"), Some("42"), "{algorithm:?}");
        // The same claims under a strange key, and the good signature under other claims.
        let strange = Signer::new(Algorithm::ES256).as_algorithm(Algorithm::ES256).access();
        refused(&gate, &upstream, &strange, "Token is invalid");
        let (head, rest) = good.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let other = crate::harness::mint::base64(claims_with(&json!({ "user_id": "1" })).to_string());
        refused(
            &gate,
            &upstream,
            &format!("{head}.{other}.{signature}"),
            "Token is invalid",
        );
    }
}

#[test]
fn a_key_serves_only_the_algorithm_it_is_configured_for() {
    let upstream = RecordingUpstream::start();
    let rsa = Signer::new(Algorithm::RS256);
    let gate = Gate::start(&with_keys(&upstream, &[&rsa]));
    assert_eq!(status(&gate, &rsa.access()), 200);
    for other in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS512] {
        refused(&gate, &upstream, &rsa.as_algorithm(other).access(), "Token is invalid");
    }
    // The public key as an HMAC secret, in each form that an attacker may use.
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(rsa.public.as_bytes());
    let der: rustls_pki_types::SubjectPublicKeyInfoDer<'_> = der.unwrap();
    for secret in [rsa.public.as_bytes(), rsa.public.trim_end().as_bytes(), &der] {
        for algorithm in ["HS256", "RS256"] {
            let token = forged(&json!({ "alg": algorithm, "typ": "JWT" }), &claims(), secret);
            refused(&gate, &upstream, &token, "Token is invalid");
        }
    }
}

#[test]
fn unsigned_and_malformed_tokens_are_refused() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::HS256);
    let gate = Gate::start(&with_keys(&upstream, &[&signer]));
    let good = signer.access();
    let unsigned = good.rsplit_once('.').unwrap().0;
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = forged(&json!({ "alg": none }), &claims(), b"");
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        for token in [token.clone(), format!("{unsigned}."), unsigned.to_owned()] {
            refused(&gate, &upstream, &token, "Token is invalid");
        }
    }
    let crit = forged(&json!({ "alg": "HS256", "crit": ["exp"] }), &claims(), &signer.private);
    let kid = forged(&json!({ "alg": "HS256", "kid": 7 }), &claims(), &signer.private);
    let list = forged(&json!({ "alg": "HS256" }), &json!([claims()]), &signer.private);
    for token in [
        "x",
        "..",
        "a.b.c",
        &format!("{unsigned}."),
        &format!("{good}.x"),
        &format!("{good}AAAA"),
        &good[1..],
        &crit,
        &kid,
        &list,
        &format!("{good}{}", "A".repeat(7000)),
    ] {
        refused(&gate, &upstream, token, "Token is invalid");
    }
    assert_eq!(status(&gate, &good), 200);
    for value in ["Bearer", &format!("Bearer {good} x")] {
        let reply = gate.call(&get("/api/x").authorization(value));
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (401, Some("bad_authorization_header")),
            "{value}"
        );
    }
    // SimpleJWT compares the scheme exactly: this is no credential.
    let reply = gate.call(&get("/api/x").authorization(&format!("bearer {good}")));
    assert_eq!(reply.detail(), "Authentication credentials were not provided.");
}

#[test]
fn claims_are_checked_by_the_rules_of_simplejwt() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&with_keys(&upstream, &[&signer]));
    for (change, message) in [
        (json!({ "exp": now() - 1 }), "Token is expired"),
        (json!({ "exp": null }), "Token has no 'exp' claim"),
        (json!({ "exp": "soon" }), "Token is invalid"),
        (json!({ "nbf": now() + 60 }), "Token is invalid"),
        (json!({ "iat": now() + 60 }), "Token is invalid"),
        (json!({ "sub": 42 }), "Token is invalid"),
        (json!({ "jti": null }), "Token has no id"),
        (json!({ "token_type": null }), "Token has no type"),
        (json!({ "token_type": "refresh" }), "Token has wrong type"),
        (json!({ "token_type": "refresh", "exp": now() - 1 }), "Token is expired"),
    ] {
        refused(&gate, &upstream, &signer.with(&change), message);
    }
    let reply = gate.call(&get("/api/x").bearer(&signer.with(&json!({ "user_id": null }))));
    assert_eq!(reply.detail(), "Token contained no recognizable user identification");
    for good in [
        json!({ "aud": "other", "iss": 7 }),
        json!({ "user_id": 42 }),
        json!({ "iat": null, "nbf": now() - 5 }),
    ] {
        assert_eq!(status(&gate, &signer.with(&good)), 200, "{good}");
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    }
}

#[test]
fn a_username_that_a_header_cannot_carry_is_refused_and_not_altered() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::HS256);
    let gate = Gate::start(&with_keys(&upstream, &[&signer]));
    for change in [
        json!({ "user_id": "1\r\nX-User-Id: 1" }),
        json!({ "user_id": " 1" }),
        json!({ "user_id": "" }),
        json!({ "user_id": "\u{0}" }),
        json!({ "username": "a\nb" }),
        json!({ "username": "ada " }),
        json!({ "user_id": ["42"] }),
        json!({ "user_id": { "a": 1 } }),
    ] {
        assert_eq!(status(&gate, &signer.with(&change)), 401, "{change}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn issuer_audience_leeway_and_lifetime_are_checked_where_they_are_configured() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::HS256);
    let config = with_keys(&upstream, &[&signer])
        .jwt("issuer = [\"a\", \"b\"]")
        .jwt("audience = \"api\"")
        .jwt("leeway = \"30s\"")
        .jwt("max_lifetime = \"10m\"");
    let gate = Gate::start(&config);
    let token = |iss: serde_json::Value, aud: serde_json::Value, lives: i64| {
        signer.with(&json!({ "iss": iss, "aud": aud, "iat": now(), "exp": now() + lives }))
    };
    for (iss, aud, lives, expected) in [
        (json!("a"), json!("api"), 300, 200),
        (json!("b"), json!(["x", "api"]), 300, 200),
        (json!("c"), json!("api"), 300, 401),
        (json!(null), json!("api"), 300, 401),
        (json!(["a"]), json!("api"), 300, 401),
        (json!("a"), json!(null), 300, 401),
        (json!("a"), json!([]), 300, 401),
        (json!("a"), json!("web"), 300, 401),
        (json!("a"), json!("api"), -10, 200),
        (json!("a"), json!("api"), -60, 401),
        (json!("a"), json!("api"), 3600, 401),
    ] {
        assert_eq!(
            status(&gate, &token(iss.clone(), aud.clone(), lives)),
            expected,
            "{iss} {aud} {lives}"
        );
    }
}

#[test]
fn the_plain_profile_accepts_tokens_without_claims_of_django() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::EdDSA);
    let gate = Gate::start(&with_keys(&upstream, &[&signer]).jwt("profile = \"plain\""));
    assert_eq!(
        status(&gate, &signer.sign(&json!({ "sub": "ada-1", "exp": now() + 60 }))),
        200
    );
    assert_eq!(upstream.last().header("x-user-id"), Some("ada-1"));
    assert_eq!(
        status(&gate, &signer.sign(&json!({ "sub": "ada-1" }))),
        401,
        "exp is required"
    );
    assert_eq!(
        status(&gate, &signer.sign(&json!({ "user_id": "1", "exp": now() + 60 }))),
        401
    );
}

#[test]
fn an_access_token_of_rfc_9068_says_that_it_is_one() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &with_keys(&upstream, &[&signer])
            .jwt("profile = \"rfc9068\"")
            .jwt("issuer = \"https://as.example\"")
            .jwt("audience = \"orders\""),
    );
    let claims = |more: serde_json::Value| {
        let mut claims = json!({
            "iss": "https://as.example", "aud": ["orders", "x"], "sub": "ada-1", "client_id": "app", "jti": "canary-1",
            "iat": now(), "exp": now() + 60,
        });
        for (name, value) in more.as_object().unwrap() {
            match value {
                serde_json::Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims.to_string().into_bytes()
    };
    let sealed = |typ: &str, more: serde_json::Value| {
        let header = json!({ "alg": "ES256", "typ": typ }).to_string();
        signer.seal(&header, &claims(more))
    };
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        assert_eq!(status(&gate, &sealed(typ, json!({}))), 200, "{typ}");
    }
    assert_eq!(upstream.last().header("x-user-id"), Some("ada-1"));
    // An id token of the same issuer is not one, nor is a token that says less than it must.
    refused(&gate, &upstream, &sealed("JWT", json!({})), "Token is invalid");
    let untyped = signer.seal(r#"{"alg":"ES256"}"#, &claims(json!({})));
    refused(&gate, &upstream, &untyped, "Token is invalid");
    for (more, message) in [
        (json!({ "iss": null }), "Token is invalid"),
        (json!({ "aud": null }), "Token is invalid"),
        (json!({ "aud": "x" }), "Token is invalid"),
        (json!({ "sub": null }), "Token is invalid"),
        (json!({ "client_id": null }), "Token is invalid"),
        (json!({ "iat": null }), "Token is invalid"),
        (json!({ "exp": null }), "Token has no 'exp' claim"),
        (json!({ "jti": null }), "Token has no id"),
    ] {
        refused(&gate, &upstream, &sealed("at+jwt", more), message);
    }
}

#[test]
fn the_log_names_the_failed_check_that_the_response_does_not() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&with_keys(&upstream, &[&signer]).jwt("audience = \"orders\""));
    let stranger = Signer::new(Algorithm::ES256);
    for (token, reason) in [
        (stranger.access(), "signature"),
        (Signer::new(Algorithm::HS256).access(), "algorithm"),
        ("a.b".to_owned(), "form"),
        (signer.access(), "audience"),
        (signer.with(&json!({ "nbf": now() + 60 })), "not before"),
    ] {
        refused(&gate, &upstream, &token, "Token is invalid");
        gate.logged(&["\"outcome\":\"jwt_invalid\"", &format!("\"reason\":\"{reason}\"")]);
    }
}

#[test]
fn a_float_is_an_id_only_where_a_user_is_looked_up_by_it() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let float = signer.with(&json!({ "user_id": 42.0 }));
    let looked_up = Gate::start(&with_store(&redis, &upstream, &signer));
    assert_eq!(status(&looked_up, &float), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    let believed = Gate::start(&with_keys(&upstream, &[&signer]));
    assert_eq!(status(&believed, &float), 401);
    assert_eq!(status(&believed, &signer.with(&json!({ "username": 1.5 }))), 401);
}

#[test]
fn static_keys_are_selected_by_kid_where_both_sides_have_one() {
    let upstream = RecordingUpstream::start();
    let (one, other) = (Signer::new(Algorithm::ES256).kid("one"), Signer::new(Algorithm::ES256));
    let gate = Gate::start(&with_keys(&upstream, &[&one, &other]));
    assert_eq!(
        (status(&gate, &one.access()), status(&gate, &other.access())),
        (200, 200)
    );
    let renamed = |signer: &Signer, kid: &str| {
        let private = Signer {
            algorithm: signer.algorithm,
            kid: Some(kid.into()),
            private: signer.private.clone(),
            public: String::new(),
            jwk: json!({}),
        };
        private.access()
    };
    assert_eq!(status(&gate, &renamed(&one, "two")), 401, "a kid that disagrees");
    assert_eq!(
        status(&gate, &renamed(&other, "whatever")),
        200,
        "a key without a kid takes any"
    );
}

#[test]
fn keys_of_a_jwks_file_are_selected_by_kid_alone() {
    let upstream = RecordingUpstream::start();
    let signers = [
        Signer::new(Algorithm::RS256).kid("r"),
        Signer::new(Algorithm::ES256).kid("e"),
        Signer::new(Algorithm::ES512).kid("e5"),
        Signer::new(Algorithm::EdDSA).kid("d"),
    ];
    let nameless = Signer::new(Algorithm::ES256);
    let mut sealing = Signer::new(Algorithm::ES256).kid("enc");
    sealing.jwk["use"] = json!("enc");
    let mut signing = Signer::new(Algorithm::ES256).kid("ops");
    signing.jwk["key_ops"] = json!(["encrypt"]);
    let unwanted = Signer::new(Algorithm::ES384).kid("e3");
    let all: Vec<_> = signers
        .iter()
        .chain([&nameless, &sealing, &signing, &unwanted])
        .map(|signer| &signer.jwk)
        .collect();
    let config = config()
        .file("jwks.json", json!({ "keys": all }).to_string())
        .jwt("users = \"none\"")
        .jwt("jwks = { file = \"jwks.json\" }")
        .jwt("algorithms = [\"RS256\", \"ES256\", \"ES512\", \"EdDSA\"]")
        .jwt("issuer = false")
        .jwt("audience = false")
        .app(&upstream)
        .route("/api/*", "authenticate = [\"jwt\"]");
    let gate = Gate::start(&config);
    for signer in &signers {
        assert_eq!(status(&gate, &signer.access()), 200, "{:?}", signer.kid);
    }
    for signer in [
        &nameless,
        &sealing,
        &signing,
        &unwanted,
        &Signer::new(Algorithm::ES256).kid("e"),
    ] {
        assert_eq!(status(&gate, &signer.access()), 401, "{:?}", signer.kid);
    }
    let mut unnamed = Signer::new(Algorithm::ES256);
    unnamed.private.clone_from(&signers[1].private);
    assert_eq!(status(&gate, &unnamed.access()), 401, "no kid, no key");
}

#[test]
fn a_key_for_another_use_is_refused_when_it_is_loaded() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::ES256);
    let folder = tempfile::tempdir().unwrap();
    let wrong = with_keys(&upstream, &[&signer.as_algorithm(Algorithm::RS256)]);
    wrong.write(folder.path());
    let ended = crate::harness::program::authgate(folder.path(), &["check"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended.err.contains("key0") && ended.err.contains("RS256"),
        "{}",
        ended.err
    );
}

#[test]
fn invalid_keys_of_a_key_set_are_reported_and_the_others_are_used() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::RS256).kid("good");
    let mut private = Signer::new(Algorithm::ES256).jwk;
    private["kid"] = json!("private");
    private["d"] = json!("AQAB");
    let mut nameless = Signer::new(Algorithm::RS256).jwk;
    nameless.as_object_mut().unwrap().remove("kid");
    let mut base64 = nameless.clone();
    base64["n"] = json!(format!("{}+/==", base64["n"].as_str().unwrap()));
    base64["kid"] = json!("base64");
    let mut good = signer.jwk.clone();
    good["kid"] = json!("good");
    let set = json!({ "keys": [
        { "kty": "RSA", "kid": "no-n", "e": "AQAB" }, base64, { "kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB" },
        { "kty": "later", "kid": "type" }, { "kty": "EC", "crv": "P-192", "kid": "curve" }, private,
        { "kty": "oct", "kid": "secret", "k": "c2VjcmV0" }, nameless, { "kty": "RSA", "kid": "cipher", "use": "enc" }, good,
    ] });
    let config = config()
        .file("jwks.json", set.to_string())
        .jwt("jwks = { file = \"jwks.json\" }")
        .jwt("algorithms = [\"RS256\", \"ES256\"]")
        .jwt("users = \"none\"")
        .app(&upstream)
        .route("/api/*", "authenticate = [\"jwt\"]");
    let gate = Gate::start(&config);
    assert_eq!(status(&gate, &signer.access()), 200);
    let at_start = gate.log();
    let ended = crate::harness::program::authgate(gate.folder.path(), &["check"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for words in [
        "no-n",
        "base64",
        "short",
        "type",
        "curve",
        "private",
        "secret",
        "thumbprint",
    ] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
        assert!(at_start.contains(words), "{words}: {at_start}");
    }
    assert!(!ended.err.contains("cipher"), "{}", ended.err);
    // A set without a usable key is an error.
    let mut bad = set;
    bad["keys"].as_array_mut().unwrap().pop();
    std::fs::write(gate.folder.path().join("jwks.json"), bad.to_string()).unwrap();
    let ended = crate::harness::program::authgate(gate.folder.path(), &["check"]);
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn a_credential_that_expires_while_the_body_is_buffered_is_refused() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(&with_keys(&upstream, &[&signer]));
    let jwt = signer.with(&json!({ "exp": now() + 3 }));
    let mut client = gate.connect();
    client.send(format!(
        "POST /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {jwt}\r\nContent-Length: 6\r\n\r\nabc"
    ));
    std::thread::sleep(Duration::from_secs(4));
    client.send("def");
    let reply = client.reply();
    assert_eq!(reply.status, 401);
    assert!(reply.text().contains("Token is expired"), "{}", reply.text());
    assert_eq!(upstream.calls(), 0);
}
