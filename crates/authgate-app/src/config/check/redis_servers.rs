//! `url`, `urls`, `mode`, `service` and `sentinel` of `[stores.*]`: the servers of a Redis, and how they are found.

use std::sync::Arc;

use authgate_auth::store::redis::{Endpoint, RedisTls, Sentinels, Servers};
use authgate_core::secret::Secret;

use super::client_tls::{ClientTls, client_tls};
use crate::config::keys::stores::{self as keys, Mode};
use crate::config::reader::{Item, Key, Section, Sub, Text};

/// The key with the addresses: the server, every sentinel, or some servers of the cluster.
const fn example(mode: Mode) -> &'static str {
    match mode {
        Mode::Single => "url = \"redis://127.0.0.1:6379/0\"",
        Mode::Sentinel => "urls = [\"redis://SENTINEL:26379\"]",
        Mode::Cluster => "urls = [\"redis://SERVER:6379\"]",
    }
}

pub(super) fn servers(section: &mut Section<'_>) -> Option<Servers> {
    let mode = section
        .take(&keys::MODE)
        .map_or(Some(keys::MODE.default()), |item| keys::MODE.read(&item));
    let (service, sentinel) = (section.take(&keys::SERVICE), section.take(&keys::SENTINEL));
    if let Some(Mode::Single | Mode::Cluster) = mode {
        for item in service.iter().chain(&sentinel) {
            item.refuse(
                "this key has no effect without `mode = \"sentinel\"`",
                "write `mode = \"sentinel\"`, or remove it",
            );
        }
    }
    let Some(mode) = mode else {
        // Without a mode, the addresses cannot be checked.
        section.take(&keys::URL);
        section.take(&keys::URLS);
        return None;
    };
    match mode {
        Mode::Single => {
            let example = example(mode);
            if let Some(urls) = section.take(&keys::URLS) {
                urls.refuse(
                    "`urls` has no effect in `mode = \"single\"`",
                    format!("write `{example}`, or `mode = \"sentinel\"` or `mode = \"cluster\"`"),
                );
                section.take(&keys::URL);
                return None;
            }
            endpoint(&section.require_as(&keys::URL, example)?.text()?).map(Servers::Single)
        }
        Mode::Sentinel => {
            let endpoints = endpoints(section, mode);
            let service = match service {
                Some(service) => keys::SERVICE.read(&service),
                // Reports it.
                None => section.required(&keys::SERVICE),
            };
            let has_tls = endpoints.iter().flatten().any(Endpoint::has_tls);
            let access = sentinel.and_then(|item| access(item, has_tls)).unwrap_or_default();
            Some(Servers::Sentinel(Sentinels {
                endpoints: endpoints?,
                service: service?,
                username: access.username,
                password: access.password,
                tls: access.tls,
            }))
        }
        Mode::Cluster => endpoints(section, mode).map(Servers::Cluster),
    }
}

/// How the sentinels are reached.
#[derive(Default)]
struct Access {
    username: Option<String>,
    password: Option<Secret<String>>,
    tls: Option<RedisTls>,
}

fn access(item: Item<'_>, has_tls: bool) -> Option<Access> {
    let mut section = item.section(&keys::sentinel::TABLE)?;
    let username = section.take(&keys::sentinel::USERNAME);
    let password = section.take(&keys::sentinel::PASSWORD);
    // Without a table of its own, the one of the store is used.
    let tls = if section.lacks(&keys::sentinel::TLS) {
        None
    } else {
        tls(&mut section, &keys::sentinel::TLS, has_tls)
    };
    if let (Some(username), None) = (&username, &password) {
        username.refuse("a name needs a password", "write `password` beside it, or remove it");
    }
    Some(Access {
        username: username.and_then(|item| keys::sentinel::USERNAME.read(&item)),
        password: password.and_then(|item| keys::sentinel::PASSWORD.read(&item)),
        tls,
    })
}

/// Reads `urls`. Errors never quote a URL, which may hold a password.
fn endpoints(section: &mut Section<'_>, mode: Mode) -> Option<Vec<Endpoint>> {
    let example = example(mode);
    if let Some(url) = section.take(&keys::URL) {
        let problem = match section.take(&keys::URLS) {
            Some(_) => "`url` is written beside `urls`",
            None => "`url` names one server, and this mode needs `urls`",
        };
        url.refuse(problem, format!("write `{example}` alone"));
        return None;
    }
    let urls = section.require_as(&keys::URLS, example)?;
    let items = urls.non_empty_list(&keys::URLS)?;
    let mut found: Vec<Endpoint> = Vec::with_capacity(items.len());
    let mut are_valid = true;
    for item in &items {
        let Some(endpoint) = item.text().and_then(|text| endpoint(&text)) else {
            are_valid = false;
            continue;
        };
        match problem(&endpoint, found.first(), mode) {
            Some((problem, help)) => {
                item.refuse(problem, help);
                are_valid = false;
            }
            None => found.push(endpoint),
        }
    }
    are_valid.then_some(found)
}

/// Why a URL cannot be one of several, and what to write instead.
fn problem(endpoint: &Endpoint, first: Option<&Endpoint>, mode: Mode) -> Option<(&'static str, &'static str)> {
    if endpoint.socket().is_some() {
        return Some((
            "servers of this mode are named by host and port, and this URL is a unix socket",
            "write \"redis://HOST:PORT\"",
        ));
    }
    if endpoint.has_login() {
        let help = match mode {
            Mode::Single | Mode::Cluster => "remove it, and write `username` and `password` in this table",
            Mode::Sentinel => {
                "remove it. Write `username` and `password` in this table for Redis, and in `sentinel = { … }` for the sentinels"
            }
        };
        return Some(("a URL in `urls` must not have a login", help));
    }
    if mode == Mode::Cluster && endpoint.database() != 0 {
        return Some((
            "a cluster has only database 0",
            "remove the number at the end of the URL",
        ));
    }
    let first = first?;
    if first.has_tls() != endpoint.has_tls() {
        return Some((
            "some of the URLs begin with redis://, and some with rediss://",
            "write the same scheme in all of them",
        ));
    }
    if first.database() != endpoint.database() {
        return Some((
            "the URLs have different database numbers",
            "write the same number in all of them: it is the database of the primary",
        ));
    }
    None
}

/// The URL may hold a password, so it is never quoted. The library's error does not repeat it.
fn endpoint(url: &Text<'_>) -> Option<Endpoint> {
    match Endpoint::parse(url.as_str()) {
        Ok(endpoint) => Some(endpoint),
        Err(problem) => {
            let help =
                "write \"redis://HOST:PORT/DB\", \"rediss://HOST:PORT/DB\" for TLS, or \"unix:///run/redis.sock?db=0\"";
            url.item().refuse(format!("invalid URL: {problem}"), help);
            None
        }
    }
}

/// `tls` to the servers of a store.
pub(super) fn tls(section: &mut Section<'_>, key: &'static Key<Sub>, has_tls: bool) -> Option<RedisTls> {
    let unused = (
        "`tls` has no effect: the URL does not begin with rediss://",
        "write \"rediss://HOST:PORT/DB\", or remove `tls`",
    );
    let ClientTls {
        config,
        made_from,
        server_name,
    } = client_tls(section, key, has_tls, unused)?;
    let mut config = (*config).clone();
    config.alpn_protocols.clear();
    Some(RedisTls {
        config: Arc::new(config),
        made_from,
        server_name,
    })
}
