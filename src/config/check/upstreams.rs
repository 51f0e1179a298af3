//! `[upstreams.*]`: the application servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

use super::Names;
use super::place::is_host;
use crate::config::reader::{Item, Section, Text, Zero};
use crate::config::secrets;
use crate::upstream::{Balance, HostMode, Server, Settings, Transport};

const LATER: &[&str] = &[
    "in_flight",
    "buffer",
    "retries",
    "health",
    "tls",
    "secret_header",
    "identity",
];
const SERVERS: &str = "servers = [\"http://127.0.0.1:8000\"]";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The upstreams as they were read.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) names: Names,
    pub(super) settings: BTreeMap<Arc<str>, Settings>,
}

pub(super) fn upstreams(root: &mut Section<'_>) -> Upstreams {
    let mut upstreams = Upstreams {
        names: Names::new("upstreams", "upstream"),
        settings: BTreeMap::new(),
    };
    let Some(item) = root.require("upstreams", &format!("[upstreams.app]` and `{SERVERS}")) else {
        return upstreams;
    };
    let Some(mut section) = item.section(&[]) else {
        return upstreams;
    };
    let all = section.take_all();
    if all.is_empty() {
        section.lacks(
            "there is no upstream",
            format!("write `[upstreams.app]` and `{SERVERS}`"),
        );
    }
    for named in all {
        let name: Arc<str> = named.name.into();
        upstreams.names.names.push(Arc::clone(&name));
        let settings = named
            .item
            .section(LATER)
            .map(|section| upstream(section, Arc::clone(&name)));
        upstreams.settings.extend(settings.map(|settings| (name, settings)));
    }
    upstreams
}

fn upstream(mut section: Section<'_>, name: Arc<str>) -> Settings {
    let mut servers: Vec<Server> = Vec::new();
    let list = section
        .require("servers", SERVERS)
        .and_then(|item| item.full_list(SERVERS))
        .unwrap_or_default();
    for item in list {
        let Some((server, text)) = server(&item) else { continue };
        if servers.contains(&server) {
            text.refuse("is written twice", "take one of them out");
        }
        servers.push(server);
    }
    let balance = [
        ("least-request", Balance::LeastRequest),
        ("round-robin", Balance::RoundRobin),
    ];
    Settings {
        name,
        servers,
        balance: section.choice_or("balance", &balance, Balance::LeastRequest),
        host: section
            .take("host")
            .and_then(|item| host(&item))
            .unwrap_or(HostMode::Preserve),
        connect_timeout: section.duration_or("connect_timeout", Zero::Refused, CONNECT_TIMEOUT),
        response_timeout: section.duration_or("response_timeout", Zero::Refused, RESPONSE_TIMEOUT),
    }
}

/// A URL, or `{ url = "…" }`.
fn server<'c>(item: &Item<'c>) -> Option<(Server, Text<'c>)> {
    let url = if item.value().get("url").is_some() || item.value().get("weight").is_some() {
        let mut section = item.clone().section(&["weight"])?;
        section.require("url", "url = \"http://127.0.0.1:8000\"")?
    } else {
        item.clone()
    };
    let text = url.text_for("the URL of a server", "write a URL, such as \"http://127.0.0.1:8000\"")?;
    let server = parse(&text)?;
    Some((server, text))
}

fn parse(text: &Text<'_>) -> Option<Server> {
    const LIKE: &str = "write \"http://HOST:PORT\" or \"https://HOST:PORT\"";
    let refuse = |what: &str, instead: &str| {
        text.refuse(what, instead);
        None
    };
    let url = text.as_str();
    if ["h2c://", "unix:"].iter().any(|scheme| url.starts_with(scheme)) {
        return refuse("is not built yet", LIKE);
    }
    if secrets::redacted(url) != url {
        return refuse("has a login in it, which is sent to nobody", LIKE);
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse("is no URL", LIKE);
    };
    let transport = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Transport::Http,
        Some(scheme) if *scheme == Scheme::HTTPS => Transport::Https,
        _ => return refuse("starts with neither http:// nor https://", LIKE),
    };
    let authority = uri.authority()?;
    if uri.path() != "/" || uri.query().is_some() || url.contains('#') {
        return refuse(
            "has more than a host and a port: paths are handed on as they are asked for",
            LIKE,
        );
    }
    let port = match (uri.port(), uri.port_u16(), transport) {
        (None, _, Transport::Http) => 80,
        (None, _, Transport::Https) => 443,
        (Some(_), Some(port @ 1..), _) => port,
        (Some(_), _, _) => return refuse("has a port that is none", LIKE),
    };
    let host = authority.host().to_ascii_lowercase();
    let Some(authority) = is_host(&host)
        .then(|| format!("{host}:{port}").parse::<Authority>().ok())
        .flatten()
    else {
        return refuse("has a host that is none", LIKE);
    };
    Some(Server { transport, authority })
}

fn host(item: &Item<'_>) -> Option<HostMode> {
    let text = item.text()?;
    let (name, port) = match text.as_str().rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text.as_str(), None),
    };
    match text.as_str() {
        "preserve" => Some(HostMode::Preserve),
        "server" => Some(HostMode::Server),
        whole if is_host(&name.to_ascii_lowercase()) && port.is_none_or(|port| port.parse::<u16>().is_ok()) => {
            HeaderValue::from_str(whole).ok().map(HostMode::Name)
        }
        _ => {
            text.refuse(
                "is no host",
                "write \"preserve\" for the client's, \"server\" for the server's, or a name",
            );
            None
        }
    }
}
