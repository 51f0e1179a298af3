//! [`ReservedNames`]: the header names that only the gateway may send.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use http::header::HeaderName;

/// Names that a client may never send. Only letters and digits are compared, because servers normalize names
/// differently.
#[derive(Debug, Clone)]
pub struct ReservedNames {
    exact: HashSet<Box<[u8]>, RandomState>,
    /// Whether a reserved name starts with this letter or digit. Most headers are excluded by this check alone.
    first_bytes: [bool; 128],
}

/// Always reserved: fields that proxies, WSGI servers and frameworks are known to trust.
const RESERVED: &[&str] = &[
    "forwarded",
    "xrealip",
    "remoteuser",
    "xremoteuser",
    "xoriginalurl",
    "xoriginalmethod",
    "xrewriteurl",
    "xhttpmethod",
    "xhttpmethodoverride",
    "xmethodoverride",
    "proxy",
];

/// Reserved prefixes: every name that starts with one of them is reserved.
const RESERVED_PREFIXES: &[&str] = &["xforwarded", "xssl", "xclientcert", "xauthgate"];

impl ReservedNames {
    /// The built-in names and the configured ones: every `[identity]` header and every `strip`.
    pub fn new<'n>(configured: impl IntoIterator<Item = &'n str>) -> Self {
        let exact: HashSet<Box<[u8]>, RandomState> = RESERVED
            .iter()
            .copied()
            .chain(configured)
            .map(|name| normalized(name).collect::<Box<[u8]>>())
            .filter(|name| !name.is_empty())
            .collect();
        let mut first_bytes = [false; 128];
        let prefixes = RESERVED_PREFIXES.iter().map(|prefix| prefix.as_bytes());
        for first in exact
            .iter()
            .map(AsRef::as_ref)
            .chain(prefixes)
            .filter_map(|name| name.first())
        {
            if let Some(flag) = first_bytes.get_mut(usize::from(*first)) {
                *flag = true;
            }
        }
        Self { exact, first_bytes }
    }

    /// Whether the gateway drops a client's field with this name. The name is reserved, or contains a `_`: WSGI servers
    /// map both `_` and `-` to `_`.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        if name.contains('_') {
            return true;
        }
        let Some(first) = normalized(name).next() else {
            return false;
        };
        if !self.first_bytes.get(usize::from(first)).copied().unwrap_or(true) {
            return false;
        }
        let name: Vec<u8> = normalized(name).collect();
        self.exact.contains(name.as_slice())
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix.as_bytes()))
    }
}

fn normalized(name: &str) -> impl Iterator<Item = u8> {
    name.bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_found_in_every_spelling() {
        let reserved = ReservedNames::new(["X-User-Id", "X-Team"]);
        let check = |name: &str, expected| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a legal name");
            assert_eq!(reserved.contains(&name), expected, "{name}");
        };
        for name in [
            "X-User-Id",
            "x_user_id",
            "X.User.Id",
            "XUserId",
            "x-user_id",
            "X-Team",
            "X-Forwarded-For",
            "X-Forwarded-Anything",
            "Forwarded",
            "X-Real-IP",
            "Remote-User",
            "X-SSL-Client-Verify",
            "X-Client-Cert-Chain",
            "X-Authgate-Anything",
            "Proxy",
            "X-HTTP-Method-Override",
            "any_underscore",
            "SCRIPT_NAME",
        ] {
            check(name, true);
        }
        for name in [
            "Accept",
            "Authorization",
            "X-User",
            "X-Custom",
            "Proxy-Authorization",
            "Referer",
            "~",
        ] {
            check(name, false);
        }
    }
}
