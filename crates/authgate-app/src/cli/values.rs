//! Parsers for command-line values: keys, times, ids, files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use authgate_auth::store::redis::SealId;
use authgate_auth::store::{Digests, TokenDigest};
use authgate_core::identity::{Text, UserId};
use authgate_core::secret::Secret;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::Failure;
pub(super) use crate::provisioning::time::{parse_time as time, time_text, unix_now as now};

/// An opaque token as KEY: the key, its digest, or `-`.
#[derive(Debug, Clone)]
pub(super) enum Key {
    /// The key is on standard input.
    Input,
    /// The digest of the key.
    Digest(TokenDigest),
    /// The key.
    Plain(Secret<String>),
}

const EMPTY_KEY: &str = "the key is empty";

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text
            .split_once(':')
            .filter(|(name, _)| matches!(*name, "sha256" | "sha512" | "hmac-sha256"));
        match named {
            Some((algorithm, hex)) => {
                let hex = hex.to_ascii_lowercase();
                let digest = match algorithm {
                    "hmac-sha256" => TokenDigest::from_sealed_hex(&hex),
                    _ => TokenDigest::from_hex(&hex).filter(|digest| digest.algorithm() == algorithm),
                };
                digest
                    .map(Self::Digest)
                    .ok_or("expected 64 hexadecimal digits after sha256: or hmac-sha256:, or 128 after sha512:")
            }
            None if text == "-" => Ok(Self::Input),
            None if text.is_empty() => Err(EMPTY_KEY),
            None => Ok(Self::Plain(Secret::new(text.to_owned()))),
        }
    }
}

impl Key {
    /// Replaces `-` by the key on standard input.
    ///
    /// # Errors
    /// Standard input cannot be read, or is empty.
    pub(super) fn read(&self) -> Result<Self, Failure> {
        let Self::Input = self else { return Ok(self.clone()) };
        let mut text = Zeroizing::new(String::new());
        let read = io::stdin().lock().read_to_string(&mut text);
        read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
        let key = text.strip_suffix('\n').unwrap_or(&text);
        // `-` on standard input is refused: reading it again would never end.
        match key.parse() {
            Ok(Self::Input) | Err(EMPTY_KEY) => Err(Failure::Usage("standard input has no key".to_owned())),
            Ok(key) => Ok(key),
            Err(problem) => Err(Failure::Usage(format!("standard input: {problem}"))),
        }
    }

    /// The digests that a store may have of the key. The first is the one for a new token. `seal`: that of the store.
    ///
    /// # Errors
    /// Standard input cannot be read or is empty, or the store has no digest of this key.
    pub(super) fn digests(&self, digests: Digests, seal: Option<&SealId>) -> Result<Vec<TokenDigest>, Failure> {
        let found: Vec<_> = match self.read()? {
            Self::Digest(TokenDigest::Sealed(_)) if seal.is_none() => {
                let problem = "hmac-sha256: names a token of a sealed store, and this store has no `seal`";
                return Err(Failure::Usage(problem.to_owned()));
            }
            Self::Digest(digest) => vec![digest],
            Self::Plain(key) => digests.of(key.expose().as_bytes()).into_iter().flatten().collect(),
            Self::Input => return Err(Failure::Usage("standard input has no key".to_owned())),
        };
        if found.is_empty() {
            let problem =
                "with digest = [\"sha512-hexkey\"] a key must be an even number of lower-case hexadecimal digits";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(found)
    }
}

/// A digest in the form that KEY accepts.
pub(super) fn digest_text(digest: &TokenDigest) -> String {
    format!("{}:{}", digest.algorithm(), digest.to_hex())
}

/// Parses a user id.
///
/// # Errors
/// The text is not a valid id.
pub(super) fn user_id(text: &str) -> Result<UserId, &'static str> {
    UserId::new(text)
        .map_err(|_| "an id is 1 to 255 bytes, without control characters and without leading or trailing spaces")
}

/// Parses a name, group, scope or email address.
///
/// # Errors
/// The text is empty, or not valid in a header.
pub(super) fn text(text: &str) -> Result<Text, &'static str> {
    if text.is_empty() {
        return Err("must not be empty");
    }
    Text::new(text).map_err(|_| "must not have control characters, or leading or trailing spaces")
}

/// Parses the id of a JWT or of a key. Empty text is refused: it usually comes from an unset shell variable.
///
/// # Errors
/// The text is empty.
pub(super) fn non_empty_id(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("must not be empty")
    } else {
        Ok(text.to_owned())
    }
}

/// Parses `KEY=VALUE`. The value is JSON if it parses as JSON, otherwise text.
///
/// # Errors
/// There is no `=`, or KEY is empty.
pub(super) fn attribute(text: &str) -> Result<(String, Value), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((key.to_owned(), value))
        }
        _ => Err("expected KEY=VALUE"),
    }
}

/// Reads a whole file, or standard input for `-`.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub(super) fn file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text)
    } else {
        File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_or_its_digest() {
        let hex = TokenDigest::of(b"canary").to_hex();
        for text in [
            "canary".to_owned(),
            format!("sha256:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
        ] {
            let key: Key = text.parse().expect("a key");
            let digests = key.digests(Digests::SHA256, None).ok();
            assert_eq!(digests, Some(vec![TokenDigest::of(b"canary")]), "{text}");
            assert!(!format!("{key:?}").contains("canary"), "a key in a Debug text");
        }
        assert!(matches!("-".parse(), Ok(Key::Input)));
        assert!("".parse::<Key>().is_err() && "sha256:12".parse::<Key>().is_err());
        assert!(format!("sha512:{hex}{hex}").parse::<Key>().is_ok() && format!("sha512:{hex}").parse::<Key>().is_err());
    }

    #[test]
    fn attributes_are_json_or_text() {
        let check = |text, expected: Value| assert_eq!(attribute(text), Ok(("a".to_owned(), expected)), "{text}");
        check("a=1", 1.into());
        check("a=true", true.into());
        check("a=[\"x\"]", serde_json::json!(["x"]));
        check("a=\"1\"", "1".into());
        check("a=acme", "acme".into());
        check("a=", "".into());
        check("a=b=c", "b=c".into());
        assert!(attribute("a").is_err() && attribute("=1").is_err());
    }
}
