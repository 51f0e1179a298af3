//! [`ClientKey`]: a public key that a client sends in the header of a proof (RFC 9449, section 4.2).

use serde::Deserialize;
use serde_json::Value;

use super::jwk::Jwk;
use super::{Algorithm, Fingerprint, KeyError, Material, VerificationKey, key_error};

/// The largest modulus of an RSA key, in bytes. A client chooses its key and the gateway pays for it: a signature of 8,192 bits costs four
/// times one of 4,096.
const MAX_MODULUS: usize = 512;
/// The largest exponent of an RSA key, in bytes: the cost grows with its length. All common keys have 65,537.
const MAX_EXPONENT: usize = 4;

/// The members that only private and symmetric keys have (RFC 7518, sections 6.2.2, 6.3.2 and 6.4; RFC 8037, section 2).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key of a client.
pub(crate) struct ClientKey(Material);

impl ClientKey {
    /// Parses a JWK.
    ///
    /// # Errors
    /// It is not a public key of a supported kind and size.
    pub(crate) fn parse(jwk: Value) -> Result<Self, KeyError> {
        if SECRET_MEMBERS.iter().any(|name| jwk.get(name).is_some()) {
            return key_error("it is a private or a symmetric key");
        }
        let jwk = Jwk::deserialize(jwk).map_err(|_| KeyError("it is not a JWK".to_owned()))?;
        let material = jwk.material()?;
        if let Material::Rsa { n, e } = &material
            && (n.len() > MAX_MODULUS || e.len() > MAX_EXPONENT)
        {
            return key_error("the RSA key is too large");
        }
        Ok(Self(material))
    }

    /// Its thumbprint (RFC 7638).
    pub(crate) fn thumbprint(&self) -> Fingerprint {
        self.0.thumbprint()
    }

    /// The key for one algorithm.
    ///
    /// # Errors
    /// It is not for this algorithm, or is not valid.
    pub(crate) fn with_algorithm(self, algorithm: Algorithm) -> Result<VerificationKey, KeyError> {
        self.0.into_key(algorithm, None)
    }
}
