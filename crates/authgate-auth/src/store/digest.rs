//! Digests of the keys of opaque tokens: the names under which stores hold the tokens.

use aws_lc_rs::digest::{self, Algorithm};

/// How the digest of a key is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestKind {
    /// SHA-256 of the key as it is presented.
    Sha256,
    /// SHA-512 of the key as it is presented, as django-rest-knox 5 does.
    Sha512,
    /// SHA-512 of the bytes that the key encodes in hexadecimal, as django-rest-knox 4.2 does.
    Sha512HexKey,
}

impl DigestKind {
    /// All kinds, with their names in the configuration.
    pub const NAMED: [(&'static str, Self); 3] = [
        ("sha256", Self::Sha256),
        ("sha512", Self::Sha512),
        ("sha512-hexkey", Self::Sha512HexKey),
    ];

    /// Computes the digest of a key; `None`: the key is not valid hexadecimal, where that is needed.
    pub fn of(self, key: &[u8]) -> Option<TokenDigest> {
        Some(match self {
            Self::Sha256 => TokenDigest::Sha256(hash(&digest::SHA256, key)),
            Self::Sha512 => TokenDigest::Sha512(hash(&digest::SHA512, key)),
            // Knox also accepts upper-case digits after the first eight characters, but makes keys with lower-case digits only.
            Self::Sha512HexKey => TokenDigest::Sha512(hash(&digest::SHA512, &from_hex(key)?)),
        })
    }
}

/// The kinds of digests that a store's tokens may be stored under: one to three, without duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    first: DigestKind,
    others: [Option<DigestKind>; Self::MOST - 1],
}

impl Digests {
    /// SHA-256 alone.
    pub const SHA256: Self = Self {
        first: DigestKind::Sha256,
        others: [None; Self::MOST - 1],
    };
    /// The number of kinds.
    pub const MOST: usize = DigestKind::NAMED.len();

    /// One kind alone.
    pub const fn of_kind(first: DigestKind) -> Self {
        Self {
            first,
            others: [None; Self::MOST - 1],
        }
    }

    /// `None`: the list is empty or has a duplicate.
    pub fn new(kinds: &[DigestKind]) -> Option<Self> {
        let (first, rest) = kinds.split_first()?;
        let twice = (1..kinds.len()).any(|at| kinds[..at].contains(&kinds[at]));
        if twice {
            return None;
        }
        let mut others = [None; Self::MOST - 1];
        for (slot, kind) in others.iter_mut().zip(rest) {
            *slot = Some(*kind);
        }
        Some(Self { first: *first, others })
    }

    /// How many kinds there are.
    pub fn count(self) -> usize {
        1 + self.others.iter().flatten().count()
    }

    /// The kind for new tokens.
    pub fn first(self) -> DigestKind {
        self.first
    }

    /// Whether tokens may be stored under this kind.
    pub fn contains(self, kind: DigestKind) -> bool {
        self.first == kind || self.others.contains(&Some(kind))
    }

    /// Whether all kinds of `other` are among these.
    pub fn include(self, other: Self) -> bool {
        let mut kinds = [Some(other.first)].into_iter().chain(other.others).flatten();
        kinds.all(|kind| self.contains(kind))
    }

    /// The digests of a key, in order.
    pub fn of(self, key: &[u8]) -> [Option<TokenDigest>; Self::MOST] {
        let [second, third] = self.others;
        [Some(self.first), second, third].map(|kind| kind?.of(key))
    }
}

/// Before the digits of a sealed digest in an export.
const SEALED: &str = "hmac-sha256:";

/// The name under which an opaque token is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenDigest {
    /// 32 bytes.
    Sha256([u8; 32]),
    /// 64 bytes.
    Sha512([u8; 64]),
    /// HMAC-SHA-256 of another digest, with the seal of a store.
    Sealed([u8; 32]),
}

impl TokenDigest {
    /// SHA-256 of a key as it was presented.
    pub fn of(key: &[u8]) -> Self {
        Self::Sha256(hash(&digest::SHA256, key))
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
            Self::Sealed(bytes) => bytes,
        }
    }

    /// The usual name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
            Self::Sealed(_) => "hmac-sha256",
        }
    }

    /// Its form in a store: 64 or 128 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.as_bytes())
    }

    /// Parses the form that [`TokenDigest::to_hex`] writes of a digest that is not sealed.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = from_hex(text.as_bytes())?;
        let sha256 = bytes.as_slice().try_into().map(Self::Sha256);
        sha256.or_else(|_| bytes.as_slice().try_into().map(Self::Sha512)).ok()
    }

    /// Its form in exports: as in a store, but after `hmac-sha256:` if it is sealed.
    pub fn to_name(self) -> String {
        match self {
            Self::Sha256(_) | Self::Sha512(_) => self.to_hex(),
            Self::Sealed(_) => format!("{SEALED}{}", self.to_hex()),
        }
    }

    /// Parses the form that [`TokenDigest::to_name`] writes.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_prefix(SEALED) {
            Some(hex) => Self::from_sealed_hex(hex),
            None => Self::from_hex(name),
        }
    }

    /// Parses the form that [`TokenDigest::to_hex`] writes of a sealed digest.
    pub fn from_sealed_hex(text: &str) -> Option<Self> {
        let bytes = from_hex(text.as_bytes())?;
        bytes.as_slice().try_into().map(Self::Sealed).ok()
    }
}

fn hash<const N: usize>(algorithm: &'static Algorithm, bytes: &[u8]) -> [u8; N] {
    let mut hashed = [0; N];
    hashed.copy_from_slice(digest::digest(algorithm, bytes).as_ref());
    hashed
}

/// Decodes lower-case hexadecimal digits. Upper-case digits are refused: a digest has one form.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    hex::decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_lower_case_hexadecimal() {
        let hex = TokenDigest::of(b"x").to_hex();
        assert_eq!(hex, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        for digest in [DigestKind::Sha256, DigestKind::Sha512].map(|kind| kind.of(b"x").expect("any key has one")) {
            let hex = digest.to_hex();
            assert_eq!(TokenDigest::from_hex(&hex), Some(digest));
            for bad in ["", "2d", &hex.to_uppercase(), &hex[1..], &format!("{hex}00")] {
                assert_eq!(TokenDigest::from_hex(bad), None, "{bad}");
            }
        }
    }

    /// Made by `knox.crypto.hash_token` of the releases 4.2.0 and 5.0.2.
    #[test]
    fn knox_keys_have_the_digests_that_knox_stores() {
        let key = b"9f4d0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7";
        let digest = |kind: DigestKind, key: &[u8]| kind.of(key).map(TokenDigest::to_hex);
        assert_eq!(digest(DigestKind::Sha512HexKey, key).as_deref(), Some(KNOX_4));
        assert_eq!(digest(DigestKind::Sha512, key).as_deref(), Some(KNOX_5));
        for odd in [&b"abc"[..], b"xy", b"AB", b"\xff\xff"] {
            assert_eq!(digest(DigestKind::Sha512HexKey, odd), None);
        }
    }

    const KNOX_4: &str = "011d9876cd9a76ff74d48bad91404d9ce77c90597e8a51f75d71a21417a9186b9301eda4eea73a3335d92e7d04f893146cdd1b7182eb1c08a0c3256afcb8d4af";
    const KNOX_5: &str = "40606c195a08163f240d1e48e33e3c3e82d062a542d38595360fc1d8e7213d95ee41ddbe4fd0b96baaca5e86f4f320db8f38bd88accfe312e7ecbe98787e93ec";

    #[test]
    fn each_kind_of_digest_is_listed_once() {
        use DigestKind::{Sha256, Sha512, Sha512HexKey};
        assert!(Digests::new(&[]).is_none() && Digests::new(&[Sha512, Sha256, Sha512]).is_none());
        let all = Digests::new(&[Sha512HexKey, Sha512, Sha256]).expect("one of each");
        assert!(all.first() == Sha512HexKey && all.contains(Sha256));
        let found = all.of(b"ab").map(|digest| digest.map(|digest| digest.algorithm()));
        assert_eq!(found, [Some("sha512"), Some("sha512"), Some("sha256")]);
        assert_eq!(all.of(b"x").iter().flatten().count(), 2, "x spells no bytes");
    }
}
