//! The host of a request. It is refused unless there is exactly one way to read it (RFC 9112, section 3.2; RFC 9113,
//! section 8.3.1).

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};

/// The host of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As the client wrote it.
    pub sent: HeaderValue,
    /// Lower case, without port and trailing dot. The route table looks up this name.
    pub name: Rc<str>,
}

/// The hosts that were parsed last, the latest first: most requests of a worker are for a few hosts.
#[derive(Debug, Default)]
pub struct HostCache(RefCell<Vec<Host>>);

/// The maximum number of cached hosts.
const MOST_CACHED: usize = 8;
/// The longest host that is cached. DNS names are not longer (RFC 1035, section 2.3.4).
const LONGEST_CACHED: usize = 264;

impl HostCache {
    /// Like [`Host::of`], with a cache.
    ///
    /// # Errors
    /// There is no host, or more than one, or an invalid one, or `Host` and the target differ.
    pub fn read(&self, uri: &Uri, headers: &HeaderMap, default_port: u16) -> Result<Host, InvalidHost> {
        let mut lines = headers.get_all(HOST).iter();
        let sent = match (lines.next(), lines.next(), uri.authority()) {
            (Some(line), None, None) => line.as_bytes(),
            (None, _, Some(authority)) => authority.as_str().as_bytes(),
            _ => return Host::of(uri, headers, default_port),
        };
        if let Some(host) = self.0.borrow().iter().find(|host| host.sent.as_bytes() == sent) {
            return Ok(host.clone());
        }
        let host = Host::of(uri, headers, default_port)?;
        // Store a copy: the received value is a slice of a larger buffer.
        if sent.len() <= LONGEST_CACHED
            && let Ok(sent) = HeaderValue::from_bytes(sent)
        {
            let mut hosts = self.0.borrow_mut();
            hosts.truncate(MOST_CACHED - 1);
            let name = Rc::clone(&host.name);
            hosts.insert(0, Host { sent, name });
        }
        Ok(host)
    }
}

/// The request has no host, an invalid host, or more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHost;

impl Host {
    /// Reads `Host` and the authority of the target. They must be equal except for case and default port.
    ///
    /// # Errors
    /// There is no host, or more than one, or an invalid one, or `Host` and the target differ.
    pub fn of(uri: &Uri, headers: &HeaderMap, default_port: u16) -> Result<Self, InvalidHost> {
        let mut lines = headers.get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(InvalidHost);
        }
        let (sent, authority) = match (line, uri.authority()) {
            (None, None) => return Err(InvalidHost),
            (Some(line), None) => (line.clone(), parse(line.as_bytes())?),
            (None, Some(authority)) => (
                HeaderValue::from_str(authority.as_str()).map_err(|_| InvalidHost)?,
                parse(authority.as_str().as_bytes())?,
            ),
            (Some(line), Some(authority)) => {
                let (field, target) = (parse(line.as_bytes())?, parse(authority.as_str().as_bytes())?);
                let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
                if name_of(&field)? != name_of(&target)? || port(&field) != port(&target) {
                    return Err(InvalidHost);
                }
                (line.clone(), field)
            }
        };
        Ok(Self {
            sent,
            name: name_of(&authority)?,
        })
    }
}

fn parse(bytes: &[u8]) -> Result<Authority, InvalidHost> {
    let authority = Authority::try_from(bytes).map_err(|_| InvalidHost)?;
    let plain = authority
        .host()
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:~".contains(&byte));
    let port_is_valid = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        // Only digits, without leading zeros.
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port)),
        // There is user information before the host.
        None => false,
    };
    if plain && port_is_valid && !authority.host().is_empty() {
        Ok(authority)
    } else {
        Err(InvalidHost)
    }
}

/// The name for the look-up of a route. It refuses a host that servers may read as another one: a host with empty
/// labels, which some servers trim, and an IPv4 address in an unusual form (`127.1`, `0x7f.0.0.1`). A `%`, which some
/// servers decode, was refused before.
fn name_of(authority: &Authority) -> Result<Rc<str>, InvalidHost> {
    let host = authority.host();
    if host.starts_with('[') {
        return ipv6(host).map(Rc::from).ok_or(InvalidHost);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if name.split('.').any(str::is_empty) || (is_number && name.parse::<Ipv4Addr>().is_err()) {
        return Err(InvalidHost);
    }
    Ok(name.to_ascii_lowercase().into())
}

/// An IPv6 address in brackets, as RFC 5952 writes it: `[0:0::1]` is `[::1]`.
pub fn ipv6(host: &str) -> Option<String> {
    let address = host.strip_prefix('[')?.strip_suffix(']')?;
    Some(format!("[{}]", address.parse::<Ipv6Addr>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &'static str, hosts: &[&'static str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let (target, cache) = (Uri::from_static(target), HostCache::default());
        let host = Host::of(&target, &headers, 443);
        for _ in 0..2 {
            assert_eq!(cache.read(&target, &headers, 443), host);
        }
        assert_eq!(
            host.ok().map(|host| host.name).as_deref(),
            expected,
            "{target} {hosts:?}"
        );
    }

    #[test]
    fn a_request_has_exactly_one_valid_host() {
        check("/", &["API.example.:8443"], Some("api.example"));
        check("/", &["[::1]:8443"], Some("[::1]"));
        check("/", &["[0:0::0:1]"], Some("[::1]"));
        check("/", &["127.0.0.1:8443"], Some("127.0.0.1"));
        check("/", &["1.example"], Some("1.example"));
        check("https://api.example/", &[], Some("api.example"));
        check("https://api.example/", &["API.example:443"], Some("api.example"));
        for bad in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["u@a"],
            &["a,b"],
            &["a/b"],
            &["a:"],
            &["a:99999"],
            &["a:x"],
            &["a:+80"],
            &["a:00080"],
            &["%61.example"],
            &["a%2eexample"],
            &["a.."],
            &[".a"],
            &["a..b"],
            &["."],
            &["127.1"],
            &["2130706433"],
            &["127.0.0.01"],
            &["127.0.0.0x1"],
            &["[::1%25eth0]"],
            &["[v1.x]"],
            &["[127.0.0.1]"],
        ] {
            check("/", bad, None);
        }
        check("https://api.example/", &["other.example"], None);
        check("https://api.example:8443/", &["api.example"], None);
        check("https://u@api.example/", &[], None);
    }
}
