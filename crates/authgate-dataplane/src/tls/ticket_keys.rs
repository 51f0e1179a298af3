//! `tickets` of `[server.tls]`: keys of session tickets from a file, which several gateways share. The first key encrypts, all decrypt.
//!
//! Each line is a key as nginx and OpenSSL use it, in base64: 16 bytes of name, 32 for HMAC-SHA-256 and 32 for AES-256. Tickets have the
//! form that RFC 5077, section 4, recommends: name, IV, ciphertext (AES-256-CBC), MAC. rustls makes the same from keys of its own, but
//! takes none from a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authgate_core::secret::Secret;
use aws_lc_rs::cipher::{
    AES_256, AES_CBC_IV_LEN, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{digest, hmac, iv};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::server::ProducesTickets;

use crate::file;

/// How to make a file of keys.
pub const TICKETS_HELP: &str = "write one key a line, the newest first; `openssl rand -base64 80` makes one";

const NAME_LEN: usize = 16;
const HMAC_KEY_LEN: usize = 32;
/// The length of a key.
const KEY_LEN: usize = NAME_LEN + HMAC_KEY_LEN + 32;
const MAC_LEN: usize = 32;
/// `openssl rand -base64` begins a new line after this many characters.
const OPENSSL_LINE: usize = 64;
/// The lifetime of a ticket in seconds: the same as with the keys that rustls makes.
const LIFETIME: u32 = 12 * 60 * 60;

/// Why a file of ticket keys cannot be used. It does not repeat the content of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {problem}", file.display(), line.map_or(String::new(), |line| format!(", line {line}")))]
pub struct TicketKeysError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; `None`: the whole file.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

/// The keys of a file.
#[derive(Clone)]
pub struct TicketKeys {
    file: PathBuf,
    /// SHA-256 of the content of the file.
    digest: [u8; 32],
    // At least one.
    keys: Arc<[TicketKey]>,
}

impl PartialEq for TicketKeys {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.digest == other.digest
    }
}

impl Eq for TicketKeys {}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Loads the keys of a file. Empty lines are ignored.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or has a line that is not a key.
    pub fn load(file: &Path) -> Result<Self, TicketKeysError> {
        let error = |line, problem: String| TicketKeysError {
            file: file.to_owned(),
            line,
            problem,
        };
        let bytes = file::read(file).map_err(|problem| error(None, format!("cannot be read: {problem}")))?;
        let text = Secret::new(bytes);
        let keys = parse(text.expose()).map_err(|(line, problem)| error(Some(line), problem))?;
        if keys.is_empty() {
            return Err(error(None, "it has no key".to_owned()));
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, text.expose()).as_ref());
        Ok(Self {
            file: file.to_owned(),
            digest,
            keys: keys.into(),
        })
    }

    /// The path of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk()?;
        self.keys.iter().find(|key| key.name == *name)?.decrypt(rest)
    }
}

/// One key. It implements no `Debug`.
struct TicketKey {
    name: [u8; NAME_LEN],
    hmac: hmac::Key,
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
}

impl TicketKey {
    fn new(bytes: &[u8; KEY_LEN]) -> Result<Self, Unspecified> {
        let (name, keys) = bytes.split_first_chunk().ok_or(Unspecified)?;
        let (hmac, aes) = keys.split_at(HMAC_KEY_LEN);
        Ok(Self {
            name: *name,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, hmac),
            encrypting: PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, aes)?)?,
            decrypting: PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, aes)?)?,
        })
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ciphertext = plain.to_vec();
        let context = self.encrypting.encrypt(&mut ciphertext).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mac = hmac::sign(&self.hmac, &self.authenticated(iv, &ciphertext)?);
        Some([&self.name, iv, &ciphertext, mac.as_ref()].concat())
    }

    /// `rest` is the ticket after its name.
    fn decrypt(&self, rest: &[u8]) -> Option<Vec<u8>> {
        let (iv, rest) = rest.split_first_chunk::<AES_CBC_IV_LEN>()?;
        let (ciphertext, mac) = rest.split_last_chunk::<MAC_LEN>()?;
        hmac::verify(&self.hmac, &self.authenticated(iv, ciphertext)?, mac).ok()?;
        let context = DecryptionContext::Iv128(iv::FixedLength::from(iv));
        let mut plain = ciphertext.to_vec();
        let length = self.decrypting.decrypt(&mut plain, context).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// What the MAC covers (RFC 5077, section 4).
    fn authenticated(&self, iv: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        let length = u16::try_from(ciphertext.len()).ok()?;
        Some([&self.name, iv, &length.to_be_bytes(), ciphertext].concat())
    }
}

/// The keys in a text, or the line that is not a key and why.
fn parse(text: &[u8]) -> Result<Vec<TicketKey>, (usize, String)> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..);
    let mut keys: Vec<(TicketKey, usize)> = Vec::new();
    while let Some((line, number)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let mut encoded = Secret::new(line.to_vec());
        if line.len() == OPENSSL_LINE {
            let (rest, _) = lines.next().unwrap_or_default();
            encoded = Secret::new([line, rest].concat());
        }
        let bytes = STANDARD
            .decode(encoded.expose())
            .map(Secret::new)
            .map_err(|_| (number, "it is not base64".to_owned()))?;
        let length = bytes.expose().len();
        let Ok(bytes) = bytes.expose().as_slice().try_into().map(Secret::<[u8; KEY_LEN]>::new) else {
            return Err((number, format!("the key has {length} bytes instead of {KEY_LEN}")));
        };
        let key = TicketKey::new(bytes.expose()).map_err(|_| (number, "the key cannot be used".to_owned()))?;
        if let Some((_, first)) = keys.iter().find(|(other, _)| other.name == key.name) {
            let problem =
                format!("the first {NAME_LEN} bytes, the name of the key, are those of the key in line {first}");
            return Err((number, problem));
        }
        keys.push((key, number));
    }
    Ok(keys.into_iter().map(|(key, _)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(fill: u8) -> String {
        STANDARD.encode([fill; KEY_LEN])
    }

    fn keys(text: &str) -> TicketKeys {
        let keys = parse(text.as_bytes()).expect("keys");
        TicketKeys {
            file: PathBuf::new(),
            digest: [0; 32],
            keys: keys.into(),
        }
    }

    #[test]
    fn the_first_key_encrypts_and_all_decrypt() {
        let old = keys(&base64(1));
        let rotated = keys(&format!("{}\n\n{}\r\n", base64(2), base64(1)));
        let ticket = old.encrypt(b"state").expect("a ticket");
        assert_eq!(rotated.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        let ticket = rotated.encrypt(b"state").expect("a ticket");
        assert_eq!(old.decrypt(&ticket), None);
        assert_eq!(keys(&base64(2)).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
    }

    #[test]
    fn a_ticket_that_was_changed_is_not_accepted() {
        let keys = keys(&base64(1));
        let ticket = keys.encrypt(b"state").expect("a ticket");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "byte {at}");
            assert_eq!(keys.decrypt(&ticket[..at]), None, "cut after {at}");
        }
    }

    #[test]
    fn a_key_may_be_wrapped_as_openssl_does() {
        let (first, second) = (base64(1), base64(2));
        let text = format!("{}\n{}\n{second}\n", &first[..64], &first[64..]);
        assert_eq!(keys(&text).keys.len(), 2);
    }

    #[test]
    fn a_line_that_is_not_a_key_is_named() {
        let short = STANDARD.encode([1; 48]);
        let good = base64(1);
        for (text, line, problem) in [
            ("canary!".to_owned(), 1, "not base64"),
            (format!("{good}\n\n{short}"), 3, "48 bytes instead of 80"),
            (format!("{good}\n{good}"), 2, "those of the key in line 1"),
        ] {
            let (at, why) = parse(text.as_bytes()).err().expect("no keys");
            assert!(at == line && why.contains(problem), "{at} {why}");
        }
    }
}
