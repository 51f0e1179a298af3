//! The metadata of an issuer: OpenID Connect Discovery 1.0, or RFC 8414.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::brief;
use super::{FetchError, FetchUrl, HttpClient, UrlProblem};

/// What the metadata of an issuer say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Where the keys of its tokens are.
    pub jwks_uri: Option<FetchUrl>,
    /// Where its tokens are introspected.
    pub introspection_endpoint: Option<FetchUrl>,
    /// How much longer the document is fresh, if it says so.
    pub max_age: Option<Duration>,
}

/// Why there are no metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The document cannot be fetched.
    #[error("{url}: {error}")]
    Fetch {
        /// Its URL.
        url: Arc<str>,
        /// What happened.
        error: FetchError,
    },
    /// There is a document at neither of the two places.
    #[error("there is no document: neither {0} nor {1} has one")]
    NotFound(Arc<str>, Arc<str>),
    /// It is not a JSON object, or a member has another type than a string.
    #[error("{0}: it is not a JSON object with texts in `issuer`, `jwks_uri` and `introspection_endpoint`")]
    Form(Arc<str>),
    /// It is that of another issuer.
    #[error("{url}: its issuer is \"{found}\", which must be the same as in `discovery`, byte for byte")]
    Issuer {
        /// The document.
        url: Arc<str>,
        /// The start of its issuer, on one line.
        found: String,
    },
    /// It names a URL that may not be fetched.
    #[error("{url}: its `{member}` {problem}")]
    Url {
        /// The document.
        url: Arc<str>,
        /// The member.
        member: &'static str,
        /// What is wrong.
        problem: UrlProblem,
    },
}

/// The members that are read. Others are ignored.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
}

impl Metadata {
    /// Fetches the metadata of an issuer: by the path of OpenID Connect, or, where that is 404, by that of RFC 8414.
    ///
    /// # Errors
    /// There are none, or they may not be used.
    pub async fn fetch(client: &Arc<HttpClient>, issuer: &FetchUrl, deadline: Instant) -> Result<Self, DiscoveryError> {
        let [openid, oauth] = places(issuer);
        let (url, document) = match client.get(&openid, deadline).await {
            Err(FetchError::Status(StatusCode::NOT_FOUND)) => match client.get(&oauth, deadline).await {
                Err(FetchError::Status(StatusCode::NOT_FOUND)) => {
                    return Err(DiscoveryError::NotFound(openid.as_str().into(), oauth.as_str().into()));
                }
                fetched => (oauth, fetched),
            },
            fetched => (openid, fetched),
        };
        match document {
            Ok(document) => Ok(Self {
                max_age: document.max_age,
                ..Self::parse(issuer, &url, &document.body)?
            }),
            Err(error) => Err(DiscoveryError::Fetch {
                url: url.as_str().into(),
                error,
            }),
        }
    }

    /// Reads the document of an issuer, which is at `url`.
    ///
    /// # Errors
    /// It may not be used.
    pub fn parse(issuer: &FetchUrl, url: &FetchUrl, body: &[u8]) -> Result<Self, DiscoveryError> {
        let document: Document = serde_json::from_slice(body).map_err(|_| DiscoveryError::Form(url.as_str().into()))?;
        if document.issuer != issuer.as_str() {
            let found = brief(document.issuer.as_bytes());
            let url = url.as_str().into();
            return Err(DiscoveryError::Issuer { url, found });
        }
        let named = |member: &'static str, text: Option<String>| {
            let error = |problem| DiscoveryError::Url {
                url: url.as_str().into(),
                member,
                problem,
            };
            let named = text.map(|text| FetchUrl::parse(&text)).transpose().map_err(error)?;
            match named {
                // What was said over TLS may not lead to cleartext.
                Some(named) if url.is_https() && !named.is_https() => Err(error(UrlProblem::Cleartext)),
                named => Ok(named),
            }
        };
        Ok(Self {
            jwks_uri: named("jwks_uri", document.jwks_uri)?,
            introspection_endpoint: named("introspection_endpoint", document.introspection_endpoint)?,
            max_age: None,
        })
    }
}

/// Where the metadata of an issuer are: OpenID Connect Discovery, section 4, and RFC 8414, section 3.1.
fn places(issuer: &FetchUrl) -> [FetchUrl; 2] {
    let text = issuer.as_str();
    let text = text.strip_suffix('/').unwrap_or(text);
    let host = text.find("://").map_or(0, |at| at + "://".len());
    let path = text[host..].find('/').map_or(text.len(), |at| host + at);
    let place = |text: String| FetchUrl::parse(&text).unwrap_or_else(|_| issuer.clone());
    [
        place(format!("{text}/.well-known/openid-configuration")),
        place(format!(
            "{}/.well-known/oauth-authorization-server{}",
            &text[..path],
            &text[path..]
        )),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn url(text: &str) -> FetchUrl {
        FetchUrl::parse(text).expect("a URL")
    }

    #[test]
    fn metadata_are_where_the_two_specifications_say() {
        for (issuer, openid, oauth) in [
            (
                "https://id.example",
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example/",
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example:8443/realms/shop",
                "https://id.example:8443/realms/shop/.well-known/openid-configuration",
                "https://id.example:8443/.well-known/oauth-authorization-server/realms/shop",
            ),
        ] {
            assert_eq!(places(&url(issuer)), [url(openid), url(oauth)], "{issuer}");
        }
    }

    #[test]
    fn a_document_counts_only_for_its_own_issuer_and_names_urls_that_may_be_fetched() {
        let (issuer, place) = (url("https://id.example/a"), url("https://id.example/doc"));
        let parse = |document: Value| Metadata::parse(&issuer, &place, document.to_string().as_bytes());
        let keys = "https://keys.example/jwks";
        let read = parse(json!({ "issuer": "https://id.example/a", "jwks_uri": keys, "introspection_endpoint": null }));
        assert_eq!(
            read,
            Ok(Metadata {
                jwks_uri: Some(url(keys)),
                introspection_endpoint: None,
                max_age: None
            })
        );
        for found in [
            "https://id.example/a/",
            "https://id.example/A",
            "https://ID.example/a",
            "",
        ] {
            let expected = DiscoveryError::Issuer {
                url: place.as_str().into(),
                found: found.to_owned(),
            };
            assert_eq!(parse(json!({ "issuer": found })), Err(expected));
        }
        for (text, problem) in [
            ("http://keys.example/", UrlProblem::Cleartext),
            ("http://127.0.0.1/", UrlProblem::Cleartext),
            ("/jwks", UrlProblem::Syntax),
        ] {
            for member in ["jwks_uri", "introspection_endpoint"] {
                let expected = DiscoveryError::Url {
                    url: place.as_str().into(),
                    member,
                    problem,
                };
                let mut document = json!({ "issuer": "https://id.example/a" });
                document[member] = text.into();
                assert_eq!(parse(document), Err(expected), "{text}");
            }
        }
        for bad in [
            json!({}),
            json!([]),
            json!({ "issuer": 1 }),
            json!({ "issuer": "https://id.example/a", "jwks_uri": 1 }),
        ] {
            assert_eq!(parse(bad), Err(DiscoveryError::Form(place.as_str().into())));
        }
    }
}
