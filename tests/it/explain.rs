//! `jwt inspect` and `token show`: a credential explained check by check, and the answer that a client would get.

use authgate::auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::mint::{Signer, claims_with, now};
use crate::harness::program::{authgate, authgate_reading};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get};

/// A gateway with both authenticators on Redis, and the credentials of ada.
struct Stage {
    redis: Redis,
    upstream: RecordingUpstream,
    signer: Signer,
    gate: Gate,
}

impl Stage {
    fn start(more: impl FnOnce(Config) -> Config) -> Self {
        let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
        let signer = Signer::new(Algorithm::ES256).kid("k1");
        let config = config()
            .tokens(&redis)
            .file("jwt.key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("jwt.key")))
            .jwt("users = \"redis\"")
            .jwt("revocation = \"redis\"")
            .jwt("audience = \"shop\"")
            .app(&upstream)
            .route("/api/*", "authenticate = [\"token\", \"jwt\"]")
            .route(
                "/staff",
                "authenticate = [\"jwt\"]\nrequire = { groups = { any = [\"root\"] } }",
            )
            .route(
                "/token-staff",
                "authenticate = [\"token\"]\nrequire = { scopes = { any = [\"orders:write\"] } }",
            )
            .public("/open");
        let gate = Gate::start(&more(config));
        Self {
            redis,
            upstream,
            signer,
            gate,
        }
    }

    fn inspect(&self, token: &str, words: &[&str]) -> Value {
        let mut all = vec!["jwt", "inspect", "-", "--json"];
        all.extend(words);
        let ended = authgate_reading(self.gate.folder.path(), &all, format!("{token}\n").as_bytes());
        serde_json::from_str(&ended.good()).unwrap()
    }

    fn jwt(&self, more: &Value) -> String {
        let mut claims = claims_with(&json!({ "aud": "shop" }));
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.signer.sign(&claims)
    }
}

/// Name and state of each check of the first authenticator.
fn states(told: &Value) -> Vec<(String, String)> {
    let checks = told["authenticators"][0]["checks"].as_array().unwrap();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| (text(check, "check"), text(check, "state")))
        .collect()
}

fn named(told: &Value, state: &str) -> Vec<String> {
    let of = states(told).into_iter().filter(|(_, own)| own == state);
    of.map(|(name, _)| name).collect()
}

#[test]
fn a_good_token_passes_every_check_that_is_asked() {
    let stage = Stage::start(|config| config);
    let told = stage.inspect(&stage.jwt(&json!({})), &["--route", "/api/x"]);
    assert_eq!(told["authenticators"][0]["accepted"], true, "{told}");
    assert_eq!(told["authenticators"][0]["key"], "k1");
    assert_eq!(
        named(&told, "not asked"),
        ["header type", "lifetime", "issuer", "required claims", "password"]
    );
    assert_eq!(named(&told, "passed").len(), 22, "{told}");
    let request = &told["request"];
    assert_eq!(
        (&request["route"], &request["forwarded"], &request["upstream"]),
        (&json!("/api/*"), &json!(true), &json!("app"))
    );
    assert_eq!(
        request["identity"],
        json!([["x-user-id", "42"], ["x-user-name", "ada"]])
    );
    assert_eq!(stage.upstream.calls(), 0, "nothing is sent");
}

#[test]
fn the_first_failure_is_named_with_what_was_found_and_nothing_behind_it_was_looked_at() {
    let stage = Stage::start(|config| config);
    let stranger = Signer::new(Algorithm::ES256).kid("k1");
    let other = Signer::new(Algorithm::ES256).kid("k2");
    let cases = [
        ("a.b".to_owned(), "form", None),
        (stage.jwt(&json!({})).replace("ey", "fy"), "header", None),
        (other.access(), "key id", Some("k2")),
        (
            Signer::new(Algorithm::RS256).kid("k1").access(),
            "algorithm",
            Some("its alg is \"RS256\"; the keys are for: ES256"),
        ),
        (stranger.access(), "signature", None),
        (stage.jwt(&json!({ "iat": now() + 500 })), "issued at", Some("it is ")),
        (stage.jwt(&json!({ "nbf": now() + 500 })), "not before", Some("it is ")),
        (stage.jwt(&json!({ "exp": 5 })), "expiry", Some("its exp is 5")),
        (stage.jwt(&json!({ "aud": ["x"] })), "audience", Some("accepted: shop")),
        (stage.jwt(&json!({ "sub": 5 })), "subject and id", None),
        (
            stage.jwt(&json!({ "token_type": "refresh" })),
            "type",
            Some("its token_type is \"refresh\"; accepted: access"),
        ),
        (stage.jwt(&json!({ "user_id": "9" })), "user exists", Some("\"9\"")),
    ];
    let order: Vec<String> = states(&stage.inspect("x", &[]))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for (token, check, found) in cases {
        let told = stage.inspect(&token, &["--route", "/api/x"]);
        let states = states(&told);
        let at = order.iter().position(|name| name == check).unwrap();
        assert_eq!(states[at].1, "failed", "{check}: {told}");
        assert!(
            states[..at]
                .iter()
                .all(|(_, state)| state == "passed" || state == "not asked")
        );
        assert!(
            states[at + 1..]
                .iter()
                .all(|(_, state)| state == "not reached" || state == "not asked")
        );
        let said = told["authenticators"][0]["found"].as_str().unwrap_or_default();
        assert!(found.is_none_or(|found| said.contains(found)), "{check}: {said}");
        // The answer is the one that a client gets.
        let reply = stage.gate.call(&get("/api/x").bearer(&token));
        assert_eq!(told["request"]["status"], reply.status, "{check}");
        assert_eq!(told["request"]["body"], reply.json(), "{check}");
        assert_eq!(
            told["request"]["headers"],
            json!([["www-authenticate", reply.header("www-authenticate")]]),
            "{check}"
        );
    }
    assert_eq!(stage.upstream.calls(), 0);
}

#[test]
fn stores_are_asked_and_an_outage_is_no_refusal() {
    let mut stage = Stage::start(|config| config);
    let token = stage.jwt(&json!({ "jti": "canary-jti" }));
    stage.redis.set("revoked:jti:canary-jti", "1");
    let told = stage.inspect(&token, &[]);
    assert_eq!(named(&told, "failed"), ["revocation"]);
    assert_eq!(told["request"], Value::Null, "no route, no request");
    stage.redis.kill();
    let told = stage.inspect(&token, &["--route", "/api/x"]);
    assert_eq!(named(&told, "unknown"), ["revocation"], "{told}");
    assert!(named(&told, "not reached").contains(&"has expiry".to_owned()));
    assert_eq!(told["request"]["status"], 503);
}

#[test]
fn a_route_says_who_is_asked_and_what_becomes_of_the_request() {
    let stage = Stage::start(|config| config);
    let token = stage.jwt(&json!({}));
    let request = |words: &[&str]| stage.inspect(&token, words)["request"].clone();
    let staff = request(&["--route", "/staff"]);
    assert_eq!(
        (&staff["status"], &staff["reason"]),
        (&json!(403), &json!("missing: group \"root\""))
    );
    let text = authgate(
        stage.gate.folder.path(),
        &["jwt", "inspect", &token, "--route", "/staff"],
    )
    .good();
    assert!(text.contains("missing: group \"root\""), "{text}");
    assert!(!staff["body"].to_string().contains("root"), "{staff}");
    let ambiguous = request(&["--route", "/open/..%2fstaff"]);
    assert_eq!(ambiguous["status"], 400);
    assert!(
        ambiguous["reason"]
            .as_str()
            .unwrap()
            .contains("read as /staff for route /staff"),
        "{ambiguous}"
    );
    let shown = authgate(
        stage.gate.folder.path(),
        &["token", "show", "canary-ada", "--route", "/token-staff", "--json"],
    );
    let shown: Value = serde_json::from_str(&shown.good()).unwrap();
    assert_eq!(
        (&shown["request"]["status"], &shown["request"]["reason"]),
        (&json!(403), &json!("missing: scope \"orders:write\""))
    );
    assert_eq!(request(&["--route", "/nowhere"])["status"], 404);
    assert_eq!(request(&["--route", "/nowhere"])["route"], Value::Null);
    assert_eq!(request(&["--route", "/open"])["forwarded"], true);
    assert_eq!(
        request(&["--route", "https://any.example/api/x?y=1", "--method", "POST"])["forwarded"],
        true
    );
    // Nobody reads a JWT on a public route, so nothing is explained there.
    assert_eq!(
        stage.inspect(&token, &["--route", "/open"])["authenticators"],
        json!([])
    );
    let ended = authgate(stage.gate.folder.path(), &["jwt", "inspect", &token, "--route", "api"]);
    assert!(ended.code == 2 && ended.err.contains("/api/x"), "{ended:?}");
}

#[test]
fn nothing_that_is_told_is_a_secret() {
    let stage = Stage::start(|config| config.jwt("check_revoke_token = true"));
    let token = stage.jwt(&json!({ "hash_password": "CANARYMD5" }));
    let signature = token.rsplit('.').next().unwrap();
    for words in [
        &["--route", "/api/x"][..],
        &["--json"],
        &["--route", "/api/x", "--json"],
    ] {
        let mut all = vec!["jwt", "inspect", &token];
        all.extend(words);
        let ended = authgate(stage.gate.folder.path(), &all);
        let said = format!("{}{}", ended.out, ended.err);
        assert!(!said.contains("CANARYMD5") && !said.contains(signature), "{said}");
        assert!(said.contains("password"), "{said}");
    }
    for words in [&[][..], &["--route", "/api/x"], &["--route", "/api/x", "--json"]] {
        for key in ["canary-ada", "canary-nobody"] {
            let mut all = vec!["token", "show", key];
            all.extend(words);
            let ended = authgate(stage.gate.folder.path(), &all);
            let said = format!("{}{}", ended.out, ended.err);
            assert!(!said.contains("canary") && said.contains("sha256:"), "{said}");
        }
    }
}

#[test]
fn an_opaque_token_is_shown_with_the_answer_that_its_holder_gets() {
    let stage = Stage::start(|config| config);
    let folder = stage.gate.folder.path();
    let show = |key: &str, words: &[&str]| {
        let mut all = vec!["token", "show", "-", "--json"];
        all.extend(words);
        let ended = authgate_reading(folder, &all, key.as_bytes());
        serde_json::from_str::<Value>(&ended.good()).unwrap()
    };
    let states = |told: &Value| -> Vec<String> {
        let checks = told["checks"].as_array().unwrap();
        checks
            .iter()
            .map(|check| check["state"].as_str().unwrap().to_owned())
            .collect()
    };
    let told = show("canary-ada", &["--route", "/api/x"]);
    assert_eq!(states(&told), ["passed"; 5]);
    assert_eq!(
        (&told["accepted"], &told["request"]["forwarded"]),
        (&json!(true), &json!(true))
    );
    stage
        .redis
        .put_token("canary-late", &json!({ "user": "42", "expires": now() - 5 }));
    stage.redis.put_token("canary-lost", &json!({ "user": "9" }));
    for (key, expected) in [
        (
            "canary-late",
            ["passed", "failed", "not reached", "not reached", "not reached"],
        ),
        ("canary-lost", ["passed", "passed", "passed", "failed", "not reached"]),
    ] {
        let told = show(key, &["--route", "/api/x"]);
        assert_eq!(states(&told), expected, "{key}");
        let reply = stage.gate.call(&get("/api/x").token(key));
        assert_eq!(told["request"]["body"], reply.json(), "{key}");
        assert_eq!(told["request"]["status"], reply.status, "{key}");
    }
    let told = show("canary-nobody", &["--route", "/api/x"]);
    assert_eq!(
        (&told["known"], &told["request"]["status"]),
        (&json!(false), &json!(401))
    );
    let digest = format!("sha256:{}", Redis::token_key("canary-ada").replace("token:", ""));
    let ended = authgate(folder, &["token", "show", &digest, "--route", "/api/x"]);
    assert!(ended.code == 2 && ended.err.contains("key itself"), "{ended:?}");
    let ended = authgate(folder, &["token", "show", "canary-nobody"]);
    assert_eq!(ended.code, 1, "{ended:?}");
}

/// Every cause of a refusal for an identity that cannot be sent has words of its own, in `jwt inspect` and in the log.
#[test]
fn a_claim_that_cannot_be_sent_upstream_is_the_one_that_is_named() {
    let (upstream, signer) = (RecordingUpstream::start(), Signer::new(Algorithm::HS256));
    let gate = Gate::start(
        &config()
            .file("key", signer.file())
            .jwt(&format!("keys = [{}]", signer.key("key")))
            .jwt("users = \"none\"")
            .identity(
                "headers = { X-User-Id = \"id\", X-Role = \"claims.role\", X-Mail = \"email\", X-Groups = \"groups\" }",
            )
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]"),
    );
    let good = json!({ "token_type": "access", "user_id": "42", "jti": "canary", "exp": now() + 300 });
    let named_user = "Token contained no recognizable user identification";
    for (name, value, check, words, detail) in [
        (
            "user_id",
            Some(json!({ "id": 1 })),
            "names a user",
            "user_id is an object",
            Some(named_user),
        ),
        (
            "user_id",
            Some(json!(["42"])),
            "names a user",
            "user_id is a list",
            Some(named_user),
        ),
        (
            "user_id",
            Some(json!(null)),
            "names a user",
            "user_id is null",
            Some(named_user),
        ),
        (
            "user_id",
            Some(json!(true)),
            "names a user",
            "user_id is a boolean",
            Some(named_user),
        ),
        (
            "user_id",
            Some(json!(1.5)),
            "names a user",
            "user_id is a number, but not an integer",
            Some(named_user),
        ),
        (
            "user_id",
            Some(json!(" 42")),
            "names a user",
            "user_id must be an id of 1 to 255 bytes",
            Some(named_user),
        ),
        ("user_id", None, "names a user", "user_id is absent", Some(named_user)),
        (
            "username",
            Some(json!({ "a": 1 })),
            "names a user",
            "username is an object",
            Some(named_user),
        ),
        (
            "username",
            Some(json!("a\u{1}")),
            "names a user",
            "username has control characters",
            Some(named_user),
        ),
        (
            "role",
            Some(json!({ "a": 1 })),
            "identity fields",
            "claims.role is an object",
            None,
        ),
        (
            "role",
            Some(json!([["a"]])),
            "identity fields",
            "claims.role is a list with a list in it",
            None,
        ),
        (
            "role",
            Some(json!("a\nb")),
            "identity fields",
            "claims.role has control characters",
            None,
        ),
        (
            "email",
            Some(json!(" a")),
            "identity fields",
            "email has control characters or outer blanks",
            None,
        ),
        (
            "groups",
            Some(json!(["a\u{7f}"])),
            "identity fields",
            "groups has control characters",
            None,
        ),
    ] {
        let mut claims = good.clone();
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        let jwt = signer.sign(&claims);
        let reply = gate.call(&get("/api/x").bearer(&jwt));
        assert_eq!(reply.status, 401, "{claims}");
        let expected = detail.unwrap_or("Given token not valid for any token type");
        assert_eq!(reply.json()["detail"], expected, "{claims}");
        gate.logged(&["\"reason\":\"", words]);
        let ended = authgate_reading(gate.folder.path(), &["jwt", "inspect", "-", "--json"], jwt.as_bytes());
        let told: Value = serde_json::from_str(&ended.good()).unwrap();
        assert_eq!(named(&told, "failed"), [check], "{claims}");
        let found = told["authenticators"][0]["found"].as_str().unwrap();
        assert!(found.starts_with(words), "{words}: {found}");
    }
}
