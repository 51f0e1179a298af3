//! `Authorization: Bearer <jwt>` with a store: users, revocations, and what the cache keeps of them.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::mint::{Signer, now};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, get, wait_until};
use crate::jwt_auth::{refused, status, with_keys};

pub fn with_store(redis: &Redis, upstream: &RecordingUpstream, signer: &Signer) -> Config {
    with_keys(upstream, &[signer])
        .redis(redis)
        .jwt("users = \"redis\"")
        .jwt("revocation = \"redis\"")
}

#[test]
fn revocations_of_tokens_users_and_keys_take_effect() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256).kid("k1");
    let gate = Gate::start(&with_store(&redis, &upstream, &signer));
    let (one, other) = (
        signer.with(&json!({ "jti": "canary-1" })),
        signer.with(&json!({ "jti": "canary-2" })),
    );
    assert_eq!((status(&gate, &one), status(&gate, &other)), (200, 200));
    redis.set("revoked:jti:canary-1", "1");
    refused(&gate, &upstream, &one, "Token is blacklisted");
    assert_eq!(status(&gate, &other), 200);

    redis.set("revoked:user:42", (now() - 100).to_string());
    assert_eq!(status(&gate, &other), 200, "issued since");
    refused(
        &gate,
        &upstream,
        &signer.with(&json!({ "iat": now() - 100 })),
        "Token is blacklisted",
    );
    refused(
        &gate,
        &upstream,
        &signer.with(&json!({ "iat": null })),
        "Token is blacklisted",
    );

    redis.set("revoked:kid:k1", "1");
    refused(&gate, &upstream, &other, "Token is blacklisted");
    redis.del("revoked:kid:k1");
    assert_eq!(status(&gate, &other), 200);
}

#[test]
fn the_revocation_of_the_key_that_verified_the_token_is_checked() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    // A key without a `kid` is identified by its thumbprint, not by the `kid` of the token.
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&with_store(&redis, &upstream, &signer));
    let (x, y) = (signer.jwk["x"].as_str().unwrap(), signer.jwk["y"].as_str().unwrap());
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let token = signer.access();
    assert_eq!(status(&gate, &token), 200);
    redis.set(
        &format!("revoked:kid:{}", crate::harness::mint::base64(thumbprint)),
        "1",
    );
    refused(&gate, &upstream, &token, "Token is blacklisted");
}

#[test]
fn users_of_a_store_must_exist_be_active_and_have_the_same_password() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("43", &json!({ "active": false }));
    redis.put_user("44", &json!({ "username": "zoë", "password_md5": "ABC" }));
    let signer = Signer::new(Algorithm::HS256);
    let config = with_store(&redis, &upstream, &signer);
    let gate = Gate::start(&config);
    let code = |gate: &Gate, claims: serde_json::Value| {
        let reply = gate.call(&get("/api/x").bearer(&signer.with(&claims)));
        if reply.status == 200 {
            "ok".to_owned()
        } else {
            reply.json()["code"].as_str().unwrap().to_owned()
        }
    };
    assert_eq!(code(&gate, json!({ "user_id": 42, "username": "root" })), "ok");
    assert_eq!(
        upstream.last().header("x-user-name"),
        Some("ada"),
        "from the record, not from the claim"
    );
    assert_eq!(code(&gate, json!({ "user_id": "1" })), "user_not_found");
    assert_eq!(code(&gate, json!({ "user_id": "43" })), "user_inactive");
    assert_eq!(code(&gate, json!({ "user_id": "44" })), "ok");
    drop(gate);

    let gate = Gate::start(
        &config
            .jwt("check_revoke_token = true")
            .jwt("check_user_is_active = false"),
    );
    assert_eq!(code(&gate, json!({ "user_id": "44", "hash_password": "ABC" })), "ok");
    assert_eq!(
        code(&gate, json!({ "user_id": "44", "hash_password": "ABD" })),
        "password_changed"
    );
    assert_eq!(code(&gate, json!({ "user_id": "44" })), "password_changed");
    assert_eq!(
        code(&gate, json!({ "user_id": "42", "hash_password": "" })),
        "password_changed"
    );
    redis.put_user("43", &json!({ "active": false, "password_md5": "X" }));
    assert_eq!(code(&gate, json!({ "user_id": "43", "hash_password": "X" })), "ok");
}

#[test]
fn users_can_be_found_by_username() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::HS256);
    let gate = Gate::start(&with_store(&redis, &upstream, &signer).jwt("user_id_field = \"username\""));
    assert_eq!(status(&gate, &signer.with(&json!({ "user_id": "ada" }))), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    assert_eq!(status(&gate, &signer.with(&json!({ "user_id": "42" }))), 401);
}

#[test]
fn a_cached_jwt_is_refused_when_it_expires_and_is_evaluated_again_after_the_ttl() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::HS256);
    let cache = |ttl: &str| format!("cache = {{ entries = 10, ttl = \"{ttl}\" }}");
    let gate = Gate::start(&with_store(&redis, &upstream, &signer).jwt(&cache("10m")));
    let brief = signer.with(&json!({ "exp": now() + 3 }));
    assert_eq!(status(&gate, &brief), 200);
    wait_until("the token expires", Duration::from_secs(8), || {
        status(&gate, &brief) == 401
    });
    refused(&gate, &upstream, &brief, "Token is expired");
    drop(gate);

    let redis_without_invalidation = with_keys(&upstream, &[&signer])
        .redis_without_invalidation(&redis)
        .jwt("users = \"redis\"");
    let gate = Gate::start(
        &redis_without_invalidation
            .jwt("revocation = \"redis\"")
            .jwt(&cache("2s")),
    );
    let token = signer.with(&json!({ "jti": "canary-9" }));
    assert_eq!(status(&gate, &token), 200);
    redis.set("revoked:jti:canary-9", "1");
    assert_eq!(status(&gate, &token), 200, "remembered");
    wait_until("the verdict ends", Duration::from_secs(8), || {
        status(&gate, &token) == 401
    });
}
