//! [`FetchUrl`]: a URL that may be fetched.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

/// An absolute URL with a host, over https, or over http on a loopback address. It has no user name, password or fragment.
#[derive(Clone)]
pub struct FetchUrl {
    uri: Uri,
    text: Arc<str>,
}

/// Why a text is not a URL that may be fetched. The message completes a sentence that begins with the name of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// It is not an absolute URL.
    #[error("is not an absolute URL; write https://HOST/PATH")]
    Syntax,
    /// It is neither https nor http.
    #[error("is not https; write https://HOST/PATH")]
    Scheme,
    /// It is http, and its host is not a loopback address.
    #[error("is http, which is accepted for loopback addresses only; write https://")]
    Cleartext,
    /// It has a user name or a password.
    #[error("has a user name or a password before the host; remove it")]
    UserInfo,
    /// It has a fragment.
    #[error("has a fragment; remove the # and what follows it")]
    Fragment,
}

impl FetchUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// It may not be fetched.
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        if text.contains('#') {
            return Err(UrlProblem::Fragment);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlProblem::Syntax);
        }
        let uri = Uri::from_str(text).map_err(|_| UrlProblem::Syntax)?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(UrlProblem::Syntax);
        };
        if authority.as_str().contains('@') {
            return Err(UrlProblem::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(UrlProblem::Syntax);
        }
        if *scheme == Scheme::HTTP && !is_loopback(authority.host()) {
            return Err(UrlProblem::Cleartext);
        }
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(UrlProblem::Scheme);
        }
        let text = text.into();
        Ok(Self { uri, text })
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is https. Otherwise its host is a loopback address.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether its host is a loopback address.
    pub(super) fn is_loopback(&self) -> bool {
        self.uri.host().is_some_and(is_loopback)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match ip.unwrap_or(host).parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl fmt::Debug for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for FetchUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for FetchUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_http_on_loopback_may_be_fetched() {
        for good in [
            "https://id.example",
            "https://id.example:8443/keys?p=policy",
            "HTTPS://ID.example/",
            "https://[2001:db8::1]/keys",
            "http://127.0.0.1:9000/keys",
            "http://127.8.9.1/",
            "http://[::1]:1/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/keys",
            "http://LOCALHOST:8080",
        ] {
            let url = FetchUrl::parse(good).unwrap_or_else(|problem| panic!("{good} {problem}"));
            assert_eq!(url.as_str(), good);
            assert_eq!(url.is_https(), good.to_ascii_lowercase().starts_with("https"));
        }
        for (bad, problem) in [
            ("", UrlProblem::Syntax),
            ("id.example", UrlProblem::Syntax),
            ("/keys", UrlProblem::Syntax),
            ("https://", UrlProblem::Syntax),
            ("https:///keys", UrlProblem::Syntax),
            ("https://:443/keys", UrlProblem::Syntax),
            ("https://id.example/ü", UrlProblem::Syntax),
            ("https://id.example/a b", UrlProblem::Syntax),
            ("https://id.example/\r\nX: y", UrlProblem::Syntax),
            ("ftp://id.example/", UrlProblem::Scheme),
            ("file:///etc/passwd", UrlProblem::Syntax),
            ("unix:/run/keys", UrlProblem::Syntax),
            ("http://id.example/keys", UrlProblem::Cleartext),
            ("http://localhost.example/keys", UrlProblem::Cleartext),
            ("http://10.0.0.1/", UrlProblem::Cleartext),
            ("http://0.0.0.0/", UrlProblem::Cleartext),
            ("https://user:pass@id.example/", UrlProblem::UserInfo),
            ("https://id.example@localhost/", UrlProblem::UserInfo),
            ("http://localhost@id.example/", UrlProblem::UserInfo),
            ("https://id.example/keys#1", UrlProblem::Fragment),
        ] {
            match FetchUrl::parse(bad) {
                Ok(_) => panic!("{bad:?}"),
                Err(found) => assert_eq!(found, problem, "{bad:?}"),
            }
        }
    }
}
