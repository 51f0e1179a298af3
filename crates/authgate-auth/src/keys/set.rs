//! A JWK Set (RFC 7517, section 5). Each key is parsed separately: an unusable key does not affect the others.

use std::fmt;

use authgate_core::printable::without_values;
use serde::Deserialize;

use super::jwk::{Jwk, brief};
use super::{Algorithm, KeyError, Material, VerificationKey};

/// The most keys of a published set that are used. The largest known sets have about twenty.
const MAX_PUBLISHED_KEYS: usize = 256;

/// The most keys of a published set that have one `kid` and one algorithm. Each of them may be tried for a token.
const MAX_SAME: usize = 4;
/// The longest `kid` of a published key: the ids of a store have at most so many bytes, and a key is revoked by its id.
const MAX_KID: usize = 255;
/// The most reasons in one message.
const MAX_REASONS: usize = 20;

/// Who can read a set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Those who can read a file.
    OfFile,
    /// Everyone: it is published at a URL.
    Everyone,
}

/// The result of parsing a set.
#[derive(Debug, Default)]
pub struct JwkSet {
    /// The usable keys, each once per algorithm.
    pub keys: Vec<VerificationKey>,
    /// Keys that appear to be for this gateway but are unusable; each is reported to the operator.
    pub invalid: Vec<SkippedKey>,
    /// Keys for another purpose: encryption, signing, other algorithms. These are not errors.
    pub irrelevant: Vec<SkippedKey>,
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    at: usize,
    kid: Option<String>,
    why: String,
}

impl SkippedKey {
    /// Whether the same key is left out for the same reason. Its position in the set makes no difference.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid && self.why == other.why
    }
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys[{}]", self.at)?;
        if let Some(kid) = &self.kid {
            write!(f, " (kid {})", brief(kid))?;
        }
        write!(f, ": {}", self.why)
    }
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<serde_json::Value>,
}

/// Why a key is not used.
enum Unused {
    Fault(String),
    OtherPurpose(String),
}

impl From<KeyError> for Unused {
    fn from(error: KeyError) -> Self {
        Self::Fault(error.to_string())
    }
}

fn fault<T>(why: &str) -> Result<T, Unused> {
    Err(Unused::Fault(why.to_owned()))
}

impl JwkSet {
    /// Parses a set for these algorithms.
    ///
    /// # Errors
    /// The text is not a JWK Set.
    pub fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        Self::parse_for(text, algorithms, Readers::OfFile)
    }

    /// Parses a set that an identity provider publishes. It has no secrets, and each key has a `kid`, by which tokens select it.
    ///
    /// # Errors
    /// The text is not a JWK Set.
    pub fn parse_published(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        Self::parse_for(text, algorithms, Readers::Everyone)
    }

    fn parse_for(text: &[u8], algorithms: &[Algorithm], readers: Readers) -> Result<Self, KeyError> {
        let mut written: Written = serde_json::from_slice(text)
            .map_err(|error| KeyError(format!("not a JWK Set: {}", without_values(&error.to_string()))))?;
        let beyond = match readers {
            Readers::OfFile => 0,
            Readers::Everyone => written.keys.len().saturating_sub(MAX_PUBLISHED_KEYS),
        };
        written.keys.truncate(written.keys.len() - beyond);
        let mut set = Self::default();
        let mut secrets = Vec::new();
        for (at, value) in written.keys.iter().enumerate() {
            let kid = value["kid"].as_str().map(|kid| kid.chars().take(MAX_KID).collect());
            let not_used = |why| SkippedKey { at, kid, why };
            match Jwk::deserialize(value)
                .map_err(|error| Unused::Fault(format!("not a JWK: {}", without_values(&error.to_string()))))
                .and_then(|jwk| match readers {
                    Readers::OfFile => bind(&jwk, algorithms),
                    Readers::Everyone => bind_published(&jwk, algorithms, &set.keys),
                }) {
                Ok(keys) if keys.iter().any(|key| key.algorithm.is_hmac()) => {
                    let why = "a shared secret among public keys: anyone who can read the set could sign tokens";
                    secrets.push((keys, not_used(why.to_owned())));
                }
                Ok(keys) => set.keys.extend(keys),
                Err(Unused::Fault(why)) => set.invalid.push(not_used(why)),
                Err(Unused::OtherPurpose(why)) => set.irrelevant.push(not_used(why)),
            }
        }
        // A set of secrets only is a private file of two programs. A set with public keys may be published.
        let is_published = !set.keys.is_empty();
        for (keys, invalid) in secrets {
            if is_published {
                set.invalid.push(invalid);
            } else {
                set.keys.extend(keys);
            }
        }
        set.invalid.sort_by_key(|key| key.at);
        if beyond > 0 {
            let why = format!("{beyond} keys are not read: a published set may have {MAX_PUBLISHED_KEYS}");
            let (at, kid) = (MAX_PUBLISHED_KEYS, None);
            set.invalid.push(SkippedKey { at, kid, why });
        }
        Ok(set)
    }

    /// The keys that are not used, in the order of the set.
    pub fn skipped(&self) -> Vec<SkippedKey> {
        let mut all: Vec<SkippedKey> = self.invalid.iter().chain(&self.irrelevant).cloned().collect();
        all.sort_by_key(|key| key.at);
        all
    }

    /// Explains for each key why the set has no usable key.
    pub fn explain_empty(&self) -> String {
        let all = self.skipped();
        if all.is_empty() {
            return "the set is empty".to_owned();
        }
        let reasons: Vec<String> = all.iter().take(MAX_REASONS).map(ToString::to_string).collect();
        let more = match all.len() - reasons.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("it has no usable key: {}{more}", reasons.join("; "))
    }
}

/// Binds a key of a published set, behind `others`. What must not be published is reported, whatever its purpose.
fn bind_published(
    jwk: &Jwk,
    algorithms: &[Algorithm],
    others: &[VerificationKey],
) -> Result<Vec<VerificationKey>, Unused> {
    if jwk.is_secret() {
        return fault("a shared secret among published keys: anyone who can read the set could sign tokens");
    }
    if jwk.is_private() {
        return fault("a published private key: anyone who can read the set can sign tokens; tell the provider");
    }
    let keys = bind(jwk, algorithms)?;
    match jwk.kid.as_deref() {
        None => return fault("it has no `kid`, by which tokens select their key"),
        Some(kid) if kid.len() > MAX_KID => return fault("its `kid` is longer than 255 bytes"),
        Some(_) => {}
    }
    let is_same = |one: &VerificationKey, other: &VerificationKey| {
        one.kid() == other.kid() && one.algorithm() == other.algorithm()
    };
    let same = |key: &VerificationKey| others.iter().filter(|other| is_same(key, other)).count();
    match keys.iter().map(same).max() {
        Some(MAX_SAME..) => Err(Unused::Fault(format!(
            "{MAX_SAME} keys before it have the same `kid` and algorithm"
        ))),
        Some(_) | None => Ok(keys),
    }
}

/// Binds one key to each of `algorithms` that suits it.
fn bind(jwk: &Jwk, algorithms: &[Algorithm]) -> Result<Vec<VerificationKey>, Unused> {
    if let Some(purpose) = jwk.other_purpose() {
        return Err(Unused::OtherPurpose(purpose));
    }
    let is_wanted = |algorithm: &Algorithm| jwk.alg.as_deref().is_none_or(|alg| alg == algorithm.name());
    let wanted: Vec<Algorithm> = algorithms.iter().copied().filter(is_wanted).collect();
    if let (Some(alg), true) = (&jwk.alg, wanted.is_empty()) {
        return Err(Unused::OtherPurpose(format!(
            "for {}, which is not among `algorithms`",
            brief(alg)
        )));
    }
    let material = jwk.material()?;
    if jwk.is_private() && !matches!(material, Material::Oct(_)) {
        return fault("a private key, which a gateway must not have; write its public members only");
    }
    let mut suited: Vec<Algorithm> = wanted
        .into_iter()
        .filter(|algorithm| material.suits(*algorithm))
        .collect();
    if suited.is_empty() {
        let why = format!("{}, which suits none of `algorithms`", material.kind());
        return Err(match material {
            Material::Oct(_) => Unused::Fault(why),
            Material::Rsa { .. } | Material::Ec { .. } | Material::Ed25519 { .. } => Unused::OtherPurpose(why),
        });
    }
    if let Material::Oct(secret) = &material {
        let bytes = secret.expose().len();
        suited.retain(|algorithm| algorithm.hash_bytes().is_none_or(|least| bytes >= least));
        if suited.is_empty() {
            return Err(Unused::Fault(format!(
                "the secret has {bytes} bytes, which is too short for its algorithm (RFC 7518, section 3.2)"
            )));
        }
    }
    suited
        .into_iter()
        .map(|algorithm| Ok(material.clone().into_key(algorithm, jwk.kid.as_deref())?))
        .collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const RSA: &str = r#""kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB""#;
    const ED25519: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

    fn parse(keys: &[&str]) -> JwkSet {
        let keys: Vec<String> = keys.iter().map(|key| format!("{{{key}}}")).collect();
        let set = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        JwkSet::parse(set.as_bytes(), &Algorithm::ALL).expect("a set")
    }

    /// RFC 7638, section 3.1, and RFC 8037, appendix A.3, with their thumbprints.
    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let keys = parse(&[&format!(r#"{RSA},"alg":"RS256""#), ED25519]).keys;
        let ids: Vec<&str> = keys.iter().map(VerificationKey::id).collect();
        assert_eq!(
            ids,
            [
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
            ]
        );
    }

    #[test]
    fn a_key_for_another_purpose_is_skipped_without_a_report() {
        for (members, expected) in [
            (r#""use":"sig""#, 1),
            (r#""use":"enc""#, 0),
            (r#""key_ops":["verify"]"#, 1),
            (r#""key_ops":["sign"]"#, 0),
            (r#""alg":"EdDSA""#, 1),
            (r#""alg":"ES256""#, 0),
            (r#""alg":"RSA-OAEP""#, 0),
        ] {
            let set = parse(&[&format!("{ED25519},{members}")]);
            let unused = (set.invalid.len(), set.irrelevant.len());
            assert_eq!((set.keys.len(), unused), (expected, (0, 1 - expected)), "{members}");
        }
        let rsa_alone = format!(r#"{{"keys":[{{{RSA}}},{{{ED25519}}}]}}"#);
        let set = JwkSet::parse(rsa_alone.as_bytes(), &[Algorithm::EdDSA]).expect("a set");
        assert_eq!((set.keys.len(), set.invalid.len(), set.irrelevant.len()), (1, 0, 1));
    }

    #[test]
    fn an_invalid_key_is_reported_and_the_others_are_used() {
        let plain_base64 = RSA.replace("So", "+/").replace("_BJ", "/BJ");
        for (bad, words) in [
            (r#""kty":"RSA","e":"AQAB""#, "keys[0]: member `n` is missing"),
            (plain_base64.as_str(), "keys[0]: member `n` is not base64url"),
            (
                r#""kty":"RSA","kid":"old","n":"AQAB","e":"AQAB""#,
                "keys[0] (kid \"old\"): the RSA key has 17 bits",
            ),
            (r#""kty":"later""#, "keys[0]: its type \"later\" is not RSA"),
            (
                r#""kty":"EC","crv":"secp256k1","x":"AA","y":"AA""#,
                "keys[0]: its curve \"secp256k1\"",
            ),
            (
                r#""kty":"OKP","crv":"X25519","x":"AA""#,
                "keys[0]: its curve \"X25519\"",
            ),
            (r#""kty":"EC""#, "keys[0]: member `crv` is missing"),
            (
                r#""kty":"EC","crv":"P-256","x":"AA","y":"AA""#,
                "member `x` must have 32 bytes",
            ),
            (
                r#""kty":"OKP","crv":"Ed25519","x":"AA""#,
                "member `x` must have 32 bytes",
            ),
            (r#""kid":"x""#, "keys[0] (kid \"x\"): not a JWK: missing field `kty`"),
            (
                r#""kty":"RSA","n":5,"e":"AQAB""#,
                "not a JWK: invalid type: integer, expected a string",
            ),
            (r#""kty":"oct","alg":"HS256","k":"c2VjcmV0""#, "the secret has 6 bytes"),
            (r#""kty":"oct","k":"""#, "too short for its algorithm"),
        ] {
            let set = parse(&[bad, ED25519]);
            assert_eq!(set.keys.len(), 1, "{bad}");
            let [invalid] = set.invalid.as_slice() else {
                panic!("{bad}: {:?}", set.invalid)
            };
            assert!(invalid.to_string().contains(words), "{bad}: {invalid}");
            let alone = parse(&[bad]);
            assert!(
                alone.keys.is_empty() && alone.explain_empty().contains(words),
                "{}",
                alone.explain_empty()
            );
        }
        let private = format!(r#"{ED25519},"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#);
        let set = parse(&[&private, RSA]);
        assert!(set.keys.iter().all(|key| key.algorithm() != Algorithm::EdDSA));
        assert!(
            set.invalid[0].to_string().contains("a private key"),
            "{:?}",
            set.invalid
        );
        assert!(JwkSet::parse(b"[]", &Algorithm::ALL).is_err());
        let error = JwkSet::parse(b"\"canary\"", &Algorithm::ALL).expect_err("no set");
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn a_published_set_has_neither_secrets_nor_private_keys_and_each_key_a_kid() {
        let parse = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| format!("{{{key}}}")).collect();
            let set = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
            JwkSet::parse_published(set.as_bytes(), &[Algorithm::RS256, Algorithm::EdDSA]).expect("a set")
        };
        let good = format!(r#"{ED25519},"kid":"good""#);
        for (bad, words) in [
            (
                format!(r#""kty":"oct","kid":"x","k":"{SECRET}""#),
                "a shared secret among published keys",
            ),
            (
                format!(r#""kty":"oct","kid":"x","alg":"HS256","k":"{SECRET}""#),
                "a shared secret among published keys",
            ),
            (
                format!(r#""kty":"oct","use":"enc","k":"{SECRET}""#),
                "a shared secret among published keys",
            ),
            (format!(r#"{ED25519},"kid":"x","d":"AA""#), "a published private key"),
            (
                format!(r#"{ED25519},"kid":"x","use":"enc","d":"AA""#),
                "a published private key",
            ),
            (
                format!(r#"{RSA},"kid":"x","alg":"RS512","d":"AA""#),
                "a published private key",
            ),
            (ED25519.to_owned(), "it has no `kid`"),
            (format!(r#"{ED25519},"kid":"x","use":"enc""#), "for \"enc\" (`use`)"),
            (
                format!(r#"{ED25519},"kid":"x","key_ops":["sign"]"#),
                "not for verifying",
            ),
            (format!(r#"{RSA},"kid":"x","alg":"RS512""#), "not among `algorithms`"),
            (
                r#""kty":"RSA","kid":"x","n":"AQAB","e":"AQAB""#.to_owned(),
                "the RSA key has 17 bits",
            ),
            (r#""kty":"later","kid":"x""#.to_owned(), "its type \"later\""),
            ("\"kid\":5".to_owned(), "not a JWK"),
        ] {
            for keys in [[bad.as_str(), &good], [&good, bad.as_str()]] {
                let set = parse(&keys);
                assert_eq!(set.keys.len(), 1, "{bad}");
                assert_eq!(set.keys[0].kid(), Some("good"), "{bad}");
                let skipped: Vec<String> = set.skipped().iter().map(ToString::to_string).collect();
                assert!(skipped.len() == 1 && skipped[0].contains(words), "{bad}: {skipped:?}");
            }
            assert!(parse(&[&bad]).keys.is_empty(), "{bad}");
        }
        // One `kid` may have several keys.
        let twice = parse(&[&good, &format!(r#"{RSA},"kid":"good""#)]);
        assert_eq!(twice.keys.len(), 2);
        let many: Vec<String> = (0..300).map(|at| format!(r#"{ED25519},"kid":"{at}""#)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let set = parse(&many);
        assert_eq!((set.keys.len(), set.skipped().len()), (256, 1));
        assert!(set.skipped()[0].to_string().contains("44 keys are not read"));
        // A set cannot make a request try more than a few keys, or fill the log.
        let other = |at: u8| {
            let x = URL_SAFE_NO_PAD.encode([at; 32]);
            format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}","kid":"same""#)
        };
        let same: Vec<String> = (1..=9).map(other).collect();
        let set = parse(&same.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((set.keys.len(), set.skipped().len()), (MAX_SAME, 5));
        let useless = parse(&[""; 10_000]);
        assert_eq!((useless.keys.len(), useless.skipped().len()), (0, 257));
        let explained = useless.explain_empty();
        assert!(
            explained.contains("and 237 more") && explained.len() < 4000,
            "{explained}"
        );
        let long = format!(r#"{ED25519},"kid":"{}""#, "x".repeat(256));
        let skipped = parse(&[&long]).skipped();
        assert!(skipped[0].to_string().contains("longer than 255 bytes"), "{skipped:?}");
    }

    #[test]
    fn a_shared_secret_is_used_only_where_no_key_is_public() {
        let oct = format!(r#""kty":"oct","k":"{SECRET}""#);
        assert_eq!(parse(&[&oct]).keys.len(), 3);
        for keys in [[oct.as_str(), ED25519], [ED25519, oct.as_str()]] {
            let set = parse(&keys);
            assert_eq!(set.keys.len(), 1);
            assert!(set.invalid[0].to_string().contains("a shared secret among public keys"));
        }
        let set = JwkSet::parse(format!(r#"{{"keys":[{{{oct}}}]}}"#).as_bytes(), &[Algorithm::RS256]);
        let set = set.expect("a set");
        assert!(set.keys.is_empty() && set.invalid.len() == 1);
        let pem = URL_SAFE_NO_PAD
            .encode("-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0\n-----END");
        let set = parse(&[&format!(r#""kty":"oct","k":"{pem}""#)]);
        assert!(set.explain_empty().contains("key confusion"), "{}", set.explain_empty());
    }
}
