//! Keys that verify JWTs, each bound to one algorithm when it is loaded.
//!
//! The algorithm is a property of the key and never of the token: a public key cannot be used as an HMAC secret, and a token whose header
//! names another algorithm is refused. All forms of keys (PEM, JWK, secrets) become a [`VerificationKey`].

mod client_key;
mod jwk;
pub mod remote;
mod set;

use std::fmt;
use std::sync::Arc;

use authgate_core::identity::KeyIdentity;
use authgate_core::secret::Secret;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use aws_lc_rs::{digest, hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

pub(crate) use self::client_key::ClientKey;
pub use self::set::{JwkSet, SkippedKey};

/// The signature algorithms of RFC 7518, section 3.1, and RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the name that RFC 7518 gives it")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// Finds an algorithm by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    fn family(self) -> Family {
        match self {
            Self::HS256 => Family::Hmac(hmac::HMAC_SHA256),
            Self::HS384 => Family::Hmac(hmac::HMAC_SHA384),
            Self::HS512 => Family::Hmac(hmac::HMAC_SHA512),
            Self::RS256 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Family::Ec(Curve::P256),
            Self::ES384 => Family::Ec(Curve::P384),
            Self::ES512 => Family::Ec(Curve::P521),
            Self::EdDSA => Family::Ed25519,
        }
    }

    /// The length of its hash, for algorithms whose keys must have at least this length (RFC 7518, section 3.2).
    fn hash_bytes(self) -> Option<usize> {
        match self.family() {
            Family::Hmac(hash) => Some(hash.digest_algorithm().output_len()),
            Family::Rsa(_) | Family::Ec(_) | Family::Ed25519 => None,
        }
    }

    /// Whether its key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(self.family(), Family::Hmac(_))
    }
}

enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Ec(Curve),
    Ed25519,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521]
            .into_iter()
            .find(|curve| curve.name() == name)
    }

    /// RFC 7518, section 6.2.1.1.
    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }

    /// RFC 5480, section 2.1.1.1.
    fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::P256 => "1.2.840.10045.3.1.7",
            Self::P384 => "1.3.132.0.34",
            Self::P521 => "1.3.132.0.35",
        })
    }
}

/// Why a key cannot be used, and what to write instead, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

fn key_error<T>(text: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError(text.into()))
}

/// A key that verifies signatures of one algorithm.
pub struct VerificationKey {
    algorithm: Algorithm,
    /// Shared with the users whose tokens it has verified.
    identity: Arc<KeyIdentity>,
    /// The `kid`, else the RFC 7638 thumbprint: the name by which the key can be revoked.
    id: Box<str>,
    verifier: Verifier,
}

/// SHA-256 of the key material, independent of the form of the key.
pub type Fingerprint = [u8; 32];

enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.identity.kid)
            .finish_non_exhaustive()
    }
}

/// Equal keys verify the same signatures of the same tokens, and are revoked by the same name. Their material is compared by its hash.
impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for VerificationKey {}

impl VerificationKey {
    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its key id, if it has one.
    pub fn kid(&self) -> Option<&str> {
        self.identity.kid.as_deref()
    }

    /// The name by which it can be revoked.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Identifies the key material, independent of its form.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint
    }

    /// Identifies the key.
    pub fn identity(&self) -> &Arc<KeyIdentity> {
        &self.identity
    }

    /// Verifies the signature of `message` with this key. ECDSA signatures are `r || s` of fixed length (RFC 7518, section 3.4).
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }

    /// A shared secret for HS256, HS384 or HS512.
    ///
    /// # Errors
    /// The algorithm is not HMAC, or the secret is empty.
    pub fn from_secret(algorithm: Algorithm, kid: Option<&str>, secret: &Secret<Vec<u8>>) -> Result<Self, KeyError> {
        Material::Oct(secret.clone()).into_key(algorithm, kid)
    }

    /// A public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    /// The PEM holds something else, or the key is not for this algorithm.
    pub fn from_pem(algorithm: Algorithm, kid: Option<&str>, pem: &[u8]) -> Result<Self, KeyError> {
        let Ok(der) = SubjectPublicKeyInfoDer::from_pem_slice(pem) else {
            return key_error(no_public_key(pem));
        };
        Material::from_spki(&der)?.into_key(algorithm, kid)
    }
}

/// Key material that is not bound to an algorithm yet.
#[derive(Clone)]
pub(crate) enum Material {
    Oct(Secret<Vec<u8>>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

impl Material {
    fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let Ok(info) = SubjectPublicKeyInfoRef::try_from(der) else {
            return key_error("the PEM does not hold a public key (SubjectPublicKeyInfo)");
        };
        let bytes = info.subject_public_key.raw_bytes();
        match info.algorithm.oid.to_string().as_str() {
            "1.2.840.113549.1.1.1" => {
                let Ok(key) = rsa::PublicKey::from_der(der).or_else(|_| rsa::PublicKey::from_der(bytes)) else {
                    return key_error("the RSA key is invalid");
                };
                let (n, e) = (key.modulus(), key.exponent());
                Ok(Self::Rsa {
                    n: n.big_endian_without_leading_zero().to_vec(),
                    e: e.big_endian_without_leading_zero().to_vec(),
                })
            }
            "1.2.840.10045.2.1" => {
                let oid = info.algorithm.parameters_oid().ok();
                let curve = [Curve::P256, Curve::P384, Curve::P521]
                    .into_iter()
                    .find(|curve| Some(curve.oid()) == oid);
                let Some(curve) = curve else {
                    return key_error("the EC key is not on P-256, P-384 or P-521");
                };
                match Self::from_point(bytes) {
                    Some(key @ Self::Ec { curve: found, .. }) if found == curve => Ok(key),
                    _ => key_error(
                        "the point of the EC key is compressed; convert the key with `openssl ec -pubin -conv_form uncompressed`",
                    ),
                }
            }
            "1.3.101.112" => Ok(Self::Ed25519 { x: bytes.to_vec() }),
            other => key_error(format!(
                "the key is of an unsupported kind (OID {other}); use RSA, EC or Ed25519"
            )),
        }
    }

    /// The key on the curve whose uncompressed points have this length.
    pub(crate) fn from_point(point: &[u8]) -> Option<Self> {
        let coordinates = point.strip_prefix(&[4])?;
        let curve = [Curve::P256, Curve::P384, Curve::P521]
            .into_iter()
            .find(|curve| coordinates.len() == 2 * curve.coordinate_bytes())?;
        let (x, y) = coordinates.split_at(curve.coordinate_bytes());
        Some(Self::Ec {
            curve,
            x: x.to_vec(),
            y: y.to_vec(),
        })
    }

    fn kind(&self) -> String {
        match self {
            Self::Oct(_) => "a shared secret".to_owned(),
            Self::Rsa { .. } => "an RSA key".to_owned(),
            Self::Ec { curve, .. } => format!("an EC key on {}", curve.name()),
            Self::Ed25519 { .. } => "an Ed25519 key".to_owned(),
        }
    }

    fn suits(&self, algorithm: Algorithm) -> bool {
        match (self, algorithm.family()) {
            (Self::Oct(_), Family::Hmac(_))
            | (Self::Rsa { .. }, Family::Rsa(_))
            | (Self::Ed25519 { .. }, Family::Ed25519) => true,
            (Self::Ec { curve, .. }, Family::Ec(wanted)) => *curve == wanted,
            _ => false,
        }
    }

    pub(crate) fn into_key(self, algorithm: Algorithm, kid: Option<&str>) -> Result<VerificationKey, KeyError> {
        let broken = |_| KeyError(format!("{} is broken", self.kind()));
        let verifier = match (&self, algorithm.family()) {
            (Self::Oct(secret), Family::Hmac(hash)) => {
                if secret.expose().is_empty() {
                    return key_error("the secret is empty");
                }
                if let Some(what) = is_key_text(secret.expose()) {
                    return key_error(format!(
                        "the secret is {what}: with {}, anyone who has this public text could sign tokens (key confusion)",
                        algorithm.name()
                    ));
                }
                Verifier::Hmac(Box::new(hmac::Key::new(hash, secret.expose())))
            }
            (Self::Rsa { n, e }, Family::Rsa(parameters)) => {
                let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
                if !(2048..=8192).contains(&bits) {
                    return key_error(format!(
                        "the RSA key has {bits} bits; it must have 2048 to 8192 (RFC 7518, section 3.3)"
                    ));
                }
                if e.iter().all(|byte| *byte == 0) || e.last().is_none_or(|byte| byte % 2 == 0) || **e == [1] {
                    return key_error("the exponent of the RSA key must be an odd number above 1");
                }
                Verifier::Public(
                    RsaPublicKeyComponents { n, e }
                        .to_parsed_public_key(parameters)
                        .map_err(broken)?,
                )
            }
            (Self::Ec { curve, x, y }, Family::Ec(wanted)) if *curve == wanted => {
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                Verifier::Public(
                    ParsedPublicKey::new(curve.verification(), point)
                        .map_err(|_| KeyError(format!("{} is broken", self.kind())))?,
                )
            }
            (Self::Ed25519 { x }, Family::Ed25519) => Verifier::Public(
                ParsedPublicKey::new(&signature::ED25519, x)
                    .map_err(|_| KeyError(format!("{} is broken", self.kind())))?,
            ),
            _ => return key_error(format!("{} cannot be used with {}", self.kind(), algorithm.name())),
        };
        let fingerprint = self.thumbprint();
        let id = kid
            .map_or_else(|| URL_SAFE_NO_PAD.encode(fingerprint), str::to_owned)
            .into_boxed_str();
        Ok(VerificationKey {
            identity: Arc::new(KeyIdentity {
                algorithm: algorithm.name(),
                kid: kid.map(Into::into),
                fingerprint,
            }),
            algorithm,
            id,
            verifier,
        })
    }

    /// The members of a JWK that describe the key (RFC 7518, section 6; RFC 8037, section 2).
    pub(crate) fn members(&self) -> Map<String, Value> {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let members = match self {
            Self::Oct(secret) => json!({ "kty": "oct", "k": b64(secret.expose()) }),
            Self::Rsa { n, e } => json!({ "kty": "RSA", "n": b64(n), "e": b64(e) }),
            Self::Ec { curve, x, y } => json!({ "kty": "EC", "crv": curve.name(), "x": b64(x), "y": b64(y) }),
            Self::Ed25519 { x } => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(x) }),
        };
        match members {
            Value::Object(members) => members,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        }
    }

    /// RFC 7638: SHA-256 over the members, in lexicographic order, without blanks. serde_json writes objects in this way.
    fn thumbprint(&self) -> Fingerprint {
        let members = Value::Object(self.members()).to_string();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, members.as_bytes()).as_ref());
        fingerprint
    }
}

/// Detects a public or private key that is used as a secret; PyJWT refuses these too (CVE-2017-11424, CVE-2022-29217).
fn is_key_text(secret: &[u8]) -> Option<&'static str> {
    let text = secret.trim_ascii_start();
    let is_ssh = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|begin| text.starts_with(begin.as_bytes()));
    if text.starts_with(b"-----BEGIN ") {
        Some("a key in PEM")
    } else if is_ssh {
        Some("an SSH public key")
    } else if SubjectPublicKeyInfoRef::try_from(secret).is_ok() {
        Some("a public key in DER")
    } else if text.starts_with(b"{") && memchr::memmem::find(text, b"\"kty\"").is_some() {
        Some("a JWK")
    } else {
        None
    }
}

/// What a PEM text holds instead of a public key, and how to convert it.
fn no_public_key(pem: &[u8]) -> String {
    let text = String::from_utf8_lossy(pem);
    // Only a label in the form of RFC 7468, section 3, is repeated in the message.
    let label = text
        .split("-----BEGIN ")
        .nth(1)
        .and_then(|rest| rest.split("-----").next())
        .filter(|label| label.len() <= 40 && label.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b' '));
    match label {
        None => "it has no PEM; a public key starts with -----BEGIN PUBLIC KEY-----".to_owned(),
        Some("PUBLIC KEY") => {
            "its PEM is invalid: the BEGIN or END line is missing, or the text between them is not base64".to_owned()
        }
        Some(label) if label.ends_with("PRIVATE KEY") => {
            format!(
                "it holds a {label}, which a gateway must not have; extract the public key with `openssl pkey -in KEY -pubout`"
            )
        }
        Some("CERTIFICATE") => {
            "it holds a certificate; extract its key with `openssl x509 -in CERT -pubkey -noout`".to_owned()
        }
        Some("RSA PUBLIC KEY") => {
            "it holds a PKCS #1 RSA key; convert it with `openssl rsa -RSAPublicKey_in -in KEY -pubout`".to_owned()
        }
        Some(label) => format!("it holds {label:?}; a public key starts with -----BEGIN PUBLIC KEY-----"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_if_algorithm_key_id_and_material_are() {
        let key = |algorithm, kid, secret: &[u8]| {
            VerificationKey::from_secret(algorithm, kid, &Secret::new(secret.to_vec())).expect("a key")
        };
        let (one, other) = ([1; 64], [2; 64]);
        let first = key(Algorithm::HS256, Some("a"), &one);
        assert_eq!(first, key(Algorithm::HS256, Some("a"), &one));
        for differs in [
            key(Algorithm::HS384, Some("a"), &one),
            key(Algorithm::HS256, Some("b"), &one),
            key(Algorithm::HS256, None, &one),
            key(Algorithm::HS256, Some("a"), &other),
        ] {
            assert_ne!(first, differs);
        }
    }

    #[test]
    fn other_pem_is_refused_with_a_remedy() {
        for (pem, words) in [
            ("hello", "no PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
                "-pubout",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
                "openssl x509",
            ),
        ] {
            let error = VerificationKey::from_pem(Algorithm::RS256, None, pem.as_bytes())
                .expect_err(pem)
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
