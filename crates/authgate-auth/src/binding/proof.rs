//! Checks a DPoP proof: the list of RFC 9449, section 4.3.
//!
//! Checks without cryptography come first, the signature last. So a client that has a token without its key costs no verification.

use std::time::Duration;

use authgate_core::credential::{BindingFault, ProofDefect};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Map, Value};

use super::target_uri::RequestedUri;
use crate::confirmation::Thumbprint;
use crate::jwt::segments::Decoded;
use crate::keys::{Algorithm, ClientKey};
use crate::now::Now;
use crate::replay::ProofId;

/// A longer proof is refused without parsing. An RSA key of 4,096 bits and its signature take less than 2 KiB, the URI has the rest.
const MAX_BYTES: usize = 8192;

/// What a proof must be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'r> {
    /// The key that the token is bound to.
    pub(crate) key: &'r Thumbprint,
    /// SHA-256 of the token.
    pub(crate) token: &'r [u8; 32],
    pub(crate) method: &'r Method,
    pub(crate) uri: RequestedUri<'r>,
    /// The largest difference between `iat` and `now`, in both directions. `None`: the proof was in time when it was used.
    pub(crate) window: Option<Duration>,
    pub(crate) now: Now,
}

/// Checks everything but whether the proof was used before.
pub(crate) fn check(proof: &[u8], expected: &Expected<'_>) -> Result<ProofId, BindingFault> {
    let Unverified {
        decoded,
        algorithm,
        key,
        thumbprint,
        proof_id,
    } = Unverified::check(proof, expected)?;
    if thumbprint != *expected.key {
        return Err(BindingFault::OtherKey);
    }
    let key = key.with_algorithm(algorithm).map_err(|_| ProofDefect::Key)?;
    match key.verifies(decoded.signed, &decoded.signature) {
        true => Ok(proof_id),
        false => Err(ProofDefect::Signature.into()),
    }
}

/// A proof whose signature is not verified yet. All else is checked.
struct Unverified<'p> {
    decoded: Decoded<'p>,
    algorithm: Algorithm,
    key: ClientKey,
    thumbprint: Thumbprint,
    proof_id: ProofId,
}

impl<'p> Unverified<'p> {
    fn check(proof: &'p [u8], expected: &Expected<'_>) -> Result<Self, ProofDefect> {
        if proof.len() > MAX_BYTES {
            return Err(ProofDefect::Size);
        }
        let decoded = Decoded::parse(proof).map_err(|_| ProofDefect::Form)?;
        let mut header = decoded.header().map_err(|_| ProofDefect::Header)?;
        if text(&header, "typ") != Some("dpop+jwt") {
            return Err(ProofDefect::Type);
        }
        let algorithm = text(&header, "alg").and_then(Algorithm::from_name);
        let algorithm = algorithm
            .filter(|algorithm| !algorithm.is_hmac())
            .ok_or(ProofDefect::Algorithm)?;
        let jwk = header.remove("jwk").ok_or(ProofDefect::Key)?;
        let key = ClientKey::parse(jwk).map_err(|_| ProofDefect::Key)?;

        let claims = decoded.claims().map_err(|_| ProofDefect::Claims)?;
        let jti = text(&claims, "jti").filter(|jti| !jti.is_empty());
        let jti = jti.ok_or(ProofDefect::Claims)?;
        if !text(&claims, "htm").is_some_and(|htm| is_method(htm, expected.method)) {
            return Err(ProofDefect::Method);
        }
        if !text(&claims, "htu").is_some_and(|htu| expected.uri.is(htu)) {
            return Err(ProofDefect::Target);
        }
        let issued_at = claims.get("iat").and_then(Value::as_f64);
        let issued_at = issued_at.ok_or(ProofDefect::IssuedAt)?;
        if expected
            .window
            .is_some_and(|window| !is_within(issued_at, window, expected.now))
        {
            return Err(ProofDefect::IssuedAt);
        }
        if text(&claims, "ath") != Some(&URL_SAFE_NO_PAD.encode(expected.token)) {
            return Err(ProofDefect::Token);
        }
        let thumbprint = key.thumbprint();
        let proof_id = proof_id(&thumbprint, jti);
        Ok(Self {
            decoded,
            algorithm,
            key,
            thumbprint,
            proof_id,
        })
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    members.get(name).and_then(Value::as_str)
}

/// A WebSocket over HTTP/2 has the method CONNECT (RFC 8441), and the gateway treats it as the GET that it is over HTTP/1.1. Clients make
/// the proof before they know the version, so both names are accepted. No other CONNECT comes here.
fn is_method(htm: &str, method: &Method) -> bool {
    htm == method.as_str() || (method == Method::CONNECT && htm == Method::GET.as_str())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this millennium are exact in 53 bits"
)]
fn is_within(issued_at: f64, window: Duration, now: Now) -> bool {
    let difference_ms = now.unix_ms as f64 - issued_at * 1000.0;
    difference_ms.abs() <= window.as_millis() as f64
}

/// Each key has its own `jti`s: no client can use up those of another one.
fn proof_id(key: &Thumbprint, jti: &str) -> ProofId {
    let hash = |bytes: &[u8]| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        hash
    };
    hash(&[&key[..], &hash(jti.as_bytes())].concat())
}

#[cfg(test)]
mod tests {
    use authgate_core::outbound::peer::Scheme;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const NOW: Now = Now {
        unix_ms: 1_700_000_000_500,
        uptime_ms: 0,
    };
    const TOKEN: [u8; 32] = [7; 32];
    const URI: RequestedUri<'static> = RequestedUri {
        scheme: Scheme::Https,
        authority: "api.example",
        path: "/orders",
    };

    /// A client, with its key.
    struct Client(EcdsaKeyPair);

    impl Client {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair"))
        }

        fn jwk(&self) -> Value {
            let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
        }

        fn thumbprint(&self) -> Thumbprint {
            ClientKey::parse(self.jwk()).expect("a public key").thumbprint()
        }

        fn header(&self) -> Value {
            json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() })
        }

        fn sign(&self, header: &str, claims: &str) -> String {
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let signature = self
                .0
                .sign(&SystemRandom::new(), signed.as_bytes())
                .expect("a signature");
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn claims() -> Value {
        json!({
            "jti": "one", "htm": "GET", "htu": "https://api.example/orders", "iat": 1_700_000_000,
            "ath": URL_SAFE_NO_PAD.encode(TOKEN),
        })
    }

    /// With another value of a member; `null` leaves it out.
    fn with(mut object: Value, name: &str, value: Value) -> Value {
        let members = object.as_object_mut().expect("an object");
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.to_owned(), value)),
        }
        object
    }

    fn verify(client: &Client, proof: &str) -> Result<ProofId, BindingFault> {
        let expected = Expected {
            key: &client.thumbprint(),
            token: &TOKEN,
            method: &Method::GET,
            uri: URI,
            window: Some(Duration::from_mins(1)),
            now: NOW,
        };
        check(proof.as_bytes(), &expected)
    }

    /// RFC 9449, section 7.1: the request, its token and its proof; section 6.1: the thumbprint.
    #[test]
    fn the_example_of_the_rfc_is_valid() {
        const PROOF: &str = concat!(
            "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik",
            "VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR",
            "nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE",
            "QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj",
            "oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z",
            "WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF",
            "c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E",
            "OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
        );
        let token = digest::digest(&digest::SHA256, b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        let token = token.as_ref().try_into().expect("32 bytes");
        let key = URL_SAFE_NO_PAD.decode("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let key = key.expect("base64url").try_into().expect("32 bytes");
        let expected = Expected {
            key: &key,
            token: &token,
            method: &Method::GET,
            uri: RequestedUri {
                scheme: Scheme::Https,
                authority: "resource.example.org",
                path: "/protectedresource",
            },
            window: Some(Duration::from_mins(1)),
            now: Now {
                unix_ms: 1_562_262_618_000,
                uptime_ms: 0,
            },
        };
        assert!(check(PROOF.as_bytes(), &expected).is_ok());
        let later = Now {
            unix_ms: 1_562_262_678_001,
            uptime_ms: 0,
        };
        let late = check(PROOF.as_bytes(), &Expected { now: later, ..expected });
        assert_eq!(late, Err(ProofDefect::IssuedAt.into()));
    }

    #[test]
    fn each_claim_is_checked() {
        let client = Client::new();
        for (name, value, expected) in [
            ("jti", json!("another"), Ok(())),
            ("nonce", json!("from nowhere"), Ok(())),
            ("iat", json!(1_700_000_000.25), Ok(())),
            ("iat", json!(1_699_999_940.5), Ok(())),
            ("iat", json!(1_700_000_060.5), Ok(())),
            ("htu", json!("HTTPS://api.example:443/orders?page=2"), Ok(())),
            ("jti", json!(null), Err(ProofDefect::Claims)),
            ("jti", json!(""), Err(ProofDefect::Claims)),
            ("jti", json!(5), Err(ProofDefect::Claims)),
            ("htm", json!(null), Err(ProofDefect::Method)),
            ("htm", json!("get"), Err(ProofDefect::Method)),
            ("htm", json!("POST"), Err(ProofDefect::Method)),
            ("htm", json!(["GET"]), Err(ProofDefect::Method)),
            ("htu", json!(null), Err(ProofDefect::Target)),
            ("htu", json!("https://api.example/other"), Err(ProofDefect::Target)),
            ("htu", json!("http://api.example/orders"), Err(ProofDefect::Target)),
            ("htu", json!(["https://api.example/orders"]), Err(ProofDefect::Target)),
            ("iat", json!(null), Err(ProofDefect::IssuedAt)),
            ("iat", json!("1700000000"), Err(ProofDefect::IssuedAt)),
            ("iat", json!(true), Err(ProofDefect::IssuedAt)),
            ("iat", json!(1_699_999_940), Err(ProofDefect::IssuedAt)),
            ("iat", json!(1_700_000_061), Err(ProofDefect::IssuedAt)),
            ("iat", json!(u64::MAX), Err(ProofDefect::IssuedAt)),
            ("iat", json!(-1e300), Err(ProofDefect::IssuedAt)),
            ("ath", json!(null), Err(ProofDefect::Token)),
            ("ath", json!(URL_SAFE_NO_PAD.encode([8; 32])), Err(ProofDefect::Token)),
            ("ath", json!(hex::encode(TOKEN)), Err(ProofDefect::Token)),
        ] {
            let claims = with(claims(), name, value.clone());
            let proof = client.sign(&client.header().to_string(), &claims.to_string());
            let found = verify(&client, &proof).map(drop);
            assert_eq!(found, expected.map_err(BindingFault::Proof), "{name}: {value}");
        }
    }

    #[test]
    fn each_parameter_of_the_header_is_checked() {
        let client = Client::new();
        let member = |name: &str, value: Value| with(client.jwk(), name, value);
        let oct = json!({ "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" });
        for (name, value, expected) in [
            ("kid", json!("ignored"), Ok(())),
            ("jwk", member("kid", json!("ignored")), Ok(())),
            ("jwk", member("key_ops", json!(["verify"])), Ok(())),
            ("typ", json!(null), Err(ProofDefect::Type)),
            ("typ", json!("JWT"), Err(ProofDefect::Type)),
            ("typ", json!("at+jwt"), Err(ProofDefect::Type)),
            ("typ", json!("DPOP+JWT"), Err(ProofDefect::Type)),
            ("alg", json!(null), Err(ProofDefect::Algorithm)),
            ("alg", json!("none"), Err(ProofDefect::Algorithm)),
            ("alg", json!("HS256"), Err(ProofDefect::Algorithm)),
            ("alg", json!("es256"), Err(ProofDefect::Algorithm)),
            ("alg", json!("ES256K"), Err(ProofDefect::Algorithm)),
            ("alg", json!("ES384"), Err(ProofDefect::Key)),
            ("alg", json!("RS256"), Err(ProofDefect::Key)),
            ("alg", json!("EdDSA"), Err(ProofDefect::Key)),
            ("jwk", json!(null), Err(ProofDefect::Key)),
            ("jwk", json!("key"), Err(ProofDefect::Key)),
            ("jwk", json!([client.jwk()]), Err(ProofDefect::Key)),
            ("jwk", oct, Err(ProofDefect::Key)),
            ("jwk", member("d", json!("AA")), Err(ProofDefect::Key)),
            ("jwk", member("k", json!("AA")), Err(ProofDefect::Key)),
            ("jwk", member("crv", json!("P-384")), Err(ProofDefect::Key)),
            ("jwk", member("crv", json!("secp256k1")), Err(ProofDefect::Key)),
            ("jwk", member("y", json!(null)), Err(ProofDefect::Key)),
            ("crit", json!(["exp"]), Err(ProofDefect::Header)),
            ("b64", json!(false), Err(ProofDefect::Header)),
        ] {
            let header = with(client.header(), name, value.clone());
            let proof = client.sign(&header.to_string(), &claims().to_string());
            let found = verify(&client, &proof).map(drop);
            assert_eq!(found, expected.map_err(BindingFault::Proof), "{name}: {value}");
        }
    }

    #[test]
    fn the_form_and_the_signature_are_checked() {
        let (client, other) = (Client::new(), Client::new());
        let (header, claims) = (client.header().to_string(), claims().to_string());
        let good = client.sign(&header, &claims);
        assert!(verify(&client, &good).is_ok());
        assert_eq!(verify(&other, &good), Err(BindingFault::OtherKey));
        let (signed, signature) = good.rsplit_once('.').expect("three segments");
        let twice = claims.replacen('{', "{\"jti\":\"one\",", 1);
        for (proof, expected) in [
            (other.sign(&header, &claims), ProofDefect::Signature),
            (format!("{signed}."), ProofDefect::Signature),
            (format!("{signed}.{}", &signature[4..]), ProofDefect::Signature),
            (signed.to_owned(), ProofDefect::Form),
            (format!("{good}."), ProofDefect::Form),
            (format!("{good}=="), ProofDefect::Form),
            (format!(" {good}"), ProofDefect::Form),
            (String::new(), ProofDefect::Form),
            (client.sign("[]", &claims), ProofDefect::Header),
            (client.sign(&header, "[]"), ProofDefect::Claims),
            (client.sign(&header, &twice), ProofDefect::Claims),
            (client.sign(&header, &format!("{claims} x")), ProofDefect::Claims),
            ("x".repeat(MAX_BYTES + 1), ProofDefect::Size),
        ] {
            assert_eq!(verify(&client, &proof), Err(expected.into()), "{proof}");
        }
    }

    #[test]
    fn a_proof_is_identified_by_its_key_and_its_jti() {
        let (one, two) = ([1; 32], [2; 32]);
        assert_eq!(proof_id(&one, "a"), proof_id(&one, "a"));
        assert_ne!(proof_id(&one, "a"), proof_id(&one, "b"));
        assert_ne!(proof_id(&one, "a"), proof_id(&two, "a"));
    }

    #[test]
    fn a_websocket_over_http2_has_two_methods() {
        assert!(is_method("CONNECT", &Method::CONNECT) && is_method("GET", &Method::CONNECT));
        assert!(!is_method("POST", &Method::CONNECT) && !is_method("CONNECT", &Method::GET));
    }

    #[test]
    fn an_rsa_key_that_is_expensive_to_use_is_refused() {
        let key = |modulus: usize, exponent: &[u8]| {
            let mut n = vec![0xFF; modulus];
            n[0] = 0x80;
            let jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(&n), "e": URL_SAFE_NO_PAD.encode(exponent) });
            ClientKey::parse(jwk).is_ok_and(|key| key.with_algorithm(Algorithm::RS256).is_ok())
        };
        assert!(key(256, &[1, 0, 1]) && key(512, &[1, 0, 1]));
        assert!(!key(513, &[1, 0, 1]) && !key(1024, &[1, 0, 1]));
        assert!(!key(256, &[1, 0, 0, 0, 1]) && !key(128, &[1, 0, 1]));
    }
}
