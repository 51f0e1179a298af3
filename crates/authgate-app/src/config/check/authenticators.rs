//! `[authenticators.*]`: their kinds, and the keys that the kinds share.

use std::collections::BTreeMap;
use std::sync::Arc;

use authgate_auth::token::{Source, TokenSettings};
use authgate_auth::{AuthScheme, AuthenticatorSettings, KindSettings, Requirement};
use authgate_core::outbound::identity::{ANONYMOUS, PUBLIC, UNKNOWN};
use http::HeaderName;
use http::header::AUTHORIZATION;
use toml::Spanned;

use super::common::{cache, header, read_schemes};
use super::identity::Identities;
use super::outage::on_outage;
use super::stores::Stores;
use super::{Names, absent, introspection, jwt, stores};
use crate::config::keys::authenticators::{self as keys, Kind};
use crate::config::keys::{self as tables};
use crate::config::problem::Problem;
use crate::config::reader::{Item, Section};

/// The parsed authenticators.
#[derive(Debug)]
pub(super) struct Authenticators {
    pub(super) names: Names,
    pub(super) settings: BTreeMap<Arc<str>, AuthenticatorSettings>,
}

/// `asks_for_certificates`: whether the server asks its clients for certificates, which tokens may be bound to.
pub(super) fn authenticators(
    root: &mut Section<'_>,
    stores: &Stores,
    identities: &Identities,
    asks_for_certificates: bool,
) -> Authenticators {
    let mut authenticators = Authenticators {
        names: Names::new("authenticators", "authenticator"),
        settings: BTreeMap::new(),
    };
    let section = root.take(&tables::AUTHENTICATORS).and_then(Item::names);
    let Some(mut section) = section else {
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
        if [PUBLIC, ANONYMOUS, UNKNOWN].contains(&named.name) {
            let message = format!(
                "{:?} is reserved: it tells upstreams that the request was not authenticated",
                named.name
            );
            named.item.refuse(message, "write another name, such as \"token\"");
        }
        authenticators.names.add(&name, named.span.clone());
        let certificate_bound = named.item.value().get("certificate_bound").map(Spanned::span);
        let settings = authenticator(named.item, Arc::clone(&name), stores, identities);
        let needs_certificates = |settings: &AuthenticatorSettings| {
            let mut bindings = settings.kind.bindings();
            bindings.any(|binding| binding.certificate_bound != Requirement::Off)
        };
        if !asks_for_certificates && settings.as_ref().is_some_and(needs_certificates) {
            section.add(Problem::error(
                certificate_bound.unwrap_or(named.span),
                &format!("authenticators.{name}.certificate_bound"),
                "no client shows a certificate that a token could be bound to: the server does not ask for one",
                "write `client_auth = { mode = \"optional\", ca = \"…\" }` in `[server.tls]`, or `certificate_bound = \"off\"` here",
            ));
        }
        authenticators
            .settings
            .extend(settings.map(|settings| (name, settings)));
    }
    authenticators
}

fn authenticator(
    item: Item<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    match item.kind(&keys::KIND, &keys::UNKNOWN)? {
        Kind::Token => token(item.section(&keys::TOKEN)?, name, stores, identities),
        Kind::Jwt => jwt::jwt(item.section(&tables::jwt::TABLE)?, name, stores, identities),
        Kind::Introspection => {
            introspection::introspection(item.section(&tables::introspection::TABLE)?, name, stores, identities)
        }
    }
}

fn token(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    let scheme_item = section.take(&keys::TOKEN_SCHEME);
    let header = header(&mut section, identities);
    let scheme = key_scheme(scheme_item, &header);
    let source = source(&mut section, stores);
    let store = match section.take(&keys::STORE) {
        Some(item) => item.text().and_then(|text| store(&text, stores)).inspect(|store| {
            if let Some((_, source)) = &source {
                stores.check_front(&item, store, &source.store);
            }
        }),
        None => implied_store(&section, stores),
    };
    let cache = cache(&mut section);
    let asked = store.iter().chain(source.as_ref().map(|(_, source)| &source.store));
    // A store that is not known is reported.
    let can_fail = store.is_none() || asked.into_iter().any(|store| stores.can_be_in_outage(store));
    let on_outage = on_outage(
        &mut section,
        &cache,
        can_fail,
        "name a store of `kind = \"redis\"` or `kind = \"django\"`",
    );
    let on_unknown = section.read(&keys::ON_UNKNOWN);
    Some(AuthenticatorSettings {
        name,
        header,
        scheme,
        realm: None,
        cache,
        on_outage,
        kind: KindSettings::Token(Arc::new(TokenSettings {
            store: store?,
            source: source.map(|(_, source)| source),
            on_unknown,
        })),
    })
}

/// `source` and `source_ttl`: the store behind `store`.
fn source<'c>(section: &mut Section<'c>, stores: &Stores) -> Option<(Item<'c>, Source)> {
    let (item, ttl_item) = (section.take(&keys::SOURCE), section.take(&keys::SOURCE_TTL));
    let ttl = keys::SOURCE_TTL.read_or_default(ttl_item.as_ref());
    let Some(item) = item else {
        if let Some(item) = ttl_item {
            item.refuse(
                "`source_ttl` has no effect without `source`",
                "remove it, or name a source",
            );
        }
        return None;
    };
    let text = item.text()?;
    let name = stores.names.find(&text)?;
    if let Some((message, help)) = stores.cannot_be_source(&name) {
        text.item().refuse(message, help);
        return None;
    }
    if section.lacks(&keys::STORE) {
        section.report_missing(
            "`store` is missing beside `source`",
            "write `store = \"…\"` with the name of a store of `kind = \"redis\"`, which keeps what the source says",
        );
    }
    let source = Source { store: name, ttl };
    drop(text);
    Some((item, source))
}

fn store(text: &crate::config::reader::Text<'_>, stores: &Stores) -> Option<Arc<str>> {
    if text.as_str() == stores::NONE {
        text.item().add(absent(
            text,
            "is not a store",
            "name a store: tokens have to be looked up in one".to_owned(),
        ));
        return None;
    }
    let name = stores.names.find(text)?;
    if let Some((message, help)) = stores.lacks_tokens(&name) {
        text.item().refuse(message, help);
        return None;
    }
    Some(name)
}

/// If there is only one store, `store` may be omitted.
fn implied_store(section: &Section<'_>, stores: &Stores) -> Option<Arc<str>> {
    let names = &stores.names;
    match names.names.as_slice() {
        [only] => match stores.lacks_tokens(only) {
            Some((message, help)) => section.report_missing(message, help),
            None => return Some(Arc::clone(only)),
        },
        [] => {
            let help = "add `[stores.file]` with `kind = \"embedded\"` and `file = \"tokens.toml\"`";
            section.report_missing("no store is defined to look tokens up in", help);
        }
        _ => section.report_missing(
            format!("`store` is missing, and the file has several: {}", names.listed()),
            format!("write `store = {:?}` or another one", &*names.names[0]),
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
    AuthScheme::OneOf(read_schemes(
        item,
        &keys::TOKEN_SCHEME,
        keys::DEFAULT_TOKEN_SCHEME,
        str::eq_ignore_ascii_case,
    ))
}
