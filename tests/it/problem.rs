//! `errors = "problem"`: RFC 9457 bodies and RFC 6750 challenges.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::harness::client::Reply;
use crate::harness::mint::{Signer, now};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, post};

fn with_jwt(redis: &Redis, signer: &Signer, upstream: &RecordingUpstream) -> Config {
    config()
        .tokens(redis)
        .token("scheme = [\"Token\", \"Api-Key\"]")
        .file("jwt.key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
        .jwt("users = \"none\"")
        .jwt("profile = \"plain\"")
        .jwt("realm = \"orders\"")
        .app(upstream)
}

/// Checks the status, the code and the challenges of a problem response.
fn check(reply: &Reply, status: u16, code: &str, challenges: &[&str]) {
    let problem = reply.json();
    assert_eq!(
        (reply.status, problem["code"].as_str(), &problem["status"]),
        (status, Some(code), &json!(status)),
        "{problem}"
    );
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"));
    assert!(problem["detail"].as_str().is_some_and(|text| text.ends_with('.')));
    assert_eq!(reply.headers("www-authenticate"), challenges);
}

#[test]
fn refusals_are_problems_with_a_challenge_for_each_accepted_scheme() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &with_jwt(&redis, &signer, &upstream)
            .route(
                "/both",
                "authenticate = [\"jwt\", \"token\"]\nerrors = \"problem\"\nmethods = [\"GET\"]",
            )
            .route(
                "/silent",
                "authenticate = [\"jwt\"]\nerrors = \"problem\"\nchallenge = \"none\"",
            ),
    );
    let bare = ["Bearer realm=\"orders\"", "Token", "Api-Key"];
    check(&gate.get("/both"), 401, "no_credential", &bare);
    let expired = signer.sign(&json!({ "sub": "1", "exp": now() - 10 }));
    check(
        &gate.call(&get("/both").bearer(&expired)),
        401,
        "jwt_expired",
        &[
            "Bearer realm=\"orders\", error=\"invalid_token\", error_description=\"The token has expired.\"",
            "Token",
            "Api-Key",
        ],
    );
    let unknown = "error=\"invalid_token\", error_description=\"The token is unknown, expired or revoked.\"";
    check(
        &gate.call(&get("/both").token("canary-unknown")),
        401,
        "token_unknown",
        &[
            "Bearer realm=\"orders\"",
            &format!("Token {unknown}"),
            &format!("Api-Key {unknown}"),
        ],
    );
    check(&gate.call(&post("/both", b"")), 405, "method_not_allowed", &[]);
    check(&gate.get("/silent"), 403, "no_credential", &[]);
    check(&gate.call(&get("/silent").bearer(&expired)), 403, "jwt_expired", &[]);
    // All routes use problem details, so a 404 without a route does too.
    check(&gate.get("/nowhere"), 404, "no_route", &[]);
    check(&gate.get("/both/%2e%2e/silent"), 400, "malformed", &[]);
    assert_eq!(upstream.calls(), 0);
    let good = signer.sign(&json!({ "sub": "1", "exp": now() + 60 }));
    assert_eq!(gate.call(&get("/both").bearer(&good)).status, 200);
}

#[test]
fn several_lines_of_a_credential_are_a_bad_request() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(&with_jwt(&redis, &signer, &upstream).route(
        "/x",
        "authenticate = [\"token\"]\noptional = true\nerrors = \"problem\"",
    ));
    let error =
        "error=\"invalid_request\", error_description=\"The request has several credentials; send exactly one.\"";
    for lines in [
        ["Token canary-ada", "Token canary-ada"],
        ["Basic Y2FuYXJ5", "Token canary-ada"],
        ["", ""],
    ] {
        let reply = gate.call(&get("/x").authorization(lines[0]).authorization(lines[1]));
        check(
            &reply,
            400,
            "repeated_credential",
            &[&format!("Token {error}"), &format!("Api-Key {error}")],
        );
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn insufficient_scope_names_the_required_scope() {
    let (redis, upstream) = (Redis::start(), RecordingUpstream::start());
    redis.put_user("7", &json!({}));
    redis.put_token("canary-reader", &json!({ "user": "7", "scopes": ["orders:read"] }));
    let signer = Signer::new(Algorithm::ES256);
    let require = "{ scopes = { all = [\"orders:write\"], any = [\"a\", \"b\"] }, groups = { any = [\"staff\"] } }";
    let gate = Gate::start(
        &with_jwt(&redis, &signer, &upstream)
            .route(
                "/orders",
                "authenticate = [\"jwt\"]\nerrors = \"problem\"\nrequire = { scopes = { all = [\"orders:write\"] } }",
            )
            .route(
                "/more",
                &format!("authenticate = [\"token\", \"jwt\"]\nerrors = \"problem\"\nrequire = {require}"),
            ),
    );
    let token = signer.sign(&json!({ "sub": "1", "exp": now() + 60, "scope": "orders:read" }));
    check(
        &gate.call(&get("/orders").bearer(&token)),
        403,
        "not_allowed",
        &[
            "Bearer realm=\"orders\", error=\"insufficient_scope\", error_description=\"The token does not have a \
           required scope.\", scope=\"orders:write\"",
        ],
    );
    check(
        &gate.get("/orders"),
        401,
        "no_credential",
        &["Bearer realm=\"orders\", scope=\"orders:write\""],
    );
    // A user outside the group is refused with any scope.
    check(
        &gate.call(&get("/more").token("canary-reader")),
        403,
        "not_allowed",
        &[],
    );
    let scope = "scope=\"orders:write a\"";
    check(
        &gate.get("/more"),
        401,
        "no_credential",
        &[
            &format!("Token {scope}"),
            &format!("Api-Key {scope}"),
            &format!("Bearer realm=\"orders\", {scope}"),
        ],
    );
}

#[test]
fn gateway_errors_are_problem_details_too() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let gate = Gate::start(
        &with_jwt(&redis, &signer, &upstream)
            .upstream("gone", &["http://127.0.0.1:1".to_owned()])
            .route("/x", "authenticate = [\"token\"]\nerrors = \"problem\"")
            .route_to("gone", "/gone", "public = true\nerrors = \"problem\""),
    );
    check(&gate.get("/gone"), 502, "upstream_unreachable", &[]);
    redis.pause();
    let reply = gate.call(&get("/x").token("canary-ada"));
    assert_eq!(
        (
            reply.status,
            reply.header("www-authenticate"),
            reply.header("retry-after")
        ),
        (503, None, Some("1"))
    );
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    redis.resume();
}
