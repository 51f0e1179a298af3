//! Tokens that a real provider has bound to a key or a certificate of the client: stolen ones are useless.

use authgate_auth::jwt::keys::Algorithm;
use rustls::ClientConfig;

use crate::harness::client::{Call, Conn};
use crate::harness::oidc_provider::OidcProvider;
use crate::harness::pki::{Pki, show};
use crate::harness::proofs::ProofKey;
use crate::harness::{Config, Gate, RecordingUpstream, config, get};
use crate::identity_provider::{FILE, INTROSPECTION, JWKS, jwt, opaque, token_proof, with_routes};

/// Kinds of tokens, and the authenticators of them.
const KINDS: [(&str, &str); 2] = [("ES256", "jwt"), ("opaque", "opaque")];

fn gate(provider: &OidcProvider, upstream: &RecordingUpstream, config: Config, lines: &str) -> Gate {
    let ca = "ca = \"ca.pem\"";
    let config = config
        .tables(&jwt(provider, &format!("{FILE}\n{lines}")))
        .file("jwks.json", provider.get(JWKS).to_string())
        .tables(&opaque(provider, &format!("{ca}\n{lines}")));
    Gate::start(&with_routes(config, upstream, &["jwt", "opaque"]))
}

#[test]
fn tokens_that_the_provider_has_bound_to_a_key_need_a_proof() {
    let pki = Pki::new();
    let Some(provider) = OidcProvider::https(&pki) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let config = config().file("ca.pem", pki.root_pem());
    let gate = gate(&provider, &upstream, config, "dpop = \"require\"");
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        let (client, thief) = (ProofKey::new(algorithm), ProofKey::new(algorithm));
        for (kind, authenticator) in KINDS {
            let target = format!("/{authenticator}/x");
            let uri = format!("http://localhost{target}");
            let token = provider.dpop_token(kind, &token_proof(&client, &provider));
            let unbound = provider.token(kind);
            let asked = provider.count(INTROSPECTION);
            // Before the token is in the cache, and after it.
            for round in 0..2 {
                let used = client.send(get(&target), &uri, &token);
                for (call, status) in [
                    (get(&target).bearer(&token), 401),
                    (get(&target).authorization(&format!("DPoP {token}")), 401),
                    (thief.send(get(&target), &uri, &token), 401),
                    (client.send(get(&target), "http://localhost/other", &token), 401),
                    (get(&target).bearer(&unbound), 401),
                    (used.clone(), 200),
                    // The same proof again.
                    (used, 401),
                ] {
                    let before = upstream.calls();
                    let reply = gate.call(&call);
                    assert_eq!(reply.status, status, "{kind}, round {round}: {}", reply.text());
                    assert_eq!(upstream.calls() - before, usize::from(status == 200));
                }
                assert_eq!(upstream.last().header("x-id"), Some("shop"));
                assert_eq!(upstream.last().header("dpop"), None);
            }
            // It was asked about two tokens at most, each once.
            let asked = provider.count(INTROSPECTION) - asked;
            assert!(asked <= 2 && (asked > 0) == (kind == "opaque"), "{kind}: {asked}");
        }
    }
}

#[test]
fn tokens_that_the_provider_has_bound_to_a_certificate_need_its_connection() {
    let pki = Pki::new();
    let Some(provider) = OidcProvider::https(&pki) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let config = config()
        .file("ca.pem", pki.root_pem())
        .tls(&pki, &[&["localhost"]])
        .tls_line("client_auth = { mode = \"optional\", ca = \"ca.pem\" }");
    let gate = gate(&provider, &upstream, config, "certificate_bound = \"require\"");
    let (own, other) = (pki.leaf(&["client.example"]), pki.leaf(&["client.example"]));
    let client = |certificate: Option<&(String, String)>| {
        let mut client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
        if let Some(certificate) = certificate {
            show(&mut client, certificate.clone());
        }
        client
    };
    let status = |client: &ClientConfig, call: &Call| {
        let mut conn = Conn::tls(gate.address, "localhost", client.clone()).unwrap();
        conn.call(call).status
    };
    let (with_own, with_other, without) = (client(Some(&own)), client(Some(&other)), client(None));
    for (kind, authenticator) in KINDS {
        let call = |token: &str| get(&format!("/{authenticator}/x")).bearer(token);
        let bound = call(&provider.certificate_token(kind, &own));
        let unbound = call(&provider.token(kind));
        for round in 0..2 {
            let before = upstream.calls();
            for (client, call) in [(&with_other, &bound), (&without, &bound), (&with_own, &unbound)] {
                assert_eq!(status(client, call), 401, "{kind}, round {round}");
            }
            assert_eq!(upstream.calls(), before);
            assert_eq!(status(&with_own, &bound), 200, "{kind}, round {round}");
            assert_eq!(upstream.last().header("x-id"), Some("bound"));
        }
    }
}
