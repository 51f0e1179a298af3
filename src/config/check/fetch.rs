//! The keys by which identity providers are reached: URLs, and `ca`.

use authgate_auth::fetch::{FetchTls, FetchUrl};

use super::certificates::authorities;
use crate::config::reader::{Item, Section};
use crate::tls::client::{self, ClientTlsSettings};

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

/// TLS to a provider, with the authorities of `ca` or those of the system.
pub(super) fn tls(section: &Section<'_>, ca: Option<&Item<'_>>) -> Option<FetchTls> {
    let settings = ClientTlsSettings {
        ca: match ca {
            Some(item) => Some(authorities(item)?),
            None => None,
        },
        identity: None,
    };
    match client::config(&settings) {
        Ok((config, made_from)) => Some(FetchTls { config, made_from }),
        Err(error) => {
            section.report_missing(
                error.to_string(),
                "write `ca = \"ca.pem\"`, or install the system's root certificates",
            );
            None
        }
    }
}
