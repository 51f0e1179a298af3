//! Third-party signature vectors, where they are at hand: every invalid one is refused and every valid one is accepted, but for
//! those whose label says something about other verifiers than this one.

use std::path::PathBuf;
use std::sync::Arc;

use authgate_auth::jwt::keys::{Algorithm, JwkSet};
use authgate_auth::jwt::{Issuer, Issuers, JwtSettings, KeySet, Namespace, Rules, Users, verified_payload};
use authgate_auth::{BindingRules, CredentialForm};
use serde_json::{Value, json};

/// The folder, named by `AUTHGATE_VECTORS`, else beside the project.
fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("AUTHGATE_VECTORS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"));
    let there = folder.is_dir();
    if !there {
        eprintln!("skipped: no test vectors in {}", folder.display());
    }
    there.then_some(folder)
}

fn read(folder: &std::path::Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

/// Whether the signature of `jws` holds under some key of `jwk`, which is a JWK or a set.
fn verifies(jwk: &Value, jws: &str) -> bool {
    let mut set = if jwk.get("keys").is_some() {
        jwk.clone()
    } else {
        json!({ "keys": [jwk] })
    };
    // The vectors write private keys, which a set for verifying must not have.
    for key in set["keys"].as_array_mut().unwrap() {
        key.as_object_mut().map(|key| key.remove("d"));
    }
    let Ok(JwkSet { keys, .. }) = JwkSet::parse(set.to_string().as_bytes(), &Algorithm::ALL) else {
        return false;
    };
    let settings = JwtSettings {
        issuers: Issuers::One(Issuer {
            keys: KeySet::Static(keys),
            token_bytes: 1 << 20,
            rules: Rules::plain(),
            users: Users::Claims {
                username_claim: "username".into(),
            },
            binding: Arc::new(BindingRules::OFF),
            namespace: Namespace::default(),
        }),
        form: CredentialForm::Any,
        revocation: None,
    };
    verified_payload(&settings, jws.as_bytes()).is_ok()
}

#[test]
fn wycheproof_signatures_have_the_labelled_result() {
    let Some(folder) = vectors() else { return };
    // 346, 350: PS384 in the header, PS256 in the key. 347, 351: a key for "ES521", which is no algorithm.
    // 353 to 356: a key for encryption. 372, 373: a `?` in the token.
    const VALID_BUT_REFUSED: [u64; 10] = [346, 347, 350, 351, 353, 354, 355, 356, 372, 373];
    // The token in the file is the plain valid one.
    const INVALID_BUT_VALID: [u64; 2] = [367, 370];
    let mut wrong = Vec::new();
    let mut judged = 0;
    for group in read(&folder, "wycheproof/json_web_signature_test.json")["testGroups"]
        .as_array()
        .unwrap()
    {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            let expected = match test["result"].as_str().unwrap() {
                "valid" => !VALID_BUT_REFUSED.contains(&id),
                _ => INVALID_BUT_VALID.contains(&id),
            };
            judged += 1;
            // JSON serialisation is an object there, and never a credential here.
            let accepted = test["jws"].as_str().is_some_and(|jws| verifies(jwk, jws));
            if accepted != expected {
                wrong.push(format!("{id} {} expected {expected}", test["comment"]));
            }
        }
    }
    assert!(judged > 300 && wrong.is_empty(), "{judged} judged, wrong: {wrong:#?}");
}

#[test]
fn wycheproof_keys_verify_no_invalid_signature() {
    let Some(folder) = vectors() else { return };
    // The second key of that id is not base64url, and left out.
    const DUPLICATE: &str = "rejectsDuplicateKid";
    // Weak by how its primes were made (ROCA), which is not looked at.
    const ROCA: &str = "rejectsKeyWithRocaVulnerability";
    let mut wrong = Vec::new();
    for file in [
        "wycheproof/json_web_key_test.json",
        "wycheproof/json_web_crypto_test.json",
    ] {
        for group in read(&folder, file)["testGroups"].as_array().unwrap() {
            let jwk = group.get("public").unwrap_or(&group["private"]);
            for test in
                group["tests"].as_array().unwrap().iter().filter(|test| {
                    test["result"] == "invalid" && test["comment"] != ROCA && test["comment"] != DUPLICATE
                })
            {
                if test["jws"].as_str().is_some_and(|jws| verifies(jwk, jws)) {
                    wrong.push(format!("{file} {} {} {}", test["tcId"], test["comment"], test["flags"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn encrypted_tokens_are_refused() {
    let Some(folder) = vectors() else { return };
    let mut judged = 0;
    for group in read(&folder, "wycheproof/json_web_encryption_test.json")["testGroups"]
        .as_array()
        .unwrap()
    {
        for name in ["private", "public"] {
            let Some(jwk) = group.get(name) else { continue };
            for test in group["tests"].as_array().unwrap() {
                judged += 1;
                assert!(
                    !verifies(jwk, test["jwe"].as_str().unwrap_or_default()),
                    "{}",
                    test["tcId"]
                );
            }
        }
    }
    assert!(judged >= 139, "{judged}");
}

#[test]
fn cookbook_signatures_verify_and_unencoded_payloads_are_refused() {
    let Some(folder) = vectors() else { return };
    for file in [
        "4_1.rsa_v15_signature",
        "4_2.rsa-pss_signature",
        "4_3.ecdsa_signature",
        "4_4.hmac-sha2_integrity_protection",
    ] {
        let example = read(&folder, &format!("jose-cookbook/jws/{file}.json"));
        // Its keys name no algorithm or the right one; PS384 stands beside a key that says PS256.
        let mut key = example["input"]["key"].clone();
        key.as_object_mut().unwrap().remove("alg");
        assert!(verifies(&key, example["output"]["compact"].as_str().unwrap()), "{file}");
    }
    for file in ["4.2.hmac-sha2_b64_false", "hmac-sha2_b64_false"] {
        let example = read(&folder, &format!("jose-cookbook/rfc7797/{file}.json"));
        if let Some(compact) = example["output"]["compact"].as_str() {
            assert!(!verifies(&example["input"]["key"], compact), "{file}");
        }
    }
    let ed = read(&folder, "jose-cookbook/curve25519/jws.json");
    assert!(verifies(&ed["input"]["key"], ed["output"]["compact"].as_str().unwrap()));
}
