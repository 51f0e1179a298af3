//! docs/identity-providers.md: tokens with the claims that the page describes pass its examples, and others do not. The providers are not
//! asked: the keys are those of the test.

use std::fs;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::floors::root;
use crate::harness::mint::{Signer, now};
use crate::harness::{Gate, RecordingUpstream, config, get};

/// The first block of a section of the page.
fn example(section: &str) -> String {
    let page = fs::read_to_string(root().join("docs/identity-providers.md")).unwrap();
    let section = page.split_once(&format!("\n## {section}\n")).expect("a section").1;
    let block = section.split_once("```toml\n").expect("a block").1;
    block.split_once("```").expect("its end").0.to_owned()
}

/// The same without a network: the lines that fetch keys give way to a key in a file.
fn with_key(example: &str, key: &str) -> String {
    let lines = example.lines().filter_map(|line| match line.split(' ').next() {
        Some("discovery") => Some(format!("keys = [{key}]")),
        Some("jwks" | "algorithms") => None,
        _ => Some(line.to_owned()),
    });
    lines.map(|line| line + "\n").collect()
}

/// What becomes of a request with a token.
enum Expected<'e> {
    /// It is forwarded with these headers.
    Forwarded(&'e [(&'e str, &'e str)]),
    /// It is answered with this status, and the log has these words.
    Refused(u16, &'e [&'e str]),
}

/// Requests to the gateway of an example: path, claims beside `iat` and `exp`, and what becomes of it.
fn check(section: &str, requests: &[(&str, Value, Expected<'_>)]) {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::RS256).kid("one"));
    let example = with_key(&example(section), &signer.key("provider.pem"));
    let config = config().app(&upstream).file("provider.pem", signer.file());
    let gate = Gate::start(&config.tables(&example));
    for (path, claims, expected) in requests {
        let mut claims = claims.clone();
        claims["iat"] = json!(now());
        claims["exp"] = json!(now() + 300);
        claims["canary"] = json!("canary");
        let reply = gate.call(&get(path).bearer(&signer.sign(&claims)));
        match expected {
            Expected::Forwarded(headers) => {
                assert_eq!(reply.status, 200, "{section} {path}: {claims}: {}", reply.text());
                let sent = upstream.last();
                for (name, value) in *headers {
                    assert_eq!(sent.header(name), Some(*value), "{section} {path}: {name}");
                }
            }
            Expected::Refused(status, words) => {
                assert_eq!(reply.status, *status, "{section} {path}: {claims}: {}", reply.text());
                gate.logged(words);
            }
        }
    }
}

/// Claims with others in addition or in their place.
fn and(mut claims: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("an object") };
    claims.as_object_mut().expect("an object").extend(more);
    claims
}

#[test]
fn keycloaks_nested_roles_are_required_and_sent() {
    let token = json!({
        "iss": "https://keycloak.example.com/realms/shop", "aud": ["orders-api", "account"], "typ": "Bearer", "azp": "web",
        "sub": "f81d4fae", "preferred_username": "ada", "scope": "openid profile",
        "realm_access": { "roles": ["customer", "offline_access"] },
        "resource_access": { "orders-api": { "roles": ["admin"] }, "account": { "roles": ["manage-account"] } },
    });
    let headers = [
        ("x-user-id", "f81d4fae"),
        ("x-user-name", "ada"),
        ("x-roles", "customer,offline_access"),
    ];
    check(
        "Keycloak",
        &[
            ("/api/x", token.clone(), Expected::Forwarded(&headers)),
            ("/api/admin/x", token.clone(), Expected::Forwarded(&headers)),
            (
                "/api/admin/x",
                and(
                    token.clone(),
                    json!({ "resource_access": { "account": { "roles": ["admin"] } } }),
                ),
                Expected::Refused(403, &["not_allowed"]),
            ),
            (
                "/api/x",
                and(token, json!({ "aud": "account" })),
                Expected::Refused(401, &["jwt_invalid", "audience"]),
            ),
        ],
    );
}

#[test]
fn auth0s_permissions_and_claims_named_by_urls_are_read() {
    let token = json!({
        "iss": "https://example.eu.auth0.com/", "sub": "auth0|65f0c1", "azp": "client",
        "aud": ["https://api.example.com", "https://example.eu.auth0.com/userinfo"], "scope": "openid read:orders",
        "permissions": ["admin:orders", "read:orders"], "https://example.com/tenant": "acme",
    });
    let headers = [
        ("x-user-id", "auth0|65f0c1"),
        ("x-scopes", "openid,read:orders"),
        ("x-tenant", "acme"),
    ];
    let job =
        json!({ "sub": "client@clients", "gty": "client-credentials", "scope": "read:orders", "permissions": null });
    check(
        "Auth0",
        &[
            ("/api/x", token.clone(), Expected::Forwarded(&headers)),
            ("/api/admin/x", token.clone(), Expected::Forwarded(&headers)),
            (
                "/api/x",
                and(token.clone(), job.clone()),
                Expected::Forwarded(&[("x-user-id", "client@clients")]),
            ),
            (
                "/api/admin/x",
                and(token.clone(), job),
                Expected::Refused(403, &["not_allowed"]),
            ),
            (
                "/api/x",
                and(token, json!({ "iss": "https://example.eu.auth0.com" })),
                Expected::Refused(401, &["jwt_invalid", "issuer"]),
            ),
        ],
    );
}

#[test]
fn entras_scopes_of_users_and_roles_of_clients_are_required() {
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    let token = json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "ver": "2.0", "tid": TENANT, "oid": "person", "sub": "pairwise", "uti": "id",
    });
    let user = and(
        token.clone(),
        json!({ "scp": "Orders.Read User.Read", "preferred_username": "ada@example.com" }),
    );
    let job = and(token.clone(), json!({ "oid": "principal", "roles": ["Orders.Import"] }));
    let headers = [("x-user-id", "person"), ("x-user-name", "ada@example.com")];
    check(
        "Microsoft Entra ID",
        &[
            ("/api/x", user.clone(), Expected::Forwarded(&headers)),
            ("/jobs/x", user.clone(), Expected::Refused(403, &["not_allowed"])),
            (
                "/jobs/x",
                job.clone(),
                Expected::Forwarded(&[("x-user-id", "principal")]),
            ),
            ("/api/x", job, Expected::Refused(403, &["not_allowed"])),
            // An ID token, where client and API are one registration.
            ("/api/x", token, Expected::Refused(403, &["not_allowed"])),
            (
                "/api/x",
                and(
                    user,
                    json!({ "iss": format!("https://sts.windows.net/{TENANT}/"), "ver": "1.0" }),
                ),
                Expected::Refused(401, &["jwt_invalid", "issuer"]),
            ),
        ],
    );
}

#[test]
fn cognitos_access_tokens_pass_without_an_audience_and_its_id_tokens_do_not() {
    let token = json!({
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI", "token_use": "access", "version": 2,
        "client_id": "1example23456789", "sub": "d4c3b2a1", "username": "ada", "cognito:groups": ["admin", "staff"],
        "scope": "openid https://api.example.com/orders.read",
    });
    let headers = [
        ("x-user-id", "d4c3b2a1"),
        ("x-user-name", "ada"),
        ("x-groups", "admin,staff"),
    ];
    check(
        "Amazon Cognito",
        &[
            ("/api/x", token.clone(), Expected::Forwarded(&headers)),
            ("/api/admin/x", token.clone(), Expected::Forwarded(&headers)),
            (
                "/api/admin/x",
                and(token.clone(), json!({ "client_id": "another" })),
                Expected::Refused(403, &["not_allowed"]),
            ),
            (
                "/api/x",
                and(token.clone(), json!({ "scope": "aws.cognito.signin.user.admin" })),
                Expected::Refused(403, &["not_allowed"]),
            ),
            (
                "/api/x",
                and(token, json!({ "token_use": "id", "aud": "1example23456789" })),
                Expected::Refused(401, &["jwt_wrong_type"]),
            ),
        ],
    );
}

#[test]
fn googles_id_tokens_pass_for_one_client_and_one_domain() {
    let token = json!({
        "iss": "https://accounts.google.com", "aud": "123456789012-abcdef.apps.googleusercontent.com", "sub": "110169484474386276334",
        "azp": "123456789012-abcdef.apps.googleusercontent.com", "email": "ada@example.com", "email_verified": true, "hd": "example.com",
    });
    let headers = [
        ("x-user-id", "110169484474386276334"),
        ("x-email", "ada@example.com"),
        ("x-domain", "example.com"),
    ];
    let mut personal = token.clone();
    personal.as_object_mut().expect("an object").remove("hd");
    check(
        "Google",
        &[
            ("/api/x", token.clone(), Expected::Forwarded(&headers)),
            (
                "/api/x",
                and(token.clone(), json!({ "iss": "accounts.google.com" })),
                Expected::Forwarded(&headers),
            ),
            ("/api/x", personal, Expected::Refused(403, &["not_allowed"])),
            (
                "/api/x",
                and(token, json!({ "aud": "another.apps.googleusercontent.com" })),
                Expected::Refused(401, &["jwt_invalid", "audience"]),
            ),
        ],
    );
}

#[test]
fn oktas_list_of_scopes_is_read_and_tokens_of_clients_have_no_user() {
    let token = json!({
        "iss": "https://example.okta.com/oauth2/default", "aud": "api://default", "ver": 1, "cid": "client", "uid": "00u1",
        "sub": "ada@example.com", "scp": ["openid", "orders:read"], "groups": ["customers", "Everyone"],
    });
    let mut job = and(token.clone(), json!({ "sub": "client" }));
    job.as_object_mut().expect("an object").remove("uid");
    let headers = [("x-user-id", "00u1"), ("x-user-name", "ada@example.com")];
    check(
        "Okta",
        &[
            ("/api/x", token.clone(), Expected::Forwarded(&headers)),
            (
                "/api/x",
                job,
                Expected::Refused(401, &["jwt_user_unnamed", "uid is absent"]),
            ),
            (
                "/api/x",
                and(token, json!({ "scp": ["openid"] })),
                Expected::Refused(403, &["not_allowed"]),
            ),
        ],
    );
}

#[test]
fn users_of_several_providers_with_the_same_id_are_two_users() {
    let ours = json!({ "iss": "https://keycloak.example.com/realms/shop", "aud": "orders-api", "sub": "42" });
    let partner = json!({
        "iss": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
        "aud": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "oid": "42",
    });
    check(
        "Several providers",
        &[
            ("/api/x", ours.clone(), Expected::Forwarded(&[("x-user-id", "42")])),
            ("/api/x", partner, Expected::Forwarded(&[("x-user-id", "partner:42")])),
            (
                "/api/x",
                and(ours, json!({ "iss": "https://other.example" })),
                Expected::Refused(401, &["jwt_invalid", "issuer"]),
            ),
        ],
    );
}
