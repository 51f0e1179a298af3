//! `Authorization: Bearer <jwt>`: judged as SimpleJWT's `JWTAuthentication` and `JWTStatelessUserAuthentication` do, check by check
//! and in their order.
//!
//! Everything that a token says is read by ourselves and strictly; the only thing left to a library is the signature.

mod claims;
pub mod keys;
mod segments;
pub mod sign;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use serde_json::Value;

use self::claims::{Claims, Failed};
use self::keys::VerificationKey;
use self::segments::{Header, Segments};
use super::cache::{self, VerdictCache};
use super::store::{JwtFacts, JwtQuestion, Store, StoreError, TokenDigest, UserKey};
use super::{Judged, Now};
use crate::credential::{Judge, JwtFault, Refusal, Shape, Words};
use crate::identity::{Facts, Identity, Text, UserId};
use crate::outbound::identity::IdentityTable;

/// What the configuration says of one JWT authenticator.
#[derive(Debug)]
pub struct Settings {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Schemes, compared exactly.
    pub schemes: Vec<String>,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// What the challenge names.
    pub realm: String,
    /// The keys, and how one is chosen.
    pub keys: KeySet,
    /// Longer tokens are refused unread.
    pub token_bytes: usize,
    /// What the claims must say.
    pub rules: Rules,
    /// Whose word counts for who it is.
    pub users: Users,
    /// Name of the store whose revocations are obeyed.
    pub revocation: Option<Arc<str>>,
    /// What is remembered.
    pub cache: cache::Settings,
    /// Claims that identities keep, because a route or an `[identity]` table asks for them.
    pub kept_claims: Vec<String>,
}

/// Keys, and how a token chooses among them.
#[derive(Debug)]
pub enum KeySet {
    /// Keys of the file: a `kid` on both sides must agree, else every key of the token's algorithm is tried.
    Static(Vec<VerificationKey>),
    /// Keys of a JWK Set: `kid` chooses; no `kid`, no key.
    Jwks(Vec<VerificationKey>),
}

impl KeySet {
    /// All keys.
    pub fn keys(&self) -> &[VerificationKey] {
        match self {
            Self::Static(keys) | Self::Jwks(keys) => keys,
        }
    }

    fn candidates<'k>(&'k self, header: &'k Header) -> impl Iterator<Item = &'k VerificationKey> {
        let by_kid = matches!(self, Self::Jwks(_));
        self.keys().iter().filter(move |key| {
            let agree = match (key.kid(), header.kid.as_deref()) {
                (Some(own), Some(sent)) => own == sent,
                _ => !by_kid,
            };
            agree && key.algorithm().name() == header.alg
        })
    }
}

/// Where the user of a token comes from.
#[derive(Debug, Clone)]
pub enum Users {
    /// From the claims alone.
    Claims {
        /// The claim that names them.
        username_claim: String,
    },
    /// From a store: the record must exist.
    Store {
        /// Name of the store.
        store: Arc<str>,
        /// Which field of the record the user id claim holds.
        field: UserIdField,
        /// Inactive users are refused.
        check_active: bool,
        /// The claim that must equal the record's `password_md5`, if that is looked at.
        revoke_claim: Option<String>,
    },
}

/// Which field of a user record the user id claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdField {
    /// Its id.
    Id,
    /// Its login name.
    Username,
}

/// SimpleJWT's token classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// `AccessToken`.
    Access,
    /// `SlidingToken`.
    Sliding,
}

impl TokenType {
    /// What the token type claim says.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Sliding => "sliding",
        }
    }

    /// What SimpleJWT calls the class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Access => "AccessToken",
            Self::Sliding => "SlidingToken",
        }
    }
}

/// What the claims of a token must say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Accepted issuers; none: not looked at.
    pub issuer: Vec<String>,
    /// Accepted audiences; none: not looked at.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The longest that a token may live.
    pub max_lifetime: Option<Duration>,
    /// The claim that names the user.
    pub user_id_claim: String,
    /// The claim that names the kind of token, if it is looked at.
    pub token_type_claim: Option<String>,
    /// The claim that names the token, if it is looked at.
    pub jti_claim: Option<String>,
    /// Accepted kinds of tokens.
    pub token_types: Vec<TokenType>,
}

impl Rules {
    /// SimpleJWT's defaults.
    pub fn simplejwt() -> Self {
        Self {
            issuer: Vec::new(),
            audience: Vec::new(),
            leeway: Duration::ZERO,
            max_lifetime: None,
            user_id_claim: "user_id".to_owned(),
            token_type_claim: Some("token_type".to_owned()),
            jti_claim: Some("jti".to_owned()),
            token_types: vec![TokenType::Access],
        }
    }

    /// RFC 7519 and nothing of Django.
    pub fn plain() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            jti_claim: None,
            ..Self::simplejwt()
        }
    }
}

/// The part that all workers share.
#[derive(Debug)]
pub struct Shared {
    settings: Settings,
    cache: VerdictCache,
    tables: Arc<[IdentityTable]>,
}

impl Shared {
    /// Takes the settings in. Identities get their header values for each of `tables`.
    pub fn new(settings: Settings, tables: Arc<[IdentityTable]>) -> Arc<Self> {
        Arc::new(Self {
            cache: VerdictCache::new(settings.cache),
            settings,
            tables,
        })
    }

    /// What was configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// One worker's authenticator.
#[derive(Debug)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
    users: Option<Rc<Store>>,
    revocation: Option<Rc<Store>>,
}

/// The end of a judgement that did not come to an identity.
enum End {
    Refused(Refusal, ForNow),
    Unknown(StoreError),
}

/// Whether time alone may heal a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ForNow {
    Yes,
    No,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, ForNow::No)
    }
}

impl From<JwtFault> for End {
    fn from(fault: JwtFault) -> Self {
        Refusal::Jwt(fault).into()
    }
}

impl From<Failed> for End {
    fn from(failed: Failed) -> Self {
        Self::Refused(
            Refusal::Jwt(failed.fault),
            if failed.for_now { ForNow::Yes } else { ForNow::No },
        )
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

impl JwtAuthenticator {
    /// Joins what is shared with a worker's handles on the stores that it names.
    pub fn new(shared: Arc<Shared>, users: Option<Rc<Store>>, revocation: Option<Rc<Store>>) -> Self {
        Self {
            shared,
            users,
            revocation,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.shared.settings.header
    }

    /// The token classes that it accepts, in the order in which refusals name them.
    pub fn token_types(&self) -> &[TokenType] {
        &self.shared.settings.rules.token_types
    }

    /// `None`: not for me.
    pub(super) async fn judge(
        &self,
        words: &Words<'_>,
        judge: Judge,
        now: Now,
    ) -> Result<Option<Result<Arc<Identity>, Refusal>>, StoreError> {
        let shape = words.shape();
        let mine = |scheme: &[u8]| self.shared.settings.schemes.iter().any(|own| own.as_bytes() == scheme);
        if !shape.scheme().is_some_and(mine) {
            return Ok(None);
        }
        let Shape::Pair(_, token) = shape else {
            return Ok(Some(Err(Refusal::BearerNotTwoWords)));
        };
        if judge == Judge::OnlyToRefuse || token.len() > self.shared.settings.token_bytes {
            return Ok(Some(Err(Refusal::Jwt(JwtFault::Invalid))));
        }
        let key = *TokenDigest::of(token).as_bytes();
        if let Some(verdict) = self.shared.cache.find(&key, now) {
            return Ok(Some(verdict));
        }
        let judged = match self.weigh(token, now).await {
            Ok(judged) => judged,
            Err(End::Refused(refusal, for_now)) => Judged::Refused {
                refusal,
                for_now: for_now == ForNow::Yes,
            },
            Err(End::Unknown(error)) => return Err(error),
        };
        self.shared.cache.insert(key, &judged, now);
        Ok(Some(match judged {
            Judged::Accepted { identity, .. } => Ok(identity),
            Judged::Refused { refusal, .. } => Err(refusal),
        }))
    }

    /// The whole judgement, in the order in which SimpleJWT comes to it.
    async fn weigh(&self, token: &[u8], now: Now) -> Result<Judged, End> {
        let settings = &self.shared.settings;
        let segments = Segments::parse(token).map_err(|_| JwtFault::Invalid)?;
        let key = settings
            .keys
            .candidates(&segments.header)
            .find(|key| key.verifies(segments.signed, &segments.signature))
            .ok_or(JwtFault::Invalid)?;
        let members = segments.claims().map_err(|_| JwtFault::Invalid)?;
        let claims = Claims::check(members, &settings.rules, now)?;

        let named = claims.get(&settings.rules.user_id_claim).map(NamedUser::from_claim);
        let facts = self.ask(&claims, key, named.as_ref()).await?;
        if facts.jti_revoked || facts.kid_revoked || facts.user_revoked.is_some_and(|by| claims.issued_by(by)) {
            return Err(JwtFault::Revoked.into());
        }
        claims.check_kind(&settings.rules)?;

        let named = named.ok_or(Refusal::JwtUserUnnamed)?;
        let validity = claims.validity;
        let facts = match &settings.users {
            Users::Claims { username_claim } => self.known_by_claims(claims, named, username_claim)?,
            Users::Store {
                check_active,
                revoke_claim,
                ..
            } => {
                let user = facts.user.ok_or(Refusal::JwtUserNotFound)?;
                if *check_active && !user.active {
                    return Err(Refusal::JwtUserInactive.into());
                }
                if let Some(name) = revoke_claim
                    && (user.password_md5.is_none() || user.password_md5.as_deref() != claims.text(name))
                {
                    return Err(Refusal::JwtPasswordChanged.into());
                }
                Facts {
                    authenticator: Arc::clone(&settings.name),
                    id: user.id,
                    username: user.username,
                    email: user.email,
                    groups: user.groups,
                    scopes: Vec::new(),
                    claims: claims.only(&settings.kept_claims),
                    attributes: user.attributes,
                }
            }
        };
        let identity = Identity::new(facts, &self.shared.tables).map_err(|_| Refusal::JwtUserUnnamed)?;
        Ok(Judged::Accepted {
            identity: Arc::new(identity),
            validity,
        })
    }

    /// Asks the stores, in one go where users and revocations lie in the same one.
    async fn ask(
        &self,
        claims: &Claims,
        key: &VerificationKey,
        named: Option<&NamedUser>,
    ) -> Result<JwtFacts, StoreError> {
        let settings = &self.shared.settings;
        let user = match (&settings.users, named) {
            (
                Users::Store {
                    field: UserIdField::Id, ..
                },
                Some(NamedUser::Id(id)),
            ) => Some(UserKey::Id(id)),
            (
                Users::Store {
                    field: UserIdField::Username,
                    ..
                },
                Some(NamedUser::Id(id)),
            ) => Some(UserKey::Name(id.as_str())),
            _ => None,
        };
        let by_claim = match (&settings.users, named) {
            (
                Users::Store {
                    field: UserIdField::Username,
                    ..
                },
                _,
            ) => None,
            (_, Some(NamedUser::Id(id))) => Some(id),
            _ => None,
        };
        let jti = settings.rules.jti_claim.as_deref().and_then(|name| claims.text(name));
        let revocations = JwtQuestion {
            jti,
            kid: Some(key.id()),
            revoked_user: by_claim,
            user: None,
        };
        match (&self.users, &self.revocation) {
            (None, None) => Ok(JwtFacts::default()),
            (None, Some(store)) => store.jwt(revocations).await,
            (Some(store), None) => {
                let facts = store
                    .jwt(JwtQuestion {
                        user,
                        ..JwtQuestion::default()
                    })
                    .await?;
                Ok(JwtFacts {
                    user: facts.user,
                    ..JwtFacts::default()
                })
            }
            (Some(users), Some(revocation)) if Rc::ptr_eq(users, revocation) => {
                users.jwt(JwtQuestion { user, ..revocations }).await
            }
            (Some(users), Some(revocation)) => {
                let user = users
                    .jwt(JwtQuestion {
                        user,
                        ..JwtQuestion::default()
                    })
                    .await?
                    .user;
                let revoked_user = by_claim.or(user.as_ref().map(|user| &user.id));
                let facts = revocation
                    .jwt(JwtQuestion {
                        revoked_user,
                        ..revocations
                    })
                    .await?;
                Ok(JwtFacts { user, ..facts })
            }
        }
    }

    /// Somebody whom only the token knows. What cannot travel to the upstream unchanged names nobody.
    fn known_by_claims(&self, claims: Claims, named: NamedUser, username_claim: &str) -> Result<Facts, Refusal> {
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
        Ok(Facts {
            authenticator: Arc::clone(&self.shared.settings.name),
            id,
            username,
            email: claims.text("email").map(text).transpose()?,
            groups: match claims.get("groups") {
                Some(groups @ Value::Array(_)) => words(Some(groups))?,
                _ => Vec::new(),
            },
            scopes: words(claims.get("scope").or(claims.get("scp")))?,
            claims: claims.only(&self.shared.settings.kept_claims),
            attributes: serde_json::Map::new(),
        })
    }
}

/// What a token says and how far it gets by itself, for people; nothing is decided by it.
#[derive(Debug)]
pub struct Explanation {
    /// The claims, once the form and the signature hold.
    pub claims: Option<Value>,
    /// The key that verified it: its `kid`, else its thumbprint.
    pub key: Option<String>,
    /// Passed every check that asks no store; else the first that failed.
    pub verdict: Result<(), Refusal>,
}

/// Judges a token as an authenticator of these settings would, as far as that goes without asking a store.
pub fn explain(settings: &Settings, token: &[u8], now: Now) -> Explanation {
    let invalid = |claims, key| Explanation {
        claims,
        key,
        verdict: Err(Refusal::Jwt(JwtFault::Invalid)),
    };
    if token.len() > settings.token_bytes {
        return invalid(None, None);
    }
    let Ok(segments) = Segments::parse(token) else {
        return invalid(None, None);
    };
    let verifies = |key: &&VerificationKey| key.verifies(segments.signed, &segments.signature);
    let Some(key) = settings.keys.candidates(&segments.header).find(verifies) else {
        return invalid(None, None);
    };
    let key = Some(key.id().to_owned());
    let Ok(members) = segments.claims() else {
        return invalid(None, key);
    };
    let claims = Some(Value::Object(members.clone()));
    let checked = Claims::check(members, &settings.rules, now)
        .and_then(|checked| checked.check_kind(&settings.rules).map(|()| checked))
        .map_err(|failed| Refusal::Jwt(failed.fault));
    let verdict = checked.and_then(|checked| {
        checked
            .get(&settings.rules.user_id_claim)
            .map(|_| ())
            .ok_or(Refusal::JwtUserUnnamed)
    });
    Explanation { claims, key, verdict }
}

impl Claims {
    /// Whether the token was issued by that second, or does not say when.
    fn issued_by(&self, second: i64) -> bool {
        self.issued_at.is_none_or(|issued| issued <= i128::from(second))
    }
}

/// Whom the user id claim names.
#[derive(Debug)]
enum NamedUser {
    /// An id: a text that is one, or an integer.
    Id(UserId),
    /// Nothing that could be one.
    Nobody,
}

impl NamedUser {
    fn from_claim(claim: &Value) -> Self {
        let id = match claim {
            Value::String(text) => UserId::new(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => UserId::new(&number.to_string()),
            // A float that is whole is how some JSON writers say an integer.
            Value::Number(number) => match number.as_f64() {
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
