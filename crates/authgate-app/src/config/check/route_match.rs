//! `host`, `path` and `methods` of a route.

use authgate_dataplane::proxy::host::ipv6;
use authgate_dataplane::proxy::routes::{HostPattern, PathPattern, RouteMatch};
use http::Method;

use crate::config::keys::routes as keys;
use crate::config::reader::{Item, Section, is_token_byte};

const PATH_HELP: &str = "write \"/api/hello\" for one path, or \"/api/*\" for a path and everything below it";

/// Reads the three keys; `None` if one of them is wrong.
pub(super) fn route_match(section: &mut Section<'_>) -> Option<RouteMatch> {
    let path = section.require(&keys::PATH).and_then(|item| path(&item));
    let host = match section.take(&keys::HOST) {
        None => Some(HostPattern::Any),
        Some(item) => host(&item),
    };
    let methods = match section.take(&keys::METHODS) {
        None => Some(Vec::new()),
        Some(item) => methods(&item),
    };
    Some(RouteMatch {
        host: host?,
        path: path?,
        methods: methods?,
    })
}

/// Whether a text is a host in lower case: a DNS name, an IPv4 address, or an IPv6 address in brackets; no port.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn host(item: &Item<'_>) -> Option<HostPattern> {
    let text = item.text_for("a host", "write \"api.example.com\" or \"*.example.com\"")?;
    let written = text.as_str();
    let (domain, pattern): (_, fn(Box<str>) -> HostPattern) = match written.strip_prefix("*.") {
        Some(domain) => (domain, HostPattern::Subdomains),
        None => (written, HostPattern::Exact),
    };
    let plain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
    let without_port = plain.rsplit_once(':').map_or(plain.as_str(), |(host, _)| host);
    if is_host(domain) {
        // Routes are matched by the canonical form of an address.
        let name = ipv6(domain).unwrap_or_else(|| domain.to_owned());
        return Some(pattern(name.into()));
    }
    let bare = bare_host(&plain);
    let help = if let Some(bare) = bare {
        format!("write the host alone: \"{bare}\"; a route applies to every scheme and port")
    } else if is_host(without_port) {
        let star = if written.starts_with("*.") { "*." } else { "" };
        format!("write \"{star}{without_port}\": hosts are compared without case, port and trailing dot")
    } else {
        "write \"api.example.com\" or \"*.example.com\"".to_owned()
    };
    text.refuse("is not a host", help);
    None
}

/// The host of a URL, or of a host that a path follows.
fn bare_host(written: &str) -> Option<&str> {
    let (scheme, rest) = match written.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, written),
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_more = scheme || authority.len() < rest.len();
    (is_more && is_host(host.strip_prefix("*.").unwrap_or(host))).then_some(host)
}

/// A placeholder in a path as frameworks write it, such as `<int:pk>`, `{id}` or `:id`.
fn template(path: &str) -> Option<&str> {
    path.split('/').find(|segment| {
        let between = |open, close| segment.contains(open) && segment.contains(close);
        between('<', '>') || between('{', '}') || (segment.starts_with(':') && segment.len() > 1)
    })
}

fn path(item: &Item<'_>) -> Option<PathPattern> {
    let text = item.text_for("a path", PATH_HELP)?;
    let (written, pattern): (_, fn(Box<str>) -> PathPattern) = match text.as_str().strip_suffix("/*") {
        Some(prefix) => (prefix, PathPattern::Prefix),
        None => (text.as_str(), PathPattern::Exact),
    };
    if let Some(segment) = template(written) {
        let before = written.split(segment).next().unwrap_or_default();
        text.refuse(
            &format!("has the placeholder {segment:?}, which is compared literally and matches no other text"),
            format!("write \"{before}*\": it matches every path below"),
        );
        return None;
    }
    let wrong = if !text.as_str().starts_with('/') {
        Some("does not begin with `/`")
    } else if written.contains('*') {
        Some("has a `*` that is not the whole last segment")
    } else if written.contains(['?', '#']) {
        Some("has a query or a fragment, which routes are not matched by")
    } else if written.contains(['%', ';', '\\', '`', '<', '>']) {
        Some("has one of `%`, `;`, `\\`, `` ` ``, `<` and `>`, which servers interpret differently")
    } else if written.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
        Some("has a space or a control character")
    } else if !written.is_ascii() {
        Some("has characters beyond ASCII, which clients send encoded, so it would never match")
    } else if written.contains("//") || (written.ends_with('/') && text.as_str().ends_with("/*")) {
        Some("has an empty segment, which servers collapse")
    } else if written.split('/').any(|segment| segment == "." || segment == "..") {
        Some("has a dot segment, which servers resolve")
    } else {
        None
    };
    match wrong {
        None => Some(pattern(written.into())),
        Some(wrong) => {
            text.refuse(wrong, PATH_HELP);
            None
        }
    }
}

fn methods(item: &Item<'_>) -> Option<Vec<Method>> {
    let mut methods: Vec<Method> = Vec::new();
    let list = item.non_empty_list(&keys::METHODS)?;
    let count = list.len();
    for item in list {
        let text = item.text_for("a method", "write one such as \"GET\"")?;
        let name = text.as_str();
        if matches!(name, "CONNECT" | "TRACE") {
            text.refuse("is answered with 501 on every route", "remove it");
        } else if name.is_empty() || !name.bytes().all(is_token_byte) {
            text.refuse("is not a method", "write one such as \"GET\"");
        } else if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            text.refuse(
                "has lowercase letters, and methods are case-sensitive",
                format!("write {:?}", name.to_ascii_uppercase()),
            );
        } else if methods.iter().any(|method| method.as_str() == name) {
            text.refuse("is listed twice", "remove one of them");
        } else {
            methods.extend(Method::from_bytes(name.as_bytes()).ok());
        }
    }
    (methods.len() == count).then_some(methods)
}
