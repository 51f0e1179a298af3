//! Forged tokens, for each algorithm. Each is refused as an invalid token is, and the gateway connects to no address in one.

use std::net::TcpListener;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::{Value, json};

use crate::harness::client::Conn;
use crate::harness::forgeries::{forgeries, public_forms};
use crate::harness::mint::{Signer, claims, claims_with, forged};
use crate::harness::{Gate, RecordingUpstream, config, get};

/// Where the gateway has its keys from.
#[derive(Clone, Copy, PartialEq)]
pub enum Keys {
    /// `keys`: every algorithm, and none of them has a kid.
    Static,
    /// `jwks`: every public one, chosen by kid.
    Jwks,
    /// `issuers`: every algorithm is that of one issuer, and all of their keys have the same kid.
    Issuers,
}

/// The issuer of tokens, where the gateway knows one for each algorithm.
fn issuer(algorithm: Algorithm) -> String {
    format!("https://{}.test", algorithm.name())
}

/// A gateway with a key for each algorithm, and an address that no token may make it fetch.
pub struct Target {
    keys: Keys,
    pub signers: Vec<Signer>,
    upstream: RecordingUpstream,
    pub gate: Gate,
    trap: TcpListener,
}

impl Target {
    pub fn start(keys: Keys) -> Self {
        let upstream = RecordingUpstream::start();
        let mut config = config()
            .jwt("users = \"none\"")
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]");
        let signers: Vec<Signer>;
        if keys == Keys::Issuers {
            signers = Algorithm::ALL
                .map(|algorithm| Signer::new(algorithm).kid("k"))
                .into_iter()
                .collect();
            config = crate::harness::config()
                .jwt("profile = \"simplejwt\"")
                .app(&upstream)
                .route("/api/*", "authenticate = [\"jwt\"]");
            for signer in &signers {
                let (file, name) = (signer.algorithm.name(), issuer(signer.algorithm));
                let key = signer.key(file);
                config = config.file(file, signer.file()).tables(&format!(
                    "[[authenticators.jwt.issuers]]\nissuer = \"{name}\"\nnamespace = \"{file}:\"\nusers = \"none\"\nkeys = [{key}]\n"
                ));
            }
        } else if keys == Keys::Static {
            signers = Algorithm::ALL.map(Signer::new).into_iter().collect();
            let mut lines = Vec::new();
            for signer in &signers {
                let file = signer.algorithm.name();
                config = config.file(file, signer.file());
                lines.push(signer.key(file));
            }
            config = config.jwt(&format!("keys = [{}]", lines.join(", ")));
        } else {
            let public = Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_hmac());
            signers = public
                .map(|algorithm| Signer::new(algorithm).kid(algorithm.name()))
                .collect();
            let names: Vec<&str> = signers.iter().map(|signer| signer.algorithm.name()).collect();
            // As many publish them: without `alg`, so that only the key's kind says what it is for.
            let set: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
            config = config
                .file("jwks.json", json!({ "keys": set }).to_string())
                .jwt("jwks = { file = \"jwks.json\" }")
                .jwt(&format!("algorithms = {names:?}"))
                .jwt("issuer = false")
                .jwt("audience = false");
        }
        let gate = Gate::start(&config);
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        Self {
            keys,
            signers,
            upstream,
            gate,
            trap,
        }
    }

    /// The claims that a good token of this key has beside the usual ones.
    pub fn claims_of(&self, signer: &Signer) -> Value {
        match self.keys {
            Keys::Static | Keys::Jwks => json!({}),
            Keys::Issuers => json!({ "iss": issuer(signer.algorithm) }),
        }
    }

    fn trap_url(&self) -> String {
        format!("http://{}/keys.json", self.trap.local_addr().unwrap())
    }

    /// Whether the gateway accepts a token. Any other response must be the refusal of an invalid token.
    pub fn accepts(conn: &mut Conn, what: &str, token: &str) -> bool {
        let reply = conn.call(&get("/api/x").bearer(token));
        if reply.status == 200 {
            return true;
        }
        assert_eq!(reply.status, 401, "{what}: {}", reply.text());
        let said = reply.json();
        let message = said["messages"][0]["message"].as_str();
        assert!(
            message == Some("Token is invalid") || said["code"] == "bad_authorization_header",
            "{what}: {said}"
        );
        false
    }

    pub fn no_address_was_visited(&self) {
        assert!(self.trap.accept().is_err(), "an address inside of a token was visited");
    }
}

#[test]
fn no_forgery_passes_and_no_address_in_one_is_visited() {
    for keys in [Keys::Static, Keys::Jwks, Keys::Issuers] {
        let target = Target::start(keys);
        let mut conn = target.gate.connect();
        let mut tried = 0;
        for signer in &target.signers {
            let more = target.claims_of(signer);
            for (what, token) in forgeries(signer, &more, &target.trap_url()) {
                assert!(!Target::accepts(&mut conn, &what, &token), "accepted: {what}");
                tried += 1;
            }
            assert!(Target::accepts(&mut conn, "the good one", &signer.with(&more)));
        }
        assert!(tried > 140 * target.signers.len(), "{tried}");
        assert_eq!(target.upstream.calls(), target.signers.len());
        target.no_address_was_visited();
    }
}

#[test]
fn a_key_of_one_issuer_serves_no_other() {
    let target = Target::start(Keys::Issuers);
    let mut conn = target.gate.connect();
    for signer in &target.signers {
        for name in Algorithm::ALL {
            let own = name == signer.algorithm;
            let claims = claims_with(&json!({ "iss": issuer(name) })).to_string();
            // Under the algorithm of the key, and under that of the issuer's key.
            for alg in [signer.algorithm, name] {
                let token = signer.seal(&format!(r#"{{"alg":"{}","kid":"k"}}"#, alg.name()), claims.as_bytes());
                let what = format!("{} as {} for {}", signer.algorithm.name(), alg.name(), issuer(name));
                assert_eq!(Target::accepts(&mut conn, &what, &token), own, "{what}");
            }
        }
    }
    // The public key of an issuer as the secret of one that uses HMAC.
    for signer in &target.signers {
        for form in public_forms(signer) {
            let claims = claims_with(&json!({ "iss": issuer(Algorithm::HS256) }));
            let token = forged(&json!({ "alg": "HS256", "kid": "k" }), &claims, &form);
            assert!(!Target::accepts(&mut conn, "a public key as a secret", &token));
        }
    }
    target.no_address_was_visited();
}

#[test]
fn a_key_of_one_rsa_algorithm_or_curve_serves_no_other() {
    // One RSA key that is configured for RS256 alone, and keys on two curves side by side.
    let upstream = RecordingUpstream::start();
    let (rsa, small, large) = (
        Signer::new(Algorithm::RS256),
        Signer::new(Algorithm::ES256),
        Signer::new(Algorithm::ES512),
    );
    let keys = [&rsa, &small, &large]
        .map(|signer| signer.key(signer.algorithm.name()))
        .join(", ");
    let gate = Gate::start(
        &config()
            .file("RS256", rsa.file())
            .file("ES256", small.file())
            .file("ES512", large.file())
            .jwt("users = \"none\"")
            .jwt(&format!("keys = [{keys}]"))
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]"),
    );
    let mut conn = gate.connect();
    for other in [
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ] {
        let signer = rsa.as_algorithm(other);
        for name in [other.name(), "RS256"] {
            let token = signer.seal(&format!(r#"{{"alg":"{name}"}}"#), claims().to_string().as_bytes());
            assert!(!Target::accepts(&mut conn, name, &token), "{} as {name}", other.name());
        }
    }
    for (signer, name) in [
        (&small, "ES512"),
        (&large, "ES256"),
        (&small, "ES384"),
        (&large, "ES521"),
    ] {
        let token = signer.seal(&format!(r#"{{"alg":"{name}"}}"#), claims().to_string().as_bytes());
        assert!(
            !Target::accepts(&mut conn, name, &token),
            "{} as {name}",
            signer.algorithm.name()
        );
    }
    assert_eq!(upstream.calls(), 0);
}
