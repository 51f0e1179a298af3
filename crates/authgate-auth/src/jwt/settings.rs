//! The settings of JWT authenticators, and the rules for claims of each profile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::{KeyIdentity, UserId, UserInfo};

use super::issuers::{Issuer, Issuers};
use super::key_sources::KeySources;
use super::keys::VerificationKey;
use super::keys::remote::RemoteKeys;
use crate::claims::ClaimRules;
use crate::claims::user::IdNumbers;
use crate::dependencies::ChangeCounters;
use crate::form::CredentialForm;
use crate::scheme::AuthScheme;
use crate::withdrawn::Withdrawn;

/// The settings of this kind.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Whose tokens are accepted, and by which keys and rules.
    pub issuers: Issuers,
    /// The form of the tokens that are read.
    pub form: CredentialForm,
    /// Name of the store with revocations, if these are checked.
    pub revocation: Option<Arc<str>>,
}

impl JwtSettings {
    /// A source of keys is kept where its settings are equal.
    pub(crate) fn share(
        &self,
        authenticator: &Arc<str>,
        previous: Option<&KeySources>,
        counters: &Arc<ChangeCounters>,
    ) -> KeySources {
        let remote = self.issuers.all().map(|issuer| issuer.keys.remote());
        KeySources::new(authenticator, remote, previous, counters)
    }

    pub(crate) fn stores(&self) -> Vec<&Arc<str>> {
        let of_issuers = self
            .issuers
            .all()
            .flat_map(|issuer| [issuer.users.store(), issuer.binding.store()]);
        let distinct: BTreeSet<&Arc<str>> = of_issuers.flatten().chain(&self.revocation).collect();
        distinct.into_iter().collect()
    }

    pub(crate) fn still_accepts(
        &self,
        user: &UserInfo,
        previous: &Self,
        is_same_store: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(), Withdrawn> {
        let name = user.issuer.as_deref();
        let (Some(issuer), Some(previous_issuer)) =
            (self.issuers.that_accepts(name), previous.issuers.that_accepts(name))
        else {
            return Err(Withdrawn::Issuer);
        };
        if !issuer.keys.still_has(user.key.as_deref(), &previous_issuer.keys) {
            return Err(Withdrawn::Key);
        }
        match (&self.revocation, &previous.revocation) {
            (None, None) => {}
            (Some(store), Some(previous)) if is_same_store(store, previous) => {}
            (None | Some(_), Some(_)) => return Err(Withdrawn::Store),
            (Some(_), None) => return Err(Withdrawn::Stricter),
        }
        issuer.users.still_accepts(&previous_issuer.users, is_same_store)?;
        // A set requires the key id, which the token may not have.
        let requires_key_id = issuer.keys.selection() == KeySelection::ByKid
            && previous_issuer.keys.selection() == KeySelection::ByKidIfBoth;
        // What was accepted is a JWT.
        let reads_jwts = self.form.includes(CredentialForm::Jwt);
        let is_accepted = !requires_key_id
            && reads_jwts
            && issuer.names(&user.id, previous_issuer)
            && issuer.rules.accept_all_of(&previous_issuer.rules)
            && issuer.binding.accept_all_of(&previous_issuer.binding);
        match is_accepted {
            true => Ok(()),
            false => Err(Withdrawn::Stricter),
        }
    }
}

impl Issuer {
    /// Whether a token that has named this user by `previous` names the same one here.
    fn names(&self, user: &UserId, previous: &Self) -> bool {
        match &self.users {
            Users::Claims { .. }
            | Users::Store {
                field: UserIdField::Id, ..
            } => self.namespace.still_names(user, &previous.namespace),
            // The token has named the username, which is not known here.
            Users::Store {
                field: UserIdField::Username,
                ..
            } => self.namespace == previous.namespace,
        }
    }
}

/// Keys, and how a token selects one.
#[derive(Debug, PartialEq, Eq)]
pub enum KeySet {
    /// Keys from key files: if both sides have a `kid`, it must match; otherwise every key of the token's algorithm is tried.
    Static(Vec<VerificationKey>),
    /// Keys of a JWK Set: `kid` selects the key and is required.
    Jwks(Vec<VerificationKey>),
    /// Keys that an identity provider publishes: `kid` selects the key and is required.
    Remote(Arc<RemoteKeys>),
}

/// How a token selects a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeySelection {
    /// If both sides have a `kid`, it must match; otherwise every key of the token's algorithm is tried.
    ByKidIfBoth,
    /// `kid` is required.
    ByKid,
}

impl KeySet {
    /// The keys of the configuration. It has none of those that are published.
    pub fn keys(&self) -> &[VerificationKey] {
        match self {
            Self::Static(keys) | Self::Jwks(keys) => keys,
            Self::Remote(_) => &[],
        }
    }

    /// How a token selects one.
    pub(super) fn selection(&self) -> KeySelection {
        match self {
            Self::Static(_) => KeySelection::ByKidIfBoth,
            Self::Jwks(_) | Self::Remote(_) => KeySelection::ByKid,
        }
    }

    /// How published keys are fetched.
    pub fn remote(&self) -> Option<&Arc<RemoteKeys>> {
        match self {
            Self::Remote(remote) => Some(remote),
            Self::Static(_) | Self::Jwks(_) => None,
        }
    }

    /// Whether this key is still accepted. It was one of `previous`.
    fn still_has(&self, key: Option<&KeyIdentity>, previous: &Self) -> bool {
        match (self, previous) {
            (Self::Remote(own), Self::Remote(previous)) => {
                let is_listed = |name| own.algorithms.iter().any(|algorithm| algorithm.name() == name);
                own.location == previous.location && key.is_some_and(|key| is_listed(key.algorithm))
            }
            // What is published there is not known here.
            (Self::Remote(_), _) => false,
            (Self::Static(_) | Self::Jwks(_), _) => self.keys().iter().any(|own| Some(&**own.identity()) == key),
        }
    }
}

/// Where the user of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// From the claims only.
    Claims {
        /// The claim with the username.
        username_claim: String,
    },
    /// From a store: the user must exist there.
    Store {
        /// Name of the store.
        store: Arc<str>,
        /// The field of the record that the user id claim holds.
        field: UserIdField,
        /// Inactive users are refused.
        check_active: bool,
        /// The claim that must equal the record's `password_md5`, if that is checked.
        revoke_claim: Option<String>,
    },
}

impl Users {
    /// Name of the store, if the users are in one.
    pub fn store(&self) -> Option<&Arc<str>> {
        match self {
            Self::Claims { .. } => None,
            Self::Store { store, .. } => Some(store),
        }
    }

    /// Which numbers the user id claim may be.
    pub(super) fn id_numbers(&self) -> IdNumbers {
        match self {
            Self::Store {
                field: UserIdField::Id, ..
            } => IdNumbers::WholeFloats,
            Self::Claims { .. } | Self::Store { .. } => IdNumbers::Integers,
        }
    }

    fn still_accepts(&self, previous: &Self, is_same_store: &dyn Fn(&str, &str) -> bool) -> Result<(), Withdrawn> {
        match (self, previous) {
            (Self::Claims { .. }, Self::Claims { .. }) => Ok(()),
            (Self::Claims { .. }, Self::Store { .. }) => Err(Withdrawn::Store),
            (Self::Store { .. }, Self::Claims { .. }) => Err(Withdrawn::Stricter),
            (
                Self::Store {
                    store,
                    field,
                    check_active,
                    revoke_claim,
                },
                Self::Store {
                    store: previous_store,
                    field: previous_field,
                    check_active: checked_active,
                    revoke_claim: previous_claim,
                },
            ) => {
                if !is_same_store(store, previous_store) {
                    return Err(Withdrawn::Store);
                }
                let is_active_enough = !check_active || *checked_active;
                let is_claim_known = revoke_claim.is_none() || revoke_claim == previous_claim;
                match field == previous_field && is_active_enough && is_claim_known {
                    true => Ok(()),
                    false => Err(Withdrawn::Stricter),
                }
            }
        }
    }
}

/// The field of a user record that the user id claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdField {
    /// Its id.
    Id,
    /// Its login name.
    Username,
}

/// SimpleJWT's token classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// `AccessToken`.
    Access,
    /// `SlidingToken`.
    Sliding,
}

impl TokenType {
    /// Its value in the token type claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Sliding => "sliding",
        }
    }

    /// Its class name in SimpleJWT.
    pub fn class(self) -> &'static str {
        match self {
            Self::Access => "AccessToken",
            Self::Sliding => "SlidingToken",
        }
    }
}

/// Rules for the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Accepted issuers; empty: not checked.
    pub issuer: Vec<String>,
    /// Accepted audiences; empty: not checked.
    pub audience: Vec<String>,
    /// Accepted clock difference.
    pub leeway: Duration,
    /// Maximum lifetime of a token.
    pub max_lifetime: Option<Duration>,
    /// The claim that names the user.
    pub user_id_claim: String,
    /// The claim with the token type, if it is checked.
    pub token_type_claim: Option<String>,
    /// The claim with the token id, if it is checked.
    pub jti_claim: Option<String>,
    /// Accepted token types.
    pub token_types: Vec<TokenType>,
    /// The profile, for rules without a configuration key.
    pub profile: Profile,
}

/// The specification that a token is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// SimpleJWT over PyJWT, with their deviations from the RFCs.
    SimpleJwt,
    /// RFC 7519 and RFC 7515.
    Plain,
    /// RFC 9068 in addition: `typ` is `at+jwt` (section 2.1); `iss`, `sub`, `client_id`, `aud` and `iat` are present (section 2.2).
    Rfc9068,
}

impl Profile {
    /// These schemes, as the profile compares them. RFC 9110, section 11.1, ignores ASCII case; SimpleJWT compares exactly.
    pub fn auth_scheme(self, names: Vec<String>) -> AuthScheme {
        match self {
            Self::SimpleJwt => AuthScheme::OneOfExactly(names),
            Self::Plain | Self::Rfc9068 => AuthScheme::OneOf(names),
        }
    }

    /// Whether `=` may end a segment. RFC 7515, section 2, has no padding; PyJWT accepts it.
    pub(super) fn padding(self) -> Padding {
        match self {
            Self::SimpleJwt => Padding::Accepted,
            Self::Plain | Self::Rfc9068 => Padding::Refused,
        }
    }
}

/// Whether `=` may end a segment of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// If the padded segment is a multiple of four characters.
    Accepted,
    /// Never.
    Refused,
}

impl Rules {
    /// The rules that every kind of token has.
    pub(super) fn claims(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuer: &self.issuer,
            audience: &self.audience,
            leeway: self.leeway,
            max_lifetime: self.max_lifetime,
        }
    }

    /// Whether these rules accept every token that `previous` has accepted. The age of a token is not considered.
    pub(crate) fn accept_all_of(&self, previous: &Self) -> bool {
        let Self {
            issuer: _,
            audience: _,
            leeway: _,
            max_lifetime: _,
            user_id_claim,
            token_type_claim,
            jti_claim,
            token_types,
            profile,
        } = self;
        self.claims().accept_all_of(previous.claims())
            && *user_id_claim == previous.user_id_claim
            && (token_type_claim.is_none()
                || *token_type_claim == previous.token_type_claim
                    && previous.token_types.iter().all(|kind| token_types.contains(kind)))
            && (jti_claim.is_none() || *jti_claim == previous.jti_claim)
            && *profile == previous.profile
    }

    /// The defaults of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::SimpleJwt => Self::simplejwt(),
            Profile::Plain => Self::plain(),
            Profile::Rfc9068 => Self::rfc9068(),
        }
    }

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
            profile: Profile::SimpleJwt,
        }
    }

    /// RFC 7519, without deviations of Django.
    pub fn plain() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            jti_claim: None,
            profile: Profile::Plain,
            ..Self::simplejwt()
        }
    }

    /// RFC 9068: OAuth 2.0 access tokens.
    pub fn rfc9068() -> Self {
        Self {
            user_id_claim: "sub".to_owned(),
            token_type_claim: None,
            profile: Profile::Rfc9068,
            ..Self::simplejwt()
        }
    }
}

#[cfg(test)]
mod tests {
    use authgate_core::secret::Secret;

    use super::super::issuers::{IssuerTable, Namespace};
    use super::super::keys::Algorithm;
    use super::*;
    use crate::binding_rules::BindingRules;

    #[test]
    fn wider_rules_accept_all_tokens_and_narrower_ones_do_not() {
        let first = Rules {
            issuer: vec!["a".to_owned()],
            audience: vec!["x".to_owned(), "y".to_owned()],
            max_lifetime: Some(Duration::from_secs(60)),
            ..Rules::simplejwt()
        };
        type Change = fn(&mut Rules);
        let cases: &[(Change, bool)] = &[
            (|_| (), true),
            (|rules| rules.issuer.push("b".to_owned()), true),
            (|rules| rules.issuer.clear(), true),
            (|rules| rules.issuer[0] = "b".to_owned(), false),
            (|rules| rules.audience.push("z".to_owned()), true),
            (|rules| drop(rules.audience.pop()), false),
            (|rules| rules.leeway = Duration::from_secs(9), true),
            (|rules| rules.max_lifetime = None, true),
            (|rules| rules.max_lifetime = Some(Duration::from_secs(61)), true),
            (|rules| rules.max_lifetime = Some(Duration::from_secs(59)), false),
            (|rules| rules.user_id_claim = "sub".to_owned(), false),
            (|rules| rules.token_type_claim = None, true),
            (|rules| rules.token_type_claim = Some("typ".to_owned()), false),
            (|rules| rules.jti_claim = None, true),
            (|rules| rules.jti_claim = Some("id".to_owned()), false),
            (|rules| rules.token_types.push(TokenType::Sliding), true),
            (|rules| rules.token_types = vec![TokenType::Sliding], false),
            (|rules| rules.profile = Profile::Plain, false),
        ];
        for (at, (change, expected)) in cases.iter().enumerate() {
            let mut changed = first.clone();
            change(&mut changed);
            assert_eq!(changed.accept_all_of(&first), *expected, "case {at}");
        }
        let none = Rules::simplejwt();
        assert!(none.accept_all_of(&first) && !first.accept_all_of(&none));
    }

    /// A user of the issuer with this name whose token was verified by the key with this secret.
    fn user(issuer: Option<&str>, id: &str, secret: &str) -> UserInfo {
        UserInfo {
            authenticator: "jwt".into(),
            issuer: issuer.map(Arc::from),
            key: Some(Arc::clone(key(secret).identity())),
            id: UserId::new(id).expect("an id"),
            username: None,
            email: None,
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
            attributes: serde_json::Map::new(),
        }
    }

    fn key(secret: &str) -> VerificationKey {
        let secret = Secret::new(secret.as_bytes().to_vec());
        VerificationKey::from_secret(Algorithm::HS256, Some("k"), &secret).expect("a key")
    }

    fn issuer(name: &str, namespace: &str, secret: &str) -> Issuer {
        Issuer {
            keys: KeySet::Static(vec![key(secret)]),
            token_bytes: 1024,
            rules: Rules {
                issuer: vec![name.to_owned()],
                ..Rules::plain()
            },
            users: Users::Claims {
                username_claim: "username".to_owned(),
            },
            binding: Arc::new(BindingRules::OFF),
            namespace: Namespace::new(namespace).expect("a namespace"),
        }
    }

    /// Issuers by name, namespace and secret.
    fn several(all: &[(&str, &str, &str)]) -> JwtSettings {
        let all = all
            .iter()
            .map(|(name, namespace, secret)| ((*name).into(), issuer(name, namespace, secret)));
        settings(Issuers::ByName(IssuerTable::new(Profile::Plain, all.collect())))
    }

    fn settings(issuers: Issuers) -> JwtSettings {
        JwtSettings {
            issuers,
            form: CredentialForm::Any,
            revocation: None,
        }
    }

    #[test]
    fn a_stream_goes_on_while_its_own_issuer_is_the_same() {
        let previous = several(&[("a", "", "one"), ("b", "b:", "two")]);
        let (ada, ben) = (user(Some("a"), "42", "one"), user(Some("b"), "b:42", "two"));
        let check = |new: &JwtSettings, expected: [Result<(), Withdrawn>; 2]| {
            let accepted = [&ada, &ben].map(|user| new.still_accepts(user, &previous, &|one, other| one == other));
            assert_eq!(accepted, expected, "{new:?}");
        };
        check(&previous, [Ok(()), Ok(())]);
        check(&several(&[("a", "", "one")]), [Ok(()), Err(Withdrawn::Issuer)]);
        check(
            &several(&[("b", "b:", "two"), ("c", "c:", "new"), ("a", "", "one")]),
            [Ok(()), Ok(())],
        );
        // The key is there, but it is that of another issuer.
        let exchanged = several(&[("a", "", "two"), ("b", "b:", "one")]);
        check(&exchanged, [Err(Withdrawn::Key), Err(Withdrawn::Key)]);
        let renamed = several(&[("a", "", "one"), ("b", "other:", "two")]);
        check(&renamed, [Ok(()), Err(Withdrawn::Stricter)]);
        // An id that belongs to the namespace of another issuer now.
        let taken = several(&[
            ("a", "", "one"),
            ("b", "b:", "two"),
            ("c", "4", "new"),
            ("d", "b:42", "new"),
        ]);
        check(&taken, [Err(Withdrawn::Stricter), Err(Withdrawn::Stricter)]);
        // One issuer in place of several accepts only what it would accept.
        let one = settings(Issuers::One(issuer("a", "", "one")));
        check(&one, [Ok(()), Err(Withdrawn::Key)]);
        let back = previous.still_accepts(&user(None, "42", "one"), &one, &|_, _| true);
        assert_eq!(back, Err(Withdrawn::Issuer));
    }
}
