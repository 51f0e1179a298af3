//! The keys that all kinds of authenticators have: `header`, `scheme`, `form` and `cache`.

use std::ops::Range;

use authgate_auth::CredentialForm;
use authgate_auth::cache::CacheSettings;
use authgate_auth::store::{DigestKind, Digests};
use authgate_core::outbound::identity::OPAQUE_SCHEME;
use http::HeaderName;

use super::identity::Identities;
use crate::config::defaults;
use crate::config::reader::{Item, Section, Zero, fold};

/// A cache allocates room for all its entries at once, so their number is limited.
const MAX_ENTRIES: u64 = 50_000_000;

/// `scheme`: one, or several of which the first is used in the challenge. `same` compares schemes as requests do.
pub(super) fn schemes(section: &mut Section<'_>, default: &str, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
    read_schemes(section.take("scheme"), default, same)
}

pub(super) fn read_schemes(item: Option<Item<'_>>, default: &str, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut schemes: Vec<String> = Vec::new();
    let Some(item) = item else {
        return vec![default.to_owned()];
    };
    for item in item.one_or_more(&format!("scheme = {default:?}")).unwrap_or_default() {
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
    let forms = [
        ("any", CredentialForm::Any),
        ("jwt", CredentialForm::Jwt),
        ("opaque", CredentialForm::Opaque),
    ];
    let item = section.take("form");
    let form = item.as_ref().and_then(|item| item.text()?.choice(&forms, &[]));
    (item, form.unwrap_or(defaults::FORM))
}

/// `header`: the header of the credential. It cannot also be an identity header.
pub(super) fn header(section: &mut Section<'_>, identities: &Identities) -> HeaderName {
    let Some(item) = section.take("header") else {
        return defaults::CREDENTIAL_HEADER;
    };
    let Some(header) = item.header_name() else {
        return defaults::CREDENTIAL_HEADER;
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
    let default = defaults::CACHE;
    let Some(mut section) = section.section("cache", &[]) else {
        return default;
    };
    CacheSettings {
        entries: section.count_or("entries", (0, MAX_ENTRIES), default.entries),
        ttl: section.duration_or("ttl", Zero::Allowed, default.ttl),
        negative_entries: section.count_or("negative_entries", (0, MAX_ENTRIES), default.negative_entries),
        negative_ttl: section.duration_or("negative_ttl", Zero::Allowed, default.negative_ttl),
    }
}

/// `digest`: the digests by which the store's tokens are keyed.
pub(super) fn digests(section: &mut Section<'_>, default: Digests) -> Digests {
    let Some(item) = section.take("digest") else {
        return default;
    };
    let Some(items) = item.one_or_more("digest = [\"sha256\"]") else {
        return default;
    };
    let kinds: Vec<DigestKind> = items
        .iter()
        .filter_map(|item| item.text()?.choice(&DigestKind::NAMED, &[]))
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
