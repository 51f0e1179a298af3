//! Forged proofs of DPoP, and good ones with random changes.

use authgate_auth::jwt::keys::Algorithm;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Budget, RngAlgorithm, RngSeed, TestRunner};
use serde_json::json;

use crate::changed_tokens::change;
use crate::harness::forgeries::public_forms;
use crate::harness::mint::{Signer, base64, forged};
use crate::harness::proofs::ProofKey;
use crate::harness::{Gate, RecordingUpstream, get};
use crate::jwt_auth::with_keys;

#[test]
fn no_forged_proof_is_accepted() {
    const URI: &str = "http://localhost/api/x";
    let (upstream, server) = (RecordingUpstream::start(), Signer::new(Algorithm::ES256));
    let gate = Gate::start(&with_keys(&upstream, &[&server]).jwt("dpop = \"require\""));
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256];
    let clients = algorithms.map(ProofKey::new);
    let tokens: Vec<String> = clients
        .iter()
        .map(|client| server.with(&json!({ "cnf": client.cnf() })))
        .collect();
    let proofs: Vec<String> = (clients.iter().zip(&tokens))
        .map(|(client, token)| client.proof("GET", URI, token))
        .collect();
    let conn = std::cell::RefCell::new(gate.connect());
    let status = |token: &str, proof: &str| {
        let call = get("/api/x")
            .authorization(&format!("DPoP {token}"))
            .header("DPoP", proof);
        conn.borrow_mut().call(&call).status
    };
    for (client, token) in clients.iter().zip(&tokens) {
        let claims = ProofKey::claims("GET", URI, token).to_string();
        for secret in public_forms(&client.signer) {
            for header in [
                json!({ "alg": "HS256" }),
                json!({ "alg": client.signer.algorithm.name() }),
            ] {
                let header = json!({ "typ": "dpop+jwt", "jwk": client.jwk, "alg": header["alg"] });
                let proof = forged(&header, &serde_json::from_str(&claims).unwrap(), &secret);
                assert_eq!(status(token, &proof), 401, "{header}");
            }
        }
        let header = json!({ "typ": "dpop+jwt", "jwk": client.jwk, "alg": "none" });
        assert_eq!(
            status(token, &format!("{}.{}.", base64(header.to_string()), base64(&claims))),
            401
        );
    }
    let budget = Budget {
        cases: 1500,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x6470_6f70),
        ..Budget::default()
    };
    let case = (any::<Index>(), proptest::collection::vec(change(), 1..3));
    let run = TestRunner::new(budget).run(&case, |(which, changes)| {
        let at = which.index(proofs.len());
        let mut proof = proofs[at].clone();
        for change in &changes {
            if proof.split('.').count() != 3 {
                break;
            }
            proof = String::from_utf8_lossy(&change.apply(&proof, &proofs)).into_owned();
            prop_assume!(proof.bytes().all(|byte| (0x21..0x7f).contains(&byte)) && !proof.is_empty());
        }
        prop_assume!(!proofs.contains(&proof));
        let status = status(&tokens[at], &proof);
        prop_assert!(matches!(status, 400 | 401), "{status}: {changes:?}");
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    assert_eq!(upstream.calls(), 0);
    // None of them has used up the good ones.
    for (token, proof) in tokens.iter().zip(&proofs) {
        assert_eq!((status(token, proof), status(token, proof)), (200, 401));
    }
}
