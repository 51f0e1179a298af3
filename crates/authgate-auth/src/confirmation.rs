//! [`Confirmation`]: what a token is bound to, by its claim `cnf` (RFC 7800).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// SHA-256 of a public key (RFC 7638) or of a certificate.
pub type Thumbprint = [u8; 32];

/// What a token is bound to. It may be bound to a key and to a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// `jkt`: the key of the client's proofs (RFC 9449, section 6.1).
    pub(crate) key: Option<Thumbprint>,
    /// `x5t#S256`: the client's certificate (RFC 8705, section 3.1).
    pub(crate) certificate: Option<Thumbprint>,
}

/// The claim is malformed, or has only methods that the gateway does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidConfirmation;

impl Confirmation {
    /// Reads the claim. A method that is not known is ignored beside a known one, as RFC 7800, section 3.1, says. Alone it is an error: the
    /// token is bound to something that cannot be checked.
    pub(crate) fn from_claim(claim: Option<&Value>) -> Result<Self, InvalidConfirmation> {
        let members = match claim {
            None => return Ok(Self::default()),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(InvalidConfirmation),
        };
        let thumbprint = |name: &str| members.get(name).map(parse).transpose();
        let confirmation = Self {
            key: thumbprint("jkt")?,
            certificate: thumbprint("x5t#S256")?,
        };
        match confirmation {
            Self {
                key: None,
                certificate: None,
            } => Err(InvalidConfirmation),
            known => Ok(known),
        }
    }
}

fn parse(value: &Value) -> Result<Thumbprint, InvalidConfirmation> {
    let bytes = value.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let bytes = bytes.ok_or(InvalidConfirmation)?;
    bytes.try_into().map_err(|_| InvalidConfirmation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_confirmation_that_cannot_be_checked_is_an_error() {
        // RFC 9449, section 6.1, and RFC 8705, section 3.1.
        let (jkt, x5t) = (
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
            "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2",
        );
        let x5t = &format!("{}U", &x5t[..42]);
        for (claim, expected) in [
            (json!({ "jkt": jkt }), Ok((true, false))),
            (json!({ "x5t#S256": x5t }), Ok((false, true))),
            (json!({ "jkt": jkt, "x5t#S256": x5t }), Ok((true, true))),
            (json!({ "jkt": jkt, "later": 5 }), Ok((true, false))),
            (json!({}), Err(InvalidConfirmation)),
            (json!({ "later": 5 }), Err(InvalidConfirmation)),
            (json!({ "x5t#S512": x5t }), Err(InvalidConfirmation)),
            (json!({ "jwk": { "kty": "EC" } }), Err(InvalidConfirmation)),
            (json!({ "jkt": null }), Err(InvalidConfirmation)),
            (json!({ "jkt": [jkt] }), Err(InvalidConfirmation)),
            (json!({ "jkt": &jkt[1..] }), Err(InvalidConfirmation)),
            (json!({ "jkt": format!("{jkt}=") }), Err(InvalidConfirmation)),
            (json!({ "jkt": format!("{jkt}AA") }), Err(InvalidConfirmation)),
            (json!({ "jkt": jkt, "x5t#S256": "" }), Err(InvalidConfirmation)),
            (json!(null), Err(InvalidConfirmation)),
            (json!(jkt), Err(InvalidConfirmation)),
            (json!([{ "jkt": jkt }]), Err(InvalidConfirmation)),
        ] {
            let read = Confirmation::from_claim(Some(&claim));
            let read = read.map(|found| (found.key.is_some(), found.certificate.is_some()));
            assert_eq!(read, expected, "{claim}");
        }
        assert_eq!(Confirmation::from_claim(None), Ok(Confirmation::default()));
    }
}
