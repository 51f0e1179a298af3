//! Every claim that a check depends on, with every JSON type: a wrong type never skips the check.

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::{Signer, base64, now};
use crate::harness::{Config, Gate, RecordingUpstream, config, get};

/// An embedded store in which user 42 is active, and 7 is revoked with all that was issued by `issued`.
fn store(issued: i64) -> String {
    format!(
        "layout = {{ version = 1, epoch = \"e\" }}\n\
         [users.42]\nid = \"42\"\nactive = true\npassword_md5 = \"x\"\n\
         [users.7]\nid = \"7\"\nactive = true\npassword_md5 = \"x\"\n\
         [revoked.jti]\n5 = 0\n\"1.5\" = 0\nrevoked = 0\n\
         [revoked.user]\n7 = {issued}\n"
    )
}

fn gateway(upstream: &RecordingUpstream, signer: &Signer, lines: &[&str]) -> Config {
    let mut config = config()
        .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
        .file("tokens.toml", store(now() - 100))
        .file("key", signer.file())
        .jwt(&format!("keys = [{}]", signer.key("key")))
        .app(upstream)
        .route("/api/*", "authenticate = [\"jwt\"]");
    for line in lines {
        config = config.jwt(line);
    }
    config
}

fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(5),
        json!(1.5),
        json!("x"),
        json!("revoked"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({ "x": "x" }),
    ]
}

/// Good claims, and one that is this value.
fn signed(signer: &Signer, good: &Value, name: &str, value: &Value) -> String {
    let mut claims = good.clone();
    claims[name] = value.clone();
    signer.sign(&claims)
}

fn status(gate: &Gate, jwt: &str) -> u16 {
    gate.call(&get("/api/x").bearer(jwt)).status
}

#[test]
fn a_claim_of_a_wrong_type_skips_no_check() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(&gateway(
        &upstream,
        &signer,
        &[
            "users = \"file\"",
            "revocation = \"file\"",
            "check_revoke_token = true",
            "jti_claim = \"tid\"",
            "issuer = \"x\"",
            "audience = \"x\"",
        ],
    ));
    let good = json!({
        "token_type": "access", "user_id": "42", "tid": "canary", "jti": "canary", "hash_password": "x",
        "iss": "x", "aud": "x", "iat": now(), "exp": now() + 300,
    });
    assert_eq!(status(&gate, &signer.sign(&good)), 200);
    for (name, accepted) in [
        ("iat", vec![json!(true), json!(5), json!(1.5)]),
        ("nbf", vec![json!(true), json!(5), json!(1.5)]),
        ("exp", vec![]),
        ("iss", vec![json!("x")]),
        ("aud", vec![json!("x"), json!(["x"])]),
        ("sub", vec![json!("x"), json!("revoked")]),
        ("jti", vec![json!("x"), json!("revoked")]),
        // 5 and 1.5 are revoked by their decimal text.
        ("tid", vec![json!("x")]),
        ("token_type", vec![]),
        ("user_id", vec![]),
        ("hash_password", vec![json!("x")]),
    ] {
        for value in values() {
            let expected = if accepted.contains(&value) { 200 } else { 401 };
            let jwt = signed(&signer, &good, name, &value);
            assert_eq!(status(&gate, &jwt), expected, "{name} {value}");
        }
        if name != "nbf" && name != "sub" && name != "iat" && name != "jti" {
            let mut without = good.clone();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(status(&gate, &signer.sign(&without)), 401, "without {name}");
        }
    }
    assert_eq!(status(&gate, &signed(&signer, &good, "tid", &json!(6))), 200);
    for kid in values().into_iter().filter(|value| !value.is_string()) {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        let jwt = signer.seal(&header, good.to_string().as_bytes());
        assert_eq!(status(&gate, &jwt), 401, "kid {kid}");
    }
}

#[test]
fn a_token_that_cannot_be_revoked_is_refused_only_where_revocations_are_checked() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(&gateway(
        &upstream,
        &signer,
        &["users = \"none\"", "jti_claim = \"tid\""],
    ));
    let good = json!({ "token_type": "access", "user_id": "42", "exp": now() + 300 });
    for value in values() {
        assert_eq!(status(&gate, &signed(&signer, &good, "tid", &value)), 200, "{value}");
    }
}

#[test]
fn the_revocation_of_a_user_covers_each_form_of_iat() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(&gateway(
        &upstream,
        &signer,
        &["users = \"file\"", "revocation = \"file\""],
    ));
    let by = now() - 100;
    let good = json!({ "token_type": "access", "user_id": "7", "jti": "canary", "exp": now() + 300 });
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
    let (whole, fraction) = (by as f64, by as f64 + 0.9);
    let revoked = [
        json!(by),
        json!(whole),
        json!(fraction),
        json!(by.to_string()),
        json!(true),
        json!(-1),
    ];
    for value in revoked {
        assert_eq!(status(&gate, &signed(&signer, &good, "iat", &value)), 401, "{value}");
    }
    assert_eq!(status(&gate, &signer.sign(&good)), 401, "without iat");
    for value in [json!(by + 10), json!(whole + 10.5), json!((by + 10).to_string())] {
        assert_eq!(status(&gate, &signed(&signer, &good, "iat", &value)), 200, "{value}");
        let by_number = json!({ "token_type": "access", "user_id": 7, "jti": "canary", "iat": by, "exp": now() + 300 });
        assert_eq!(status(&gate, &signer.sign(&by_number)), 401);
    }
}

#[test]
fn a_requirement_is_not_met_by_a_claim_of_another_type() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let config = gateway(&upstream, &signer, &["users = \"none\""])
        .route(
            "/groups",
            "authenticate = [\"jwt\"]\nrequire = { groups = { any = [\"x\"] } }",
        )
        .route(
            "/scope",
            "authenticate = [\"jwt\"]\nrequire = { scopes = { all = [\"x\"] } }",
        )
        .route(
            "/scp",
            "authenticate = [\"jwt\"]\nrequire = { scopes = { all = [\"x\"] } }",
        )
        .route(
            "/text",
            "authenticate = [\"jwt\"]\nrequire = { claims = { text = \"x\" } }",
        )
        .route(
            "/number",
            "authenticate = [\"jwt\"]\nrequire = { claims = { number = 5 } }",
        )
        .route(
            "/flag",
            "authenticate = [\"jwt\"]\nrequire = { claims = { flag = true } }",
        );
    let gate = Gate::start(&config);
    let good = json!({ "token_type": "access", "user_id": "42", "jti": "canary", "exp": now() + 300 });
    for (name, met) in [
        ("groups", vec![json!(["x"])]),
        ("scope", vec![json!("x"), json!(["x"])]),
        ("scp", vec![json!("x"), json!(["x"])]),
        ("text", vec![json!("x"), json!(["x"])]),
        ("number", vec![json!(5)]),
        ("flag", vec![json!(true)]),
    ] {
        for value in values() {
            let expected = if met.contains(&value) { 200 } else { 403 };
            let jwt = signed(&signer, &good, name, &value);
            let status = gate.call(&get(&format!("/{name}")).bearer(&jwt)).status;
            assert_eq!(status, expected, "{name} {value}");
        }
    }
}

#[test]
fn each_profile_reads_scheme_and_padding_by_its_own_specification() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let claims = json!({
        "token_type": "access", "user_id": "42", "sub": "42", "client_id": "app", "iss": "x", "aud": "x",
        "jti": "canary-padded", "iat": now(), "exp": now() + 300,
    });
    // Blanks make the claims one byte longer than a whole number of quanta.
    let blanks = " ".repeat((4 - claims.to_string().len() % 3) % 3);
    let payload = claims.to_string() + &blanks;
    let header = r#"{"typ":"at+jwt","alg":"HS256"}  "#;
    assert_ne!(payload.len() % 3, 0);
    let jwt = signer.seal(header, payload.as_bytes());
    let pad = |bytes: &[u8]| {
        let text = base64(bytes);
        let missing = (4 - text.len() % 4) % 4;
        text + &"=".repeat(missing)
    };
    let padded = format!("{}.{}", pad(header.as_bytes()), pad(payload.as_bytes()));
    let signature = signer.signature(padded.as_bytes());
    let padded = format!("{padded}.{}", base64(&signature));
    let padded_signature = format!("{}.{}", jwt.rsplit_once('.').unwrap().0, {
        let signature = jwt.rsplit_once('.').unwrap().1;
        signature.to_owned() + &"=".repeat((4 - signature.len() % 4) % 4)
    });
    for (profile, strict) in [("simplejwt", false), ("plain", true), ("rfc9068", true)] {
        let profile = format!("profile = \"{profile}\"");
        let gate = Gate::start(&gateway(&upstream, &signer, &["users = \"none\"", &profile]));
        let ask = |scheme: &str, jwt: &str| {
            let call = get("/api/x").authorization(&format!("{scheme} {jwt}"));
            gate.call(&call).status
        };
        assert_eq!(ask("Bearer", &jwt), 200, "{profile}");
        for scheme in ["bearer", "BEARER", "bEaReR"] {
            assert_eq!(ask(scheme, &jwt), if strict { 200 } else { 401 }, "{profile} {scheme}");
        }
        for jwt in [&padded, &padded_signature] {
            assert_eq!(ask("Bearer", jwt), if strict { 401 } else { 200 }, "{profile} {jwt}");
        }
        assert_eq!(ask("Bearerx", &jwt), 401);
    }
}
