//! [`Rules`]: the rules for claims of each profile.

use std::time::Duration;

use crate::claims::ClaimRules;
use crate::scheme::AuthScheme;

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
    use super::*;

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
}
