//! The user that the claims of a token name, and what they say about that user.

use std::sync::Arc;

use authgate_core::identity::{INVALID_TEXT, InvalidText, KeyIdentity, Text, UserId, UserInfo};
use serde_json::Value;

use super::Claims;
use crate::identities::IdentityFactory;

/// Which numbers are user ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdNumbers {
    /// Integers only: if the claim itself is the identity, or a username, 1.0 is not 1.
    Integers,
    /// Integers and floats without a fraction. Some JSON writers write an integer as a float, and Django finds that user.
    WholeFloats,
}

/// The user that the user id claim names.
#[derive(Debug)]
pub(crate) enum NamedUser {
    /// A valid id: a string or an integer.
    Id(UserId),
    /// The claim is not a valid id; holds the reason.
    Invalid(&'static str),
}

impl NamedUser {
    /// The id, if the claim is a valid one.
    pub(crate) fn id(&self) -> Option<&UserId> {
        match self {
            Self::Id(id) => Some(id),
            Self::Invalid(_) => None,
        }
    }

    /// The id.
    ///
    /// # Errors
    /// The claim, whose name is `claim`, is not a valid one.
    pub(crate) fn into_id(self, claim: &str) -> Result<UserId, ClaimProblem> {
        match self {
            Self::Id(id) => Ok(id),
            Self::Invalid(problem) => Err(ClaimProblem::names_no_user(claim, problem)),
        }
    }

    pub(crate) fn from_claim(claim: &Value, numbers: IdNumbers) -> Self {
        const NO_ID: &str = "must be an id of 1 to 255 bytes without control characters and outer blanks";
        let id = match claim {
            Value::String(text) => UserId::new(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => UserId::new(&number.to_string()),
            Value::Number(number) => match number.as_f64().filter(|_| numbers == IdNumbers::WholeFloats) {
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

/// Why the claims do not describe a user. The text names the claim, and has nothing of its value.
#[derive(Debug)]
pub(crate) enum ClaimProblem {
    /// The user id claim or the username claim is missing or not valid.
    NamesNoUser(Arc<str>),
    /// A header cannot carry a claim.
    Unsendable(Arc<str>),
}

impl ClaimProblem {
    pub(crate) fn names_no_user(claim: &str, problem: &str) -> Self {
        Self::NamesNoUser(format!("{claim} {problem}").into())
    }
}

/// Describes the user with this id by the claims alone. A value that a header cannot carry unchanged is refused. `key`: the key that verified
/// the token.
pub(crate) fn user_info(
    claims: Claims,
    id: UserId,
    username_claim: &str,
    identities: &IdentityFactory,
    key: Option<Arc<KeyIdentity>>,
) -> Result<UserInfo, ClaimProblem> {
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
    let username = username.map_err(|problem| ClaimProblem::names_no_user(username_claim, problem))?;
    let text = |text: &str, claim: &str| {
        Text::new(text).map_err(|InvalidText| ClaimProblem::Unsendable(format!("{claim} {INVALID_TEXT}").into()))
    };
    let words = |value: Option<&Value>, claim: &str| -> Result<Vec<Text>, ClaimProblem> {
        let words: Vec<&str> = match value {
            Some(Value::String(list)) => list.split(' ').filter(|word| !word.is_empty()).collect(),
            Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).collect(),
            // Other types give no groups or scopes, so they meet no requirement.
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
        };
        words.into_iter().map(|word| text(word, claim)).collect()
    };
    let kept = identities.kept_claims();
    let email = claims.text("email").filter(|_| kept.email);
    let email = email.map(|email| text(email, "email")).transpose()?;
    let groups = claims.get("groups").filter(|groups| kept.groups && groups.is_array());
    let scopes = claims.get("scope").or(claims.get("scp")).filter(|_| kept.scopes);
    let (groups, scopes) = (words(groups, "groups")?, words(scopes, "scope")?);
    Ok(UserInfo {
        authenticator: identities.authenticator(),
        issuer: None,
        key,
        id,
        username,
        email,
        groups,
        scopes,
        claims: claims.only(&kept.claims),
        attributes: serde_json::Map::new(),
    })
}
