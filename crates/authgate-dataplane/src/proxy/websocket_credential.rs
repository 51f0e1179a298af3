//! The `websocket` setting of a route: the credential of a WebSocket that a web page opens. Browsers do not let pages
//! set `Authorization` there, so the credential is a subprotocol or a cookie. If the page's origin is listed, the
//! gateway moves the credential into its header and authenticates it there.
//!
//! Browsers send no preflight for a WebSocket to another site, and send the cookies of that site. Without the list of
//! origins, any page could open a WebSocket in the name of its visitor.

use authgate_auth::PROOF_HEADER;
use authgate_core::outbound::CredentialHeaders;
use http::header::{COOKIE, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};

use super::cors::OriginList;
use super::rejection::Rejection;

/// The prefix of a token in a subprotocol.
const TOKEN_PREFIX: &[u8] = b"authgate.bearer.";
/// A page also offers this subprotocol if its application selects none: browsers require that the server selects one of
/// the offered ones.
const GATEWAY_SUBPROTOCOL: HeaderValue = HeaderValue::from_static("authgate");

/// Where pages put a credential, and the header that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebSocketCredential {
    /// The origins of the pages that may send the credential.
    pub origins: OriginList,
    /// Whether the credential may be a subprotocol.
    pub subprotocol: bool,
    /// The name of the cookie that may contain the credential.
    pub cookie: Option<String>,
    /// The header that the credential is moved to.
    pub header: HeaderName,
    /// The scheme before the credential. Empty if the credential is the whole value.
    pub scheme: String,
}

impl WebSocketCredential {
    /// Moves the credential into its header. `read` are the headers that the route's authenticators read. Returns
    /// whether the gateway may select its own subprotocol in the response.
    pub(super) fn take(&self, headers: &mut HeaderMap, read: &CredentialHeaders) -> Result<bool, Rejection> {
        let mut extracted = Extracted::default();
        if self.subprotocol {
            extracted = take_subprotocols(headers);
        }
        if let Some(name) = &self.cookie {
            take_cookies(headers, name.as_bytes(), &mut extracted.credentials);
        }
        let Some(credential) = extracted.credentials.pop() else {
            return Ok(extracted.offers_gateway_subprotocol);
        };
        // Refuse several credentials: an attacker who can plant a cookie must not be able to choose one. A proof is not one of them.
        let is_sent = |name: &HeaderName| *name != PROOF_HEADER && headers.contains_key(name);
        if !extracted.credentials.is_empty() || read.iter().any(is_sent) {
            return Err(Rejection::RepeatedCredential);
        }
        if self.origins.find(headers).is_none() {
            return Err(Rejection::OriginNotListed);
        }
        let value = match self.scheme.as_bytes() {
            b"" => credential,
            scheme => [scheme, b" ", &credential].concat(),
        };
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| Rejection::Malformed("its credential"))?;
        value.set_sensitive(true);
        headers.insert(&self.header, value);
        Ok(extracted.offers_gateway_subprotocol)
    }

    /// Removes the gateway's subprotocols from a request that asks for no WebSocket. There they are no credential, and
    /// the upstream must not see them.
    pub(super) fn discard(&self, headers: &mut HeaderMap) {
        if self.subprotocol {
            take_subprotocols(headers);
        }
    }
}

/// Selects the gateway's subprotocol, unless the application has selected one.
pub(super) fn select(headers: &mut HeaderMap) {
    headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(GATEWAY_SUBPROTOCOL);
}

/// Whether a request has a credential among its subprotocols.
pub fn has_subprotocol_credential(headers: &HeaderMap) -> bool {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(members)
        .any(|member| member.starts_with(TOKEN_PREFIX))
}

#[derive(Default)]
struct Extracted {
    credentials: Vec<Vec<u8>>,
    offers_gateway_subprotocol: bool,
}

/// The members of a list, without empty ones.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Removes the gateway's subprotocols. A line without one stays unchanged.
fn take_subprotocols(headers: &mut HeaderMap) -> Extracted {
    let mut extracted = Extracted::default();
    for line in take_lines(headers, &SEC_WEBSOCKET_PROTOCOL) {
        let mut others: Vec<&[u8]> = Vec::new();
        let mut changed = false;
        for member in members(&line) {
            if let Some(credential) = member.strip_prefix(TOKEN_PREFIX) {
                extracted.credentials.push(credential.to_vec());
            } else if GATEWAY_SUBPROTOCOL == *member {
                extracted.offers_gateway_subprotocol = true;
            } else {
                others.push(member);
                continue;
            }
            changed = true;
        }
        restore_line(
            headers,
            SEC_WEBSOCKET_PROTOCOL,
            &line,
            changed,
            &others.join(&b", "[..]),
        );
    }
    extracted
}

/// Removes every cookie with this name. Some applications trim the name, so it is trimmed here too.
fn take_cookies(headers: &mut HeaderMap, name: &[u8], credentials: &mut Vec<Vec<u8>>) {
    for line in take_lines(headers, &COOKIE) {
        let before = credentials.len();
        let mut others: Vec<&[u8]> = Vec::new();
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            match pair.iter().position(|byte| *byte == b'=') {
                Some(at) if trim(&pair[..at]) == name => credentials.push(pair[at + 1..].trim_ascii().to_vec()),
                _ => others.push(pair),
            }
        }
        let changed = credentials.len() > before;
        restore_line(headers, COOKIE, &line, changed, others.join(&b';').trim_ascii_start());
    }
}

/// Removes blanks from both ends, including those above 0x7F: Django decodes a header as Latin-1 before it trims.
fn trim(name: &[u8]) -> &[u8] {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0x0B | 0x1C..=0x1F | 0x85 | 0xA0);
    let begin = name.iter().position(|byte| !blank(byte)).unwrap_or(name.len());
    let end = name.iter().rposition(|byte| !blank(byte)).map_or(begin, |at| at + 1);
    &name[begin..end]
}

fn take_lines(headers: &mut HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    let lines = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    lines
}

/// Adds the original line, or, if it was changed, what remains of it unless that is empty.
fn restore_line(headers: &mut HeaderMap, name: HeaderName, line: &HeaderValue, changed: bool, remaining: &[u8]) {
    if !changed {
        headers.append(name, line.clone());
    } else if let (false, Ok(remaining)) = (remaining.is_empty(), HeaderValue::from_bytes(remaining)) {
        headers.append(name, remaining);
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, ORIGIN};

    use super::*;

    type Fields<'f> = &'f [(HeaderName, &'f str)];

    fn extract(sent: Fields<'_>) -> Result<(HeaderMap, bool), Rejection> {
        let credential = WebSocketCredential {
            origins: OriginList(vec![HeaderValue::from_static("https://app.example")]),
            subprotocol: true,
            cookie: Some("key".to_owned()),
            header: AUTHORIZATION,
            scheme: "Token".to_owned(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(name, HeaderValue::from_str(value).expect("a legal value"));
        }
        let gateway_subprotocol = credential.take(&mut headers, &std::iter::once(AUTHORIZATION).collect())?;
        Ok((headers, gateway_subprotocol))
    }

    #[test]
    fn a_taken_credential_is_removed_and_other_values_are_unchanged() {
        let check = |name: HeaderName,
                     sent: &[&str],
                     remaining: &[&str],
                     credential: Option<&str>,
                     gateway_subprotocol: bool| {
            let mut fields = vec![(ORIGIN, "https://app.example")];
            fields.extend(sent.iter().map(|line| (name.clone(), *line)));
            let (headers, offered) = extract(&fields).unwrap_or_else(|refused| panic!("{sent:?}: {refused}"));
            let lines: Vec<&HeaderValue> = headers.get_all(&name).iter().collect();
            assert_eq!(lines, remaining, "{sent:?}");
            let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            assert_eq!(value, credential.map(str::as_bytes), "{sent:?}");
            assert!(headers.get(AUTHORIZATION).is_none_or(HeaderValue::is_sensitive));
            assert_eq!(offered, gateway_subprotocol, "{sent:?}");
        };
        let members = SEC_WEBSOCKET_PROTOCOL;
        check(members.clone(), &["chat ,  x"], &["chat ,  x"], None, false);
        check(
            members.clone(),
            &["authgate.bearer.a.b-c_d"],
            &[],
            Some("Token a.b-c_d"),
            false,
        );
        check(
            members.clone(),
            &["a, authgate.bearer.k ,authgate,b"],
            &["a, b"],
            Some("Token k"),
            true,
        );
        check(
            members.clone(),
            &["a,  b", "authgate", "authgate.bearer.k"],
            &["a,  b"],
            Some("Token k"),
            true,
        );
        check(members.clone(), &["authgate.bearer.,a"], &["a"], Some("Token "), false);
        check(
            members,
            &["Authgate.Bearer.k, authgate.bearer"],
            &["Authgate.Bearer.k, authgate.bearer"],
            None,
            false,
        );
        check(
            COOKIE,
            &["a=1;b=\"key=x\"; keys=2"],
            &["a=1;b=\"key=x\"; keys=2"],
            None,
            false,
        );
        check(
            COOKIE,
            &["a=1; key=k=; b=2 ;c"],
            &["a=1; b=2 ;c"],
            Some("Token k="),
            false,
        );
        check(COOKIE, &["key=k; a=1"], &["a=1"], Some("Token k"), false);
        check(
            COOKIE,
            &["a=1", " key = k ", "Key=1"],
            &["a=1", "Key=1"],
            Some("Token k"),
            false,
        );
    }

    #[test]
    fn only_one_credential_from_a_listed_origin_is_taken() {
        let origin = (ORIGIN, "https://app.example");
        let (member, cookie) = ((SEC_WEBSOCKET_PROTOCOL, "authgate.bearer.k"), (COOKIE, "key=k"));
        let several: [Fields<'_>; 6] = [
            &[origin.clone(), member.clone(), cookie.clone()],
            &[origin.clone(), member.clone(), member.clone()],
            &[origin.clone(), (COOKIE, "key=k; key=k")],
            &[origin.clone(), cookie.clone(), cookie.clone()],
            &[origin.clone(), member.clone(), (AUTHORIZATION, "Token k")],
            &[cookie.clone(), (AUTHORIZATION, "Basic eA==")],
        ];
        for fields in several {
            assert!(
                matches!(extract(fields), Err(Rejection::RepeatedCredential)),
                "{fields:?}"
            );
        }
        for sent in [
            "null",
            "https://App.example",
            "https://app.example:443",
            "https://app.example, x",
            "*",
            "",
        ] {
            for carried in [&member, &cookie] {
                let fields = [(ORIGIN, sent), carried.clone()];
                assert!(
                    matches!(extract(&fields), Err(Rejection::OriginNotListed)),
                    "{fields:?}"
                );
            }
        }
        for fields in [&[member.clone()][..], &[origin.clone(), origin, cookie]] {
            assert!(matches!(extract(fields), Err(Rejection::OriginNotListed)), "{fields:?}");
        }
        // Without a credential of this kind, the request is authenticated as usual, from any origin.
        let (headers, _) = extract(&[(ORIGIN, "null"), (AUTHORIZATION, "Token k")]).expect("nothing to take");
        assert_eq!(headers[AUTHORIZATION], "Token k");
    }
}
