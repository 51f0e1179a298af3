//! `[upstreams.*]`: the application servers.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use authgate_dataplane::proxy::routes::HostPattern;
use authgate_http::server::socket_file::MAX_SOCKET_PATH;
use authgate_http::upstream::{
    HealthCheck, HostMode, Server, SpoolSettings, Tls, Transport, UnsizedBodies, UpstreamSettings,
};
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};

use super::Names;
use super::client_tls::{ClientTls, client_tls};
use super::identity::Identities;
use super::route_match::is_host;
use crate::config::Route;
use crate::config::keys::upstreams::{
    self as keys, buffer, health as health_keys, secret_header as secret_keys, server as server_keys,
    spool as spool_keys,
};
use crate::config::keys::{self as tables};
use crate::config::modes::UnsizedMode;
use crate::config::reader::{Declared, Item, Section, Text, fold};
use crate::config::secrets;

const LOCALHOST: HeaderValue = HeaderValue::from_static("localhost");

/// The parsed upstreams.
pub(super) struct Upstreams<'c> {
    pub(super) names: Names,
    pub(super) settings: BTreeMap<Arc<str>, UpstreamSettings>,
    /// The positions of the names of `secret_header`.
    secrets: Vec<(Item<'c>, HeaderName)>,
    /// Upstreams whose health checks take their `Host` from the routes.
    checks_without_host: Vec<Arc<str>>,
}

pub(super) fn upstreams<'c>(root: &mut Section<'c>, identities: &mut Identities) -> Upstreams<'c> {
    let mut upstreams = Upstreams {
        names: Names::new("upstreams", "upstream"),
        settings: BTreeMap::new(),
        secrets: Vec::new(),
        checks_without_host: Vec::new(),
    };
    let section = root.require(&tables::UPSTREAMS).and_then(Item::names);
    let Some(mut section) = section else {
        return upstreams;
    };
    let all = section.take_all();
    if all.is_empty() {
        section.report_missing("no upstream is defined", tables::UPSTREAMS.missing_help());
    }
    for named in all {
        let name: Arc<str> = named.name.into();
        upstreams.names.add(&name, named.span.clone());
        let Some(mut section) = named.item.section(&keys::TABLE) else {
            continue;
        };
        identities.add_upstream(&name, section.section(&keys::IDENTITY));
        let settings = upstream(section, Arc::clone(&name), &mut upstreams);
        upstreams.settings.insert(name, settings);
    }
    let written = upstreams.secrets.iter().filter_map(|(item, _)| item.text());
    identities.names.extend(written.map(|name| name.as_str().into()));
    upstreams
}

/// `taken`: folded names of headers that already carry a credential or an identity.
pub(super) fn refuse_secrets(upstreams: &Upstreams<'_>, taken: &HashSet<String>) {
    for (item, name) in &upstreams.secrets {
        if *name == AUTHORIZATION || taken.contains(&fold(name.as_str())) {
            item.refuse(
                format!("{:?} already carries an identity or a credential", name.as_str()),
                "write another name, such as \"X-Gateway-Secret\"",
            );
        }
    }
}

fn upstream<'c>(mut section: Section<'c>, name: Arc<str>, found: &mut Upstreams<'c>) -> UpstreamSettings {
    let mut servers: Vec<Server> = Vec::new();
    let list = section
        .require(&keys::SERVERS)
        .and_then(|item| item.non_empty_list(&keys::SERVERS))
        .unwrap_or_default();
    for item in list {
        let Some((server, text)) = server(&item) else { continue };
        if servers
            .iter()
            .any(|other| (&other.transport, &other.authority) == (&server.transport, &server.authority))
        {
            text.refuse("is listed twice", "remove one of them");
        }
        servers.push(server);
    }
    let tls = tls(&mut section, &servers);
    let secret_header = section
        .section(&keys::SECRET_HEADER)
        .and_then(|section| secret_header(section, &mut found.secrets));
    let mode = section
        .take(&keys::HOST)
        .and_then(|item| host(&item))
        .unwrap_or(HostMode::Preserve);
    let check = section
        .section(&keys::HEALTH)
        .and_then(|section| check(section, &mode, &name, &mut found.checks_without_host));
    let (request_buffer, response_buffer) = buffers(&mut section);
    let unsized_mode = unsized_mode(&mut section, &servers);
    UpstreamSettings {
        name,
        servers,
        balance: section.read(&keys::BALANCE),
        host: mode,
        connect_timeout: section.read(&keys::CONNECT_TIMEOUT),
        response_timeout: section.read(&keys::RESPONSE_TIMEOUT),
        idle_timeout: section.read(&keys::IDLE_TIMEOUT),
        body_read_timeout: section.read(&keys::BODY_READ_TIMEOUT),
        in_flight: section.read(&keys::IN_FLIGHT),
        request_buffer,
        unsized_bodies: unsized_mode,
        response_buffer,
        retries: section.read(&keys::RETRIES),
        secret_header,
        health_check: check,
        tls,
    }
}

/// `buffer`: the buffers for request and response bodies.
fn buffers(section: &mut Section<'_>) -> (usize, usize) {
    match section.section(&keys::BUFFER) {
        Some(mut section) => (section.read(&buffer::REQUEST), section.read(&buffer::RESPONSE)),
        None => (buffer::REQUEST.default(), buffer::RESPONSE.default()),
    }
}

/// `unsized` and `spool`: how request bodies without a length that exceed the buffer are sent.
fn unsized_mode(section: &mut Section<'_>, servers: &[Server]) -> UnsizedBodies {
    let (unsized_item, spool_item) = (section.take(&keys::UNSIZED), section.take(&keys::SPOOL));
    let mode = keys::UNSIZED.read_or_default(unsized_item.as_ref());
    let is_http2 = !servers.is_empty() && servers.iter().all(|server| server.transport == Transport::H2c);
    if is_http2 {
        for (name, item) in [("unsized", &unsized_item), ("spool", &spool_item)] {
            let Some(item) = item else { continue };
            item.refuse(
                format!("`{name}` has no effect: every server is h2c://, and a body needs no length over HTTP/2"),
                "remove it",
            );
        }
        return UnsizedBodies::Stream;
    }
    if let Some(item) = &spool_item
        && mode != UnsizedMode::Spool
    {
        item.refuse(
            "`spool` has no effect: bodies are spooled only with `unsized = \"spool\"`",
            "remove it, or write `unsized = \"spool\"`",
        );
    }
    match mode {
        UnsizedMode::Stream => UnsizedBodies::Stream,
        UnsizedMode::Refuse => UnsizedBodies::Refuse,
        UnsizedMode::Spool => {
            UnsizedBodies::Spool(match spool_item.and_then(|item| item.section(&spool_keys::TABLE)) {
                Some(own) => spool(own),
                None => {
                    let dir = spool_keys::DIR.default();
                    if !Path::new(&dir).is_dir() {
                        let problem = section.problem(
                        format!("the folder {dir} does not exist: requests whose long bodies have no length will be answered with 503"),
                        "create it, or write `spool = { dir = \"…\" }` or `unsized = \"refuse\"`",
                    );
                        section.add(problem.into_warning());
                    }
                    SpoolSettings {
                        dir: Path::new(&dir).into(),
                        body: spool_keys::BODY.default() as u64,
                        total: spool_keys::TOTAL.default() as u64,
                    }
                }
            })
        }
    }
}

fn spool(mut section: Section<'_>) -> SpoolSettings {
    let dir_item = section.take(&spool_keys::DIR);
    let (body_item, total_item) = (section.take(&spool_keys::BODY), section.take(&spool_keys::TOTAL));
    let (body, total) = (
        spool_keys::BODY.read_or_default(body_item.as_ref()) as u64,
        spool_keys::TOTAL.read_or_default(total_item.as_ref()) as u64,
    );
    if body > total
        && let Some(item) = body_item.as_ref().or(total_item.as_ref())
    {
        item.refuse(
            "`body` is larger than `total`, the space for all bodies",
            "write a `total` of at least `body`",
        );
    }
    let dir = dir_item.as_ref().and_then(|item| {
        let dir = item.location()?;
        if !dir.is_dir() {
            item.refuse(
                "the folder does not exist",
                "create it, or name a folder that exists, such as \"/var/tmp\"",
            );
        }
        Some(dir)
    });
    let dir = dir.unwrap_or_else(|| spool_keys::DIR.default().into());
    SpoolSettings {
        dir: dir.as_path().into(),
        body,
        total,
    }
}

/// A URL, or `{ url = "…" }`.
fn server<'c>(item: &Item<'c>) -> Option<(Server, Text<'c>)> {
    let (url, weight) = if item.value().get("url").is_some() || item.value().get("weight").is_some() {
        let mut section = item.clone().section(&server_keys::TABLE)?;
        let weight = section.read(&server_keys::WEIGHT);
        let url = section.require(&server_keys::URL)?;
        (url, weight)
    } else {
        (item.clone(), server_keys::WEIGHT.default())
    };
    let text = url.text_for("the URL of a server", "write a URL, such as \"http://127.0.0.1:8000\"")?;
    let (transport, authority) = parse(&text)?;
    let server = Server {
        transport,
        authority,
        weight,
    };
    Some((server, text))
}

fn parse(text: &Text<'_>) -> Option<(Transport, Authority)> {
    const EXAMPLE: &str = "write \"http://HOST:PORT\", \"https://HOST:PORT\", \"h2c://HOST:PORT\" or \"unix:/PATH\"";
    let refuse = |message: &str, help: &str| {
        text.refuse(message, help);
        None
    };
    let url = text.as_str();
    if let Some(path) = url.strip_prefix("unix:") {
        // As `unix:///path` it is a URL too.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return refuse("is not an absolute socket path", "write \"unix:/run/gunicorn.sock\"");
        }
        if path.len() > MAX_SOCKET_PATH {
            return refuse("is too long for a socket path", "write a path of at most 107 bytes");
        }
        return Some((
            Transport::Unix(Path::new(path).into()),
            Authority::from_static("localhost"),
        ));
    }
    if secrets::redacted(url) != url {
        return refuse("contains a login, which the gateway never sends", EXAMPLE);
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse("is not a URL", EXAMPLE);
    };
    let transport = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Transport::Http,
        Some(scheme) if *scheme == Scheme::HTTPS => Transport::Https,
        Some(scheme) if scheme.as_str() == "h2c" => Transport::H2c,
        _ => return refuse("does not start with http://, https://, h2c:// or unix:", EXAMPLE),
    };
    let authority = uri.authority()?;
    if uri.path() != "/" || uri.query().is_some() || url.contains('#') {
        return refuse(
            "has more than a host and a port: the path of each request is forwarded unchanged",
            EXAMPLE,
        );
    }
    let port = match (uri.port(), uri.port_u16(), &transport) {
        (None, _, Transport::Https) => 443,
        (None, _, _) => 80,
        (Some(_), Some(port @ 1..), _) => port,
        (Some(_), _, _) => return refuse("has an invalid port", EXAMPLE),
    };
    let host = authority.host().to_ascii_lowercase();
    let Some(authority) = is_host(&host)
        .then(|| format!("{host}:{port}").parse::<Authority>().ok())
        .flatten()
    else {
        return refuse("has an invalid host", EXAMPLE);
    };
    Some((transport, authority))
}

/// `health`: the health check of each server; `mode` is the upstream's `host`. If neither sets the `Host`, the upstream's name is added to
/// `unnamed`.
fn check(
    mut section: Section<'_>,
    mode: &HostMode,
    name: &Arc<str>,
    unnamed: &mut Vec<Arc<str>>,
) -> Option<HealthCheck> {
    let interval = section.read(&health_keys::INTERVAL);
    let own = section.take(&health_keys::HOST).and_then(|item| {
        let text = item.text()?;
        let value = host_value(text.as_str());
        if value.is_none() {
            text.refuse(
                "is not a host",
                "write a name that the application answers to, such as \"api.example.com\"",
            );
        }
        value
    });
    let host = match (own, mode) {
        (Some(own), _) => Some(own),
        (None, HostMode::Name(name)) => Some(name.clone()),
        (None, HostMode::Server) => None,
        (None, HostMode::Preserve) => {
            unnamed.push(Arc::clone(name));
            Some(LOCALHOST)
        }
    };
    let text = section.require(&health_keys::PATH)?;
    let text = text.text_for("a path", "write a path, such as \"/healthz\"")?;
    let path = PathAndQuery::try_from(text.as_str())
        .ok()
        .filter(|path| path.path().starts_with('/'));
    if path.is_none() || !text.as_str().starts_with('/') {
        text.refuse("is not a path", "write one such as \"/healthz\"");
        return None;
    }
    path.map(|path| HealthCheck { path, interval, host })
}

/// Sets the `Host` of health checks that have none: the first exact host of a route to the upstream.
pub(super) fn set_check_hosts(upstreams: &mut Upstreams<'_>, routes: &[Route]) {
    for name in &upstreams.checks_without_host {
        let mut hosts = routes
            .iter()
            .filter(|route| route.rules.target.upstream() == Some(name))
            .filter_map(|route| match &route.matches.host {
                HostPattern::Exact(host) => HeaderValue::from_str(host).ok(),
                HostPattern::Any | HostPattern::Subdomains(_) => None,
            });
        let check = upstreams
            .settings
            .get_mut(name)
            .and_then(|upstream| upstream.health_check.as_mut());
        if let (Some(check), Some(host)) = (check, hosts.next()) {
            check.host = Some(host);
        }
    }
}

/// `tls`: TLS to the https servers of an upstream.
fn tls(section: &mut Section<'_>, servers: &[Server]) -> Option<Tls> {
    let has_https = servers.iter().any(|server| server.transport == Transport::Https);
    let unused = (
        "`tls` has no effect: no server is https://",
        "remove it, or write https:// servers",
    );
    let ClientTls {
        config,
        made_from,
        server_name,
    } = client_tls(section, &keys::TLS, has_https, unused)?;
    Some(Tls {
        config,
        digest: made_from,
        server_name,
    })
}

/// `secret_header`: a field that proves to the application that a request came through the gateway.
fn secret_header<'c>(
    mut section: Section<'c>,
    secrets: &mut Vec<(Item<'c>, HeaderName)>,
) -> Option<(HeaderName, HeaderValue)> {
    let name = section.require(&secret_keys::NAME).and_then(|item| {
        let name = secret_keys::NAME.read(&item)?;
        secrets.push((item, name.clone()));
        Some(name)
    });
    let value = section.require(&secret_keys::VALUE);
    let value = value.and_then(|item| {
        let secret = secret_keys::VALUE.read(&item)?;
        let text = secret.expose().as_str();
        let is_whole = !text.is_empty() && text.trim() == text;
        let value = HeaderValue::from_str(text).ok().filter(|_| is_whole);
        if value.is_none() {
            item.refuse(
                "the value cannot be sent in a header",
                "write visible ASCII on one line",
            );
        }
        value
    });
    let mut value = value?;
    value.set_sensitive(true);
    Some((name?, value))
}

fn host(item: &Item<'_>) -> Option<HostMode> {
    let text = item.text()?;
    let mode = match text.as_str() {
        "preserve" => Some(HostMode::Preserve),
        "server" => Some(HostMode::Server),
        name => host_value(name).map(HostMode::Name),
    };
    if mode.is_none() {
        text.refuse(
            "is not a host",
            "write \"preserve\" to send the client's host, \"server\" to send the server's address, or a host name",
        );
    }
    mode
}

/// The value of `Host` for a name with or without a port.
fn host_value(text: &str) -> Option<HeaderValue> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_good = is_host(&name.to_ascii_lowercase()) && port.is_none_or(|port| port.parse::<u16>().is_ok());
    HeaderValue::from_str(text).ok().filter(|_| is_good)
}
