//! The declarations of keys say what is read, and the manual can be made from them.

use std::collections::BTreeSet;

use authgate_auth::jwt::{Profile, Rules};
use authgate_auth::store::django::{TokenTable, UserTable};

use super::read;
use crate::config::declarations::{Place, for_each_table as tables};
use crate::config::keys::{admin, authenticators, django, identity, introspection, issuer, stores};
use crate::config::reader::{Declared, Presence, READ_KEYS, Shape, Table, table_id};

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    tables(&mut |place| places.push(place.clone()));
    places
}

/// Every key once, with the path of its first place.
fn keys() -> Vec<(String, &'static dyn Declared)> {
    let mut known: Vec<(String, &'static dyn Declared)> = Vec::new();
    for place in places() {
        for key in place.table.keys {
            if !known.iter().any(|(_, before)| std::ptr::addr_eq(*before, *key)) {
                known.push((place.path_of(key.name()), *key));
            }
        }
    }
    known
}

#[test]
fn every_declared_key_is_read() {
    // Any key that is read without a declaration fails this test in the reader.
    for text in [include_str!("every_table.toml"), include_str!("full.toml")] {
        let _ = read(text);
    }
    let unread: Vec<String> = places()
        .iter()
        .flat_map(|place| place.table.keys.iter().map(move |key| (place, key.name())))
        .filter(|(place, name)| READ_KEYS.with_borrow(|read| !read.contains(&(table_id(place.table), name))))
        .map(|(place, name)| place.path_of(name))
        .collect();
    assert!(unread.is_empty(), "declared, and never read: {unread:?}");
}

#[test]
fn every_key_has_the_words_that_the_manual_needs() {
    for (path, key) in keys() {
        let about = key.about();
        assert!(
            about.text.ends_with('.'),
            "{path}: the text is no sentence: {:?}",
            about.text
        );
        assert!(["0.1.0", "0.2.0"].contains(&about.since), "{path}");
        let has_default = key.default_toml().is_some();
        assert!(
            has_default
                || !about.absent.is_empty()
                || about.presence != Presence::Optional
                || path.contains(".any")
                || path.contains(".all")
                || path.starts_with("routes[].require"),
            "{path}: what holds without it?"
        );
        assert!(
            about.presence != Presence::Required || (!has_default && about.absent.is_empty()),
            "{path}"
        );
        for error in about.errors {
            assert!(error.ends_with('.') || error.ends_with('`'), "{path}: {error}");
        }
    }
    for place in places() {
        assert!(place.table.text.ends_with('.'), "{}", place.path);
        let names: BTreeSet<&str> = place.table.names().collect();
        assert_eq!(
            names.len(),
            place.table.keys.len(),
            "{}: a key is listed twice",
            place.path
        );
    }
}

#[test]
fn every_example_is_toml_with_the_key() {
    for (path, key) in keys() {
        let example = key.example_toml();
        let value: toml::Table = toml::from_str(&example).unwrap_or_else(|error| panic!("{path}: {example}: {error}"));
        let written = format!("{value:?}");
        assert!(
            value.contains_key(key.name()) || written.contains(&format!("{:?}", key.name())) || written.contains("env"),
            "{path}: {example}"
        );
    }
}

/// Defaults that depend on other keys, or are no constants, are words in the manual. They are those of the code.
#[test]
fn defaults_in_words_are_those_of_the_code() {
    let check = |key: &dyn Declared, expected: &str| {
        assert!(
            key.about().absent.contains(expected),
            "{}: {:?} does not say {expected:?}",
            key.name(),
            key.about().absent
        );
    };
    check(&admin::LISTEN, &admin::DEFAULT_LISTEN.to_string());
    check(&stores::DIGEST, "sha256");
    check(&authenticators::TOKEN_SCHEME, authenticators::DEFAULT_TOKEN_SCHEME);
    check(&authenticators::SCHEMES, authenticators::DEFAULT_SCHEME);
    check(&introspection::JTI_CLAIM, introspection::DEFAULT_JTI_CLAIM);
    for (name, _) in identity::default_headers() {
        let name = name.as_str().to_ascii_lowercase();
        assert!(identity::HEADERS.about().absent.to_ascii_lowercase().contains(&name));
    }
    let users = UserTable::default();
    for (key, column) in [
        (&django::users::EMAIL, users.email),
        (&django::users::ACTIVE, users.active),
        (&django::users::PASSWORD, users.password),
    ] {
        check(key, &column.expect("a column"));
    }
    assert_eq!(django::users::TABLE_NAME.default(), users.table);
    assert_eq!(django::users::ID.default(), users.id);
    assert_eq!(django::users::USERNAME.default(), users.username);
    assert_eq!(django::tokens::USER.default(), TokenTable::authtoken().user);
    for profile in [Profile::SimpleJwt, Profile::Plain, Profile::Rfc9068] {
        let rules = Rules::of(profile);
        assert_eq!(issuer::LEEWAY.default(), rules.leeway);
        assert_eq!(issuer::MAX_LIFETIME.default(), rules.max_lifetime);
        check(&issuer::USER_ID_CLAIM, &rules.user_id_claim);
        check(
            &issuer::TOKEN_TYPE_CLAIM,
            rules.token_type_claim.as_deref().unwrap_or("false"),
        );
        check(&issuer::JTI_CLAIM, rules.jti_claim.as_deref().unwrap_or("false"));
    }
}

#[test]
fn the_tables_of_kinds_are_the_words_of_kind() {
    let check = |kind: &dyn Declared, tables: &Shape| {
        let (Shape::Words(words), Shape::Names { of, .. }) = (kind.shape(), tables) else {
            panic!("other shapes")
        };
        let Shape::Kinds(tables) = &**of else {
            panic!("no kinds")
        };
        let kinds: Vec<&str> = tables.iter().filter_map(|table: &&Table| table.kind).collect();
        assert_eq!(kinds, words);
    };
    check(&stores::KIND, &crate::config::keys::STORES.shape());
    check(&authenticators::KIND, &crate::config::keys::AUTHENTICATORS.shape());
}
