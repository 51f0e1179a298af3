//! `acme` of `[server.tls]`.

use std::path::PathBuf;

use http::Uri;

use super::certificates::authorities;
use super::route_match::is_host;
use crate::acme::AcmeSettings;
use crate::config::keys::tls::acme as keys;
use crate::config::reader::{Item, Section};

/// The parsed table. Whether there are listeners for HTTP-01 is decided by the caller.
pub(super) fn acme(mut section: Section<'_>) -> Option<AcmeSettings> {
    let list = section
        .require(&keys::DOMAINS)
        .and_then(|item| item.non_empty_list(&keys::DOMAINS))
        .unwrap_or_default();
    let mut domains = Vec::new();
    for item in &list {
        let Some(name) = domain(item) else { continue };
        if domains.contains(&name) {
            item.refuse(format!("{name:?} is listed twice"), "remove one of them");
        }
        domains.push(name);
    }
    let email = section.take(&keys::EMAIL).and_then(|item| email(&item));
    let directory = section.take(&keys::DIRECTORY).and_then(|item| directory(&item));
    let ca = section.take(&keys::CA).and_then(|item| authorities(&item));
    let store = section.take(&keys::STORE).and_then(|item| store(&item));
    Some(AcmeSettings {
        domains,
        email,
        directory: directory.unwrap_or_else(|| keys::DIRECTORY.default()),
        ca,
        store: store.unwrap_or_else(|| keys::STORE.default().into()),
        has_http: false,
    })
}

/// A host name that an authority can validate by a connection to the gateway.
fn domain(item: &Item<'_>) -> Option<String> {
    const HELP: &str = "write a host name in lower case, such as \"api.example.com\": no port, no path";
    let text = item.text_for("a host name", HELP)?;
    let name = text.as_str();
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    if name.starts_with("*.") {
        let help = "list each host; for a wildcard, obtain the certificate with another program and write it in `certificates`";
        text.refuse("is a wildcard, which authorities validate by DNS only", help);
        return None;
    }
    if is_address || !is_host(name) {
        text.refuse("is not a host name", HELP);
        return None;
    }
    Some(text.into_string())
}

fn email(item: &Item<'_>) -> Option<String> {
    const HELP: &str = "write one address, such as \"ops@example.com\"";
    let text = item.text_for("an e-mail address", HELP)?;
    let is_plain = |c: char| c.is_ascii_graphic() && !"?,:<>\"".contains(c);
    match text.as_str().split_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() && text.as_str().chars().all(is_plain) => {
            Some(text.into_string())
        }
        Some(_) | None => {
            text.refuse("is not an e-mail address", HELP);
            None
        }
    }
}

fn directory(item: &Item<'_>) -> Option<String> {
    let help = format!(
        "write the https URL of an ACME directory, such as {:?}",
        keys::DIRECTORY.default()
    );
    let text = item.text_for("a URL", &help)?;
    let uri = text.as_str().parse::<Uri>().ok();
    let is_https = uri.is_some_and(|uri| {
        let login = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()) && !login
    });
    if !is_https {
        text.refuse("is not an https URL", help);
        return None;
    }
    Some(text.into_string())
}

/// The folder. The gateway creates it; here it is only checked that it can be one.
fn store(item: &Item<'_>) -> Option<PathBuf> {
    const HELP: &str = "name a folder for the account, keys and certificates; the gateway creates it";
    let text = item.text_for("a path", HELP)?;
    if text.as_str().is_empty() {
        text.refuse("is empty", HELP);
        return None;
    }
    // It is not one of the files that the configuration reads: the gateway writes it, and follows its changes itself.
    let path = text.resolve_path(text.as_str());
    let existing = path.ancestors().find(|folder| folder.exists());
    if let Some(file) = existing.filter(|folder| !folder.is_dir()) {
        item.refuse(format!("{} is not a folder", file.display()), HELP);
        return None;
    }
    Some(path)
}
