//! Whether a token that is to be revoked would be accepted, and by which id it is revoked.

use authgate_core::credential::TypeMismatch;
use tokio::time::Instant;

use super::key_sources::{self, KeySources, NotFound};
use super::signed::Unverified;
use super::{JwtSettings, profile};
use crate::claims::Claims;
use crate::error::EvaluationError;
use crate::now::Now;
use crate::revocable::{Irrevocable, Revocable};
use crate::store::Lookup;

impl JwtSettings {
    /// What these settings say about a token that is to be revoked. A token that is not valid yet counts as accepted.
    ///
    /// # Errors
    /// The keys that would verify it are not there.
    pub(crate) async fn revocable(
        &self,
        sources: &KeySources,
        token: &[u8],
        now: Now,
        deadline: Instant,
    ) -> Result<Revocable, EvaluationError> {
        if !self.form.matches(token) {
            return Ok(Revocable::NotAccepted);
        }
        let Ok(unverified) = Unverified::parse(&self.issuers, token) else {
            return Ok(Revocable::NotAccepted);
        };
        // The claims come first: the keys of an issuer are not needed to know that a token is not from there.
        let rules = &unverified.selected.issuer.rules;
        let Ok(members) = unverified.unverified_claims() else {
            return Ok(Revocable::NotAccepted);
        };
        let begins = Claims::begin(&members, rules.leeway, now);
        let Ok(claims) = profile::check(members, rules, begins) else {
            return Ok(Revocable::NotAccepted);
        };
        match sources.of_issuer(unverified.selected.at) {
            None => {
                if unverified.verify().is_err() {
                    return Ok(Revocable::NotAccepted);
                }
            }
            Some(source) => {
                let mut lookup = Lookup::until(deadline);
                match key_sources::find(source, &unverified, async || {}, &mut lookup).await {
                    Ok(_) => {}
                    Err(NotFound::Defect(_)) => return Ok(Revocable::NotAccepted),
                    Err(NotFound::Failed(error)) => return Err(error),
                }
            }
        }
        match profile::check_kind(&claims, rules, &rules.token_types) {
            Ok(()) => {}
            Err(TypeMismatch::NoId) => return Ok(Revocable::Irrevocable(Irrevocable::NoId)),
            Err(TypeMismatch::NoExpiry | TypeMismatch::NoType | TypeMismatch::WrongType) => {
                return Ok(Revocable::Irrevocable(Irrevocable::OtherType));
            }
        }
        let Some(store) = &self.revocation else {
            return Ok(Revocable::Irrevocable(Irrevocable::NoStore));
        };
        Ok(claims.revocable(rules.jti_claim.as_deref(), store))
    }
}
