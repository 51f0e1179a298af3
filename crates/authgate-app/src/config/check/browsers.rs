//! `cors` and `websocket` of a route: what pages of other origins may do.

use std::sync::Arc;

use authgate_auth::AuthenticatorSettings;
use authgate_dataplane::proxy::cors::{Cors, OriginList, Origins};
use authgate_dataplane::proxy::websocket_credential::WebSocketCredential;
use http::{HeaderName, HeaderValue};

use super::authenticators::Authenticators;
use crate::config::keys::routes::{cors as cors_keys, websocket as websocket_keys};
use crate::config::reader::{Declared, Item, Key, Raw, Section, Text, is_token_byte};

/// `cors`.
pub(super) fn cors(mut section: Section<'_>) -> Option<Cors> {
    let credentials = section.read(&cors_keys::CREDENTIALS);
    section.read(&cors_keys::PREFLIGHT);
    let mut any = false;
    let listed = origins(&mut section, &cors_keys::ORIGINS, |wildcard| {
        if credentials {
            wildcard.refuse(
                "would let every website read responses with the cookies of its visitors",
                "list the origins of your own applications",
            );
        }
        any = true;
    })?;
    let origins = if any { Origins::Any } else { Origins::Listed(listed) };
    Some(Cors { origins, credentials })
}

/// `websocket` of a route with these authenticators.
pub(super) fn websocket(
    item: Item<'_>,
    names: &[Arc<str>],
    authenticators: &Authenticators,
) -> Option<WebSocketCredential> {
    let mut section = item.section(&websocket_keys::TABLE)?;
    let origins = origins(&mut section, &websocket_keys::ORIGINS, |wildcard| {
        wildcard.refuse(
            "would let every website open a WebSocket as its visitor",
            "list the origins of your own applications",
        );
    });
    let subprotocol = section.read(&websocket_keys::SUBPROTOCOL);
    let cookie_item = section.take(&websocket_keys::COOKIE);
    if !subprotocol && cookie_item.is_none() {
        section.report_missing(
            "neither `subprotocol` nor `cookie` is set: pages have no way to send a credential",
            "write `subprotocol = true`, or `cookie = \"access_token\"`",
        );
    }
    let cookie = cookie_item.and_then(|item| cookie(&item));
    let scheme_item = section.take(&websocket_keys::SCHEME);
    let scheme = match &scheme_item {
        None => websocket_keys::SCHEME.default(),
        Some(item) if item.value().as_str() == Some("") => String::new(),
        Some(item) => item.scheme()?.as_str().to_owned(),
    };
    let settings = || names.iter().filter_map(|name| authenticators.settings.get(name));
    let Some(header) = settings().find_map(|authenticator| header_for_scheme(authenticator, &scheme)) else {
        let message = format!("no authenticator of this route reads the scheme {scheme:?}");
        let help = match settings().next().map(|authenticator| authenticator.scheme.first()) {
            Some(scheme) => format!("write `scheme = {scheme:?}`"),
            None => "add one that does to `authenticate`".to_owned(),
        };
        match &scheme_item {
            Some(item) => item.refuse(message, help),
            None => section.report_missing(message, help),
        }
        return None;
    };
    Some(WebSocketCredential {
        origins: origins?,
        subprotocol,
        cookie,
        header,
        scheme,
    })
}

fn cookie(item: &Item<'_>) -> Option<String> {
    let help = "write its name, such as \"access_token\"";
    let text = item.text_for("a cookie name", help)?;
    if text.as_str().is_empty() || !text.as_str().bytes().all(is_token_byte) {
        text.refuse("is not a cookie name", help);
        return None;
    }
    Some(text.into_string())
}

/// The header in which an authenticator reads credentials of a scheme.
fn header_for_scheme(authenticator: &AuthenticatorSettings, scheme: &str) -> Option<HeaderName> {
    let reads = authenticator.scheme.is(scheme.as_bytes());
    reads.then(|| authenticator.header.clone())
}

/// `origins`; the caller decides whether `"*"` is allowed.
fn origins(
    section: &mut Section<'_>,
    key: &'static Key<Raw>,
    mut on_wildcard: impl FnMut(&Text<'_>),
) -> Option<OriginList> {
    let mut listed = Vec::new();
    for item in section.require(key)?.non_empty_list(key)? {
        let text = item.text_for("an origin", &key.missing_help())?;
        match text.as_str() {
            "*" => on_wildcard(&text),
            origin if is_origin(origin) => listed.extend(HeaderValue::from_str(origin).ok()),
            _ => text.refuse(
                "is not an origin as browsers send it",
                "write scheme, host and port in lower case, without a path: \"https://app.example.com\"",
            ),
        }
    }
    Some(OriginList(listed))
}

/// `scheme://host`, with a port if it is not the scheme's default (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let implied = matches!(
        (scheme, authority.port_u16()),
        ("https", Some(443)) | ("http", Some(80))
    );
    text == format!("{scheme}://{authority}") && text == text.to_ascii_lowercase() && !text.contains('@') && !implied
}
