//! The token of the admin listener: `Authorization: Bearer TOKEN`, or the password of `Basic`, which browsers can send.

use std::borrow::Cow;

use authgate_core::secret::Secret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

/// The challenges of a 401: browsers ask for a password, and the user name does not matter.
pub(super) const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Basic realm=\"authgate admin\", charset=\"UTF-8\""),
    HeaderValue::from_static("Bearer realm=\"authgate admin\""),
];

/// The token of `[admin]`, as its SHA-256: comparisons take the same time for every presented token, of any length.
#[derive(Debug, Clone)]
pub struct AdminToken(Secret<Vec<u8>>);

impl AdminToken {
    /// Accepts this token.
    pub fn new(token: &str) -> Self {
        Self(Secret::new(sha256(token.as_bytes())))
    }

    /// Whether a request presents this token, and no other credential.
    pub(super) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return false;
        };
        presented(line.as_bytes())
            .is_some_and(|token| verify_slices_are_equal(&sha256(&token), self.0.expose()).is_ok())
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// The token in a value of `Authorization` (RFC 6750, section 2.1; RFC 7617, section 2).
fn presented(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(at);
    let credentials = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(Cow::Borrowed(credentials));
    }
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let mut user_and_password = STANDARD.decode(credentials).ok()?;
    let colon = user_and_password.iter().position(|byte| *byte == b':')?;
    Some(Cow::Owned(user_and_password.split_off(colon + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_accepted_as_bearer_and_as_the_password_of_basic() {
        let token = AdminToken::new("canary:token");
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (lines, expected) in [
            (vec!["Bearer canary:token".to_owned()], true),
            (vec!["bearer   canary:token".to_owned()], true),
            (vec![basic("ada:canary:token")], true),
            (vec![basic(":canary:token")], true),
            (vec![basic("canary:token")], false),
            (vec![basic("canary:token:")], false),
            (vec!["Basic canary:token".to_owned()], false),
            (vec!["Bearer".to_owned()], false),
            (vec!["Bearer ".to_owned()], false),
            (vec!["Bearer canary:toke".to_owned()], false),
            (vec!["Bearer canary:token2".to_owned()], false),
            (vec!["Token canary:token".to_owned()], false),
            (vec!["canary:token".to_owned()], false),
            (
                vec!["Bearer canary:token".to_owned(), "Bearer canary:token".to_owned()],
                false,
            ),
            (vec![], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(AUTHORIZATION, HeaderValue::from_str(line).expect("ASCII"));
            }
            assert_eq!(token.is_presented(&headers), expected, "{lines:?}");
        }
        assert!(!format!("{token:?}").contains("canary"));
    }
}
