//! Forged tokens: everything that was ever tried against verifiers of JWS, against every algorithm. None is accepted, none is
//! answered with anything but the refusal of an invalid token, and no address inside of one is ever visited.

use std::net::TcpListener;

use authgate_auth::jwt::keys::Algorithm;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Budget, RngAlgorithm, RngSeed, TestRunner};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::client::Conn;
use crate::harness::mint::{Signer, base64, claims, claims_with, forged};
use crate::harness::proofs::ProofKey;
use crate::harness::{Gate, RecordingUpstream, config, get};
use crate::jwt_auth::with_keys;

/// Where the gateway has its keys from.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    /// `keys`: every algorithm, and none of them has a kid.
    Static,
    /// `jwks`: every public one, chosen by kid.
    Jwks,
    /// `issuers`: every algorithm is that of one issuer, and all of their keys have the same kid.
    Issuers,
}

/// The issuer of tokens, where the gateway knows one for each algorithm.
fn issuer(algorithm: Algorithm) -> String {
    format!("https://{}.test", algorithm.name())
}

/// A gateway with a key for each algorithm, and an address that no token may make it fetch.
struct Target {
    keys: Keys,
    signers: Vec<Signer>,
    upstream: RecordingUpstream,
    gate: Gate,
    trap: TcpListener,
}

impl Target {
    fn start(keys: Keys) -> Self {
        let upstream = RecordingUpstream::start();
        let mut config = config()
            .jwt("users = \"none\"")
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]");
        let signers: Vec<Signer>;
        if keys == Keys::Issuers {
            signers = Algorithm::ALL
                .map(|algorithm| Signer::new(algorithm).kid("k"))
                .into_iter()
                .collect();
            config = crate::harness::config()
                .jwt("profile = \"simplejwt\"")
                .app(&upstream)
                .route("/api/*", "authenticate = [\"jwt\"]");
            for signer in &signers {
                let (file, name) = (signer.algorithm.name(), issuer(signer.algorithm));
                let key = signer.key(file);
                config = config.file(file, signer.file()).tables(&format!(
                    "[[authenticators.jwt.issuers]]\nissuer = \"{name}\"\nnamespace = \"{file}:\"\nusers = \"none\"\nkeys = [{key}]\n"
                ));
            }
        } else if keys == Keys::Static {
            signers = Algorithm::ALL.map(Signer::new).into_iter().collect();
            let mut lines = Vec::new();
            for signer in &signers {
                let file = signer.algorithm.name();
                config = config.file(file, signer.file());
                lines.push(signer.key(file));
            }
            config = config.jwt(&format!("keys = [{}]", lines.join(", ")));
        } else {
            let public = Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_hmac());
            signers = public
                .map(|algorithm| Signer::new(algorithm).kid(algorithm.name()))
                .collect();
            let names: Vec<&str> = signers.iter().map(|signer| signer.algorithm.name()).collect();
            // As many publish them: without `alg`, so that only the key's kind says what it is for.
            let set: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
            config = config
                .file("jwks.json", json!({ "keys": set }).to_string())
                .jwt("jwks = { file = \"jwks.json\" }")
                .jwt(&format!("algorithms = {names:?}"))
                .jwt("issuer = false")
                .jwt("audience = false");
        }
        let gate = Gate::start(&config);
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        Self {
            keys,
            signers,
            upstream,
            gate,
            trap,
        }
    }

    /// The claims that a good token of this key has beside the usual ones.
    fn claims_of(&self, signer: &Signer) -> Value {
        match self.keys {
            Keys::Static | Keys::Jwks => json!({}),
            Keys::Issuers => json!({ "iss": issuer(signer.algorithm) }),
        }
    }

    fn trap_url(&self) -> String {
        format!("http://{}/keys.json", self.trap.local_addr().unwrap())
    }

    /// Whether the gateway has let a token pass; whatever else it says must be the one refusal.
    fn accepts(conn: &mut Conn, what: &str, token: &str) -> bool {
        let reply = conn.call(&get("/api/x").bearer(token));
        if reply.status == 200 {
            return true;
        }
        assert_eq!(reply.status, 401, "{what}: {}", reply.text());
        let said = reply.json();
        let message = said["messages"][0]["message"].as_str();
        assert!(
            message == Some("Token is invalid") || said["code"] == "bad_authorization_header",
            "{what}: {said}"
        );
        false
    }

    fn nobody_was_visited(&self) {
        assert!(self.trap.accept().is_err(), "an address inside of a token was visited");
    }
}

/// The public key in every form that an attacker may use as an HMAC secret.
fn public_forms(signer: &Signer) -> Vec<Vec<u8>> {
    if signer.algorithm.is_hmac() {
        return Vec::new();
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(signer.public.as_bytes()).unwrap();
    let pem = signer.public.as_bytes().to_vec();
    let body: String = signer
        .public
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let mut public = signer.jwk.clone();
    public.as_object_mut().unwrap().remove("use");
    vec![
        pem.clone(),
        signer.public.trim_end().as_bytes().to_vec(),
        signer.public.replace('\n', "\r\n").into_bytes(),
        signer.public.replace('\n', "").into_bytes(),
        [&pem[..], b"\n"].concat(),
        [&pem[..], b"\0"].concat(),
        body.clone().into_bytes(),
        format!("{body}\n").into_bytes(),
        der.to_vec(),
        der[der.len().saturating_sub(64)..].to_vec(),
        signer.jwk.to_string().into_bytes(),
        public.to_string().into_bytes(),
        json!({ "keys": [signer.jwk] }).to_string().into_bytes(),
        ["n", "x"]
            .iter()
            .find_map(|name| signer.jwk[*name].as_str())
            .unwrap()
            .as_bytes()
            .to_vec(),
    ]
}

/// The order of the group that an ECDSA key lives in, in hexadecimal digits (FIPS 186-5, SP 800-186).
fn order(algorithm: Algorithm) -> Option<&'static str> {
    Some(match algorithm {
        Algorithm::ES256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        Algorithm::ES384 => {
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        }
        Algorithm::ES512 => {
            "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47\
             aebb6fb71e91386409"
        }
        _ => return None,
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// An ASN.1 SEQUENCE of two INTEGERs: an ECDSA signature as X.509 and TLS write it.
fn der_signature(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        if digits.first().is_none_or(|byte| *byte >= 0x80) {
            digits.insert(0, 0);
        }
        [&[2, u8::try_from(digits.len()).unwrap()], digits.as_slice()].concat()
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    let mut length = vec![u8::try_from(body.len()).unwrap()];
    if body.len() >= 0x80 {
        length.insert(0, 0x81);
    }
    [vec![0x30], length, body].concat()
}

/// Signatures made of a good one (or of nothing) that a lax verifier takes.
fn signatures(signer: &Signer, good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let size = good.len();
    let mut made = vec![
        ("none".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; size]),
        ("a one".to_owned(), [vec![0; size - 1], vec![1]].concat()),
        ("all bits".to_owned(), vec![0xff; size]),
        ("one byte".to_owned(), good[..1].to_vec()),
        ("half".to_owned(), good[..size / 2].to_vec()),
        ("but the last byte".to_owned(), good[..size - 1].to_vec()),
        ("but the first byte".to_owned(), good[1..].to_vec()),
        ("a byte more".to_owned(), [good, &[0]].concat()),
        ("a byte before".to_owned(), [&[0], good].concat()),
        ("twice".to_owned(), [good, good].concat()),
        ("backwards".to_owned(), good.iter().rev().copied().collect()),
    ];
    if let Some(order) = order(signer.algorithm) {
        let order = from_hex(order);
        let (r, s) = good.split_at(size / 2);
        let (zero, one) = (vec![0; size / 2], [vec![0; size / 2 - 1], vec![1]].concat());
        for (name, left, right) in [
            ("r zero", &zero[..], s),
            ("s zero", r, &zero[..]),
            ("r and s one", &one, &one),
            ("r the order", &order, s),
            ("s the order", r, &order),
            ("r and s the order", &order, &order),
            ("r all bits", &vec![0xff; size / 2], s),
            ("s and r exchanged", s, r),
        ] {
            made.push((name.to_owned(), [left, right].concat()));
        }
        made.push(("DER".to_owned(), der_signature(good)));
        let wide = [&[0], r, &[0], s].concat();
        made.push(("padded halves".to_owned(), wide));
    }
    if signer.algorithm == Algorithm::EdDSA {
        // S + L: the same point, another text (RFC 8032, section 5.1.7).
        let l = from_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        let s: Vec<u8> = good[32..]
            .iter()
            .zip(l)
            .map(|(one, other)| {
                let sum = u16::from(*one) + u16::from(other) + carry;
                carry = sum >> 8;
                sum.to_le_bytes()[0]
            })
            .collect();
        made.push(("S above the order".to_owned(), [&good[..32], &s].concat()));
        // A point of small order as R, and nothing as S.
        made.push(("small order".to_owned(), [vec![1], vec![0; 63]].concat()));
    }
    made
}

/// Headers that lead a verifier to a key of the attacker's, or away from any.
fn headers(signer: &Signer, attacker: &Signer, trap: &str) -> Vec<Value> {
    let alg = signer.algorithm.name();
    let mut headers = vec![
        json!({ "alg": alg, "jwk": attacker.jwk }),
        json!({ "alg": alg, "jku": trap }),
        json!({ "alg": alg, "x5u": trap }),
        json!({ "alg": alg, "x5c": [base64(attacker.public.as_bytes())] }),
        json!({ "alg": alg, "kid": trap, "jku": trap, "x5u": trap, "jwk": attacker.jwk }),
        json!({ "alg": alg, "kid": "../../../../dev/null" }),
        json!({ "alg": alg, "kid": "' UNION SELECT 'x" }),
        json!({ "alg": alg, "typ": "JWT", "cty": "JWT" }),
        json!({ "alg": [alg] }),
        json!({ "alg": null }),
        json!({ "typ": "JWT" }),
    ];
    for other in [
        "none", "None", "NONE", "nOnE", "none ", "", "HMAC", "ES256K", "RS1", "Ed25519",
    ] {
        headers.push(json!({ "alg": other }));
    }
    headers.push(json!({ "alg": alg.to_ascii_lowercase() }));
    headers.push(json!({ "alg": format!("{alg} ") }));
    headers.push(json!({ "alg": format!("{alg}\0") }));
    headers.extend(
        Algorithm::ALL
            .into_iter()
            .filter(|other| *other != signer.algorithm)
            .map(|other| json!({ "alg": other.name() })),
    );
    headers
}

/// `more`: the claims that a good token has beside the usual ones.
fn forgeries(signer: &Signer, more: &Value, trap: &str) -> Vec<(String, String)> {
    let algorithm = signer.algorithm;
    let attacker = Signer::new(algorithm);
    let claims = claims_with(more);
    let payload = {
        let mut claims = claims.clone();
        claims["user_id"] = json!("1");
        claims.to_string()
    };
    let good = signer.sign(&claims);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else {
        panic!("three segments")
    };
    let mut made: Vec<(String, String)> = Vec::new();
    // A key of a set is found by its kid, so a forger names it.
    let sent = |text: &str| match &signer.kid {
        Some(kid) if text.starts_with('{') && !text.contains("\"kid\"") => {
            text.replacen('{', &format!(r#"{{"kid":"{kid}","#), 1)
        }
        _ => text.to_owned(),
    };
    let mut add = |what: &str, token: String| made.push((format!("{} {what}", algorithm.name()), token));

    for forged_header in headers(signer, &attacker, trap) {
        let text = sent(&forged_header.to_string());
        let unsigned = format!("{}.{}", base64(&text), base64(&payload));
        add(&format!("unsigned under {text}"), format!("{unsigned}."));
        add(
            &format!("with the good signature under {text}"),
            format!("{unsigned}.{signature}"),
        );
        add(
            &format!("signed by an attacker under {text}"),
            attacker.seal(&text, payload.as_bytes()),
        );
        if forged_header["alg"] != algorithm.name() {
            // Even the right key does not sign what names another algorithm.
            add(
                &format!("signed well under {text}"),
                signer.seal(&text, payload.as_bytes()),
            );
        }
    }
    for (at, form) in public_forms(signer).into_iter().enumerate() {
        for name in ["HS256", algorithm.name()] {
            let header = json!({ "alg": name, "typ": "JWT", "kid": signer.kid.as_deref().unwrap_or_default() });
            let token = forged(&header, &claims, &form);
            add(&format!("HMAC under {name} with the public key in form {at}"), token);
        }
    }
    let message = format!("{header}.{body}");
    for (what, bytes) in signatures(signer, &signer.signature(message.as_bytes())) {
        add(
            &format!("with a signature: {what}"),
            format!("{message}.{}", base64(bytes)),
        );
    }
    // What a signature covers is the text as sent, and all of it.
    for (what, token) in [
        (
            "a payload cut short",
            format!("{header}.{}.{signature}", &body[..body.len() - 4]),
        ),
        ("a payload twice", format!("{header}.{body}{body}.{signature}")),
        ("no payload", format!("{header}..{signature}")),
        ("another payload", format!("{header}.{}.{signature}", base64(&payload))),
        ("two segments", format!("{header}.{body}")),
        ("four segments", format!("{good}.{signature}")),
        ("JWE", format!("{header}.{body}.{signature}.{body}.{signature}")),
        ("an empty segment before", format!(".{good}")),
        ("an empty segment behind", format!("{good}.")),
        ("padding too many", format!("{good}====")),
        ("text behind", format!("{good}!")),
        ("a percent sign", good.replacen('.', "%2e", 1)),
        (
            "flattened JSON",
            json!({ "protected": header, "payload": body, "signature": signature }).to_string(),
        ),
        (
            "general JSON",
            json!({ "payload": body, "signatures": [{ "protected": header, "signature": signature }] }).to_string(),
        ),
    ] {
        add(what, token);
    }
    // Signed by the right key, and still nothing that is understood: extensions, unencoded payloads, members twice.
    let alg = algorithm.name();
    for text in [
        format!(r#"{{"alg":"{alg}","b64":false,"crit":["b64"]}}"#),
        format!(r#"{{"alg":"{alg}","b64":false}}"#),
        format!(r#"{{"alg":"{alg}","crit":["exp"],"exp":1}}"#),
        format!(r#"{{"alg":"{alg}","crit":[]}}"#),
        format!(r#"{{"alg":"{alg}","crit":"b64"}}"#),
        format!(r#"{{"alg":"none","alg":"{alg}"}}"#),
        format!(r#"{{"alg":"{alg}","alg":"none"}}"#),
        format!(r#"{{"alg":"{alg}","\u0061lg":"{alg}"}}"#),
        format!(r#"["{alg}"]"#),
        format!(r#"{{"alg":"{alg}"}}{{}}"#),
    ] {
        add(
            &format!("signed well under {text}"),
            signer.seal(&text, payload.as_bytes()),
        );
    }
    let unencoded = format!(
        "{}.{payload}",
        base64(format!(r#"{{"alg":"{alg}","b64":false,"crit":["b64"]}}"#))
    );
    let detached = base64(signer.signature(unencoded.as_bytes()));
    add("an unencoded payload", format!("{unencoded}.{detached}"));
    add(
        "a detached payload",
        format!("{}..{detached}", unencoded.split('.').next().unwrap()),
    );
    let twice = payload.replacen('{', r#"{"user_id":"42","#, 1);
    add(
        "a user id twice",
        signer.seal(&sent(&format!(r#"{{"alg":"{alg}"}}"#)), twice.as_bytes()),
    );
    made
}

#[test]
fn no_forgery_passes_and_no_address_in_one_is_visited() {
    for keys in [Keys::Static, Keys::Jwks, Keys::Issuers] {
        let target = Target::start(keys);
        let mut conn = target.gate.connect();
        let mut tried = 0;
        for signer in &target.signers {
            let more = target.claims_of(signer);
            for (what, token) in forgeries(signer, &more, &target.trap_url()) {
                assert!(!Target::accepts(&mut conn, &what, &token), "accepted: {what}");
                tried += 1;
            }
            assert!(Target::accepts(&mut conn, "the good one", &signer.with(&more)));
        }
        assert!(tried > 140 * target.signers.len(), "{tried}");
        assert_eq!(target.upstream.calls(), target.signers.len());
        target.nobody_was_visited();
    }
}

#[test]
fn a_key_of_one_issuer_serves_no_other() {
    let target = Target::start(Keys::Issuers);
    let mut conn = target.gate.connect();
    for signer in &target.signers {
        for name in Algorithm::ALL {
            let own = name == signer.algorithm;
            let claims = claims_with(&json!({ "iss": issuer(name) })).to_string();
            // Under the algorithm of the key, and under that of the issuer's key.
            for alg in [signer.algorithm, name] {
                let token = signer.seal(&format!(r#"{{"alg":"{}","kid":"k"}}"#, alg.name()), claims.as_bytes());
                let what = format!("{} as {} for {}", signer.algorithm.name(), alg.name(), issuer(name));
                assert_eq!(Target::accepts(&mut conn, &what, &token), own, "{what}");
            }
        }
    }
    // The public key of an issuer as the secret of one that uses HMAC.
    for signer in &target.signers {
        for form in public_forms(signer) {
            let claims = claims_with(&json!({ "iss": issuer(Algorithm::HS256) }));
            let token = forged(&json!({ "alg": "HS256", "kid": "k" }), &claims, &form);
            assert!(!Target::accepts(&mut conn, "a public key as a secret", &token));
        }
    }
    target.nobody_was_visited();
}

#[test]
fn a_key_of_one_rsa_algorithm_or_curve_serves_no_other() {
    // One RSA key that is configured for RS256 alone, and keys on two curves side by side.
    let upstream = RecordingUpstream::start();
    let (rsa, small, large) = (
        Signer::new(Algorithm::RS256),
        Signer::new(Algorithm::ES256),
        Signer::new(Algorithm::ES512),
    );
    let keys = [&rsa, &small, &large]
        .map(|signer| signer.key(signer.algorithm.name()))
        .join(", ");
    let gate = Gate::start(
        &config()
            .file("RS256", rsa.file())
            .file("ES256", small.file())
            .file("ES512", large.file())
            .jwt("users = \"none\"")
            .jwt(&format!("keys = [{keys}]"))
            .app(&upstream)
            .route("/api/*", "authenticate = [\"jwt\"]"),
    );
    let mut conn = gate.connect();
    for other in [
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ] {
        let signer = rsa.as_algorithm(other);
        for name in [other.name(), "RS256"] {
            let token = signer.seal(&format!(r#"{{"alg":"{name}"}}"#), claims().to_string().as_bytes());
            assert!(!Target::accepts(&mut conn, name, &token), "{} as {name}", other.name());
        }
    }
    for (signer, name) in [
        (&small, "ES512"),
        (&large, "ES256"),
        (&small, "ES384"),
        (&large, "ES521"),
    ] {
        let token = signer.seal(&format!(r#"{{"alg":"{name}"}}"#), claims().to_string().as_bytes());
        assert!(
            !Target::accepts(&mut conn, name, &token),
            "{} as {name}",
            signer.algorithm.name()
        );
    }
    assert_eq!(upstream.calls(), 0);
}

/// One change to a token's text.
#[derive(Debug, Clone)]
enum Change {
    FlipBit(Index, u8),
    Remove(Index),
    Repeat(Index),
    Insert(Index, u8),
    Exchange(Index, Index),
    /// A segment of another good token in its place.
    Graft(Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 0..7_u8).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        1 => index().prop_map(Change::Remove),
        1 => index().prop_map(Change::Repeat),
        1 => (index(), 0x21..0x7f_u8).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => (index(), index()).prop_map(|(one, other)| Change::Exchange(one, other)),
        1 => (index(), index()).prop_map(|(at, from)| Change::Graft(at, from)),
        1 => index().prop_map(Change::Cut),
    ]
}

impl Change {
    fn apply(&self, token: &str, others: &[String]) -> Vec<u8> {
        let mut bytes = token.as_bytes().to_vec();
        match self {
            Self::FlipBit(at, bit) => bytes[at.index(token.len())] ^= 1 << bit,
            Self::Remove(at) => drop(bytes.remove(at.index(token.len()))),
            Self::Repeat(at) => {
                let at = at.index(token.len());
                bytes.insert(at, bytes[at]);
            }
            Self::Insert(at, byte) => bytes.insert(at.index(token.len() + 1), *byte),
            Self::Exchange(one, other) => bytes.swap(one.index(token.len()), other.index(token.len())),
            Self::Graft(at, from) => {
                let at = at.index(3);
                let mut segments: Vec<&str> = token.split('.').collect();
                segments[at] = from.get(others).split('.').nth(at).unwrap();
                bytes = segments.join(".").into_bytes();
            }
            Self::Cut(at) => bytes.truncate(at.index(token.len())),
        }
        bytes
    }
}

/// The token without the padding that SimpleJWT takes.
fn unpadded(token: &str) -> String {
    let segments: Vec<&str> = token.split('.').map(|segment| segment.trim_end_matches('=')).collect();
    segments.join(".")
}

/// Whether another library verifies it with the key of that algorithm.
fn verified_elsewhere(signer: &Signer, token: &str) -> bool {
    let key = match signer.algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            Ok(jsonwebtoken::DecodingKey::from_secret(&signer.private))
        }
        Algorithm::ES256 | Algorithm::ES384 => jsonwebtoken::DecodingKey::from_ec_pem(signer.public.as_bytes()),
        Algorithm::EdDSA => jsonwebtoken::DecodingKey::from_ed_pem(signer.public.as_bytes()),
        // It knows no ES512.
        Algorithm::ES512 => return true,
        _ => jsonwebtoken::DecodingKey::from_rsa_pem(signer.public.as_bytes()),
    };
    let mut rules = jsonwebtoken::Validation::new(signer.algorithm.name().parse().unwrap());
    rules.set_required_spec_claims::<&str>(&[]);
    jsonwebtoken::decode::<Value>(token, &key.unwrap(), &rules).is_ok()
}

#[test]
fn a_token_that_was_changed_anywhere_is_no_token() {
    for keys in [Keys::Static, Keys::Issuers] {
        no_changed_token_is_accepted(keys);
    }
}

fn no_changed_token_is_accepted(keys: Keys) {
    let target = Target::start(keys);
    let good = |signer: &Signer| signer.with(&target.claims_of(signer));
    let tokens: Vec<String> = target.signers.iter().map(good).collect();
    let mut conn = target.gate.connect();
    for (signer, token) in target.signers.iter().zip(&tokens) {
        assert!(Target::accepts(&mut conn, "good", token) && verified_elsewhere(signer, token));
    }
    let conn = std::cell::RefCell::new(conn);
    let budget = Budget {
        cases: 3000,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x6175_7468),
        ..Budget::default()
    };
    let mut runner = TestRunner::new(budget);
    let case = (any::<Index>(), proptest::collection::vec(change(), 1..3));
    let run = runner.run(&case, |(which, changes)| {
        let at = which.index(tokens.len());
        let mut bytes = tokens[at].clone().into_bytes();
        for change in &changes {
            // A change may have cut the token to nothing, or out of its three segments.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.split('.').count() != 3 || text.is_empty() || !text.is_ascii() {
                break;
            }
            bytes = change.apply(&text, &tokens);
        }
        let printable = bytes.iter().all(|byte| (0x21..0x7f).contains(byte));
        prop_assume!(printable && !bytes.is_empty());
        let token = String::from_utf8(bytes).unwrap();
        let same = tokens.iter().any(|good| unpadded(good) == unpadded(&token));
        let accepted = Target::accepts(&mut conn.borrow_mut(), &token, &token);
        prop_assert!(!accepted || same, "accepted: {changes:?}");
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    target.nobody_was_visited();
}

#[test]
fn no_forged_proof_is_accepted() {
    const URI: &str = "http://localhost/api/x";
    let (upstream, server) = (RecordingUpstream::start(), Signer::new(Algorithm::ES256));
    let gate = Gate::start(&with_keys(&upstream, &[&server]).jwt("dpop = \"require\""));
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256];
    let clients = algorithms.map(ProofKey::new);
    let tokens: Vec<String> = clients
        .iter()
        .map(|client| server.with(&json!({ "cnf": client.cnf() })))
        .collect();
    let proofs: Vec<String> = (clients.iter().zip(&tokens))
        .map(|(client, token)| client.proof("GET", URI, token))
        .collect();
    let conn = std::cell::RefCell::new(gate.connect());
    let status = |token: &str, proof: &str| {
        let call = get("/api/x")
            .authorization(&format!("DPoP {token}"))
            .header("DPoP", proof);
        conn.borrow_mut().call(&call).status
    };
    for (client, token) in clients.iter().zip(&tokens) {
        let claims = ProofKey::claims("GET", URI, token).to_string();
        for secret in public_forms(&client.signer) {
            for header in [
                json!({ "alg": "HS256" }),
                json!({ "alg": client.signer.algorithm.name() }),
            ] {
                let header = json!({ "typ": "dpop+jwt", "jwk": client.jwk, "alg": header["alg"] });
                let proof = forged(&header, &serde_json::from_str(&claims).unwrap(), &secret);
                assert_eq!(status(token, &proof), 401, "{header}");
            }
        }
        let header = json!({ "typ": "dpop+jwt", "jwk": client.jwk, "alg": "none" });
        assert_eq!(
            status(token, &format!("{}.{}.", base64(header.to_string()), base64(&claims))),
            401
        );
    }
    let budget = Budget {
        cases: 1500,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x6470_6f70),
        ..Budget::default()
    };
    let case = (any::<Index>(), proptest::collection::vec(change(), 1..3));
    let run = TestRunner::new(budget).run(&case, |(which, changes)| {
        let at = which.index(proofs.len());
        let mut proof = proofs[at].clone();
        for change in &changes {
            if proof.split('.').count() != 3 {
                break;
            }
            proof = String::from_utf8_lossy(&change.apply(&proof, &proofs)).into_owned();
            prop_assume!(proof.bytes().all(|byte| (0x21..0x7f).contains(&byte)) && !proof.is_empty());
        }
        prop_assume!(!proofs.contains(&proof));
        let status = status(&tokens[at], &proof);
        prop_assert!(matches!(status, 400 | 401), "{status}: {changes:?}");
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    assert_eq!(upstream.calls(), 0);
    // None of them has used up the good ones.
    for (token, proof) in tokens.iter().zip(&proofs) {
        assert_eq!((status(token, proof), status(token, proof)), (200, 401));
    }
}
