//! Cases that are not about what a token says, but about its text, and about the lines around it.

use fastrand::Rng;
use serde_json::json;

use super::cases::Case;
use super::grammar::{odd, one, rarely};
use super::world::{TOKENS, World};
use crate::harness::mint::{base64, forged};

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
    Case::of_line([format!("{} ", world.scheme()).as_bytes(), &token].concat())
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
    if rarely(rng, 25) {
        // Halves of a key: a server that joins the lines puts them together again.
        let (first, second) = one(rng, &TOKENS[4..6]).split_once(',').expect("a comma");
        let lines = vec![format!("Token {first}").into_bytes(), second.as_bytes().to_vec()];
        return Case { lines, recipe: None };
    }
    let count = [1, 1, 1, 1, 2, 3][rng.usize(..6)];
    let good = world.signer.sign(&world.claims());
    let lines = (0..count).map(|_| line(rng, &good)).collect();
    Case { lines, recipe: None }
}

fn line(rng: &mut Rng, good: &str) -> Vec<u8> {
    let schemes: [&[u8]; 11] = [
        b"token",
        b"TOKEN",
        b"tOkEn",
        b"bearer",
        b"jwt",
        b"Basic",
        b"",
        "To\u{212a}en".as_bytes(),
        b"Token\xa0",
        b",Token",
        b"Bearer,",
    ];
    let blanks: [&[u8]; 7] = [b"  ", b"\t", b" \t ", b"\xa0", b"\x85", b"", b","];
    let ends: [&[u8]; 7] = [b" ", b"\t", b" x", b",", b" \xff", b" ,", b"\x01"];
    let keys: [&[u8]; 10] = [
        b"",
        b"canary-",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"canary-\x7f",
        b"canary-%00",
        b"\"\"",
        b"canary-comma",
        b"key",
    ];
    // Each part is as it should be, but for one time in so many.
    let part = |rng: &mut Rng, once_in: u32, usual: &[&[u8]], odd: &[&[u8]]| {
        let from = if rarely(rng, once_in) { odd } else { usual };
        from[rng.usize(..from.len())].to_vec()
    };
    let known: Vec<&[u8]> = TOKENS
        .iter()
        .map(|key| key.as_bytes())
        .chain([good.as_bytes(); 4])
        .collect();
    let mut key = part(rng, 5, &known, &keys);
    match rng.u32(..15) {
        0 => key.make_ascii_uppercase(),
        1 => key.truncate(rng.usize(..=key.len())),
        2 => key.insert(
            rng.usize(..=key.len()),
            [b' ', b'\t', b',', 0xff, b'%', b'"'][rng.usize(..6)],
        ),
        _ => {}
    }
    [
        part(rng, 6, &[b""], &[b" ", b"\t"]),
        part(rng, 3, &[b"Token", b"Token", b"Bearer", b"JWT"], &schemes),
        part(rng, 4, &[b" "], &blanks),
        key,
        part(rng, 5, &[b""], &ends),
    ]
    .concat()
}
