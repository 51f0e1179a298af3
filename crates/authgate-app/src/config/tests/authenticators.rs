//! Errors and warnings of authenticators and identity headers.

use authgate_core::policy::Policy;

use super::{MINIMAL, check, jwt, minimal_and, read, route, valid, warnings, with};
use crate::config::{Severity, parse};

#[test]
fn incomplete_jwt_authenticators_are_errors() {
    let keys = |keys: &str| {
        with(
            "[{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]",
            keys,
        )
    };
    let jwks = |more: &str| {
        let line = MINIMAL
            .lines()
            .find(|line| line.starts_with("keys"))
            .expect("it is there");
        with(line, more)
    };
    for (text, words) in [
        (with("users = \"redis\"\n", ""), "`users` is required"),
        (keys("[]"), "the list is empty"),
        (
            keys("[{ algorithm = \"none\", file = \"x\" }]"),
            "\"none\" is not a valid value",
        ),
        (
            keys("[{ algorithm = \"RS256\", file = \"jwt-rs256.key\" }]"),
            "which a gateway must not have",
        ),
        (
            keys("[{ algorithm = \"RS256\", file = \"jwt-es256.pub.pem\" }]"),
            "cannot be used with RS256",
        ),
        (
            keys("[{ algorithm = \"RS256\", file = \"nowhere.pem\" }]"),
            "nowhere.pem: cannot be read",
        ),
        (keys("[{ algorithm = \"RS256\", secret = \"x\" }]"), "write `file = "),
        (keys("[{ algorithm = \"HS256\", file = \"x\" }]"), "write `secret = "),
        (
            keys("[{ algorithm = \"HS256\" }]"),
            "the secret of the HS256 key is missing",
        ),
        (
            keys("[{ algorithm = \"HS256\", secret = \"\" }]"),
            "the secret is empty",
        ),
        (jwks("jwks = { file = \"ca.pem\" }"), "`algorithms` is required"),
        (
            jwks("jwks = { file = \"ca.pem\" }\nalgorithms = [\"RS256\"]"),
            "not a JWK Set",
        ),
        (jwt("algorithms = [\"RS256\"]"), "HS256 is not among `algorithms`"),
        (jwt("user_id_claim = false"), "it names the user"),
        (jwt("token_types = [\"refresh\"]"), "\"access\", \"sliding\""),
        (jwt("audience = []"), "the list is empty"),
        (jwt("issuer = true"), "expected a string"),
        (jwt("realm = 'a\"b'"), "cannot be written in a challenge"),
        (jwt("username_claim = \"name\""), "has no effect"),
        (
            jwt("check_revoke_token = true").replace("users = \"redis\"", "users = \"none\""),
            "cannot be checked",
        ),
        (
            jwt("user_id_field = \"username\"").replace("users = \"redis\"", "users = \"none\""),
            "has no effect",
        ),
        (jwt("max_lifetime = \"0s\""), "or \"unlimited\""),
        (jwt("token_bytes = \"1B\""), "is out of range"),
        (jwt("form = \"jws\""), "\"any\", \"jwt\", \"opaque\""),
    ] {
        let Err(error) = read(&text) else {
            panic!("it was taken:\n{text}")
        };
        assert!(error.to_string().contains(words), "{words}:\n{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (members, words) in [
        (r#""use":"enc""#, "keys[0]: for \"enc\""),
        (r#""key_ops":["sign"]"#, "keys[0]: not for verifying"),
        (r#""alg":"ES256""#, "keys[0]: for \"ES256\", which is not among"),
        (r#""x5t":"y""#, "no key has a `kid`"),
    ] {
        let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}",{members}}}]}}"#);
        std::fs::write(folder.path().join("jwks.json"), set).expect("writable");
        let text = jwks("jwks = { file = \"jwks.json\" }\nalgorithms = [\"EdDSA\"]");
        let Err(error) = parse("gateway.toml", &text, folder.path()) else {
            panic!("it was taken: {members}")
        };
        assert!(error.to_string().contains(words), "{words}:\n{error}");
    }
}

#[test]
fn reserved_and_duplicate_identity_headers_are_errors() {
    let headers = |headers: &str| minimal_and(&format!("[identity]\nheaders = {{ {headers} }}\n"));
    for (text, words) in [
        (
            headers("Host = \"id\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            headers("Content-Language = \"id\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            headers("X-Forwarded-For = \"id\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            headers("X-Request-Id = \"id\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            headers("Connection = \"id\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (headers("Authorization = \"id\""), "carries the credential"),
        (headers("X_User = \"id\""), "write \"X-User\""),
        (headers("\"X User\" = \"id\""), "is not a header name"),
        (
            headers("X-User = \"id\", XUSER = \"username\""),
            "the same header as another one",
        ),
        (headers("X-User = \"name\""), "is not a field of an identity"),
        (headers("X-User = \"claims.\""), "has an empty name"),
        (headers("X-User = \"attributes.a..b\""), "has an empty name"),
        (minimal_and("[identity]\nstrip = [\"X-*\"]\n"), "whole names"),
        (
            minimal_and("[identity]\nstrip = [\"Transfer-Encoding\"]\n"),
            "belongs to the connection or the framing",
        ),
        (
            minimal_and("[identity]\ncredential = \"drop\"\n"),
            "\"opaque\", \"keep\", \"remove\"",
        ),
        (
            headers("X-Key = \"id\"").replace("kind = \"token\"", "kind = \"token\"\nheader = \"X-KEY\""),
            "carries a credential here",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nheader = \"Host\""),
            "is reserved: it has a meaning in HTTP or for the gateway",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = \"a b\""),
            "is not a scheme",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = [\"Token\", \"token\"]"),
            "is listed twice",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = \"AUTHGATE\""),
            "is reserved for the value that the gateway sends",
        ),
        (
            jwt("scheme = \"Authgate\""),
            "is reserved for the value that the gateway sends",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = \"\""),
            "write `header = \"X-API-Key\"`",
        ),
        (
            with(
                "kind = \"token\"",
                "kind = \"token\"\nheader = \"X-Key\"\nscheme = [\"Token\", \"\"]",
            ),
            "is not a scheme",
        ),
        (jwt("scheme = \"\""), "is not a scheme"),
        (
            minimal_and("[authenticators.public]\nkind = \"token\"\n"),
            "\"public\" is reserved",
        ),
        (
            minimal_and("[authenticators.anonymous]\nkind = \"token\"\n"),
            "\"anonymous\" is reserved",
        ),
        (
            with(
                "kind = \"token\"",
                "kind = \"token\"\nheader = \"X-Key\"\nscheme = \"\"",
            )
            .replace("kind = \"jwt\"", "kind = \"jwt\"\nheader = \"x-key\""),
            "is never used: \"token\" accepts every value of the same header",
        ),
    ] {
        check(&text, &[&[words]]);
    }
}

/// Claim names have the same syntax everywhere, and an error says which names need quotes.
#[test]
fn claims_and_attributes_have_the_same_syntax() {
    let header = |source: &str| minimal_and(&format!("[identity]\nheaders = {{ X-It = '{source}' }}\n"));
    let require = |key: &str| route(&format!("require = {{ claims = {{ {key} = \"x\" }} }}"));
    for (path, kept) in [
        ("tenant", "tenant"),
        ("realm_access.roles", "realm_access"),
        ("\"https://example.com/role\"", "https://example.com/role"),
        ("cognito:groups", "cognito:groups"),
        ("\"a.b\".c", "a.b"),
    ] {
        for text in [header(&format!("claims.{path}")), require(&format!("'{path}'"))] {
            let config = valid(&text);
            assert_eq!(config.identities.claims.claims, [kept], "{text}");
        }
        valid(&header(&format!("attributes.{path}")));
    }
    for (path, help) in [
        ("https://example.com/role", "\"https://example.com/role\""),
        ("a b", "\"a b\""),
        ("zo\u{eb}.x", "\"zo\u{eb}.x\""),
    ] {
        check(
            &header(&format!("claims.{path}")),
            &[&["needs quotes", &format!("write 'claims.{help}'")]],
        );
        check(
            &header(&format!("attributes.{path}")),
            &[&["needs quotes", &format!("write 'attributes.{help}'")]],
        );
        check(
            &require(&format!("\"{path}\"")),
            &[&["needs quotes", &format!("write `'{help}' = …`")]],
        );
    }
    check(
        &header("claims.\"a"),
        &[&["quotes that do not end with the name", "write 'claims.a'"]],
    );
    check(&require("\"a.\""), &[&["has an empty name"]]);
    // TOML's dotted keys have the same meaning.
    let claims = |text: &str| {
        let config = valid(&route(&format!("require = {{ claims = {{ {text} }} }}")));
        match &config.routes[0].rules.policy {
            Policy::Authenticated { require, .. } => require.claims.clone(),
            Policy::Public => Vec::new(),
        }
    };
    for (one, other) in [
        ("realm_access.roles = \"x\"", "\"realm_access.roles\" = \"x\""),
        ("realm_access = { roles = \"x\" }", "\"realm_access.roles\" = \"x\""),
        ("a.'\"b.c\"'.d = 1", "'a.\"b.c\".d' = 1"),
        ("a = { env = \"AUTHGATE_NOT_SET\", default = \"x\" }", "a = \"x\""),
    ] {
        assert_eq!(claims(one), claims(other), "{one}");
    }
    check(
        &route("require = { claims = { a.b = 1, \"a.b\" = 2 } }"),
        &[&["claim a.b is required twice"]],
    );
    check(
        &route("require = { claims = { a.b.c = 1.5 } }"),
        &[&["a claim is compared with"]],
    );
}

#[test]
fn probable_mistakes_are_warnings() {
    for (text, words) in [
        (
            with("a secret of a good many bytes, forty", "short"),
            "the secret has only 5 bytes",
        ),
        (
            jwt("token_type_claim = false"),
            "refresh tokens are accepted as access tokens",
        ),
        (
            jwt("jti_claim = false\nrevocation = \"redis\""),
            "single tokens cannot be revoked",
        ),
        (
            jwt("check_user_is_active = true").replace("users = \"redis\"", "users = \"none\""),
            "no user is looked up",
        ),
        (
            minimal_and("[stores.zz]\nkind = \"embedded\"\nfile = \"none.toml\"\n")
                .replace("kind = \"token\"", "kind = \"token\"\nstore = \"zz\""),
            "does not exist yet",
        ),
        (jwt("form = \"opaque\""), "a JWT is never opaque"),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = [\"Token\", \"bearer\"]"),
            "\"jwt\" is never asked about a credential of the scheme \"Bearer\": \"token\" reads it first",
        ),
        (
            with("kind = \"token\"", "kind = \"token\"\nscheme = \"Bearer\"")
                .replace("[\"token\", \"jwt\"]", "[\"jwt\", \"token\"]"),
            "\"token\" is never asked about a credential of the scheme \"Bearer\": \"jwt\" reads it first",
        ),
    ] {
        let loaded = read(&text).unwrap_or_else(|error| panic!("{error}"));
        let problems = loaded.warnings.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].severity == Severity::Warning && problems[0].message.contains(words),
            "{words}: {problems:?}"
        );
    }
}

#[test]
fn authenticators_share_a_scheme_if_the_first_one_leaves_something_to_the_next() {
    let shared = with("kind = \"token\"", "kind = \"token\"\nscheme = \"Bearer\"");
    let shared = shared.replace("[\"token\", \"jwt\"]", "[\"jwt\", \"token\"]");
    valid(&shared.replace("kind = \"jwt\"", "kind = \"jwt\"\nform = \"jwt\""));
    valid(&shared.replace("kind = \"jwt\"", "kind = \"jwt\"\nheader = \"X-JWT\""));
    let second = "[authenticators.other]\nkind = \"jwt\"\nusers = \"none\"\nform = \"jwt\"\n\
                  keys = [{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]\n[upstreams.app]";
    let two = MINIMAL.replace("[upstreams.app]", second);
    let two = two.replace("[\"token\", \"jwt\"]", "[\"other\", \"jwt\"]");
    valid(&two);
    let same = two.replace("users = \"redis\"", "users = \"redis\"\nform = \"jwt\"");
    let loaded = read(&same).unwrap_or_else(|error| panic!("{error}"));
    let [warning] = warnings(&loaded)[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert!(warning.message.contains("\"jwt\" is never asked"), "{warning:?}");
}

#[test]
fn a_public_key_as_hmac_secret_is_an_error() {
    let pem = include_str!("../../../../../certs-example/jwt-es256.pub.pem");
    for text in [
        with(
            "secret = \"a secret of a good many bytes, forty\"",
            "secret = { file = \"jwt-es256.pub.pem\" }",
        ),
        with(
            "\"a secret of a good many bytes, forty\"",
            &format!("\"{}\"", pem.replace('\n', "\\n")),
        ),
        with(
            "a secret of a good many bytes, forty",
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me",
        ),
        with(
            "\"a secret of a good many bytes, forty\"",
            r#"'{"kty":"RSA","n":"AQAB","e":"AQAB"}'"#,
        ),
    ] {
        check(&text, &[&["keys[0].secret", "key confusion", "gateway.toml:"]]);
    }
}

#[test]
fn an_audience_that_published_keys_need_may_be_switched_off_in_writing() {
    let published = |lines: &str| {
        let keys = "keys = [{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]";
        let issuer = "https://idp.example/pool";
        let remote = format!("discovery = \"{issuer}\"\nissuer = \"{issuer}\"\nalgorithms = [\"RS256\"]\n{lines}");
        with(keys, &remote)
    };
    valid(&published("audience = \"api\""));
    check(
        &published(""),
        &[&["`audience` is required", "or `audience = false` if they have no `aud`"]],
    );
    let loaded = read(&published("audience = false")).unwrap_or_else(|error| panic!("{error}"));
    let [warning] = warnings(&loaded)[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(warning.key, "authenticators.jwt.audience");
    assert!(warning.message.contains("`aud` is not checked"), "{warning:?}");
}
