//! `jwks.url` and `discovery`: keys that an identity provider publishes, and changes without notice.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::mint::{Signer, now};
use crate::harness::pki::Pki;
use crate::harness::scripted_provider::{Hold, Script, ScriptedProvider};
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};
use crate::reload::reload;

const KEYS: &str = "/keys";
const METADATA: &str = "/.well-known/openid-configuration";
/// The shortest intervals that the configuration accepts.
const FAST: &str = "refresh = \"1s\", cooldown = \"1s\"";
/// No fetch but the first within a test.
const SLOW: &str = "refresh = \"1h\", cooldown = \"1h\"";
/// How long something may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn signer(kid: &str) -> Signer {
    Signer::new(Algorithm::EdDSA).kid(kid)
}

fn set(signers: &[&Signer]) -> Value {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    json!({ "keys": keys })
}

fn publish(provider: &ScriptedProvider, signers: &[&Signer]) {
    provider.serves(KEYS, Script::json(&set(signers)));
}

/// A token of this provider for user 42.
fn token(provider: &ScriptedProvider, signer: &Signer) -> String {
    token_of(&provider.url(""), signer)
}

fn token_of(issuer: &str, signer: &Signer) -> String {
    let claims = json!({ "iss": issuer, "aud": "api", "sub": "42", "exp": now() + 600, "iat": now() });
    signer.sign(&claims)
}

/// `[authenticators.idp]` with keys at a URL, these intervals, and these further lines.
fn at_url(provider: &ScriptedProvider, intervals: &str, lines: &str) -> String {
    let (issuer, keys) = (provider.url(""), provider.url(KEYS));
    format!(
        "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\nalgorithms = [\"EdDSA\", \"RS256\"]\nissuer = \"{issuer}\"\n\
         audience = \"api\"\njwks = {{ url = \"{keys}\", {intervals} }}\n{lines}\n"
    )
}

fn with(tables: &str, upstream: &RecordingUpstream) -> Config {
    let config = config().tables(tables).app(upstream);
    config.route("/api/*", "authenticate = [\"idp\"]").public("/public/*")
}

fn ask(gate: &Gate, token: &str) -> Reply {
    gate.call(&get("/api/x").bearer(token))
}

fn status(gate: &Gate, token: &str) -> u16 {
    ask(gate, token).status
}

/// `key_sets` of `/status.json`.
fn key_sets(gate: &Gate) -> Vec<Value> {
    let status = gate.probe("/status.json").json();
    status["key_sets"].as_array().expect("a list").clone()
}

fn error(gate: &Gate) -> String {
    key_sets(gate)[0]["error"].as_str().unwrap_or_default().to_owned()
}

fn fetches(gate: &Gate, outcome: &str) -> f64 {
    let set = &key_sets(gate)[0];
    let source = set["source"].as_str().expect("a source");
    gate.metric(&format!(
        "authgate_jwks_fetches_total{{authenticator=\"idp\",source=\"{source}\",outcome=\"{outcome}\"}}"
    ))
}

/// Longer than the cooldown of `FAST`, so that the next unknown key causes a fetch.
fn cool_down() {
    thread::sleep(Duration::from_millis(1100));
}

#[test]
fn keys_are_found_by_url_and_by_the_metadata_of_the_issuer() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let (issuer, keys) = (provider.url(""), provider.url(KEYS));
    provider.serves(METADATA, Script::json(&json!({ "issuer": issuer, "jwks_uri": keys })));
    let by_url = at_url(&provider, SLOW, "");
    let discovered = by_url.replace(
        &format!("jwks = {{ url = \"{keys}\", {SLOW} }}"),
        &format!("discovery = \"{issuer}\"\njwks = {{ {SLOW} }}"),
    );
    for (tables, source) in [(by_url, &keys), (discovered, &issuer)] {
        let gate = Gate::start(&with(&tables, &upstream));
        let good = token(&provider, &key);
        assert_eq!(status(&gate, &good), 200, "{tables}");
        assert_eq!(upstream.last().header("x-user-id"), Some("42"));
        // Neither another issuer nor another application.
        let other = token_of("https://other.example", &key);
        assert_eq!(status(&gate, &other), 401);
        let for_other = key.sign(&json!({ "iss": issuer, "aud": "other", "sub": "42", "exp": now() + 600 }));
        assert_eq!(status(&gate, &for_other), 401);
        let [set] = &key_sets(&gate)[..] else { panic!("one set") };
        assert_eq!((&set["source"], &set["authenticator"]), (&json!(source), &json!("idp")));
        assert_eq!(set["keys"], json!([{ "kid": "a", "algorithm": "EdDSA" }]));
        assert_eq!((&set["error"], &set["failures"]), (&Value::Null, &json!(0)));
        assert!(
            set["last_success"].is_string() && set["next_fetch"].is_string(),
            "{set}"
        );
        assert_eq!(fetches(&gate, "ok"), 1.0);
        let labels = format!("authenticator=\"idp\",source=\"{source}\"");
        gate.metric_becomes(&format!("authgate_jwks_keys{{{labels}}}"), 1.0);
        gate.metric_reaches(&format!("authgate_jwks_age_seconds{{{labels}}}"), 0.0);
        gate.logged(&["the keys were fetched", "a (EdDSA)"]);
    }
    assert_eq!((provider.count(KEYS), provider.count(METADATA)), (2, 1));
}

#[test]
fn a_start_does_not_wait_for_keys_and_routes_answer_503_until_they_are_there() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    provider.goes_down();
    let gate = Gate::spawn(&with(&at_url(&provider, FAST, ""), &upstream));
    wait_until("the failure is reported", TIMEOUT, || {
        error(&gate).contains("no connection")
    });
    let ready = gate.probe("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains(&provider.url(KEYS)), "{}", ready.text());
    assert_eq!(gate.get("/public/x").status, 200, "other routes serve");
    let reply = ask(&gate, &token(&provider, &key));
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(
        reply.text(),
        "{\"detail\":\"Service temporarily unavailable, try again later.\"}"
    );
    let line = gate.logged(&["keys_missing"]);
    assert!(line.contains("there are no keys of"), "{line}");
    publish(&provider, &[&key]);
    provider.comes_back();
    wait_until("the gateway is ready", TIMEOUT, || gate.probe("/readyz").status == 200);
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
}

#[test]
fn a_token_with_a_new_key_waits_for_one_fetch_and_unknown_keys_cause_no_more() {
    let (provider, upstream, old, new) = (
        ScriptedProvider::start(),
        RecordingUpstream::start(),
        signer("old"),
        signer("new"),
    );
    publish(&provider, &[&old]);
    // Only unknown keys cause fetches, one a second.
    let intervals = "refresh = \"1h\", cooldown = \"1s\"";
    let config = with(&at_url(&provider, intervals, ""), &upstream).server("workers = 2");
    let gate = Gate::start(&config);
    assert_eq!(status(&gate, &token(&provider, &old)), 200);
    assert_eq!(provider.count(KEYS), 1);

    cool_down();
    let hold = Hold::default();
    provider.serves(KEYS, Script::json(&set(&[&old, &new])).hold(&hold));
    // Each on a connection of its own, so that both workers have some.
    let ask_all = |tokens: &[String]| -> Vec<u16> {
        thread::scope(|scope| {
            let asking: Vec<_> = tokens
                .iter()
                .map(|token| scope.spawn(|| status(&gate, token)))
                .collect();
            provider.wait_for(KEYS, 2);
            // All of them wait for this fetch.
            wait_until("all requests wait", TIMEOUT, || {
                gate.metric("authgate_requests_in_flight") >= tokens.len() as f64
            });
            hold.release();
            asking.into_iter().map(|one| one.join().expect("an answer")).collect()
        })
    };
    let unknown = |at: usize| token(&provider, &signer(&format!("unknown-{at}")));
    let mut tokens: Vec<String> = (0..30).map(unknown).collect();
    tokens.push(token(&provider, &new));
    let mut expected = vec![401; 30];
    expected.push(200);
    assert_eq!(ask_all(&tokens), expected);
    assert_eq!(provider.count(KEYS), 2, "one fetch for all of them");
    // Keys that are known need no fetch, and are not held up by others.
    assert_eq!(status(&gate, &token(&provider, &old)), 200);

    // Without a `kid` no key can be found, so nothing is fetched.
    cool_down();
    let nameless = Signer::new(Algorithm::EdDSA);
    assert_eq!(status(&gate, &token(&provider, &nameless)), 401);
    assert_eq!(provider.count(KEYS), 2);
}

#[test]
fn within_the_cooldown_unknown_keys_are_refused_without_a_fetch() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let gate = Gate::start(&with(&at_url(&provider, SLOW, ""), &upstream));
    for at in 0..50 {
        let unknown = token(&provider, &signer(&format!("unknown-{at}")));
        let reply = ask(&gate, &unknown);
        assert_eq!(reply.status, 401);
    }
    assert_eq!(provider.count(KEYS), 1);
    // A forged signature under a known `kid` causes no fetch either.
    assert_eq!(status(&gate, &token(&provider, &signer("a"))), 401);
    assert_eq!(provider.count(KEYS), 1);
}

#[test]
fn a_key_that_leaves_the_set_verifies_no_more_also_not_from_the_cache() {
    let (provider, upstream, old, new) = (
        ScriptedProvider::start(),
        RecordingUpstream::start(),
        signer("old"),
        signer("new"),
    );
    publish(&provider, &[&old, &new]);
    let gate = Gate::start(&with(&at_url(&provider, FAST, ""), &upstream));
    let (by_old, by_new) = (token(&provider, &old), token(&provider, &new));
    for _ in 0..3 {
        assert_eq!((status(&gate, &by_old), status(&gate, &by_new)), (200, 200));
    }
    publish(&provider, &[&new]);
    let before = provider.count(KEYS);
    wait_until("the key is gone", TIMEOUT, || status(&gate, &by_old) == 401);
    assert!(provider.count(KEYS) > before);
    assert_eq!(status(&gate, &by_new), 200);
    // The same `kid` with other material is another key.
    let other = signer("new");
    let by_other = token(&provider, &other);
    assert_eq!(status(&gate, &by_other), 401);
    publish(&provider, &[&other]);
    wait_until("the new material is used", TIMEOUT, || status(&gate, &by_other) == 200);
    assert_eq!(status(&gate, &by_new), 401);
    // And the old one comes back.
    publish(&provider, &[&old]);
    wait_until("the old key is back", TIMEOUT, || status(&gate, &by_old) == 200);
}

#[test]
fn a_provider_that_fails_in_any_way_leaves_the_present_keys_in_use() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let intervals = format!("{FAST}, timeout = \"500ms\"");
    let gate = Gate::start(&with(&at_url(&provider, &intervals, ""), &upstream));
    let good = token(&provider, &key);
    let uncached = || token(&provider, &key);
    let weak = json!({ "kty": "RSA", "kid": "w", "n": "AQAB", "e": "AQAB" });
    let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" });
    let large = json!({ "keys": [], "padding": "x".repeat(2 << 20) });
    for (script, words) in [
        (
            Script::json(&set(&[&key])).delay(Duration::from_secs(2)),
            "no complete response in time",
        ),
        (Script::new(500, "{}"), "status 500"),
        (Script::new(404, ""), "status 404"),
        (
            Script::new(302, "").field("Location", &provider.url("/elsewhere")),
            "redirect",
        ),
        (Script::json(&large), "longer than"),
        (Script::json(&set(&[&key])).cut_after(20), "connection was lost"),
        (Script::raw("SSH-2.0-hello\r\n"), "not valid HTTP"),
        (Script::new(200, "<html>"), "not a JWK Set"),
        (Script::new(200, "[]"), "not a JWK Set"),
        (Script::json(&json!({ "keys": {} })), "not a JWK Set"),
        (Script::json(&json!({ "keys": [] })), "the set is empty"),
        (Script::json(&json!({ "keys": [5] })), "no usable key"),
        (Script::json(&json!({ "keys": [weak] })), "17 bits"),
        (Script::json(&json!({ "keys": [secret] })), "a shared secret"),
    ] {
        provider.serves(KEYS, script);
        wait_until(words, TIMEOUT, || error(&gate).contains(words));
        assert_eq!(
            (status(&gate, &good), status(&gate, &uncached())),
            (200, 200),
            "{words}"
        );
        // Whether an unknown key is one of the provider's cannot be found out now.
        assert_eq!(status(&gate, &token(&provider, &signer("unknown"))), 503, "{words}");
        let set = &key_sets(&gate)[0];
        assert_eq!(set["keys"], json!([{ "kid": "a", "algorithm": "EdDSA" }]), "{words}");
    }
    assert_eq!(provider.count("/elsewhere"), 0);
    gate.logged(&["keys_fetch_failed"]);
    publish(&provider, &[&key]);
    wait_until("the provider works again", TIMEOUT, || error(&gate).is_empty());
    assert_eq!(status(&gate, &uncached()), 200);
}

#[test]
fn metadata_that_cannot_be_used_are_a_failed_fetch() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let (issuer, keys) = (provider.url(""), provider.url(KEYS));
    let tables = at_url(&provider, "", "").replace(
        &format!("jwks = {{ url = \"{keys}\",  }}"),
        &format!("discovery = \"{issuer}\"\njwks = {{ {FAST} }}"),
    );
    let gate = Gate::spawn(&with(&tables, &upstream));
    let document = |issuer: &str, keys: &str| Script::json(&json!({ "issuer": issuer, "jwks_uri": keys }));
    for (script, words) in [
        (Script::new(404, ""), "neither"),
        (Script::new(200, "<html>"), "not a JSON object"),
        (document(&format!("{issuer}/"), &keys), "byte for byte"),
        (document(&issuer, "http://keys.example/jwks"), "is http"),
        (document(&issuer, "/keys"), "not an absolute URL"),
        (Script::json(&json!({ "issuer": issuer })), "no `jwks_uri`"),
    ] {
        provider.serves(METADATA, script);
        wait_until(words, TIMEOUT, || error(&gate).contains(words));
        assert_eq!(status(&gate, &token(&provider, &key)), 503, "{words}");
    }
    assert_eq!(provider.count(KEYS), 0);
    provider.serves(METADATA, document(&issuer, &keys));
    wait_until("the metadata are used", TIMEOUT, || {
        status(&gate, &token(&provider, &key)) == 200
    });
    // The keys move.
    provider.serves("/moved", Script::json(&set(&[&key])));
    provider.serves(METADATA, document(&issuer, &provider.url("/moved")));
    provider.wait_for("/moved", 1);
}

#[test]
fn keys_are_forgotten_after_max_stale_and_then_requests_get_503_and_never_401() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let intervals = format!("{FAST}, max_stale = \"2s\"");
    let gate = Gate::start(&with(&at_url(&provider, &intervals, ""), &upstream));
    let cached = token(&provider, &key);
    assert_eq!(status(&gate, &cached), 200);
    provider.goes_down();
    let mut answers = Vec::new();
    wait_until("the keys are too old", TIMEOUT, || {
        let answer = status(&gate, &cached);
        answers.push(answer);
        answer == 503
    });
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    assert_eq!(status(&gate, &token(&provider, &signer("unknown"))), 503);
    gate.logged(&["the keys are older than max_stale"]);
    gate.logged(&["keys_too_old"]);
    assert_eq!(gate.probe("/readyz").status, 200, "it was ready once");
    provider.comes_back();
    wait_until("the keys are there again", TIMEOUT, || status(&gate, &cached) == 200);
}

#[test]
fn a_set_that_is_partly_wrong_serves_its_good_keys() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    let (mut sealing, mut private) = (signer("enc"), signer("private"));
    sealing.jwk["use"] = json!("enc");
    private.jwk["d"] = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let later = json!({ "kty": "later", "kid": "l" });
    let keys = json!({ "keys": [later, sealing.jwk, private.jwk, key.jwk, { "kty": "oct", "k": "AA" }] });
    provider.serves(KEYS, Script::json(&keys));
    let gate = Gate::start(&with(&at_url(&provider, FAST, ""), &upstream));
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
    for refused in [&sealing, &private] {
        assert_eq!(status(&gate, &token(&provider, refused)), 401);
    }
    let set = &key_sets(&gate)[0];
    assert_eq!(set["keys"], json!([{ "kid": "a", "algorithm": "EdDSA" }]));
    let left_out: Vec<&str> = set["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let words = [
        "keys[0] (kid \"l\"): its type \"later\"",
        "keys[1] (kid \"enc\"): for \"enc\"",
        "keys[2] (kid \"private\"): a published private key",
        "keys[4]: a shared secret among published keys",
    ];
    assert_eq!(left_out.len(), words.len(), "{left_out:?}");
    for (found, words) in left_out.iter().zip(words) {
        assert!(found.starts_with(words), "{found}");
        gate.logged(&["a key of the set is not used", &words.replace('"', "\\\"")]);
    }
    // Not again at each fetch.
    let count = provider.count(KEYS);
    provider.wait_for(KEYS, count + 2);
    assert_eq!(gate.log().matches("a key of the set is not used").count(), words.len());
}

#[test]
fn certificates_of_the_provider_are_verified() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (provider, upstream, key) = (ScriptedProvider::https(&pki), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let config = |ca: &Arc<Pki>| {
        let tables = at_url(&provider, &format!("{FAST}, ca = \"ca.pem\""), "");
        with(&tables, &upstream).file("ca.pem", ca.root_pem())
    };
    let gate = Gate::start(&config(&pki));
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
    let gate = Gate::spawn(&config(&other));
    wait_until("the certificate is refused", TIMEOUT, || {
        error(&gate).contains("TLS failed")
    });
    assert!(error(&gate).contains("`ca`"), "{}", error(&gate));
    assert_eq!(status(&gate, &token(&provider, &key)), 503);
}

#[test]
fn a_reload_keeps_the_keys_where_their_settings_are_the_same() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    publish(&provider, &[&key]);
    let gate = Gate::start(&with(&at_url(&provider, SLOW, ""), &upstream));
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
    provider.goes_down();
    // Another rule of the same authenticator.
    assert!(reload(
        &gate,
        &with(&at_url(&provider, SLOW, "leeway = \"5s\""), &upstream)
    ));
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
    assert_eq!(provider.count(KEYS), 1);
    // Another URL has other keys: none yet.
    let moved = at_url(&provider, SLOW, "").replace("/keys\"", "/moved\"");
    assert!(reload(&gate, &with(&moved, &upstream)));
    assert_eq!(status(&gate, &token(&provider, &key)), 503);
    // Its keys were dropped with it.
    assert!(reload(&gate, &with(&at_url(&provider, SLOW, ""), &upstream)));
    assert_eq!(status(&gate, &token(&provider, &key)), 503);
}

#[test]
fn an_issuer_that_is_down_changes_nothing_for_the_others() {
    let (good, bad) = (ScriptedProvider::start(), ScriptedProvider::start());
    let (upstream, key, other) = (RecordingUpstream::start(), signer("same"), signer("same"));
    publish(&good, &[&key]);
    publish(&bad, &[&other]);
    let issuer = |provider: &ScriptedProvider, namespace: &str| {
        format!(
            "[[authenticators.idp.issuers]]\nissuer = \"{}\"\naudience = \"api\"\nnamespace = \"{namespace}\"\n\
             algorithms = [\"EdDSA\"]\njwks = {{ url = \"{}\", {FAST}, max_stale = \"2s\" }}\n",
            provider.url(""),
            provider.url(KEYS)
        )
    };
    let tables = format!(
        "[authenticators.idp]\nkind = \"jwt\"\nprofile = \"plain\"\n{}{}",
        issuer(&good, "one:"),
        issuer(&bad, "two:")
    );
    let gate = Gate::start(&with(&tables, &upstream));
    for (provider, key, id) in [(&good, &key, "one:42"), (&bad, &other, "two:42")] {
        assert_eq!(status(&gate, &token(provider, key)), 200);
        assert_eq!(upstream.last().header("x-user-id"), Some(id));
    }
    // The key of one issuer verifies nothing of the other, although the `kid` is the same.
    assert_eq!(status(&gate, &token(&good, &other)), 401);
    assert_eq!(status(&gate, &token(&bad, &key)), 401);
    bad.goes_down();
    wait_until("the keys of one are too old", TIMEOUT, || {
        status(&gate, &token(&bad, &other)) == 503
    });
    for _ in 0..20 {
        assert_eq!(status(&gate, &token(&good, &key)), 200);
    }
    let before = (good.count(KEYS), bad.count(KEYS));
    assert_eq!(status(&gate, &token_of("https://stranger.example", &key)), 401);
    assert!(good.count(KEYS) <= before.0 + 1 && bad.count(KEYS) == before.1);
}

#[test]
fn a_huge_set_is_read_in_part_and_does_not_fill_the_log() {
    let (provider, upstream, key) = (ScriptedProvider::start(), RecordingUpstream::start(), signer("a"));
    let mut huge = set(&[&key]);
    let keys = huge["keys"].as_array_mut().expect("a list");
    keys.resize(50_000, json!({}));
    provider.serves(KEYS, Script::json(&huge));
    let gate = Gate::start(&with(&at_url(&provider, SLOW, ""), &upstream));
    assert_eq!(status(&gate, &token(&provider, &key)), 200);
    let left_out = key_sets(&gate)[0]["left_out"].as_array().expect("a list").len();
    assert_eq!(left_out, 256);
    gate.logged(&["49744 keys are not read"]);
    wait_until("each key that is left out is logged", Duration::from_secs(10), || {
        gate.log().matches("a key of the set is not used").count() == left_out
    });
}
