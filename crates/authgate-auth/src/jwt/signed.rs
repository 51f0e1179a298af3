//! From a token to one with a valid signature: its form, its issuer, its key.

use authgate_core::credential::Defect;
use serde_json::{Map, Value};

use super::VerifiedBy;
use super::issuers::{Issuers, SelectedIssuer};
use super::keys::VerificationKey;
use super::segments::Segments;
use super::settings::{JwtSettings, KeySet, Profile};

/// A well-formed token, and the issuer whose keys may verify it. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Unverified<'t, 's> {
    segments: Segments<'t>,
    /// The claims, if they were parsed to select the issuer.
    claims: Option<Map<String, Value>>,
    pub(super) selected: SelectedIssuer<'s>,
}

impl<'t, 's> Unverified<'t, 's> {
    /// Parses a token, and selects its issuer.
    ///
    /// With one issuer, the claims are not parsed before the signature is verified. With several, they are parsed here, and the same claims
    /// are checked later. So `iss` has only one reading.
    pub(super) fn parse(settings: &'s JwtSettings, token: &'t [u8]) -> Result<Self, Defect> {
        let (issuers, profile) = (&settings.issuers, settings.issuers.profile());
        if token.len() > issuers.token_bytes() {
            return Err(Defect::Size);
        }
        let segments = Segments::parse(token, profile.padding())?;
        if profile == Profile::Rfc9068 && !segments.header.access_token {
            return Err(Defect::HeaderType);
        }
        let (selected, claims) = match issuers {
            Issuers::One(issuer) => {
                let name = None;
                (SelectedIssuer { at: 0, name, issuer }, None)
            }
            Issuers::ByName(table) => {
                let claims = segments.claims()?;
                let name = claims.get("iss").and_then(Value::as_str);
                let selected = name.and_then(|name| table.find(name)).ok_or(Defect::Issuer)?;
                if token.len() > selected.issuer.token_bytes {
                    return Err(Defect::Size);
                }
                (selected, Some(claims))
            }
        };
        Ok(Self {
            segments,
            claims,
            selected,
        })
    }

    /// Verifies the signature with the keys of the issuer.
    pub(super) fn verify(self) -> Result<Signed<'t, 's>, Defect> {
        let key = self.selected.issuer.keys.verify(&self.segments)?;
        Ok(Signed { token: self, key })
    }
}

/// A well-formed token with a valid signature of its issuer. Its claims are not checked yet.
#[derive(Debug)]
pub(super) struct Signed<'t, 's> {
    token: Unverified<'t, 's>,
    pub(super) key: &'s VerificationKey,
}

impl<'s> Signed<'_, 's> {
    /// The issuer and its key.
    pub(super) fn verified_by(&self) -> VerifiedBy<'s> {
        VerifiedBy {
            selected: self.token.selected,
            key: self.key,
        }
    }

    /// The claims: a JSON object.
    pub(super) fn claims(self) -> Result<Map<String, Value>, Defect> {
        match self.token.claims {
            Some(claims) => Ok(claims),
            None => self.token.segments.claims(),
        }
    }
}

impl KeySet {
    /// The key that verifies the signature.
    fn verify(&self, segments: &Segments<'_>) -> Result<&VerificationKey, Defect> {
        let (keys, by_kid) = match self {
            Self::Static(keys) => (keys, false),
            Self::Jwks(keys) => (keys, true),
        };
        let mut defect = Defect::KeyId;
        for key in keys {
            let agree = match (key.kid(), segments.header.kid.as_deref()) {
                (Some(own), Some(sent)) => own == sent,
                _ => !by_kid,
            };
            if !agree {
                continue;
            }
            if key.algorithm().name() != segments.header.alg {
                defect = defect.max(Defect::Algorithm);
                continue;
            }
            if key.verifies(segments.signed, &segments.signature) {
                return Ok(key);
            }
            defect = Defect::Signature;
        }
        Err(defect)
    }
}

/// The payload of a token, after its signature was verified with a key of `settings`. Its claims are not checked.
///
/// # Errors
/// The token is malformed, its issuer is not known, or no key of the issuer verifies its signature.
pub fn verified_payload(settings: &JwtSettings, token: &[u8]) -> Result<Vec<u8>, Defect> {
    Unverified::parse(settings, token)?
        .verify()
        .map(|signed| signed.token.segments.into_payload())
}
