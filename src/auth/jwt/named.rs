//! Whom a token names, and what stores and claims know of them.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::claims::Claims;
use super::keys::VerificationKey;
use super::{JwtAuthenticator, UserIdField, Users};
use crate::auth::store::{JwtFacts, JwtQuestion, Look, StoreError, UserKey};
use crate::credential::Refusal;
use crate::identity::{Facts, Text, UserId};

/// Whom the user id claim names.
#[derive(Debug)]
pub(super) enum NamedUser {
    /// An id: a text that is one, or an integer.
    Id(UserId),
    /// Nothing that could be one.
    Nobody,
}

impl NamedUser {
    pub(super) fn from_claim(claim: &Value, users: &Users) -> Self {
        let by_id = matches!(
            users,
            Users::Store {
                field: UserIdField::Id,
                ..
            }
        );
        let id = match claim {
            Value::String(text) => UserId::new(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => UserId::new(&number.to_string()),
            // A float that is whole is how some JSON writers say an integer, and Django finds that user. Where the claim itself is the
            // identity, or a name, 1.0 is not 1.
            Value::Number(number) => match number.as_f64().filter(|_| by_id) {
                Some(float) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
                    UserId::new(&format!("{float:.0}"))
                }
                _ => return Self::Nobody,
            },
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Self::Nobody,
        };
        id.map_or(Self::Nobody, Self::Id)
    }
}

impl JwtAuthenticator {
    /// Asks the stores, in one go where users and revocations lie in the same one.
    pub(super) async fn ask(
        &self,
        jti: Option<&str>,
        key: &VerificationKey,
        named: Option<&NamedUser>,
        look: &mut Look,
    ) -> Result<JwtFacts, StoreError> {
        let settings = &self.shared.settings;
        let id = match named {
            Some(NamedUser::Id(id)) => Some(id),
            Some(NamedUser::Nobody) | None => None,
        };
        // Who to look up, and whose revocation to look for: where the claim is a name, the id is only in the record.
        let (user, by_claim) = match &settings.users {
            Users::Claims { .. } => (None, id),
            Users::Store {
                field: UserIdField::Id, ..
            } => (id.map(UserKey::Id), id),
            Users::Store {
                field: UserIdField::Username,
                ..
            } => (id.map(|name| UserKey::Name(name.as_str())), None),
        };
        let revocations = JwtQuestion {
            jti,
            kid: Some(key.id()),
            revoked_user: by_claim,
            user: None,
        };
        match (&self.users, &self.revocation) {
            (None, None) => Ok(JwtFacts::default()),
            (None, Some(store)) => store.jwt(revocations, look).await,
            (Some(store), None) => {
                let facts = store
                    .jwt(
                        JwtQuestion {
                            user,
                            ..JwtQuestion::default()
                        },
                        look,
                    )
                    .await?;
                Ok(JwtFacts {
                    user: facts.user,
                    ..JwtFacts::default()
                })
            }
            (Some(users), Some(revocation)) if Rc::ptr_eq(users, revocation) => {
                users.jwt(JwtQuestion { user, ..revocations }, look).await
            }
            (Some(users), Some(revocation)) => {
                let user = users
                    .jwt(
                        JwtQuestion {
                            user,
                            ..JwtQuestion::default()
                        },
                        look,
                    )
                    .await?
                    .user;
                let revoked_user = by_claim.or(user.as_ref().map(|user| &user.id));
                let facts = revocation
                    .jwt(
                        JwtQuestion {
                            revoked_user,
                            ..revocations
                        },
                        look,
                    )
                    .await?;
                Ok(JwtFacts { user, ..facts })
            }
        }
    }

    /// Somebody whom only the token knows. What cannot travel to the upstream unchanged names nobody.
    pub(super) fn known_by_claims(
        &self,
        claims: Claims,
        named: NamedUser,
        username_claim: &str,
    ) -> Result<Facts, Refusal> {
        let NamedUser::Id(id) = named else {
            return Err(Refusal::JwtUserUnnamed);
        };
        let text = |text: &str| Text::new(text).map_err(|_| Refusal::JwtUserUnnamed);
        let username = match claims.get(username_claim) {
            None => None,
            Some(Value::String(name)) => Some(text(name)?),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Some(text(&number.to_string())?),
            Some(_) => return Err(Refusal::JwtUserUnnamed),
        };
        let words = |value: Option<&Value>| -> Result<Vec<Text>, Refusal> {
            match value {
                Some(Value::String(list)) => list.split(' ').filter(|word| !word.is_empty()).map(text).collect(),
                Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).map(text).collect(),
                _ => Ok(Vec::new()),
            }
        };
        let kept = &self.shared.settings.kept;
        let email = claims.text("email").filter(|_| kept.email).map(text).transpose()?;
        let groups = claims.get("groups").filter(|groups| kept.groups && groups.is_array());
        let scopes = claims.get("scope").or(claims.get("scp")).filter(|_| kept.scopes);
        Ok(Facts {
            authenticator: Arc::clone(&self.shared.settings.name),
            id,
            username,
            email,
            groups: words(groups)?,
            scopes: words(scopes)?,
            claims: claims.only(&kept.claims),
            attributes: serde_json::Map::new(),
        })
    }
}
