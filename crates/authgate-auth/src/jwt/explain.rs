//! Explains a token check by check, for `authgate jwt inspect`. The first failed check decides. The result comes from the same code that
//! authenticates requests.

use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Defect, JwtFault, Refusal, TypeMismatch};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::keys::VerificationKey;
use super::keys::remote::KnownKeys;
use super::segments::{header_as_sent, payload_as_sent};
use super::{Issuer, Issuers, JwtEvaluator, JwtSettings, KeySet, Profile, Rules, Stop, Unverified, Users};
use crate::decision::Decision;
use crate::error::EvaluationError;
use crate::now::Now;
use crate::store::Lookup;

/// One check, in the order of [`Check::in_order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The token does not have this defect.
    Without(Defect),
    /// The token, its signing key, and its user's tokens of that time are not revoked.
    NotRevoked,
    /// It is of an accepted token type.
    TokenType(TypeMismatch),
    /// It names a user, with an id and a username that a header can carry.
    NamesUser,
    /// That user exists.
    UserExists,
    /// That user is active.
    UserActive,
    /// The user's password has not changed since the token was issued.
    PasswordUnchanged,
    /// All identity values can be sent in headers.
    HeaderSafe,
    /// Requests can prove what it is bound to.
    Bound,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The check passed.
    Passed,
    /// The check failed. The response to the client depends on this check.
    Failed,
    /// The store or the keys that it needs are unavailable.
    Unknown,
    /// The configuration does not require it.
    NotAsked,
    /// A check before it has failed.
    NotReached,
}

impl State {
    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotAsked => "not asked",
            Self::NotReached => "not reached",
        }
    }
}

/// The result of the evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The token is accepted.
    Accepted,
    /// The token is refused.
    Refused(Refusal),
    /// A store or the keys are unavailable, with the error.
    Unknown(String),
}

/// The content of a token, and the result of each check.
#[derive(Debug)]
pub struct Explanation {
    /// The header as sent, unverified.
    pub header: Option<Map<String, Value>>,
    /// The claims as sent.
    pub claims: Option<Map<String, Value>>,
    /// The issuer that `iss` has selected, if the authenticator has several.
    pub issuer: Option<Arc<str>>,
    /// The key that verified it: its `kid`, else its thumbprint. `None`: the claims are unverified.
    pub key: Option<String>,
    /// Every check, in order.
    pub checks: Vec<(Check, State)>,
    /// The value that failed the check, and the accepted values, if these add to the text of the check.
    pub found: Option<String>,
    /// How it ended.
    pub ending: Ending,
}

impl JwtEvaluator {
    /// Evaluates a token as for a request, but without a cache, and reports each check.
    pub async fn explain(&self, token: &[u8], now: Now, time_limit: Duration) -> Explanation {
        let settings = &*self.settings;
        let parsed = Unverified::parse(&settings.issuers, token).ok();
        let selected = parsed.as_ref().map(|parsed| parsed.selected);
        let issuer = selected.map(|selected| selected.issuer);
        let mut lookup = Lookup::until(Instant::now() + time_limit);
        let mut unknown = None;
        let ending = match self.check(token, now, &mut lookup).await {
            Ok(Decision::Accepted { .. }) => Ending::Accepted,
            Ok(Decision::Refused(refused)) | Err(Stop::Refused(refused)) => Ending::Refused(refused.into_parts().0),
            Err(Stop::Failed(error)) => {
                unknown = Some(match &error {
                    EvaluationError::Keys(_) => Check::Without(Defect::KeyId),
                    EvaluationError::Store(_)
                    | EvaluationError::Introspection(_)
                    | EvaluationError::Busy
                    | EvaluationError::ReplayMemoryFull => Check::first_that_asks_a_store(settings),
                });
                Ending::Unknown(self.describe(&error, parsed.as_ref()))
            }
        };
        let known = self.known_keys(parsed.as_ref());
        let keys = match (&known, issuer) {
            (Some(known), _) => known.keys.as_slice(),
            (None, Some(issuer)) => issuer.keys.keys(),
            (None, None) => &[],
        };
        let key = parsed.as_ref().and_then(|parsed| {
            let at = parsed.find_key(keys, parsed.selected.issuer.keys.selection()).ok()?;
            Some(keys.get(at)?.id().to_owned())
        });
        let last = match &ending {
            Ending::Accepted => None,
            Ending::Refused(refusal) => Check::that_failed(refusal).map(|check| (check, State::Failed)),
            Ending::Unknown(_) => unknown.map(|check| (check, State::Unknown)),
        };
        let mut ended = false;
        let checks = Check::in_order(settings).into_iter().map(|check| {
            let state = match last {
                Some((last, state)) if last == check => {
                    ended = true;
                    state
                }
                _ if !check.is_made(settings, issuer) => State::NotAsked,
                // The stores are asked before the remaining checks.
                _ if ended
                    || (last.is_some_and(|(_, state)| state == State::Unknown)
                        && !matches!(check, Check::Without(_))) =>
                {
                    State::NotReached
                }
                _ => State::Passed,
            };
            (check, state)
        });
        let checks = checks.collect();
        let mut claims = payload_as_sent(token);
        for issuer in settings.issuers.all() {
            if let Users::Store {
                revoke_claim: Some(name),
                ..
            } = &issuer.users
                && let Some(value) = claims.as_mut().and_then(|claims| claims.get_mut(name))
            {
                // This claim is derived from the hash of the user's password.
                *value = Value::from("(not shown)");
            }
        }
        let header = header_as_sent(token);
        let found = match &ending {
            Ending::Refused(
                Refusal::JwtInvalidUserClaim(which)
                | Refusal::JwtUnsendableClaim(which)
                | Refusal::TokenUnsendableValue(which),
            ) => Some(which.to_string()),
            Ending::Refused(_) | Ending::Accepted | Ending::Unknown(_) => last.and_then(|(check, _)| {
                found(
                    check,
                    settings,
                    issuer.map(|issuer| (issuer, keys)),
                    header.as_ref(),
                    claims.as_ref(),
                    now,
                )
            }),
        };
        Explanation {
            header,
            found,
            claims,
            issuer: selected.and_then(|selected| selected.name.cloned()),
            key,
            checks,
            ending,
        }
    }
}

impl JwtEvaluator {
    /// The published keys of the token's issuer, if they are there.
    fn known_keys(&self, parsed: Option<&Unverified<'_, '_>>) -> Option<Arc<KnownKeys>> {
        self.sources.of_issuer(parsed?.selected.at)?.keys().ok()
    }

    /// The error, and for missing keys why the last fetch has failed.
    fn describe(&self, error: &EvaluationError, parsed: Option<&Unverified<'_, '_>>) -> String {
        let source = parsed.and_then(|parsed| self.sources.of_issuer(parsed.selected.at));
        if let EvaluationError::Keys(_) = error
            && let Some(problem) = source.and_then(|source| source.status().error)
        {
            return format!("{error}: {problem}");
        }
        error.to_string()
    }
}

impl Check {
    /// All checks, in order.
    pub fn in_order(settings: &JwtSettings) -> Vec<Self> {
        let mut defects = Defect::ALL.to_vec();
        if let Issuers::ByName(_) = settings.issuers {
            // The claims are parsed to select the issuer, before its keys are tried.
            let selects = |defect: &Defect| matches!(defect, Defect::Claims | Defect::Issuer);
            let at = defects.iter().position(|defect| *defect == Defect::KeyId).unwrap_or(0);
            let selecting: Vec<Defect> = defects.extract_if(at.., |defect| selects(defect)).collect();
            defects.splice(at..at, selecting);
        }
        defects
            .into_iter()
            .map(Self::Without)
            .chain([Self::NotRevoked])
            .chain(
                [
                    TypeMismatch::NoExpiry,
                    TypeMismatch::NoId,
                    TypeMismatch::NoType,
                    TypeMismatch::WrongType,
                ]
                .map(Self::TokenType),
            )
            .chain([
                Self::NamesUser,
                Self::UserExists,
                Self::UserActive,
                Self::PasswordUnchanged,
                Self::HeaderSafe,
                Self::Bound,
            ])
            .collect()
    }

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Without(defect) => defect.label(),
            Self::NotRevoked => "revocation",
            Self::TokenType(TypeMismatch::NoExpiry) => "has expiry",
            Self::TokenType(TypeMismatch::NoId) => "has id",
            Self::TokenType(TypeMismatch::NoType) => "has type",
            Self::TokenType(TypeMismatch::WrongType) => "type",
            Self::NamesUser => "names a user",
            Self::UserExists => "user exists",
            Self::UserActive => "user is active",
            Self::PasswordUnchanged => "password",
            Self::HeaderSafe => "identity fields",
            Self::Bound => "confirmation",
        }
    }

    /// What the check requires.
    pub fn text(self) -> &'static str {
        match self {
            Self::Without(defect) => match defect {
                Defect::Repeated => "the credential occurs once",
                Defect::Size => "the token is not longer than token_bytes",
                Defect::Form => "the token has three segments of canonical base64url",
                Defect::Header => "the header is a JSON object without crit; kid is a string; b64 is not false",
                Defect::HeaderType => "the header's typ is at+jwt",
                Defect::KeyId => "a key has the header's kid",
                Defect::Algorithm => "the header's alg is the algorithm of that key",
                Defect::Signature => "that key signed the token",
                Defect::Claims => "the claims are a JSON object without duplicate members",
                Defect::IssuedAt => "iat, if present, is not in the future",
                Defect::NotBefore => "nbf, if present, is not in the future",
                Defect::Expiry => "exp, if present, is in the future",
                Defect::Lifetime => "the lifetime is at most max_lifetime",
                Defect::Issuer => "iss is an accepted issuer",
                Defect::Audience => "aud contains an accepted audience",
                Defect::Texts => "sub and jti, if present, are strings",
                Defect::Required => "iss, sub, client_id, aud and iat are present",
                Defect::TokenId => "the token id is a string or a number",
            },
            Self::NotRevoked => "the token, its user and its key are not revoked",
            Self::TokenType(mismatch) => match mismatch {
                TypeMismatch::NoExpiry => "exp is present",
                TypeMismatch::NoId => "the token id is present",
                TypeMismatch::NoType => "the token type is present",
                TypeMismatch::WrongType => "the token type is accepted",
            },
            Self::NamesUser => "the token names a user; a header can carry the id and username",
            Self::UserExists => "the user exists in the store",
            Self::UserActive => "the user is active",
            Self::PasswordUnchanged => "the user's password has not changed since",
            Self::HeaderSafe => "headers can carry all values of `[identity]`",
            Self::Bound => "cnf, if present, has jkt or x5t#S256, which each request must prove",
        }
    }

    /// `issuer`: the one that decides about the token. If there is none, any check that depends on it counts.
    fn is_made(self, settings: &JwtSettings, issuer: Option<&Issuer>) -> bool {
        if let Self::Without(Defect::HeaderType | Defect::Required) = self {
            return settings.issuers.profile() == Profile::Rfc9068;
        }
        let Some(Issuer {
            rules,
            keys,
            users,
            binding,
            ..
        }) = issuer
        else {
            return true;
        };
        let Rules {
            issuer,
            audience,
            max_lifetime,
            token_type_claim,
            jti_claim,
            ..
        } = rules;
        match self {
            Self::Without(Defect::KeyId) => match keys {
                KeySet::Static(keys) => keys.iter().any(|key| key.kid().is_some()),
                KeySet::Jwks(_) | KeySet::Remote(_) => true,
            },
            Self::Without(Defect::TokenId) => settings.revocation.is_some() && jti_claim.is_some(),
            Self::Without(Defect::Lifetime) => max_lifetime.is_some(),
            Self::Without(Defect::Issuer) => !issuer.is_empty(),
            Self::Without(Defect::Audience) => !audience.is_empty(),
            Self::Without(_) | Self::TokenType(TypeMismatch::NoExpiry) | Self::NamesUser | Self::HeaderSafe => true,
            Self::NotRevoked => settings.revocation.is_some(),
            Self::TokenType(TypeMismatch::NoId) => jti_claim.is_some(),
            Self::TokenType(TypeMismatch::NoType | TypeMismatch::WrongType) => token_type_claim.is_some(),
            Self::UserExists => matches!(users, Users::Store { .. }),
            Self::UserActive => matches!(users, Users::Store { check_active: true, .. }),
            Self::Bound => !binding.is_off(),
            Self::PasswordUnchanged => matches!(
                users,
                Users::Store {
                    revoke_claim: Some(_),
                    ..
                }
            ),
        }
    }

    fn that_failed(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::Jwt(JwtFault::Invalid(defect)) => Self::Without(*defect),
            Refusal::Jwt(JwtFault::Expired) => Self::Without(Defect::Expiry),
            Refusal::Jwt(JwtFault::Revoked(_)) => Self::NotRevoked,
            Refusal::Jwt(JwtFault::TypeMismatch(mismatch)) => Self::TokenType(*mismatch),
            Refusal::JwtInvalidUserClaim(_) => Self::NamesUser,
            Refusal::JwtUnsendableClaim(_) => Self::HeaderSafe,
            Refusal::JwtUserNotFound => Self::UserExists,
            Refusal::JwtUserInactive => Self::UserActive,
            Refusal::JwtPasswordChanged => Self::PasswordUnchanged,
            Refusal::Binding(_) => Self::Bound,
            // Cannot occur: only a token is explained, without a header.
            Refusal::BearerNotTwoWords
            | Refusal::TokenMissing
            | Refusal::TokenHasSpaces
            | Refusal::TokenHasInvalidCharacters
            | Refusal::TokenUnknown
            | Refusal::TokenInvalid(_)
            | Refusal::TokenUserInactive
            | Refusal::Introspected(_)
            | Refusal::TokenUnsendableValue(_) => return None,
        })
    }

    fn first_that_asks_a_store(settings: &JwtSettings) -> Self {
        if settings.revocation.is_some() {
            Self::NotRevoked
        } else {
            Self::UserExists
        }
    }
}

/// Maximum number of issuers in a message.
const SHOWN_ISSUERS: usize = 8;

/// The value that failed the check, and the accepted values.
fn found(
    check: Check,
    settings: &JwtSettings,
    issuer: Option<(&Issuer, &[VerificationKey])>,
    header: Option<&Map<String, Value>>,
    claims: Option<&Map<String, Value>>,
    now: Now,
) -> Option<String> {
    let says = |members: Option<&Map<String, Value>>, name: &str| match members?.get(name) {
        None => Some(format!("it has no {name}")),
        Some(value) => Some(format!("its {name} is {value}")),
    };
    let list = |names: Vec<&str>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    if let (Check::Without(Defect::Issuer), Issuers::ByName(table)) = (check, &settings.issuers) {
        let names: Vec<&str> = table.names().map(AsRef::as_ref).take(SHOWN_ISSUERS).collect();
        let more = match table.names().len().saturating_sub(names.len()) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        return Some(format!(
            "{}; accepted: {}{more}",
            says(claims, "iss")?,
            names.join(", ")
        ));
    }
    let (Issuer { rules, .. }, keys) = issuer?;
    Some(match check {
        Check::Without(Defect::HeaderType) => says(header, "typ")?,
        Check::Without(Defect::KeyId) => {
            let kids = keys.iter().filter_map(|key| key.kid()).collect();
            format!("{}; the keys have: {}", says(header, "kid")?, list(kids))
        }
        Check::Without(Defect::Algorithm) => {
            let mut names: Vec<&str> = keys.iter().map(|key| key.algorithm().name()).collect();
            names.dedup();
            format!("{}; the keys are for: {}", says(header, "alg")?, list(names))
        }
        Check::Without(Defect::IssuedAt) => format!("{}; it is {} now", says(claims, "iat")?, now.unix_seconds()),
        Check::Without(Defect::NotBefore) => format!("{}; it is {} now", says(claims, "nbf")?, now.unix_seconds()),
        Check::Without(Defect::Expiry) => format!("{}; it is {} now", says(claims, "exp")?, now.unix_seconds()),
        Check::Without(Defect::Issuer) => format!("{}; accepted: {}", says(claims, "iss")?, rules.issuer.join(", ")),
        Check::Without(Defect::Audience) => {
            format!("{}; accepted: {}", says(claims, "aud")?, rules.audience.join(", "))
        }
        Check::TokenType(TypeMismatch::WrongType) => {
            let accepted: Vec<&str> = rules.token_types.iter().map(|kind| kind.as_str()).collect();
            let name = rules.token_type_claim.as_deref()?;
            format!("{}; accepted: {}", says(claims, name)?, accepted.join(", "))
        }
        Check::TokenType(TypeMismatch::NoId) | Check::Without(Defect::TokenId) => {
            says(claims, rules.jti_claim.as_deref()?)?
        }
        Check::TokenType(TypeMismatch::NoType) => says(claims, rules.token_type_claim.as_deref()?)?,
        Check::UserExists | Check::UserActive => says(claims, &rules.user_id_claim)?,
        Check::Without(_)
        | Check::NotRevoked
        | Check::TokenType(TypeMismatch::NoExpiry)
        | Check::NamesUser
        | Check::PasswordUnchanged
        | Check::HeaderSafe
        | Check::Bound => return None,
    })
}
