//! `signed` of an `[identity]` table: the keys and rules by which the gateway signs identities.

use std::ops::Range;
use std::sync::Arc;

use authgate_auth::identity_signer::IdentitySignerSettings;
use authgate_auth::jwt::identity_key::IdentityKey;
use authgate_auth::jwt::keys::Algorithm;
use authgate_core::outbound::identity::{IdentityTable, ValueSource};
use authgate_core::secret::Secret;
use authgate_dataplane::file;
use http::HeaderName;
use http::header::AUTHORIZATION;

use super::value_source::source;
use crate::config::PublishedKey;
use crate::config::keys::identity::signed::{self as keys, key as key_keys};
use crate::config::reader::{Declared, Item};

/// What `signed` says, without the audience.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) header: HeaderName,
    /// Where the file names the header, or has `signed`.
    pub(super) header_span: Range<usize>,
    /// The first one signs.
    key: Arc<IdentityKey>,
    issuer: String,
    ttl: std::time::Duration,
    /// `None`: the standard ones, and the claims and attributes that `headers` names.
    facts: Option<Vec<ValueSource>>,
}

/// A published key, and where the file has it.
#[derive(Debug)]
pub(super) struct WrittenKey {
    pub(super) published: PublishedKey,
    pub(super) span: Range<usize>,
}

impl Signed {
    /// The settings of the signer for one audience. `table` are the headers of the same upstream.
    pub(super) fn for_audience(&self, audience: String, table: &IdentityTable) -> IdentitySignerSettings {
        let facts = self.facts.clone().unwrap_or_else(|| {
            let named = table.headers().iter().map(|(_, source)| source);
            let named = named.filter(|source| matches!(source, ValueSource::Claim(_) | ValueSource::Attribute(_)));
            keys::DEFAULT_FACTS.iter().chain(named).cloned().collect()
        });
        IdentitySignerSettings {
            header: self.header.clone(),
            key: Arc::clone(&self.key),
            issuer: self.issuer.clone(),
            audience,
            ttl: self.ttl,
            facts: facts.into(),
        }
    }
}

/// Reads `signed`. Its keys are added to `published`, and the name of its header to `names`. `None`: it is false, or has errors.
pub(super) fn signed(item: Item<'_>, published: &mut Vec<WrittenKey>, names: &mut Vec<Box<str>>) -> Option<Signed> {
    if item.value().as_bool() == Some(false) {
        return None;
    }
    let span = item.span();
    let mut section = item.section(&keys::TABLE)?;
    let (header, header_span) = match section.take(&keys::HEADER) {
        None => (Some(keys::DEFAULT_HEADER.to_owned()), span),
        Some(item) => (header(&item), item.span()),
    };
    let key = section
        .require(&keys::KEYS)
        .and_then(|item| read_keys(&item, published));
    let issuer = section.read(&keys::ISSUER);
    let ttl = section.take(&keys::TTL);
    let ttl = ttl.map_or(Some(keys::TTL.default()), |item| keys::TTL.read(&item));
    let facts = section.take(&keys::FACTS).map(|item| facts(&item));
    let written = header?;
    let header = HeaderName::try_from(&written).ok()?;
    names.push(written.into());
    Some(Signed {
        header,
        header_span,
        key: key?,
        issuer,
        ttl: ttl?,
        facts: match facts {
            None => None,
            Some(facts) => Some(facts?),
        },
    })
}

/// The name of the header, as the file writes it.
fn header(item: &Item<'_>) -> Option<String> {
    let name = keys::HEADER.read(item)?;
    if name == AUTHORIZATION {
        item.refuse(
            "Authorization carries the credential",
            format!("write another name, such as {:?}", keys::DEFAULT_HEADER),
        );
        return None;
    }
    item.non_empty_text()
}

fn facts(item: &Item<'_>) -> Option<Vec<ValueSource>> {
    let mut facts: Vec<ValueSource> = Vec::new();
    let list = item.list(&keys::FACTS)?;
    for item in &list {
        let text = item.text_for(
            "a field of an identity",
            &format!("write `{}`", keys::FACTS.example_toml()),
        )?;
        let fact = source(&text)?;
        if fact == ValueSource::Id {
            text.refuse("is in every token, as the claim `sub`", "remove it");
        } else if facts.contains(&fact) {
            text.refuse("is listed twice", "remove one of them");
        }
        facts.push(fact);
    }
    Some(facts)
}

/// Reads the list; returns the key that signs.
fn read_keys(item: &Item<'_>, published: &mut Vec<WrittenKey>) -> Option<Arc<IdentityKey>> {
    let list = item.non_empty_list_of_tables(&keys::KEYS)?;
    let mut read: Vec<Arc<IdentityKey>> = Vec::new();
    for item in &list {
        let Some(key) = key(item) else { continue };
        let key = Arc::new(key);
        if read.iter().any(|other| other.fingerprint() == key.fingerprint()) {
            item.refuse("this key is listed twice", "remove one of them");
        }
        add(item, &key, published);
        read.push(key);
    }
    (read.len() == list.len()).then(|| read.swap_remove(0))
}

/// Publishes a key, if another `signed` table has not already done so.
fn add(item: &Item<'_>, key: &Arc<IdentityKey>, published: &mut Vec<WrittenKey>) {
    let same = |other: &&WrittenKey| other.published.key.kid() == key.kid();
    match published.iter().find(same) {
        Some(other) if other.published.key.fingerprint() == key.fingerprint() => {}
        Some(other) => {
            let message = format!(
                "two keys have the `kid` {:?}: applications could not tell them apart",
                key.kid()
            );
            let problem = item.problem(message, "give each key a `kid` of its own, or none");
            item.add(problem.with_related(other.span.clone(), "the other one"));
        }
        None => published.push(WrittenKey {
            published: PublishedKey {
                path: item.key().to_owned(),
                key: Arc::clone(key),
            },
            span: item.span(),
        }),
    }
}

fn key(item: &Item<'_>) -> Option<IdentityKey> {
    let mut section = item.clone().section(&key_keys::TABLE)?;
    let known = IdentityKey::ALGORITHMS.map(|algorithm| (algorithm.name(), algorithm));
    let algorithm = section
        .require(&key_keys::ALGORITHM)
        .and_then(|item| item.text()?.choice(&known));
    let file_item = section.require(&key_keys::FILE);
    let kid = section.take(&key_keys::KID).map(|item| key_keys::KID.read(&item));
    let (algorithm, file_item) = (algorithm?, file_item?);
    let kid = match kid {
        None => None,
        Some(kid) => Some(kid?),
    };
    let file = file_item.path()?;
    let key = file::read(&file)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|pem| IdentityKey::new(algorithm, kid, &Secret::new(pem)).map_err(|error| error.to_string()));
    match key {
        Ok(key) => {
            file_item.warn_if_readable_by_all(&file);
            Some(key)
        }
        Err(error) => {
            let help = format!(
                "name a private key: {} creates one, and `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW` converts other forms of PEM",
                creation(algorithm)
            );
            file_item.refuse(format!("{}: {error}", file.display()), help);
            None
        }
    }
}

pub(super) fn creation(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out identity.key`",
        Algorithm::RS256 => "`openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out identity.key`",
        _ => "`openssl genpkey -algorithm ED25519 -out identity.key`",
    }
}
