//! [`Case`]: a request's `Authorization` lines, made at random from what is good and what is odd.

use fastrand::Rng;
use serde_json::json;

use super::grammar::{Object, VALUES, nth, odd, one, rarely, time};
use super::world::World;
use crate::harness::mint::{base64, now};

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

    pub fn of_line(line: Vec<u8>) -> Self {
        Self {
            lines: vec![line],
            recipe: None,
        }
    }
}

/// A token with one odd claim: every value of the first of these claims, then of the next.
pub fn in_turn(world: &World, names: &[&str], at: usize) -> Case {
    let mut recipe = Recipe::good(world);
    recipe.claims.set(world.claim(names[at / VALUES]), nth(at % VALUES));
    recipe.signed(world)
}

/// A token whose header or claims are odd in a few places.
pub fn claims(rng: &mut Rng, world: &World) -> Case {
    let mut recipe = Recipe::good(world);
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
    recipe.signed(world)
}

impl Recipe {
    fn good(world: &World) -> Self {
        Self {
            header: Object::of(&json!({ "alg": world.signer.algorithm.name(), "typ": "JWT" })),
            claims: Object::of(&world.claims()),
            encoding: Encoding::Utf8,
            around: ("", ""),
        }
    }

    /// Its id is on the blacklist.
    pub fn is_blacklisted(&self, world: &World) -> bool {
        let jti = self.claims.raw(world.claim("jti"));
        jti.and_then(|raw| serde_json::from_str(raw).ok())
            .is_some_and(|jti: String| jti == "canary-blacklisted")
    }

    fn signed(self, world: &World) -> Case {
        let signed = format!("{}.{}", base64(self.header.text()), base64(bytes(&self)));
        let token = format!("{signed}.{}", base64(world.signer.signature(signed.as_bytes())));
        Case {
            lines: vec![format!("{} {token}", world.scheme()).into_bytes()],
            recipe: Some(self),
        }
    }
}

/// A token of some type, with or without an id, good or over: what the token classes tell apart.
pub fn kinds(rng: &mut Rng, world: &World) -> Case {
    let mut recipe = Recipe::good(world);
    let soon = now() + 300;
    let choices: [(&str, &[&str]); 4] = [
        ("token_type", &["\"access\"", "\"sliding\"", "\"refresh\"", "null", ""]),
        ("jti", &["\"canary-jti\"", "\"canary-blacklisted\"", ""]),
        (
            "exp",
            &[&soon.to_string(), &soon.to_string(), "1000000000", "9999999999999", ""],
        ),
        ("user_id", &["\"42\"", "\"ada\"", "43", "\"9\"", ""]),
    ];
    for (name, values) in choices {
        match one(rng, values) {
            "" => recipe.claims.remove(world.claim(name)),
            value => recipe.claims.set(world.claim(name), value.to_owned()),
        }
    }
    recipe.signed(world)
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
    let called = world.claim(name);
    if rarely(rng, 8) {
        return claims.remove(called);
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
        let escaped = format!("\"\\u{:04x}{}\"", u32::from(called.as_bytes()[0]), &called[1..]);
        if rng.bool() {
            claims.0.push((escaped, value));
        } else {
            claims.add(called, value);
        }
    } else {
        claims.set(called, value);
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
