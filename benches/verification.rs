//! What a JWT costs, by algorithm: `cold` is a whole judgement (segments, signature, claims, identity), `warm` is the verdict that the
//! cache remembers. `cold_issuers` is `cold` for HS256, whose signature costs least, with so many issuers that `iss` selects from; 0 is an
//! authenticator with one issuer and no tables. Medians are the numbers to quote.
//!
//! ```sh
//! cargo bench --bench verification
//! ```

use std::sync::Arc;
use std::time::Duration;

use authgate_app::config;
use authgate_auth::cache::CacheSettings;
use authgate_auth::cache::OnOutage;
use authgate_auth::jwt::keys::{Algorithm, VerificationKey};
use authgate_auth::jwt::sign::SigningKey;
use authgate_auth::jwt::{Issuer, IssuerTable, Issuers, JwtSettings, KeySet, Namespace, Profile, Rules, Users};
use authgate_auth::{
    Authenticator, AuthenticatorSettings, BindingRules, Chain, CredentialForm, KindSettings, Now, PlainRequest,
    SharedAuthenticator, Verdict, WorkerResources,
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
    request: PlainRequest,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(algorithm: Algorithm, entries: usize) -> Self {
        Self::with_issuers(algorithm, entries, 0)
    }

    /// `tables`: so many tables of issuers, each with the same key; 0: one issuer, without a table.
    fn with_issuers(algorithm: Algorithm, entries: usize, tables: usize) -> Self {
        let (private, public) = pair(algorithm);
        let signer = SigningKey::new(algorithm, None, &Secret::new(private)).expect("a key that signs");
        let now = Now::read().unix_seconds();
        let claims = json!({
            "token_type": "access", "user_id": "42", "username": "ada", "jti": "0123456789abcdef0123456789abcdef",
            "iat": now, "exp": now + 3600, "iss": name(tables / 2),
        });
        let token = signer
            .sign(claims.as_object().expect("an object"))
            .expect("a signature");
        let issuer = |at: usize| Issuer {
            keys: KeySet::Static(vec![public.key(algorithm)]),
            token_bytes: 16 * 1024,
            rules: Rules {
                issuer: vec![name(at)],
                ..Rules::simplejwt()
            },
            users: Users::Claims {
                username_claim: "username".to_owned(),
            },
            binding: Arc::new(BindingRules::OFF),
            namespace: match tables {
                0 => Namespace::default(),
                _ => Namespace::new(&format!("tenant-{at}:")).expect("a namespace"),
            },
        };
        let jwt = JwtSettings {
            issuers: match tables {
                0 => Issuers::One(issuer(0)),
                _ => {
                    let all = (0..tables).map(|at| (name(at).into(), issuer(at)));
                    Issuers::ByName(IssuerTable::new(Profile::SimpleJwt, all.collect()))
                }
            },
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
                ..config::default_cache()
            },
            on_outage: OnOutage::Deny,
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
            request: PlainRequest::default(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
        }
    }

    fn judge(&self) -> Verdict {
        let verdict = self
            .runtime
            .block_on(self.chain.authenticate(&self.request.with(&self.headers), Now::read()));
        match verdict {
            Ok(verdict @ Verdict::Accept(_)) => verdict,
            other => panic!("{other:?}"),
        }
    }
}

/// The name of an issuer.
fn name(at: usize) -> String {
    format!("https://tenant-{at}.issuer.example")
}

/// What verifies.
enum Public {
    Secret(Secret<Vec<u8>>),
    Pem(String),
}

impl Public {
    fn key(&self, algorithm: Algorithm) -> VerificationKey {
        match self {
            Self::Secret(secret) => VerificationKey::from_secret(algorithm, None, secret),
            Self::Pem(pem) => VerificationKey::from_pem(algorithm, None, pem.as_bytes()),
        }
        .expect("a key")
    }
}

/// A new key pair: what signs, and what verifies.
fn pair(algorithm: Algorithm) -> (Vec<u8>, Public) {
    if algorithm.is_hmac() {
        let secret = vec![7; 64];
        return (secret.clone(), Public::Secret(Secret::new(secret)));
    }
    let kind = match algorithm {
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Algorithm::ES512 => &rcgen::PKCS_ECDSA_P521_SHA512,
        Algorithm::EdDSA => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_RSA_SHA256,
    };
    let pair = KeyPair::generate_for(kind).expect("a key pair");
    (pair.serialize_pem().into_bytes(), Public::Pem(pair.public_key_pem()))
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

#[divan::bench(args = [0, 1, 500])]
fn cold_issuers(bencher: divan::Bencher<'_, '_>, tables: usize) {
    let bench = Bench::with_issuers(Algorithm::HS256, 0, tables);
    bencher.bench_local(|| bench.judge());
}
