//! `[stores.*]`: the stores of tokens, users and revocations.

use std::collections::HashSet;
use std::sync::Arc;

use authgate_auth::AuthenticatorSettings;
use authgate_auth::jwt::Users;
use authgate_auth::store::django::TokenKey;
use authgate_auth::store::embedded::EmbeddedSettings;
use authgate_auth::store::redis::{Endpoint, Login, RedisSettings, Seal, Servers};
use authgate_auth::store::{Digests, StoreKind, StoreSettings};

use super::Names;
use super::common::digests;
use super::django_store::django;
use super::redis_servers::{servers, tls};
use crate::config::keys::stores::{self as keys, Kind};
use crate::config::keys::{self as tables};
use crate::config::reader::{Item, Section};

/// The word that means no store in other keys.
pub(super) const NONE: &str = "none";

/// The parsed stores.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) names: Names,
    pub(super) settings: Vec<StoreSettings>,
}

impl Stores {
    fn kind(&self, name: &str) -> Option<&StoreKind> {
        let mut settings = self.settings.iter();
        Some(&settings.find(|store| *store.name == *name)?.kind)
    }

    /// Why opaque tokens cannot be looked up in a store, and what to write instead.
    pub(super) fn lacks_tokens(&self, name: &str) -> Option<(String, &'static str)> {
        match self.kind(name)? {
            StoreKind::Django(django) if django.tokens.is_none() => Some((
                format!("store {name:?} has no tokens: it says `tokens = \"none\"`"),
                "write `tokens = \"authtoken\"` or `tokens = \"knox\"` there, or name another store here",
            )),
            StoreKind::Django(_) | StoreKind::Redis(_) | StoreKind::Embedded(_) => None,
        }
    }

    /// Why a store cannot be a source, and what to write instead.
    pub(super) fn cannot_be_source(&self, name: &str) -> Option<(String, &'static str)> {
        match self.kind(name)? {
            StoreKind::Django(_) => self.lacks_tokens(name),
            StoreKind::Redis(_) | StoreKind::Embedded(_) => Some((
                format!("store {name:?} cannot be a source: a source is the database of an application"),
                "name a store of `kind = \"django\"`, or remove `source`",
            )),
        }
    }

    /// Checks a store in front of a source: the gateway writes to it what the source says.
    pub(super) fn check_front(&self, item: &Item<'_>, name: &str, source: &str) {
        match (self.kind(name), self.kind(source)) {
            (Some(StoreKind::Redis(redis)), Some(StoreKind::Django(django))) => {
                let needed = match django.tokens.as_ref().map(|tokens| &tokens.key) {
                    Some(TokenKey::Digest { .. }) => django.digests,
                    Some(TokenKey::Plain(_)) | None => Digests::SHA256,
                };
                if !redis.digests.include(needed) {
                    item.refuse(
                        format!("store {name:?} does not look tokens up by the digests that source {source:?} reports"),
                        "write in the store's table `digest = [\"sha256\"]` for authtoken, or the `digest` of the source for knox",
                    );
                }
            }
            (Some(StoreKind::Embedded(_) | StoreKind::Django(_)), _) => item.refuse(
                format!("the gateway cannot write to store {name:?} what the source says"),
                "name a store of `kind = \"redis\"`, or remove `source` and look tokens up in the database itself",
            ),
            (_, _) => {}
        }
    }

    /// Whether a store may be unable to answer. A file is read beforehand.
    pub(super) fn can_be_in_outage(&self, name: &str) -> bool {
        match self.kind(name) {
            Some(StoreKind::Embedded(_)) => false,
            Some(StoreKind::Redis(_) | StoreKind::Django(_)) | None => true,
        }
    }

    /// Whether used proofs can be recorded in a store.
    pub(super) fn records_proofs(&self, name: &str) -> bool {
        match self.kind(name) {
            Some(StoreKind::Embedded(_) | StoreKind::Django(_)) => false,
            Some(StoreKind::Redis(_)) | None => true,
        }
    }

    /// Whether a store knows the digests of passwords.
    pub(super) fn has_passwords(&self, name: &str) -> bool {
        match self.kind(name) {
            Some(StoreKind::Django(django)) => django.users.password.is_some(),
            Some(StoreKind::Redis(_) | StoreKind::Embedded(_)) | None => true,
        }
    }

    /// Leaves out the column with the password hash where no authenticator compares it: then no right to it is needed.
    pub(super) fn leave_out_passwords<'a>(&mut self, authenticators: impl Iterator<Item = &'a AuthenticatorSettings>) {
        let jwts = authenticators.filter_map(|authenticator| authenticator.kind.as_jwt());
        let issuers = jwts.flat_map(|jwt| jwt.issuers.all());
        let compared = issuers.filter_map(|issuer| match &issuer.users {
            Users::Store {
                store,
                revoke_claim: Some(_),
                ..
            } => Some(&**store),
            Users::Store { .. } | Users::Claims { .. } => None,
        });
        let compared: HashSet<&str> = compared.collect();
        for store in &mut self.settings {
            if let StoreKind::Django(django) = &mut store.kind
                && !compared.contains(&*store.name)
            {
                django.users.unread_password = django.users.password.take();
            }
        }
    }

    /// Whether a store has lists of what was revoked.
    pub(super) fn has_revocations(&self, name: &str) -> bool {
        match self.kind(name) {
            Some(StoreKind::Django(_)) => false,
            Some(StoreKind::Redis(_) | StoreKind::Embedded(_)) | None => true,
        }
    }
}

pub(super) fn stores(root: &mut Section<'_>) -> Stores {
    let mut stores = Stores {
        names: Names::new("stores", "store"),
        settings: Vec::new(),
    };
    let section = root.take(&tables::STORES).and_then(Item::names);
    let Some(mut section) = section else {
        return stores;
    };
    for named in section.take_all() {
        let name: Arc<str> = named.name.into();
        if named.name == NONE {
            named.item.refuse(
                "a store cannot be named `none`: in other keys this word means no store",
                "rename it",
            );
        }
        stores.names.add(&name, named.span.clone());
        if let Some(kind) = kind(named.item) {
            stores.settings.push(StoreSettings { name, kind });
        }
    }
    stores.settings.sort_by(|one, other| one.name.cmp(&other.name));
    stores
}

fn kind(item: Item<'_>) -> Option<StoreKind> {
    match item.kind(&keys::KIND, &keys::UNKNOWN)? {
        Kind::Redis => item.section(&keys::REDIS).and_then(redis).map(StoreKind::Redis),
        Kind::Embedded => item
            .section(&keys::EMBEDDED)
            .and_then(embedded)
            .map(StoreKind::Embedded),
        Kind::Django => item
            .section(&tables::django::TABLE)
            .and_then(django)
            .map(StoreKind::Django),
    }
}

fn redis(mut section: Section<'_>) -> Option<RedisSettings> {
    let servers = servers(&mut section);
    let username = section.optional(&keys::USERNAME);
    let password_item = section.take(&keys::PASSWORD);
    let password = password_item.as_ref().and_then(|item| keys::PASSWORD.read(item));
    if let (Some(item), Some(Servers::Single(endpoint))) = (&password_item, &servers)
        && endpoint.has_password()
    {
        item.refuse("`url` contains a password too", "remove it from `url`");
    }
    let tls = servers.as_ref().and_then(|servers| {
        let has_tls = servers.endpoints().first().is_some_and(Endpoint::has_tls);
        tls(&mut section, &keys::TLS, has_tls)
    });
    let writer = section.section(&keys::WRITER).and_then(writer);
    let prefix = match section.take(&keys::PREFIX).and_then(|item| item.text()) {
        Some(text) if text.as_str().chars().any(char::is_control) => {
            text.refuse("has control characters", "write plain text, such as \"authgate:\"");
            String::new()
        }
        Some(text) => text.into_string(),
        None => keys::PREFIX.default(),
    };
    let timeout = section.read(&keys::TIMEOUT);
    let invalidation = section.read(&keys::INVALIDATION);
    let digests = digests(&mut section, &keys::DIGEST, keys::DEFAULT_DIGEST);
    let seal = section.take(&keys::SEAL).as_ref().and_then(seal);
    Some(RedisSettings {
        servers: servers?,
        username,
        password,
        writer,
        tls,
        prefix,
        timeout,
        invalidation,
        digests,
        seal,
    })
}

/// The key is the whole file.
fn seal(item: &Item<'_>) -> Option<Seal> {
    let seal = Seal::new(&keys::SEAL.read(item)?);
    seal.map_err(|error| {
        let help =
            "write `seal = { file = \"seal.key\" }`, and the file with `umask 077; head -c 32 /dev/urandom > seal.key`";
        item.refuse(error.to_string(), help);
    })
    .ok()
}

/// `writer`: the role that writes, where the other one may only read.
fn writer(mut section: Section<'_>) -> Option<Login> {
    let username = section.required(&keys::writer::USERNAME);
    let password = section.required(&keys::writer::PASSWORD);
    Some(Login {
        username: username?,
        password: password?,
    })
}

fn embedded(mut section: Section<'_>) -> Option<EmbeddedSettings> {
    let item = section.require(&keys::FILE)?;
    let file = keys::FILE.read(&item)?;
    if !file.exists() {
        item.warn(
            format!(
                "{} does not exist yet: until it does, routes that need it answer 503",
                file.display()
            ),
            "create it with `authgate user put` or `authgate token create`",
        );
    }
    Some(EmbeddedSettings {
        file,
        digests: digests(&mut section, &keys::DIGEST, keys::DEFAULT_DIGEST),
    })
}
