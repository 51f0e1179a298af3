//! `POST /revoke` for tokens that are checked elsewhere: in the database of an application, by an authorization server, with published keys.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::django_source::Site;
use crate::harness::mint::{Signer, now};
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::{Gate, RecordingUpstream, Redis, config, get};
use crate::introspection::Idp;
use crate::revoke_endpoint::{keys, problem, revoke, revoked, ttl, value, with_token};

#[test]
fn a_token_that_only_the_database_knows_is_revoked_in_the_redis_in_front_of_it() {
    let Some(site) = Site::start() else { return };
    let gate = Gate::start(&with_token(site.config("")));
    let status = |key: &str| gate.call(&get("/api/x").token(key)).status;
    let ben = Redis::token_key("canary-ben");
    // No request has written it to Redis yet.
    assert_eq!(value(&site.redis, &ben), None);
    revoked(&gate, "token=canary-ben");
    assert_eq!(status("canary-ben"), 401);
    let record = value(&site.redis, &ben).expect("a record");
    assert!(
        record.contains("\"user\":\"43\"") && record.contains("\"revoked\":"),
        "{record}"
    );
    assert_eq!(ttl(&site.redis, &ben), -1, "for ever");
    // One that was written by a request keeps no expiry either.
    assert_eq!(status("canary-ada"), 200);
    revoked(&gate, "token=canary-ada");
    assert_eq!(status("canary-ada"), 401);
    assert_eq!(ttl(&site.redis, &Redis::token_key("canary-ada")), -1);
    let before = keys(&site.redis);
    revoked(&gate, "token=canary-of-no-user");
    assert_eq!(keys(&site.redis), before);
    let detail = problem(&revoke(&gate, "token=canary-zoe&store=django"), 400, "invalid_request");
    assert!(detail.contains("only read"), "{detail}");
    assert_eq!(status("canary-zoe"), 200);
}

#[test]
fn a_token_of_a_database_without_redis_cannot_be_revoked_here() {
    let Some(site) = Site::start() else { return };
    let config = with_token(config())
        .tables(&site.database.store("timeout = \"2s\""))
        .token("store = \"django\"")
        .app(&site.upstream)
        .protected("/api/*");
    let gate = Gate::start(&config);
    let detail = problem(&revoke(&gate, "token=canary-ada"), 400, "unsupported_token_type");
    assert!(detail.contains("only read"), "{detail}");
    let detail = problem(&revoke(&gate, "user=42"), 400, "invalid_request");
    assert!(detail.contains("only read"), "{detail}");
    revoked(&gate, "token=canary-of-no-user");
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
}

#[test]
fn a_token_that_a_database_accepts_too_is_not_answered_200() {
    let Some(mut site) = Site::start() else { return };
    let direct = "[authenticators.direct]\nkind = \"token\"\nstore = \"django\"\ncache = { entries = 0, negative_entries = 0 }\n";
    let config = with_token(site.config(""))
        .tables(direct)
        .route("/direct/*", "authenticate = [\"direct\"]");
    let gate = Gate::start(&config);
    let status = |path: &str| gate.call(&get(path).token("canary-ben")).status;
    let detail = problem(&revoke(&gate, "token=canary-ben"), 400, "unsupported_token_type");
    assert!(detail.contains("only read"), "{detail}");
    assert_eq!((status("/api/x"), status("/direct/x")), (401, 200));
    // The store that is named has revoked it.
    revoked(&gate, "token=canary-ben&store=redis");
    site.database.kill();
    problem(&revoke(&gate, "token=canary-ben"), 503, "temporarily_unavailable");
    revoked(&gate, "token=canary-ben&store=redis");
}

#[test]
fn while_a_source_is_down_only_tokens_that_redis_has_are_revoked() {
    let Some(mut site) = Site::start() else { return };
    let gate = Gate::start(&with_token(site.config("")));
    let ada = Redis::token_key("canary-ada");
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    crate::harness::wait_until("it is in Redis", std::time::Duration::from_secs(15), || {
        value(&site.redis, &ada).is_some()
    });
    site.database.kill();
    revoked(&gate, "token=canary-ada");
    assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 401);
    problem(&revoke(&gate, "token=canary-ben"), 503, "temporarily_unavailable");
}

#[test]
fn an_introspected_token_is_revoked_by_its_id_and_other_tokens_are_not_shown_to_the_server() {
    let (idp, redis, upstream) = (Idp::start(), Redis::start().with_ada(), RecordingUpstream::start());
    let lines = "revocation = \"redis\"\nform = \"opaque\"\ntimeout = \"2s\"";
    let config = with_token(idp.config(&upstream, lines))
        .redis(&redis)
        .token("cache = { entries = 0, negative_entries = 0 }")
        .protected("/token/*");
    let gate = Gate::start(&config);
    idp.knows("canary-opaque", &json!({ "jti": "one", "exp": now() + 300 }));
    idp.knows("canary-without-id", &json!({}));
    let status = |token: &str| gate.call(&get("/api/x").bearer(token)).status;
    assert_eq!(status("canary-opaque"), 200);
    revoked(&gate, "token=canary-opaque");
    assert_eq!(status("canary-opaque"), 401);
    assert!((1..=361).contains(&ttl(&redis, "revoked:jti:one")));
    revoked(&gate, "token=canary-inactive");
    let detail = problem(&revoke(&gate, "token=canary-without-id"), 400, "unsupported_token_type");
    assert!(detail.contains("no id"), "{detail}");
    // Known to the store.
    revoked(&gate, "token=canary-ada");
    assert_eq!(idp.asked("canary-ada"), 0);
    assert_eq!(idp.asked("canary-inactive"), 1);
    idp.provider.goes_down();
    problem(&revoke(&gate, "token=canary-opaque"), 503, "temporarily_unavailable");
    revoked(&gate, "token=canary-ada");
}

#[test]
fn a_jwt_whose_keys_are_not_there_is_503_and_the_tokens_of_other_issuers_are_revoked() {
    let (provider, redis, upstream) = (ScriptedProvider::start(), Redis::start(), RecordingUpstream::start());
    let issuer = provider.url("");
    let (published, own) = (Signer::new(Algorithm::EdDSA).kid("a"), Signer::new(Algorithm::ES256));
    provider.serves("/keys", Script::json(&json!({ "keys": [published.jwk] })));
    provider.goes_down();
    let idp = format!(
        "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\nalgorithms = [\"EdDSA\"]\nissuer = \"{issuer}\"\naudience = \"api\"\n\
         jwks = {{ url = \"{}\", refresh = \"1s\", cooldown = \"1s\" }}\nrevocation = \"redis\"\njti_claim = \"jti\"\n",
        provider.url("/keys")
    );
    let config = with_token(config())
        .redis(&redis)
        .tables(&idp)
        .jwt("users = \"none\"")
        .jwt("revocation = \"redis\"")
        .file("key0", own.file())
        .jwt(&format!("keys = [{}]", own.key("key0")))
        .app(&upstream)
        .route("/idp/*", "authenticate = [\"idp\"]")
        .route("/own/*", "authenticate = [\"jwt\"]");
    let gate = Gate::spawn(&config);
    let claims = json!({ "iss": issuer, "aud": "api", "sub": "42", "jti": "of-idp", "exp": now() + 300 });
    let of_idp = format!("token={}", published.sign(&claims));
    let detail = problem(&revoke(&gate, &of_idp), 503, "temporarily_unavailable");
    assert!(detail.contains("Authenticator idp"), "{detail}");
    assert_eq!(value(&redis, "revoked:jti:of-idp"), None);
    crate::harness::wait_until("the store is reached", std::time::Duration::from_secs(10), || {
        revoke(&gate, &format!("token={}", own.with(&json!({ "jti": "own" })))).status == 200
    });
    assert_eq!(value(&redis, "revoked:jti:own").as_deref(), Some("1"));
    provider.comes_back();
    crate::harness::wait_until("the keys are there", std::time::Duration::from_secs(20), || {
        revoke(&gate, &of_idp).status == 200
    });
    assert_eq!(value(&redis, "revoked:jti:of-idp").as_deref(), Some("1"));
    // A key that signs other tokens is no key of the issuer.
    let forged = Signer::new(Algorithm::EdDSA).kid("a").sign(&json!({
        "iss": issuer, "aud": "api", "sub": "42", "jti": "forged", "exp": now() + 300
    }));
    revoked(&gate, &format!("token={forged}"));
    assert_eq!(value(&redis, "revoked:jti:forged"), None);
}
