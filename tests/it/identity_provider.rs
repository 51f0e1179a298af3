//! A real identity provider: the certified `oidc-provider` issues tokens of every kind, and the gateway accepts them.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::mint::base64;
use crate::harness::oidc_provider::{AUDIENCE, OidcProvider};
use crate::harness::pki::Pki;
use crate::harness::proofs::ProofKey;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

pub const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];
pub const JWKS: &str = "/jwks";
pub const INTROSPECTION: &str = "/token/introspection";
const TOKEN: &str = "/token";

/// How long something may take on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A proof for the request for a token, which does not exist yet.
pub fn token_proof(key: &ProofKey, provider: &OidcProvider) -> String {
    let mut claims = ProofKey::claims("POST", &provider.url(TOKEN), "");
    claims.as_object_mut().unwrap().remove("ath");
    key.sign(&claims)
}

fn hash(bytes: &[u8]) -> String {
    base64(digest(&SHA256, bytes))
}

/// The hash of a certificate in PEM, as `x5t#S256` has it.
fn certificate_hash((chain, _): &(String, String)) -> String {
    hash(&CertificateDer::from_pem_slice(chain.as_bytes()).unwrap())
}

/// The claims of a token, which jsonwebtoken verifies with the set of the provider.
fn verified(provider: &OidcProvider, token: &str) -> Value {
    let header = decode_header(token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let set: JwkSet = serde_json::from_value(provider.get(JWKS)).unwrap();
    let key = set.find(header.kid.as_deref().unwrap()).unwrap();
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&[&provider.issuer]);
    rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let key = DecodingKey::from_jwk(key).unwrap();
    decode::<Value>(token, &key, &rules).unwrap().claims
}

fn introspected(provider: &OidcProvider, token: &str) -> Value {
    let reply = provider.post(INTROSPECTION, "gateway", &format!("token={token}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// `[authenticators.opaque]`: tokens of the provider that it is asked about, with these further lines.
pub fn opaque(provider: &OidcProvider, lines: &str) -> String {
    format!(
        "[authenticators.opaque]\nkind = \"introspection\"\nform = \"opaque\"\nuser_id_claim = \"client_id\"\n\
         discovery = {issuer:?}\nissuer = {issuer:?}\naudience = {AUDIENCE:?}\ntimeout = \"20s\"\n\
         client = {{ id = \"gateway\", secret = \"canary-gateway-secret\" }}\n{lines}\n",
        issuer = provider.issuer
    )
}

/// `[authenticators.jwt]`: JWTs of the provider. The further lines say where its keys are.
pub fn jwt(provider: &OidcProvider, lines: &str) -> String {
    format!(
        "[authenticators.jwt]\nkind = \"jwt\"\nform = \"jwt\"\nprofile = \"rfc9068\"\nalgorithms = {ALGORITHMS:?}\n\
         issuer = {:?}\naudience = {AUDIENCE:?}\n{lines}\n",
        provider.issuer
    )
}

/// Keys that the gateway does not fetch.
pub const FILE: &str = "jwks = { file = \"jwks.json\" }";

/// Adds a route of its own for each of these authenticators, and one for all of them that requires a scope.
pub fn with_routes(config: Config, upstream: &RecordingUpstream, authenticators: &[&str]) -> Config {
    let identity = "headers = { X-Id = \"id\", X-Scopes = \"scopes\", X-Authenticator = \"authenticator\" }";
    let mut config = config.app(upstream).identity(identity);
    for name in authenticators {
        config = config.route(&format!("/{name}/*"), &format!("authenticate = [{name:?}]"));
    }
    let all = format!("authenticate = {authenticators:?}\nrequire = {{ scopes = {{ all = [\"read\"] }} }}");
    config.route("/all/*", &all)
}

/// The gateway accepts the token, and the upstream receives the identity.
pub fn accepts(gate: &Gate, upstream: &RecordingUpstream, token: &str, authenticator: &str) {
    let reply = gate.call(&get("/all/x").bearer(token));
    assert_eq!(reply.status, 200, "{authenticator}: {}\n{}", reply.text(), gate.log());
    let sent = upstream.last();
    for (name, value) in [
        ("x-id", "shop"),
        ("x-scopes", "read"),
        ("x-authenticator", authenticator),
    ] {
        assert_eq!(sent.header(name), Some(value), "{name}");
    }
}

#[test]
fn opaque_tokens_are_introspected_once_and_jwts_never() {
    let Some(provider) = OidcProvider::start() else { return };
    let upstream = RecordingUpstream::start();
    let cache = "cache = { ttl = \"600s\", negative_ttl = \"0s\" }";
    let config = config()
        .tables(&opaque(&provider, cache))
        .tables(&jwt(&provider, FILE))
        .file("jwks.json", provider.get(JWKS).to_string());
    let gate = Arc::new(Gate::start(&with_routes(config, &upstream, &["jwt", "opaque"])));
    // Several clients at once, each with several requests.
    let token = provider.token("opaque");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (gate, token) = (Arc::clone(&gate), token.clone());
            std::thread::spawn(move || {
                let mut conn = gate.connect();
                for _ in 0..10 {
                    assert_eq!(conn.call(&get("/all/x").bearer(&token)).status, 200);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    accepts(&gate, &upstream, &token, "opaque");
    assert_eq!(provider.count(INTROSPECTION), 1);
    for algorithm in ALGORITHMS {
        accepts(&gate, &upstream, &provider.token(algorithm), "jwt");
    }
    assert_eq!(provider.count(INTROSPECTION), 1);
    // A token that was revoked before the gateway saw it.
    let revoked = provider.token("opaque");
    provider.post("/token/revocation", "shop", &format!("token={revoked}"));
    assert_eq!(gate.call(&get("/all/x").bearer(&revoked)).status, 401);
    assert_eq!(provider.count(INTROSPECTION), 2);
}

#[test]
fn an_outage_of_the_introspecting_provider_is_503_for_unknown_tokens_alone() {
    let Some(provider) = OidcProvider::start() else { return };
    let upstream = RecordingUpstream::start();
    let cache = "cache = { ttl = \"600s\", negative_ttl = \"0s\" }";
    let config = config().tables(&opaque(&provider, cache));
    let gate = Gate::start(&with_routes(config, &upstream, &["opaque"]));
    let (known, unknown) = (provider.token("opaque"), provider.token("opaque"));
    accepts(&gate, &upstream, &known, "opaque");
    provider.goes_down();
    accepts(&gate, &upstream, &known, "opaque");
    let reply = gate.call(&get("/all/x").bearer(&unknown));
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
    provider.comes_back();
    wait_until("the provider answers again", TIMEOUT, || {
        gate.call(&get("/all/x").bearer(&unknown)).status == 200
    });
    assert_eq!(provider.count(INTROSPECTION), 2);
}

#[test]
fn the_provider_issues_tokens_of_every_kind() {
    let pki = Pki::new();
    let Some(provider) = OidcProvider::https(&pki) else {
        return;
    };
    let document = provider.get("/.well-known/openid-configuration");
    assert_eq!(document["issuer"], provider.issuer);
    assert_eq!(document["jwks_uri"], provider.url(JWKS));
    assert_eq!(document["introspection_endpoint"], provider.url(INTROSPECTION));
    // JWTs, of every algorithm.
    for algorithm in ALGORITHMS {
        let token = provider.token(algorithm);
        let header = decode_header(&token).unwrap();
        assert_eq!(header.alg, jsonwebtoken::Algorithm::from_str(algorithm).unwrap());
        let claims = verified(&provider, &token);
        assert_eq!(
            (&claims["client_id"], &claims["scope"]),
            (&json!("shop"), &json!("read"))
        );
    }
    // Opaque tokens.
    let opaque = provider.token("opaque");
    let answer = introspected(&provider, &opaque);
    assert_eq!((&answer["active"], &answer["aud"]), (&json!(true), &json!(AUDIENCE)));
    let revoked = provider.post("/token/revocation", "shop", &format!("token={opaque}"));
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(introspected(&provider, &opaque), json!({ "active": false }));
    // Bound ones.
    let key = ProofKey::new(Algorithm::ES256);
    let certificate = pki.leaf(&["client.example"]);
    for (cnf, [jwt, opaque]) in [
        (
            key.cnf(),
            ["ES256", "opaque"].map(|kind| provider.dpop_token(kind, &token_proof(&key, &provider))),
        ),
        (
            json!({ "x5t#S256": certificate_hash(&certificate) }),
            ["ES256", "opaque"].map(|kind| provider.certificate_token(kind, &certificate)),
        ),
    ] {
        assert_eq!(verified(&provider, &jwt)["cnf"], cnf);
        assert_eq!(introspected(&provider, &opaque)["cnf"], cnf);
    }
    // Keys.
    let kids = || -> HashSet<String> {
        let set = provider.get(JWKS);
        let kids = set["keys"].as_array().unwrap().iter();
        kids.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let kid = |token: &str| decode_header(token).unwrap().kid.unwrap();
    provider.publish("ES256-2", "ES256");
    assert!(kids().contains("ES256-1") && kids().contains("ES256-2"));
    assert_eq!(kid(&provider.token("ES256")), "ES256-1");
    provider.sign_with("ES256-2");
    let token = provider.token("ES256");
    assert_eq!(kid(&token), "ES256-2");
    provider.remove("ES256-1");
    assert!(!kids().contains("ES256-1"));
    verified(&provider, &token);
    // A break.
    let counted = provider.count(INTROSPECTION);
    provider.goes_down();
    provider.comes_back();
    assert_eq!(introspected(&provider, &provider.token("opaque"))["active"], true);
    assert_eq!(provider.count(INTROSPECTION), counted + 1);
}
