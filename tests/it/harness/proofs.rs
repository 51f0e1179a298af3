//! [`ProofKey`]: a client with a key, which makes DPoP proofs (RFC 9449).

use authgate_auth::jwt::keys::Algorithm;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::client::Call;
use super::mint::{Signer, base64, now};

/// A client, and the key of its proofs.
pub struct ProofKey {
    pub signer: Signer,
    /// The public key, as the header of a proof has it.
    pub jwk: Value,
}

impl ProofKey {
    pub fn new(algorithm: Algorithm) -> Self {
        let signer = Signer::new(algorithm);
        let mut jwk = signer.jwk.clone();
        jwk.as_object_mut().expect("an object").remove("use");
        Self { signer, jwk }
    }

    /// The claim `cnf` of a token that is bound to the key. serde_json sorts members, as RFC 7638 demands.
    pub fn cnf(&self) -> Value {
        json!({ "jkt": base64(digest(&SHA256, self.jwk.to_string().as_bytes())) })
    }

    pub fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": self.signer.algorithm.name(), "jwk": self.jwk })
    }

    /// The claims of a proof for this request. Each has another `jti`.
    pub fn claims(method: &str, uri: &str, token: &str) -> Value {
        json!({
            "jti": format!("canary-{:032x}", fastrand::u128(..)), "htm": method, "htu": uri, "iat": now(),
            "ath": base64(digest(&SHA256, token.as_bytes())),
        })
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.signer
            .seal(&self.header().to_string(), claims.to_string().as_bytes())
    }

    pub fn proof(&self, method: &str, uri: &str, token: &str) -> String {
        self.sign(&Self::claims(method, uri, token))
    }

    /// The request with this token, and a proof for that URI.
    pub fn send(&self, call: Call, uri: &str, token: &str) -> Call {
        let proof = self.proof(&call.method, uri, token);
        call.authorization(&format!("DPoP {token}")).header("DPoP", proof)
    }
}
