//! The keys that all kinds of authenticators have: `header`, `scheme`, `form` and `cache`.

use std::ops::Range;

use authgate_auth::CredentialForm;
use authgate_auth::cache::CacheSettings;
use authgate_auth::store::{DigestKind, Digests};
use authgate_core::outbound::identity::OPAQUE_SCHEME;
use http::HeaderName;

use super::identity::Identities;
use crate::config::keys::authenticators::{self as keys, cache};
use crate::config::reader::{Declared, Item, Key, Raw, Section, fold};

/// `scheme`: one, or several of which the first is used in the challenge. `same` compares schemes as requests do.
pub(super) fn schemes(section: &mut Section<'_>, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
    read_schemes(section.take(&keys::SCHEMES), &keys::SCHEMES, keys::DEFAULT_SCHEME, same)
}

pub(super) fn read_schemes(
    item: Option<Item<'_>>,
    key: &dyn Declared,
    default: &str,
    same: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let mut schemes: Vec<String> = Vec::new();
    let Some(item) = item else {
        return vec![default.to_owned()];
    };
    for item in item.one_or_more(key).unwrap_or_default() {
        let Some(scheme) = item.scheme() else { continue };
        if schemes.iter().any(|before| same(before, scheme.as_str())) {
            scheme.refuse("is listed twice", "remove one of them");
        }
        if scheme.as_str().eq_ignore_ascii_case(OPAQUE_SCHEME) {
            scheme.refuse(
                "is reserved for the value that the gateway sends in place of a credential",
                format!("write another scheme, such as {default:?}"),
            );
        }
        schemes.push(scheme.into_string());
    }
    schemes
}

/// `form`: the form of the credentials that are read.
pub(super) fn form<'c>(section: &mut Section<'c>) -> (Option<Item<'c>>, CredentialForm) {
    let item = section.take(&keys::FORM);
    let form = keys::FORM.read_or_default(item.as_ref());
    (item, form)
}

/// `header`: the header of the credential. It cannot also be an identity header.
pub(super) fn header(section: &mut Section<'_>, identities: &Identities) -> HeaderName {
    let Some(item) = section.take(&keys::HEADER) else {
        return keys::HEADER.default();
    };
    let Some(header) = keys::HEADER.read(&item) else {
        return keys::HEADER.default();
    };
    let folded = fold(header.as_str());
    let signed = identities.signed_headers.get(&folded).map(|(_, span)| span);
    let taken: Option<&Range<usize>> = identities.written.get(&folded).or(signed);
    if let Some(span) = taken {
        let message = format!("{header} carries a credential here and an identity to the upstream");
        let problem = item.problem(message, "use another header in one of the two places");
        item.add(problem.with_related(span.clone(), "the identity is sent here"));
    }
    header
}

/// `cache`: the sizes and lifetimes of cached results.
pub(super) fn cache(section: &mut Section<'_>) -> CacheSettings {
    let Some(mut section) = section.section(&keys::CACHE) else {
        return cache::defaults();
    };
    CacheSettings {
        entries: section.read(&cache::ENTRIES),
        ttl: section.read(&cache::TTL),
        negative_entries: section.read(&cache::NEGATIVE_ENTRIES),
        negative_ttl: section.read(&cache::NEGATIVE_TTL),
    }
}

/// `digest`: the digests by which the store's tokens are keyed.
pub(super) fn digests(section: &mut Section<'_>, key: &'static Key<Raw>, default: Digests) -> Digests {
    let Some(item) = section.take(key) else {
        return default;
    };
    let Some(items) = item.one_or_more(key) else {
        return default;
    };
    let kinds: Vec<DigestKind> = items
        .iter()
        .filter_map(|item| item.text()?.choice(&DigestKind::NAMED))
        .collect();
    let digests = Digests::new(&kinds);
    if digests.is_none() && kinds.len() == items.len() {
        item.refuse(
            "a digest is listed twice",
            "write each one once, such as [\"sha256\", \"sha512\"]",
        );
    }
    digests.unwrap_or(default)
}
