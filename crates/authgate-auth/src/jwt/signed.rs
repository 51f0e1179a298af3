//! From a token to one with a valid signature: its form, its issuer, its key.

use authgate_core::credential::Defect;
use serde_json::{Map, Value};

use super::VerifiedBy;
use super::issuers::{Issuers, SelectedIssuer};
use super::key_set::KeySelection;
use super::keys::VerificationKey;
use super::rules::Profile;
use super::segments::Segments;

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
    pub(super) fn parse(issuers: &'s Issuers, token: &'t [u8]) -> Result<Self, Defect> {
        let profile = issuers.profile();
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

    /// Its claims. Nothing in them is verified.
    pub(super) fn unverified_claims(&self) -> Result<Map<String, Value>, Defect> {
        match &self.claims {
            Some(claims) => Ok(claims.clone()),
            None => self.segments.claims(),
        }
    }

    /// Verifies the signature with the keys of the issuer that the configuration has.
    pub(super) fn verify(self) -> Result<Signed<'t, 's, 's>, Defect> {
        let keys = &self.selected.issuer.keys;
        let at = self.find_key(keys.keys(), keys.selection())?;
        let key = keys.keys().get(at).ok_or(Defect::KeyId)?;
        Ok(self.signed_by(key))
    }

    /// The token, whose signature `key` has verified.
    pub(super) fn signed_by<'k>(self, key: &'k VerificationKey) -> Signed<'t, 's, 'k> {
        Signed { token: self, key }
    }

    /// Whether its header has a `kid`.
    pub(super) fn has_kid(&self) -> bool {
        self.segments.header.kid.is_some()
    }

    /// The position of the key that verifies the signature.
    pub(super) fn find_key(&self, keys: &[VerificationKey], selection: KeySelection) -> Result<usize, Defect> {
        let segments = &self.segments;
        let mut defect = Defect::KeyId;
        for (at, key) in keys.iter().enumerate() {
            let agree = match (key.kid(), segments.header.kid.as_deref()) {
                (Some(own), Some(sent)) => own == sent,
                _ => selection == KeySelection::ByKidIfBoth,
            };
            if !agree {
                continue;
            }
            if key.algorithm().name() != segments.header.alg {
                defect = defect.max(Defect::Algorithm);
                continue;
            }
            if key.verifies(segments.signed, &segments.signature) {
                return Ok(at);
            }
            defect = Defect::Signature;
        }
        Err(defect)
    }
}

/// A well-formed token with a valid signature of its issuer. Its claims are not checked yet.
#[derive(Debug)]
pub(super) struct Signed<'t, 's, 'k> {
    token: Unverified<'t, 's>,
    pub(super) key: &'k VerificationKey,
}

impl<'s, 'k> Signed<'_, 's, 'k> {
    /// The issuer and its key.
    pub(super) fn verified_by(&self) -> VerifiedBy<'s, 'k> {
        VerifiedBy {
            selected: self.token.selected,
            key: self.key,
        }
    }

    /// The payload.
    pub(super) fn into_payload(self) -> Vec<u8> {
        self.token.segments.into_payload()
    }

    /// The claims: a JSON object.
    pub(super) fn claims(self) -> Result<Map<String, Value>, Defect> {
        match self.token.claims {
            Some(claims) => Ok(claims),
            None => self.token.segments.claims(),
        }
    }
}
