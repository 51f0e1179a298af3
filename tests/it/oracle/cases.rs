//! [`Case`]: a request's `Authorization` lines, made at random from what is good and what is odd.

use fastrand::Rng;
use serde_json::json;

use super::grammar::{Object, odd, one, rarely, time};
use super::world::{TOKENS, World};
use crate::harness::mint::{base64, forged, now};

/// How a JSON text becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Bom,
    Utf16,
    /// A surrogate in three bytes, which is no UTF-8.
    Surrogate,
    /// A byte that begins nothing.
    Junk,
}

/// A token that is well made but for what its header and claims say.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub header: Object,
    pub claims: Object,
    pub encoding: Encoding,
    /// Blanks and junk around the claims.
    pub around: (&'static str, &'static str),
}

#[derive(Debug, Clone)]
pub struct Case {
    pub lines: Vec<Vec<u8>>,
    /// Where the one line is an accepted scheme and a token that is signed with the right key.
    pub recipe: Option<Recipe>,
}

impl Case {
    pub fn request(&self, chain: &str) -> Vec<u8> {
        let mut request = format!("GET /api/whoami/{chain}/ HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for line in &self.lines {
            request.extend_from_slice(&[b"Authorization: ", line.as_slice(), b"\r\n"].concat());
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    /// For people.
    pub fn shown(&self) -> String {
        match &self.recipe {
            Some(recipe) => {
                let (before, after) = recipe.around;
                let (header, claims) = (recipe.header.text(), recipe.claims.text());
                format!(
                    "header {header} claims {before:?}{claims}{after:?} {:?}",
                    recipe.encoding
                )
            }
            None => self
                .lines
                .iter()
                .map(|line| format!("line {:?} ", line.escape_ascii().to_string()))
                .collect(),
        }
    }

    fn line(line: Vec<u8>) -> Self {
        Self {
            lines: vec![line],
            recipe: None,
        }
    }
}

fn bearer(world: &World, token: &str) -> Vec<u8> {
    format!("{} {token}", world.scheme()).into_bytes()
}

/// A token whose header or claims are odd in a few places.
pub fn claims(rng: &mut Rng, world: &World) -> Case {
    let mut recipe = Recipe {
        header: Object::of(&json!({ "alg": world.signer.algorithm.name(), "typ": "JWT" })),
        claims: Object::of(&world.claims()),
        encoding: Encoding::Utf8,
        around: ("", ""),
    };
    for _ in 0..1 + rng.u32(..5) / 2 {
        if rarely(rng, 6) {
            change_header(rng, world, &mut recipe.header);
        } else {
            change_claims(rng, world, &mut recipe.claims);
        }
    }
    rng.shuffle(&mut recipe.claims.0);
    if rarely(rng, 25) {
        recipe.encoding = [Encoding::Bom, Encoding::Utf16, Encoding::Surrogate, Encoding::Junk][rng.usize(..4)];
    }
    if rarely(rng, 25) {
        let before = one(rng, &["", " ", "\n\t", "\u{a0}", "\u{b}", "//", "["]);
        recipe.around = (before, one(rng, &["", "\r\n", " ", "x", ",", "\0", "{}"]));
    }
    let signed = format!("{}.{}", base64(recipe.header.text()), base64(bytes(&recipe)));
    let token = format!("{signed}.{}", base64(world.signer.signature(signed.as_bytes())));
    Case {
        lines: vec![bearer(world, &token)],
        recipe: Some(recipe),
    }
}

fn bytes(recipe: &Recipe) -> Vec<u8> {
    let with = |junk: &[u8]| {
        let mut claims = recipe.claims.clone();
        claims.add("x", "\"?\"".to_owned());
        let text = claims.text();
        let at = text.rfind('?').expect("just added");
        [&text.as_bytes()[..at], junk, &text.as_bytes()[at + 1..]].concat()
    };
    let (before, after) = recipe.around;
    let text = format!("{before}{}{after}", recipe.claims.text());
    match recipe.encoding {
        Encoding::Utf8 => text.into_bytes(),
        Encoding::Bom => format!("\u{feff}{text}").into_bytes(),
        Encoding::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Surrogate => with(b"\xed\xa0\x80"),
        Encoding::Junk => with(b"\xff"),
    }
}

fn change_claims(rng: &mut Rng, world: &World, claims: &mut Object) {
    let name = one(
        rng,
        &[
            "exp",
            "exp",
            "exp",
            "iat",
            "iat",
            "nbf",
            "nbf",
            "aud",
            "iss",
            "sub",
            "jti",
            "jti",
            "token_type",
            "token_type",
            "user_id",
            "user_id",
            "user_id",
            "user_id",
            "username",
            "email",
            "groups",
            "scope",
            "scp",
            "hash_password",
            "x",
        ],
    );
    if rarely(rng, 8) {
        return claims.remove(name);
    }
    let value = match name {
        "exp" | "iat" | "nbf" => time(rng, now()),
        "aud" if !rarely(rng, 3) => one(
            rng,
            &[
                "\"a\"",
                "\"b\"",
                "\"c\"",
                "\"A\"",
                "[\"a\"]",
                "[\"c\",\"b\"]",
                "[\"c\"]",
                "[\"a\",1]",
                "[\"a\",null]",
            ],
        )
        .to_owned(),
        "iss" if !rarely(rng, 3) => one(rng, &["\"i\"", "\"j\"", "[\"i\"]", "\"i \"", "\"\\u0069\""]).to_owned(),
        "token_type" if !rarely(rng, 3) => one(
            rng,
            &[
                "\"access\"",
                "\"sliding\"",
                "\"refresh\"",
                "\"Access\"",
                "\"access \"",
                "\"\\u0061ccess\"",
                "\"untyped\"",
            ],
        )
        .to_owned(),
        "jti" if !rarely(rng, 3) => one(
            rng,
            &[
                "\"canary-blacklisted\"",
                "\"canary-blacklisted\"",
                "\"canary-Blacklisted\"",
                "\"\"",
                "\"\\u0063anary-blacklisted\"",
            ],
        )
        .to_owned(),
        "user_id" if rarely(rng, 3) => one(
            rng,
            &[
                "42",
                "\"42\"",
                "43",
                "\"44\"",
                "7",
                "\"ada\"",
                "\"ben\"",
                "\"o'hara%41\"",
            ],
        )
        .to_owned(),
        "hash_password" if !rarely(rng, 3) => world.password_claim(rng),
        _ => odd(rng),
    };
    if rarely(rng, 8) {
        let escaped = format!("\"\\u{:04x}{}\"", u32::from(name.as_bytes()[0]), &name[1..]);
        if rng.bool() {
            claims.0.push((escaped, value));
        } else {
            claims.add(name, value);
        }
    } else {
        claims.set(name, value);
    }
}

fn change_header(rng: &mut Rng, world: &World, header: &mut Object) {
    let name = one(
        rng,
        &[
            "alg", "alg", "typ", "kid", "crit", "crit", "b64", "b64", "zip", "cty", "jku", "jwk", "x5c",
        ],
    );
    if rarely(rng, 6) {
        return header.remove(name);
    }
    let own = world.signer.algorithm.name();
    let (own, listed) = (format!("\"{own}\""), format!("[\"{own}\"]"));
    let value = match name {
        "alg" if !rarely(rng, 4) => one(
            rng,
            &[
                own.as_str(),
                own.as_str(),
                listed.as_str(),
                "\"none\"",
                "\"None\"",
                "\"\"",
                "\"HS256\"",
                "\"hs256\"",
                "\"HS384\"",
                "\"RS256\"",
                "\"ES256\"",
                "\"PS256\"",
            ],
        )
        .to_owned(),
        "crit" if !rarely(rng, 4) => one(
            rng,
            &[
                "[]",
                "[\"b64\"]",
                "[\"b64\",\"b64\"]",
                "[\"exp\"]",
                "[\"b64\",\"exp\"]",
                "[1]",
                "\"b64\"",
                "{\"b64\":1}",
            ],
        )
        .to_owned(),
        "b64" if !rarely(rng, 4) => one(rng, &["true", "true", "false", "null", "0"]).to_owned(),
        "kid" if !rarely(rng, 3) => one(rng, &["\"k\"", "\"\"", "\"../k\""]).to_owned(),
        _ => odd(rng),
    };
    if name == "crit" && rng.bool() {
        header.set("b64", "true".to_owned());
    }
    if rarely(rng, 8) {
        header.add(name, value);
    } else {
        header.set(name, value);
    }
}

/// A good token whose text was tampered with, before or after it was signed.
pub fn structure(rng: &mut Rng, world: &World) -> Case {
    let mut segments = [
        base64(json!({ "alg": world.signer.algorithm.name() }).to_string()),
        base64(world.claims().to_string()),
    ];
    let at = rng.usize(..2);
    match rng.u32(..9) {
        0 => segments[at].push_str(&"=".repeat((4 - segments[at].len() % 4) % 4)),
        1 => segments[at].push_str(&"=".repeat(rng.usize(1..5))),
        2 => segments[at] = next_character(&segments[at], segments[at].len() - 1),
        3 => segments[at].insert(
            rng.usize(..segments[at].len()),
            one(rng, &["+", "/", ".", "=", "!", "%"]).chars().next().expect("one"),
        ),
        4 => segments[at].clear(),
        5 => segments[at] = base64(odd(rng)),
        _ => {}
    }
    let signed = segments.join(".");
    let mut signature = base64(world.signer.signature(signed.as_bytes()));
    match rng.u32(..14) {
        0 => signature.clear(),
        1 => signature.push_str(&"=".repeat((4 - signature.len() % 4) % 4)),
        2 => signature.push('='),
        3 => signature.truncate(rng.usize(..signature.len())),
        4 => signature = next_character(&signature, rng.usize(..signature.len())),
        5 => signature = next_character(&signature, signature.len() - 1),
        6 => signature.push_str("AAAA"),
        7 => signature = "A".repeat(signature.len()),
        _ => {}
    }
    let mut token = format!("{signed}.{signature}").into_bytes();
    match rng.u32(..12) {
        0 => token.insert(
            rng.usize(..=token.len()),
            one(rng, &[".", "=", ",", "\"", "+"]).as_bytes()[0],
        ),
        1 => token.insert(rng.usize(..=token.len()), [0xa0, 0x85, 0xff][rng.usize(..3)]),
        2 => {
            token = one(rng, &["", ".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.e30", "null"])
                .as_bytes()
                .to_vec()
        }
        3 => {
            // The public key as a secret, or the secret under another hash.
            let algorithm = one(rng, &["HS256", "HS384", "none", "RS256", "ES256"]);
            token = forged(&json!({ "alg": algorithm }), &world.claims(), &world.signer.file()).into_bytes();
        }
        _ => {}
    }
    Case::line([format!("{} ", world.scheme()).as_bytes(), &token].concat())
}

/// The character at that place becomes the next one of the alphabet, which changes as few bits as can be.
fn next_character(text: &str, at: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = text.as_bytes().to_vec();
    let place = ALPHABET.iter().position(|own| *own == bytes[at]).unwrap_or(0);
    bytes[at] = ALPHABET[place ^ 1];
    String::from_utf8(bytes).expect("ASCII")
}

/// Odd lines around good credentials.
pub fn words(rng: &mut Rng, world: &World) -> Case {
    let count = [1, 1, 1, 1, 2, 3][rng.usize(..6)];
    let good = world.signer.sign(&world.claims());
    let lines = (0..count).map(|_| line(rng, &good)).collect();
    Case { lines, recipe: None }
}

fn line(rng: &mut Rng, good: &str) -> Vec<u8> {
    let schemes: [&[u8]; 18] = [
        b"Token",
        b"Token",
        b"Token",
        b"token",
        b"TOKEN",
        b"tOkEn",
        b"Bearer",
        b"Bearer",
        b"Bearer",
        b"bearer",
        b"JWT",
        b"jwt",
        b"Basic",
        b"",
        "To\u{212a}en".as_bytes(),
        b"Token\xa0",
        b",Token",
        b"Bearer,",
    ];
    let blanks: [&[u8]; 11] = [
        b" ", b" ", b" ", b" ", b"  ", b"\t", b" \t ", b"\xa0", b"\x85", b"", b",",
    ];
    let ends: [&[u8]; 12] = [
        b"", b"", b"", b"", b"", b" ", b"\t", b" x", b",", b" \xff", b" ,", b"\t\t",
    ];
    let mut key = match rng.u32(..8) {
        0 => good.as_bytes().to_vec(),
        1 => Vec::new(),
        2 => one(
            rng,
            &[
                &b"canary-"[..],
                b"\xff",
                b"\xc0\x80",
                b"\xed\xa0\x80",
                b"canary-\xf4\x90\x80\x80",
                b"canary-%00",
                b"\"\"",
                b"canary-comma",
                b"key",
            ],
        )
        .to_vec(),
        3 if rng.bool() => good.as_bytes().to_vec(),
        _ => TOKENS[rng.usize(..TOKENS.len())].as_bytes().to_vec(),
    };
    match rng.u32(..10) {
        0 => key.make_ascii_uppercase(),
        1 => key.truncate(rng.usize(..=key.len())),
        2 => key.insert(
            rng.usize(..=key.len()),
            [b' ', b'\t', b',', 0xff, b'%', b'"'][rng.usize(..6)],
        ),
        _ => {}
    }
    let before: &[u8] = one(rng, &[&b""[..], b"", b"", b" ", b"\t"]);
    [before, one(rng, &schemes), one(rng, &blanks), &key, one(rng, &ends)].concat()
}
