//! Whether a token that is to be revoked is active, and by which id it is revoked.

use std::sync::Arc;

use super::{Answer, IntrospectionSettings, SharedEndpoint};
use crate::claims::Claims;
use crate::error::EvaluationError;
use crate::now::Now;
use crate::revocable::{Irrevocable, Revocable};

impl IntrospectionSettings {
    /// What these settings say about a token that is to be revoked. It asks the endpoint.
    ///
    /// # Errors
    /// The endpoint has not said whether the token is active.
    pub(crate) async fn revocable(
        &self,
        endpoint: &Arc<SharedEndpoint>,
        token: &[u8],
        now: Now,
    ) -> Result<Revocable, EvaluationError> {
        let is_readable = self.form.matches(token)
            && token.len() <= self.token_bytes
            && !token.is_empty()
            && token.iter().all(u8::is_ascii_graphic);
        if !is_readable {
            return Ok(Revocable::NotAccepted);
        }
        let Answer::Active(members) = endpoint.introspect(token).await? else {
            return Ok(Revocable::NotAccepted);
        };
        let begins = Claims::begin(&members, self.rules.leeway, now);
        let Ok(claims) = Claims::check(members, self.rules.claims(), begins) else {
            return Ok(Revocable::NotAccepted);
        };
        Ok(match &self.revocation {
            None => Revocable::Irrevocable(Irrevocable::NoStore),
            Some(store) => claims.revocable(self.rules.jti_claim.as_deref(), store),
        })
    }
}
