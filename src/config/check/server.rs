//! `[server]` with its tables, `[forwarded]` and `[log]`.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use authgate_core::outbound::forwarded::OptionalFields;
use authgate_core::outbound::peer::TrustedProxies;
use authgate_http::server::address::Address;
use authgate_http::server::limits::Limits;
use authgate_http::server::socket_file::MAX_SOCKET_PATH;
use bytesize::ByteSize;
use ipnet::IpNet;
use tracing::Level;

use super::acme;
use super::certificates::{self, authorities};
use crate::acme::AcmeSettings;
use crate::config::reader::{Item, Section, Text, Zero};
use crate::config::{WatchMode, defaults};
use crate::gateway::{Drain, ProxyRules, RequestLimits, ServerSettings};
use crate::recording::RecorderSettings;
use crate::recording::seal::SealKey;
use crate::telemetry::{self, LogFormat};
use crate::tls::provider::TlsVersion;
use crate::tls::{self, TICKETS_HELP, TicketKeys, certificate::Certificate, server::ClientAuth};

const MAX_WORKERS: u64 = 1024;
/// More connections than a machine has memory for.
const MAX_CONNECTIONS: u64 = 10_000_000;
/// hyper's read buffer is never smaller.
const MIN_HEADER_BYTES: ByteSize = ByteSize::kib(8);
const MAX_HEADER_BYTES: ByteSize = ByteSize::mib(16);
/// A `HeaderMap` holds no more than 24,576 fields and panics beyond.
const MAX_HEADERS: u64 = 10_000;
const MAX_STREAMS: u64 = 100_000;

/// The parsed `[server]`.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: ServerSettings,
    pub(super) watch: WatchMode,
    pub(super) tls: Option<tls::server::ServerTlsSettings>,
    pub(super) acme: Option<AcmeSettings>,
    pub(super) redirects: Vec<SocketAddr>,
}

pub(super) fn server(root: &mut Section<'_>) -> Server {
    let mut settings = ServerSettings {
        listen: Vec::new(),
        workers: defaults::workers(),
        proxies: ProxyRules::default(),
        limits: defaults::LIMITS,
        requests: defaults::REQUEST_LIMITS,
        drain: defaults::DRAIN,
    };
    let Some(mut section) = root.require("server", EXAMPLE).and_then(|item| item.section(&[])) else {
        return Server {
            settings,
            watch: defaults::WATCH,
            tls: None,
            acme: None,
            redirects: Vec::new(),
        };
    };
    let listen = section.require("listen", "listen = [\"127.0.0.1:8443\"]");
    let allow_cleartext = section.flag_or("allow_cleartext", false);
    let tls_item = section.take("tls");
    let encrypted = tls_item.is_some();
    let (tls, acme) = tls_item.and_then(|item| item.section(&[])).map(tls).unzip();
    if let Some(listen) = listen {
        settings.listen = addresses(&listen, encrypted || allow_cleartext);
    }
    let redirects = section
        .take("redirect_http")
        .map(|item| redirects(&item, &settings.listen, tls.as_ref()));
    settings.workers = match section.count_or("workers", (0, MAX_WORKERS), 0) {
        0 => defaults::workers(),
        workers => workers,
    };
    let modes = [
        ("off", WatchMode::Off),
        ("keys", WatchMode::Keys),
        ("all", WatchMode::All),
    ];
    let watch = section.choice_or("watch", &modes, defaults::WATCH);
    let trusted = section.take("trusted_proxies").and_then(|item| item.list(TRUSTED));
    let trusted = trusted_proxies(&trusted.unwrap_or_default());
    if let Some(item) = section.take("proxy_protocol") {
        settings.proxies.proxy_protocol = item.flag().unwrap_or(false);
        if settings.proxies.proxy_protocol && trusted.is_empty() {
            item.refuse(
                "no proxy is trusted to send the PROXY protocol header",
                format!("add the network of your balancer: `{TRUSTED}`"),
            );
        }
    }
    settings.proxies.trusted = Arc::new(trusted);
    if let Some(section) = section.section("limits", &[]) {
        (settings.limits, settings.requests) = limits(section);
    }
    if let Some(mut section) = section.section("drain", &[]) {
        settings.drain = Drain {
            delay: section.duration_or("delay", Zero::Allowed, defaults::DRAIN.delay),
            timeout: section.duration_or("timeout", Zero::Allowed, defaults::DRAIN.timeout),
        };
    }
    let redirects = redirects.unwrap_or_default();
    let acme = acme.flatten().map(|acme| AcmeSettings {
        has_http: !redirects.is_empty(),
        ..acme
    });
    Server {
        settings,
        watch,
        tls,
        acme,
        redirects,
    }
}

/// `redirect_http`: listeners without TLS that redirect clients to https.
fn redirects(item: &Item<'_>, listen: &[Address], tls: Option<&tls::server::ServerTlsSettings>) -> Vec<SocketAddr> {
    const EXAMPLE: &str = "redirect_http = [\"0.0.0.0:80\"]";
    if tls.is_none() {
        item.refuse(
            "there is no TLS listener to redirect to",
            "add `[server.tls]`, or remove it",
        );
    }
    let mut addresses = Vec::new();
    for item in item.non_empty_list(EXAMPLE).unwrap_or_default() {
        let Some(address) = item.address() else { continue };
        if address.port() != 0 && listen.contains(&Address::Tcp(address)) {
            item.refuse(format!("{address} is also in `server.listen`"), "write another port");
        }
        addresses.push(address);
    }
    addresses
}

const TRUSTED: &str = "trusted_proxies = [\"10.0.0.0/8\"]";

fn trusted_proxies(items: &[Item<'_>]) -> TrustedProxies {
    const EXAMPLE: &str = "write a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", one address, or \"unix\"";
    let mut trusted = TrustedProxies::default();
    for item in items {
        let Some(text) = item.text_for("a network", EXAMPLE) else {
            continue;
        };
        if text.as_str() == "unix" {
            trusted.unix = true;
        } else {
            trusted.networks.extend(network(&text, EXAMPLE));
        }
    }
    trusted
}

/// A network, or one address.
fn network(text: &Text<'_>, like: &str) -> Option<IpNet> {
    let network = text.as_str().parse::<IpNet>().ok();
    let network = network.or_else(|| text.as_str().parse::<IpAddr>().ok().map(IpNet::from));
    match network {
        None => text.refuse("is not a network", like),
        Some(network) if network.prefix_len() == 0 => {
            text.refuse(
                "trusts every client, so every client could forge forwarding headers",
                "write the networks of your own proxies",
            );
        }
        Some(network) if network.addr() != network.network() => {
            text.refuse(
                "has bits set beyond its prefix",
                format!("write \"{}\", or the address alone", network.trunc()),
            );
        }
        Some(_) => {}
    }
    network
}

const EXAMPLE: &str = "[server]` and `listen = [\"127.0.0.1:8443\"]";

fn addresses(listen: &Item<'_>, cleartext_beyond_loopback: bool) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for item in listen
        .non_empty_list("listen = [\"127.0.0.1:8443\"]")
        .unwrap_or_default()
    {
        let Some(address) = address(&item) else { continue };
        let any_port = address.tcp().is_some_and(|address| address.port() == 0);
        if !any_port && addresses.contains(&address) {
            item.refuse(format!("{address} is listed twice"), "remove one of them");
        }
        if !cleartext_beyond_loopback && address.tcp().is_some() && !address.is_loopback() {
            item.refuse(
                format!("{address} would receive credentials without TLS"),
                "add `[server.tls]` with certificates, or set `allow_cleartext = true` if a proxy in front of this gateway terminates TLS",
            );
        }
        addresses.push(address);
    }
    addresses
}

/// Where to listen: an address and a port, or `unix:` and a path.
pub(super) fn address(item: &Item<'_>) -> Option<Address> {
    const EXAMPLE: &str =
        "write an address such as \"127.0.0.1:8443\", or a socket file such as \"unix:/run/authgate/gate.sock\"";
    let text = item.text_for("an address", EXAMPLE)?;
    match text.as_str().strip_prefix("unix:") {
        None => item.address().map(Address::Tcp),
        Some(path) => socket_file(&text, path).map(|path| Address::Unix(path.into())),
    }
}

fn socket_file(text: &Text<'_>, path: &str) -> Option<Box<Path>> {
    const EXAMPLE: &str = "write a file such as \"unix:/run/authgate/gate.sock\"";
    // As `unix:///path` it is a URL too.
    let path = path.strip_prefix("//").unwrap_or(path);
    let wrong = if path.is_empty() || path.ends_with('/') {
        "does not name a file"
    } else if path.starts_with('@') {
        "names an abstract socket, which has no permissions"
    } else if path.contains('\0') {
        "contains a NUL byte"
    } else {
        let path = text.resolve_path(path);
        let length = path.as_os_str().as_bytes().len();
        if length <= MAX_SOCKET_PATH {
            return Some(path.into());
        }
        text.refuse(
            &format!("is {length} bytes long with its folder; a socket path has at most {MAX_SOCKET_PATH}"),
            "write a shorter path",
        );
        return None;
    };
    text.refuse(wrong, EXAMPLE);
    None
}

fn tls(mut section: Section<'_>) -> (tls::server::ServerTlsSettings, Option<AcmeSettings>) {
    const EXAMPLE: &str = "certificates = [{ chain = \"server.pem\", key = \"server.key\" }]";
    let acme = section.take("acme");
    let list = match &acme {
        Some(_) => section.take("certificates"),
        None => section.require("certificates", EXAMPLE),
    };
    let list = list.and_then(|item| item.non_empty_list(EXAMPLE)).unwrap_or_default();
    let certificates = list.iter().filter_map(certificate).collect();
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = section.choice_or("min_version", &versions, defaults::MIN_VERSION);
    let client_auth = section.section("client_auth", &[]).map(client_auth).unwrap_or_default();
    let tickets = section.section("tickets", &[]).and_then(tickets);
    let settings = tls::server::ServerTlsSettings {
        certificates,
        min_version,
        client_auth,
        tickets,
    };
    (settings, acme.and_then(|item| item.section(&[])).and_then(acme::acme))
}

/// `tickets`: a file of keys.
fn tickets(mut section: Section<'_>) -> Option<TicketKeys> {
    let item = section.require("file", "file = \"tickets.keys\"")?;
    let file = item.path()?;
    match TicketKeys::load(&file) {
        Ok(keys) => {
            item.warn_if_readable_by_all(&file);
            Some(keys)
        }
        Err(error) => {
            item.refuse(error.to_string(), TICKETS_HELP);
            None
        }
    }
}

fn client_auth(mut section: Section<'_>) -> ClientAuth {
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Off,
        Optional,
        Required,
    }
    let modes = [
        ("off", Mode::Off),
        ("optional", Mode::Optional),
        ("required", Mode::Required),
    ];
    let mode = section.choice_or("mode", &modes, Mode::Off);
    let ca = match mode {
        Mode::Off => section.take("ca"),
        Mode::Optional | Mode::Required => section.require("ca", "ca = \"clients-ca.pem\""),
    };
    let authorities = ca.and_then(|item| authorities(&item));
    match (mode, authorities) {
        (Mode::Optional, Some(authorities)) => ClientAuth::Optional(authorities),
        (Mode::Required, Some(authorities)) => ClientAuth::Required(authorities),
        // Missing authorities were already reported as an error.
        (Mode::Off, _) | (_, None) => ClientAuth::Off,
    }
}

fn certificate(item: &Item<'_>) -> Option<Certificate> {
    certificate_in(item, &mut item.clone().section(&[])?)
}

/// The keys `chain` and `key` of a table.
pub(super) fn certificate_in(item: &Item<'_>, section: &mut Section<'_>) -> Option<Certificate> {
    let chain = section
        .require("chain", "chain = \"server.pem\"")
        .and_then(|item| item.path());
    let key = section
        .require("key", "key = \"server.key\"")
        .and_then(|item| item.path());
    let key = key?;
    match Certificate::load(&chain?, &key) {
        Ok(certificate) => {
            certificates::warn_about_chain(item, &certificate);
            item.warn_if_readable_by_all(&key);
            Some(certificate)
        }
        Err(error) => {
            let help = "set `chain` to a PEM file with the server's certificate and then its issuers, and `key` to one with its private key";
            item.refuse(error.to_string(), help);
            None
        }
    }
}

fn limits(mut section: Section<'_>) -> (Limits, RequestLimits) {
    let (default, requests) = (defaults::LIMITS, defaults::REQUEST_LIMITS);
    let header_bytes = section
        .take("header_bytes")
        .and_then(|item| item.size(MIN_HEADER_BYTES, MAX_HEADER_BYTES));
    let requests = RequestLimits {
        body_bytes: section
            .take("body_bytes")
            .and_then(|item| item.size_or_unlimited())
            .unwrap_or(requests.body_bytes),
        in_flight: section.count_or("in_flight", (0, MAX_CONNECTIONS), requests.in_flight),
    };
    let limits = Limits {
        connections: section.count_or("connections", (1, MAX_CONNECTIONS), default.connections),
        header_bytes: header_bytes.unwrap_or(default.header_bytes),
        headers: section.count_or("headers", (1, MAX_HEADERS), default.headers),
        tls_handshake_timeout: section.duration_or(
            "tls_handshake_timeout",
            Zero::Refused,
            default.tls_handshake_timeout,
        ),
        header_timeout: section.duration_or("header_timeout", Zero::Refused, default.header_timeout),
        idle_timeout: section.duration_or("idle_timeout", Zero::Refused, default.idle_timeout),
        body_read_timeout: section.duration_or("body_read_timeout", Zero::Refused, default.body_read_timeout),
        h2_streams: section.u32_or("h2_streams", (1, MAX_STREAMS), default.h2_streams),
    };
    (limits, requests)
}

/// `[forwarded]`.
pub(super) fn forwarded(root: &mut Section<'_>) -> OptionalFields {
    let Some(mut section) = root.section("forwarded", &[]) else {
        return OptionalFields::default();
    };
    OptionalFields {
        real_ip: section.flag_or("real_ip", false),
        port: section.flag_or("port", false),
    }
}

/// `[log]`.
pub(super) fn log(root: &mut Section<'_>) -> (telemetry::LogSettings, Option<RecorderSettings>) {
    let default = defaults::LOG;
    let Some(mut section) = root.section("log", &[]) else {
        return (default, None);
    };
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let record = section.section("record", &[]).and_then(record);
    let settings = telemetry::LogSettings {
        level: section.choice_or("level", &levels, default.level),
        format: section.choice_or(
            "format",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            default.format,
        ),
        access: section.flag_or("access", default.access),
        query: section.flag_or("query", default.query),
    };
    (settings, record)
}

/// `log.record`: the file of recorded requests, and the key of their credentials.
fn record(mut section: Section<'_>) -> Option<RecorderSettings> {
    let file = section.require("file", "file = \"requests.jsonl\"").and_then(|item| {
        let file = item.location()?;
        if file
            .parent()
            .is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        {
            item.refuse(
                "the folder of the file does not exist",
                "create it, or name a file in a folder that exists",
            );
        }
        Some(file)
    });
    let key = section
        .require("seal", "seal = { file = \"record.key\" }")
        .and_then(|item| {
            let key = SealKey::new(item.secret_bytes()?);
            key.map_err(|error| {
                let help = "name a file of 32 random bytes, as `head -c 32 /dev/urandom > record.key` writes";
                item.refuse(error.to_string(), help);
            })
            .ok()
        });
    Some(RecorderSettings { file: file?, key: key? })
}
