//! [`Seal`]: shows that a program with the key of the store wrote a record, and wrote it under this name.
//!
//! A sealed value is `s1.`, base64url without padding of the HMAC-SHA-256 of the key's full name, NUL and the value, `.`, and the value
//! itself. The name of a token has the HMAC-SHA-256 of the lower-case hexadecimal digits of the token's digest. Digits have no NUL, so no
//! name is the HMAC of a value.
//!
//! It does not encrypt, and it does not show that a record is the latest one, or that none was deleted.

use std::fmt;
use std::sync::Arc;

use authgate_core::secret::Secret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key, Tag};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::store::TokenDigest;

/// The beginning of every sealed value.
const VERSION: &[u8] = b"s1.";
/// The length of an HMAC in base64url.
const MAC_TEXT: usize = 43;
/// The length of what precedes the value.
const HEADER: usize = VERSION.len() + MAC_TEXT + 1;
/// What the id of a seal is the HMAC of.
const ID_OF: &[u8] = b"authgate seal id";

/// The key that seals the records of a store.
#[derive(Clone)]
pub struct Seal {
    bytes: Secret<[u8; Seal::KEY_BYTES]>,
    /// Clones share it: it is large.
    key: Arc<Key>,
}

/// The bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seal has {expected} bytes, and this has {0}", expected = Seal::KEY_BYTES)]
pub struct InvalidSeal(pub usize);

/// Names a seal. The key cannot be computed from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealId(String);

/// A value must not be used: this store's key has not sealed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    /// It has no seal.
    #[error("{0:?} is not sealed")]
    Unsealed(String),
    /// Its HMAC is not the one of this key, name and value.
    #[error("{0:?} has a seal that does not fit: it was sealed with another key or under another name, or was changed")]
    Mismatch(String),
    /// The layout record is sealed, and the configuration has no key.
    #[error("{0:?} is sealed, and the store has no `seal` in the configuration")]
    NoKey(String),
}

impl Seal {
    /// The length of a key.
    pub const KEY_BYTES: usize = 32;

    /// Takes the bytes of a key.
    ///
    /// # Errors
    /// There are not [`Seal::KEY_BYTES`].
    pub fn new(bytes: &Secret<Vec<u8>>) -> Result<Self, InvalidSeal> {
        let bytes = bytes.expose();
        let array = bytes.as_slice().try_into().map_err(|_| InvalidSeal(bytes.len()))?;
        Ok(Self {
            bytes: Secret::new(array),
            key: Arc::new(Key::new(HMAC_SHA256, bytes)),
        })
    }

    /// Names this seal, for exports: they have names of tokens that only this seal can make.
    pub fn id(&self) -> SealId {
        SealId(hex::encode(&self.mac(&[ID_OF]).as_ref()[..8]))
    }

    /// The digest that names a token in the store. One that is sealed already stays as it is.
    pub(super) fn digest(&self, digest: &TokenDigest) -> TokenDigest {
        let mut digits = [0; 128];
        let bytes = match digest {
            TokenDigest::Sealed(_) => return *digest,
            TokenDigest::Sha256(bytes) => bytes.as_slice(),
            TokenDigest::Sha512(bytes) => bytes.as_slice(),
        };
        let digits = &mut digits[..2 * bytes.len()];
        hex::encode_to_slice(bytes, digits).expect("two digits for each byte");
        let mut sealed = [0; 32];
        sealed.copy_from_slice(self.mac(&[digits]).as_ref());
        TokenDigest::Sealed(sealed)
    }

    /// Seals a value for the key of this name.
    pub(super) fn seal(&self, name: &str, value: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEADER + value.len());
        sealed.extend_from_slice(VERSION);
        sealed.extend_from_slice(&self.mac_text(name, value));
        sealed.push(b'.');
        sealed.extend_from_slice(value);
        sealed
    }

    /// The value under the key of this name.
    pub(super) fn open<'v>(&self, name: &str, stored: &'v [u8]) -> Result<&'v [u8], BadSeal> {
        let Some((mac, value)) = parts(stored) else {
            return Err(BadSeal::Unsealed(name.to_owned()));
        };
        // Base64url without padding has one form, so texts can be compared in place of bytes.
        if verify_slices_are_equal(&self.mac_text(name, value), mac).is_err() {
            return Err(BadSeal::Mismatch(name.to_owned()));
        }
        Ok(value)
    }

    fn mac_text(&self, name: &str, value: &[u8]) -> [u8; MAC_TEXT] {
        let mut text = [0; MAC_TEXT];
        let mac = self.mac(&[name.as_bytes(), b"\0", value]);
        let length = URL_SAFE_NO_PAD.encode_slice(mac, &mut text);
        debug_assert_eq!(length, Ok(MAC_TEXT));
        text
    }

    fn mac(&self, parts: &[&[u8]]) -> Tag {
        let mut context = Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}

/// Whether a value has the form of a sealed one.
pub(super) fn is_sealed(stored: &[u8]) -> bool {
    parts(stored).is_some()
}

/// The HMAC and the value; `None`: it is not a sealed value.
fn parts(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mac, value) = stored.strip_prefix(VERSION)?.split_at_checked(MAC_TEXT)?;
    Some((mac, value.strip_prefix(b".")?))
}

impl PartialEq for Seal {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Seal {}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl SealId {
    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for SealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(byte: u8) -> Seal {
        Seal::new(&Secret::new(vec![byte; Seal::KEY_BYTES])).expect("32 bytes")
    }

    #[test]
    fn a_sealed_value_opens_with_its_key_and_under_its_name_only() {
        let sealed = seal(1).seal("authgate:user:1", b"{}");
        assert_eq!(seal(1).open("authgate:user:1", &sealed), Ok(&b"{}"[..]));
        let mismatch = |name: &str| Err(BadSeal::Mismatch(name.to_owned()));
        assert_eq!(seal(2).open("authgate:user:1", &sealed), mismatch("authgate:user:1"));
        assert_eq!(seal(1).open("authgate:user:2", &sealed), mismatch("authgate:user:2"));
        assert_eq!(seal(1).open("other:user:1", &sealed), mismatch("other:user:1"));
        for at in [3, 20, 45, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(
                seal(1).open("authgate:user:1", &changed),
                mismatch("authgate:user:1"),
                "{at}"
            );
        }
    }

    #[test]
    fn what_is_not_sealed_is_refused() {
        let sealed = seal(1).seal("k", b"");
        assert_eq!(seal(1).open("k", &sealed), Ok(&b""[..]));
        for bad in [
            &b""[..],
            b"{}",
            b"42",
            b"s1.",
            b"s1.{}",
            &sealed[..sealed.len() - 1],
            &sealed[1..],
        ] {
            assert_eq!(seal(1).open("k", bad), Err(BadSeal::Unsealed("k".to_owned())));
        }
    }

    /// Computed by Python's `hmac`, so that programs in other languages can follow the description.
    #[test]
    fn sealed_values_and_names_are_those_of_the_description() {
        let digest = seal(1).digest(&TokenDigest::of(b"canary"));
        assert_eq!(digest.to_hex(), DIGEST);
        assert_eq!(seal(1).digest(&digest), digest);
        assert_eq!(
            seal(1).seal("authgate:user:1", br#"{"id":"1","active":true}"#),
            VALUE.as_bytes()
        );
        assert_eq!(seal(1).id(), SealId::parse(ID).expect("an id"));
        assert_ne!(seal(1).id(), seal(2).id());
    }

    const DIGEST: &str = "530b095115c377dec0889b3b4366158680a291ba6aebd4c91723bae4df504f8d";
    const VALUE: &str = r#"s1.E9wAfWWpI_o9tqWCe1Vxjl69SZWjD2Po-D8GoNH4WaM.{"id":"1","active":true}"#;
    const ID: &str = "93257d7dada56201";

    #[test]
    fn a_key_has_32_bytes_and_is_not_shown() {
        for length in [0, 31, 33, 64] {
            assert_eq!(Seal::new(&Secret::new(vec![1; length])), Err(InvalidSeal(length)));
        }
        assert_eq!(format!("{:?}", seal(1)), "Seal(…)");
    }
}
