//! JSON Web Keys (RFC 7517): from members to key material. The parent module decides how a key is used.

use authgate_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Curve, KeyError, Material, key_error};

#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    pub(super) kid: Option<String>,
    pub(super) alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<IgnoredAny>,
}

impl Jwk {
    /// Its purpose, if it is not for verifying signatures (RFC 7517, sections 4.2 and 4.3).
    pub(super) fn other_purpose(&self) -> Option<String> {
        let is_verify = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if let Some(usage) = self.usage.as_deref().filter(|usage| *usage != "sig") {
            Some(format!("for {} (`use`), not for signatures", brief(usage)))
        } else if self.key_ops.as_ref().is_some_and(|ops| !is_verify(ops)) {
            Some("not for verifying (`key_ops`)".to_owned())
        } else {
            None
        }
    }

    /// Whether it holds the private half (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2).
    pub(super) fn is_private(&self) -> bool {
        self.d.is_some()
    }

    /// Whether it is a shared secret (RFC 7518, section 6.4).
    pub(super) fn is_secret(&self) -> bool {
        self.kty == "oct"
    }

    /// Parses its key material.
    pub(super) fn material(&self) -> Result<Material, KeyError> {
        let member = |name: &str, value: &Option<String>| match value {
            None => key_error(format!("member `{name}` is missing")),
            Some(text) => URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| KeyError(format!("member `{name}` is not base64url"))),
        };
        // RFC 7518, section 6.3.1.1, forbids leading zero octets. Some writers add them; they do not change the number.
        let number = |name: &str, value: &Option<String>| {
            member(name, value).map(|bytes| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
        };
        let sized = |name: &str, value: &Option<String>, bytes: usize| match member(name, value) {
            Ok(coordinate) if coordinate.len() != bytes => {
                key_error(format!("member `{name}` must have {bytes} bytes"))
            }
            other => other,
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => member("k", &self.k).map(|k| Material::Oct(Secret::new(k))),
            ("RSA", _) => Ok(Material::Rsa {
                n: number("n", &self.n)?,
                e: number("e", &self.e)?,
            }),
            ("EC", Some(crv)) => match Curve::from_name(crv) {
                Some(curve) => Ok(Material::Ec {
                    curve,
                    x: sized("x", &self.x, curve.coordinate_bytes())?,
                    y: sized("y", &self.y, curve.coordinate_bytes())?,
                }),
                None => key_error(format!("its curve {} is not P-256, P-384 or P-521", brief(crv))),
            },
            ("OKP", Some("Ed25519")) => Ok(Material::Ed25519 {
                x: sized("x", &self.x, 32)?,
            }),
            ("OKP", Some(crv)) => key_error(format!("its curve {} is not Ed25519", brief(crv))),
            ("EC" | "OKP", None) => key_error("member `crv` is missing"),
            (kty, _) => key_error(format!("its type {} is not RSA, EC, OKP or oct", brief(kty))),
        }
    }
}

/// A text of the set in quotes, truncated.
pub(super) fn brief(text: &str) -> String {
    const MAX_LENGTH: usize = 64;
    match text.char_indices().nth(MAX_LENGTH) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}…", &text[..at]),
    }
}
