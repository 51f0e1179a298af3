//! `jwks.url` and `discovery`: keys that an identity provider publishes.

use std::sync::Arc;

use authgate_auth::fetch::FetchUrl;
use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::jwt::keys::remote::{KeyLocation, RemoteKeys};

use super::fetch;
use crate::config::keys::issuer::jwks as keys;
use crate::config::keys::tls::PROVIDER_CA;
use crate::config::reader::{Declared, Item, Section};

/// Reads `discovery`, with the `jwks` beside it, if there is one.
pub(super) fn discovered(
    section: &Section<'_>,
    discovery: &Item<'_>,
    jwks: Option<&Item<'_>>,
    algorithms: Option<Vec<Algorithm>>,
) -> Option<Arc<RemoteKeys>> {
    let location = fetch::issuer(discovery).map(KeyLocation::Issuer);
    match jwks {
        None => remote(None, section, location, algorithms),
        Some(jwks) => {
            let mut table = jwks.clone().section(&keys::TABLE)?;
            let both: [&'static dyn Declared; 2] = [&keys::URL, &keys::FILE];
            for key in both {
                if let Some(item) = table.take(key) {
                    let name = key.name();
                    let problem = item.problem(
                        format!("`{name}` and `discovery` cannot be combined: the metadata of the issuer says where its keys are"),
                        "remove one of them",
                    );
                    item.add(problem.with_related(discovery.span(), "the other one"));
                }
            }
            remote(Some(&mut table), section, location, algorithms)
        }
    }
}

/// Reads a `jwks` that has a `url`.
pub(super) fn at_url(
    table: &mut Section<'_>,
    section: &Section<'_>,
    url: &Item<'_>,
    algorithms: Option<Vec<Algorithm>>,
) -> Option<Arc<RemoteKeys>> {
    let location = fetch::url(url).map(KeyLocation::Url);
    remote(Some(table), section, location, algorithms)
}

fn remote(
    mut table: Option<&mut Section<'_>>,
    section: &Section<'_>,
    location: Option<KeyLocation>,
    algorithms: Option<Vec<Algorithm>>,
) -> Option<Arc<RemoteKeys>> {
    let mut take = |key: &'static dyn Declared| table.as_mut().and_then(|table| table.take(key));
    let refresh_item = take(&keys::REFRESH);
    let refresh = keys::REFRESH.read_or_default(refresh_item.as_ref());
    let cooldown = keys::COOLDOWN.read_or_default(take(&keys::COOLDOWN).as_ref());
    if let Some(item) = refresh_item.filter(|_| refresh < cooldown) {
        item.warn(
            "`refresh` is shorter than `cooldown`: the keys are fetched after each `cooldown`",
            "write a `cooldown` that is not longer, such as `cooldown = \"1s\"`",
        );
    }
    let stale_item = take(&keys::MAX_STALE);
    let max_stale = keys::MAX_STALE.read_or_default(stale_item.as_ref());
    if let Some(item) = &stale_item
        && max_stale < refresh.max(cooldown)
    {
        item.refuse(
            "`max_stale` is shorter than the time between two fetches: the keys would be forgotten in between",
            "write a longer one, such as \"24h\", or a shorter `refresh` and `cooldown`",
        );
    }
    let timeout = keys::TIMEOUT.read_or_default(take(&keys::TIMEOUT).as_ref());
    let ca = take(&PROVIDER_CA);
    if let (Some(item), Some(KeyLocation::Url(url) | KeyLocation::Issuer(url))) = (&ca, &location)
        && !url.is_https()
    {
        item.refuse(
            "`ca` has no effect: the keys are fetched over http",
            "remove it, or write https://",
        );
    }
    let tls = fetch::tls(section, ca.as_ref());
    Some(Arc::new(RemoteKeys {
        location: location?,
        algorithms: algorithms?,
        refresh,
        cooldown,
        max_stale,
        timeout,
        tls: tls?,
    }))
}

/// Reports an algorithm whose key is a secret, which no provider publishes.
pub(super) fn refuse_secrets(item: &Item<'_>, algorithms: &[Algorithm]) {
    let hmac = algorithms.iter().find(|algorithm| algorithm.is_hmac());
    if let Some(algorithm) = hmac {
        item.refuse(
            format!(
                "{} has a secret, and keys that are published have none",
                algorithm.name()
            ),
            "remove it, or write the secret under `keys` of another authenticator",
        );
    }
}

/// Requires `issuer` and `audience` where keys are published: the provider signs tokens of other issuers and for other applications with
/// the same keys.
pub(super) fn require_issuer_and_audience(
    section: &Section<'_>,
    remote: &RemoteKeys,
    issuer: &[String],
    audience: Option<&Item<'_>>,
) {
    let issuer_of_metadata = match &remote.location {
        KeyLocation::Issuer(url) => Some(url),
        KeyLocation::Url(_) => None,
    };
    if issuer.is_empty() {
        let example = issuer_of_metadata.map_or("https://ISSUER", FetchUrl::as_str);
        section.report_missing(
            "`issuer` is required where the keys are published: the provider may sign tokens of other issuers with them",
            format!("write `issuer = \"{example}\"`, exactly as the `iss` of the tokens"),
        );
    } else if let Some(url) = issuer_of_metadata
        && !issuer.iter().any(|name| name == url.as_str())
    {
        let problem = section.problem(
            format!("`issuer` does not list {url}, whose keys these are: its tokens are refused"),
            format!("write `issuer = \"{url}\"`, unless its tokens have another `iss`"),
        );
        section.add(problem.into_warning());
    }
    match audience {
        Some(item) if item.is_false() => item.warn(
            "tokens for every application of the provider are accepted: `aud` is not checked",
            "write `audience = \"…\"` if tokens have `aud`; otherwise require a scope, or the claim with the client, on each route",
        ),
        Some(_) => {}
        None => section.report_missing(
            "`audience` is required where the keys are published: the provider signs tokens for other applications with them",
            "write `audience = \"…\"`, one that the `aud` of the tokens for this API has, or `audience = false` if they have no `aud`",
        ),
    }
}
