//! Forged tokens for each algorithm, after attacks on verifiers of JWS.

use authgate_auth::jwt::keys::Algorithm;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::mint::{Signer, base64, claims_with, forged};

/// The public key in every form that an attacker may use as an HMAC secret.
pub fn public_forms(signer: &Signer) -> Vec<Vec<u8>> {
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

/// Signatures that a verifier without strict checks accepts, made of a good one.
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

/// Headers that name a key of the attacker, another algorithm, or none.
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
pub fn forgeries(signer: &Signer, more: &Value, trap: &str) -> Vec<(String, String)> {
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
            // A signature of the right key, under the name of another algorithm.
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
    // A signature covers the whole text, as it was sent.
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
    // Signed by the right key, with a header that is refused: extensions, unencoded payloads, duplicate members.
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
