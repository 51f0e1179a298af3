//! A token explained to people, check by check, in the order in which the first that fails decides. Nothing is decided by it: the
//! verdict comes from the same judgement that requests get.

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::segments::{header_as_sent, payload_as_sent};
use super::{End, JwtAuthenticator, KeySet, Profile, Rules, Settings, Signed, Users};
use crate::auth::store::Lookup;
use crate::auth::{Decision, Now};
use crate::credential::{Defect, JwtFault, Refusal, Unfit};

/// One check, in the order of [`Check::all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The token has not this defect.
    Sound(Defect),
    /// Neither it, nor its user's tokens of that time, nor its key was revoked.
    NotRevoked,
    /// It is of an accepted class.
    Fit(Unfit),
    /// It names somebody, in a text that can be told to an upstream.
    NamesSomebody,
    /// That user exists.
    UserExists,
    /// That user may log in.
    UserActive,
    /// The user's password is the one of when it was issued.
    PasswordUnchanged,
    /// What upstreams are told can stand in a header.
    Sayable,
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was made, and holds.
    Passed,
    /// It was made, and does not hold. This is what the client is told, as far as clients are told.
    Failed,
    /// The store that it needs could not be asked.
    Unknown,
    /// The configuration does not ask for it.
    NotAsked,
    /// A check before it has failed.
    NotReached,
}

impl State {
    /// In a word or two.
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

/// How a judgement ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Somebody.
    Accepted,
    /// Nobody.
    Refused(Refusal),
    /// A store could not be asked: this is what it said.
    Unknown(String),
}

/// What a token says, and how far it gets.
#[derive(Debug)]
pub struct Explanation {
    /// The header as sent. Nobody has to believe it.
    pub header: Option<Map<String, Value>>,
    /// The claims as sent.
    pub claims: Option<Map<String, Value>>,
    /// The key that verified it: its `kid`, else its thumbprint. Without one the claims are hearsay.
    pub key: Option<String>,
    /// Every check, in order.
    pub checks: Vec<(Check, State)>,
    /// What the check that failed found, and what it wants, where there is more to say than its text.
    pub found: Option<String>,
    /// How it ended.
    pub ending: Ending,
}

impl JwtAuthenticator {
    /// Judges a token as requests have it judged, past every cache, and says how far it got.
    pub async fn explain(&self, token: &[u8], now: Now) -> Explanation {
        let settings = &self.shared.settings;
        let mut lookup = Lookup::until(Instant::now() + self.time_limit());
        let ending = match self.evaluate(token, now, &mut lookup).await {
            Ok(Decision::Accepted { .. }) => Ending::Accepted,
            Ok(Decision::Refused(refusal)) | Err(End::Refused(refusal)) => Ending::Refused(refusal),
            Err(End::Unknown(error)) => Ending::Unknown(error.to_string()),
        };
        let last = match &ending {
            Ending::Accepted => None,
            Ending::Refused(refusal) => Check::that_failed(refusal).map(|check| (check, State::Failed)),
            Ending::Unknown(_) => Some((Check::first_that_asks_a_store(settings), State::Unknown)),
        };
        let mut ended = false;
        let checks = Check::all().map(|check| {
            let state = match last {
                Some((last, state)) if last == check => {
                    ended = true;
                    state
                }
                _ if !check.is_made(settings) => State::NotAsked,
                // Stores are asked before the rest is looked at.
                _ if ended
                    || (last.is_some_and(|(_, state)| state == State::Unknown)
                        && !matches!(check, Check::Sound(_))) =>
                {
                    State::NotReached
                }
                _ => State::Passed,
            };
            (check, state)
        });
        let checks = checks.collect();
        let mut claims = payload_as_sent(token);
        if let (
            Users::Store {
                revoke_claim: Some(name),
                ..
            },
            Some(claims),
        ) = (&settings.users, &mut claims)
            && let Some(value) = claims.get_mut(name)
        {
            // Made of the hash of the user's password.
            *value = Value::from("(not shown)");
        }
        let header = header_as_sent(token);
        let found = match &ending {
            Ending::Refused(
                Refusal::JwtUserUnnamed(which) | Refusal::JwtClaimUnsayable(which) | Refusal::TokenFactUnsayable(which),
            ) => Some(which.to_string()),
            Ending::Refused(_) | Ending::Accepted | Ending::Unknown(_) => {
                last.and_then(|(check, _)| found(check, settings, header.as_ref(), claims.as_ref(), now))
            }
        };
        Explanation {
            header,
            found,
            claims,
            key: Signed::check(settings, token)
                .ok()
                .map(|signed| signed.key.id().to_owned()),
            checks,
            ending,
        }
    }
}

impl Check {
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        Defect::ALL
            .into_iter()
            .map(Self::Sound)
            .chain([Self::NotRevoked])
            .chain([Unfit::NoExpiry, Unfit::NoId, Unfit::NoType, Unfit::WrongType].map(Self::Fit))
            .chain([
                Self::NamesSomebody,
                Self::UserExists,
                Self::UserActive,
                Self::PasswordUnchanged,
                Self::Sayable,
            ])
    }

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sound(defect) => defect.label(),
            Self::NotRevoked => "revocation",
            Self::Fit(Unfit::NoExpiry) => "has expiry",
            Self::Fit(Unfit::NoId) => "has id",
            Self::Fit(Unfit::NoType) => "has type",
            Self::Fit(Unfit::WrongType) => "type",
            Self::NamesSomebody => "names a user",
            Self::UserExists => "user exists",
            Self::UserActive => "user is active",
            Self::PasswordUnchanged => "password",
            Self::Sayable => "identity fields",
        }
    }

    /// What it asks, in a few words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sound(defect) => match defect {
                Defect::Repeated => "it came once",
                Defect::Size => "it is not longer than token_bytes",
                Defect::Form => "three segments of canonical base64url",
                Defect::Header => "the header is a JSON object without crit, its kid a string, b64 not false",
                Defect::HeaderType => "the header's typ is at+jwt",
                Defect::KeyId => "a key agrees with the header's kid",
                Defect::Algorithm => "the header's alg is the algorithm of that key",
                Defect::Signature => "that key has signed it",
                Defect::Claims => "the claims are a JSON object, no member twice",
                Defect::IssuedAt => "iat, if present, is a time that is not ahead",
                Defect::NotBefore => "nbf, if present, is a time that is not ahead",
                Defect::Expiry => "exp, if present, is a time that has not passed",
                Defect::Lifetime => "it lives no longer than max_lifetime",
                Defect::Issuer => "iss is an accepted issuer",
                Defect::Audience => "aud names an accepted audience",
                Defect::Texts => "sub and jti, if present, are strings",
                Defect::Required => "iss, sub, client_id, aud and iat are there",
                Defect::TokenId => "its id is a text or a number by which it can be revoked",
            },
            Self::NotRevoked => "neither it, its user nor its key is revoked",
            Self::Fit(unfit) => match unfit {
                Unfit::NoExpiry => "exp is there",
                Unfit::NoId => "its id is there",
                Unfit::NoType => "its type is there",
                Unfit::WrongType => "its type is accepted",
            },
            Self::NamesSomebody => "it names a user: id and username can stand in a header",
            Self::UserExists => "that user is in the store",
            Self::UserActive => "that user is active",
            Self::PasswordUnchanged => "the user's password is still the same",
            Self::Sayable => "what `[identity]` sends upstream can stand in a header",
        }
    }

    fn is_made(self, settings: &Settings) -> bool {
        let Rules {
            issuer,
            audience,
            max_lifetime,
            token_type_claim,
            jti_claim,
            profile,
            ..
        } = &settings.rules;
        let access_token = *profile == Profile::Rfc9068;
        match self {
            Self::Sound(Defect::HeaderType | Defect::Required) => access_token,
            Self::Sound(Defect::KeyId) => match &settings.keys {
                KeySet::Static(keys) => keys.iter().any(|key| key.kid().is_some()),
                KeySet::Jwks(_) => true,
            },
            Self::Sound(Defect::TokenId) => settings.revocation.is_some() && jti_claim.is_some(),
            Self::Sound(Defect::Lifetime) => max_lifetime.is_some(),
            Self::Sound(Defect::Issuer) => !issuer.is_empty(),
            Self::Sound(Defect::Audience) => !audience.is_empty(),
            Self::Sound(_) | Self::Fit(Unfit::NoExpiry) | Self::NamesSomebody | Self::Sayable => true,
            Self::NotRevoked => settings.revocation.is_some(),
            Self::Fit(Unfit::NoId) => jti_claim.is_some(),
            Self::Fit(Unfit::NoType | Unfit::WrongType) => token_type_claim.is_some(),
            Self::UserExists => matches!(settings.users, Users::Store { .. }),
            Self::UserActive => matches!(settings.users, Users::Store { check_active: true, .. }),
            Self::PasswordUnchanged => matches!(
                settings.users,
                Users::Store {
                    revoke_claim: Some(_),
                    ..
                }
            ),
        }
    }

    fn that_failed(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::Jwt(JwtFault::Invalid(defect)) => Self::Sound(*defect),
            Refusal::Jwt(JwtFault::Expired) => Self::Sound(Defect::Expiry),
            Refusal::Jwt(JwtFault::Revoked(_)) => Self::NotRevoked,
            Refusal::Jwt(JwtFault::Unfit(unfit)) => Self::Fit(*unfit),
            Refusal::JwtUserUnnamed(_) => Self::NamesSomebody,
            Refusal::JwtClaimUnsayable(_) => Self::Sayable,
            Refusal::JwtUserNotFound => Self::UserExists,
            Refusal::JwtUserInactive => Self::UserActive,
            Refusal::JwtPasswordChanged => Self::PasswordUnchanged,
            // A token is explained, and no header.
            Refusal::BearerNotTwoWords
            | Refusal::TokenMissing
            | Refusal::TokenHasSpaces
            | Refusal::TokenHasInvalidCharacters
            | Refusal::TokenUnknown
            | Refusal::TokenUserInactive
            | Refusal::TokenFactUnsayable(_) => return None,
        })
    }

    fn first_that_asks_a_store(settings: &Settings) -> Self {
        if settings.revocation.is_some() {
            Self::NotRevoked
        } else {
            Self::UserExists
        }
    }
}

/// What a token says where a check failed, and what is wanted there.
fn found(
    check: Check,
    settings: &Settings,
    header: Option<&Map<String, Value>>,
    claims: Option<&Map<String, Value>>,
    now: Now,
) -> Option<String> {
    let says = |members: Option<&Map<String, Value>>, name: &str| match members?.get(name) {
        None => Some(format!("it has no {name}")),
        Some(value) => Some(format!("its {name} is {value}")),
    };
    let keys = settings.keys.keys();
    let list = |names: Vec<&str>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let rules = &settings.rules;
    Some(match check {
        Check::Sound(Defect::HeaderType) => says(header, "typ")?,
        Check::Sound(Defect::KeyId) => {
            let kids = keys.iter().filter_map(|key| key.kid()).collect();
            format!("{}; the keys have: {}", says(header, "kid")?, list(kids))
        }
        Check::Sound(Defect::Algorithm) => {
            let mut names: Vec<&str> = keys.iter().map(|key| key.algorithm().name()).collect();
            names.dedup();
            format!("{}; the keys are for: {}", says(header, "alg")?, list(names))
        }
        Check::Sound(Defect::IssuedAt) => format!("{}; it is {} now", says(claims, "iat")?, now.unix_seconds()),
        Check::Sound(Defect::NotBefore) => format!("{}; it is {} now", says(claims, "nbf")?, now.unix_seconds()),
        Check::Sound(Defect::Expiry) => format!("{}; it is {} now", says(claims, "exp")?, now.unix_seconds()),
        Check::Sound(Defect::Issuer) => format!("{}; accepted: {}", says(claims, "iss")?, rules.issuer.join(", ")),
        Check::Sound(Defect::Audience) => format!("{}; accepted: {}", says(claims, "aud")?, rules.audience.join(", ")),
        Check::Fit(Unfit::WrongType) => {
            let accepted: Vec<&str> = rules.token_types.iter().map(|kind| kind.as_str()).collect();
            let name = rules.token_type_claim.as_deref()?;
            format!("{}; accepted: {}", says(claims, name)?, accepted.join(", "))
        }
        Check::Fit(Unfit::NoId) | Check::Sound(Defect::TokenId) => says(claims, rules.jti_claim.as_deref()?)?,
        Check::Fit(Unfit::NoType) => says(claims, rules.token_type_claim.as_deref()?)?,
        Check::UserExists | Check::UserActive => says(claims, &rules.user_id_claim)?,
        Check::Sound(_)
        | Check::NotRevoked
        | Check::Fit(Unfit::NoExpiry)
        | Check::NamesSomebody
        | Check::PasswordUnchanged
        | Check::Sayable => return None,
    })
}
