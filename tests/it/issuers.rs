//! Several issuers in one authenticator: `iss` selects one before any key is tried, and its namespace keeps its users apart.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::{Signer, claims_with};
use crate::harness::program::{authgate, authgate_with_input};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::jwt_auth::{refused, status};
use crate::reload::reload;

const INVALID: &str = "Token is invalid";

/// An issuer of tests: its name, and a key with a `kid` that all issuers have.
struct Issuer {
    name: String,
    signer: Signer,
}

impl Issuer {
    fn new(name: &str, algorithm: Algorithm) -> Self {
        Self {
            name: format!("https://{name}.test"),
            signer: Signer::new(algorithm).kid("k"),
        }
    }

    /// A token for its user 42, with other claims.
    fn token(&self, more: &Value) -> String {
        self.named(&self.name, more)
    }

    /// The same, which says that it is of another issuer.
    fn named(&self, name: &str, more: &Value) -> String {
        let mut claims = claims_with(&json!({ "iss": name, "sub": "42" }));
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.signer.sign(&claims)
    }
}

/// The claims' profile, and the cache that most gateways have.
fn base(upstream: &RecordingUpstream) -> Config {
    config()
        .jwt("profile = \"plain\"")
        .jwt("cache = { entries = 1000, negative_entries = 1000 }")
        .identity("headers = { X-User-Id = \"id\", X-User-Name = \"username\" }")
        .app(upstream)
        .route("/api/*", "authenticate = [\"jwt\"]")
}

/// A table for an issuer, with these further lines.
fn with_issuer(config: Config, at: usize, issuer: &Issuer, lines: &str) -> Config {
    let file = format!("issuer{at}.key");
    let (name, key) = (&issuer.name, issuer.signer.key(&file));
    config.file(&file, issuer.signer.file()).tables(&format!(
        "[[authenticators.jwt.issuers]]\nissuer = \"{name}\"\nkeys = [{key}]\n{lines}\n"
    ))
}

/// Two issuers: one without a namespace, and one with.
fn two(config: Config, one: &Issuer, other: &Issuer) -> Config {
    with_issuer(with_issuer(config, 0, one, ""), 1, other, "namespace = \"b:\"")
}

fn pair() -> (Issuer, Issuer) {
    (Issuer::new("a", Algorithm::ES256), Issuer::new("b", Algorithm::ES256))
}

#[test]
fn iss_selects_the_issuer_and_only_its_own_keys_are_tried() {
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let gate = Gate::start(&two(base(&upstream), &one, &other));
    for (issuer, id) in [(&one, "42"), (&other, "b:42")] {
        // Twice: the second time from the cache.
        let token = issuer.token(&json!({}));
        for _ in 0..2 {
            assert_eq!(status(&gate, &token), 200);
            assert_eq!(upstream.last().header("x-user-id"), Some(id));
        }
    }
    // Both keys have one `kid` and one algorithm, and each issuer names the other.
    for token in [one.named(&other.name, &json!({})), other.named(&one.name, &json!({}))] {
        for _ in 0..2 {
            refused(&gate, &upstream, &token, INVALID);
        }
    }
    let logged: Vec<Value> = gate.requests(8);
    let ids: Vec<&str> = logged.iter().filter_map(|event| event["user.id"].as_str()).collect();
    assert_eq!(
        ids,
        ["42", "42", "b:42", "b:42"],
        "a token that was not verified names no user"
    );
}

#[test]
fn an_iss_that_no_table_names_is_refused_under_every_key() {
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let gate = Gate::start(&two(base(&upstream), &one, &other));
    let name = &one.name;
    for strange in [
        json!(null),
        json!(5),
        json!(true),
        json!({ "iss": name }),
        json!([name]),
        json!([name, other.name]),
        json!(""),
        json!("https://c.test"),
        json!(format!("{name}/")),
        json!(format!(" {name}")),
        json!(name.to_uppercase()),
        json!(format!("{name}\u{0}")),
        json!(format!("{name}\u{200b}")),
    ] {
        refused(&gate, &upstream, &one.token(&json!({ "iss": strange })), INVALID);
    }
    let without = claims_with(&json!({ "sub": "42" }));
    refused(&gate, &upstream, &one.signer.sign(&without), INVALID);
    // Two members of one name, however they are written: no reader can choose another one than the gateway.
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let body = r#""sub":"42","exp":9999999999"#;
    let (a, b) = (&one.name, &other.name);
    for payload in [
        format!(r#"{{"iss":"{a}","iss":"{b}",{body}}}"#),
        format!(r#"{{"iss":"{b}","iss":"{a}",{body}}}"#),
        format!(r#"{{"iss":"{a}","iss":"{a}",{body}}}"#),
        format!(r#"{{"iss":"{a}","\u0069ss":"{b}",{body}}}"#),
        format!(r#"{{"\u0069\u0073\u0073":"{b}","iss":"{a}",{body}}}"#),
        format!(r#"{{"iss":"{a}",{body}}}{{"iss":"{b}"}}"#),
        format!(r#"[{{"iss":"{a}",{body}}}]"#),
        format!(r#"{{"iss":"{a}",{body},"x":{{"y":1,"y":2}}}}"#),
        format!("{{\"iss\":\"{a}\",{body},}}"),
        format!("\u{feff}{{\"iss\":\"{a}\",{body}}}"),
    ] {
        for issuer in [&one, &other] {
            let token = issuer.signer.seal(header, payload.as_bytes());
            refused(&gate, &upstream, &token, INVALID);
        }
    }
    // Escapes are not another name.
    let escaped = format!(r#"{{"\u0069ss":"{}",{body}}}"#, a.replace('/', "\\/"));
    assert_eq!(status(&gate, &one.signer.seal(header, escaped.as_bytes())), 200);
    refused(
        &gate,
        &upstream,
        &other.signer.seal(header, escaped.as_bytes()),
        INVALID,
    );
}

#[test]
fn five_hundred_issuers_are_told_apart() {
    let upstream = RecordingUpstream::start();
    let issuers: Vec<Issuer> = (0..500)
        .map(|at| Issuer::new(&format!("tenant-{at}"), Algorithm::HS256))
        .collect();
    let tables = issuers
        .iter()
        .enumerate()
        .fold(base(&upstream), |config, (at, issuer)| {
            with_issuer(config, at, issuer, &format!("namespace = \"{at}:\""))
        });
    let gate = Gate::start(&tables);
    for (at, issuer) in issuers.iter().enumerate() {
        assert_eq!(status(&gate, &issuer.token(&json!({}))), 200, "{at}");
        assert_eq!(upstream.last().header("x-user-id"), Some(format!("{at}:42").as_str()));
        let next = &issuers[(at + 1) % issuers.len()];
        refused(&gate, &upstream, &issuer.named(&next.name, &json!({})), INVALID);
    }
}

#[test]
fn users_of_two_issuers_with_one_subject_are_two_users_in_the_store_and_in_revocations() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    redis.put_user("b:42", &json!({ "username": "ben" }));
    let (one, other) = pair();
    let config = with_issuer(
        base(&upstream).redis(&redis).jwt("revocation = \"redis\""),
        0,
        &one,
        "users = \"redis\"",
    );
    let gate = Gate::start(&with_issuer(config, 1, &other, "users = \"redis\"\nnamespace = \"b:\""));
    let (ada, ben) = (one.token(&json!({})), other.token(&json!({})));
    let names = || {
        [&ada, &ben].map(|token| {
            let reply = gate.call(&get("/api/x").bearer(token));
            (reply.status == 200).then(|| {
                let last = upstream.last();
                let text = |name: &str| last.header(name).unwrap().to_owned();
                (text("x-user-id"), text("x-user-name"))
            })
        })
    };
    let (is_ada, is_ben) = (("42".into(), "ada".into()), ("b:42".into(), "ben".into()));
    assert_eq!(names(), [Some(is_ada.clone()), Some(is_ben)]);
    // Users without a record of their own namespace do not exist.
    let only_here = other.token(&json!({ "sub": "7" }));
    redis.put_user("7", &json!({}));
    assert_eq!(status(&gate, &only_here), 401);

    let revoked = authgate(gate.folder.path(), &["revoke", "--user", "b:42"]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    wait_until("the revocation is in force", Duration::from_secs(10), || {
        names() == [Some(is_ada.clone()), None]
    });
    refused(&gate, &upstream, &ben, "Token is blacklisted");
}

#[test]
fn a_revoked_key_or_token_id_is_revoked_for_all_issuers() {
    let (redis, upstream) = (Redis::start(), RecordingUpstream::start());
    let (one, other) = pair();
    let config = base(&upstream).redis(&redis).jwt("revocation = \"redis\"");
    let config = with_issuer(config, 0, &one, "jti_claim = \"jti\"");
    let gate = Gate::start(&with_issuer(
        config,
        1,
        &other,
        "jti_claim = \"jti\"\nnamespace = \"b:\"",
    ));
    let tokens = |jti: &str| [&one, &other].map(|issuer| issuer.token(&json!({ "jti": jti })));
    let (first, second) = (tokens("canary-1"), tokens("canary-2"));
    let statuses = |tokens: &[String; 2]| tokens.each_ref().map(|token| status(&gate, token));
    assert_eq!((statuses(&first), statuses(&second)), ([200, 200], [200, 200]));
    redis.set("revoked:jti:canary-1", "1");
    wait_until("the revocation is in force", Duration::from_secs(10), || {
        statuses(&first) == [401, 401]
    });
    assert_eq!(statuses(&second), [200, 200]);
    redis.set("revoked:kid:k", "1");
    wait_until("the revocation is in force", Duration::from_secs(10), || {
        statuses(&second) == [401, 401]
    });
}

#[test]
fn no_subject_of_one_issuer_is_a_user_of_another() {
    let (redis, upstream) = (Redis::start(), RecordingUpstream::start());
    let (one, other) = pair();
    let third = Issuer::new("c", Algorithm::ES256);
    let config = two(base(&upstream).redis(&redis), &one, &other);
    let by_name = "namespace = \"c:\"\nusers = \"redis\"\nuser_id_field = \"username\"";
    let gate = Gate::start(&with_issuer(config, 2, &third, by_name));
    // A subject of the issuer without a namespace that begins with the namespace of another one.
    for sub in ["b:42", "b:", "c:ada", "c:"] {
        let reply = gate.call(&get("/api/x").bearer(&one.token(&json!({ "sub": sub }))));
        assert_eq!((reply.status, upstream.calls()), (401, 0), "{sub}");
    }
    for sub in ["b", "B:42", "ab:42", ":b:42"] {
        assert_eq!(status(&gate, &one.token(&json!({ "sub": sub }))), 200, "{sub}");
        assert_eq!(upstream.last().header("x-user-id"), Some(sub));
    }
    // What is no id alone is none behind a namespace, and both together are at most 255 bytes.
    for sub in ["", " ", " 42", "42 ", "4\n2", &"x".repeat(254)] {
        let token = other.token(&json!({ "sub": sub }));
        assert_eq!(status(&gate, &token), 401, "{sub:?}");
    }
    assert_eq!(status(&gate, &other.token(&json!({ "sub": "x".repeat(253) }))), 200);
    // A username is looked up in the namespace too.
    redis.put_user("1", &json!({ "username": "ada" }));
    redis.put_user("2", &json!({ "username": "c:ben" }));
    assert_eq!(status(&gate, &third.token(&json!({ "sub": "ada" }))), 401);
    assert_eq!(status(&gate, &third.token(&json!({ "sub": "ben" }))), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("2"));
}

#[test]
fn rules_of_an_issuer_do_not_apply_to_another() {
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let config = with_issuer(
        base(&upstream),
        0,
        &one,
        "audience = \"api\"\ntoken_bytes = \"512B\"\nuser_id_claim = \"oid\"",
    );
    let gate = Gate::start(&with_issuer(config, 1, &other, "namespace = \"b:\"\nleeway = \"5m\""));
    let for_api = json!({ "aud": "api", "oid": "7" });
    assert_eq!(status(&gate, &one.token(&for_api)), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("7"));
    refused(&gate, &upstream, &one.token(&json!({ "oid": "7" })), INVALID);
    assert_eq!(status(&gate, &other.token(&json!({}))), 200);
    let long = json!({ "aud": "api", "oid": "7", "text": "x".repeat(400) });
    refused(&gate, &upstream, &one.token(&long), INVALID);
    assert_eq!(status(&gate, &other.token(&long)), 200);
    let expired = json!({ "exp": crate::harness::mint::now() - 60, "aud": "api", "oid": "7" });
    refused(&gate, &upstream, &one.token(&expired), "Token is expired");
    assert_eq!(status(&gate, &other.token(&expired)), 200);
}

#[test]
fn a_reload_that_removes_an_issuer_ends_its_tokens_and_no_others() {
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let both = two(base(&upstream), &one, &other);
    let gate = Gate::start(&both);
    let tokens = [&one, &other].map(|issuer| issuer.token(&json!({})));
    let statuses = || tokens.each_ref().map(|token| status(&gate, token));
    assert_eq!(statuses(), [200, 200]);
    assert!(reload(&gate, &with_issuer(base(&upstream), 0, &one, "")));
    assert_eq!(statuses(), [200, 401]);
    assert!(reload(&gate, &both));
    assert_eq!(statuses(), [200, 200]);
    // Each under the name of the other one: the key of a token is there, but not for its issuer.
    let (swapped_one, swapped_other) = (
        Issuer {
            name: other.name.clone(),
            signer: Signer { ..one.signer },
        },
        Issuer {
            name: one.name.clone(),
            signer: Signer { ..other.signer },
        },
    );
    assert!(reload(&gate, &two(base(&upstream), &swapped_one, &swapped_other)));
    assert_eq!(statuses(), [401, 401]);
}

#[test]
fn inspect_names_the_issuer_and_the_order_of_its_checks() {
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let gate = Gate::start(&two(base(&upstream), &one, &other));
    let inspect = |token: &str| {
        let ended = authgate_with_input(gate.folder.path(), &["jwt", "inspect", "-", "--json"], token.as_bytes());
        let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        report["authenticators"][0].clone()
    };
    let report = inspect(&other.token(&json!({})));
    assert_eq!(
        (&report["accepted"], &report["issuer"], &report["key"]),
        (&json!(true), &json!("https://b.test"), &json!("k"))
    );
    let unknown = inspect(&one.named("https://c.test", &json!({})));
    assert_eq!(
        (&unknown["accepted"], &unknown["issuer"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(
        unknown["found"],
        "its iss is \"https://c.test\"; accepted: https://a.test, https://b.test"
    );
    let state = |name: &str| {
        let checks = unknown["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == name).unwrap()["state"].clone()
    };
    assert_eq!(
        ["claims", "issuer", "key id", "signature", "audience"].map(state),
        ["passed", "failed", "not reached", "not reached", "not reached"].map(Value::from)
    );
    let strange = inspect(&one.named(&other.name, &json!({})));
    assert_eq!(
        (&strange["issuer"], &strange["key"]),
        (&json!("https://b.test"), &Value::Null)
    );
    assert_eq!(strange["verdict"], "refused, jwt_invalid");

    let text = authgate(gate.folder.path(), &["jwt", "inspect", &other.token(&json!({}))]);
    assert!(text.out.contains("issuer https://b.test"), "{text:?}");
}

#[test]
fn the_scheme_of_bound_tokens_is_only_that_of_issuers_with_proofs() {
    const KEY: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let upstream = RecordingUpstream::start();
    let (one, other) = pair();
    let config = with_issuer(base(&upstream), 0, &one, "dpop = \"off\"");
    let gate = Gate::start(&with_issuer(config, 1, &other, "namespace = \"b:\"\ndpop = \"accept\""));
    let bound = json!({ "cnf": { "jkt": KEY } });
    let statuses = |token: &str| {
        // Twice, so that the second one is from the cache.
        let sent = |scheme: &str| {
            gate.call(&get("/api/x").authorization(&format!("{scheme} {token}")))
                .status
        };
        ["Bearer", "Bearer", "DPoP", "DPoP"].map(sent)
    };
    // The issuer without proofs: `cnf` is not read, and nothing is accepted under the scheme of proofs.
    for claims in [&json!({}), &bound, &json!({ "cnf": "canary" })] {
        assert_eq!(statuses(&one.token(claims)), [200, 200, 401, 401], "{claims}");
    }
    assert_eq!(statuses(&other.token(&json!({}))), [200, 200, 401, 401]);
    assert_eq!(statuses(&other.token(&bound)), [401; 4]);
}
