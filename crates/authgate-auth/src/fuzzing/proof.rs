//! DPoP proofs, and the URIs in them.

use std::sync::LazyLock;
use std::time::Duration;

use authgate_core::outbound::peer::Scheme;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use super::NOW;
use crate::binding::proof::{Expected, check};
use crate::binding::target_uri::RequestedUri;
use crate::confirmation::Thumbprint;
use crate::keys::ClientKey;

const TOKEN: [u8; 32] = [7; 32];
const WINDOW: Duration = Duration::from_mins(1);

static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);

/// A client with its key, and a proof that is valid.
struct Client {
    key: Ed25519KeyPair,
    header: String,
    thumbprint: Thumbprint,
}

impl Client {
    fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let x = URL_SAFE_NO_PAD.encode(key.public_key());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        Self {
            header: json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk }).to_string(),
            thumbprint: ClientKey::parse(jwk).expect("a public key").thumbprint(),
            key,
        }
    }

    fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn good(&self) -> String {
        let claims = json!({
            "jti": "one", "htm": "GET", "htu": "https://api.example/orders", "iat": 1_700_000_000,
            "ath": URL_SAFE_NO_PAD.encode(TOKEN),
        });
        self.sign(self.header.as_bytes(), claims.to_string().as_bytes())
    }

    fn accepts(&self, proof: &[u8]) -> bool {
        let expected = Expected {
            key: &self.thumbprint,
            token: &TOKEN,
            method: &Method::GET,
            uri: RequestedUri {
                scheme: Scheme::Https,
                authority: "api.example",
                path: "/orders",
            },
            window: Some(WINDOW),
            now: NOW,
        };
        check(proof, &expected).is_ok()
    }
}

/// A proof: without the key, no input is valid. With the key, what is valid says what it must.
pub fn proof(bytes: &[u8]) {
    let client = &*CLIENT;
    let good = client.good();
    assert!(client.accepts(good.as_bytes()));
    assert!(
        !client.accepts(bytes) || bytes == good.as_bytes(),
        "a proof without the key"
    );
    // Use the bytes as changes to a valid proof: a position and the new byte.
    let mut changed = good.as_bytes().to_vec();
    for pair in bytes.chunks_exact(2) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    assert!(
        !client.accepts(&changed) || changed == good.as_bytes(),
        "a changed proof is valid"
    );
    let claims = client.sign(client.header.as_bytes(), bytes);
    if client.accepts(claims.as_bytes()) {
        let claims: Value = serde_json::from_slice(bytes).expect("claims that were read");
        assert_eq!(claims["htm"], "GET");
        assert_eq!(claims["ath"], URL_SAFE_NO_PAD.encode(TOKEN));
        assert!(claims["jti"].as_str().is_some_and(|jti| !jti.is_empty()));
        assert!(
            claims["htu"]
                .as_str()
                .is_some_and(|htu| htu.len() >= "https://api.example/orders".len())
        );
    }
    let header = client.sign(bytes, b"{}");
    assert!(!client.accepts(header.as_bytes()), "a proof without claims");
    if let Ok(path) = std::str::from_utf8(bytes) {
        let path = format!("/{}", path.replace(['?', '#'], ""));
        let uri = RequestedUri {
            scheme: Scheme::Https,
            authority: "api.example",
            path: &path,
        };
        assert!(
            uri.is(&format!("https://API.example:443{path}?query")),
            "a path is not itself"
        );
        assert!(!uri.is(&format!("https://other.example{path}")));
    }
}
