//! [`CredentialForm`]: the form of the credentials that an authenticator reads.

/// The form of the credentials that an authenticator reads. Two authenticators of a route can share a scheme if their forms differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialForm {
    /// Every form.
    #[default]
    Any,
    /// The form of a JWT: three segments, separated by dots (RFC 7515, section 3.1).
    Jwt,
    /// Every other form.
    Opaque,
}

impl CredentialForm {
    /// Whether a credential has this form.
    pub(crate) fn matches(self, credential: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Jwt => is_jwt(credential),
            Self::Opaque => !is_jwt(credential),
        }
    }

    /// Whether every credential of the form `other` has this form too.
    pub fn includes(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

fn is_jwt(credential: &[u8]) -> bool {
    memchr::memchr_iter(b'.', credential).take(3).count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_segments_are_a_jwt_and_everything_else_is_opaque() {
        for (credential, expected) in [
            ("a.b.c", true),
            ("a.b.", true),
            ("..", true),
            ("", false),
            ("a", false),
            ("a.b", false),
            ("a.b.c.d", false),
            ("a.b.c.d.e", false),
        ] {
            let credential = credential.as_bytes();
            assert_eq!(CredentialForm::Jwt.matches(credential), expected, "{credential:?}");
            assert_eq!(CredentialForm::Opaque.matches(credential), !expected, "{credential:?}");
            assert!(CredentialForm::Any.matches(credential), "{credential:?}");
        }
    }

    #[test]
    fn any_form_includes_the_others() {
        use CredentialForm::{Any, Jwt, Opaque};
        for own in [Any, Jwt, Opaque] {
            for other in [Any, Jwt, Opaque] {
                assert_eq!(own.includes(other), own == Any || own == other, "{own:?} {other:?}");
            }
        }
    }
}
