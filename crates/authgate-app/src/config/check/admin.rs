//! `[admin]` and `[probes]`.

use std::net::SocketAddr;

use authgate_dataplane::gateway::ServerSettings;
use authgate_dataplane::tls::control::ControlTlsSettings;
use authgate_http::server::address::Address;

use super::certificates::authorities;
use super::route_match::is_host;
use super::server::{address, certificate_in};
use crate::config::Admin;
use crate::config::keys::admin as keys;
use crate::config::keys::{self as tables};
use crate::config::reader::{Item, Section};
use crate::control::token::AdminToken;

/// A token that is shorter than this is warned about.
const SHORT_TOKEN: usize = 16;
const TOKEN: &str = "token = { file = \"admin.token\" }";
const TLS: &str = "tls = { chain = \"admin.pem\", key = \"admin.key\" }";

/// `[admin]`: on by default, on loopback.
pub(super) fn admin(root: &mut Section<'_>, server: &ServerSettings) -> Admin {
    let mut admin = Admin {
        listen: vec![Address::Tcp(keys::DEFAULT_LISTEN)],
        hosts: Vec::new(),
        token: None,
        tls: None,
    };
    let Some(mut section) = root.section(&tables::ADMIN) else {
        return admin;
    };
    if let Some(item) = section.take(&keys::HOSTS) {
        let hosts = item.list(&keys::HOSTS).unwrap_or_default();
        admin.hosts = hosts.iter().filter_map(host).collect();
    }
    let (token_item, tls_item) = (section.take(&keys::TOKEN), section.take(&keys::TLS));
    let missing = match (&token_item, &tls_item) {
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some(("`token` is missing", format!("add `{TOKEN}`"))),
        (Some(_), None) => Some(("`tls` is missing", format!("add `{TLS}`"))),
        (None, None) => Some(("`token` and `tls` are missing", format!("add `{TOKEN}` and `{TLS}`"))),
    };
    admin.token = token_item.and_then(|item| token(&item));
    admin.tls = tls_item.and_then(|item| tls(&item));
    if let Some(item) = section.take(&keys::LISTEN) {
        admin.listen = addresses(&item, server, missing.as_ref());
    }
    admin
}

/// `listen`: one address, or several. `missing`: the keys that an address beyond loopback needs and that are not there, and the remedy.
fn addresses(listen: &Item<'_>, server: &ServerSettings, missing: Option<&(&str, String)>) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for item in listen.one_or_more(&keys::LISTEN).unwrap_or_default() {
        let Some(address) = address(&item) else { continue };
        let any_port = address.tcp().is_some_and(|address| address.port() == 0);
        if !any_port && addresses.contains(&address) {
            item.refuse(format!("{address} is listed twice"), "remove one of them");
        }
        if !any_port && server.listen.contains(&address) {
            item.refuse(
                format!("{address} is also in `server.listen`"),
                "write another address, such as \"127.0.0.1:9901\"",
            );
        }
        if let Some((what, remedy)) = missing
            && address.tcp().is_some()
            && !address.is_loopback()
        {
            item.refuse(
                format!("{address} can be reached from other machines, and {what}"),
                format!(
                    "{remedy} to [admin], or write \"127.0.0.1:9901\"; for kubelets and balancers there is `[probes]`"
                ),
            );
        }
        addresses.push(address);
    }
    addresses
}

/// `token`: the secret that requests present.
fn token(item: &Item<'_>) -> Option<AdminToken> {
    const HELP: &str = "write a random one to a file, such as `openssl rand -hex 32 > admin.token`, and name the file";
    let token = keys::TOKEN.read(item)?;
    let token = token.expose();
    if token.is_empty() {
        item.refuse("the token is empty", HELP);
        return None;
    }
    // Other characters have no place in `Authorization: Bearer`, or are lost on the way.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        item.refuse("the token has a character that is not visible ASCII", HELP);
        return None;
    }
    if token.len() < SHORT_TOKEN {
        item.warn(
            format!("the token has {} characters, so it may be guessed", token.len()),
            HELP,
        );
    }
    Some(AdminToken::new(token))
}

/// `tls`: a certificate, and perhaps the authorities of the clients' certificates.
fn tls(item: &Item<'_>) -> Option<ControlTlsSettings> {
    let mut section = item.clone().section(&keys::tls::TABLE)?;
    let certificate = certificate_in(item, &mut section);
    let client_ca = section.take(&keys::tls::CLIENT_CA);
    let client_ca = client_ca.and_then(|item| authorities(&item));
    Some(ControlTlsSettings {
        certificate: certificate?,
        client_ca,
    })
}

/// A further host name of the admin listener: in lower case, without port, trailing dot and wildcard.
fn host(item: &Item<'_>) -> Option<String> {
    const HELP: &str = "write the name alone, such as \"authgate.internal\": no port, no `*`, in lower case";
    let text = item.text_for("a host", HELP)?;
    if is_host(text.as_str()) {
        return Some(text.into_string());
    }
    text.refuse("is not a host", HELP);
    None
}

/// `[probes]`: off by default.
pub(super) fn probes(root: &mut Section<'_>, server: &ServerSettings, admin: &Admin) -> Option<SocketAddr> {
    let mut section = root.section(&tables::PROBES)?;
    let item = section.require(&keys::PROBES_LISTEN)?;
    let listen = keys::PROBES_LISTEN.read(&item)?;
    for (key, others) in [("server.listen", &server.listen), ("admin.listen", &admin.listen)] {
        if listen.port() != 0 && others.contains(&Address::Tcp(listen)) {
            item.refuse(
                format!("{listen} is also in `{key}`"),
                "write another port, such as \"0.0.0.0:9902\"",
            );
        }
    }
    Some(listen)
}
