//! Signs JWTs: the signed identities of a gateway, and for development and tests the tokens of `authgate jwt mint`.

use std::fmt;

use authgate_core::secret::Secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, signature::RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::keys::{Algorithm, Material};

/// A private key, bound to an algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    pair: Pair,
}

enum Pair {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The key cannot sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(String);

impl SignError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

impl SigningKey {
    /// Loads a secret (HS*), or a private key in PEM (`-----BEGIN PRIVATE KEY-----`), for that algorithm.
    ///
    /// # Errors
    /// The key is invalid, or not for this algorithm.
    pub fn new(algorithm: Algorithm, kid: Option<String>, key: &Secret<Vec<u8>>) -> Result<Self, SignError> {
        let wrong = || {
            SignError(format!(
                "the key is not a private key for {} in PEM (PKCS #8)",
                algorithm.name()
            ))
        };
        let pkcs8 = || PrivatePkcs8KeyDer::from_pem_slice(key.expose()).map_err(|_| wrong());
        let hmac = |hash| Ok(Pair::Hmac(Box::new(hmac::Key::new(hash, key.expose()))));
        let rsa = |encoding: &'static dyn RsaEncoding| {
            RsaKeyPair::from_pkcs8(pkcs8()?.secret_pkcs8_der())
                .map(|pair| Pair::Rsa(pair, encoding))
                .map_err(|_| wrong())
        };
        let ec = |curve| {
            EcdsaKeyPair::from_pkcs8(curve, pkcs8()?.secret_pkcs8_der())
                .map(Pair::Ec)
                .map_err(|_| wrong())
        };
        let pair = match algorithm {
            Algorithm::HS256 => hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => hmac(hmac::HMAC_SHA512),
            Algorithm::RS256 => rsa(&signature::RSA_PKCS1_SHA256),
            Algorithm::RS384 => rsa(&signature::RSA_PKCS1_SHA384),
            Algorithm::RS512 => rsa(&signature::RSA_PKCS1_SHA512),
            Algorithm::PS256 => rsa(&signature::RSA_PSS_SHA256),
            Algorithm::PS384 => rsa(&signature::RSA_PSS_SHA384),
            Algorithm::PS512 => rsa(&signature::RSA_PSS_SHA512),
            Algorithm::ES256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(pkcs8()?.secret_pkcs8_der())
                .map(Pair::Ed)
                .map_err(|_| wrong()),
        }?;
        Ok(Self { algorithm, kid, pair })
    }

    /// The same key, under this key id.
    pub(super) fn with_kid(self, kid: String) -> Self {
        Self { kid: Some(kid), ..self }
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public half. `None`: it is a shared secret.
    pub(super) fn public_material(&self) -> Option<Material> {
        match &self.pair {
            Pair::Hmac(_) => None,
            Pair::Rsa(pair, _) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                Some(Material::Rsa {
                    n: n.big_endian_without_leading_zero().to_vec(),
                    e: e.big_endian_without_leading_zero().to_vec(),
                })
            }
            Pair::Ec(pair) => Material::from_point(pair.public_key().as_ref()),
            Pair::Ed(pair) => Some(Material::Ed25519 {
                x: pair.public_key().as_ref().to_vec(),
            }),
        }
    }

    /// Makes a compact JWS over these claims, with `typ` `JWT`.
    ///
    /// # Errors
    /// The library refuses to sign.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, SignError> {
        self.sign_as("JWT", claims)
    }

    /// Makes a compact JWS over these claims, with this `typ` (RFC 7515, section 4.1.9).
    ///
    /// # Errors
    /// The library refuses to sign.
    pub fn sign_as(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, SignError> {
        let mut header = json!({ "alg": self.algorithm.name(), "typ": typ });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&Value::Object(claims.clone())));
        let signature = self.signature(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Signs any bytes; the signature has the form of RFC 7518, section 3.
    ///
    /// # Errors
    /// The library refuses to sign.
    pub fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        let refused = |_| SignError("the key refused to sign".to_owned());
        Ok(match &self.pair {
            Pair::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map_err(refused)?;
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).map_err(refused)?.as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}
