//! Strings with a meaning: durations, sizes, addresses, header names. The forms are strict: `"10"` is not a duration, because it has
//! no unit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use authgate_http::server::listen;
use bytesize::ByteSize;
use http::HeaderName;

use super::declaration::MAX_DURATION;
use super::key::Shaped;
use super::types::{Span, UNLIMITED};
use super::written::size;
use super::{Item, Text};

const DURATION: &str = "a duration";
const DURATION_HELP: &str = "write a duration with its unit, such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"7d\"";
const SIZE: &str = "a size";
const SIZE_HELP: &str = "write a size with its unit, such as \"64KiB\", \"1MB\" or \"500B\"";

impl Item<'_> {
    /// A string that is not empty.
    pub(crate) fn non_empty_text(&self) -> Option<String> {
        let text = self.text()?;
        if text.as_str().is_empty() {
            text.refuse("is empty", "write a value");
            return None;
        }
        Some(text.into_string())
    }

    /// A duration within the bounds of `span`.
    pub(super) fn duration(&self, span: &Span) -> Option<Duration> {
        let text = self.text_for(DURATION, DURATION_HELP)?;
        let Some(duration) = parse_duration(text.as_str()) else {
            text.refuse("is not a duration", DURATION_HELP);
            return None;
        };
        if (span.min..=span.max).contains(&duration) {
            return Some(duration);
        }
        if duration > MAX_DURATION {
            text.refuse(
                "is longer than ten years",
                "write a shorter duration, such as \"7d\"; the longest one is \"3650d\"",
            );
            return None;
        }
        if span.max == MAX_DURATION && duration.is_zero() {
            text.refuse(
                "is not above zero",
                "write a duration above zero, such as \"250ms\" or \"10s\"",
            );
            return None;
        }
        let message = match span.because {
            "" => "is out of range".to_owned(),
            because => format!("is out of range: {because}"),
        };
        let help = span.shape().describe();
        text.refuse(&message, format!("write {help}"));
        None
    }

    /// A duration, or `unlimited`: `Some(None)`.
    pub(super) fn duration_or_unlimited(&self) -> Option<Option<Duration>> {
        let help = format!("{DURATION_HELP}, or \"{UNLIMITED}\"");
        let text = self.text_for(DURATION, &help)?;
        if text.as_str() == UNLIMITED {
            return Some(None);
        }
        let duration = parse_duration(text.as_str());
        let duration = duration.filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION);
        if duration.is_none() {
            text.refuse("is not a duration", help);
        }
        duration.map(Some)
    }

    /// A size in bytes within bounds.
    pub(super) fn size(&self, min: ByteSize, max: ByteSize) -> Option<usize> {
        let text = self.text_for(SIZE, SIZE_HELP)?;
        match parse_size(text.as_str()) {
            None => {
                text.refuse("is not a size", SIZE_HELP);
                None
            }
            Some(bytes) if (min..=max).contains(&bytes) => usize::try_from(bytes.as_u64()).ok(),
            Some(_) => {
                let (min, max) = (size(min.as_u64()), size(max.as_u64()));
                text.refuse("is out of range", format!("write a size from \"{min}\" to \"{max}\""));
                None
            }
        }
    }

    /// A size in bytes, or `unlimited`: `Some(None)`.
    pub(super) fn size_or_unlimited(&self) -> Option<Option<u64>> {
        let help = format!("{SIZE_HELP}, or \"{UNLIMITED}\"");
        let text = self.text_for(SIZE, &help)?;
        if text.as_str() == UNLIMITED {
            return Some(None);
        }
        let size = parse_size(text.as_str());
        if size.is_none() {
            text.refuse("is not a size", help);
        }
        size.map(|size| Some(size.as_u64()))
    }

    /// An address to listen on.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let help = "write an IP address and a port, such as \"127.0.0.1:8443\", \"0.0.0.0:443\" or \"[::1]:8443\"";
        let text = self.text_for("an address", help)?;
        if text.as_str().starts_with("unix:") {
            text.refuse(
                "is a socket file, which only `server.listen` and `admin.listen` accept",
                help,
            );
            return None;
        }
        let address = SocketAddr::from_str(text.as_str()).ok();
        match address {
            None => text.refuse("is not an IP address with a port", help),
            // Where systemd has opened the port, the gateway needs no right to. The sockets are passed to the gateway, and not to `check`.
            Some(address) if listen::lacks_bind_permission(address) && !has_listener(address.port()) => {
                let problem = self.problem(
                    format!("port {} needs a privilege that this user does not have", address.port()),
                    listen::BIND_PERMISSION_HELP,
                );
                self.add(problem.into_warning().into_start());
            }
            Some(_) => {}
        }
        address
    }

    /// The path of a file that is read now: its content belongs to the configuration.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.text_for("a path", "write the path of a file, in quotes")?.path()
    }

    /// A path whose content does not belong to the configuration.
    pub(crate) fn location(&self) -> Option<PathBuf> {
        self.text_for("a path", "write the path, in quotes")?.location()
    }

    /// The name of a header that carries a credential or an identity.
    pub(crate) fn header_name(&self) -> Option<HeaderName> {
        let text = self.text_for("a header name", "write a name such as \"Authorization\"")?;
        match header_name(text.as_str()) {
            Ok(name) => Some(name),
            Err(wrong) => {
                text.refuse(&wrong.message, wrong.help);
                None
            }
        }
    }

    /// An authentication scheme: the word before the credential in its header.
    pub(crate) fn scheme(&self) -> Option<Text<'_>> {
        let text = self.text_for("a scheme", "write one word, such as \"Token\"")?;
        if text.as_str().is_empty() || !text.as_str().bytes().all(is_token_byte) {
            text.refuse(
                "is not a scheme",
                "write one word of letters, digits and -._~+!#$%&'*^`|, such as \"Token\"",
            );
            return None;
        }
        Some(text)
    }
}

/// Why a name is not accepted.
#[derive(Debug)]
pub(crate) struct InvalidName {
    /// The problem, as in `is not a header name`.
    pub(crate) message: String,
    /// What to write.
    pub(crate) help: String,
}

/// Reserved headers. They are compared by letters and digits only, because servers fold names in this way.
const RESERVED: &[&str] = &[
    "host",
    "cookie",
    "setcookie",
    "date",
    "expect",
    "via",
    "origin",
    "referer",
    "useragent",
    "forwarded",
    "xrequestid",
    "traceparent",
    "tracestate",
    "wwwauthenticate",
    "cachecontrol",
    "range",
    "ifmatch",
    "ifnonematch",
    "ifrange",
    "ifmodifiedsince",
    "ifunmodifiedsince",
];
/// Prefixes of reserved headers.
const RESERVED_PREFIXES: &[&str] = &["content", "accesscontrol", "secwebsocket", "xforwarded", "accept"];
/// Hop-by-hop headers and headers of the message framing.
const CONNECTION_SPECIFIC: &[&str] = &[
    "connection",
    "keepalive",
    "proxyconnection",
    "proxyauthorization",
    "proxyauthenticate",
    "te",
    "trailer",
    "transferencoding",
    "upgrade",
    "contentlength",
    "host",
];

/// The letters and digits of a name, in lower case, as servers fold names.
pub(crate) fn fold(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// Whether a header belongs to the connection or to the message's framing.
pub(crate) fn is_connection_specific(name: &str) -> bool {
    CONNECTION_SPECIFIC.contains(&fold(name).as_str())
}

/// A header name that is not reserved.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, InvalidName> {
    let invalid = |message: &str, help: String| {
        Err(InvalidName {
            message: message.to_owned(),
            help,
        })
    };
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let folded = fold(name);
    if name.contains('_') {
        return invalid(
            "contains `_`: servers drop such headers, or treat `_` and `-` alike",
            format!("write {:?}", name.replace('_', "-")),
        );
    }
    let (true, false, Ok(header)) = (plain, folded.is_empty(), HeaderName::from_str(name)) else {
        return invalid(
            "is not a header name",
            "write letters, digits and `-`, such as \"X-User-Id\"".to_owned(),
        );
    };
    if is_connection_specific(name)
        || RESERVED.contains(&folded.as_str())
        || RESERVED_PREFIXES.iter().any(|family| folded.starts_with(family))
    {
        return invalid(
            "is reserved: it has a meaning in HTTP or for the gateway",
            "write another name, such as \"X-User-Id\"".to_owned(),
        );
    }
    Ok(header)
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        _ => None,
    }
}

/// Digits and a unit that ends in `B`. `64k` is ambiguous: 64,000 or 65,536.
fn parse_size(text: &str) -> Option<ByteSize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    if number.is_empty() || !unit.ends_with('B') || !unit.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    ByteSize::from_str(text).ok().filter(|size| size.as_u64() < u64::MAX)
}

/// Whether a process of this machine listens on this port, on any address, as far as Linux reports it.
#[cfg(target_os = "linux")]
fn has_listener(port: u16) -> bool {
    use procfs::net::{TcpState, tcp, tcp6};
    let mut tables = [tcp, tcp6].into_iter().filter_map(|read| read().ok());
    tables.any(|table| {
        table
            .iter()
            .any(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
    })
}

#[cfg(not(target_os = "linux"))]
fn has_listener(_: u16) -> bool {
    false
}
