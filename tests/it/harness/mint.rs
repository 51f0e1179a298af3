//! JWTs and the keys that sign them, made at run time. Signed by jsonwebtoken, which the gateway does not use; by hand where it
//! must be wrong, and by the gateway's own signer where the library cannot (ES512).

use std::time::{SystemTime, UNIX_EPOCH};

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::jwt::sign::SigningKey;
use authgate_core::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// A key that signs, and what verifies it.
pub struct Signer {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    /// PEM, or the secret itself.
    pub private: Vec<u8>,
    /// PEM; a secret has none.
    pub public: String,
    pub jwk: Value,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("this millennium")
}

/// What SimpleJWT puts into an access token for user 42.
pub fn claims() -> Value {
    json!({ "token_type": "access", "user_id": "42", "jti": format!("canary-{}", now()), "iat": now(), "exp": now() + 300 })
}

/// The same with other members; `null` leaves one out.
pub fn claims_with(more: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in more.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// A new key for that algorithm.
    pub fn new(algorithm: Algorithm) -> Self {
        if algorithm.is_hmac() {
            let secret = format!("canary-secret-{:064x}", fastrand::u128(..)).into_bytes();
            let jwk = json!({ "kty": "oct", "k": base64(&secret), "alg": algorithm.name() });
            return Self {
                algorithm,
                kid: None,
                private: secret,
                public: String::new(),
                jwk,
            };
        }
        let kind = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::ES512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = rcgen::KeyPair::generate_for(kind).expect("a key");
        let jwk = jwk(algorithm, rcgen::PublicKeyData::der_bytes(&pair));
        Self {
            algorithm,
            kid: None,
            private: pair.serialize_pem().into(),
            public: pair.public_key_pem(),
            jwk,
        }
    }

    pub fn kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self.jwk["kid"] = json!(kid);
        self
    }

    /// The same key for another algorithm.
    pub fn as_algorithm(&self, algorithm: Algorithm) -> Self {
        let (private, public) = (self.private.clone(), self.public.clone());
        Self {
            algorithm,
            kid: self.kid.clone(),
            private,
            public,
            jwk: self.jwk.clone(),
        }
    }

    /// The line of `keys` that verifies it; [`Signer::file`] must lie beside gateway.toml.
    pub fn key(&self, file: &str) -> String {
        let kid = self
            .kid
            .as_ref()
            .map(|kid| format!(", kid = \"{kid}\""))
            .unwrap_or_default();
        let name = self.algorithm.name();
        if self.algorithm.is_hmac() {
            format!("{{ algorithm = \"{name}\", secret = {{ file = \"{file}\" }}{kid} }}")
        } else {
            format!("{{ algorithm = \"{name}\", file = \"{file}\"{kid} }}")
        }
    }

    /// What that file holds.
    pub fn file(&self) -> Vec<u8> {
        if self.algorithm.is_hmac() {
            self.private.clone()
        } else {
            self.public.clone().into_bytes()
        }
    }

    pub fn sign(&self, claims: &Value) -> String {
        if self.algorithm == Algorithm::ES512 {
            let key =
                SigningKey::new(self.algorithm, self.kid.clone(), &Secret::new(self.private.clone())).expect("a key");
            return key.sign(claims.as_object().expect("an object")).expect("a signature");
        }
        let mut header = Header::new(self.algorithm.name().parse().expect("an algorithm of the library"));
        header.kid.clone_from(&self.kid);
        let key = match self.algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Ok(EncodingKey::from_secret(&self.private)),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&self.private),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&self.private),
            _ => EncodingKey::from_rsa_pem(&self.private),
        };
        jsonwebtoken::encode(&header, claims, &key.expect("a key")).expect("a signature")
    }

    /// A token with any header and any payload, under a signature that is right for them.
    pub fn seal(&self, header: &str, payload: &[u8]) -> String {
        let signed = format!("{}.{}", base64(header), base64(payload));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }

    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let key = SigningKey::new(self.algorithm, None, &Secret::new(self.private.clone())).expect("a key");
        key.signature(message).expect("a signature")
    }

    /// An access token for user 42.
    pub fn access(&self) -> String {
        self.sign(&claims())
    }

    /// An access token with other claims; `null` leaves one out.
    pub fn with(&self, more: &Value) -> String {
        self.sign(&claims_with(more))
    }
}

/// A token with any header, signed with HMAC-SHA-256 under any key.
pub fn forged(header: &Value, claims: &Value, key: &[u8]) -> String {
    let signed = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", base64(tag))
}

/// The public key as RFC 7518, section 6, or RFC 8037 writes it. `raw` is what a certificate holds of it.
fn jwk(algorithm: Algorithm, raw: &[u8]) -> Value {
    let ec = |curve: &str| {
        let (x, y) = raw[1..].split_at(raw.len() / 2);
        json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y), "use": "sig" })
    };
    match algorithm {
        Algorithm::ES256 => ec("P-256"),
        Algorithm::ES384 => ec("P-384"),
        Algorithm::ES512 => ec("P-521"),
        Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(raw), "use": "sig" }),
        _ => {
            let key = aws_lc_rs::rsa::PublicKey::from_der(raw).expect("an RSA key");
            let (n, e) = (key.modulus(), key.exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            json!({ "kty": "RSA", "n": base64(n), "e": base64(e), "use": "sig" })
        }
    }
}
