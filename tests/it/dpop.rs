//! Tokens that are bound to a key of their client (DPoP, RFC 9449).

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::client::{Call, Reply};
use crate::harness::h2::H2;
use crate::harness::mint::{Signer, now};
use crate::harness::pki::Pki;
use crate::harness::proofs::ProofKey;
use crate::harness::websocket::Over;
use crate::harness::{Config, Gate, Next, RecordingUpstream, Redis, get, wait_until};
use crate::jwt_auth::with_keys;
use crate::reload::reload;

const URI: &str = "http://localhost/api/x";
const PROBLEM: &str = "errors = \"problem\"\npath = \"/problem/*\"\nauthenticate = [\"jwt\"]\nupstream = \"app\"";
const ALGORITHMS: &str = "ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512";

/// What every test has: an authorization server that signs tokens, and a client.
struct Parties {
    upstream: RecordingUpstream,
    server: Signer,
    client: ProofKey,
}

impl Parties {
    fn new() -> Self {
        Self {
            upstream: RecordingUpstream::start(),
            server: Signer::new(Algorithm::ES256),
            client: ProofKey::new(Algorithm::ES256),
        }
    }

    /// A gateway that checks bindings, with these further lines for its authenticator.
    fn config(&self, lines: &str) -> Config {
        with_keys(&self.upstream, &[&self.server])
            .jwt(lines)
            .with(&format!("[[routes]]\n{PROBLEM}"))
            .log("format = \"json\"")
    }

    /// A token that is bound to the client.
    fn token(&self) -> String {
        self.server.with(&json!({ "cnf": self.client.cnf() }))
    }

    /// A request with a token and a good proof.
    fn send(&self, token: &str) -> Call {
        self.client.send(get("/api/x"), URI, token)
    }
}

fn with_proof(scheme: &str, token: &str, proof: &str) -> Call {
    get("/api/x")
        .authorization(&format!("{scheme} {token}"))
        .header("DPoP", proof)
}

/// The outcome of the last request in the log.
fn outcome(gate: &Gate, count: usize) -> (String, String) {
    let event = gate.requests(count).pop().expect("an event");
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("reason"))
}

#[test]
fn a_bound_token_is_useless_without_its_proof_also_if_it_is_cached() {
    let parties = Parties::new();
    for mode in ["accept", "require"] {
        let gate = Gate::start(&parties.config(&format!("dpop = \"{mode}\"")));
        let (bound, unbound) = (parties.token(), parties.server.access());
        let proof = |token: &str| parties.client.proof("GET", URI, token);
        // Before the token is in the cache, and after it was accepted.
        for round in 0..2 {
            let before = parties.upstream.calls();
            for (call, status) in [
                (get("/api/x").authorization(&format!("DPoP {bound}")), 401),
                (get("/api/x").bearer(&bound), 401),
                (with_proof("Bearer", &bound, &proof(&bound)), 401),
                (with_proof("DPoP", &bound, &proof(&unbound)), 401),
                (with_proof("DPoP", &bound, ""), 401),
                (with_proof("DPoP", &unbound, &proof(&unbound)), 401),
                (get("/api/x").authorization(&format!("DPoP {unbound}")), 401),
                (
                    with_proof("DPoP", &bound, &proof(&bound)).header("DPoP", proof(&bound)),
                    400,
                ),
                (
                    with_proof("DPoP", &bound, &format!("{}, {}", proof(&bound), proof(&bound))),
                    400,
                ),
            ] {
                let reply = gate.call(&call);
                assert_eq!(reply.status, status, "{mode}, round {round}: {}", reply.text());
            }
            assert_eq!(parties.upstream.calls(), before);
            assert_eq!(gate.call(&parties.send(&bound)).status, 200, "{mode}");
            assert_eq!(parties.upstream.last().header("x-user-id"), Some("42"));
            assert_eq!(parties.upstream.last().header("dpop"), None, "the proof is removed");
            let as_bearer = gate.call(&get("/api/x").bearer(&unbound)).status;
            assert_eq!(as_bearer, if mode == "accept" { 200 } else { 401 });
        }
        let lower = parties.client.proof("GET", URI, &bound);
        let plain = gate.call(&with_proof("dpop", &bound, &lower)).status;
        assert_eq!(plain, 401, "the profile simplejwt compares schemes exactly");
    }
}

#[test]
fn with_off_a_bound_token_passes_as_any_other() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"off\""));
    let call = get("/api/x")
        .bearer(&parties.token())
        .header("DPoP", "of the application");
    assert_eq!(gate.call(&call).status, 200);
    assert_eq!(parties.upstream.last().header("dpop"), Some("of the application"));
}

#[test]
fn a_confirmation_that_cannot_be_checked_is_refused() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"accept\""));
    let mut sent = 0;
    for cnf in [json!({}), json!({ "jwk": {} }), json!({ "jkt": "AA" }), json!("canary")] {
        let token = parties.server.with(&json!({ "cnf": cnf }));
        for call in [get("/api/x").bearer(&token), parties.send(&token)] {
            assert_eq!(gate.call(&call).status, 401, "{cnf}");
            sent += 1;
            assert_eq!(outcome(&gate, sent).0, "cnf_invalid", "{cnf}");
        }
    }
}

#[test]
fn each_algorithm_makes_proofs() {
    let mut parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"require\""));
    for name in ALGORITHMS.split(' ') {
        let algorithm = Algorithm::from_name(name).unwrap();
        parties.client = ProofKey::new(algorithm);
        let token = parties.token();
        assert_eq!(gate.call(&parties.send(&token)).status, 200, "{name}");
        // Another client of the same algorithm.
        let thief = ProofKey::new(algorithm);
        assert_eq!(gate.call(&thief.send(get("/api/x"), URI, &token)).status, 401, "{name}");
        // The proof names the key of the token, and another key has signed it.
        let mut forged = ProofKey::new(algorithm);
        forged.jwk = parties.client.jwk.clone();
        assert_eq!(
            gate.call(&forged.send(get("/api/x"), URI, &token)).status,
            401,
            "{name}"
        );
    }
}

#[test]
fn the_log_says_which_check_a_proof_has_failed() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"accept\"\ndpop_window = \"30s\""));
    let (token, client) = (parties.token(), &parties.client);
    let good = || ProofKey::claims("GET", URI, &token);
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        client.sign(&claims)
    };
    let header = |name: &str, value: Value| {
        let mut header = client.header();
        header[name] = value;
        client.signer.seal(&header.to_string(), good().to_string().as_bytes())
    };
    let invalid = |check: &'static str| ("dpop_proof_invalid", check);
    for (at, (proof, (expected, reason))) in [
        (with("htm", json!("POST")), invalid("htm")),
        (with("htu", json!("http://localhost/api/y")), invalid("htu")),
        (with("htu", json!("https://localhost/api/x")), invalid("htu")),
        (with("iat", json!(now() - 33)), invalid("iat")),
        (with("iat", json!(now() + 40)), invalid("iat")),
        (with("ath", json!("canary")), invalid("ath")),
        (with("jti", json!(5)), invalid("claims")),
        (header("typ", json!("JWT")), invalid("typ")),
        (header("alg", json!("none")), invalid("alg")),
        (header("alg", json!("HS256")), invalid("alg")),
        (header("jwk", json!({})), invalid("jwk")),
        (header("crit", json!([])), invalid("header")),
        ("canary".to_owned(), invalid("form")),
        (format!("{}canary", "x".repeat(9000)), invalid("size")),
        (
            {
                let mut forged = client.proof("GET", URI, &token);
                forged.replace_range(forged.len() - 8.., "AAAAAAAA");
                forged
            },
            invalid("signature"),
        ),
        (
            ProofKey::new(Algorithm::ES256).proof("GET", URI, &token),
            ("dpop_other_key", ""),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = gate.call(&with_proof("DPoP", &token, &proof));
        assert_eq!(reply.status, 401, "{reason}: {}", reply.text());
        let found = outcome(&gate, at + 1);
        assert_eq!((found.0.as_str(), found.1.as_str()), (expected, reason));
    }
    assert_eq!(gate.call(&parties.send(&token)).status, 200);
}

fn challenges(reply: &Reply) -> Vec<String> {
    reply
        .headers("www-authenticate")
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn refusals_have_the_errors_of_rfc_9449() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"accept\""));
    let (bound, unbound) = (parties.token(), parties.server.access());
    let uri = "http://localhost/problem/x";
    let algs = format!("algs=\"{ALGORITHMS}\"");
    let realm = "realm=\"api\"";
    let thief = ProofKey::new(Algorithm::ES256);
    let call = |scheme: &str, token: &str| get("/problem/x").authorization(&format!("{scheme} {token}"));
    let several = parties
        .client
        .send(get("/problem/x"), uri, &bound)
        .header("DPoP", "canary");
    for (call, status, code, error, is_of_proof) in [
        (get("/problem/x"), 401, "no_credential", None, false),
        (
            call("DPoP", &bound),
            401,
            "dpop_no_proof",
            Some("invalid_dpop_proof"),
            true,
        ),
        (several, 400, "dpop_several_proofs", Some("invalid_dpop_proof"), true),
        (
            call("DPoP", &bound).header("DPoP", "canary"),
            401,
            "dpop_proof_invalid",
            Some("invalid_dpop_proof"),
            true,
        ),
        (
            thief.send(get("/problem/x"), uri, &bound),
            401,
            "dpop_other_key",
            Some("invalid_token"),
            false,
        ),
        (
            call("Bearer", &bound),
            401,
            "dpop_bound_as_bearer",
            Some("invalid_token"),
            false,
        ),
        (
            call("DPoP", &unbound),
            401,
            "dpop_not_bound",
            Some("invalid_token"),
            false,
        ),
    ] {
        let reply = gate.call(&call);
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            reply.text()
        );
        let [bearer, dpop] = &challenges(&reply)[..] else {
            panic!("{code}: {:?}", challenges(&reply))
        };
        assert!(bearer.starts_with(&format!("Bearer {realm}")), "{bearer}");
        assert!(
            dpop.starts_with(&format!("DPoP {realm}")) && dpop.ends_with(&algs),
            "{dpop}"
        );
        let shown = error.map_or("no error".to_owned(), |error| format!("error=\"{error}\""));
        assert_eq!(dpop.contains(&shown), error.is_some(), "{code}: {dpop}");
        assert_eq!(
            bearer.contains(&shown),
            error.is_some() && !is_of_proof,
            "{code}: {bearer}"
        );
    }

    let gate = Gate::start(&parties.config("dpop = \"require\""));
    let reply = gate.call(&get("/problem/x"));
    assert_eq!(challenges(&reply), [format!("DPoP {realm}, {algs}")]);

    // As SimpleJWT answers, with a code of its own for proofs.
    for (scheme, challenge) in [
        ("[\"DPoP\", \"Bearer\"]", format!("DPoP {realm}, {algs}")),
        ("[\"Bearer\", \"DPoP\"]", format!("Bearer {realm}")),
    ] {
        let gate = Gate::start(&parties.config(&format!("dpop = \"accept\"\nscheme = {scheme}")));
        let reply = gate.call(&get("/api/x").authorization(&format!("DPoP {bound}")));
        assert_eq!((reply.status, challenges(&reply)), (401, vec![challenge.clone()]));
        assert_eq!(reply.json()["code"], "invalid_dpop_proof");
        let reply = gate.call(&get("/api/x").bearer(&bound));
        assert_eq!((reply.status, challenges(&reply)), (401, vec![challenge]));
        assert_eq!(reply.json()["code"], "token_not_valid");
        assert_eq!(reply.json()["messages"][0]["message"], "Token is invalid");
    }
}

#[test]
fn a_proof_counts_once_in_all_workers_and_across_reloads() {
    let parties = Parties::new();
    let config = parties.config("dpop = \"accept\"").server("workers = 2");
    let gate = Gate::start(&config);
    let call = parties.send(&parties.token());
    assert_eq!(gate.call(&call).status, 200);
    for _ in 0..8 {
        assert_eq!(gate.call(&call).status, 401, "over connections to any worker");
    }
    let replays = gate.metric("authgate_authentications_total{authenticator=\"jwt\",outcome=\"dpop_replayed\"}");
    assert!(replays >= 8.0, "{replays}");
    let changed = config.jwt("dpop_window = \"50s\"");
    assert!(reload(&gate, &changed));
    assert_eq!(gate.call(&call).status, 401, "after a reload");
    assert_eq!(gate.call(&parties.send(&parties.token())).status, 200);
    // A client cannot use up the proofs of another one by their `jti`.
    let other = ProofKey::new(Algorithm::ES256);
    let token = parties.server.with(&json!({ "cnf": other.cnf() }));
    let claims = |token: &str| {
        let mut claims = ProofKey::claims("GET", URI, token);
        claims["jti"] = json!("canary-shared");
        claims
    };
    let own = parties.token();
    let first = with_proof("DPoP", &token, &other.sign(&claims(&token)));
    let second = with_proof("DPoP", &own, &parties.client.sign(&claims(&own)));
    assert_eq!((gate.call(&first).status, gate.call(&second).status), (200, 200));
}

#[test]
fn gateways_with_a_common_store_accept_a_proof_once() {
    let parties = Parties::new();
    let mut redis = Redis::start();
    let config = parties
        .config("dpop = \"accept\"\ndpop_replay = \"redis\"")
        .redis(&redis);
    let (one, two) = (Gate::start(&config), Gate::start(&config));
    let token = parties.token();
    for (first, second) in [(&one, &two), (&two, &one)] {
        let call = parties.send(&token);
        assert_eq!((first.call(&call).status, second.call(&call).status), (200, 401));
        assert_eq!(first.call(&call).status, 401);
    }
    let keys = redis.run(&["KEYS", "authgate:dpop:*"]);
    let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let left: i64 = redis::from_redis_value(redis.run(&["PTTL", &keys[0]])).unwrap();
    assert!((1..=121_000).contains(&left), "{left}");
    // A refused proof is not recorded.
    let stranger = ProofKey::new(Algorithm::ES256);
    assert_eq!(one.call(&stranger.send(get("/api/x"), URI, &token)).status, 401);
    let proofs: Vec<String> = redis::from_redis_value(redis.run(&["KEYS", "authgate:dpop:*"])).unwrap();
    assert_eq!(proofs.len(), 2, "{proofs:?}");

    redis.kill();
    for _ in 0..2 {
        let reply = one.call(&parties.send(&token));
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert_eq!(
        one.call(&get("/api/x").bearer(&parties.server.access())).status,
        200,
        "it needs no store"
    );
}

#[test]
fn a_connection_to_the_store_that_was_closed_costs_no_proof() {
    let parties = Parties::new();
    let redis = Redis::start();
    let config = parties
        .config("dpop = \"accept\"\ndpop_replay = \"redis\"")
        .redis(&redis)
        .server("workers = 1");
    let gate = Gate::start(&config);
    let token = parties.token();
    assert_eq!(gate.call(&parties.send(&token)).status, 200);
    for _ in 0..3 {
        redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(gate.call(&parties.send(&token)).status, 200);
    }
}

#[test]
fn the_uri_is_the_one_that_the_client_has_requested() {
    let (parties, pki) = (Parties::new(), Pki::new());
    let https = parties.config("dpop = \"accept\"").tls(&pki, &[&["localhost"]]);
    let gate = Gate::start(&https);
    let token = parties.token();
    let send = |target: &str, uri: &str| parties.client.send(get(target), uri, &token);
    let mut h2 = H2::connect(&gate);
    for (target, uri, status) in [
        ("/api/x", "https://localhost/api/x", 200),
        ("/api/x?page=1", "https://localhost/api/x", 200),
        ("/api/x", "https://LOCALHOST:443/api/./x?page=2#top", 200),
        ("/api/%7Ex", "https://localhost/api/~x", 200),
        ("/api/x", "http://localhost/api/x", 401),
        ("/api/x", "https://localhost:8443/api/x", 401),
        ("/api/x", "https://other.example/api/x", 401),
        ("/api/x", "https://localhost/api/X", 401),
    ] {
        assert_eq!(gate.call(&send(target, uri)).status, status, "{target} {uri}");
        assert_eq!(h2.call(&send(target, uri)).status, status, "HTTP/2: {target} {uri}");
    }
    let port = send("/api/x", "https://localhost:8443/api/x").host("localhost:8443");
    assert_eq!(
        (gate.call(&port).status, h2.call(&port.clone()).status),
        (200, 401),
        "once"
    );

    // What a client says of itself counts only from a trusted proxy.
    let forwarded = |call: Call| {
        call.header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "api.example")
    };
    let public = || forwarded(send("/api/x", "https://api.example/api/x"));
    let private = || forwarded(send("/api/x", "http://localhost/api/x"));
    let direct = Gate::start(&parties.config("dpop = \"accept\""));
    assert_eq!(
        (direct.call(&public()).status, direct.call(&private()).status),
        (401, 200)
    );
    let behind = parties
        .config("dpop = \"accept\"")
        .server("trusted_proxies = [\"127.0.0.1/32\"]");
    let behind = Gate::start(&behind);
    assert_eq!(
        (behind.call(&public()).status, behind.call(&private()).status),
        (200, 401)
    );
}

#[test]
fn a_kept_credential_keeps_its_proof() {
    let parties = Parties::new();
    let config = parties.config("dpop = \"accept\"").identity("credential = \"keep\"");
    let gate = Gate::start(&config);
    let token = parties.token();
    let call = parties.send(&token);
    assert_eq!(gate.call(&call).status, 200);
    let last = parties.upstream.last();
    assert_eq!(last.header("authorization"), Some(&*format!("DPoP {token}")));
    assert_eq!(last.header("dpop").map(str::as_bytes), Some(&*call.fields[1].1));
}

#[test]
fn a_slow_upload_does_not_use_its_proof_twice() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"accept\""));
    let token = parties.token();
    let proof = parties.client.proof("POST", URI, &token);
    let mut client = gate.connect();
    client.send(format!(
        "POST /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: DPoP {token}\r\nDPoP: {proof}\r\nContent-Length: 6\r\n\r\nabc"
    ));
    std::thread::sleep(Duration::from_millis(1500));
    client.send("def");
    assert_eq!(client.reply().status, 200);
    assert_eq!(parties.upstream.calls(), 1);
}

#[test]
fn a_cached_token_needs_its_proof_as_soon_as_a_reload_asks_for_it() {
    let parties = Parties::new();
    let gate = Gate::start(&parties.config("dpop = \"off\""));
    // It is in the cache without a binding, and the cache does not outlive the change.
    let token = parties.token();
    assert_eq!(gate.call(&get("/api/x").bearer(&token)).status, 200);
    assert!(reload(&gate, &parties.config("dpop = \"accept\"")));
    wait_until("the new rules are in force", Duration::from_secs(10), || {
        gate.call(&get("/api/x").bearer(&token)).status == 401
    });
    assert_eq!(gate.call(&parties.send(&token)).status, 200);
}

#[test]
fn a_websocket_needs_a_proof_in_both_versions() {
    let parties = Parties::new();
    parties.upstream.answers(|mut exchange| {
        exchange.switch("");
        Next::Close
    });
    let gate = Gate::start(&parties.config("dpop = \"accept\""));
    let token = parties.token();
    let scheme = format!("DPoP {token}");
    for over in Over::BOTH {
        // A client makes the proof before it knows the version.
        for (method, is_good) in [("GET", true), ("CONNECT", over == Over::Http2), ("POST", false)] {
            let proof = parties.client.proof(method, URI, &token);
            let reply = over.open(&gate, "/api/x", &[("authorization", &scheme), ("dpop", &proof)]);
            let expected = if is_good { over.opened() } else { 401 };
            assert_eq!(reply.status, expected, "{over:?} {method}");
        }
        assert_eq!(
            over.open(&gate, "/api/x", &[("authorization", &scheme)]).status,
            401,
            "{over:?}"
        );
    }
}
