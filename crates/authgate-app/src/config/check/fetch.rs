//! The keys by which identity providers are reached: URLs, and `ca`.

use authgate_auth::fetch::{FetchTls, FetchUrl};
use authgate_dataplane::tls::client::{self, ClientTlsSettings};

use super::certificates::authorities;
use crate::config::reader::{Item, Section};

/// A URL that may be fetched.
pub(super) fn url(item: &Item<'_>) -> Option<FetchUrl> {
    let text = item.text_for("a URL", "write https://HOST/PATH")?;
    match FetchUrl::parse(text.as_str()) {
        Ok(url) => Some(url),
        Err(problem) => {
            let help = "write https://HOST/PATH; http is possible for loopback addresses";
            text.refuse(&problem.to_string(), help);
            None
        }
    }
}

/// The issuer whose metadata may be fetched.
pub(super) fn issuer(item: &Item<'_>) -> Option<FetchUrl> {
    let url = url(item)?;
    let text = url.as_str();
    if text.contains('?') {
        item.refuse("an issuer has no query", "remove the ? and what follows it");
        return None;
    }
    if let Some((issuer, _)) = text.split_once("/.well-known/") {
        item.refuse(
            "this is the URL of the metadata, and not the issuer",
            format!("write \"{issuer}\", exactly as the `iss` of its tokens"),
        );
        return None;
    }
    Some(url)
}

/// TLS to a provider, with the authorities of `ca` or those of the system.
pub(super) fn tls(section: &Section<'_>, ca: Option<&Item<'_>>) -> Option<FetchTls> {
    // The certificates of the system are many: they are read once.
    if let (None, Some(tls)) = (ca, section.system_tls().get()) {
        return Some(tls.clone());
    }
    let settings = ClientTlsSettings {
        ca: match ca {
            Some(item) => Some(authorities(item)?),
            None => None,
        },
        identity: None,
    };
    match client::config(&settings) {
        Ok((config, made_from)) => {
            let tls = FetchTls { config, made_from };
            if ca.is_none() {
                section.system_tls().get_or_init(|| tls.clone());
            }
            Some(tls)
        }
        Err(error) => {
            section.report_missing(
                error.to_string(),
                "write `ca = \"ca.pem\"`, or install the system's root certificates",
            );
            None
        }
    }
}
