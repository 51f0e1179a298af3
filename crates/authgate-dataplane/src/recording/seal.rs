//! [`Seal`]: encrypts what a recording has of credentials.
//!
//! A sealed value is `sealed:v1:` and base64url without padding of: 12 bytes of nonce, then the ciphertext with the tag of AES-256-GCM-SIV
//! (RFC 8452). The nonce is random, which this cipher allows for any realistic number of values. The associated data is
//! `authgate recording v1`, NUL, and the name of the field in lower case (`body` with a leading NUL for the body), so that a value cannot be
//! moved to another field. The key is a file of 32 random bytes.

use std::fmt;

use authgate_core::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The beginning of every sealed value.
const PREFIX: &str = "sealed:v1:";
/// The name that the body is sealed under. No field has this name.
pub const BODY: &str = "\0body";
/// The length of a key.
pub const KEY_BYTES: usize = 32;

/// The key of a seal: [`KEY_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealKey(Secret<Vec<u8>>);

/// The bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has {KEY_BYTES} bytes, and this has {0}")]
pub struct InvalidKey(pub usize);

/// A sealed value cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key, or was changed")]
pub struct WrongSeal;

impl SealKey {
    /// Takes the bytes of a key.
    ///
    /// # Errors
    /// There are not [`KEY_BYTES`].
    pub fn new(bytes: Secret<Vec<u8>>) -> Result<Self, InvalidKey> {
        match bytes.expose().len() {
            KEY_BYTES => Ok(Self(bytes)),
            length => Err(InvalidKey(length)),
        }
    }
}

/// Seals and opens values with one key.
pub struct Seal(RandomizedNonceKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// A seal with this key.
    pub fn new(key: &SealKey) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, key.0.expose());
        Self(key.expect("a SealKey has the length of the cipher"))
    }

    /// Whether a text is a sealed value.
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Seals a value of a field.
    pub fn seal(&self, field: &str, plain: &[u8]) -> String {
        let mut bytes = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(associated(field), &mut bytes);
        let nonce = nonce.expect("the system gives random bytes, and the value is short");
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(&bytes);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens a sealed value of a field.
    ///
    /// # Errors
    /// It was sealed with another key or for another field, or was changed.
    pub fn open(&self, field: &str, sealed: &str) -> Result<Vec<u8>, WrongSeal> {
        let text = sealed.strip_prefix(PREFIX).ok_or(WrongSeal)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| WrongSeal)?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(WrongSeal)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrongSeal)?;
        let plain = self
            .0
            .open_in_place(nonce, associated(field), sealed)
            .map_err(|_| WrongSeal)?;
        Ok(plain.to_vec())
    }
}

fn associated(field: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("authgate recording v1\0{}", field.to_ascii_lowercase()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(byte: u8) -> Seal {
        Seal::new(&SealKey::new(Secret::new(vec![byte; KEY_BYTES])).expect("32 bytes"))
    }

    #[test]
    fn a_sealed_value_opens_with_its_key_and_for_its_field_only() {
        let sealed = seal(1).seal("authorization", b"Token canary");
        assert!(Seal::is_sealed(&sealed) && !sealed.contains("canary"));
        assert_eq!(
            seal(1).open("Authorization", &sealed).expect("its key"),
            b"Token canary"
        );
        assert_ne!(
            seal(1).seal("authorization", b"Token canary"),
            sealed,
            "equal values are not recognizable"
        );
        for (seal, field, text) in [
            (seal(2), "authorization", sealed.as_str()),
            (seal(1), "cookie", &sealed),
            (seal(1), "authorization", &sealed[..sealed.len() - 1]),
            (seal(1), "authorization", "sealed:v1:AAAA"),
            (seal(1), "authorization", "sealed:v1:!"),
            (seal(1), "authorization", "Token canary"),
        ] {
            assert_eq!(seal.open(field, text), Err(WrongSeal), "{text}");
        }
        assert_eq!(SealKey::new(Secret::new(vec![0; 33])), Err(InvalidKey(33)));
    }
}
