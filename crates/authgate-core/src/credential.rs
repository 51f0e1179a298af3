//! Splits the header of a credential into words, and defines why a credential is refused.
//!
//! All rules apply to bytes: DRF splits `request.META['HTTP_AUTHORIZATION']` at ASCII blanks only (0xA0 and 0x85 are data). This module
//! looks up and decodes nothing.

mod binding;
pub mod labels;

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub use self::binding::{BindingFault, ProofDefect};
use crate::label_value::LabelValue;

/// The value of one credential header of a request, read once.
#[derive(Debug)]
pub enum Presented<'r> {
    /// The header is absent.
    Absent,
    /// One line: a credential may be accepted.
    One(Words<'r>),
    /// Several lines. A WSGI server joins them with `,`, and intermediaries disagree on which line counts. So they are refused like the
    /// joined text, and never accepted.
    Several(Words<'r>),
}

impl<'r> Presented<'r> {
    /// Reads the lines of header `name`.
    pub fn from_headers(headers: &'r HeaderMap, name: &HeaderName) -> Self {
        let mut lines = headers.get_all(name).iter();
        let Some(first) = lines.next() else {
            return Self::Absent;
        };
        let Some(second) = lines.next() else {
            return Self::One(Words {
                text: Cow::Borrowed(first.as_bytes()),
            });
        };
        let mut joined = trim(first.as_bytes()).to_vec();
        for line in std::iter::once(second).chain(lines) {
            joined.push(b',');
            joined.extend_from_slice(trim(line.as_bytes()));
        }
        Self::Several(Words {
            text: Cow::Owned(joined),
        })
    }

    /// Reads the only line of a header.
    pub fn from_value(value: &'r HeaderValue) -> Self {
        Self::One(Words {
            text: Cow::Borrowed(value.as_bytes()),
        })
    }

    /// The words, and whether they may ever be accepted.
    pub fn words(&self) -> Option<(&Words<'r>, Acceptance)> {
        match self {
            Self::Absent => None,
            Self::One(words) => Some((words, Acceptance::Allowed)),
            Self::Several(words) => Some((words, Acceptance::RefuseOnly)),
        }
    }
}

/// Whether a presented credential may be accepted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The credential may be accepted or refused.
    Allowed,
    /// Refused for the first fault in its form, or else as an unknown credential.
    RefuseOnly,
}

/// A header value split at runs of blanks, borrowed from the request.
#[derive(Debug)]
pub struct Words<'r> {
    text: Cow<'r, [u8]>,
}

impl Words<'_> {
    /// Every word, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.text;
        std::iter::from_fn(move || {
            let begin = rest.iter().position(|byte| !is_blank(*byte))?;
            let (word, after) = rest[begin..].split_at(word_length(&rest[begin..]));
            rest = after;
            Some(word)
        })
    }

    /// The whole value, without blanks at its ends.
    pub fn whole(&self) -> &[u8] {
        trim(&self.text)
    }

    /// The scheme, and what follows it.
    pub fn shape(&self) -> Shape<'_> {
        let mut words = self.iter();
        let Some(scheme) = words.next() else {
            return Shape::Empty;
        };
        match (words.next(), words.next()) {
            (None, _) => Shape::Scheme(scheme),
            (Some(value), None) => Shape::Pair(scheme, value),
            (Some(_), Some(_)) => Shape::More(scheme),
        }
    }
}

/// The number of words in a header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<'w> {
    /// No word at all.
    Empty,
    /// Only a scheme.
    Scheme(&'w [u8]),
    /// A scheme and one word.
    Pair(&'w [u8], &'w [u8]),
    /// A scheme and two or more words.
    More(&'w [u8]),
}

impl<'w> Shape<'w> {
    /// The first word.
    pub fn scheme(self) -> Option<&'w [u8]> {
        match self {
            Self::Empty => None,
            Self::Scheme(scheme) | Self::Pair(scheme, _) | Self::More(scheme) => Some(scheme),
        }
    }
}

/// Why a credential was refused: the reasons that DRF and SimpleJWT distinguish. A text in a reason is for operators only: it names a claim
/// or attribute of the configuration, and contains nothing of the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `Token` without a key.
    TokenMissing,
    /// `Token` with more than one word after it.
    TokenHasSpaces,
    /// The key is not UTF-8.
    TokenHasInvalidCharacters,
    /// No record knows the key.
    TokenUnknown,
    /// The key is known, and is expired or revoked, or has no user; holds which. Clients see no difference to an unknown key.
    TokenInvalid(&'static str),
    /// The user of the key is inactive.
    TokenUserInactive,
    /// The key is valid, but a header cannot carry a value of its user for an upstream.
    TokenUnsendableValue(Arc<str>),
    /// The token was introspected, and is refused; holds why. Clients see no difference to an unknown token.
    Introspected(IntrospectionFault),
    /// `Bearer` without exactly one word after it.
    BearerNotTwoWords,
    /// The JWT itself is invalid, expired, revoked or of a wrong type.
    Jwt(JwtFault),
    /// The JWT is valid, but its user claim is invalid or a header cannot carry it; holds the claim.
    JwtInvalidUserClaim(Arc<str>),
    /// The JWT is valid, but a header cannot carry a claim for an upstream.
    JwtUnsendableClaim(Arc<str>),
    /// The JWT is valid, but its user does not exist.
    JwtUserNotFound,
    /// The JWT is valid, but its user is inactive.
    JwtUserInactive,
    /// The JWT is valid, but was issued before the user's password changed.
    JwtPasswordChanged,
    /// The token is valid, but the request does not prove what it is bound to, or it is not bound although it must be.
    Binding(BindingFault),
}

impl Refusal {
    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::TokenMissing => &labels::TOKEN_MISSING,
            Self::TokenHasSpaces => &labels::TOKEN_HAS_SPACES,
            Self::TokenHasInvalidCharacters => &labels::TOKEN_HAS_INVALID_CHARACTERS,
            Self::TokenUnknown | Self::TokenInvalid(_) => &labels::TOKEN_UNKNOWN,
            Self::TokenUserInactive => &labels::TOKEN_USER_INACTIVE,
            Self::Introspected(fault) => fault.label_value(),
            Self::BearerNotTwoWords => &labels::BEARER_NOT_TWO_WORDS,
            Self::Jwt(fault) => fault.label_value(),
            Self::JwtInvalidUserClaim(_) => &labels::JWT_USER_UNNAMED,
            Self::JwtUnsendableClaim(_) => &labels::JWT_CLAIM_UNSENDABLE,
            Self::TokenUnsendableValue(_) => &labels::TOKEN_ATTRIBUTE_UNSENDABLE,
            Self::JwtUserNotFound => &labels::JWT_USER_NOT_FOUND,
            Self::JwtUserInactive => &labels::JWT_USER_INACTIVE,
            Self::JwtPasswordChanged => &labels::JWT_PASSWORD_CHANGED,
            Self::Binding(fault) => fault.label_value(),
        }
    }

    /// Details for operators only: the failed check, or the claim.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Jwt(JwtFault::Invalid(defect)) => Some(defect.label()),
            Self::TokenInvalid(why) => Some(why),
            Self::Introspected(fault) => fault.detail(),
            Self::Binding(BindingFault::Proof(defect)) => Some(defect.label()),
            Self::JwtInvalidUserClaim(which) | Self::JwtUnsendableClaim(which) | Self::TokenUnsendableValue(which) => {
                Some(which)
            }
            Self::TokenMissing
            | Self::TokenHasSpaces
            | Self::TokenHasInvalidCharacters
            | Self::TokenUnknown
            | Self::TokenUserInactive
            | Self::BearerNotTwoWords
            | Self::Jwt(JwtFault::Expired | JwtFault::Revoked(_) | JwtFault::TypeMismatch(_))
            | Self::JwtUserNotFound
            | Self::JwtUserInactive
            | Self::JwtPasswordChanged
            | Self::Binding(_) => None,
        }
    }

    /// Whether the credential may become valid later, so that the refusal must not be cached.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Jwt(JwtFault::Invalid(Defect::IssuedAt | Defect::NotBefore))
                | Self::Introspected(IntrospectionFault::Invalid(Defect::IssuedAt | Defect::NotBefore))
        )
    }
}

/// Why an introspected token is refused. A text names a claim, and contains nothing of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntrospectionFault {
    /// The authorization server says that it is not active.
    Inactive,
    /// `exp` has passed.
    Expired,
    /// Another claim has a fault. Or the token is refused without asking: it is too long, has another form, or was joined from several lines.
    Invalid(Defect),
    /// Its `jti` or its user is revoked.
    Revoked,
    /// Its user claim is missing or not valid; holds the claim.
    NamesNoUser(Arc<str>),
    /// A header cannot carry a claim for an upstream; holds the claim.
    Unsendable(Arc<str>),
}

impl IntrospectionFault {
    /// A short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(&self) -> &'static LabelValue {
        match self {
            Self::Inactive => &labels::INTROSPECTED_INACTIVE,
            Self::Expired => &labels::INTROSPECTED_EXPIRED,
            Self::Invalid(_) => &labels::INTROSPECTED_INVALID,
            Self::Revoked => &labels::INTROSPECTED_REVOKED,
            Self::NamesNoUser(_) => &labels::INTROSPECTED_USER_UNNAMED,
            Self::Unsendable(_) => &labels::INTROSPECTED_CLAIM_UNSENDABLE,
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Invalid(defect) => Some(defect.label()),
            Self::NamesNoUser(which) | Self::Unsendable(which) => Some(which),
            Self::Inactive | Self::Expired | Self::Revoked => None,
        }
    }
}

impl From<IntrospectionFault> for Refusal {
    fn from(fault: IntrospectionFault) -> Self {
        Self::Introspected(fault)
    }
}

/// What is wrong with a JWT, as detailed as the responses of SimpleJWT; [`Defect`] and [`TypeMismatch`] have more details, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtFault {
    /// Form, key, signature or a claim: SimpleJWT does not say which.
    Invalid(Defect),
    /// `exp` has passed.
    Expired,
    /// Its `jti`, its user or its key is revoked. Django checks its blacklist for sliding tokens only, so this holds the fault that Django
    /// would report for the token as an access token, if there is one.
    Revoked(Option<TypeMismatch>),
    /// Its token type is not accepted.
    TypeMismatch(TypeMismatch),
}

impl JwtFault {
    /// A short name for logs and metrics.
    pub fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Invalid(_) => &labels::JWT_INVALID,
            Self::Expired => &labels::JWT_EXPIRED,
            Self::Revoked(_) => &labels::JWT_REVOKED,
            Self::TypeMismatch(TypeMismatch::NoExpiry) => &labels::JWT_NO_EXPIRY,
            Self::TypeMismatch(TypeMismatch::NoId) => &labels::JWT_NO_ID,
            Self::TypeMismatch(TypeMismatch::NoType) => &labels::JWT_NO_TYPE,
            Self::TypeMismatch(TypeMismatch::WrongType) => &labels::JWT_WRONG_TYPE,
        }
    }
}

impl From<Defect> for JwtFault {
    fn from(defect: Defect) -> Self {
        Self::Invalid(defect)
    }
}

impl From<TypeMismatch> for JwtFault {
    fn from(mismatch: TypeMismatch) -> Self {
        Self::TypeMismatch(mismatch)
    }
}

/// Why a JWT is invalid, in the order of the checks. Clients do not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// The request has several header lines with credentials.
    Repeated,
    /// It is longer than `token_bytes`.
    Size,
    /// It is not three segments of canonical base64url.
    Form,
    /// The header is not a JSON object, or has an unsupported parameter.
    Header,
    /// The header's `typ` is not the one that the profile asks for.
    HeaderType,
    /// No key has its `kid`.
    KeyId,
    /// None of these keys has its algorithm.
    Algorithm,
    /// None of these keys verifies the signature.
    Signature,
    /// The claims are not a JSON object.
    Claims,
    /// `iat` is not a time, or is in the future.
    IssuedAt,
    /// `nbf` is not a time, or is in the future.
    NotBefore,
    /// `exp` is not a time.
    Expiry,
    /// Its lifetime is longer than `max_lifetime`.
    Lifetime,
    /// `iss` is not accepted.
    Issuer,
    /// `aud` has no accepted audience.
    Audience,
    /// `sub` or `jti` is not a string.
    Texts,
    /// A claim that the profile requires is missing or of a wrong type.
    Required,
    /// Revocations are checked, but the token id has a type that cannot be revoked.
    TokenId,
}

impl Defect {
    /// All defects of a single token, in order.
    pub const ALL: [Self; 17] = [
        Self::Size,
        Self::Form,
        Self::Header,
        Self::HeaderType,
        Self::KeyId,
        Self::Algorithm,
        Self::Signature,
        Self::Claims,
        Self::IssuedAt,
        Self::NotBefore,
        Self::Expiry,
        Self::Lifetime,
        Self::Issuer,
        Self::Audience,
        Self::Texts,
        Self::Required,
        Self::TokenId,
    ];

    /// A short name for the log.
    pub fn label(self) -> &'static str {
        self.label_value().text
    }

    /// Its label, with the text for the reference.
    pub fn label_value(self) -> &'static LabelValue {
        match self {
            Self::Repeated => &labels::REPEATED,
            Self::Size => &labels::SIZE,
            Self::Form => &labels::FORM,
            Self::Header => &labels::HEADER,
            Self::HeaderType => &labels::HEADER_TYPE,
            Self::KeyId => &labels::KEY_ID,
            Self::Algorithm => &labels::ALGORITHM,
            Self::Signature => &labels::SIGNATURE,
            Self::Claims => &labels::CLAIMS,
            Self::IssuedAt => &labels::ISSUED_AT,
            Self::NotBefore => &labels::NOT_BEFORE,
            Self::Expiry => &labels::EXPIRY,
            Self::Lifetime => &labels::LIFETIME,
            Self::Issuer => &labels::ISSUER,
            Self::Audience => &labels::AUDIENCE,
            Self::Texts => &labels::SUBJECT_AND_ID,
            Self::Required => &labels::REQUIRED_CLAIMS,
            Self::TokenId => &labels::TOKEN_ID,
        }
    }
}

/// Why a valid JWT is not of an accepted token type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeMismatch {
    /// `exp` is absent.
    NoExpiry,
    /// `jti` is absent.
    NoId,
    /// The token type is absent.
    NoType,
    /// The token type is not accepted.
    WrongType,
}

/// Space and tab are separators. Python's `bytes.split()` also splits at VT and FF, which a [`HeaderValue`] cannot have.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The length up to the first [blank](is_blank). Credentials are long, so this searches many bytes at a time.
fn word_length(text: &[u8]) -> usize {
    memchr::memchr2(b' ', b'\t', text).unwrap_or(text.len())
}

fn trim(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    let end = line
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(start, |at| at + 1);
    &line[start..end]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn a_header_value_has_no_other_separators_than_space_and_tab() {
        for byte in (0..=u8::MAX).filter(|byte| byte.is_ascii_whitespace() || matches!(byte, 0x0B | 0x1C..=0x1F)) {
            assert_eq!(
                HeaderValue::from_bytes(&[b'a', byte, b'b']).is_ok(),
                is_blank(byte),
                "{byte:#x}"
            );
        }
    }

    fn check(lines: &[&[u8]], expected: Option<(Shape<'_>, Acceptance)>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line).expect("a legal value"));
        }
        let presented = Presented::from_headers(&headers, &AUTHORIZATION);
        assert_eq!(
            presented.words().map(|(words, acceptance)| (words.shape(), acceptance)),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn words_are_split_at_runs_of_blanks_only() {
        check(&[], None);
        check(&[b""], Some((Shape::Empty, Acceptance::Allowed)));
        check(&[b"Token"], Some((Shape::Scheme(b"Token"), Acceptance::Allowed)));
        check(
            &[b"Token \t abc"],
            Some((Shape::Pair(b"Token", b"abc"), Acceptance::Allowed)),
        );
        check(
            &[b"Token a\xA0b"],
            Some((Shape::Pair(b"Token", b"a\xA0b"), Acceptance::Allowed)),
        );
        check(
            &[b"Token a\x85b"],
            Some((Shape::Pair(b"Token", b"a\x85b"), Acceptance::Allowed)),
        );
        check(&[b"Token a b"], Some((Shape::More(b"Token"), Acceptance::Allowed)));
    }

    #[test]
    fn several_lines_are_joined_and_only_refused() {
        check(
            &[b"Token comma", b"key"],
            Some((Shape::Pair(b"Token", b"comma,key"), Acceptance::RefuseOnly)),
        );
        check(
            &[b"", b"Token abc"],
            Some((Shape::Pair(b",Token", b"abc"), Acceptance::RefuseOnly)),
        );
        check(
            &[b"Token a", b"Token b"],
            Some((Shape::More(b"Token"), Acceptance::RefuseOnly)),
        );
    }
}
