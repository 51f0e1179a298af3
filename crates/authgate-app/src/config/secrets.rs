//! Logins in URLs: the secret part of a value that is otherwise shown.

use std::ops::Range;

/// The position of the password in a URL, or of a login that may be one. If `://` is misspelled, the login starts after the first `:`.
pub(super) fn login(url: &str) -> Option<Range<usize>> {
    let Some(scheme) = url.find("://") else {
        let (colon, end) = (url.find(':')?, url.rfind('@')?);
        return (colon < end).then_some(colon + 1..end);
    };
    let start = scheme + "://".len();
    password(url).or_else(|| url[start..].rfind('@').map(|end| start..start + end))
}

/// The position of the password in a URL: in `pass=` of a socket's URL, or after the first `:` of the login. A login ends at the last `@`,
/// and `pass=` at the end of the URL, because passwords with `/`, `@` and `&` are often written without encoding.
pub(super) fn password(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let rest = &url[start..];
    let query = rest.find("?pass=").or_else(|| rest.find("&pass="));
    let end = rest[..query.unwrap_or(rest.len())].rfind('@');
    let login = end.and_then(|end| Some(start + rest[..end].find(':')? + 1..start + end));
    let Some(query) = query else { return login };
    let at = start + query + "?pass=".len();
    let end = url[at..].find(['"', '\'']).map_or(url.len(), |end| at + end);
    Some(login.map_or(at, |login| login.start)..end)
}

/// The text with its login replaced by `***`.
pub(super) fn redacted(text: &str) -> String {
    match login(text) {
        Some(login) => format!("{}***{}", &text[..login.start], &text[login.end..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_urls() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379/0", None),
            ("redis://:canary@127.0.0.1/0", Some("canary")),
            ("\"rediss://ada:ca:na@ry@127.0.0.1:6379\"", Some("ca:na@ry")),
            ("redis://:ca/n@ry@127.0.0.1/0", Some("ca/n@ry")),
            ("redis://token@127.0.0.1", Some("token")),
            ("unix:///run/redis.sock?db=1&pass=canary&user=x", Some("canary&user=x")),
            ("unix:///run/redis.sock?pass=can@canary", Some("can@canary")),
            ("unix:///run/redis@1.sock?pass=canary", Some("canary")),
            ("unx:///run/redis.sock?pass=can@canary&db=1", Some("can@canary&db=1")),
            (
                "redis://ada:canary@127.0.0.1/0?pass=canary",
                Some("canary@127.0.0.1/0?pass=canary"),
            ),
            ("'unix:///run/redis.sock?pass=canary'", Some("canary")),
            ("unix:///run/redis.sock?bypass=x", None),
            ("127.0.0.1", None),
            ("redis:/ada:canary@127.0.0.1", Some("/ada:canary")),
            ("\"redis//ada:canary@127.0.0.1\"", Some("canary")),
            ("ada@example.com", None),
            ("ada@example.com:25", None),
        ] {
            assert_eq!(login(url).map(|range| &url[range]), expected, "{url}");
            assert!(!redacted(url).contains("canary"), "{url}");
        }
    }
}
