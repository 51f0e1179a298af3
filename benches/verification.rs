//! What a JWT costs, by algorithm: `cold` is a whole judgement (segments, signature, claims, identity), `warm` is the verdict that the
//! cache remembers. Medians are the numbers to quote.
//!
//! ```sh
//! cargo bench --bench verification
//! ```

use std::sync::Arc;
use std::time::Duration;

use authgate::config::defaults;
use authgate_auth::cache::CacheSettings;
use authgate_auth::jwt::keys::{Algorithm, VerificationKey};
use authgate_auth::jwt::sign::SigningKey;
use authgate_auth::jwt::{Issuer, Issuers, JwtSettings, KeySet, Namespace, Profile, Rules, Users};
use authgate_auth::{
    Authenticator, AuthenticatorSettings, Chain, CredentialForm, KindSettings, Now, SharedAuthenticator, Verdict,
    WorkerResources,
};
use authgate_core::secret::Secret;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use rcgen::KeyPair;
use serde_json::json;

fn main() {
    divan::main();
}

/// A route that asks one authenticator, and a request with a good token.
struct Bench {
    chain: Chain,
    headers: HeaderMap,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(algorithm: Algorithm, entries: usize) -> Self {
        let (private, key) = pair(algorithm);
        let signer = SigningKey::new(algorithm, None, &Secret::new(private)).expect("a key that signs");
        let now = Now::read().unix_seconds();
        let claims = json!({
            "token_type": "access", "user_id": "42", "username": "ada", "jti": "0123456789abcdef0123456789abcdef",
            "iat": now, "exp": now + 3600,
        });
        let token = signer
            .sign(claims.as_object().expect("an object"))
            .expect("a signature");
        let jwt = JwtSettings {
            issuers: Issuers::One(Issuer {
                keys: KeySet::Static(vec![key]),
                token_bytes: 16 * 1024,
                rules: Rules::simplejwt(),
                users: Users::Claims {
                    username_claim: "username".to_owned(),
                },
                namespace: Namespace::default(),
            }),
            form: CredentialForm::Any,
            revocation: None,
        };
        let settings = AuthenticatorSettings {
            name: "jwt".into(),
            header: AUTHORIZATION,
            scheme: Profile::SimpleJwt.auth_scheme(vec!["Bearer".to_owned()]),
            realm: None,
            cache: CacheSettings {
                entries,
                ttl: Duration::from_secs(3600),
                ..defaults::CACHE
            },
            kind: KindSettings::Jwt(Arc::new(jwt)),
        };
        let shared = SharedAuthenticator::new(settings, &Arc::default(), &Arc::default());
        let authenticator = Authenticator::new(&shared, &WorkerResources::default());
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a legal value");
        headers.insert(AUTHORIZATION, value);
        Self {
            chain: Chain::new(vec![authenticator.into()]),
            headers,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
        }
    }

    fn judge(&self) -> Verdict {
        let verdict = self
            .runtime
            .block_on(self.chain.authenticate(&self.headers, Now::read()));
        match verdict {
            Ok(verdict @ Verdict::Accept(_)) => verdict,
            other => panic!("{other:?}"),
        }
    }
}

/// A new key pair: what signs, and what verifies.
fn pair(algorithm: Algorithm) -> (Vec<u8>, VerificationKey) {
    if algorithm.is_hmac() {
        let secret = vec![7; 64];
        let key = VerificationKey::from_secret(algorithm, None, &Secret::new(secret.clone()));
        return (secret, key.expect("a key"));
    }
    let kind = match algorithm {
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Algorithm::ES512 => &rcgen::PKCS_ECDSA_P521_SHA512,
        Algorithm::EdDSA => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_RSA_SHA256,
    };
    let pair = KeyPair::generate_for(kind).expect("a key pair");
    let key = VerificationKey::from_pem(algorithm, None, pair.public_key_pem().as_bytes());
    (pair.serialize_pem().into_bytes(), key.expect("a key"))
}

fn names() -> impl Iterator<Item = &'static str> {
    Algorithm::ALL.into_iter().map(Algorithm::name)
}

fn algorithm(name: &str) -> Algorithm {
    Algorithm::from_name(name).expect("a name from the list")
}

#[divan::bench(args = names())]
fn cold(bencher: divan::Bencher<'_, '_>, name: &str) {
    let bench = Bench::new(algorithm(name), 0);
    bencher.bench_local(|| bench.judge());
}

#[divan::bench(args = names())]
fn warm(bencher: divan::Bencher<'_, '_>, name: &str) {
    let bench = Bench::new(algorithm(name), 100);
    bencher.bench_local(|| bench.judge());
}
