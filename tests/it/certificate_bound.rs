//! Tokens that are bound to a client certificate (RFC 8705).

use std::sync::Arc;

use authgate_auth::jwt::keys::Algorithm;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::client::Call;
use crate::harness::h2::H2;
use crate::harness::mint::{Signer, base64};
use crate::harness::pki::{Pki, show};
use crate::harness::{Config, Conn, Gate, RecordingUpstream, get};
use crate::jwt_auth::with_keys;

fn config(upstream: &RecordingUpstream, server: &Signer, pki: &Arc<Pki>, mode: &str) -> Config {
    with_keys(upstream, &[server])
        .jwt(&format!("certificate_bound = \"{mode}\""))
        .file("clients.pem", pki.root_pem())
        .tls(pki, &[&["localhost"]])
        .tls_line("client_auth = { mode = \"optional\", ca = \"clients.pem\" }")
        .log("format = \"json\"")
}

/// The claim `cnf` of a token that is bound to this certificate.
fn cnf((chain, _): &(String, String)) -> Value {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    json!({ "cnf": { "x5t#S256": base64(digest(&SHA256, &der)) } })
}

/// The status of a request over a new connection, and whether its session was resumed.
fn status(gate: &Gate, client: &ClientConfig, call: &Call) -> (u16, bool) {
    let mut conn = Conn::tls(gate.address, "localhost", client.clone()).unwrap();
    let status = conn.call(call).status;
    let resumed = conn.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    (status, resumed)
}

#[test]
fn a_bound_token_is_useless_without_its_certificate_also_if_sessions_are_resumed() {
    let (upstream, pki, server) = (RecordingUpstream::start(), Pki::new(), Signer::new(Algorithm::ES256));
    let (own, other) = (pki.leaf(&["client.example"]), pki.leaf(&["client.example"]));
    for mode in ["accept", "require"] {
        let gate = Gate::start(&config(&upstream, &server, &pki, mode));
        let bound = get("/api/x").bearer(&server.with(&cnf(&own)));
        let unbound = get("/api/x").bearer(&server.access());
        for version in [&TLS12, &TLS13] {
            let client = |certificate: Option<&(String, String)>| {
                let mut client = pki.client(&["http/1.1"], &[version]);
                if let Some(certificate) = certificate {
                    show(&mut client, certificate.clone());
                }
                client
            };
            let (with_own, with_other, without) = (client(Some(&own)), client(Some(&other)), client(None));
            // In the second round, the token is cached and the sessions are resumed.
            for resumed in [false, true] {
                assert_eq!(status(&gate, &with_own, &bound), (200, resumed), "{mode}");
                assert_eq!(status(&gate, &with_other, &bound), (401, resumed), "{mode}");
                assert_eq!(status(&gate, &without, &bound), (401, resumed), "{mode}");
                let expected = if mode == "accept" { 200 } else { 401 };
                assert_eq!(status(&gate, &with_own, &unbound), (expected, true), "{mode}");
            }
        }
        for (certificate, expected) in [(&own, 200), (&other, 401)] {
            let mut client = pki.client(&["h2"], rustls::ALL_VERSIONS);
            show(&mut client, certificate.clone());
            let mut h2 = H2::connect_as(&gate, client);
            assert_eq!(h2.call(&bound).status, expected, "{mode}, over HTTP/2");
        }
        for outcome in ["certificate_missing", "certificate_other"] {
            gate.logged(&[&format!("\"outcome\":\"{outcome}\"")]);
        }
    }
}

#[test]
fn a_token_may_be_bound_to_a_key_and_to_a_certificate() {
    use crate::harness::proofs::ProofKey;
    let (upstream, pki, server) = (RecordingUpstream::start(), Pki::new(), Signer::new(Algorithm::ES256));
    let (certificate, key) = (pki.leaf(&["client.example"]), ProofKey::new(Algorithm::EdDSA));
    let gate = Gate::start(&config(&upstream, &server, &pki, "accept").jwt("dpop = \"accept\""));
    let mut claims = cnf(&certificate);
    claims["cnf"]["jkt"] = key.cnf()["jkt"].clone();
    let token = server.with(&claims);
    let mut client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let with_proof = || key.send(get("/api/x"), "https://localhost/api/x", &token);
    let without_certificate = client.clone();
    show(&mut client, certificate);
    assert_eq!(status(&gate, &client, &with_proof()).0, 200);
    assert_eq!(status(&gate, &client, &get("/api/x").bearer(&token)).0, 401);
    assert_eq!(status(&gate, &without_certificate, &with_proof()).0, 401);
}
