//! Whom a token names, and what stores and claims know of them.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::claims::Claims;
use super::keys::VerificationKey;
use super::{JwtAuthenticator, UserIdField, Users};
use crate::auth::store::{JwtFacts, JwtQuestion, Lookup, StoreError, UserKey};
use crate::credential::Refusal;
use crate::identity::{Facts, NOT_TEXT, NotText, Text, UserId};

/// Whom the user id claim names.
#[derive(Debug)]
pub(super) enum NamedUser {
    /// An id: a text that is one, or an integer.
    Id(UserId),
    /// Nothing that could be one, and why.
    Nobody(&'static str),
}

impl NamedUser {
    pub(super) fn from_claim(claim: &Value, users: &Users) -> Self {
        const NO_ID: &str = "is no id of 1 to 255 bytes without control characters and outer blanks";
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
                Some(_) | None => return Self::Nobody("is a number, and no integer"),
            },
            Value::Null => return Self::Nobody("is null"),
            Value::Bool(_) => return Self::Nobody("is true or false"),
            Value::Array(_) => return Self::Nobody("is a list"),
            Value::Object(_) => return Self::Nobody("is an object"),
        };
        id.map_or(Self::Nobody(NO_ID), Self::Id)
    }
}

/// The refusal of a token whose user cannot be named for that claim.
pub(super) fn unnamed(claim: &str, problem: &str) -> Refusal {
    Refusal::JwtUserUnnamed(format!("{claim} {problem}").into())
}

impl JwtAuthenticator {
    /// Asks the stores, in one go where users and revocations lie in the same one.
    pub(super) async fn ask(
        &self,
        jti: Option<&str>,
        key: &VerificationKey,
        named: Option<&NamedUser>,
        lookup: &mut Lookup,
    ) -> Result<JwtFacts, StoreError> {
        let settings = &self.shared.settings;
        let id = match named {
            Some(NamedUser::Id(id)) => Some(id),
            Some(NamedUser::Nobody(_)) | None => None,
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
            (None, Some(store)) => store.jwt(revocations, lookup).await,
            (Some(store), None) => {
                let facts = store
                    .jwt(
                        JwtQuestion {
                            user,
                            ..JwtQuestion::default()
                        },
                        lookup,
                    )
                    .await?;
                Ok(JwtFacts {
                    user: facts.user,
                    ..JwtFacts::default()
                })
            }
            (Some(users), Some(revocation)) if Rc::ptr_eq(users, revocation) => {
                users.jwt(JwtQuestion { user, ..revocations }, lookup).await
            }
            (Some(users), Some(revocation)) => {
                let user = users
                    .jwt(
                        JwtQuestion {
                            user,
                            ..JwtQuestion::default()
                        },
                        lookup,
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
                        lookup,
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
        let id = match named {
            NamedUser::Id(id) => id,
            NamedUser::Nobody(problem) => return Err(unnamed(&self.shared.settings.rules.user_id_claim, problem)),
        };
        let username = match claims.get(username_claim) {
            None => Ok(None),
            Some(Value::String(name)) => Text::new(name).map(Some).map_err(|NotText| NOT_TEXT),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Text::new(&number.to_string()).map(Some).map_err(|NotText| NOT_TEXT)
            }
            Some(Value::Number(_)) => Err("is a number, and no integer"),
            Some(Value::Null) => Err("is null"),
            Some(Value::Bool(_)) => Err("is true or false"),
            Some(Value::Array(_)) => Err("is a list"),
            Some(Value::Object(_)) => Err("is an object"),
        };
        let username = username.map_err(|problem| unnamed(username_claim, problem))?;
        let text = |text: &str, claim: &str| {
            Text::new(text).map_err(|NotText| Refusal::JwtClaimUnsayable(format!("{claim} {NOT_TEXT}").into()))
        };
        let words = |value: Option<&Value>, claim: &str| -> Result<Vec<Text>, Refusal> {
            let words: Vec<&str> = match value {
                Some(Value::String(list)) => list.split(' ').filter(|word| !word.is_empty()).collect(),
                Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).collect(),
                // No list of words meets no requirement.
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
            };
            words.into_iter().map(|word| text(word, claim)).collect()
        };
        let kept = &self.shared.settings.kept;
        let email = claims.text("email").filter(|_| kept.email);
        let email = email.map(|email| text(email, "email")).transpose()?;
        let groups = claims.get("groups").filter(|groups| kept.groups && groups.is_array());
        let scopes = claims.get("scope").or(claims.get("scp")).filter(|_| kept.scopes);
        let (groups, scopes) = (words(groups, "groups")?, words(scopes, "scope")?);
        Ok(Facts {
            authenticator: Arc::clone(&self.shared.settings.name),
            id,
            username,
            email,
            groups,
            scopes,
            claims: claims.only(&kept.claims),
            attributes: serde_json::Map::new(),
        })
    }
}
