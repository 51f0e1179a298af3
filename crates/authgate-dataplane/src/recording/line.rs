//! [`RecordedRequest`]: one line of a recording.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use super::seal::{self, Seal, WrongSeal};

/// The longest body that is recorded.
pub const MAX_BODY: usize = 64 * 1024;

/// A request as a line of a recording has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The absolute URL, with the query.
    pub url: String,
    /// Name and value of each field line, in order. Bytes above 0x7F are the characters of the same number. A credential is sealed.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Base64, or sealed. `None`: the body is not recorded.
    #[serde(default)]
    pub body: Option<String>,
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct PlainRequest {
    /// The method.
    pub method: Method,
    /// The absolute URL, with the query.
    pub url: String,
    /// The field lines.
    pub headers: HeaderMap,
    /// `None`: the body is not recorded.
    pub body: Option<Bytes>,
}

/// A line is not a request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLine {
    /// A value is sealed, and there is no key.
    #[error("its credentials are sealed: name the key with --seal FILE")]
    Sealed,
    /// A value cannot be opened.
    #[error("{field}: {source}")]
    Seal {
        /// The field.
        field: String,
        /// Why.
        source: WrongSeal,
    },
    /// A part is not what its name says.
    #[error("{0} is not valid")]
    Part(&'static str),
}

impl RecordedRequest {
    /// Seals the values of these fields, the body if `seals_body`, and what looks sealed already.
    pub fn sealed(request: &PlainRequest, seal: &Seal, credentials: &[HeaderName], seals_body: bool) -> Self {
        let value = |name: &HeaderName, value: &HeaderValue| {
            let text: String = value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
            if credentials.contains(name) || Seal::is_sealed(&text) {
                seal.seal(name.as_str(), value.as_bytes())
            } else {
                text
            }
        };
        let headers = request.headers.iter();
        Self {
            method: request.method.to_string(),
            url: request.url.clone(),
            headers: headers
                .map(|(name, line)| (name.to_string(), value(name, line)))
                .collect(),
            body: request.body.as_ref().map(|body| {
                if seals_body && !body.is_empty() {
                    seal.seal(seal::BODY, body)
                } else {
                    STANDARD.encode(body)
                }
            }),
        }
    }

    /// The request, with its credentials.
    ///
    /// # Errors
    /// A value is sealed with another key, or there is no key; or a part is not valid.
    pub fn open(&self, seal: Option<&Seal>) -> Result<PlainRequest, InvalidLine> {
        let open = |field: &str, text: &str| {
            let seal = seal.ok_or(InvalidLine::Sealed)?;
            seal.open(field, text).map_err(|source| InvalidLine::Seal {
                field: field.trim_start_matches('\0').to_owned(),
                source,
            })
        };
        let mut headers = HeaderMap::new();
        for (name, text) in &self.headers {
            let value = if Seal::is_sealed(text) {
                open(name, text)?
            } else {
                let bytes = text.chars().map(u8::try_from).collect::<Result<_, _>>();
                bytes.map_err(|_| InvalidLine::Part("the value of a header"))?
            };
            let name = HeaderName::try_from(name).map_err(|_| InvalidLine::Part("the name of a header"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| InvalidLine::Part("the value of a header"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let body = match &self.body {
            None => None,
            Some(text) if Seal::is_sealed(text) => Some(open(seal::BODY, text)?),
            Some(text) => Some(STANDARD.decode(text).map_err(|_| InvalidLine::Part("body"))?),
        };
        Ok(PlainRequest {
            method: self.method.parse().map_err(|_| InvalidLine::Part("method"))?,
            url: self.url.clone(),
            headers,
            body: body.map(Bytes::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use authgate_core::secret::Secret;
    use http::header::{ACCEPT, AUTHORIZATION};

    use super::super::seal::{KEY_BYTES, SealKey};
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_recorded_and_its_credentials_only_with_the_key() {
        let seal = Seal::new(&SealKey::new(Secret::new(vec![7; KEY_BYTES])).expect("32 bytes"));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Token canary"));
        headers.append(ACCEPT, HeaderValue::from_bytes(b"caf\xe9").expect("a legal value"));
        headers.append(ACCEPT, HeaderValue::from_static("sealed:v1:forged"));
        let request = PlainRequest {
            method: Method::POST,
            url: "http://localhost/x?y=1".to_owned(),
            headers,
            body: Some(Bytes::from_static(b"password=canary")),
        };
        for seals_body in [false, true] {
            let recorded = RecordedRequest::sealed(&request, &seal, &[AUTHORIZATION], seals_body);
            let line = serde_json::to_string(&recorded).expect("JSON");
            assert!(!line.contains("canary"), "{line}");
            assert_eq!(
                line.contains(&STANDARD.encode("password=canary")),
                !seals_body,
                "{line}"
            );
            let recorded: RecordedRequest = serde_json::from_str(&line).expect("a line");
            let opened = recorded.open(Some(&seal)).expect("its key");
            assert_eq!((&opened.headers, &opened.body), (&request.headers, &request.body));
            assert_eq!(
                (opened.method, opened.url),
                (request.method.clone(), request.url.clone())
            );
            assert!(matches!(recorded.open(None), Err(InvalidLine::Sealed)));
        }
        let minimal: RecordedRequest = serde_json::from_str(r#"{"method":"GET","url":"http://a/"}"#).expect("enough");
        assert!(minimal.open(None).expect("plain").body.is_none());
    }
}
