//! The user that a token names, and the facts about that user from stores and claims.

use std::rc::Rc;
use std::sync::Arc;

use authgate_core::credential::Refusal;
use authgate_core::identity::{INVALID_TEXT, InvalidText, Text, UserId, UserInfo};
use serde_json::Value;

use super::claims::Claims;
use super::keys::VerificationKey;
use super::{JwtEvaluator, UserIdField, Users};
use crate::store::{JwtFacts, JwtQuery, Lookup, StoreError, UserKey};

/// The user that the user id claim names.
#[derive(Debug)]
pub(super) enum NamedUser {
    /// A valid id: a string or an integer.
    Id(UserId),
    /// The claim is not a valid id; holds the reason.
    Invalid(&'static str),
}

impl NamedUser {
    /// The id, if the claim is a valid one.
    pub(super) fn id(&self) -> Option<&UserId> {
        match self {
            Self::Id(id) => Some(id),
            Self::Invalid(_) => None,
        }
    }

    pub(super) fn from_claim(claim: &Value, users: &Users) -> Self {
        const NO_ID: &str = "must be an id of 1 to 255 bytes without control characters and outer blanks";
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
            // Some JSON writers write an integer as a float, and Django finds that user. If the claim itself is the identity, or a
            // username, 1.0 is not 1.
            Value::Number(number) => match number.as_f64().filter(|_| by_id) {
                Some(float) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
                    UserId::new(&format!("{float:.0}"))
                }
                Some(_) | None => return Self::Invalid("is a number, but not an integer"),
            },
            Value::Null => return Self::Invalid("is null"),
            Value::Bool(_) => return Self::Invalid("is a boolean"),
            Value::Array(_) => return Self::Invalid("is a list"),
            Value::Object(_) => return Self::Invalid("is an object"),
        };
        id.map_or(Self::Invalid(NO_ID), Self::Id)
    }
}

/// The refusal of a token because this claim does not name a user.
pub(super) fn invalid_user(claim: &str, problem: &str) -> Refusal {
    Refusal::JwtInvalidUserClaim(format!("{claim} {problem}").into())
}

impl JwtEvaluator {
    /// Asks the stores; with a single lookup if users and revocations are in the same store.
    pub(super) async fn look_up(
        &self,
        jti: Option<&str>,
        key: &VerificationKey,
        named: Option<&NamedUser>,
        lookup: &mut Lookup,
    ) -> Result<JwtFacts, StoreError> {
        let settings = &self.settings;
        let id = named.and_then(NamedUser::id);
        // The user to look up, and the id whose revocation to look up. If the claim is a username, only the user record has the id.
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
        let revocations = JwtQuery {
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
                        JwtQuery {
                            user,
                            ..JwtQuery::default()
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
                users.jwt(JwtQuery { user, ..revocations }, lookup).await
            }
            (Some(users), Some(revocation)) => {
                let user = users
                    .jwt(
                        JwtQuery {
                            user,
                            ..JwtQuery::default()
                        },
                        lookup,
                    )
                    .await?
                    .user;
                let revoked_user = by_claim.or(user.as_ref().map(|user| &user.id));
                let facts = revocation
                    .jwt(
                        JwtQuery {
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

    /// Builds the facts from the claims only. A value that a header cannot carry unchanged is refused.
    pub(super) fn user_info_from_claims(
        &self,
        claims: Claims,
        named: NamedUser,
        username_claim: &str,
        key: &VerificationKey,
    ) -> Result<UserInfo, Refusal> {
        let id = match named {
            NamedUser::Id(id) => id,
            NamedUser::Invalid(problem) => return Err(invalid_user(&self.settings.rules.user_id_claim, problem)),
        };
        let username = match claims.get(username_claim) {
            None => Ok(None),
            Some(Value::String(name)) => Text::new(name).map(Some).map_err(|InvalidText| INVALID_TEXT),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Text::new(&number.to_string())
                .map(Some)
                .map_err(|InvalidText| INVALID_TEXT),
            Some(Value::Number(_)) => Err("is a number, but not an integer"),
            Some(Value::Null) => Err("is null"),
            Some(Value::Bool(_)) => Err("is a boolean"),
            Some(Value::Array(_)) => Err("is a list"),
            Some(Value::Object(_)) => Err("is an object"),
        };
        let username = username.map_err(|problem| invalid_user(username_claim, problem))?;
        let text = |text: &str, claim: &str| {
            Text::new(text).map_err(|InvalidText| Refusal::JwtUnsendableClaim(format!("{claim} {INVALID_TEXT}").into()))
        };
        let words = |value: Option<&Value>, claim: &str| -> Result<Vec<Text>, Refusal> {
            let words: Vec<&str> = match value {
                Some(Value::String(list)) => list.split(' ').filter(|word| !word.is_empty()).collect(),
                Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).collect(),
                // Other types give no groups or scopes, so they meet no requirement.
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
            };
            words.into_iter().map(|word| text(word, claim)).collect()
        };
        let kept = self.identities.kept_claims();
        let email = claims.text("email").filter(|_| kept.email);
        let email = email.map(|email| text(email, "email")).transpose()?;
        let groups = claims.get("groups").filter(|groups| kept.groups && groups.is_array());
        let scopes = claims.get("scope").or(claims.get("scp")).filter(|_| kept.scopes);
        let (groups, scopes) = (words(groups, "groups")?, words(scopes, "scope")?);
        Ok(UserInfo {
            authenticator: self.identities.authenticator(),
            key: Some(Arc::clone(key.identity())),
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
