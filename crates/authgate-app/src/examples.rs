//! The example configuration and its keys, and how to detect them. They are published with the source, so they are not secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use authgate_auth::jwt::keys::{Algorithm, Fingerprint, VerificationKey};
use authgate_auth::jwt::{Issuer, Issuers, KeySet};
use authgate_auth::store::embedded::Records;
use authgate_auth::store::{StoreKind, TokenDigest};
use authgate_core::secret::Secret;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Config;

/// The private half of the ES256 example key.
pub const JWT_ES256_KEY: &[u8] = include_bytes!("../../../certs-example/jwt-es256.key");
/// The private half of the RS256 example key.
pub const JWT_RS256_KEY: &[u8] = include_bytes!("../../../certs-example/jwt-rs256.key");
/// The private half of the EdDSA example key.
pub const JWT_EDDSA_KEY: &[u8] = include_bytes!("../../../certs-example/jwt-eddsa.key");
/// The HS256 example secret.
pub const JWT_HS256_SECRET: &[u8] = include_bytes!("../../../certs-example/jwt-hs256.secret");

const CERTIFICATE: &[u8] = include_bytes!("../../../certs-example/localhost.pem");
const PUBLIC_KEYS: [(Algorithm, &[u8]); 3] = [
    (
        Algorithm::ES256,
        include_bytes!("../../../certs-example/jwt-es256.pub.pem"),
    ),
    (
        Algorithm::RS256,
        include_bytes!("../../../certs-example/jwt-rs256.pub.pem"),
    ),
    (
        Algorithm::EdDSA,
        include_bytes!("../../../certs-example/jwt-eddsa.pub.pem"),
    ),
];

/// The files of the example configuration.
const FILES: [(&str, &[u8]); 9] = [
    ("gateway.toml", include_bytes!("../../../gateway.toml")),
    ("certs-example/ca.pem", include_bytes!("../../../certs-example/ca.pem")),
    ("certs-example/localhost.pem", CERTIFICATE),
    (
        "certs-example/localhost.key",
        include_bytes!("../../../certs-example/localhost.key"),
    ),
    ("certs-example/jwt-es256.pub.pem", PUBLIC_KEYS[0].1),
    ("certs-example/jwt-rs256.pub.pem", PUBLIC_KEYS[1].1),
    ("certs-example/jwt-eddsa.pub.pem", PUBLIC_KEYS[2].1),
    ("certs-example/jwt-hs256.secret", JWT_HS256_SECRET),
    (
        "certs-example/tokens.toml",
        include_bytes!("../../../certs-example/tokens.toml"),
    ),
];

/// Writes the example configuration to a folder, and returns the path of its gateway.toml.
///
/// # Errors
/// A file cannot be written.
pub fn write_to(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir(folder.join("certs-example"))?;
    for (name, content) in FILES {
        fs::write(folder.join(name), content)?;
    }
    Ok(folder.join("gateway.toml"))
}

/// Whether the tokens of the demo are accepted by this configuration.
pub fn accepts_demo_tokens(config: &Config) -> bool {
    used_by(config).iter().any(|used| used.description == DEMO_STORE)
}

/// Users of `certs-example/tokens.toml` and their keys: ada is in the group `staff`, ben is in no group, cleo is disabled.
pub const DEMO_TOKENS: [(&str, &str); 3] = [
    ("ada", "7c0de70a11ada5e1f0e5a9d1c3b2a4958677e0a1"),
    ("ben", "7c0de70b22be2d4c3b2a1908f7e6d5c4b3a29180"),
    ("cleo", "7c0de70c33c1e0d9e8f7a6b5c4d3e2f1a0b9c8d7"),
];

/// A setting that uses a published example key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleUse {
    /// The key path.
    pub key: String,
    /// What the setting uses.
    pub description: &'static str,
    /// The commands that create a private replacement.
    pub commands: &'static str,
}

const DEMO_STORE: &str = "a file with the published demo tokens";
const OWN_CERTIFICATE: &str = "\
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 -subj '/CN=localhost' \\
    -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout tls.key -out tls.pem";
const OWN_EC_PAIR: &str = "\
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out jwt-es256.key
openssl pkey -in jwt-es256.key -pubout -out jwt-es256.pub.pem";
const OWN_RSA_PAIR: &str = "\
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out jwt-rs256.key
openssl pkey -in jwt-rs256.key -pubout -out jwt-rs256.pub.pem";
const OWN_ED25519_PAIR: &str = "\
openssl genpkey -algorithm ED25519 -out jwt-eddsa.key
openssl pkey -in jwt-eddsa.key -pubout -out jwt-eddsa.pub.pem";
const OWN_SECRET: &str = "printf %s \"$(openssl rand -hex 32)\" > jwt.secret";
const OWN_TOKEN: &str = "\
authgate token create --user 1 --username ada   # with your own file under [stores.*]";

/// Finds the example keys that a configuration uses.
pub fn used_by(config: &Config) -> Vec<ExampleUse> {
    let mut uses = Vec::new();
    let certificates = config.tls.iter().flat_map(|tls| tls.certificates.iter()).enumerate();
    let certificates = certificates.map(|(at, own)| (format!("server.tls.certificates[{at}]"), own));
    let admin = config.admin.tls.iter();
    let certificates = certificates.chain(admin.map(|tls| ("admin.tls".to_owned(), &tls.certificate)));
    // Compare public keys: another certificate for the published key is just as unsafe.
    for (key, _) in certificates
        .filter(|(_, own)| public_key(own.leaf()).is_some_and(|key| key == example_digests().certificate_key))
    {
        uses.push(ExampleUse {
            key,
            description: "a certificate whose private key is published in certs-example",
            commands: OWN_CERTIFICATE,
        });
    }
    for (name, authenticator) in &config.authenticators {
        let Some(jwt) = authenticator.kind.as_jwt() else {
            continue;
        };
        for (at, issuer) in jwt.issuers.all().enumerate() {
            let path = match jwt.issuers {
                Issuers::One(_) => format!("authenticators.{name}"),
                Issuers::ByName(_) => format!("authenticators.{name}.issuers[{at}]"),
            };
            uses.extend(keys_used_by(issuer, &path));
        }
    }
    for published in &config.identity_keys {
        if example_digests().keys.contains(&published.key.fingerprint()) {
            let commands = match published.key.algorithm() {
                Algorithm::ES256 => OWN_EC_PAIR,
                Algorithm::EdDSA => OWN_ED25519_PAIR,
                _ => OWN_RSA_PAIR,
            };
            uses.push(ExampleUse {
                key: published.path.clone(),
                description: "a private key that is published in certs-example",
                commands,
            });
        }
    }
    for store in &config.stores {
        let StoreKind::Embedded(settings) = &store.kind else {
            continue;
        };
        let Ok(Some(records)) = Records::load(&settings.file) else {
            continue;
        };
        if example_digests()
            .tokens
            .iter()
            .any(|digest| records.tokens.contains_key(digest))
        {
            uses.push(ExampleUse {
                key: format!("stores.{}.file", store.name),
                description: DEMO_STORE,
                commands: OWN_TOKEN,
            });
        }
    }
    uses
}

/// Finds the example keys of an issuer, whose table has this key path.
fn keys_used_by(issuer: &Issuer, path: &str) -> Vec<ExampleUse> {
    let is_example = |key: &VerificationKey| example_digests().keys.contains(&key.fingerprint());
    let keys = issuer.keys.keys().iter().enumerate();
    keys.filter(|(_, key)| is_example(key))
        .map(|(at, key)| {
            let public = "a public key whose private key is published in certs-example";
            let (description, commands) = match key.algorithm() {
                hmac if hmac.is_hmac() => ("the shared secret published in certs-example", OWN_SECRET),
                Algorithm::ES256 => (public, OWN_EC_PAIR),
                Algorithm::EdDSA => (public, OWN_ED25519_PAIR),
                _ => (public, OWN_RSA_PAIR),
            };
            let key = match &issuer.keys {
                KeySet::Static(_) => format!("{path}.keys[{at}]"),
                KeySet::Jwks(_) | KeySet::Remote(_) => format!("{path}.jwks"),
            };
            ExampleUse {
                key,
                description,
                commands,
            }
        })
        .collect()
}

struct ExampleDigests {
    certificate_key: Vec<u8>,
    keys: Vec<Fingerprint>,
    tokens: Vec<String>,
}

/// Computed from the files themselves, so that it always matches them.
fn example_digests() -> &'static ExampleDigests {
    static EXAMPLES: OnceLock<ExampleDigests> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let leaf = CertificateDer::from_pem_slice(CERTIFICATE).expect("the shipped certificate is PEM");
        let public = PUBLIC_KEYS
            .iter()
            .map(|(algorithm, pem)| VerificationKey::from_pem(*algorithm, None, pem));
        let secret = Secret::new(JWT_HS256_SECRET.to_vec());
        let keys = public.chain([VerificationKey::from_secret(Algorithm::HS256, None, &secret)]);
        ExampleDigests {
            certificate_key: public_key(&leaf).expect("the shipped certificate can be read"),
            keys: keys
                .map(|key| key.expect("the shipped keys can be used").fingerprint())
                .collect(),
            tokens: DEMO_TOKENS
                .iter()
                .map(|(_, key)| TokenDigest::of(key.as_bytes()).to_hex())
                .collect(),
        }
    })
}

/// The SubjectPublicKeyInfo of a certificate.
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = CertificateDer::from(certificate);
    let certificate = webpki::EndEntityCert::try_from(&certificate).ok()?;
    Some(certificate.subject_public_key_info().to_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn the_shipped_configuration_is_valid_and_its_example_keys_are_found() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gateway.toml");
        let loaded = config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.problems().is_empty(), "{:?}", loaded.warnings);
        let keys: Vec<String> = used_by(&loaded.config).into_iter().map(|used| used.key).collect();
        let expected = [
            "server.tls.certificates[0]",
            "authenticators.jwt.keys[0]",
            "authenticators.jwt.keys[1]",
            "authenticators.jwt.keys[2]",
            "authenticators.jwt.keys[3]",
            "stores.file.file",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn every_demo_token_is_in_the_shipped_store() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../certs-example/tokens.toml");
        let records = Records::load(&file).expect("a good file").expect("it is there");
        let mut shipped: Vec<&String> = records.tokens.keys().collect();
        let mut example_digests: Vec<&String> = example_digests().tokens.iter().collect();
        shipped.sort_unstable();
        example_digests.sort_unstable();
        assert_eq!(shipped, example_digests);
    }
}
