//! JSON Web Keys (RFC 7517): members to key material. What a key is then used for is decided in the parent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Curve, KeyError, Material, key_error};
use crate::secret::Secret;

#[derive(Deserialize)]
pub(super) struct JwkSet {
    pub(super) keys: Vec<serde_json::Value>,
}

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
}

impl Jwk {
    /// RFC 7517, sections 4.2 and 4.3.
    pub(super) fn is_for_verifying(&self) -> bool {
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"))
    }

    /// `None`: of a type or on a curve that is not known here.
    pub(super) fn material(&self) -> Option<Result<Material, KeyError>> {
        let member = |name: &str, value: &Option<String>| match value {
            None => key_error(format!("member `{name}` is missing")),
            Some(text) => URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| KeyError(format!("member `{name}` is not base64url"))),
        };
        // RFC 7518, section 6.3.1.1: no leading zero octets; those who write them anyway mean the same number.
        let number = |name: &str, value: &Option<String>| {
            member(name, value).map(|bytes| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
        };
        let sized = |name: &str, value: &Option<String>, bytes: usize| match member(name, value) {
            Ok(coordinate) if coordinate.len() != bytes => {
                key_error(format!("member `{name}` is not of {bytes} bytes"))
            }
            other => other,
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Some(member("k", &self.k).map(|k| Material::Oct(Secret::new(k)))),
            ("RSA", _) => Some(number("n", &self.n).and_then(|n| number("e", &self.e).map(|e| Material::Rsa { n, e }))),
            ("EC", Some(crv)) => Curve::from_name(crv).map(|curve| {
                let x = sized("x", &self.x, curve.coordinate_bytes())?;
                Ok(Material::Ec {
                    curve,
                    x,
                    y: sized("y", &self.y, curve.coordinate_bytes())?,
                })
            }),
            ("OKP", Some("Ed25519")) => Some(sized("x", &self.x, 32).map(|x| Material::Ed25519 { x })),
            _ => None,
        }
    }
}
