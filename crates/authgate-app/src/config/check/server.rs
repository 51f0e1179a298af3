//! `[server]` with its tables, `[forwarded]` and `[log]`.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use authgate_core::outbound::forwarded::OptionalFields;
use authgate_core::outbound::peer::TrustedProxies;
use authgate_dataplane::gateway::{Drain, ProxyRules, RequestLimits, ServerSettings};
use authgate_dataplane::recording::RecorderSettings;
use authgate_dataplane::recording::seal::SealKey;
use authgate_dataplane::telemetry;
use authgate_dataplane::tls::{self, TICKETS_HELP, TicketKeys, certificate::Certificate, server::ClientAuth};
use authgate_http::server::address::Address;
use authgate_http::server::limits::Limits;
use authgate_http::server::socket_file::MAX_SOCKET_PATH;
use ipnet::IpNet;

use super::acme;
use super::certificates::{self, authorities};
use crate::acme::AcmeSettings;
use crate::config::WatchMode;
use crate::config::keys::server::{self as keys, drain, limits};
use crate::config::keys::tls::client_auth::{self, Mode};
use crate::config::keys::{self as tables, log, tls as tls_keys};
use crate::config::reader::{Item, Section, Text};

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
        workers: default_workers(),
        proxies: ProxyRules::default(),
        limits: limits::defaults(),
        requests: RequestLimits {
            body_bytes: limits::BODY_BYTES.default(),
            in_flight: limits::IN_FLIGHT.default(),
        },
        drain: Drain {
            delay: drain::DELAY.default(),
            timeout: drain::TIMEOUT.default(),
        },
    };
    let section = root.require(&tables::SERVER);
    let Some(mut section) = section.and_then(|item| item.section(&keys::TABLE)) else {
        return Server {
            settings,
            watch: keys::WATCH.default(),
            tls: None,
            acme: None,
            redirects: Vec::new(),
        };
    };
    let listen = section.require(&keys::LISTEN);
    let allow_cleartext = section.read(&keys::ALLOW_CLEARTEXT);
    let tls_item = section.take(&keys::TLS);
    let encrypted = tls_item.is_some();
    let (tls, acme) = tls_item
        .and_then(|item| item.section(&tls_keys::SERVER))
        .map(tls)
        .unzip();
    if let Some(listen) = listen {
        settings.listen = addresses(&listen, encrypted || allow_cleartext);
    }
    let redirects = section
        .take(&keys::REDIRECT_HTTP)
        .map(|item| redirects(&item, &settings.listen, tls.as_ref()));
    settings.workers = match section.read(&keys::WORKERS) {
        0 => default_workers(),
        workers => workers,
    };
    let watch = section.read(&keys::WATCH);
    let trusted = section
        .take(&keys::TRUSTED_PROXIES)
        .and_then(|item| item.list(&keys::TRUSTED_PROXIES));
    let trusted = trusted_proxies(&trusted.unwrap_or_default());
    if let Some(item) = section.take(&keys::PROXY_PROTOCOL) {
        settings.proxies.proxy_protocol = keys::PROXY_PROTOCOL.read(&item).unwrap_or(false);
        if settings.proxies.proxy_protocol && trusted.is_empty() {
            item.refuse(
                "no proxy is trusted to send the PROXY protocol header",
                "add the network of your balancer: `trusted_proxies = [\"10.0.0.0/8\"]`",
            );
        }
    }
    settings.proxies.trusted = Arc::new(trusted);
    if let Some(section) = section.section(&keys::LIMITS) {
        (settings.limits, settings.requests) = read_limits(section);
    }
    if let Some(mut section) = section.section(&keys::DRAIN) {
        settings.drain = Drain {
            delay: section.read(&drain::DELAY),
            timeout: section.read(&drain::TIMEOUT),
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

/// One for each core.
fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// `redirect_http`: listeners without TLS that redirect clients to https.
fn redirects(item: &Item<'_>, listen: &[Address], tls: Option<&tls::server::ServerTlsSettings>) -> Vec<SocketAddr> {
    if tls.is_none() {
        item.refuse(
            "there is no TLS listener to redirect to",
            "add `[server.tls]`, or remove it",
        );
    }
    let mut addresses = Vec::new();
    for item in item.non_empty_list(&keys::REDIRECT_HTTP).unwrap_or_default() {
        let Some(address) = item.address() else { continue };
        if address.port() != 0 && listen.contains(&Address::Tcp(address)) {
            item.refuse(format!("{address} is also in `server.listen`"), "write another port");
        }
        addresses.push(address);
    }
    addresses
}

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

fn addresses(listen: &Item<'_>, cleartext_beyond_loopback: bool) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for item in listen.non_empty_list(&keys::LISTEN).unwrap_or_default() {
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
    let acme = section.take(&tls_keys::ACME);
    let list = match &acme {
        Some(_) => section.take(&tls_keys::CERTIFICATES),
        None => section.require(&tls_keys::CERTIFICATES),
    };
    let list = list.and_then(|item| item.non_empty_list(&tls_keys::CERTIFICATES));
    let list = list.unwrap_or_default();
    let certificates = list.iter().filter_map(certificate).collect();
    let min_version = section.read(&tls_keys::MIN_VERSION);
    let client_auth = section.section(&tls_keys::CLIENT_AUTH);
    let client_auth = client_auth.map(read_client_auth).unwrap_or_default();
    let tickets = section.section(&tls_keys::TICKETS).and_then(tickets);
    let settings = tls::server::ServerTlsSettings {
        certificates,
        min_version,
        client_auth,
        tickets,
    };
    let acme = acme.and_then(|item| item.section(&tls_keys::acme::TABLE));
    (settings, acme.and_then(acme::acme))
}

/// `tickets`: a file of keys.
fn tickets(mut section: Section<'_>) -> Option<TicketKeys> {
    let item = section.require(&tls_keys::TICKETS_FILE)?;
    let file = tls_keys::TICKETS_FILE.read(&item)?;
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

fn read_client_auth(mut section: Section<'_>) -> ClientAuth {
    let mode = section.read(&client_auth::MODE);
    let ca = match mode {
        Mode::Off => section.take(&client_auth::CA),
        Mode::Optional | Mode::Required => section.require(&client_auth::CA),
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
    certificate_in(item, &mut item.clone().section(&tls_keys::CERTIFICATE)?)
}

/// The keys `chain` and `key` of a table.
pub(super) fn certificate_in(item: &Item<'_>, section: &mut Section<'_>) -> Option<Certificate> {
    let chain = section.required(&tls_keys::CHAIN);
    let key = section.required(&tls_keys::KEY);
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

fn read_limits(mut section: Section<'_>) -> (Limits, RequestLimits) {
    let requests = RequestLimits {
        body_bytes: section.read(&limits::BODY_BYTES),
        in_flight: section.read(&limits::IN_FLIGHT),
    };
    let limits = Limits {
        connections: section.read(&limits::CONNECTIONS),
        header_bytes: section.read(&limits::HEADER_BYTES),
        headers: section.read(&limits::HEADERS),
        tls_handshake_timeout: section.read(&limits::TLS_HANDSHAKE_TIMEOUT),
        header_timeout: section.read(&limits::HEADER_TIMEOUT),
        idle_timeout: section.read(&limits::IDLE_TIMEOUT),
        body_read_timeout: section.read(&limits::BODY_READ_TIMEOUT),
        h2_streams: section.read(&limits::H2_STREAMS),
    };
    (limits, requests)
}

/// `[forwarded]`.
pub(super) fn forwarded(root: &mut Section<'_>) -> OptionalFields {
    let Some(mut section) = root.section(&tables::FORWARDED) else {
        return OptionalFields::default();
    };
    OptionalFields {
        real_ip: section.read(&keys::REAL_IP),
        port: section.read(&keys::PORT),
    }
}

/// `[log]`.
pub(super) fn read_log(root: &mut Section<'_>) -> (telemetry::LogSettings, Option<RecorderSettings>) {
    let Some(mut section) = root.section(&tables::LOG) else {
        return (log::defaults(), None);
    };
    let record = section.section(&log::RECORD).and_then(record);
    let settings = telemetry::LogSettings {
        level: section.read(&log::LEVEL),
        format: section.read(&log::FORMAT),
        access: section.read(&log::ACCESS),
        query: section.read(&log::QUERY),
    };
    (settings, record)
}

/// `log.record`: the file of recorded requests, and the key of their credentials.
fn record(mut section: Section<'_>) -> Option<RecorderSettings> {
    let file = section.require(&log::record::FILE).and_then(|item| {
        let file = log::record::FILE.read(&item)?;
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
    let key = section.require(&log::record::SEAL).and_then(|item| {
        let key = SealKey::new(log::record::SEAL.read(&item)?);
        key.map_err(|error| {
            let help = "name a file of 32 random bytes, as `head -c 32 /dev/urandom > record.key` writes";
            item.refuse(error.to_string(), help);
        })
        .ok()
    });
    Some(RecorderSettings { file: file?, key: key? })
}
