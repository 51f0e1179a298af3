//! `[identity] signed`, `audience` and `jwks`: errors and warnings.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{MINIMAL, check, minimal_and, valid, warnings, with};
use crate::config::parse;

const ED: &str = "{ algorithm = \"EdDSA\", file = \"jwt-eddsa.key\" }";

/// [`MINIMAL`] with this `signed` in `[identity]`.
fn signed(inner: &str) -> String {
    minimal_and(&format!("[identity]\nsigned = {{ {inner} }}\n"))
}

/// The same with `keys`.
fn signed_and(more: &str) -> String {
    signed(&format!("keys = [{ED}], {more}"))
}

/// `[upstreams.app.identity]` with these lines, beside `signed` in `[identity]`.
fn own(lines: &str) -> String {
    signed(&format!("keys = [{ED}]")) + &format!("[upstreams.app.identity]\n{lines}\n")
}

/// A key set at this path, with these lines.
fn key_set(lines: &str) -> String {
    signed(&format!("keys = [{ED}]")) + &format!("[[routes]]\njwks = true\n{lines}\n")
}

#[test]
fn errors_of_signed_identities_say_what_to_write() {
    for (text, key, words) in [
        (signed("ttl = \"60s\""), "identity.signed", "`keys` is missing"),
        (signed("keys = []"), "identity.signed.keys", "the list is empty"),
        (
            signed("keys = [{ algorithm = \"HS256\", file = \"jwt-hs256.secret\" }]"),
            "identity.signed.keys[0].algorithm",
            "Valid values: \"EdDSA\", \"ES256\", \"RS256\"",
        ),
        (
            signed("keys = [{ algorithm = \"ES256\", file = \"jwt-eddsa.key\" }]"),
            "identity.signed.keys[0].file",
            "openssl genpkey -algorithm EC",
        ),
        (
            signed("keys = [{ algorithm = \"EdDSA\", file = \"jwt-eddsa.pub.pem\" }]"),
            "identity.signed.keys[0].file",
            "not a private key for EdDSA",
        ),
        (
            signed("keys = [{ algorithm = \"EdDSA\", file = \"nowhere.key\" }]"),
            "identity.signed.keys[0].file",
            "cannot be read",
        ),
        (
            signed("keys = [{ algorithm = \"EdDSA\" }]"),
            "identity.signed.keys[0]",
            "`file` is missing",
        ),
        (
            signed(&format!("keys = [{ED}, {ED}]")),
            "identity.signed.keys[1]",
            "listed twice",
        ),
        (signed_and("ttl = \"2h\""), "identity.signed.ttl", "\"1s\" to \"1h\""),
        (signed_and("ttl = \"500ms\""), "identity.signed.ttl", "\"1s\" to \"1h\""),
        (signed_and("issuer = \"\""), "identity.signed.issuer", "is empty"),
        (
            signed_and("header = \"X_Identity\""),
            "identity.signed.header",
            "contains `_`",
        ),
        (
            signed_and("header = \"Authorization\""),
            "identity.signed.header",
            "carries the credential",
        ),
        (
            signed_and("header = \"x-userid\""),
            "identity.signed.header",
            "a plain value of it elsewhere",
        ),
        (
            signed_and("facts = [\"id\"]"),
            "identity.signed.facts[0]",
            "as the claim `sub`",
        ),
        (
            signed_and("facts = [\"name\"]"),
            "identity.signed.facts[0]",
            "is not a field of an identity",
        ),
        (signed_and("key = 1"), "identity.signed.key", "did you mean `keys`?"),
        (
            minimal_and("[identity]\naudience = \"x\"\n"),
            "identity.audience",
            "[upstreams.NAME.identity]",
        ),
        (
            minimal_and("[upstreams.app.identity]\naudience = \"x\"\n"),
            "upstreams.app.identity.audience",
            "has no effect without `signed`",
        ),
        (
            own("signed = false\naudience = \"x\""),
            "upstreams.app.identity.audience",
            "has no effect without `signed`",
        ),
        (own("audience = \"\""), "upstreams.app.identity.audience", "is empty"),
    ] {
        // The default headers have X-User-Id, and a file has to name it to be told about it.
        let text = match text.contains("x-userid") {
            true => text.replace("[identity]\n", "[identity]\nheaders = { X-User-Id = \"id\" }\n"),
            false => text,
        };
        check(&text, &[&[key, words]]);
    }
}

#[test]
fn a_key_set_is_one_public_path_without_an_upstream() {
    let path = "path = \"/jwks.json\"\npublic = true";
    let config = valid(&key_set(path));
    assert!(config.routes[1].rules.target.upstream().is_none());
    valid(&key_set(&format!("{path}\nmethods = [\"GET\", \"HEAD\"]")));
    for (text, words) in [
        (
            minimal_and(&format!("[[routes]]\njwks = true\n{path}\n")),
            "there is no key to publish",
        ),
        (
            key_set("path = \"/jwks.json\"\nauthenticate = [\"token\"]"),
            "`public = true`",
        ),
        (key_set("path = \"/jwks/*\"\npublic = true"), "an exact path"),
        (
            key_set(&format!("{path}\nupstream = \"app\"")),
            "`upstream` has no effect",
        ),
        (
            key_set(&format!("{path}\nbody_bytes = \"1KiB\"")),
            "`body_bytes` has no effect",
        ),
        (key_set(&format!("{path}\nmethods = [\"POST\"]")), "can only be read"),
        (
            key_set(path).replace("jwks = true", "jwks = false"),
            "`upstream` is missing",
        ),
    ] {
        check(&text, &[&[words]]);
    }
}

#[test]
fn a_key_of_an_authenticator_never_signs_identities() {
    let keys = "[{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]";
    let text = with(keys, "[{ algorithm = \"EdDSA\", file = \"jwt-eddsa.pub.pem\" }]");
    let text = format!("{text}[identity]\nsigned = {{ keys = [{ED}] }}\n");
    check(
        &text,
        &[&[
            "error[identity.signed.keys[0]]",
            "also a key of authenticators.jwt",
            "openssl genpkey -algorithm ED25519",
        ]],
    );
}

#[test]
fn two_keys_never_share_a_key_id() {
    let es = "{ algorithm = \"ES256\", file = \"jwt-es256.key\", kid = \"a\" }";
    let ed = "{ algorithm = \"EdDSA\", file = \"jwt-eddsa.key\", kid = \"a\" }";
    check(
        &signed(&format!("keys = [{ed}, {es}]")),
        &[&["error[identity.signed.keys[1]]", "two keys have the `kid` \"a\""]],
    );
    // The same key in two tables is published once.
    let config = valid(&own(&format!("signed = {{ keys = [{ED}], issuer = \"x\" }}")));
    assert_eq!(config.identity_keys.len(), 1);
}

#[test]
fn the_header_of_a_signed_identity_carries_nothing_else() {
    let authenticator = with("kind = \"token\"\n", "kind = \"token\"\nheader = \"X-Who\"\n");
    check(
        &format!("{authenticator}[identity]\nsigned = {{ header = \"X-Who\", keys = [{ED}] }}\n"),
        &[&["error[authenticators.token.header]", "an identity to the upstream"]],
    );
    check(
        &own("").replace(
            "[identity]",
            "[upstreams.app.secret_header]\nname = \"X-Authgate-Identity\"\nvalue = \"x\"\n[identity]",
        ),
        &[&["error[upstreams.app.secret_header", "already carries an identity"]],
    );
}

#[test]
fn an_upstream_has_its_own_audience_and_may_have_no_token() {
    let audience = |text: &str| {
        let config = valid(text);
        let signer = config.routes[0].rules.signer.clone();
        signer.map(|signer| signer.audience().to_owned())
    };
    assert_eq!(audience(MINIMAL), None);
    assert_eq!(audience(&own("")).as_deref(), Some("app"));
    assert_eq!(
        audience(&own("audience = \"https://app\"")).as_deref(),
        Some("https://app")
    );
    assert_eq!(audience(&own("signed = false")), None);
}

#[test]
fn the_facts_decide_which_claims_an_identity_keeps() {
    let kept = |text: &str| {
        let kept = valid(text).identities.claims;
        (kept.claims, kept.email, kept.groups, kept.scopes)
    };
    assert_eq!(kept(&signed_and("facts = []")), (vec![], false, false, false));
    assert_eq!(kept(&signed_and("ttl = \"5s\"")), (vec![], true, true, true));
    let claims = signed_and("facts = [\"email\", \"claims.tenant.id\"]");
    assert_eq!(kept(&claims), (vec!["tenant".to_owned()], true, false, false));
}

#[test]
fn a_signing_key_that_all_users_can_read_is_warned_about() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("identity.key");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    fs::write(&file, pair.serialize_pem()).expect("written");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    for (mode, expected) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("ours");
        let text = signed("keys = [{ algorithm = \"EdDSA\", file = \"identity.key\" }]");
        let loaded = parse("gateway.toml", &text, folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let problems = warnings(&loaded);
        assert_eq!(problems.len(), expected, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.help.contains("chmod 600")));
    }
}
