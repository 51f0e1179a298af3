//! `jwt inspect` and `token show`: a credential explained check by check, and the answer that a client would get.

use authgate_app::app::dry_run::{Credential, DryRun};
use authgate_auth::jwt::keys::Algorithm;
use authgate_core::secret::Secret;
use authgate_dataplane::proxy::explain::ExplainedOutcome;
use http::Request;
use http::request::Builder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::mint::{Signer, claims_with, now};
use crate::harness::program::{authgate, authgate_with_input};
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get};

/// A gateway with both authenticators on Redis, and ada's credentials.
struct Fixture {
    redis: Redis,
    upstream: RecordingUpstream,
    signer: Signer,
    gate: Gate,
}

impl Fixture {
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
        let ended = authgate_with_input(self.gate.folder.path(), &all, format!("{token}\n").as_bytes());
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
fn states(report: &Value) -> Vec<(String, String)> {
    let checks = report["authenticators"][0]["checks"].as_array().unwrap();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| (text(check, "check"), text(check, "state")))
        .collect()
}

fn checks_in_state(report: &Value, state: &str) -> Vec<String> {
    let of = states(report).into_iter().filter(|(_, own)| own == state);
    of.map(|(name, _)| name).collect()
}

#[test]
fn a_valid_token_passes_every_applicable_check() {
    let fixture = Fixture::start(|config| config);
    let report = fixture.inspect(&fixture.jwt(&json!({})), &["--route", "/api/x"]);
    assert_eq!(report["authenticators"][0]["accepted"], true, "{report}");
    assert_eq!(report["authenticators"][0]["key"], "k1");
    assert_eq!(
        checks_in_state(&report, "not asked"),
        [
            "header type",
            "lifetime",
            "issuer",
            "required claims",
            "password",
            "confirmation"
        ]
    );
    assert_eq!(checks_in_state(&report, "passed").len(), 22, "{report}");
    let request = &report["request"];
    assert_eq!(
        (&request["route"], &request["forwarded"], &request["upstream"]),
        (&json!("/api/*"), &json!(true), &json!("app"))
    );
    assert_eq!(
        request["identity"],
        json!([["x-user-id", "42"], ["x-user-name", "ada"]])
    );
    assert_eq!(fixture.upstream.calls(), 0, "nothing is sent");
}

#[test]
fn the_first_failed_check_is_shown_with_the_value_found_and_later_checks_are_not_reached() {
    let fixture = Fixture::start(|config| config);
    let stranger = Signer::new(Algorithm::ES256).kid("k1");
    let other = Signer::new(Algorithm::ES256).kid("k2");
    let cases = [
        ("a.b".to_owned(), "form", None),
        (fixture.jwt(&json!({})).replace("ey", "fy"), "header", None),
        (other.access(), "key id", Some("k2")),
        (
            Signer::new(Algorithm::RS256).kid("k1").access(),
            "algorithm",
            Some("its alg is \"RS256\"; the keys are for: ES256"),
        ),
        (stranger.access(), "signature", None),
        (fixture.jwt(&json!({ "iat": now() + 500 })), "issued at", Some("it is ")),
        (
            fixture.jwt(&json!({ "nbf": now() + 500 })),
            "not before",
            Some("it is "),
        ),
        (fixture.jwt(&json!({ "exp": 5 })), "expiry", Some("its exp is 5")),
        (
            fixture.jwt(&json!({ "aud": ["x"] })),
            "audience",
            Some("accepted: shop"),
        ),
        (fixture.jwt(&json!({ "sub": 5 })), "subject and id", None),
        (
            fixture.jwt(&json!({ "token_type": "refresh" })),
            "type",
            Some("its token_type is \"refresh\"; accepted: access"),
        ),
        (fixture.jwt(&json!({ "user_id": "9" })), "user exists", Some("\"9\"")),
    ];
    let order: Vec<String> = states(&fixture.inspect("x", &[]))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for (token, check, found) in cases {
        let report = fixture.inspect(&token, &["--route", "/api/x"]);
        let states = states(&report);
        let at = order.iter().position(|name| name == check).unwrap();
        assert_eq!(states[at].1, "failed", "{check}: {report}");
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
        let text = report["authenticators"][0]["found"].as_str().unwrap_or_default();
        assert!(found.is_none_or(|found| text.contains(found)), "{check}: {text}");
        // The answer is the one that a client gets.
        let reply = fixture.gate.call(&get("/api/x").bearer(&token));
        assert_eq!(report["request"]["status"], reply.status, "{check}");
        assert_eq!(report["request"]["body"], reply.json(), "{check}");
        assert_eq!(
            report["request"]["headers"],
            json!([["www-authenticate", reply.header("www-authenticate")]]),
            "{check}"
        );
    }
    assert_eq!(fixture.upstream.calls(), 0);
}

#[test]
fn stores_are_queried_and_an_outage_is_not_a_refusal() {
    let mut fixture = Fixture::start(|config| config);
    let token = fixture.jwt(&json!({ "jti": "canary-jti" }));
    fixture.redis.set("revoked:jti:canary-jti", "1");
    let report = fixture.inspect(&token, &[]);
    assert_eq!(checks_in_state(&report, "failed"), ["revocation"]);
    assert_eq!(report["request"], Value::Null, "no route, no request");
    fixture.redis.kill();
    let report = fixture.inspect(&token, &["--route", "/api/x"]);
    assert_eq!(checks_in_state(&report, "unknown"), ["revocation"], "{report}");
    assert!(checks_in_state(&report, "not reached").contains(&"has expiry".to_owned()));
    assert_eq!(report["request"]["status"], 503);
}

#[test]
fn route_shows_the_authenticators_and_the_response() {
    let fixture = Fixture::start(|config| config);
    let token = fixture.jwt(&json!({}));
    let request = |words: &[&str]| fixture.inspect(&token, words)["request"].clone();
    let staff = request(&["--route", "/staff"]);
    assert_eq!(
        (&staff["status"], &staff["reason"]),
        (&json!(403), &json!("missing: group \"root\""))
    );
    let text = authgate(
        fixture.gate.folder.path(),
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
        fixture.gate.folder.path(),
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
    // A public route has no authenticator, so nothing is explained there.
    assert_eq!(
        fixture.inspect(&token, &["--route", "/open"])["authenticators"],
        json!([])
    );
    let ended = authgate(
        fixture.gate.folder.path(),
        &["jwt", "inspect", &token, "--route", "api"],
    );
    assert!(ended.code == 2 && ended.err.contains("/api/x"), "{ended:?}");
}

#[test]
fn explanations_contain_no_secret() {
    let fixture = Fixture::start(|config| config.jwt("check_revoke_token = true"));
    let token = fixture.jwt(&json!({ "hash_password": "CANARYMD5" }));
    let signature = token.rsplit('.').next().unwrap();
    for words in [
        &["--route", "/api/x"][..],
        &["--json"],
        &["--route", "/api/x", "--json"],
    ] {
        let mut all = vec!["jwt", "inspect", &token];
        all.extend(words);
        let ended = authgate(fixture.gate.folder.path(), &all);
        let text = format!("{}{}", ended.out, ended.err);
        assert!(!text.contains("CANARYMD5") && !text.contains(signature), "{text}");
        assert!(text.contains("password"), "{text}");
    }
    for words in [&[][..], &["--route", "/api/x"], &["--route", "/api/x", "--json"]] {
        for key in ["canary-ada", "canary-unknown"] {
            let mut all = vec!["token", "show", key];
            all.extend(words);
            let ended = authgate(fixture.gate.folder.path(), &all);
            let text = format!("{}{}", ended.out, ended.err);
            assert!(!text.contains("canary") && text.contains("sha256:"), "{text}");
        }
    }
}

#[test]
fn token_show_prints_the_response_that_a_client_would_get() {
    let fixture = Fixture::start(|config| config);
    let folder = fixture.gate.folder.path();
    let show = |key: &str, words: &[&str]| {
        let mut all = vec!["token", "show", "-", "--json"];
        all.extend(words);
        let ended = authgate_with_input(folder, &all, key.as_bytes());
        serde_json::from_str::<Value>(&ended.good()).unwrap()
    };
    let states = |report: &Value| -> Vec<String> {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .map(|check| check["state"].as_str().unwrap().to_owned())
            .collect()
    };
    let report = show("canary-ada", &["--route", "/api/x"]);
    assert_eq!(states(&report), ["passed"; 5]);
    assert_eq!(
        (&report["accepted"], &report["request"]["forwarded"]),
        (&json!(true), &json!(true))
    );
    fixture
        .redis
        .put_token("canary-late", &json!({ "user": "42", "expires": now() - 5 }));
    fixture.redis.put_token("canary-lost", &json!({ "user": "9" }));
    for (key, expected) in [
        (
            "canary-late",
            ["passed", "failed", "not reached", "not reached", "not reached"],
        ),
        ("canary-lost", ["passed", "passed", "passed", "failed", "not reached"]),
    ] {
        let report = show(key, &["--route", "/api/x"]);
        assert_eq!(states(&report), expected, "{key}");
        let reply = fixture.gate.call(&get("/api/x").token(key));
        assert_eq!(report["request"]["body"], reply.json(), "{key}");
        assert_eq!(report["request"]["status"], reply.status, "{key}");
    }
    let report = show("canary-unknown", &["--route", "/api/x"]);
    assert_eq!(
        (&report["known"], &report["request"]["status"]),
        (&json!(false), &json!(401))
    );
    let digest = format!("sha256:{}", Redis::token_key("canary-ada").replace("token:", ""));
    let ended = authgate(folder, &["token", "show", &digest, "--route", "/api/x"]);
    assert!(ended.code == 2 && ended.err.contains("key itself"), "{ended:?}");
    let ended = authgate(folder, &["token", "show", "canary-unknown"]);
    assert_eq!(ended.code, 1, "{ended:?}");
}

/// Every cause of a refusal for an identity that cannot be sent has its own text, in `jwt inspect` and in the log.
#[test]
fn a_claim_that_cannot_be_sent_upstream_is_named() {
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
        let ended = authgate_with_input(gate.folder.path(), &["jwt", "inspect", "-", "--json"], jwt.as_bytes());
        let report: Value = serde_json::from_str(&ended.good()).unwrap();
        assert_eq!(checks_in_state(&report, "failed"), [check], "{claims}");
        let found = report["authenticators"][0]["found"].as_str().unwrap();
        assert!(found.starts_with(words), "{words}: {found}");
    }
}

/// A dry run admits a request as the gateway does, so it covers preflights and the credentials of WebSockets.
#[test]
fn a_dry_run_admits_preflights_and_websockets_as_the_gateway_does() {
    const PAGE: &str = "https://app.example.com";
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let browsers = format!(
        "cors = {{ origins = [\"{PAGE}\"] }}\nwebsocket = {{ origins = [\"{PAGE}\"], subprotocol = true, scheme = \"Token\" }}"
    );
    let config = config()
        .tokens(&redis)
        .app(&upstream)
        .route("/api/*", &format!("authenticate = [\"token\"]\n{browsers}"));
    let folder = TempDir::new().unwrap();
    config.write(folder.path());
    let explain = |request: Builder| {
        let loaded = authgate_app::config::load(&folder.path().join("gateway.toml")).unwrap();
        let key = Secret::new("canary-unknown".to_owned());
        let request = request.uri("/api/x").header("Host", "localhost").header("Origin", PAGE);
        let dry_run = DryRun::new(loaded.config).unwrap();
        let report = dry_run.explain(Credential::Token(&key), Some(request.body(()).unwrap()));
        match report.unwrap().request.unwrap().0.outcome {
            ExplainedOutcome::Forwarded { .. } => 200,
            ExplainedOutcome::Answered { response, .. } => {
                let readable = response.headers().get("access-control-allow-origin");
                assert_eq!(readable.unwrap(), PAGE, "{response:?}");
                response.status().as_u16()
            }
        }
    };
    let preflight = || {
        Request::builder()
            .method("OPTIONS")
            .header("Access-Control-Request-Method", "PUT")
    };
    assert_eq!(explain(preflight()), 200);
    assert_eq!(explain(preflight().header("Connection", "origin")), 401);
    let websocket = || {
        Request::builder()
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    assert_eq!(explain(websocket()), 401);
    let word = ("Sec-WebSocket-Protocol", "authgate.bearer.canary-ada");
    // The subprotocol is a second credential. In other requests it is not a credential.
    assert_eq!(explain(websocket().header(word.0, word.1)), 400);
    assert_eq!(explain(Request::builder().header(word.0, word.1)), 401);
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_jwt_whose_keys_cannot_be_fetched_or_used_is_explained_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let (provider, upstream) = (ScriptedProvider::start(), RecordingUpstream::start());
    let (used, left_out) = (
        Signer::new(Algorithm::ES256),
        Signer::new(Algorithm::EdDSA).kid("other"),
    );
    let inspect = || {
        let url = provider.url("/jwks");
        let config = config()
            .jwt("users = \"none\"")
            .jwt("issuer = \"https://idp.example.com\"")
            .jwt("audience = \"shop\"")
            .jwt("algorithms = [\"ES256\"]")
            .jwt(&format!("jwks = {{ url = \"{url}\" }}"))
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]");
        config.write(folder.path());
        authgate(folder.path(), &["jwt", "inspect", &left_out.access()]).good()
    };
    provider.serves("/jwks", Script::new(500, ""));
    let text = inspect();
    assert!(
        text.contains("there are no keys of") && text.contains("status 500"),
        "{text}"
    );
    let set = json!({ "keys": [used.kid("used").jwk, left_out.jwk] });
    provider.serves("/jwks", Script::json(&set));
    let text = inspect();
    assert!(
        text.contains("FAILED") && text.contains("(kid \"other\"): an Ed25519 key"),
        "{text}"
    );
}
