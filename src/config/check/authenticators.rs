//! `[authenticators.*]`: their kinds, and the keys that the kinds share.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use authgate_core::outbound::identity::{ANONYMOUS, OPAQUE_SCHEME, PUBLIC};
use http::HeaderName;
use http::header::AUTHORIZATION;

use super::identity::Identities;
use super::{Names, absent, jwt, stores};
use crate::auth::cache::CacheSettings;
use crate::auth::token::TokenSettings;
use crate::auth::{AuthScheme, AuthenticatorSettings, KindSettings};
use crate::config::defaults;
use crate::config::reader::{Item, Section, Zero, fold};

/// Every kind of authenticator.
const KINDS: [Kind; 2] = [
    Kind {
        name: "token",
        unsupported: UNSUPPORTED,
        read: token,
    },
    Kind {
        name: "jwt",
        unsupported: &["on_outage", "stale_for", "discovery", "issuers"],
        read: jwt::jwt,
    },
];
const UNSUPPORTED: &[&str] = &["on_outage", "stale_for"];
/// A cache allocates room for all its entries at once, so their number is limited.
const MAX_ENTRIES: u64 = 50_000_000;

/// The parsed authenticators.
#[derive(Debug)]
pub(super) struct Authenticators {
    pub(super) names: Names,
    pub(super) settings: BTreeMap<Arc<str>, AuthenticatorSettings>,
}

/// A kind of authenticator.
#[derive(Clone, Copy)]
struct Kind {
    /// The value of `kind`.
    name: &'static str,
    /// Keys that other versions may have.
    unsupported: &'static [&'static str],
    /// Reads the table.
    read: fn(Section<'_>, Arc<str>, &Names, &Identities) -> Option<AuthenticatorSettings>,
}

pub(super) fn authenticators(root: &mut Section<'_>, stores: &Names, identities: &Identities) -> Authenticators {
    let mut authenticators = Authenticators {
        names: Names::new("authenticators", "authenticator"),
        settings: BTreeMap::new(),
    };
    let Some(mut section) = root.section("authenticators", &[]) else {
        return authenticators;
    };
    for named in section.take_all() {
        let name: Arc<str> = named.name.into();
        let is_visible_ascii = !named.name.is_empty() && named.name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible_ascii {
            let help = "rename it with letters, digits and `-`: the name may be sent to upstreams in a header";
            named
                .item
                .refuse(format!("{:?} cannot be sent in a header", named.name), help);
        }
        if [PUBLIC, ANONYMOUS].contains(&named.name) {
            let message = format!(
                "{:?} is reserved: it tells upstreams that the request was not authenticated",
                named.name
            );
            named.item.refuse(message, "write another name, such as \"token\"");
        }
        authenticators.names.add(&name, named.span.clone());
        let settings = authenticator(named.item, Arc::clone(&name), stores, identities);
        authenticators
            .settings
            .extend(settings.map(|settings| (name, settings)));
    }
    authenticators
}

fn authenticator(
    item: Item<'_>,
    name: Arc<str>,
    stores: &Names,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    const EXAMPLE: &str = "kind = \"token\"` or `kind = \"jwt\"";
    let written = item.value().get("kind").and_then(|kind| kind.get_ref().as_str());
    let unsupported = KINDS.iter().find(|kind| Some(kind.name) == written);
    let mut section = item.section(unsupported.map_or(UNSUPPORTED, |kind| kind.unsupported))?;
    let kind = section
        .require("kind", EXAMPLE)
        .and_then(|item| item.text()?.choice(&KINDS.map(|kind| (kind.name, kind)), &[]));
    match kind {
        Some(kind) => (kind.read)(section, name, stores, identities),
        None => {
            // Without a kind, the other keys cannot be checked.
            section.take_all();
            None
        }
    }
}

fn token(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Names,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    let scheme_item = section.take("scheme");
    let header = header(&mut section, identities);
    let scheme = key_scheme(scheme_item, &header);
    let store = match section.take("store") {
        Some(item) => item.text().and_then(|text| store(&text, stores)),
        None => implied_store(&section, stores),
    };
    let cache = cache(&mut section);
    Some(AuthenticatorSettings {
        name,
        header,
        scheme,
        realm: None,
        cache,
        kind: KindSettings::Token(Arc::new(TokenSettings { store: store? })),
    })
}

fn store(text: &crate::config::reader::Text<'_>, stores: &Names) -> Option<Arc<str>> {
    if text.as_str() == stores::NONE {
        text.item().add(absent(
            text,
            "is not a store",
            "name a store: tokens have to be looked up in one".to_owned(),
        ));
        return None;
    }
    stores.find(text)
}

/// If there is only one store, `store` may be omitted.
fn implied_store(section: &Section<'_>, stores: &Names) -> Option<Arc<str>> {
    match stores.names.as_slice() {
        [only] => return Some(Arc::clone(only)),
        [] => {
            let help = "add `[stores.file]` with `kind = \"embedded\"` and `file = \"tokens.toml\"`";
            section.report_missing("no store is defined to look tokens up in", help);
        }
        _ => section.report_missing(
            format!("`store` is missing, and the file has several: {}", stores.listed()),
            format!("write `store = {:?}` or another one", &*stores.names[0]),
        ),
    }
    None
}

/// `scheme` of opaque tokens: none, one, or several.
fn key_scheme(item: Option<Item<'_>>, header: &HeaderName) -> AuthScheme {
    if let Some(item) = &item
        && item.value().as_str() == Some("")
    {
        if *header == AUTHORIZATION {
            item.refuse(
                "without a scheme the whole value is the key, and Authorization always has a scheme (RFC 9110, section 11.4)",
                "write `header = \"X-API-Key\"` beside it, or a scheme such as \"Token\"",
            );
            return AuthScheme::OneOf(Vec::new());
        }
        return AuthScheme::None;
    }
    AuthScheme::OneOf(read_schemes(item, defaults::TOKEN_SCHEME, str::eq_ignore_ascii_case))
}

/// `scheme`: one, or several of which the first is used in the challenge. `same` compares schemes as requests do.
pub(super) fn schemes(section: &mut Section<'_>, default: &str, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
    read_schemes(section.take("scheme"), default, same)
}

fn read_schemes(item: Option<Item<'_>>, default: &str, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
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

/// `header`: the header of the credential. It cannot also be an identity header.
pub(super) fn header(section: &mut Section<'_>, identities: &Identities) -> HeaderName {
    let Some(item) = section.take("header") else {
        return defaults::CREDENTIAL_HEADER;
    };
    let Some(header) = item.header_name() else {
        return defaults::CREDENTIAL_HEADER;
    };
    let taken: Option<&Range<usize>> = identities.written.get(&fold(header.as_str()));
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
