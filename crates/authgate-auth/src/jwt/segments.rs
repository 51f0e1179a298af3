//! The form of a compact JWS (RFC 7515, section 3.1): three segments and a header without unknown extensions.

use authgate_core::credential::Defect;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::rules::Padding;
use crate::claims::json::{Malformed, object};

/// Canonical base64url: no other characters, unused bits zero. Padding is removed before.
const STRICT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// The three segments of a token, decoded. Nothing in them is verified yet.
#[derive(Debug)]
pub(crate) struct Decoded<'t> {
    /// The signed message: the first two segments as sent.
    pub(crate) signed: &'t [u8],
    /// The JOSE header.
    header: Vec<u8>,
    payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// A parsed token. Nothing in it is verified yet.
#[derive(Debug)]
pub(super) struct Segments<'t> {
    /// The signed message: the first two segments as sent.
    pub(super) signed: &'t [u8],
    pub(super) header: Header,
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

/// The parameters of the JOSE header that are used. `cty`, `jku`, `jwk`, `x5u` and `x5c` are ignored: keys come from the configuration
/// only.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// `typ` marks an access token of RFC 9068; only that profile checks it.
    pub(super) access_token: bool,
}

impl<'t> Decoded<'t> {
    /// Decodes a token whose segments have no padding.
    pub(crate) fn parse(token: &'t [u8]) -> Result<Self, Malformed> {
        Self::with_padding(token, Padding::Refused)
    }

    fn with_padding(token: &'t [u8], padding: Padding) -> Result<Self, Malformed> {
        let mut dots = token
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'.')
            .map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Malformed);
        };
        // Check the form of all three segments before their content.
        Ok(Self {
            signed: &token[..second],
            header: decode(&token[..first], padding)?,
            payload: decode(&token[first + 1..second], padding)?,
            signature: decode(&token[second + 1..], padding)?,
        })
    }

    /// The parameters of the JOSE header.
    pub(crate) fn header(&self) -> Result<Map<String, Value>, Malformed> {
        parameters(&self.header)
    }

    /// The claims: a JSON object.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, Malformed> {
        object(&self.payload)
    }
}

impl<'t> Segments<'t> {
    pub(super) fn parse(token: &'t [u8], padding: Padding) -> Result<Self, Defect> {
        let Decoded {
            signed,
            header,
            payload,
            signature,
        } = Decoded::with_padding(token, padding).map_err(|Malformed| Defect::Form)?;
        Ok(Self {
            signed,
            header: Header::parse(&header).map_err(|Malformed| Defect::Header)?,
            signature,
            payload,
        })
    }

    /// The claims: a JSON object.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Defect> {
        object(&self.payload).map_err(|Malformed| Defect::Claims)
    }

    pub(super) fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

/// The parameters of a JOSE header. No extension is implemented, so every critical one is refused (RFC 7515, section 4.1.11). So is an
/// unencoded payload (RFC 7797).
fn parameters(header: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let members = object(header)?;
    if members.contains_key("crit") || members.get("b64") == Some(&Value::Bool(false)) {
        return Err(Malformed);
    }
    Ok(members)
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut members = parameters(bytes)?;
        let Some(Value::String(alg)) = members.remove("alg") else {
            return Err(Malformed);
        };
        let kid = match members.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(Malformed),
        };
        let access_token = members
            .get("typ")
            .and_then(Value::as_str)
            .is_some_and(is_access_token_type);
        Ok(Self { alg, kid, access_token })
    }
}

/// RFC 9068, section 4: `at+jwt`, or `application/at+jwt`; RFC 7515, section 4.1.9, makes the prefix optional. Media types are
/// case-insensitive.
fn is_access_token_type(typ: &str) -> bool {
    let typ = match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    };
    typ.eq_ignore_ascii_case("at+jwt")
}

/// The header of any text with a dot, for display only.
pub(super) fn header_as_sent(token: &[u8]) -> Option<Map<String, Value>> {
    let segment = token.split(|byte| *byte == b'.').next()?;
    object(&decode(segment, Padding::Accepted).ok()?).ok()
}

/// The claims of any text with two dots, for display only.
pub(super) fn payload_as_sent(token: &[u8]) -> Option<Map<String, Value>> {
    let segment = token.split(|byte| *byte == b'.').nth(1)?;
    object(&decode(segment, Padding::Accepted).ok()?).ok()
}

/// Padding is accepted if the padded segment is a multiple of four characters.
fn decode(segment: &[u8], padding: Padding) -> Result<Vec<u8>, Malformed> {
    let bare = if padding == Padding::Accepted && segment.len().is_multiple_of(4) {
        let one = segment.strip_suffix(b"=").unwrap_or(segment);
        one.strip_suffix(b"=").unwrap_or(one)
    } else {
        segment
    };
    STRICT.decode(bare).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn base64url_is_read_strictly() {
        for (segment, expected) in [
            ("", Some(&b""[..])),
            ("QQ", Some(b"A")),
            ("QQ==", Some(b"A")),
            ("QUI", Some(b"AB")),
            ("QUI=", Some(b"AB")),
            ("QR", None),
            ("QQ=", None),
            ("QQ===", None),
            ("QUJD====", None),
            ("Q", None),
            ("QQ\n", None),
            ("+w", None),
            ("-w", Some(b"\xfb")),
        ] {
            let decoded = decode(segment.as_bytes(), Padding::Accepted).ok();
            assert_eq!(decoded.as_deref(), expected, "{segment}");
            let unpadded = expected.filter(|_| !segment.contains('='));
            let decoded = decode(segment.as_bytes(), Padding::Refused).ok();
            assert_eq!(decoded.as_deref(), unpadded, "{segment}");
        }
    }

    #[test]
    fn the_type_of_an_access_token_is_a_media_type() {
        for (typ, expected) in [
            ("at+jwt", true),
            ("AT+JWT", true),
            ("application/at+jwt", true),
            ("Application/AT+jwt", true),
            ("JWT", false),
            ("", false),
            ("at+jwt ", false),
            ("application/at+jwt/x", false),
            ("text/at+jwt", false),
        ] {
            assert_eq!(is_access_token_type(typ), expected, "{typ}");
        }
    }

    #[test]
    fn headers_with_unknown_extensions_are_refused() {
        let token = |header: &str| format!("{}.e30.", URL_SAFE_NO_PAD.encode(header));
        for good in [
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"x","kid":"k","typ":5,"jwk":{}}"#,
            r#"{"alg":"x","b64":true}"#,
        ] {
            assert!(
                Segments::parse(token(good).as_bytes(), Padding::Accepted).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"alg":5}"#,
            r#"{"alg":"x","kid":5}"#,
            r#"{"alg":"x","kid":null}"#,
            r#"{"alg":"x","crit":[]}"#,
            r#"{"alg":"x","crit":["b64"],"b64":true}"#,
            r#"{"alg":"x","b64":false}"#,
            r#"{"alg":"x","alg":"x"}"#,
            "{\"alg\":\"x\"} x",
        ] {
            assert!(
                Segments::parse(token(bad).as_bytes(), Padding::Accepted).is_err(),
                "{bad}"
            );
        }
        for bad in ["", ".", "..", "a.b", "e30.e30.e30.e30"] {
            assert!(Segments::parse(bad.as_bytes(), Padding::Accepted).is_err(), "{bad}");
        }
    }
}
