//! Good tokens with random changes. A token that was changed is refused.

use authgate_auth::jwt::keys::Algorithm;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Budget, RngAlgorithm, RngSeed, TestRunner};
use serde_json::Value;

use crate::forgery::{Keys, Target};
use crate::harness::mint::Signer;

/// One change to a token's text.
#[derive(Debug, Clone)]
pub enum Change {
    FlipBit(Index, u8),
    Remove(Index),
    Repeat(Index),
    Insert(Index, u8),
    Exchange(Index, Index),
    /// A segment of another good token in its place.
    Graft(Index, Index),
    Cut(Index),
}

pub fn change() -> impl Strategy<Value = Change> {
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
    pub fn apply(&self, token: &str, others: &[String]) -> Vec<u8> {
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

/// The token without the padding that SimpleJWT accepts.
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
        // It does not support ES512.
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
    target.no_address_was_visited();
}
