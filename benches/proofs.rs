//! What a request with a token that is bound to a key costs (DPoP), by the algorithm of its proof: the verdict about the token is cached,
//! the proof is new. `cargo bench --bench verification` has `warm`, the same without a proof. Medians are the numbers to quote.
//!
//! ```sh
//! cargo bench --bench proofs
//! ```

use std::sync::Arc;

use authgate_app::config;
use authgate_auth::cache::OnOutage;
use authgate_auth::jwt::keys::{Algorithm, VerificationKey};
use authgate_auth::jwt::sign::SigningKey;
use authgate_auth::jwt::{Issuer, Issuers, JwtSettings, KeySet, Namespace, Rules, Users};
use authgate_auth::{
    AuthScheme, Authenticator, AuthenticatorSettings, BindingRules, Chain, CredentialForm, DPOP_SCHEME, KindSettings,
    Now, PROOF_HEADER, PlainRequest, Requirement, SharedAuthenticator, Verdict, WorkerResources,
};
use authgate_core::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

fn main() {
    divan::main();
}

const SECRET: &[u8] = &[7; 64];

#[divan::bench(args = ["ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256"])]
fn bound(bencher: divan::Bencher<'_, '_>, name: &str) {
    let client = Client::new(Algorithm::from_name(name).expect("a name from the list"));
    let gateway = Gateway::new();
    gateway.authenticate(&client.headers());
    bencher
        .with_inputs(|| client.headers())
        .bench_local_values(|headers| gateway.authenticate(&headers));
}

/// A client with a bound token, which makes proofs.
struct Client {
    signer: SigningKey,
    header: Value,
    token: String,
}

impl Client {
    fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::ES512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).expect("a key pair");
        let jwk = jwk(algorithm, pair.der_bytes());
        let signer = SigningKey::new(algorithm, None, &Secret::new(pair.serialize_pem().into_bytes()));
        let server = SigningKey::new(Algorithm::HS256, None, &Secret::new(SECRET.to_vec())).expect("a key that signs");
        // serde_json sorts members, as RFC 7638 demands.
        let thumbprint = base64(digest(&SHA256, jwk.to_string().as_bytes()));
        let claims = json!({
            "token_type": "access", "user_id": "42", "jti": "one", "exp": Now::read().unix_seconds() + 3600,
            "cnf": { "jkt": thumbprint },
        });
        Self {
            signer: signer.expect("a key that signs"),
            header: json!({ "typ": "dpop+jwt", "alg": algorithm.name(), "jwk": jwk }),
            token: server
                .sign(claims.as_object().expect("an object"))
                .expect("a signature"),
        }
    }

    /// A request with a new proof.
    fn headers(&self) -> HeaderMap {
        let claims = json!({
            "jti": format!("{:032x}", fastrand::u128(..)), "htm": "GET", "htu": "https://localhost/",
            "iat": Now::read().unix_seconds(), "ath": base64(digest(&SHA256, self.token.as_bytes())),
        });
        let signed = format!("{}.{}", base64(self.header.to_string()), base64(claims.to_string()));
        let signature = self.signer.signature(signed.as_bytes()).expect("a signature");
        let value = |text: String| HeaderValue::try_from(text).expect("a legal value");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value(format!("{DPOP_SCHEME} {}", self.token)));
        headers.insert(PROOF_HEADER, value(format!("{signed}.{}", base64(signature))));
        headers
    }
}

/// A route with one authenticator.
struct Gateway {
    chain: Chain,
    request: PlainRequest,
    runtime: Runtime,
}

impl Gateway {
    fn new() -> Self {
        let key = VerificationKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET.to_vec()));
        let issuer = Issuer {
            keys: KeySet::Static(vec![key.expect("a key")]),
            token_bytes: 16 * 1024,
            rules: Rules::simplejwt(),
            users: Users::Claims {
                username_claim: "username".to_owned(),
            },
            binding: Arc::new(BindingRules {
                dpop: Requirement::Require,
                ..BindingRules::OFF
            }),
            namespace: Namespace::default(),
        };
        let settings = AuthenticatorSettings {
            name: "jwt".into(),
            header: AUTHORIZATION,
            scheme: AuthScheme::OneOf(vec![DPOP_SCHEME.to_owned()]),
            realm: None,
            cache: config::default_cache(),
            on_outage: OnOutage::Deny,
            kind: KindSettings::Jwt(Arc::new(JwtSettings {
                issuers: Issuers::One(issuer),
                form: CredentialForm::Any,
                revocation: None,
            })),
        };
        let shared = SharedAuthenticator::new(settings, &Arc::default(), &Arc::default());
        let authenticator = Authenticator::new(&shared, &WorkerResources::default());
        Self {
            chain: Chain::new(vec![authenticator.into()]),
            request: PlainRequest::default(),
            runtime: Builder::new_current_thread().enable_time().build().expect("a runtime"),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Verdict {
        let request = self.request.with(headers);
        let verdict = self.runtime.block_on(self.chain.authenticate(&request, Now::read()));
        match verdict {
            Ok(verdict @ Verdict::Accept(_)) => verdict,
            other => panic!("{other:?}"),
        }
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 7518, section 6, and RFC 8037. `raw` is what a certificate holds of the key.
fn jwk(algorithm: Algorithm, raw: &[u8]) -> Value {
    let ec = |curve: &str| {
        let (x, y) = raw[1..].split_at(raw.len() / 2);
        json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) })
    };
    match algorithm {
        Algorithm::ES256 => ec("P-256"),
        Algorithm::ES384 => ec("P-384"),
        Algorithm::ES512 => ec("P-521"),
        Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(raw) }),
        _ => {
            let key = aws_lc_rs::rsa::PublicKey::from_der(raw).expect("an RSA key");
            let (n, e) = (key.modulus(), key.exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            json!({ "kty": "RSA", "n": base64(n), "e": base64(e) })
        }
    }
}
