//! [`IdentityKey`]: a private key of the gateway that signs identities, and the JWK Set by which applications verify them.

use std::fmt;

use authgate_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::keys::{Algorithm, Fingerprint};
use super::sign::{SignError, SigningKey};

/// A private key of one of [`ALGORITHMS`](Self::ALGORITHMS). Its public half is published.
pub struct IdentityKey {
    key: SigningKey,
    kid: String,
    fingerprint: Fingerprint,
    /// Its public half, as the JWK Set has it.
    jwk: Map<String, Value>,
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl IdentityKey {
    /// Applications verify identities, so no algorithm has a shared secret.
    pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

    /// Loads a private key in PEM (PKCS #8). Without a `kid`, it is known by its RFC 7638 thumbprint.
    ///
    /// # Errors
    /// The key is invalid, or not for this algorithm.
    pub fn new(algorithm: Algorithm, kid: Option<String>, pem: &Secret<Vec<u8>>) -> Result<Self, SignError> {
        let key = SigningKey::new(algorithm, None, pem)?;
        let material = key
            .public_material()
            .ok_or_else(|| SignError::new(format!("{} has no public key", algorithm.name())))?;
        let mut jwk = material.members();
        let fingerprint = material
            .into_key(algorithm, None)
            .map_err(|error| SignError::new(error.to_string()))?
            .fingerprint();
        let kid = kid.unwrap_or_else(|| URL_SAFE_NO_PAD.encode(fingerprint));
        for (name, value) in [("kid", &*kid), ("alg", algorithm.name()), ("use", "sig")] {
            jwk.insert(name.to_owned(), json!(value));
        }
        Ok(Self {
            key: key.with_kid(kid.clone()),
            kid,
            fingerprint,
            jwk,
        })
    }

    /// The key id, in tokens and in the JWK Set.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Identifies the key. A verification key with the same public half has the same fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Makes a compact JWS over these claims, with this `typ`.
    ///
    /// # Errors
    /// The library refuses to sign.
    pub fn sign_as(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, SignError> {
        self.key.sign_as(typ, claims)
    }

    /// The JWK Set with the public halves of these keys (RFC 7517, section 5).
    pub fn key_set<'k>(keys: impl Iterator<Item = &'k Self>) -> String {
        let keys: Vec<&Map<String, Value>> = keys.map(|key| &key.jwk).collect();
        json!({ "keys": keys }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

    use super::*;
    use crate::jwt::keys::JwkSet;

    fn pem(der: &[u8]) -> Secret<Vec<u8>> {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n").into_bytes())
    }

    #[test]
    fn the_published_set_has_the_public_halves_alone_and_verifies_what_the_keys_sign() {
        let ed = Ed25519KeyPair::generate().expect("a key").to_pkcs8v1().expect("DER");
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let (ec, rsa) = (ec.to_pkcs8v1().expect("DER"), rsa.as_der().expect("DER"));
        let keys = [
            (Algorithm::EdDSA, ed.as_ref()),
            (Algorithm::ES256, ec.as_ref()),
            (Algorithm::RS256, rsa.as_ref()),
        ]
        .map(|(algorithm, der)| IdentityKey::new(algorithm, None, &pem(der)).expect("a key"));
        let set = IdentityKey::key_set(keys.iter());
        let members: Value = serde_json::from_str(&set).expect("JSON");
        for jwk in members["keys"].as_array().expect("a list") {
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(jwk.get(private).is_none(), "{private}");
            }
        }
        let parsed = JwkSet::parse(set.as_bytes(), &IdentityKey::ALGORITHMS).expect("a JWK Set");
        for (key, public) in keys.iter().zip(&parsed.keys) {
            assert_eq!(
                (public.kid(), public.fingerprint()),
                (Some(key.kid()), key.fingerprint())
            );
            let token = key.sign_as("t", &Map::new()).expect("signed");
            let (signed, signature) = token.rsplit_once('.').expect("a JWS");
            let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            assert!(
                public.verifies(signed.as_bytes(), &signature),
                "{}",
                key.algorithm().name()
            );
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let ed = Ed25519KeyPair::generate().expect("a key").to_pkcs8v1().expect("DER");
        for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256] {
            assert!(IdentityKey::new(algorithm, None, &pem(ed.as_ref())).is_err());
        }
    }
}
