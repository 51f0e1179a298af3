//! Authorization: requirements, anonymous requests, repeated credentials, and challenges.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::Signer;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get};

fn with_jwt(config: Config, signer: &Signer) -> Config {
    config
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"none\"")
}

#[test]
fn unmet_requirements_are_403() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("7", &json!({}));
    redis.put_token("canary-plain", &json!({ "user": "7", "scopes": ["orders:read"] }));
    let signer = Signer::new(Algorithm::ES256);
    let both = "authenticate = [\"token\", \"jwt\"]\n";
    let gate = Gate::start(
        &with_jwt(config().tokens(&redis), &signer)
            .app(&upstream)
            .route(
                "/staff",
                &format!("{both}require = {{ groups = {{ any = [\"staff\", \"root\"] }} }}"),
            )
            .route(
                "/scope",
                &format!("{both}require = {{ scopes = {{ all = [\"orders:read\"] }} }}"),
            )
            .route(
                "/claim",
                &format!("{both}require = {{ claims = {{ tenant = \"acme\" }} }}"),
            ),
    );
    let jwt = |more: Value| format!("Bearer {}", signer.with(&more));
    for (target, value, status) in [
        ("/staff", "Token canary-ada".to_owned(), 200),
        ("/staff", "Token canary-plain".to_owned(), 403),
        ("/staff", jwt(json!({ "groups": ["root"] })), 200),
        ("/staff", jwt(json!({ "groups": "staff" })), 403),
        ("/staff", "Token canary-unknown".to_owned(), 401),
        ("/scope", "Token canary-plain".to_owned(), 200),
        ("/scope", "Token canary-ada".to_owned(), 403),
        ("/scope", jwt(json!({ "scope": "a orders:read" })), 200),
        ("/claim", jwt(json!({ "tenant": "acme" })), 200),
        ("/claim", jwt(json!({ "tenant": ["x", "acme"] })), 200),
        ("/claim", jwt(json!({ "tenant": "other" })), 403),
        ("/claim", "Token canary-ada".to_owned(), 403),
    ] {
        let before = upstream.calls();
        let reply = gate.call(&get(target).authorization(&value));
        assert_eq!(reply.status, status, "{target} {value}");
        assert_eq!(
            upstream.calls() - before,
            usize::from(status == 200),
            "{target} {value}"
        );
        if status == 403 {
            assert_eq!(reply.detail(), "You do not have permission to perform this action.");
            assert_eq!(reply.header("www-authenticate"), None);
        }
    }
    assert_eq!(gate.get("/staff").status, 401);
}

#[test]
fn an_optional_route_permits_anonymous_requests_and_refuses_invalid_credentials() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let headers = "headers = { X-User-Id = \"id\", X-By = \"authenticator\" }";
    let optional = "authenticate = [\"token\"]\noptional = true";
    let gate = Gate::start(
        &config()
            .tokens(&redis)
            .identity(headers)
            .app(&upstream)
            .route("/x", optional)
            .route(
                "/staff",
                &format!("{optional}\nrequire = {{ groups = {{ any = [\"staff\"] }} }}"),
            ),
    );
    for call in [get("/x"), get("/x").authorization("Basic Y2FuYXJ5")] {
        assert_eq!(gate.call(&call).status, 200);
        let seen = upstream.last();
        assert_eq!(
            (
                seen.header("x-by"),
                seen.header("x-user-id"),
                seen.header("authorization")
            ),
            (Some("anonymous"), None, None)
        );
    }
    assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
    let before = upstream.calls();
    assert_eq!(gate.call(&get("/x").token("canary-unknown")).status, 401);
    assert_eq!(
        gate.get("/staff").status,
        401,
        "an anonymous request meets no requirements"
    );
    for lines in [
        ["Token canary-ada", "Token canary-ada"],
        ["Basic Y2FuYXJ5", "Basic Y2FuYXJ5"],
        ["", "Token canary-ada"],
    ] {
        let reply = gate.call(&get("/x").authorization(lines[0]).authorization(lines[1]));
        assert_eq!(reply.status, 401, "{lines:?}");
    }
    assert_eq!(upstream.calls(), before);
}

#[test]
fn several_lines_of_a_credential_are_never_accepted() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_token("canary,comma", &json!({ "user": "42" }));
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).protected("/*"));
    assert_eq!(gate.call(&get("/x").token("canary,comma")).status, 200);
    for (lines, detail) in [
        (["Token canary", "comma"], "Invalid token."),
        (
            ["Token canary-ada", "Token canary-ada"],
            "Invalid token header. Token string should not contain spaces.",
        ),
        (
            ["", "Token canary-ada"],
            "Authentication credentials were not provided.",
        ),
    ] {
        let reply = gate.call(&get("/x").authorization(lines[0]).authorization(lines[1]));
        assert_eq!((reply.status, reply.detail().as_str()), (401, detail), "{lines:?}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn the_first_authenticator_sets_the_challenge_and_without_one_the_status_is_403() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::HS256);
    let gate = Gate::start(
        &with_jwt(config().tokens(&redis), &signer)
            .app(&upstream)
            .route("/token-first", "authenticate = [\"token\", \"jwt\"]")
            .route("/jwt-first", "authenticate = [\"jwt\", \"token\"]")
            .route("/none", "authenticate = [\"token\"]\nchallenge = \"none\""),
    );
    for value in ["", "Token canary-unknown", "Bearer canary"] {
        let challenge = |target| {
            gate.call(&get(target).authorization(value))
                .header("www-authenticate")
                .map(str::to_owned)
        };
        assert_eq!(challenge("/token-first").as_deref(), Some("Token"), "{value}");
        assert_eq!(
            challenge("/jwt-first").as_deref(),
            Some("Bearer realm=\"api\""),
            "{value}"
        );
        let reply = gate.call(&get("/none").authorization(value));
        assert_eq!((reply.status, reply.header("www-authenticate")), (403, None), "{value}");
    }
}

#[test]
fn a_public_route_reads_no_credential_and_changes_none() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).public("/*"));
    for lines in [
        &["Token canary-unknown"][..],
        &["Token"],
        &["Bearer canary.canary.canary"],
        &["Token canary-ada", "Basic Y2FuYXJ5"],
    ] {
        let call = lines.iter().fold(get("/x"), |call, line| call.authorization(line));
        assert_eq!(gate.call(&call).status, 200, "{lines:?}");
        let seen = upstream.last();
        assert_eq!(
            (seen.head.all("authorization").as_slice(), seen.header("x-user-id")),
            (lines, None)
        );
    }
}

#[test]
fn an_unreadable_credential_is_not_forwarded() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    for mode in ["opaque", "keep", "remove"] {
        let gate = Gate::start(
            &config()
                .tokens(&redis)
                .identity(&format!("credential = \"{mode}\""))
                .app(&upstream)
                .route("/x", "authenticate = [\"token\"]\noptional = true"),
        );
        for value in ["Basic Y2FuYXJ5", "Authgate canary", ""] {
            assert_eq!(
                gate.call(&get("/x").authorization(value)).status,
                200,
                "{mode} {value:?}"
            );
            let seen = upstream.last();
            assert!(
                seen.head.folded("authorization").is_empty(),
                "{mode} {value:?}: {:?}",
                seen.head
            );
        }
    }
}

#[test]
fn an_optional_route_tries_all_authenticators_before_a_request_is_anonymous() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let lines = "authenticate = [\"token\", \"jwt\"]\noptional = true";
    let gate = Gate::start(
        &with_jwt(config().tokens(&redis), &signer)
            .app(&upstream)
            .route("/x", lines),
    );
    let stale = signer.with(&json!({ "exp": 1 }));
    for value in [
        "Bearer canary",
        "Bearer",
        &format!("Bearer {stale}"),
        "Token",
        "Token canary-unknown",
    ] {
        assert_eq!(gate.call(&get("/x").authorization(value)).status, 401, "{value}");
    }
    assert_eq!(upstream.calls(), 0);
    assert_eq!(gate.call(&get("/x").bearer(&signer.access())).status, 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("42"));
}

#[test]
fn every_requirement_of_a_route_must_be_met() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let require = "authenticate = [\"jwt\"]\nrequire = { groups = { any = [\"staff\"] }, scopes = { all = [\"r\", \"w\"] }, claims = { tenant = \"acme\" } }";
    let gate = Gate::start(
        &with_jwt(config().tokens(&redis), &signer)
            .app(&upstream)
            .route("/x", require),
    );
    let whole = json!({ "groups": ["staff"], "scope": "r w", "tenant": "acme" });
    assert_eq!(gate.call(&get("/x").bearer(&signer.with(&whole))).status, 200);
    for (name, value) in [
        ("groups", json!(["Staff"])),
        ("groups", json!(null)),
        ("scope", json!("r")),
        ("scope", json!("rw")),
        ("tenant", json!("acme2")),
        ("tenant", json!(null)),
    ] {
        let mut claims = whole.clone();
        claims[name] = value;
        let reply = gate.call(&get("/x").bearer(&signer.with(&claims)));
        assert_eq!(reply.status, 403, "{claims}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn without_a_challenge_an_unauthenticated_request_gets_403_with_the_detail_of_401() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let lines = "authenticate = [\"token\"]\nchallenge = \"none\"";
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).route("/x", lines).route(
        "/staff",
        &format!("{lines}\noptional = true\nrequire = {{ groups = {{ any = [\"root\"] }} }}"),
    ));
    for (target, value, detail) in [
        ("/x", "", "Authentication credentials were not provided."),
        ("/x", "Token canary-unknown", "Invalid token."),
        ("/staff", "", "Authentication credentials were not provided."),
        (
            "/staff",
            "Token canary-ada",
            "You do not have permission to perform this action.",
        ),
    ] {
        let reply = gate.call(&get(target).authorization(value));
        assert_eq!(
            (reply.status, reply.detail().as_str(), reply.header("www-authenticate")),
            (403, detail, None),
            "{target} {value}"
        );
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn claim_paths_have_the_same_syntax_in_every_setting() {
    let upstream = RecordingUpstream::start();
    let signer = Signer::new(Algorithm::ES256);
    let require = |claims: &str| format!("authenticate = [\"jwt\"]\nrequire = {{ claims = {{ {claims} }} }}");
    let headers = "headers = { X-Role = 'claims.\"https://example.com/role\"', X-Realm = \"claims.realm_access.roles\", \
                   X-Dotted = 'claims.\"realm_access.roles\"' }";
    let gate = Gate::start(
        &with_jwt(config(), &signer)
            .identity(headers)
            .app(&upstream)
            .route("/url", &require("'\"https://example.com/role\"' = \"admin\""))
            .route("/walked", &require("\"realm_access.roles\" = \"admin\""))
            .route("/dotted", &require("'\"realm_access.roles\"' = \"admin\""))
            .route("/nested", &require("realm_access.roles = \"admin\"")),
    );
    for (claims, passes, fields) in [
        (
            json!({ "https://example.com/role": "admin" }),
            &["/url"][..],
            [Some("admin"), None, None],
        ),
        (
            json!({ "realm_access": { "roles": ["user", "admin"] } }),
            &["/walked", "/nested"],
            [None, Some("user,admin"), None],
        ),
        (
            json!({ "realm_access.roles": "admin" }),
            &["/dotted"],
            [None, None, Some("admin")],
        ),
        (json!({ "https://example": { "com/role": "admin" } }), &[], [None; 3]),
        (json!({ "realm_access": "admin" }), &[], [None; 3]),
    ] {
        for target in ["/url", "/walked", "/dotted", "/nested"] {
            let reply = gate.call(&get(target).bearer(&signer.with(&claims)));
            let expected = if passes.contains(&target) { 200 } else { 403 };
            assert_eq!(reply.status, expected, "{target} {claims}");
            if expected == 200 {
                let seen = upstream.last();
                assert_eq!(
                    ["x-role", "x-realm", "x-dotted"].map(|name| seen.header(name)),
                    fields,
                    "{claims}"
                );
            }
        }
    }
}
